"""How MISF is trained (paper and sources: networks.py).

One generator and one patch discriminator on a joint loss, with the weights and quirks of the
released configuration: L1 divided by mean(mask), VGG19 on raw [0, 1] images, the style term on
image * mask.

Differs from the reference code: its discriminator loss is computed before its generator loss, so
its power iterations run real, fake, fake; here the generator's pass comes first.
`loss.l1_over_mask_mean` leaves a batch without any hole undivided instead of dividing by zero.
"""

from ml_collections import ConfigDict

from jaxinpaint.systems import joint_loss
from jaxinpaint.systems.misf import networks
from jaxinpaint.training.recipe import Recipe


def default_config() -> ConfigDict:
  """The released configuration."""
  model = dict(width=64, blocks=8, kernel_size=3, remat=False, discriminator_width=64)
  loss = joint_loss.default_loss(
    l1=1.0,
    l1_over_mask_mean=True,
    adversarial=0.1,
    perceptual=0.1,
    perceptual_layers=('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1'),
    style=250.0,
    style_layers=('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2'),
    style_on_hole=True,
    vgg='vgg19',
    vgg_normalize=False,
  )
  return ConfigDict(dict(system='misf', dtype='float32', model=model, loss=loss))


def make(config: ConfigDict) -> Recipe:
  """The recipe of config.model, config.loss and config.dtype."""
  return joint_loss.make(
    networks.Generator, config, multiple=networks.MULTIPLE, min_side=networks.MIN_SIDE
  )


def quicktest(config: ConfigDict) -> None:
  """In place: small enough for a run of seconds on a CPU."""
  joint_loss.quicktest(config)
  config.model.update(dict(blocks=2))
