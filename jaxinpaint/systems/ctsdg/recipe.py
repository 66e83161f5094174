"""How CTSDG is trained: a generator of texture and structure, a discriminator of both.

Guo, Yang, Huang: "Image Inpainting via Conditional Texture and Structure Dual Generation", ICCV
2021, section 3.4; networks.py has the networks. Marks: C, the released code; P, the paper;
O, ours.

  training      300,000 steps  the generator, then the discriminator, of one forward pass
  fine-tuning                  the same with a lower rate and the generator's batch norms at rest

Both read edges and gray of the picture: in training those of the whole one, hidden by the hole; at
inference those of what is known.

Differs from the paper:
  - L1 weighs the hole 60 and the known pixels 10 (C; the paper has one term of weight 10).

Differs from the released code:
  - gray and edges are made of the picture itself; the code makes them of the normalised picture,
    whose negative values wrap around (`model.wrapped_gray`; set when published weights are
    imported, which have seen no others);
  - at inference edges are not looked for within a pixel of the hole: the code's test takes them
    from the undamaged picture;
  - `loss.vgg_normalize`: the code feeds VGG images in [-1, 1] as they are, and so does the default.

As there, the discriminator's statistics (batch norm, power iterations) move once in the generator's
update and twice in its own, which is of the output that the generator had before its step.

Logged terms carry their weights, so they sum to 'total'.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint.features import vgg
from jaxinpaint.losses import perceptual
from jaxinpaint.losses.reconstruction import absolute_difference
from jaxinpaint.recipe import (
  Phase,
  Recipe,
  Update,
)
from jaxinpaint.systems.ctsdg import networks as networks_lib

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
VGG_DEPTH = 16
WEIGHTS = ('hole', 'valid', 'perceptual', 'style', 'adversarial', 'intermediate')


def default_config() -> ConfigDict:
  """The published settings."""
  model = dict(
    width=64,  # C
    levels=7,  # C; fewer for pictures below 128 pixels
    use_bigff=True,  # P; False: the streams' features are only concatenated
    use_cfa=True,  # P; False: nothing is rebuilt from what resembles it
    discriminator_width=64,  # C
    canny_sigma=2.0,  # C
    wrapped_gray=False,  # O; C is True
  )
  loss = dict(
    hole=60.0,  # C
    valid=10.0,  # C
    perceptual=0.1,  # P
    style=250.0,  # P
    adversarial=0.1,  # P
    intermediate=1.0,  # P
    vgg_file='',
    vgg_layers=('pool1', 'pool2', 'pool3'),  # C
    vgg_normalize=False,  # C
  )
  phases = dict(training=300_000, finetuning=100_000)  # C; O: the code fine-tunes until stopped
  sections = dict(system='ctsdg', dtype='float32', model=model, loss=loss, phases=phases)
  return ConfigDict(sections)


def make(config: ConfigDict) -> Recipe:
  """The recipe of `config`; raises ValueError for fields and values that make no sense.

  A term of weight 0 is not built: without `perceptual` and `style` no VGG is loaded, without
  `adversarial` there is no discriminator. A phase of 0 steps is left out.
  """
  _check(config)
  loss = config.loss
  # A run saved before a field existed was of its default.
  model = default_config().model
  model.update(config.model)
  dtype = DTYPES[config.dtype]
  fields = {name: model[name] for name in ('width', 'levels', 'use_bigff', 'use_cfa')}
  generator = networks_lib.Generator(**fields, dtype=dtype)
  networks = {'generator': generator}
  if loss.adversarial:
    networks['discriminator'] = networks_lib.Discriminator(model.discriminator_width, dtype=dtype)
  judge = _judge(networks['discriminator']) if loss.adversarial else None

  def apply(params, stats, image, mask, canny, gray, **settings):
    variables = {'params': params['generator'], **stats['generator']}
    return generator.apply(variables, image, mask, canny, gray, **settings)

  def forward(frozen_norms):
    def run(params, stats, constants, batch, rng):
      found, changed = apply(
        params,
        stats,
        *(batch[name] for name in ('image', 'mask', 'canny', 'gray')),
        train=True,
        frozen_norms=frozen_norms,
        mutable=['batch_stats'],
      )
      names = ('out', 'projected_image', 'projected_edge')
      return {name: found[name] for name in names}, {'generator': changed}

    return run

  def output(params, stats, constants, image, mask, rng, canny, gray):
    found = apply(params, stats, image, mask, canny, gray)
    return found['out']

  def pictures(params, stats, constants, image, mask, rng, canny, gray):
    found = apply(params, stats, image, mask, canny, gray)
    return {
      'edges': jax.nn.sigmoid(found['projected_edge']),
      'texture': found['projected_image'],
    }

  updates = lambda suffix: tuple(
    Update(name, (name,), function, name + suffix)
    for name, function in (
      ('generator', _generator_loss(loss, judge, dtype)),
      ('discriminator', _discriminator_loss(judge)),
    )
    if name in networks
  )
  phases = tuple(
    Phase(name, config.phases[name], forward(frozen), updates(suffix))
    for name, frozen, suffix in (
      ('training', False, ''),
      ('finetuning', True, '_finetuning'),
    )
    if config.phases[name]
  )
  wrapped = int(model.wrapped_gray)
  return Recipe(
    networks=tuple(networks),
    init=_init(networks, model),
    phases=phases,
    output=output,
    load_constants=_load_constants(loss),
    multiple=2**model.levels,
    min_side=2**model.levels,
    inputs=(f'canny:sigma={model.canny_sigma},wrapped={wrapped}', f'gray:wrapped={wrapped}'),
    pictures=pictures,
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks in place, and drops the terms that need VGG's weights."""
  config.model.update(dict(width=8, levels=5, discriminator_width=8))
  config.loss.update(dict(perceptual=0.0, style=0.0))
  config.phases.update({name: 2 if steps else 0 for name, steps in config.phases.items()})
  config.training.steps = sum(config.phases.values())


def _init(networks: dict[str, Any], model: ConfigDict) -> Callable:
  def init(rng, batch):
    rngs = dict(zip(networks, jax.random.split(rng, len(networks)), strict=True))
    height, width = batch['image'].shape[1:3]
    image, one = jnp.zeros((1, height, width, 3)), jnp.zeros((1, height, width, 1))
    found = {'generator': networks['generator'].init(rngs['generator'], image, one, one, one)}
    if 'discriminator' in networks:
      found['discriminator'] = networks['discriminator'].init(rngs['discriminator'], image, one)
    params = {name: variables['params'] for name, variables in found.items()}
    stats = {
      name: {k: v for k, v in variables.items() if k != 'params'}
      for name, variables in found.items()
    }
    return params, stats

  return init


def _judge(discriminator: Any) -> Callable:
  """(params, stats, image, gray, edges) -> (what the discriminator returns, stats after it)."""

  def judge(params, stats, image, gray, edges=None):
    variables = {'params': params['discriminator'], **stats['discriminator']}
    found, changed = discriminator.apply(
      variables, image, gray, edges, train=True, mutable=['batch_stats', 'spectral']
    )
    return found, {**stats, 'discriminator': {**stats['discriminator'], **changed}}

  return judge


def cross_entropy(logits: jax.Array, target: jax.Array | float) -> jax.Array:
  """f32[]: mean of the binary cross-entropy of sigmoid(logits) with `target` in [0, 1]."""
  target = jnp.broadcast_to(jnp.asarray(target, jnp.float32), logits.shape)
  return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target).mean()


def generator_terms(
  loss: ConfigDict, outputs: Any, batch: Any, features: Callable | None, judged: Any
) -> dict[str, jax.Array]:
  """{term: its value without weight}, of images in [-1, 1] as the code's.

  Args:
    loss: config.loss; only terms with a weight are computed.
    outputs: of the generator.
    batch: with 'canny' and 'gray'.
    features: image f32[B,H,W,3] in [-1, 1] -> {VGG layer: features}.
    judged: what the discriminator returns for the output.
  """
  mask, edges = batch['mask'], batch['canny']
  out, image, projected = (
    2 * x - 1 for x in (outputs['out'], batch['image'], outputs['projected_image'])
  )
  difference = absolute_difference(out, image)
  terms = {}
  if loss.hole:
    terms['hole'] = (mask * difference).mean()
  if loss.valid:
    terms['valid'] = ((1 - mask) * difference).mean()
  if loss.perceptual or loss.style:
    found = [features(x) for x in (out, jnp.where(mask > 0, out, image), image)]
    for name, function in (('perceptual', perceptual.perceptual), ('style', perceptual.style)):
      if loss[name]:
        terms[name] = sum(function(x, found[2]) for x in found[:2])
  if loss.adversarial:
    adversarial = cross_entropy(judged['logits'], 1.0)
    terms['adversarial'] = adversarial + cross_entropy(judged['edges'], edges)
  if loss.intermediate:
    of_edges = cross_entropy(outputs['projected_edge'], edges)
    terms['intermediate'] = of_edges + absolute_difference(projected, image).mean()
  return terms


def _generator_loss(loss: ConfigDict, judge: Callable | None, dtype: Any) -> Callable:
  layers = tuple(loss.vgg_layers)

  def generator_loss(params, stats, constants, outputs, batch, rng):
    judged, changed = None, {}
    if judge:
      judged, new = judge(params, stats, outputs['out'], batch['gray'])
      changed = {'discriminator': new['discriminator']}

    def features(image):
      # VGG takes [0, 1] where it is to normalise, else whatever it is given.
      image = (image + 1) / 2 if loss.vgg_normalize else image
      return vgg.apply(
        constants['vgg'], image, layers, depth=VGG_DEPTH, normalize=loss.vgg_normalize, dtype=dtype
      )

    terms = generator_terms(loss, outputs, batch, features, judged)
    metrics = {name: loss[name] * value for name, value in terms.items()}
    metrics['total'] = sum(metrics.values())
    return metrics['total'], {'metrics': metrics, 'stats': changed}

  return generator_loss


def _discriminator_loss(judge: Callable | None) -> Callable:
  def discriminator_loss(params, stats, constants, outputs, batch, rng):
    gray, edges = batch['gray'], batch['canny']
    real, stats = judge(params, stats, batch['image'], gray, edges)
    fake, stats = judge(params, stats, lax.stop_gradient(outputs['out']), gray)
    metrics = {
      'real': cross_entropy(real['logits'], 1.0),
      'fake': cross_entropy(fake['logits'], 0.0),
      'edges': cross_entropy(real['edges'], edges) + cross_entropy(fake['edges'], edges),
    }
    metrics['total'] = sum(metrics.values())
    changed = {'discriminator': stats['discriminator']}
    return metrics['total'], {'metrics': metrics, 'stats': changed}

  return discriminator_loss


def _load_constants(loss: ConfigDict) -> Callable:
  def load(training):
    """{'vgg': its parameters}, or {} where nothing looks at features."""
    if not training or not (loss.perceptual or loss.style):
      return {}
    params = vgg.load(VGG_DEPTH, loss.vgg_file or None)
    # pool3 is the third block's: its convolutions and those before are enough.
    deepest = max(name[4] for name in loss.vgg_layers)
    return {'vgg': {name: p for name, p in params.items() if name[4] <= deepest}}

  return load


def _check(config: ConfigDict) -> None:
  """Raises ValueError for what could only fail later, or train nonsense."""
  known = default_config()
  for section in ('model', 'loss', 'phases'):
    extra = sorted(set(config[section]) - set(known[section]))
    lacking = sorted(set(known[section]) - set(config[section]))
    if extra or (lacking and section != 'model'):
      raise ValueError(
        f'config.{section}: unknown {extra or "none"}, missing {lacking or "none"}; it has: '
        f'{", ".join(sorted(known[section]))}'
      )
  if config.dtype not in DTYPES:
    raise ValueError(f'config.dtype {config.dtype!r} must be one of: {", ".join(DTYPES)}')
  model = {**known.model, **config.model}
  if not 2 <= model['levels'] <= 7:
    raise ValueError(f'config.model.levels {model["levels"]!r} must be 2 to 7')
  if model['canny_sigma'] <= 0:
    raise ValueError(f'config.model.canny_sigma {model["canny_sigma"]!r} must be above 0')
  loss = config.loss
  for name in WEIGHTS:
    if not (math.isfinite(loss[name]) and loss[name] >= 0):
      raise ValueError(f'config.loss.{name} {loss[name]!r} must be finite and >= 0 (0: not built)')
  if not any(loss[name] for name in WEIGHTS):
    raise ValueError(f'config.loss: all weights ({", ".join(WEIGHTS)}) are 0: nothing to train')
  pools = tuple(f'pool{i}' for i in range(1, 6))
  if (loss.perceptual or loss.style) and not (
    set(loss.vgg_layers) and set(loss.vgg_layers) <= set(pools)
  ):
    raise ValueError(f'config.loss.vgg_layers {tuple(loss.vgg_layers)} must be among {pools}')
  for name in config.phases:
    least = -1 if name == 'finetuning' else 0
    if config.phases[name] < least:
      raise ValueError(f'config.phases.{name} {config.phases[name]} must be >= {least} steps')
