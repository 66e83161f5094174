"""How MAT is trained: non-saturating critics of both stages, R1, a perceptual loss.

Li, Lin, Zhou, Qi, Wang, Jia: "MAT: Mask-Aware Transformer for Large Hole Image Inpainting", CVPR
2022, section 3.6. Weights and details are those of the authors' code, which follows StyleGAN2-ADA.
Both pictures are complete: the known pixels are pasted into them.

  generator = softplus(-D(out)) + softplus(-D1(stage 1))
              + perceptual * (1/4 * L1(conv4_4) + 1/2 * L1(conv5_4)), of out, by VGG19
  critics   = softplus(D(out)) + softplus(-D(x)) + softplus(D1(stage 1)) + softplus(-D1(x))
  r1        = every 16 steps, times 16: r1 / 2 * (|dD/dx|^2 + |dD1/dx|^2)

Critics see the mask of known pixels minus 1/2 beside the picture. All follow from one pass. In
training noise is random, latents are drawn halfway to their average, and in half of the pictures
those from a random layer on come from another z. Logged terms include their weights.

Differs from the paper: nothing that we know of.
Differs from the reference code:
  - a minibatch deviation is over `deviation_group` pictures of the whole batch. There it is over
    the four that a device has, although 8 are configured;
  - the critics' fakes are of the pass that trains the generator, not of a further one;
  - each picture has its own layer at which latents are mixed; there it is one for the batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint.features import vgg
from jaxinpaint.layers.stylegan2_networks import NOISES, Discriminator, judged
from jaxinpaint.losses import adversarial, perceptual
from jaxinpaint.recipe import (
  Constants,
  Forward,
  Inference,
  LoadConstants,
  Loss,
  Phase,
  Recipe,
  Update,
  Variables,
)
from jaxinpaint.systems._shared import checks, lazy_r1, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.mat import networks as networks_lib

VGG_DEPTH = 19
VGG_LAYERS = {'conv4_4': 1 / 4, 'conv5_4': 1 / 2}  # before their activations
# {critic: which of the outputs it judges}
JUDGED = {'critic': 'out', 'critic_stage1': 'stage1'}
WEIGHTS = ('adversarial', 'perceptual', 'r1')


def default_config() -> ConfigDict:
  """The networks and weights of the authors' code, for 512 pixels."""
  model = dict(
    size=512,  # 256 is published, too; pictures have sides of its multiples
    tokens=64,
    features=180,
    depths=networks_lib.DEPTHS,
    heads=6,
    style_dim=512,
    mlp_layers=8,
    max_channels=512,
    truncation=1.0,  # at inference: below 1 completions are less varied
    noise='stored',  # at inference; 'random', or 'none' as IOPaint
  )
  loss = dict(
    adversarial=1.0,
    perceptual=0.1,
    vgg_file='',
    r1=10.0,
    r1_every=16,
    style_mixing=0.5,  # probability
    truncation=0.5,  # in training
    deviation_group=4,
  )
  return ConfigDict(dict(system='mat', dtype='float32', model=model, loss=loss))


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks for 64 pixels, without the term that needs a file; in place."""
  config.model.update(dict(size=64, tokens=32, features=12, heads=2, max_channels=16))
  config.model.update(dict(style_dim=16, mlp_layers=2))
  config.model.depths = (1, 2, 1, 1, 1)
  config.loss.update(dict(perceptual=0.0, r1_every=2))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  networks, model = _generator(config), config.model

  def complete(variables, image, mask, rng):
    rng_z, rng_noise, rng_keep = jax.random.split(rng, 3)
    z = jax.random.normal(rng_z, (image.shape[0], model.style_dim))
    run = lambda *args, **settings: modules.run(networks, 'generator', variables, *args, **settings)
    w = run(z, model.truncation, method='latents')
    outputs = run(image, mask, w, model.noise, rngs=dict(noise=rng_noise, keep=rng_keep))
    return {name: jnp.clip(outputs[name], 0, 1) for name in ('out', 'stage1')}

  def output(variables, constants, image, mask, rng, /, **inputs):
    return complete(variables, image, mask, rng)['out']

  def pictures(variables, constants, image, mask, rng, /, **inputs):
    return {'stage1': complete(variables, image, mask, rng)['stage1']}

  return Inference(
    networks=('generator',),
    init=modules.initializer(networks, _arguments(config)),
    output=output,
    multiple=model.size,
    min_side=model.size,
    samples=True,
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A loss of weight 0 is not built and needs no file.
  """
  running = inference(config)
  loss = config.loss
  _check_loss(loss)
  networks: dict[str, Any] = _generator(config) | (critics(config) if loss.adversarial else {})
  dtype = modules.DTYPES[config.dtype]
  updates = [
    Update('generator', ('generator',), _generator_loss(loss, networks, dtype), 'generator')
  ]
  if loss.adversarial:
    judges = tuple(JUDGED)
    updates.append(Update('critics', judges, _critics_loss(loss, networks), 'critics'))
    if loss.r1:
      when = dict(gamma=loss.r1, every=loss.r1_every, optimizer='critics')
      updates.append(lazy_r1.update(networks, judges, judged, **when))
  forward = _forward(config, networks)
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, _arguments(config)),
    phases=(Phase('joint', -1, forward, tuple(updates)),),
    load_constants=_load_constants(loss),
  )


def critics(config: ConfigDict) -> dict[str, Discriminator]:
  """The critics by name, that of stage 1 with half of the channels."""
  model, made = config.model, {}
  for name, multiplier in zip(JUDGED, (2, 1), strict=True):
    made[name] = Discriminator(
      model.size,
      channel_multiplier=multiplier,
      max_channels=model.max_channels * multiplier // 2,
      group=config.loss.deviation_group,
      dtype=modules.DTYPES[config.dtype],
    )
  return made


def _generator(config: ConfigDict) -> dict[str, networks_lib.Generator]:
  fields = {k: v for k, v in config.model.items() if k not in ('truncation', 'noise', 'depths')}
  depths, dtype = tuple(config.model.depths), modules.DTYPES[config.dtype]
  return {'generator': networks_lib.Generator(**fields, depths=depths, dtype=dtype)}


def _arguments(config: ConfigDict) -> modules.Arguments:
  size = config.model.size

  def arguments(height, width):
    image, mask = (height, width, 3), (height, width, 1)
    critics_see = {name: ((size, size, 4),) for name in JUDGED}
    return {'generator': (image, mask, (config.model.style_dim,)), **critics_see}

  return arguments


def _forward(config: ConfigDict, networks: Networks) -> Forward:
  model, loss = config.model, config.loss
  count = networks_lib.latent_count(model.size)

  def latents(variables, z, train):
    network, own = networks['generator'], variables.of('generator')
    method = dict(method='latents', train=train)
    if not train:
      return network.apply(own, z, loss.truncation, **method), {}
    w, changed = network.apply(own, z, loss.truncation, mutable=['buffers'], **method)
    return w, {'generator': changed}

  def forward(variables, constants, batch, rng):
    image, mask = batch['image'], batch['mask']
    if loss.adversarial and image.shape[1:3] != (model.size, model.size):
      raise ValueError(
        f'pictures of {image.shape[1]} x {image.shape[2]} for critics of {model.size} pixels: set '
        'config.data.size and config.model.size to the same number'
      )
    rng_z, rng_mixing, rng_noise, rng_keep = jax.random.split(rng, 4)
    z = jax.random.normal(rng_z, (len(image), model.style_dim))
    w, changed = latents(variables, z, True)
    w = jnp.repeat(w[:, None], count, axis=1)
    if loss.style_mixing:
      rng_z, rng_mixes, rng_layer = jax.random.split(rng_mixing, 3)
      other, _ = latents(variables.with_stats(changed), jax.random.normal(rng_z, z.shape), False)
      mixes = jax.random.bernoulli(rng_mixes, loss.style_mixing, (len(image), 1))
      layer = jax.random.randint(rng_layer, (len(image), 1), 1, count)
      first = jnp.arange(count) < jnp.where(mixes, layer, count)
      w = jnp.where(first[..., None], w, other[:, None])
    rngs = dict(noise=rng_noise, keep=rng_keep)
    outputs = modules.run(networks, 'generator', variables, image, mask, w, 'random', rngs=rngs)
    return {name: outputs[name] for name in JUDGED.values()}, changed

  return forward


def _judge(
  networks: Networks, name: str, variables: Variables, picture: jax.Array, mask: jax.Array
) -> jax.Array:
  """Logits f32[B,1] of pictures f32[B,H,W,3] about [0,1]."""
  return modules.run(networks, name, variables, judged(2 * picture - 1, mask))


def _generator_loss(loss: ConfigDict, networks: Networks, dtype: Any) -> Loss:
  kind = adversarial.non_saturating

  def generator_loss(variables, constants, outputs, batch, rng):
    metrics = {}
    if loss.adversarial:
      for name, of in JUDGED.items():
        logits = _judge(networks, name, variables, outputs[of], batch['mask'])
        metrics[f'adversarial_{of}'] = loss.adversarial * kind.generator(logits)
    if loss.perceptual:
      see = lambda x: vgg.apply(
        constants['vgg'], x, tuple(VGG_LAYERS), depth=VGG_DEPTH, dtype=dtype
      )
      value = perceptual.perceptual(see(outputs['out']), see(batch['image']), VGG_LAYERS)
      metrics['perceptual'] = loss.perceptual * value
    return total(metrics)

  return generator_loss


def _critics_loss(loss: ConfigDict, networks: Networks) -> Loss:
  kind = adversarial.non_saturating

  def critics_loss(variables, constants, outputs, batch, rng):
    metrics = {}
    for name, of in JUDGED.items():
      fake = jax.lax.stop_gradient(outputs[of])
      logits = [_judge(networks, name, variables, x, batch['mask']) for x in (batch['image'], fake)]
      real_term, fake_term = kind.discriminator(*logits)
      metrics |= {f'real_{of}': real_term, f'fake_{of}': fake_term}
    return total(metrics)

  return critics_loss


def _load_constants(loss: ConfigDict) -> LoadConstants:
  def load(*, shapes_only: bool = False) -> Constants:
    if not loss.perceptual:
      return {}
    file = loss.vgg_file or None
    params = vgg.load_down_to(tuple(VGG_LAYERS), VGG_DEPTH, file, shapes_only=shapes_only)
    return {'vgg': params}

  return load


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.noise', model.noise, NOISES)
  for name in ('size', 'tokens', 'features', 'heads', 'style_dim', 'mlp_layers', 'max_channels'):
    checks.count(f'model.{name}', model[name])
  networks_lib.check_size(model.size, model.tokens)
  if len(model.depths) != len(networks_lib.DEPTHS):
    raise ValueError(f'config.model.depths {tuple(model.depths)} must be of five stages')
  for depth in model.depths:
    checks.count('model.depths', depth)
  if model.features % model.heads:
    raise ValueError(
      f'config.model.features {model.features} must be a multiple of config.model.heads '
      f'{model.heads}'
    )
  if model.max_channels % 2:
    raise ValueError(
      f'config.model.max_channels {model.max_channels} must be even: the critic of stage 1 has half'
    )
  _check_share('model.truncation', model.truncation)


def _check_loss(loss: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, WEIGHTS, needed=False)
  checks.weights(loss, ('adversarial', 'perceptual'))
  for name in ('r1_every', 'deviation_group'):
    checks.count(f'loss.{name}', loss[name])
  for name in ('style_mixing', 'truncation'):
    _check_share(f'loss.{name}', loss[name])


def _check_share(name: str, value: float) -> None:
  if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
    raise ValueError(f'config.{name} {value!r} must be a number in [0, 1]')
