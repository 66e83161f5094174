"""How LFR is trained: the structure reconstructor, then the texture generator and its critic.

Zhang, Liu:
"Face Image Restoration Based on Latent Feature Reconstruction and Attention Mechanism".
Marks: P, the paper; C, our choice where it is silent (no code is published), with the reason.

  structure  200,000 steps (C)    pSp's encoder, through a frozen StyleGAN2:
                                  L2 + 0.8 LPIPS + 0.1 ID + 6 L_hole + L_valid (P)
  texture    300,000 x 5 steps (C) critic and generator: 10 L_perc + L_adv + 100 L1 (P)

Images are in [-1, 1] in every loss. The structure is made at `model.size` and resized where the
picture has another size; in the second phase the encoder rests, its norms too, and StyleGAN2 uses
its stored noise. Of each second-phase step the critic is stepped, and the generator of every
`critic_steps`-th (`critic_batches='fresh'`, C: WGAN-GP's), or the critic that many times on one
batch ('same').

StyleGAN2 is a network of the recipe that no update trains, not a constant: so checkpoints and
exported weights hold all that inference needs. It comes from `model.stylegan_file`: a StyleGAN2 or
pSp file, or 'init_from' where config.init_from brings it. Without one ('') a small untrained
StyleGAN2 stands in, to try the machinery: the structure then can only be learned around it. That is
logged as a warning, and the sample pictures say it.

Differs from the paper:
  - L_d is printed with the expectation over generated images twice, and without the gradient
    penalty of the WGAN-GP that it names;
  - L_adv is printed +E[D], which would push outputs to look fake under L_d: here -E[D];
  - the perceptual term is printed of the structure's output, a constant in this phase: here of the
    texture generator's;
  - learning rates "10e-3" and "10e-4" are read as 1e-3 and 1e-4: 1e-2 diverges for pSp;
  - bare 2-norms are mean squared differences, as in pSp, from where the weights are.

Ablations (table 3): `structure=False, attention_from=(6, 6, 6)`, and the latter alone.

Logged terms carry their weights, so they sum to 'total'.
"""

import math
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
  Phase,
  Recipe,
  Update,
)
from jaxinpaint.systems.lfr import networks, published_parts
from jaxinpaint.systems.lfr.encoder import Encoder

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
VGG_DEPTH = 16
STAND_IN = dict(size=64, max_channels=64, mlp_layers=2)  # of the untrained StyleGAN2
WEIGHTS = {
  'structure': ('l2', 'lpips', 'id', 'structure_hole', 'structure_valid'),
  'texture': ('perceptual', 'adversarial', 'l1', 'gradient_penalty'),
}


def default_config() -> ConfigDict:
  """The paper's settings and our choices."""
  model = dict(
    size=256,  # P: side of the structure
    critic_size=256,  # P: of the critic's images, which is config.data.size
    structure=True,  # False: ablation, the texture generator sees the damaged picture
    attention_from=(6, 5, 4),  # P; (6, 6, 6): ablation
    texture_width=32,  # C
    softmax_scale=10.0,  # C
    critic_width=64,  # C
    stylegan_file='',  # see the module's text
    stylegan_size=1024,  # C: that of the published files
    stylegan_channel_multiplier=2,
    stylegan_mlp_layers=8,
    style_dim=512,
    encoder_file='',  # IR-SE50, where the encoder's body begins; '': random
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


def make(config: ConfigDict) -> Recipe:
  """The recipe of `config`; raises ValueError for fields and values that make no sense.

  A loss of weight 0 is not built and needs no file; a phase of 0 steps is left out.
  """
  _check(config)
  model, loss, dtype = config.model, config.loss, DTYPES[config.dtype]
  nets = _networks(model, loss, dtype)
  structure = _structure(nets, model) if model.structure else None
  known = lambda image, mask: jnp.where(mask > 0, 0.5, image)  # C: 0 in [-1, 1]

  def splice(params, stats, image, mask):
    if structure is None:
      return known(image, mask)
    found, _ = structure(params, stats, image, mask)
    return arrays.compose(jnp.clip(found, 0, 1), image, mask)

  def forward_structure(params, stats, constants, batch, rng):
    out, changed = structure(params, stats, batch['image'], batch['mask'], rng)
    return {'out': out}, {'encoder': changed}

  def forward_texture(params, stats, constants, batch, rng):
    image, mask = batch['image'], batch['mask']
    frozen = {n: lax.stop_gradient(p) if n != 'texture' else p for n, p in params.items()}
    spliced = lax.stop_gradient(splice(frozen, stats, image, mask))
    out = nets['texture'].apply({'params': params['texture']}, spliced, mask)['out']
    return {'out': out}, {}

  def output(params, stats, constants, image, mask, rng):
    spliced = splice(params, stats, image, mask)
    out = nets['texture'].apply({'params': params['texture']}, spliced, mask)['out']
    return jnp.clip(out, 0, 1)

  def pictures(params, stats, constants, image, mask, rng):
    label = 'structure' if model.stylegan_file else 'structure-untrained-stylegan2'
    return {label: jnp.clip(structure(params, stats, image, mask)[0], 0, 1)}

  fresh = loss.critic_batches == 'fresh'
  phases = []
  if model.structure and config.phases.structure:
    update = Update('structure', ('encoder',), _structure_loss(loss, dtype), 'structure')
    phases.append(Phase('structure', config.phases.structure, forward_structure, (update,)))
  if config.phases.texture:
    updates = []
    if 'critic' in nets:
      critic = _critic_loss(loss, nets['critic'])
      repeat = 1 if fresh else loss.critic_steps
      updates.append(Update('critic', ('critic',), critic, 'critic', repeat=repeat))
    every = loss.critic_steps if fresh and 'critic' in nets else 1
    painting = _texture_loss(loss, nets.get('critic'), dtype)
    updates.append(Update('texture', ('texture',), painting, 'texture', every=every))
    phases.append(Phase('texture', config.phases.texture, forward_texture, tuple(updates)))
  return Recipe(
    networks=tuple(nets),
    init=_init(nets, model),
    phases=tuple(phases),
    output=output,
    predict_networks=tuple(n for n in nets if n != 'critic'),
    load_constants=_load_constants(loss, model),
    start=_start(nets, model),
    pretrained=('stylegan',) if model.structure and model.stylegan_file == 'init_from' else (),
    multiple=networks.MULTIPLE,
    min_side=networks.MULTIPLE,
    pictures=pictures if model.structure else None,
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks in place, and drops the terms that need files."""
  config.model.update(
    dict(size=64, critic_size=64, texture_width=4, critic_width=4, stylegan_file='')
  )
  config.model.update(dict(style_dim=16, encoder_file='', encoder_width=8))
  config.model.encoder_depths = (1, 1, 1, 1)
  config.loss.update(dict(lpips=0.0, id=0.0, perceptual=0.0, critic_steps=2))
  config.phases.update(dict(structure=2 if config.phases.structure else 0, texture=3))
  config.training.steps = sum(config.phases.values())


def _networks(model: ConfigDict, loss: ConfigDict, dtype: Any) -> dict[str, Any]:
  nets = {}
  if model.structure:
    published = dict(
      size=model.stylegan_size,
      channel_multiplier=model.stylegan_channel_multiplier,
      mlp_layers=model.stylegan_mlp_layers,
    )
    settings = published if model.stylegan_file else STAND_IN
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
    dtype=dtype,
  )
  if loss.adversarial:
    nets['critic'] = networks.Critic(model.critic_size, model.critic_width, dtype)
  return nets


def _init(nets: dict[str, Any], model: ConfigDict) -> Callable:
  def init(rng, batch):
    rngs = dict(zip(nets, jax.random.split(rng, len(nets)), strict=True))
    image = jnp.zeros((1, 64, 64, 3))
    judged = jnp.zeros((1, model.critic_size, model.critic_size, 3))
    inputs = {'critic': (judged,), 'texture': (image, image[..., :1])}
    if 'encoder' in nets:
      inputs['encoder'] = (jnp.zeros((1, model.size, model.size, nets['encoder'].in_channels)),)
      inputs['stylegan'] = (jnp.zeros((1, nets['encoder'].styles, model.style_dim)),)
    found = {name: net.init(rngs[name], *inputs[name]) for name, net in nets.items()}
    params = {name: variables['params'] for name, variables in found.items()}
    stats = {n: {k: v for k, v in f.items() if k != 'params'} for n, f in found.items()}
    return params, {n: s for n, s in stats.items() if s}

  return init


def _structure(nets: dict[str, Any], model: ConfigDict) -> Callable:
  """(params, stats, image, mask, rng or None) -> (structure in about [0,1], encoder's new stats).

  With `rng` it trains: batch statistics and random noise.
  """
  encoder, stylegan = nets['encoder'], nets['stylegan']

  def structure(params, stats, image, mask, rng=None):
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
    variables = {'params': params['encoder'], **stats['encoder']}
    changed = {}
    if rng is None:
      codes = encoder.apply(variables, x)
    else:
      codes, changed = encoder.apply(variables, x, train=True, mutable=['batch_stats'])
    average = stats['stylegan']['buffers']['latent_avg']
    variables = {'params': lax.stop_gradient(params['stylegan']), **stats['stylegan']}
    noise = dict(noise='stored') if rng is None else dict(noise='random', rngs={'noise': rng})
    out = (stylegan.apply(variables, codes + average, **noise) + 1) / 2
    if out.shape[1] > model.size:
      out = arrays.adaptive_avg_pool(out, *side)
    return arrays.resize_bilinear(out, height, width), changed

  return structure


def _structure_loss(loss: ConfigDict, dtype: Any) -> Callable:
  def structure_loss(params, stats, constants, outputs, batch, rng):
    out, image, mask = outputs['out'], batch['image'], batch['mask']
    difference = 2 * absolute_difference(out, image)
    terms = {
      'l2': lambda: jnp.square(2 * (out - image)).mean(),
      'lpips': lambda: lpips.distance(constants['lpips'], out, image, dtype=dtype).mean(),
      'id': lambda: arcface.id_loss(constants['arcface'], out, image, dtype),
      'structure_hole': lambda: (mask * difference).mean(),
      'structure_valid': lambda: ((1 - mask) * difference).mean(),
    }
    metrics = {name: loss[name] * term() for name, term in terms.items() if loss[name]}
    metrics['total'] = sum(metrics.values())
    return metrics['total'], {'metrics': metrics}

  return structure_loss


def _pasted(outputs: Any, batch: Any) -> jax.Array:
  """The completed image in [-1, 1], where the critic sees it."""
  return 2 * jnp.where(batch['mask'] > 0, outputs['out'], batch['image']) - 1


def _texture_loss(loss: ConfigDict, critic: Any, dtype: Any) -> Callable:
  layers = tuple(loss.vgg_layers)

  def texture_loss(params, stats, constants, outputs, batch, rng):
    out, image = outputs['out'], batch['image']
    metrics = {}
    if loss.perceptual:
      see = lambda x: vgg.apply(constants['vgg'], x, layers, depth=VGG_DEPTH, dtype=dtype)
      found, wanted = see(out), see(image)
      metrics['perceptual'] = sum(jnp.square(found[n] - wanted[n]).mean() for n in layers)
    if critic is not None:
      judged = critic.apply({'params': params['critic']}, _pasted(outputs, batch))
      metrics['adversarial'] = -judged.mean()
    if loss.l1:
      metrics['l1'] = 2 * absolute_difference(out, image).mean()
    metrics = {name: loss[name] * value for name, value in metrics.items()}
    metrics['total'] = sum(metrics.values())
    return metrics['total'], {'metrics': metrics}

  return texture_loss


def _critic_loss(loss: ConfigDict, critic: Any) -> Callable:
  exact = critic.clone(dtype=jnp.float32)  # the penalty's

  def critic_loss(params, stats, constants, outputs, batch, rng):
    variables = {'params': params['critic']}
    fake, real = lax.stop_gradient(_pasted(outputs, batch)), 2 * batch['image'] - 1
    terms = adversarial.wasserstein.discriminator(
      critic.apply(variables, real), critic.apply(variables, fake)
    )
    metrics = {'wasserstein': sum(terms)}
    if loss.gradient_penalty:
      penalty, slopes = adversarial.gradient_penalty(
        lambda x: exact.apply(variables, x),
        real,
        fake,
        rng,
        mask=batch['mask'] if loss.gp_masked else None,
      )
      metrics['penalty'] = loss.gradient_penalty * penalty
    total = sum(metrics.values())
    if loss.gradient_penalty:
      metrics['slope'] = slopes.mean()
    return total, {'metrics': {**metrics, 'total': total}}

  return critic_loss


def _load_constants(loss: ConfigDict, model: ConfigDict) -> Callable:
  def load(training):
    """Frozen networks of the losses that have a weight."""
    found = {}
    if model.structure and not model.stylegan_file:
      logging.warning(
        'An untrained StyleGAN2 of %d pixels stands in for the pretrained one: set '
        'config.model.stylegan_file to a file of rosinality/stylegan2-pytorch or pSp. What this '
        'run gives says nothing of the system.',
        STAND_IN['size'],
      )
    if not training:
      return found
    if loss.perceptual:
      deepest = max(name[4] for name in loss.vgg_layers)
      params = vgg.load(VGG_DEPTH, loss.vgg_file or None)
      found['vgg'] = {name: p for name, p in params.items() if name[4] <= deepest}
    if model.structure and loss.lpips:
      found['lpips'] = lpips.load(
        'alex', loss.lpips_trunk_file or None, loss.lpips_heads_file or None
      )
    if model.structure and loss.id:
      found['arcface'] = arcface.load(loss.arcface_file or None)
    return found

  return load


def _start(nets: dict[str, Any], model: ConfigDict) -> Callable:
  def start():
    """StyleGAN2 and the encoder's body, where files of theirs are named."""
    params, stats = {}, {}
    if 'stylegan' not in nets:
      return {}
    if model.stylegan_file and model.stylegan_file != 'init_from':
      found = published_parts.load_generator(model.stylegan_file, nets['stylegan'])
      params['stylegan'] = found['params']
      stats['stylegan'] = {'buffers': found['buffers']}
    if model.encoder_file:
      body = arcface.load(model.encoder_file)
      params['encoder'], stats['encoder'] = published_parts.body_of(
        body, nets['encoder'].in_channels
      )
    return {'params': params, 'stats': stats}

  return start


def _check(config: ConfigDict) -> None:
  """Raises ValueError for what could only fail later, or train nonsense."""
  known = default_config()
  for section in ('model', 'loss', 'phases'):
    extra = sorted(set(config[section]) - set(known[section]))
    lacking = sorted(set(known[section]) - set(config[section]))
    if extra or lacking:
      raise ValueError(
        f'config.{section}: unknown {extra or "none"}, missing {lacking or "none"}; it has: '
        f'{", ".join(sorted(known[section]))}'
      )
  model, loss, phases = config.model, config.loss, config.phases
  if config.dtype not in DTYPES:
    raise ValueError(f'config.dtype {config.dtype!r} must be one of: {", ".join(DTYPES)}')
  for name in (*WEIGHTS['structure'], *WEIGHTS['texture']):
    if not (math.isfinite(loss[name]) and loss[name] >= 0):
      raise ValueError(f'config.loss.{name} {loss[name]!r} must be finite and >= 0 (0: not built)')
  if loss.critic_batches not in ('fresh', 'same') or loss.critic_steps < 1:
    raise ValueError(
      f"config.loss.critic_batches {loss.critic_batches!r} must be 'fresh' or 'same', critic_steps "
      f'{loss.critic_steps!r} at least 1'
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
  if phases.structure < 0 or phases.texture < -1:
    raise ValueError(f'config.phases {phases.to_dict()} must be numbers of steps')
  if phases.structure and not model.structure:
    raise ValueError('config.model.structure=False: set config.phases.structure=0 too')
