"""One generator, one discriminator, one joint loss: the whole recipe of several systems.

The generator's update minimises

  total = l1 * L1 + l1_hole * L1 of the hole - psnr_hole * PSNR of the hole
          + adversarial * GAN + perceptual * Perceptual + style * Style

and the discriminator's update half the sum of its real and fake terms. Both updates use the same
forward pass of the generator. The generator is stepped first, so the discriminator judges the
output from before that step (as in MISF's code). A term of weight zero is not built: without
`perceptual` and `style` no VGG is loaded, and without `adversarial` there is no discriminator.

Spectral norm: as in PyTorch, every forward pass in training takes one power iteration. This makes
three per step: the first for the output in the generator's update, then one each for the real
images and the output in the discriminator's update. The order in the reference code is: real,
output (discriminator), output (generator), then the steps of the weights.

Logged terms include their weights, so they sum to 'total'.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.features import vgg
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.losses import adversarial, perceptual, reconstruction
from jaxinpaint.recipe import Constants, Inference, Init, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import Term, sum_of, total

WEIGHTS = ('l1', 'l1_hole', 'psnr_hole', 'adversarial', 'perceptual', 'style')
# config.model.kernel_init. The published standard deviation fits the published width. In a narrow
# network activations shrink from layer to layer with it, and training starts slowly.
KERNEL_INITS = {
  'normal_0.02': nn.initializers.normal(0.02),
  'he_normal': nn.initializers.he_normal(),
}
VGG_DEPTHS = {'vgg16': 16, 'vgg19': 19}
# Losses of the outputs alone. Wasserstein is left out, because its critic needs a gradient penalty
# and no spectral norm.
_PLAIN_KINDS = ('non_saturating', 'hinge', 'least_squares', 'least_squares_on_sigmoid')
# SM-PatchGAN, whose discriminator finds the hole: as in its paper, and as in its released code.
_SOFT_MASK_KINDS: dict[str, adversarial.SMVariant] = {
  'soft_mask': 'paper',
  'soft_mask_released': 'released',
}
ADVERSARIAL_KINDS = (*_PLAIN_KINDS, *_SOFT_MASK_KINDS)
LOSS_FIELDS = (
  *WEIGHTS,
  'adversarial_kind',  # one of ADVERSARIAL_KINDS
  'discriminator_input',  # 'out': the generator's whole output; 'comp': it, pasted into the image
  'discriminator_width',  # channels of its first layer
  'l1_over_mask_mean',  # divide L1 by the mean of the batch's masks
  'vgg',  # 'vgg16' or 'vgg19'
  'vgg_file',  # '': torchvision's weights; otherwise a file with the same keys
  'vgg_normalize',  # True: by ImageNet's mean and deviation; False: raw [0, 1]
  'vgg_input',  # as discriminator_input
  'perceptual_layers',
  'style_layers',
  'style_on_hole',  # Gram matrices of the images times the mask
)
MIN_JUDGED_SIDE = 24  # of an image; patch discriminators have no output for smaller ones


def inference(
  config: ConfigDict, generator: type[nn.Module], *, multiple: int, min_side: int
) -> Inference:
  """How a system of this kind is run.

  Args:
    config: only config.dtype and config.model (fields of `generator`) are read.
    generator: module class; called with (image, mask) it returns {'out': f32[B,H,W,3] in [0,1]}.
    multiple: image sides must be a multiple of it.
    min_side: the shortest side that the network accepts.

  Raises:
    ValueError: an unknown field or a value out of range; names the field, the value and the allowed
      values.
  """
  return modules.one_generator(_generator(config, generator), multiple=multiple, min_side=min_side)


def make(
  config: ConfigDict,
  inference: Inference,
  generator: type[nn.Module],
  discriminator: type[nn.Module] = PatchDiscriminator,
) -> Recipe:
  """How it is trained.

  Args:
    config: config.loss (`LOSS_FIELDS`) is read, too.
    inference: made from the same config.
    generator: module class, as above.
    discriminator: module class, with the fields and the call of `PatchDiscriminator`.

  Raises:
    ValueError: an unknown or missing field, or a value out of range; names the field, the value and
      the allowed values.
  """
  loss, dtype = config.loss, modules.DTYPES[config.dtype]
  check_loss(loss)
  networks = {'generator': _generator(config, generator)}
  if loss.adversarial:
    networks['discriminator'] = discriminator(width=loss.discriminator_width, dtype=dtype)

  def forward(variables, constants, batch, rng):
    outputs, changed = modules.train_pass(
      networks, 'generator', variables, batch['image'], batch['mask']
    )
    return {'out': outputs['out']}, changed

  updates = [
    Update('generator', ('generator',), generator_loss(loss, networks, dtype), 'generator')
  ]
  if 'discriminator' in networks:
    judging = discriminator_loss(loss, networks)
    updates.append(Update('discriminator', ('discriminator',), judging, 'discriminator'))
  return Recipe(
    inference,
    networks=tuple(networks),
    init=initializer(networks),
    phases=(Phase('joint', -1, forward, tuple(updates)),),
    load_constants=functools.partial(load_constants, loss),
  )


def _generator(config: ConfigDict, generator: type[nn.Module]) -> nn.Module:
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  own = ('parent', 'name', 'dtype')  # flax's, and config.dtype
  fields = [f.name for f in dataclasses.fields(generator) if f.name not in own]
  checks.known_fields('model', config.model, fields)
  # JSON turns tuples into lists; turn them back.
  settings: dict[str, Any] = {
    k: tuple(v) if isinstance(v, list) else v for k, v in config.model.items()
  }
  if 'kernel_init' in settings:
    checks.one_of('model.kernel_init', settings['kernel_init'], KERNEL_INITS)
    settings['kernel_init'] = KERNEL_INITS[settings['kernel_init']]
  return generator(**settings, dtype=modules.DTYPES[config.dtype])


def initializer(networks: Networks) -> Init:
  """Only the height and width of the batch matter."""

  def arguments(height, width):
    if 'discriminator' in networks:
      check_judged(height, width)
    judged = {'discriminator': ((height, width, 3),)}
    return modules.generator_arguments(height, width) | judged

  return modules.initializer(networks, arguments)


def check_judged(height: int, width: int) -> None:
  """Raises ValueError for training images that are too small for a patch discriminator."""
  if min(height, width) < MIN_JUDGED_SIDE:
    raise ValueError(
      f'images of {height} x {width} leave the patch discriminator nothing to judge: train with '
      f'config.data.size >= {MIN_JUDGED_SIDE}, or set its weight in config.loss to 0'
    )


def _shown(choice: str) -> Callable[[jax.Array, Mapping[str, jax.Array]], jax.Array]:
  """(out, batch) -> the pictures that a discriminator or VGG sees, 'out' or 'comp'."""
  if choice == 'out':
    return lambda out, batch: out
  return lambda out, batch: arrays.compose(out, batch['image'], batch['mask'])


def generator_loss(loss: ConfigDict, networks: Networks, dtype: Any) -> Loss:
  """The generator's update: the sum of the terms that have a weight."""
  terms: list[Term] = []
  if loss.l1:
    terms.append(_l1_term(loss))
  if loss.l1_hole:
    terms.append(_l1_hole_term(loss))
  if loss.psnr_hole:
    terms.append(_psnr_hole_term(loss))
  if 'discriminator' in networks:
    terms.append(adversarial_term(loss, networks))
  if loss.perceptual or loss.style:
    terms.append(_vgg_terms(loss, dtype))
  return sum_of(terms)


class _MaskedGan(NamedTuple):
  """An `adversarial.AdversarialLoss` whose functions also take the mask, as their last argument."""

  discriminator: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
  generator: Callable[[jax.Array, jax.Array], jax.Array]


def _gan(kind: str) -> _MaskedGan:
  if kind in _SOFT_MASK_KINDS:
    variant = _SOFT_MASK_KINDS[kind]
    return _MaskedGan(
      functools.partial(adversarial.sm_gan_discriminator, variant=variant),
      functools.partial(adversarial.sm_gan_generator, variant=variant),
    )
  plain = adversarial.KINDS[kind]
  return _MaskedGan(
    lambda real, fake, mask: plain.discriminator(real, fake),
    lambda fake, mask: plain.generator(fake),
  )


def adversarial_term(loss: ConfigDict, networks: Networks) -> Term:
  """The generator's side of `discriminator_loss`, with its weight."""
  gan = _gan(loss.adversarial_kind)
  judged = _shown(loss.discriminator_input)

  def term(variables, constants, outputs, batch):
    fake = judged(outputs['out'], batch)
    (logits, _), changed = modules.train_pass(networks, 'discriminator', variables, fake)
    return {'adversarial': loss.adversarial * gan.generator(logits, batch['mask'])}, changed

  return term


def discriminator_loss(loss: ConfigDict, networks: Networks) -> Loss:
  """The discriminator's update, of outputs['out'] and the images."""
  gan = _gan(loss.adversarial_kind)
  judged = _shown(loss.discriminator_input)

  def loss_of(variables, constants, outputs, batch, rng):
    fake = jax.lax.stop_gradient(judged(outputs['out'], batch))
    # Two calls, not one with a double batch: each takes its own power iteration, as in PyTorch.
    judge = functools.partial(modules.train_pass, networks, 'discriminator')
    (real_logits, _), changed = judge(variables, batch['image'])
    (fake_logits, _), changed = judge(variables.with_stats(changed), fake)
    real_term, fake_term = gan.discriminator(real_logits, fake_logits, batch['mask'])
    return total({'real': real_term / 2, 'fake': fake_term / 2}, changed)

  return loss_of


def _l1_term(loss: ConfigDict) -> Term:
  def plain(variables, constants, outputs, batch):
    return {'l1': loss.l1 * reconstruction.l1(outputs['out'], batch['image'])}, {}

  def over_mask_mean(variables, constants, outputs, batch):
    value = reconstruction.l1_over_mask_mean(outputs['out'], batch['image'], batch['mask'])
    return {'l1': loss.l1 * value}, {}

  return over_mask_mean if loss.l1_over_mask_mean else plain


def _l1_hole_term(loss: ConfigDict) -> Term:
  def term(variables, constants, outputs, batch):
    value = reconstruction.masked_l1(
      outputs['out'], batch['image'], batch['mask'], over_region=True
    )
    return {'l1_hole': loss.l1_hole * value}, {}

  return term


def _psnr_hole_term(loss: ConfigDict) -> Term:
  def term(variables, constants, outputs, batch):
    value = reconstruction.negative_psnr(outputs['out'], batch['image'], batch['mask'])
    return {'psnr_hole': loss.psnr_hole * value}, {}

  return term


def _vgg_terms(loss: ConfigDict, dtype: Any) -> Term:
  """Perceptual and style terms, in one pass of VGG if both need the same pictures."""
  depth = VGG_DEPTHS[loss.vgg]
  whole = tuple(loss.perceptual_layers) if loss.perceptual else ()
  styled = tuple(loss.style_layers) if loss.style else ()
  of_hole = styled if loss.style_on_hole else ()
  layers = tuple(dict.fromkeys(whole + (() if of_hole else styled)))
  shown = _shown(loss.vgg_input)

  def pair(constants, out, image, layers):
    if not layers:
      return {}, {}
    run = lambda x: vgg.apply(
      constants['vgg'], x, layers, depth=depth, normalize=loss.vgg_normalize, dtype=dtype
    )
    return run(out), run(image)

  def term(variables, constants, outputs, batch):
    out, image, mask = shown(outputs['out'], batch), batch['image'], batch['mask']
    features = pair(constants, out, image, layers)
    styles = pair(constants, out * mask, image * mask, of_hole) if of_hole else features
    metrics = {}
    if whole:
      only = lambda features: {name: features[name] for name in whole}
      metrics['perceptual'] = loss.perceptual * perceptual.perceptual(*map(only, features))
    if styled:
      only = lambda features: {name: features[name] for name in styled}
      metrics['style'] = loss.style * perceptual.style(*map(only, styles))
    return metrics, {}

  return term


def load_constants(loss: ConfigDict, *, shapes_only: bool = False) -> Constants:
  """{'vgg': its parameters up to the deepest layer in use}, or {}.

  Raises:
    FileNotFoundError, hub.DownloadError: no weights; says where to put them.
  """
  layers = (*loss.perceptual_layers,) * bool(loss.perceptual)
  layers += (*loss.style_layers,) * bool(loss.style)
  if not layers:
    return {}
  depth, file = VGG_DEPTHS[loss.vgg], loss.vgg_file or None
  return {'vgg': vgg.load_down_to(layers, depth, file, shapes_only=shapes_only)}


def check_loss(loss: ConfigDict) -> None:
  """Raises ValueError, which names the field, for what `generator_loss` cannot use."""
  checks.same_fields('loss', loss, LOSS_FIELDS)
  checks.weights(loss, WEIGHTS)
  checks.one_of('loss.adversarial_kind', loss.adversarial_kind, ADVERSARIAL_KINDS)
  for field in ('discriminator_input', 'vgg_input'):
    checks.one_of(f'loss.{field}', loss[field], ('out', 'comp'))
  if loss.discriminator_width < 1:
    raise ValueError(f'config.loss.discriminator_width {loss.discriminator_width} must be >= 1')
  checks.one_of('loss.vgg', loss.vgg, VGG_DEPTHS)
  for term in ('perceptual', 'style'):
    layers = loss[f'{term}_layers']
    if loss[term] and not layers:
      raise ValueError(f'config.loss.{term}_layers is empty: name layers, or set loss.{term}=0')
    for layer in layers:
      checks.one_of(f'loss.{term}_layers: layer', layer, vgg.layer_names(VGG_DEPTHS[loss.vgg]))
