"""How the context encoder is trained: weighted L2 and a critic, both of the middle square.

Pathak, Krahenbuhl, Donahue, Darrell, Efros: "Context Encoders: Feature Learning by Inpainting",
CVPR 2016, https://arxiv.org/abs/1604.07379; as BoyuanJiang/context_encoder_pytorch trains it.

  critic     BCE(D(real), 1) + BCE(D(fake), 0)
  generator  (1 - wtl2) BCE(D(fake), 1) + wtl2 mean(W (fake - real)^2)

fake and real are the predicted square and the image's own, in [-1, 1]. W is wtl2 in the middle and
`overlap_weight` times that in the border of `model.overlap` pixels, where the square overlaps known
pixels. So wtl2 weighs the square error twice. The critic is stepped first, and judges the same
square as the generator's update. Batch norm uses the batch's statistics in every pass, and each
pass updates the running ones. Logged terms include their weights, so they sum to 'total'.

Differs from the paper:
  - wtl2 weighs the square error twice (`weight_twice=False`: once, as the paper);
  - the border is 4 pixels wide, not 7 (`model.overlap`);
  - both networks have one learning rate; the paper's critic has a tenth of the generator's. The
    config has an optimizer for each.
Differs from the reference code:
  - the square error is that of each batch's own square; the code copies it into arrays of the batch
    size and drops what does not fill them;
  - binary cross-entropy is computed from logits, without PyTorch's clamp of the logarithm at -100.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint.losses import adversarial
from jaxinpaint.recipe import Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.context_encoder import networks

MIN_SIDE = 8  # of images: smaller ones have no middle to speak of


def default_config() -> ConfigDict:
  """The networks and weights of the released code."""
  model = dict(
    width=64,
    bottleneck=4000,
    levels=5,  # ours: fewer for images below 128 pixels
    overlap=4,  # code; the paper: 7
    image_size=128,  # paper, code: side of the training images, to which others are stretched
    hide_square=True,  # code
    discriminator_width=64,
  )
  loss = dict(
    wtl2=0.998,  # code's default; its README and the paper: 0.999. 1: no critic; 0: critic alone
    overlap_weight=10.0,  # paper, code; 0: the border does not count
    weight_twice=True,  # code; the paper: False
  )
  return ConfigDict(dict(system='context_encoder', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  return modules.one_generator(
    _generator(config),
    multiple=1,
    min_side=MIN_SIDE,
    whole_picture=True,
    check_hole=networks.check_hole,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running = inference(config)
  _check_loss(config.loss)
  model, dtype = config.model, modules.DTYPES[config.dtype]
  nets = {'generator': _generator(config)}
  updates = [Update('generator', ('generator',), _generator_loss(config, nets), 'generator')]
  if config.loss.wtl2 < 1:
    nets['discriminator'] = networks.Discriminator(
      model.discriminator_width, model.levels - 1, dtype
    )
    judge = Update('discriminator', ('discriminator',), _discriminator_loss(nets), 'discriminator')
    updates = [judge, *updates]

  def forward(variables, constants, batch, rng):
    _check_size(batch['image'], model.image_size)
    found, changed = modules.train_pass(nets, 'generator', variables, batch['image'], batch['mask'])
    return {'square': found['square']}, changed

  def arguments(height, width):
    half = model.image_size // 2
    return modules.generator_arguments(height, width) | {'discriminator': ((half, half, 3),)}

  return Recipe(
    running,
    networks=tuple(nets),
    init=modules.initializer(nets, arguments),
    phases=(Phase('joint', -1, forward, tuple(updates)),),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, and fits them to small images; changes `config`."""
  config.model.update(dict(width=8, bottleneck=32, levels=4, image_size=64, discriminator_width=8))


def weighted_l2(
  fake: jax.Array, real: jax.Array, *, overlap: int, weight: float, overlap_weight: float
) -> jax.Array:
  """mean(W (fake - real)^2) over all elements of squares in [-1, 1]; f32[].

  Args:
    fake: the predicted square [B,h,w,3] in [0,1].
    real: the image's own.
    overlap: width of the border in pixels.
    weight: W in the middle.
    overlap_weight: W in the border, in multiples of `weight`; 0: only the middle counts.
  """
  height, width = fake.shape[1:3]
  weights = jnp.full((height, width, 1), weight * overlap_weight, jnp.float32)
  weights = weights.at[overlap : height - overlap, overlap : width - overlap].set(weight)
  squares = jnp.square(fake.astype(jnp.float32) - real.astype(jnp.float32))
  return 4 * (weights * squares).mean()  # 4: values in [-1, 1]


def _real(image: jax.Array) -> jax.Array:
  top, bottom, left, right = networks.square(*image.shape[1:3])
  return image[:, top:bottom, left:right]


def _discriminator_loss(nets: Networks) -> Loss:
  def loss_of(variables, constants, outputs, batch, rng):
    fake = jax.lax.stop_gradient(outputs['square'])
    # Two calls, not one with a double batch: each is normalised by its own statistics.
    real_logits, changed = modules.train_pass(
      nets, 'discriminator', variables, _real(batch['image'])
    )
    fake_logits, changed = modules.train_pass(
      nets, 'discriminator', variables.with_stats(changed), fake
    )
    real, fake = adversarial.non_saturating.discriminator(real_logits, fake_logits)
    return total({'real': real, 'fake': fake}, changed)

  return loss_of


def _generator_loss(config: ConfigDict, nets: Networks) -> Loss:
  loss, model = config.loss, config.model
  settings = dict(overlap=model.overlap, overlap_weight=loss.overlap_weight)
  settings['weight'] = loss.wtl2 if loss.weight_twice else 1.0

  def loss_of(variables, constants, outputs, batch, rng):
    fake, changed, metrics = outputs['square'], {}, {}
    if loss.wtl2 > 0:
      value = weighted_l2(fake, _real(batch['image']), **settings)
      metrics['l2'] = loss.wtl2 * value
    if loss.wtl2 < 1:
      logits, changed = modules.train_pass(nets, 'discriminator', variables, fake)
      value = adversarial.non_saturating.generator(logits)
      metrics['adversarial'] = (1 - loss.wtl2) * value
    return total(metrics, changed)

  return loss_of


def _generator(config: ConfigDict) -> networks.Generator:
  model = config.model
  _check_model(config)
  fields = ('width', 'bottleneck', 'levels', 'overlap', 'image_size', 'hide_square')
  return networks.Generator(
    **{name: model[name] for name in fields}, dtype=modules.DTYPES[config.dtype]
  )


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.hide_square', model.hide_square, (True, False))
  checks.one_of('model.levels', model.levels, (3, 4, 5, 6))
  for name in ('width', 'bottleneck', 'discriminator_width'):
    checks.count(f'model.{name}', model[name])
  checks.count('model.image_size', model.image_size)
  least = networks.least_side(model.levels)
  if model.image_size % 2**model.levels or model.image_size < least:
    raise ValueError(
      f'config.model.image_size {model.image_size} must be a multiple of {2**model.levels} and at '
      f'least {least}, for {model.levels} levels'
    )
  most = model.image_size // 4  # then nothing of the square is hidden
  if not isinstance(model.overlap, int) or not 0 <= model.overlap < most:
    raise ValueError(
      f'config.model.overlap {model.overlap!r} must be a number of pixels from 0 to {most - 1}'
    )


def _check_loss(loss: ConfigDict) -> None:
  """Raises ValueError for settings of the losses that train nothing useful."""
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, ('wtl2',), needed=False)
  checks.weights(loss, ('overlap_weight',), needed=False, zero='the border does not count')
  checks.one_of('loss.weight_twice', loss.weight_twice, (True, False))
  if loss.wtl2 > 1:
    raise ValueError(
      f'config.loss.wtl2 {loss.wtl2} must be in [0, 1]: it weighs the square error, and 1 - wtl2 '
      'the critic'
    )


def _check_size(image: jax.Array, size: int) -> None:
  if image.shape[1:3] != (size, size):
    raise ValueError(
      f'training images are {image.shape[1]} x {image.shape[2]}, but the networks are made for '
      f'config.model.image_size={size}: make config.data.size and config.model.image_size equal'
    )
