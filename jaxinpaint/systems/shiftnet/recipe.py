"""How Shift-Net is trained: L1, guidance of the decoder, style, features, and an adversary.

Yan, Li, Li, Zuo, Shan: "Shift-Net: Image Inpainting via Deep Feature Rearrangement", ECCV 2018,
https://arxiv.org/abs/1801.09392, section 3; networks.py has the networks. Marks: C, the released
code; P, the paper; O, ours.

  discriminator = half the sum of its real and fake terms
  generator     = l1 * L1 + hole * L1 of the hole, discounted + guidance * Guidance
                  + adversarial * GAN + style * Style + perceptual * Content + tv * TV

One pass of the generator feeds both updates, and the discriminator is stepped first (C). All terms
are for images in [-1, 1]. Where holes are squares, `loss.crop` is their side, and the hole's L1,
the discriminator, style and content see the window of that side around the hole. With `crop=0`, for
holes of any shape, the last three see the whole picture and `loss.hole` must be 0.

Guidance: the decoder's features that the shift layer reads should be the encoder's features of the
true picture, in the hole. It is the mean over all features of the map of their squared difference.

Differs from the paper:
  - style, content and the hole's own L1 are the code's, as are all weights.
Differs from the reference code:
  - guidance: the code compares `former * hole` with the true features everywhere and does not
    multiply the gradient by the hole, so known places are always pushed along their true features.
    `loss.guidance_region='released'` does so. The default counts the hole only, as the paper says;
  - true features are those of the encoder; the code runs the whole generator for them, so its batch
    norms see true pictures in the decoder, too;
  - in the face variant no gradient reaches the features of the mirrored picture;
  - binary cross-entropy is computed from logits;
  - each sample has its own hole and its own window;
  - pictures without a known pixel are logged and train nothing;
  - biases start at 0;
  - with `adversarial_kind='wasserstein'` the generator's term is weighted, too.

Logged terms include their weights, so they sum to 'total'.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint.layers import contextual_attention
from jaxinpaint.losses import adversarial, perceptual, reconstruction, regularisers
from jaxinpaint.recipe import Forward, Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, joint_loss, modules, vgg16_terms, windows
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.shiftnet import networks as networks_lib

WEIGHTS = ('l1', 'hole', 'guidance', 'adversarial', 'style', 'perceptual', 'tv')
RELATIVISTIC = {
  'relativistic': adversarial.relativistic(adversarial.non_saturating, average=False),
  'relativistic_average': adversarial.relativistic(adversarial.non_saturating, average=True),
}
KINDS = ('non_saturating', 'least_squares', 'wasserstein', *RELATIVISTIC)
OF_DISCRIMINATOR = ('discriminator_width', 'spectral')  # fields of config.model


def default_config() -> ConfigDict:
  """The code's settings for centre holes of 120 x 120."""
  model = dict(
    variant='unet',  # C; 'face' also looks at the mirrored picture
    width=64,  # C
    levels=8,  # C; O: fewer for pictures below 256 pixels
    norm='instance',  # C; or 'batch'
    mask_channel=True,  # C
    mirror='best',  # O; C: 'released'; of the face variant
    discriminator_width=64,  # C
    spectral=True,  # C: spectral norm in the discriminator
  )
  loss = dict(
    l1=100.0,  # C
    hole=400.0,  # C
    discount=0.9,  # C: of the hole's L1, per pixel from the window's border
    guidance=1.0,  # C
    guidance_region='hole',  # P; C: 'released'
    adversarial=0.2,  # C
    adversarial_kind='non_saturating',  # C; one of KINDS
    gradient_penalty=10.0,  # C; of 'wasserstein' only
    style=10.0,  # C
    perceptual=1.0,  # C, there called content
    tv=0.0,  # C
    crop=120,  # C: side of square holes; 0: holes of any shape
    vgg_file='',
    vgg_layers=('pool1', 'pool2', 'pool3'),  # C
  )
  return ConfigDict(dict(system='shiftnet', dtype='float32', model=model, loss=loss))


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and removes the terms that need VGG's weights; changes `config`."""
  config.model.update(dict(width=8, levels=6, discriminator_width=8))
  config.loss.update(dict(style=0.0, perceptual=0.0))
  if config.loss.crop:
    config.loss.crop = 30  # of 64, as 120 of 256


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  generator = _generator(config)
  networks = {'generator': generator}

  def pictures(variables, constants, image, mask, rng):
    outputs = modules.run(networks, 'generator', variables, image, mask)
    places = _places(outputs['index'], networks_lib.feature_hole(mask))
    return {'shift': contextual_attention.offset_picture(places, *image.shape[1:3])}

  released = generator.variant == 'face' and generator.mirror == 'released'
  return modules.one_generator(
    generator,
    multiple=networks_lib.MULTIPLE,
    min_side=2**generator.levels,
    pictures=None if released else pictures,
  )


def _places(index: jax.Array, hole: jax.Array) -> jax.Array:
  """i32[B,h,w]: where in the picture each place's feature is from; known places look at themselves.

  The features of the mirrored picture come after those of the picture.
  """
  h, w = index.shape[1:]
  row, column = index % (h * w) // w, index % w
  places = row * w + jnp.where(index >= h * w, w - 1 - column, column)
  return jnp.where(hole[..., 0] > 0, places, jnp.arange(h * w).reshape(h, w))


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A term of weight 0 is not built: without `style` and `perceptual` no VGG is loaded, without
  `adversarial` there is no discriminator.
  """
  running = inference(config)
  _check_training(config)
  loss, dtype = config.loss, modules.DTYPES[config.dtype]
  networks = {'generator': _generator(config)}
  updates = [
    Update('generator', ('generator',), _generator_loss(loss, networks, dtype), 'generator')
  ]
  if loss.adversarial:
    networks['discriminator'] = networks_lib.Discriminator(
      width=config.model.discriminator_width,
      norm=config.model.norm,
      spectral=config.model.spectral,
      dtype=dtype,
    )
    judging = _discriminator_loss(loss, networks)
    updates.insert(0, Update('discriminator', ('discriminator',), judging, 'discriminator'))

  def arguments(height, width):
    judged = (loss.crop, loss.crop) if loss.crop else (height, width)
    if loss.adversarial:
      joint_loss.check_judged(*judged)
    return modules.generator_arguments(height, width) | {'discriminator': ((*judged, 3),)}

  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, arguments),
    phases=(Phase('joint', -1, _forward(loss, networks), tuple(updates)),),
    load_constants=functools.partial(vgg16_terms.load_constants, loss),
  )


def _generator(config: ConfigDict) -> networks_lib.Generator:
  fields = {name: value for name, value in config.model.items() if name not in OF_DISCRIMINATOR}
  return networks_lib.Generator(**fields, dtype=modules.DTYPES[config.dtype])


def _forward(loss: ConfigDict, networks: Networks) -> Forward:
  names = ('out', 'former', 'target') if loss.guidance else ('out',)

  def forward(variables, constants, batch, rng):
    height, width = batch['image'].shape[1:3]
    if loss.crop > min(height, width):
      raise ValueError(f'config.loss.crop {loss.crop} exceeds the images, {height} x {width}')
    truth = batch['image'] if loss.guidance else None
    outputs, changed = modules.train_pass(
      networks, 'generator', variables, batch['image'], batch['mask'], truth
    )
    outputs = {name: outputs[name] for name in names}
    return modules.only_of_known(outputs, batch['mask']), changed

  return forward


def guidance(former: jax.Array, target: jax.Array, hole: jax.Array, region: str) -> jax.Array:
  """The guidance term without weight; f32[].

  Args:
    former: f32[B,h,w,C], the decoder's features before the shift layer.
    target: f32[B,h,w,C], the encoder's features of the true picture; gets no gradient.
    hole: f32[B,h,w,1], 1 = hole.
    region: 'hole': the mean over the whole map of (hole * (former - target))^2. 'released': of
      (hole * former - target)^2, with a gradient that is not multiplied by the hole.
  """
  target = jax.lax.stop_gradient(target)
  if region == 'hole':
    return jnp.square(hole * (former - target)).mean()
  return jnp.square(former + jax.lax.stop_gradient(hole * former - former) - target).mean()


def _cut(loss: ConfigDict, x: jax.Array, mask: jax.Array) -> jax.Array:
  """What is judged of a picture: the window around the hole, or all of it."""
  return windows.cut(x, windows.middle_window(mask, loss.crop), loss.crop) if loss.crop else x


def _generator_loss(loss: ConfigDict, networks: Networks, dtype: Any) -> Loss:
  """The generator's update: the sum of the terms that have a weight."""

  def generator_loss(variables, constants, outputs, batch, rng):
    out, image, mask = outputs['out'], batch['image'], batch['mask']
    made, real = _cut(loss, out, mask), _cut(loss, image, mask)
    metrics, changed = {}, {}
    # The error in [-1, 1] is twice that in [0, 1].
    if loss.l1:
      metrics['l1'] = 2 * reconstruction.l1(out, image)
    if loss.hole:
      metrics['hole'] = 2 * reconstruction.discounted_l1(made, real, loss.discount)
    if loss.guidance:
      hole = networks_lib.feature_hole(mask)
      former, target = outputs['former'], outputs['target']
      metrics['guidance'] = guidance(former, target, hole, loss.guidance_region)
    if loss.adversarial:
      judge = functools.partial(modules.train_pass, networks, 'discriminator')
      if loss.adversarial_kind in RELATIVISTIC:
        logits, changed = judge(variables, real)
        fake, changed = judge(variables.with_stats(changed), made)
        compare = RELATIVISTIC[loss.adversarial_kind].generator
        metrics['adversarial'] = compare(jax.lax.stop_gradient(logits), fake)
      else:
        fake, changed = judge(variables, made)
        metrics['adversarial'] = adversarial.KINDS[loss.adversarial_kind].generator(fake)
    if loss.style or loss.perceptual:
      features = vgg16_terms.features(constants, loss, normalize=False, dtype=dtype)
      seen, wanted = features(2 * made - 1), features(2 * real - 1)
      for name, term in (('style', perceptual.style), ('perceptual', perceptual.perceptual)):
        if loss[name]:
          metrics[name] = term(seen, wanted, squared=True)
    if loss.tv:
      metrics['tv'] = regularisers.squared_total_variation((2 * out - 1) * mask)
    return total({name: loss[name] * value for name, value in metrics.items()}, changed)

  return generator_loss


def _discriminator_loss(loss: ConfigDict, networks: Networks) -> Loss:
  kind = loss.adversarial_kind
  # The gradient penalty is computed in float32.
  exact: dict[str, nn.Module] = {
    'discriminator': networks['discriminator'].clone(dtype=jnp.float32)
  }

  def discriminator_loss(variables, constants, outputs, batch, rng):
    real = _cut(loss, batch['image'], batch['mask'])
    made = jax.lax.stop_gradient(_cut(loss, outputs['out'], batch['mask']))
    judge = functools.partial(modules.train_pass, networks, 'discriminator')
    # Two calls, not one with a double batch: each takes its own power iteration, as in PyTorch.
    real_logits, changed = judge(variables, real)
    fake_logits, changed = judge(variables.with_stats(changed), made)
    # What the network makes of nothing is one colour, of which instance norms have no bound.
    real_logits, fake_logits = modules.only_of_known((real_logits, fake_logits), batch['mask'])
    if kind in RELATIVISTIC:
      value = RELATIVISTIC[kind].discriminator(real_logits, fake_logits)
      return total({'relativistic': value}, changed)
    terms = adversarial.KINDS[kind].discriminator(real_logits, fake_logits)
    metrics = {'real': terms[0] / 2, 'fake': terms[1] / 2}
    shown = {}
    if kind == 'wasserstein' and loss.gradient_penalty:
      judged = lambda x: modules.only_of_known(
        modules.run(exact, 'discriminator', variables, (x + 1) / 2), batch['mask']
      )
      penalty, slope = adversarial.gradient_penalty(judged, 2 * real - 1, 2 * made - 1, rng)
      metrics['penalty'] = loss.gradient_penalty * penalty
      shown['slope'] = slope.mean()
    return total(metrics, changed, shown)

  return discriminator_loss


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  for name, choices in (
    ('variant', ('unet', 'face')),
    ('norm', ('instance', 'batch')),
    ('mirror', ('best', 'released')),
  ):
    checks.one_of(f'model.{name}', model[name], choices)
  for name in ('width', 'discriminator_width'):
    checks.count(f'model.{name}', model[name])
  if model.levels not in range(4, 9):
    raise ValueError(f'config.model.levels {model.levels!r} must be 4 to 8')


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  loss = config.loss
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, WEIGHTS)
  checks.weights(loss, ('gradient_penalty',), needed=False)
  checks.one_of('loss.guidance_region', loss.guidance_region, ('hole', 'released'))
  checks.one_of('loss.adversarial_kind', loss.adversarial_kind, KINDS)
  if not 0 < loss.discount <= 1:
    raise ValueError(f'config.loss.discount {loss.discount!r} must be in (0, 1] (1: no discount)')
  if isinstance(loss.crop, bool) or not isinstance(loss.crop, int) or loss.crop < 0:
    raise ValueError(
      f'config.loss.crop {loss.crop!r} must be the side of square holes in pixels, or 0 for others'
    )
  if loss.hole and not loss.crop:
    raise ValueError(
      'config.loss.hole is the error in a window, but loss.crop is 0: set it to the side of the '
      'holes, or loss.hole to 0'
    )
  if loss.adversarial_kind == 'wasserstein' and config.model.norm == 'batch':
    raise ValueError(
      "config.loss.adversarial_kind 'wasserstein' needs each sample's own gradient, but a batch "
      "norm mixes samples: set model.norm to 'instance'"
    )
  vgg16_terms.check(loss)
