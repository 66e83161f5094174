"""How LFR is trained: the structure reconstructor, then the texture generator and its critic.

Zhang, Liu:
"Face Image Restoration Based on Latent Feature Reconstruction and Attention Mechanism".
Marks: P, the paper; C, our choice where it leaves something open (no code is published), with the
reason.

  structure  200,000 steps (C)    pSp's encoder, through a frozen StyleGAN2:
                                  L2 + 0.8 LPIPS + 0.1 ID + 6 L_hole + L_valid (P)
  texture    300,000 x 5 steps (C) critic and generator: 10 L_perc + L_adv + 100 L1 (P)

Images are in [-1, 1] in every loss. The structure is made at `model.size` and resized if the
picture has another size. In the second phase the encoder with its norms is frozen, and StyleGAN2
uses its stored noise. With `critic_batches='fresh'` (C: as WGAN-GP) the critic is stepped in every
step of the second phase and the generator in every `critic_steps`-th one. With 'same', each step
takes `critic_steps` critic steps on one batch and one generator step.

StyleGAN2 is not a constant but a network of the recipe that no update trains. So checkpoints and
exported weights have everything that inference needs. It comes from `model.stylegan_file`: a
StyleGAN2 or pSp file, or 'init_from' if config.init_from provides it. Without one ('') training
does not start, unless `model.stand_in` asks for a small untrained StyleGAN2, to try the program;
the encoder then only learns to work around it. A warning is logged, and the sample pictures say it.

Differs from the paper:
  - L_d is printed with the expectation over generated images twice, and without the gradient
    penalty of WGAN-GP, although the text names WGAN-GP;
  - L_adv is printed as +E[D], which would make outputs look fake under L_d: here -E[D];
  - the perceptual term is printed with the structure's output, a constant in this phase: here it
    uses the texture generator's output;
  - learning rates "10e-3" and "10e-4" are read as 1e-3 and 1e-4: 1e-2 diverges for pSp;
  - attention keys are the cells of a level without any pixel of the hole (P: "blocks outside the
    mask"), though the features of those beside it have seen the hole; `attention_keys='clear'`
    leaves them out, which keeps a median of 10 of the 64 cells of level 6, instead of 42 (400 draws
    of the config's masks);
  - 2-norms without a divisor are mean squared differences, as in pSp, which the weights are from.

Pictures without a known pixel train no structure: their terms are logged and have no gradient.

Ablations (table 2): `structure=False, attention_from=(6, 6, 6)`, and the latter alone.

Logged terms include their weights, so they sum to 'total'.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.features import arcface, lpips, vgg
from jaxinpaint.layers.stylegan2_networks import Generator as StyleGAN2
from jaxinpaint.layers.stylegan2_networks import latent_count
from jaxinpaint.losses import adversarial
from jaxinpaint.losses.reconstruction import absolute_difference
from jaxinpaint.recipe import (
  Batch,
  Constants,
  Inference,
  Loss,
  Outputs,
  Phase,
  Recipe,
  Stats,
  Update,
  Variables,
)
from jaxinpaint.systems._shared import checks, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.lfr import networks, published_parts
from jaxinpaint.systems.lfr.encoder import Encoder

VGG_DEPTH = 16
STAND_IN = dict(size=64, max_channels=64, mlp_layers=2)  # of the untrained StyleGAN2
WEIGHTS = (
  *('l2', 'lpips', 'id', 'structure_hole', 'structure_valid'),  # of the structure
  *('perceptual', 'adversarial', 'l1', 'gradient_penalty'),  # of the texture
)


def default_config() -> ConfigDict:
  """The paper's settings and our choices."""
  model = dict(
    size=256,  # P: side of the structure
    critic_size=256,  # P: of the critic's images, which is config.data.size
    structure=True,  # False: ablation, the texture generator sees the damaged picture
    attention_from=(6, 5, 4),  # P; (6, 6, 6): ablation
    texture_width=32,  # C
    softmax_scale=10.0,  # C
    attention_keys='known',  # P: all blocks outside the hole; 'clear': HiFill's stricter rule
    critic_width=64,  # C
    stylegan_file='',  # see the module's text
    stand_in=False,  # True: a small untrained StyleGAN2, to try the program
    stylegan_size=1024,  # C: that of the published files
    stylegan_channel_multiplier=2,
    stylegan_mlp_layers=8,
    style_dim=512,
    encoder_file='',  # IR-SE50, from which the encoder's body starts; '': random
    encoder_width=64,
    encoder_depths=(3, 4, 14, 3),
    mask_channel=False,  # C: the mask as a fourth input of the encoder
  )
  loss = dict(
    l2=1.0,  # P
    lpips=0.8,  # P
    id=0.1,  # P
    structure_hole=6.0,  # P
    structure_valid=1.0,  # P
    perceptual=10.0,  # P
    adversarial=1.0,  # P
    l1=100.0,  # P
    gradient_penalty=10.0,  # C: WGAN-GP's
    gp_masked=False,  # C
    critic_steps=5,  # C: WGAN-GP's
    critic_batches='fresh',  # C; or 'same'
    vgg_file='',
    vgg_layers=('pool1', 'pool2', 'pool3'),  # C: PConv's
    arcface_file='',  # '': from the cache
    lpips_trunk_file='',
    lpips_heads_file='',
  )
  phases = dict(structure=200_000, texture=1_500_000)
  return ConfigDict(dict(system='lfr', dtype='float32', model=model, loss=loss, phases=phases))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  model, nets = config.model, _generators(config)
  splice = _splice(nets, model)

  def output(variables, constants, image, mask, rng):
    spliced = splice(variables, image, mask)
    return jnp.clip(modules.run(nets, 'texture', variables, spliced, mask)['out'], 0, 1)

  def pictures(variables, constants, image, mask, rng):
    structure, _ = _structure(nets, model)(variables, image, mask)
    label = 'structure-untrained-stylegan2' if model.stand_in else 'structure'
    return {label: jnp.clip(structure, 0, 1)}

  return Inference(
    networks=tuple(nets),
    init=modules.initializer(nets, _arguments(nets, model)),
    output=output,
    load_constants=functools.partial(_warn_of_stand_in, model),
    multiple=networks.MULTIPLE,
    min_side=networks.MULTIPLE,
    whole_picture=model.structure,  # it is made at `model.size`
    pictures=pictures if model.structure else None,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A loss of weight 0 is not built and needs no file; a phase of 0 steps is left out.
  """
  running = inference(config)
  _check_training(config)
  model, loss, steps = config.model, config.loss, config.phases
  nets, dtype = _generators(config), modules.DTYPES[config.dtype]
  splice = _splice(nets, model)
  if loss.adversarial:
    nets['critic'] = networks.Critic(model.critic_size, model.critic_width, dtype)

  def forward_structure(variables, constants, batch, rng):
    out, changed = _structure(nets, model)(variables, batch['image'], batch['mask'], rng)
    return {'out': modules.only_of_known(out, batch['mask'])}, changed

  def forward_texture(variables, constants, batch, rng):
    variables = variables.at_rest(*(name for name in variables.params if name != 'texture'))
    spliced = lax.stop_gradient(splice(variables, batch['image'], batch['mask']))
    return {'out': modules.run(nets, 'texture', variables, spliced, batch['mask'])['out']}, {}

  phases = []
  if model.structure and steps.structure:
    update = Update('structure', ('encoder',), _structure_loss(loss, dtype), 'structure')
    phases.append(Phase('structure', steps.structure, forward_structure, (update,)))
  if steps.texture:
    fresh, every, updates = loss.critic_batches == 'fresh', 1, []
    if 'critic' in nets:
      every, repeat = (loss.critic_steps, 1) if fresh else (1, loss.critic_steps)
      critic = _critic_loss(loss, nets)
      updates.append(Update('critic', ('critic',), critic, 'critic', repeat=repeat))
    painting = _texture_loss(loss, nets, dtype)
    updates.append(Update('texture', ('texture',), painting, 'texture', every=every))
    phases.append(Phase('texture', steps.texture, forward_texture, tuple(updates)))
  return Recipe(
    running,
    networks=tuple(nets),
    init=modules.initializer(nets, _arguments(nets, model)),
    phases=tuple(phases),
    load_constants=functools.partial(_load_constants, loss, model),
    start=functools.partial(_start, nets, model),
    pretrained=('stylegan',) if model.structure and model.stylegan_file == 'init_from' else (),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and removes the terms that need files; changes `config`."""
  config.model.update(
    dict(size=64, critic_size=64, texture_width=4, critic_width=4, stylegan_file='', stand_in=True)
  )
  config.model.update(dict(style_dim=16, encoder_file='', encoder_width=8))
  config.model.encoder_depths = (1, 1, 1, 1)
  config.loss.update(dict(lpips=0.0, id=0.0, perceptual=0.0, critic_steps=2))
  config.phases.update(dict(structure=2 if config.phases.structure else 0, texture=3))
  config.training.steps = sum(config.phases.values())


def _generators(config: ConfigDict) -> dict[str, Any]:
  """All networks but the critic."""
  model, dtype = config.model, modules.DTYPES[config.dtype]
  nets: dict[str, Any] = {}
  if model.structure:
    published = dict(
      size=model.stylegan_size,
      channel_multiplier=model.stylegan_channel_multiplier,
      mlp_layers=model.stylegan_mlp_layers,
    )
    settings = STAND_IN if model.stand_in else published
    nets['stylegan'] = StyleGAN2(style_dim=model.style_dim, dtype=dtype, **settings)
    nets['encoder'] = Encoder(
      styles=latent_count(settings['size']),
      size=model.size,
      in_channels=4 if model.mask_channel else 3,
      width=model.encoder_width,
      depths=tuple(model.encoder_depths),
      style_dim=model.style_dim,
      dtype=dtype,
    )
  nets['texture'] = networks.Texture(
    width=model.texture_width,
    attention_from=tuple(model.attention_from),
    softmax_scale=model.softmax_scale,
    attention_keys=model.attention_keys,
    dtype=dtype,
  )
  return nets


def _arguments(
  nets: dict[str, Any], model: ConfigDict
) -> Callable[[int, int], dict[str, tuple[modules.Shape, ...]]]:
  def arguments(height, width):
    critic, side = model.critic_size, model.size
    shapes = {'critic': ((critic, critic, 3),), 'texture': ((64, 64, 3), (64, 64, 1))}
    if 'encoder' in nets:
      encoder = nets['encoder']
      shapes['encoder'] = ((side, side, encoder.in_channels),)
      shapes['stylegan'] = ((encoder.styles, model.style_dim),)
    return shapes

  return arguments


def _structure(nets: dict[str, Any], model: ConfigDict) -> Callable[..., tuple[jax.Array, Stats]]:
  """(variables, image, mask, rng or None) -> (structure in about [0,1], changed statistics).

  With `rng` it trains: batch statistics and random noise.
  """

  def structure(variables, image, mask, rng=None):
    height, width = image.shape[1:3]
    side = (model.size, model.size)
    hole = mask.astype(jnp.float32)
    x = jnp.where(hole > 0, 0.0, 2 * image - 1)
    if (height, width) != side:
      x = jax.image.resize(x, (x.shape[0], *side, 3), 'linear')
      hole = (jax.image.resize(hole, (hole.shape[0], *side, 1), 'linear') > 0).astype(jnp.float32)
      x = jnp.where(hole > 0, 0.0, x)
    if model.mask_channel:
      x = jnp.concatenate([x, hole], -1)
    if rng is None:
      noise = dict(noise='stored')
      codes, changed = modules.run(nets, 'encoder', variables, x), {}
    else:
      noise = dict(noise='random', rngs={'noise': rng})
      codes, changed = modules.train_pass(nets, 'encoder', variables, x)
    codes = codes + variables.stats['stylegan']['buffers']['latent_avg']
    out = modules.run(nets, 'stylegan', variables.at_rest('stylegan'), codes, **noise)
    out = (out + 1) / 2
    if out.shape[1] > model.size:
      out = arrays.adaptive_avg_pool(out, *side)
    return arrays.resize_bilinear(out, height, width), changed

  return structure


def _splice(nets: dict[str, Any], model: ConfigDict) -> Callable[..., jax.Array]:
  """(variables, image, mask) -> the picture with the structure in its hole, or gray without one."""

  def splice(variables, image, mask):
    if not model.structure:
      return jnp.where(mask > 0, 0.5, image)  # C: 0 in [-1, 1]
    structure, _ = _structure(nets, model)(variables, image, mask)
    return arrays.compose(jnp.clip(structure, 0, 1), image, mask)

  return splice


def _structure_loss(loss: ConfigDict, dtype: Any) -> Loss:
  def structure_loss(variables, constants, outputs, batch, rng):
    out, image, mask = outputs['out'], batch['image'], batch['mask']
    difference = 2 * absolute_difference(out, image)
    terms = {
      'l2': lambda: jnp.square(2 * (out - image)).mean(),
      'lpips': lambda: lpips.distance(constants['lpips'], out, image, dtype=dtype).mean(),
      'id': lambda: arcface.id_loss(constants['arcface'], out, image, dtype),
      'structure_hole': lambda: (mask * difference).mean(),
      'structure_valid': lambda: ((1 - mask) * difference).mean(),
    }
    return total({name: loss[name] * term() for name, term in terms.items() if loss[name]})

  return structure_loss


def _pasted(outputs: Outputs, batch: Batch) -> jax.Array:
  """The completed image in [-1, 1], the critic's range."""
  return 2 * jnp.where(batch['mask'] > 0, outputs['out'], batch['image']) - 1


def _texture_loss(loss: ConfigDict, nets: Networks, dtype: Any) -> Loss:
  layers = tuple(loss.vgg_layers)

  def texture_loss(variables, constants, outputs, batch, rng):
    out, image = outputs['out'], batch['image']
    metrics = {}
    if loss.perceptual:
      see = lambda x: vgg.apply(constants['vgg'], x, layers, depth=VGG_DEPTH, dtype=dtype)
      made, wanted = see(out), see(image)
      metrics['perceptual'] = sum(jnp.square(made[n] - wanted[n]).mean() for n in layers)
    if 'critic' in nets:
      judged = modules.run(nets, 'critic', variables, _pasted(outputs, batch))
      metrics['adversarial'] = -judged.mean()
    if loss.l1:
      metrics['l1'] = 2 * absolute_difference(out, image).mean()
    return total({name: loss[name] * value for name, value in metrics.items()})

  return texture_loss


def _critic_loss(loss: ConfigDict, nets: Networks) -> Loss:
  exact = {'critic': nets['critic'].clone(dtype=jnp.float32)}  # the penalty's

  def critic_loss(variables, constants, outputs, batch, rng):
    judge = lambda x, nets=nets: modules.run(nets, 'critic', variables, x)
    fake, real = lax.stop_gradient(_pasted(outputs, batch)), 2 * batch['image'] - 1
    metrics = {'wasserstein': sum(adversarial.wasserstein.discriminator(judge(real), judge(fake)))}
    shown = {}
    if loss.gradient_penalty:
      penalty, slopes = adversarial.gradient_penalty(
        functools.partial(judge, nets=exact),
        real,
        fake,
        rng,
        mask=batch['mask'] if loss.gp_masked else None,
      )
      metrics['penalty'] = loss.gradient_penalty * penalty
      shown['slope'] = slopes.mean()
    return total(metrics, shown=shown)

  return critic_loss


def _warn_of_stand_in(model: ConfigDict, *, shapes_only: bool = False) -> Constants:
  """No constants; logs a warning if StyleGAN2 is not the pretrained one."""
  if model.structure and model.stand_in:
    logging.warning(
      'An untrained StyleGAN2 of %d pixels takes the place of the pretrained one: for that, set '
      'config.model.stand_in=False and config.model.stylegan_file to a file of '
      'rosinality/stylegan2-pytorch or pSp. This run says nothing about the published system.',
      STAND_IN['size'],
    )
  return {}


def _load_constants(loss: ConfigDict, model: ConfigDict, *, shapes_only: bool = False) -> Constants:
  """The frozen networks of all losses whose weight is not 0.

  Raises:
    ValueError: nothing says where StyleGAN2 comes from.
  """
  if model.structure and not (model.stylegan_file or model.stand_in or shapes_only):
    raise ValueError(
      "config.model.stylegan_file is '', and LFR needs a pretrained StyleGAN2: give a file of "
      "rosinality/stylegan2-pytorch or pSp, or 'init_from' if config.init_from brings it; "
      '--config.model.stand_in=True trains around an untrained small one, to try the program'
    )
  constants = dict(_warn_of_stand_in(model))
  if loss.perceptual:
    constants['vgg'] = vgg.load_down_to(
      loss.vgg_layers, VGG_DEPTH, loss.vgg_file or None, shapes_only=shapes_only
    )
  if model.structure and loss.lpips:
    trunk, heads = loss.lpips_trunk_file or None, loss.lpips_heads_file or None
    constants['lpips'] = lpips.load('alex', trunk, heads, shapes_only=shapes_only)
  if model.structure and loss.id:
    constants['arcface'] = arcface.load(loss.arcface_file or None, shapes_only=shapes_only)
  return constants


def _start(nets: dict[str, Any], model: ConfigDict) -> Variables:
  """StyleGAN2 and the encoder's body, if the config names their files."""
  params, stats = {}, {}
  if 'stylegan' not in nets:
    return Variables(params, stats)
  if model.stylegan_file and model.stylegan_file != 'init_from':
    stylegan = published_parts.load_generator(model.stylegan_file, nets['stylegan'])
    params['stylegan'] = stylegan['params']
    stats['stylegan'] = {'buffers': stylegan['buffers']}
  if model.encoder_file:
    body = arcface.load(model.encoder_file)
    params['encoder'], stats['encoder'] = published_parts.body_of(body, nets['encoder'].in_channels)
  return Variables(params, stats)


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.attention_keys', model.attention_keys, ('known', 'clear'))
  if model.stand_in and model.stylegan_file:
    raise ValueError(
      f'config.model.stand_in takes the place of config.model.stylegan_file {model.stylegan_file!r}'
      ': set one of the two'
    )
  if len(model.attention_from) != 3 or not all(4 <= a <= 6 for a in model.attention_from):
    raise ValueError(
      f'config.model.attention_from {tuple(model.attention_from)} must be three of the levels 4 to '
      '6, for the levels 1, 2 and 3'
    )
  if model.size < 16 or model.size & (model.size - 1):
    raise ValueError(f'config.model.size {model.size} must be a power of two, at least 16')
  if model.critic_size % 64 or model.critic_size < 64:
    raise ValueError(f'config.model.critic_size {model.critic_size} must be a multiple of 64')


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  known, loss = default_config(), config.loss
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], known[section])
  checks.weights(loss, WEIGHTS, needed=False)
  checks.one_of('loss.critic_batches', loss.critic_batches, ('fresh', 'same'))
  checks.count('loss.critic_steps', loss.critic_steps)
  checks.phases(config.phases, last='texture')
  if config.phases.structure and not config.model.structure:
    raise ValueError('config.model.structure=False: set config.phases.structure=0 too')
