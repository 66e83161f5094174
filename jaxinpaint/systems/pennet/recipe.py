"""How PEN-Net is trained: L1 of hole and known pixels, L1 of a pyramid, one adversary.

Zeng, Fu, Chao, Guo: "Learning Pyramid-Context Encoder Network for High-Quality Image Inpainting",
CVPR 2019, section 3.4; networks.py has the networks. Weights and details are those of the released
code:

  generator = hole * L1 of the hole / its share + valid * L1 of known pixels / their share
              + pyramid * sum over levels of L1 of the level's picture and the reduced image
              + adversarial * GAN
  discriminator = half the sum of its real and fake terms

L1 compares images in [-1, 1], shares are those of the whole batch, and images are reduced
bilinearly with aligned corners. The discriminator judges images and outputs that are pasted into
them. The GAN is one of three: 'hinge' (the code on CelebA-HQ and Places2), 'non_saturating' (the
code on facades and textures) and 'least_squares_on_sigmoid', the code's 'lsgan'. A term of weight 0
is not built.

Differs from the paper:
  - L1 is split into hole and known pixels, with the code's weights.
Differs from the reference code:
  - cross-entropy is computed from logits: it is exact, where the code's clamps the logarithm;
  - a batch without a hole (or without known pixels) has no L1 of it; the code divides by zero;
  - the discriminator is stepped first, and both updates use one forward pass (ours; the power
    iterations of its spectral norm then run for real images, outputs, and outputs again).

Logged terms include their weights, so they sum to 'total'.
"""

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.losses import reconstruction
from jaxinpaint.recipe import Inference, Outputs, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, joint_loss, modules
from jaxinpaint.systems._shared.terms import Term, sum_of
from jaxinpaint.systems.pennet import networks as networks_lib

WEIGHTS = ('hole', 'valid', 'pyramid', 'adversarial')
ADVERSARIAL_KINDS = ('hinge', 'non_saturating', 'least_squares_on_sigmoid')
LEVELS = 5


def default_config() -> ConfigDict:
  """The released code's networks and weights, for CelebA-HQ and Places2."""
  model = dict(
    width=32,
    transfer='released',  # 'paper': cosines, and only the hole is filled
    kernel_init='normal_0.02',  # ours: 'he_normal', for narrow networks
  )
  loss = dict(
    hole=6.0,
    valid=1.0,
    pyramid=0.5,
    adversarial=0.1,
    adversarial_kind='hinge',  # one of ADVERSARIAL_KINDS
    discriminator_input='comp',
    discriminator_width=64,
  )
  return ConfigDict(dict(system='pennet', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  networks = {'generator': _generator(config)}

  def pictures(variables, constants, image, mask, rng):
    outputs = modules.run(networks, 'generator', variables, image, mask)
    height, width = image.shape[1:3]
    return {
      f'pyramid{i}': arrays.resize_nearest(outputs[f'pyramid{i}'], height, width)
      for i in range(LEVELS, 0, -1)
    }

  return modules.one_generator(
    networks['generator'],
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.MULTIPLE,
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running, loss = inference(config), config.loss
  _check_loss(loss)
  networks, updates = {'generator': _generator(config)}, []
  if loss.adversarial:
    networks['discriminator'] = networks_lib.Discriminator(
      loss.discriminator_width, dtype=modules.DTYPES[config.dtype]
    )
    judging = joint_loss.discriminator_loss(loss, networks)
    updates.append(Update('discriminator', ('discriminator',), judging, 'discriminator'))

  def forward(variables, constants, batch, rng):
    outputs, changed = modules.train_pass(
      networks, 'generator', variables, batch['image'], batch['mask']
    )
    names = ('out', *(f'pyramid{i}' for i in range(1, LEVELS + 1)))
    return {name: outputs[name] for name in names}, changed

  terms = [_l1_terms(loss)]
  if loss.adversarial:
    terms.append(joint_loss.adversarial_term(loss, networks))
  updates.append(Update('generator', ('generator',), sum_of(terms), 'generator'))
  return Recipe(
    running,
    networks=tuple(networks),
    init=joint_loss.initializer(networks),
    phases=(Phase('joint', -1, forward, tuple(updates)),),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks; changes `config`."""
  # With the published standard deviation, a network this narrow outputs only grey.
  config.model.update(dict(width=4, kernel_init='he_normal'))
  config.loss.discriminator_width = 4


def pyramid_loss(outputs: Outputs, image: jax.Array) -> jax.Array:
  """Sum over levels of the mean absolute difference, for images in [0, 1]; f32[].

  Args:
    outputs: 'pyramid1' to 'pyramid5', f32[B,h,w,3] each.
    image: f32[B,H,W,3], reduced to each level's size bilinearly with aligned corners.
  """
  pictures = [outputs[f'pyramid{i}'] for i in range(1, LEVELS + 1)]
  reduced = lambda p: arrays.resize_bilinear(image, *p.shape[1:3], align_corners=True)
  return sum(reconstruction.l1(p, reduced(p)) for p in pictures)


def _l1_terms(loss: ConfigDict) -> Term:
  """The terms without an adversary; their factor 2 is that of images in [-1, 1]."""

  def term(variables, constants, outputs, batch):
    out, image, mask = outputs['out'], batch['image'], batch['mask']
    metrics = {}
    for name, region in (('hole', mask), ('valid', 1 - mask)):
      if loss[name]:
        value = reconstruction.masked_l1(out, image, region, over_region=True)
        metrics[name] = 2 * loss[name] * value
    if loss.pyramid:
      metrics['pyramid'] = 2 * loss.pyramid * pyramid_loss(outputs, image)
    return metrics, {}

  return term


def _generator(config: ConfigDict) -> nn.Module:
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.transfer', model.transfer, ('released', 'paper'))
  checks.count('model.width', model.width)
  if model.width % 4:
    raise ValueError(
      f'config.model.width {model.width} must be a multiple of 4: four convolutions share the '
      'channels of a level'
    )
  checks.one_of('model.kernel_init', model.kernel_init, joint_loss.KERNEL_INITS)
  return networks_lib.Generator(
    model.width,
    model.transfer,
    joint_loss.KERNEL_INITS[model.kernel_init],
    dtype=modules.DTYPES[config.dtype],
  )


def _check_loss(loss: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, WEIGHTS)
  checks.one_of('loss.adversarial_kind', loss.adversarial_kind, ADVERSARIAL_KINDS)
  checks.one_of('loss.discriminator_input', loss.discriminator_input, ('out', 'comp'))
  checks.count('loss.discriminator_width', loss.discriminator_width)
