"""The field's commonest training: one generator, one patch discriminator, one weighted joint loss.

  L = l1 * L1 + adversarial * GAN + perceptual * P + style * S

A system whose training is this (MISF, MESFF) says so in its recipe: it names its generator and its
published settings, and `make` builds the rest. A term of weight zero is not built; without the
adversarial term there is no discriminator, without perceptual and style terms no VGG.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.features import vgg
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.losses import adversarial, perceptual, reconstruction
from jaxinpaint.training.recipe import Phase, Recipe, Update

TERMS = ('l1', 'adversarial', 'perceptual', 'style')
_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def default_loss(**changes: Any) -> ConfigDict:
  """config.loss with every field that `make` reads, changed by `changes`."""
  loss = ConfigDict(
    dict(
      l1=1.0,
      l1_over_mask_mean=False,  # EdgeConnect's and MISF's division by mean(mask)
      adversarial=0.1,
      adversarial_kind='non_saturating',  # see losses.adversarial.KINDS
      perceptual=0.1,
      perceptual_layers=('pool1', 'pool2', 'pool3'),
      style=250.0,
      style_layers=('pool1', 'pool2', 'pool3'),
      style_on_hole=False,  # Gram matrices of image * mask instead of the whole images
      vgg='vgg16',  # or 'vgg19'
      vgg_normalize=True,  # ImageNet's mean and deviation, as the weights were trained
      vgg_file='',  # '': torchvision's weights, fetched once; or a file with torchvision's keys
    )
  )
  loss.update(changes)
  return loss


def make(generator: type[nn.Module], config: ConfigDict, *, multiple: int, min_side: int) -> Recipe:
  """The recipe of a generator trained by the joint loss.

  The generator's update comes first, then the discriminator's; both read one forward pass, taken
  before either. The generator's loss reads the discriminator as it was before the step, too, and
  the discriminator's power iterations advance once in each of its three passes (on the fake in the
  generator's loss, then on real and fake), as in the published code, whose order of the three is
  real, fake, fake.

  Metrics are the weighted terms; they add up to 'total'.

  Args:
    generator: a module whose call (image, mask, train=) returns {'out': f32[B,H,W,3] in [0,1]}.
    config: with `model` (fields of the generator, and discriminator_width), `loss`, `dtype`.
    multiple: of the sides that the generator takes.
    min_side: shortest side that it takes.

  Raises:
    ValueError: an unknown field of config.model or config.loss, a negative weight, an unknown kind.
  """
  loss = config.loss
  _check(generator, config)
  dtype = _DTYPES[config.dtype]
  model = config.model.to_dict()
  discriminator = PatchDiscriminator(model.pop('discriminator_width'), dtype=dtype)
  network = generator(**model, dtype=dtype)
  game = adversarial.kind(loss.adversarial_kind)
  depth = int(loss.vgg.removeprefix('vgg'))
  perceptual_layers = tuple(loss.perceptual_layers) if loss.perceptual else ()
  style_layers = tuple(loss.style_layers) if loss.style else ()
  with_discriminator = loss.adversarial > 0
  with_vgg = bool(perceptual_layers or style_layers)

  def init(rng, batch):
    rngs = jax.random.split(rng)
    params = {'generator': network.init(rngs[0], batch['image'], batch['mask'])['params']}
    stats = {}
    if with_discriminator:
      variables = dict(discriminator.init(rngs[1], batch['image']))
      params['discriminator'] = variables.pop('params')
      stats['discriminator'] = variables
    return params, stats

  def generate(params, image, mask, *, train):
    return network.apply({'params': params['generator']}, image, mask, train=train)['out']

  def forward(params, stats, constants, batch, rng):
    return {'out': generate(params, batch['image'], batch['mask'], train=True)}, {}

  def judge(params, stats, image):
    variables = {'params': params['discriminator'], **stats['discriminator']}
    (logits, _), changed = discriminator.apply(variables, image, train=True, mutable=['spectral'])
    return logits, {'discriminator': changed}

  def features(constants, image, layers):
    return vgg.apply(
      constants['vgg'], image, layers, depth=depth, normalize=loss.vgg_normalize, dtype=dtype
    )

  def feature_losses(constants, out, batch):
    """The weighted perceptual and style terms."""
    image, mask = batch['image'], batch['mask']
    terms = {}
    whole = perceptual_layers if loss.style_on_hole else (*perceptual_layers, *style_layers)
    whole = tuple(dict.fromkeys(whole))
    if whole:
      pred, target = features(constants, out, whole), features(constants, image, whole)
    if perceptual_layers:
      terms['perceptual'] = loss.perceptual * perceptual.perceptual(pred, target, perceptual_layers)
    if style_layers:
      if loss.style_on_hole:
        pred = features(constants, out * mask, style_layers)
        target = features(constants, image * mask, style_layers)
      terms['style'] = loss.style * perceptual.style(pred, target, style_layers)
    return terms

  def generator_loss(params, stats, constants, outputs, batch, rng):
    out, changed = outputs['out'], {}
    terms = {}
    if loss.l1:
      terms['l1'] = loss.l1 * reconstruction.l1(
        out, batch['image'], batch['mask'], over_mask_mean=loss.l1_over_mask_mean
      )
    if with_discriminator:
      logits, changed = judge(params, stats, out)
      terms['adversarial'] = loss.adversarial * game.generator(logits)
    if with_vgg:
      terms |= feature_losses(constants, out, batch)
    total = sum(terms.values())
    return total, {'metrics': {**terms, 'total': total}, 'stats': changed}

  def discriminator_loss(params, stats, constants, outputs, batch, rng):
    real, changed = judge(params, stats, batch['image'])
    fake, changed = judge(params, {**stats, **changed}, jax.lax.stop_gradient(outputs['out']))
    total = game.discriminator(real, fake)
    metrics = {'total': total, 'score_real': real.mean(), 'score_fake': fake.mean()}
    return total, {'metrics': metrics, 'stats': changed}

  def predict(params, stats, constants, image, mask, rng):
    return arrays.compose(generate(params, image, mask, train=False), image, mask)

  def load_constants(training):
    if not (training and with_vgg):
      return {}
    return {'vgg': vgg.load(depth, loss.vgg_file or None)}

  updates = [Update('generator', ('generator',), generator_loss, 'generator')]
  if with_discriminator:
    networks = ('discriminator',)
    updates.append(Update('discriminator', networks, discriminator_loss, 'discriminator'))
  return Recipe(
    networks=('generator', 'discriminator') if with_discriminator else ('generator',),
    init=init,
    phases=(Phase('joint', -1, forward, tuple(updates)),),
    predict=predict,
    load_constants=load_constants,
    multiple=multiple,
    min_side=min_side,
  )


def _check(generator: type[nn.Module], config: ConfigDict) -> None:
  fields = {f.name for f in dataclasses.fields(generator)} - {'parent', 'name', 'dtype'}
  fields |= {'discriminator_width'}
  unknown = sorted(set(config.model) - fields)
  if unknown or 'discriminator_width' not in config.model:
    raise ValueError(
      f'config.model has no {", ".join(unknown) or "discriminator_width"}; '
      f'it has: {", ".join(sorted(fields - {"kernel_init"}))}'
    )
  known = default_loss()
  if set(config.loss) != set(known):
    unknown, missing = (
      sorted(set(a) - set(b)) for a, b in ((config.loss, known), (known, config.loss))
    )
    raise ValueError(
      f'config.loss: unknown {unknown}, missing {missing}; it has: {", ".join(sorted(known))}'
    )
  for term in TERMS:
    if not config.loss[term] >= 0:
      raise ValueError(f'config.loss.{term} {config.loss[term]} must be >= 0 (0: not built)')
  if not any(config.loss[term] for term in TERMS):
    raise ValueError(f'config.loss: every term of {", ".join(TERMS)} has weight 0')
  if config.loss.vgg not in ('vgg16', 'vgg19'):
    raise ValueError(f"config.loss.vgg {config.loss.vgg!r} must be 'vgg16' or 'vgg19'")
  if config.dtype not in _DTYPES:
    raise ValueError(f'config.dtype {config.dtype!r} must be one of: {", ".join(_DTYPES)}')
  if config.loss.perceptual or config.loss.style:
    names = vgg.layer_names(int(config.loss.vgg.removeprefix('vgg')))
    for field in ('perceptual_layers', 'style_layers'):
      wrong = [k for k in config.loss[field] if k not in names]
      if wrong:
        raise ValueError(f'config.loss.{field} {wrong} are not among {", ".join(names)}')


def quicktest(config: ConfigDict) -> None:
  """Narrow networks and no VGG, for a run of seconds."""
  config.model.update(dict(width=8, discriminator_width=8))
  config.loss.update(dict(perceptual=0.0, style=0.0))
