"""One generator, one discriminator, one joint loss: what several systems' recipes are, entirely.

  total = l1 * L1 + l1_hole * L1 of the hole + adversarial * GAN + perceptual * Perceptual
          + style * Style

in the generator's update; the discriminator's is half the sum of its real and fake terms. Both
follow from one forward pass of the generator; the generator is stepped first, then the
discriminator, which therefore judges the output that the generator had before its step (MISF's
code). A term of weight zero is not built: without `perceptual` and `style` no VGG is loaded,
without `adversarial` there is no discriminator.

Spectral norm: PyTorch takes one power iteration in every training forward pass, and so does this:
three a step, the first for the output in the generator's update, then one each for the real images
and the output in the discriminator's. The reference code takes its three in the order real, output
(discriminator), output (generator), and then steps the weights.

Logged terms carry their weights, so they sum to 'total'.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.features import vgg
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.losses import adversarial, perceptual, reconstruction
from jaxinpaint.recipe import (
  Phase,
  Recipe,
  Update,
)

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
WEIGHTS = ('l1', 'l1_hole', 'adversarial', 'perceptual', 'style')
# config.model.kernel_init. The published deviation fits the published width: in a narrow network it
# lets activations fade from layer to layer, and training starts slowly.
KERNEL_INITS = {
  'normal_0.02': nn.initializers.normal(0.02),
  'he_normal': nn.initializers.he_normal(),
}
VGG_DEPTHS = {'vgg16': 16, 'vgg19': 19}
# Of the outputs alone. Wasserstein is left out: its critic needs a gradient penalty and no spectral
# norm.
_PLAIN_KINDS = ('non_saturating', 'hinge', 'least_squares', 'least_squares_on_sigmoid')
# SM-PatchGAN, whose discriminator finds the hole: as its paper has it, and as it was released.
_SOFT_MASK_KINDS = {'soft_mask': 'paper', 'soft_mask_released': 'released'}
ADVERSARIAL_KINDS = (*_PLAIN_KINDS, *_SOFT_MASK_KINDS)
LOSS_FIELDS = (
  *WEIGHTS,
  'adversarial_kind',  # one of ADVERSARIAL_KINDS
  'discriminator_input',  # 'out': the generator's whole output; 'comp': pasted into the image
  'discriminator_width',  # channels of its first layer
  'l1_over_mask_mean',  # divide L1 by the mean of the batch's masks
  'vgg',  # 'vgg16' or 'vgg19'
  'vgg_file',  # '': torchvision's weights; else a file with its keys
  'vgg_normalize',  # ImageNet's mean and deviation, or raw [0, 1]
  'perceptual_layers',
  'style_layers',
  'style_on_hole',  # Gram matrices of the images times the mask
)


def make(
  config: ConfigDict,
  generator: type[nn.Module],
  *,
  multiple: int,
  min_side: int,
  discriminator: type[nn.Module] = PatchDiscriminator,
) -> Recipe:
  """The recipe of a system of this kind.

  Args:
    config: reads config.dtype, config.model (fields of `generator`) and config.loss
      (`LOSS_FIELDS`).
    generator: module class; called with image, mask it returns {'out': f32[B,H,W,3] in [0,1]}.
    multiple: of the image's sides.
    min_side: the shortest side that it takes.
    discriminator: module class, with the fields and the call of `PatchDiscriminator`.

  Raises:
    ValueError: an unknown or missing field, or a value out of range; names the field, the value and
      what it may be.
  """
  loss = config.loss
  _check(config, generator)
  dtype = DTYPES[config.dtype]
  networks = {'generator': generator(**plain(config.model), dtype=dtype)}
  if loss.adversarial:
    networks['discriminator'] = discriminator(width=loss.discriminator_width, dtype=dtype)

  def forward(params, stats, constants, batch, rng):
    found = networks['generator'].apply(
      {'params': params['generator']}, batch['image'], batch['mask'], train=True
    )
    return {'out': found['out']}, {}

  def output(params, stats, constants, image, mask, rng):
    return networks['generator'].apply({'params': params['generator']}, image, mask)['out']

  updates = [
    Update('generator', ('generator',), generator_loss(loss, networks, dtype), 'generator')
  ]
  if 'discriminator' in networks:
    judge = discriminator_loss(loss, networks['discriminator'])
    updates.append(Update('discriminator', ('discriminator',), judge, 'discriminator'))
  return Recipe(
    networks=tuple(networks),
    init=functools.partial(_init, networks),
    phases=(Phase('joint', -1, forward, tuple(updates)),),
    output=output,
    load_constants=functools.partial(load_constants, loss),
    multiple=multiple,
    min_side=min_side,
  )


def _init(networks: Mapping[str, nn.Module], rng: jax.Array, batch: Mapping[str, Any]):
  """Parameters and spectral vectors; of the batch only its height and width matter."""
  height, width = batch['image'].shape[1:3]
  image = jnp.zeros((1, height, width, 3))
  rng_generator, rng_discriminator = jax.random.split(rng)
  variables = networks['generator'].init(rng_generator, image, image[..., :1])
  params, stats = {'generator': variables['params']}, {}
  if 'discriminator' in networks:
    (logits, _), variables = networks['discriminator'].init_with_output(rng_discriminator, image)
    if not logits.size:
      raise ValueError(
        f'images of {height} x {width} leave the patch discriminator nothing to judge: train with '
        'config.data.size >= 24, or set config.loss.adversarial=0'
      )
    params['discriminator'] = variables['params']
    stats['discriminator'] = {'spectral': variables['spectral']}
  return params, stats


def _judge(discriminator: nn.Module, params: Any, stats: Any, x: jax.Array):
  """Logits, and {'discriminator': its statistics} after one more power iteration."""
  variables = {'params': params['discriminator'], **stats['discriminator']}
  (logits, _), new_stats = discriminator.apply(variables, x, train=True, mutable=['spectral'])
  return logits, {'discriminator': new_stats}


def _judged(loss: ConfigDict) -> Callable[[jax.Array, Mapping[str, jax.Array]], jax.Array]:
  """(out, batch) -> what the discriminator is shown as fake."""
  if loss.discriminator_input == 'out':
    return lambda out, batch: out
  return lambda out, batch: arrays.compose(out, batch['image'], batch['mask'])


def generator_loss(loss: ConfigDict, networks: Mapping[str, nn.Module], dtype: Any) -> Callable:
  """The generator's update: the sum of the terms that have a weight.

  A term is (params, stats, constants, out, batch) -> ({name: weighted value}, new stats).
  """
  terms = []
  if loss.l1:
    terms.append(_l1_term(loss))
  if loss.l1_hole:
    terms.append(_l1_hole_term(loss))
  if 'discriminator' in networks:
    terms.append(_adversarial_term(loss, networks['discriminator']))
  if loss.perceptual or loss.style:
    terms.append(_vgg_terms(loss, dtype))

  def loss_of(params, stats, constants, outputs, batch, rng):
    metrics, new_stats = {}, {}
    for term in terms:
      values, changed = term(params, stats, constants, outputs['out'], batch)
      metrics |= values
      new_stats |= changed
    total = sum(metrics.values())
    return total, {'metrics': {**metrics, 'total': total}, 'stats': new_stats}

  return loss_of


def _gan(kind: str) -> adversarial.AdversarialLoss:
  """The pair of functions of a kind, both with the mask as one more, last argument."""
  if kind in _SOFT_MASK_KINDS:
    variant = _SOFT_MASK_KINDS[kind]
    return adversarial.AdversarialLoss(
      functools.partial(adversarial.sm_gan_discriminator, variant=variant),
      functools.partial(adversarial.sm_gan_generator, variant=variant),
    )
  plain = adversarial.KINDS[kind]
  return adversarial.AdversarialLoss(
    lambda real, fake, mask: plain.discriminator(real, fake),
    lambda fake, mask: plain.generator(fake),
  )


def _adversarial_term(loss: ConfigDict, discriminator: nn.Module) -> Callable:
  gan = _gan(loss.adversarial_kind)
  judged = _judged(loss)

  def term(params, stats, constants, out, batch):
    logits, new_stats = _judge(discriminator, params, stats, judged(out, batch))
    return {'adversarial': loss.adversarial * gan.generator(logits, batch['mask'])}, new_stats

  return term


def discriminator_loss(loss: ConfigDict, discriminator: nn.Module) -> Callable:
  """The discriminator's update, of outputs['out'] and the images."""
  gan = _gan(loss.adversarial_kind)
  judged = _judged(loss)

  def loss_of(params, stats, constants, outputs, batch, rng):
    fake = jax.lax.stop_gradient(judged(outputs['out'], batch))
    # Two calls, not one of a double batch: each takes its own power iteration, as in PyTorch.
    real_logits, stats = _judge(discriminator, params, stats, batch['image'])
    fake_logits, stats = _judge(discriminator, params, stats, fake)
    terms = gan.discriminator(real_logits, fake_logits, batch['mask'])
    metrics = {'real': terms[0] / 2, 'fake': terms[1] / 2}
    total = metrics['real'] + metrics['fake']
    return total, {'metrics': {**metrics, 'total': total}, 'stats': stats}

  return loss_of


def _l1_term(loss: ConfigDict) -> Callable:
  def plain(params, stats, constants, out, batch):
    return {'l1': loss.l1 * reconstruction.l1(out, batch['image'])}, {}

  def over_mask_mean(params, stats, constants, out, batch):
    value = reconstruction.l1_over_mask_mean(out, batch['image'], batch['mask'])
    return {'l1': loss.l1 * value}, {}

  return over_mask_mean if loss.l1_over_mask_mean else plain


def _l1_hole_term(loss: ConfigDict) -> Callable:
  def term(params, stats, constants, out, batch):
    value = reconstruction.masked_l1(out, batch['image'], batch['mask'], over_region=True)
    return {'l1_hole': loss.l1_hole * value}, {}

  return term


def _vgg_terms(loss: ConfigDict, dtype: Any) -> Callable:
  """Perceptual and style terms, in one pass of VGG where both look at the same pictures."""
  depth = VGG_DEPTHS[loss.vgg]
  whole = tuple(loss.perceptual_layers) if loss.perceptual else ()
  styled = tuple(loss.style_layers) if loss.style else ()
  of_hole = styled if loss.style_on_hole else ()
  layers = tuple(dict.fromkeys(whole + (() if of_hole else styled)))

  def pair(constants, out, image, layers):
    if not layers:
      return {}, {}
    run = lambda x: vgg.apply(
      constants['vgg'], x, layers, depth=depth, normalize=loss.vgg_normalize, dtype=dtype
    )
    return run(out), run(image)

  def term(params, stats, constants, out, batch):
    image, mask = batch['image'], batch['mask']
    found = pair(constants, out, image, layers)
    found_styled = pair(constants, out * mask, image * mask, of_hole) if of_hole else found
    metrics = {}
    if whole:
      only = lambda features: {name: features[name] for name in whole}
      metrics['perceptual'] = loss.perceptual * perceptual.perceptual(*map(only, found))
    if styled:
      only = lambda features: {name: features[name] for name in styled}
      metrics['style'] = loss.style * perceptual.style(*map(only, found_styled))
    return metrics, {}

  return term


def load_constants(loss: ConfigDict, training: bool) -> dict[str, Any]:
  """{'vgg': its parameters down to the deepest layer in use}, or {}.

  Raises:
    FileNotFoundError, hub.DownloadError: no weights; says where to put them.
  """
  if not training or not (loss.perceptual or loss.style):
    return {}
  depth = VGG_DEPTHS[loss.vgg]
  params = vgg.load(depth, loss.vgg_file or None)
  used = (*loss.perceptual_layers,) * bool(loss.perceptual)
  used += (*loss.style_layers,) * bool(loss.style)
  names = vgg.layer_names(depth)
  kept = names[: max(map(names.index, used)) + 1]
  kept = [n.replace('relu', 'conv') for n in kept if n.startswith('relu')]
  return {'vgg': {name: params[name] for name in kept}}


def _model_defaults(generator: type[nn.Module]) -> dict[str, Any]:
  """{field: default} of what config.model may set: not flax's own, nor the dtype."""
  return {
    f.name: f.default
    for f in dataclasses.fields(generator)
    if f.name not in ('parent', 'name', 'dtype')
  }


def plain(model: ConfigDict) -> dict[str, Any]:
  """Keyword arguments; lists, which a config becomes on its way through JSON, are tuples again."""
  found = {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}
  if 'kernel_init' in found:
    found['kernel_init'] = KERNEL_INITS[found['kernel_init']]
  return found


def one_of(name: str, value: Any, choices: Any) -> None:
  """Raises ValueError with the choices when `value`, of config.`name`, is none of them."""
  if value not in choices:
    raise ValueError(f'config.{name} {value!r} must be one of: {", ".join(map(repr, choices))}')


def check_fields(section: str, got: Any, known: Any) -> None:
  """Raises ValueError for a field of config.`section` that is not among `known`."""
  for name in got:
    if name not in known:
      raise ValueError(f'config.{section} has no {name!r}; it has: {", ".join(sorted(known))}')


def _check(config: ConfigDict, generator: type[nn.Module]) -> None:
  """Raises ValueError for what `make` could only fail on later, or train nonsense with."""
  loss = config.loss
  one_of('dtype', config.dtype, DTYPES)
  check_fields('model', config.model, _model_defaults(generator))
  if 'kernel_init' in config.model:
    one_of('model.kernel_init', config.model.kernel_init, KERNEL_INITS)
  check_loss(loss)


def check_loss(loss: ConfigDict) -> None:
  """Raises ValueError, naming the field, for what `generator_loss` cannot take."""
  check_fields('loss', loss, LOSS_FIELDS)
  missing = [name for name in LOSS_FIELDS if name not in loss]
  if missing:
    raise ValueError(f"config.loss lacks {missing}: start from the system's default_config()")
  for name in WEIGHTS:
    weight = loss[name]
    if isinstance(weight, bool) or not isinstance(weight, int | float):
      raise ValueError(f'config.loss.{name} {weight!r} must be a number (a weight; 0: not built)')
    if weight < 0 or not math.isfinite(weight):
      raise ValueError(f'config.loss.{name} {weight!r} must be finite and >= 0 (0: not built)')
  if not any(loss[name] for name in WEIGHTS):
    raise ValueError(f'config.loss: all weights ({", ".join(WEIGHTS)}) are 0: nothing to train')
  one_of('loss.adversarial_kind', loss.adversarial_kind, ADVERSARIAL_KINDS)
  one_of('loss.discriminator_input', loss.discriminator_input, ('out', 'comp'))
  if loss.discriminator_width < 1:
    raise ValueError(f'config.loss.discriminator_width {loss.discriminator_width} must be >= 1')
  one_of('loss.vgg', loss.vgg, VGG_DEPTHS)
  for term in ('perceptual', 'style'):
    layers = loss[f'{term}_layers']
    if loss[term] and not layers:
      raise ValueError(f'config.loss.{term}_layers is empty: name layers, or set loss.{term}=0')
    for layer in layers:
      one_of(f'loss.{term}_layers: layer', layer, vgg.layer_names(VGG_DEPTHS[loss.vgg]))
