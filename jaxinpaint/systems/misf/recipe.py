"""How MISF is trained: the joint loss of its released configuration.

Li, Guo, Lin, Li, Feng, Wang: "MISF: Multi-level Interactive Siamese Filtering for High-Fidelity
Image Inpainting", CVPR 2022, https://arxiv.org/abs/2203.06304. Every number below is that of the
released code unless a comment says otherwise.

Differs from the reference code:
  - the L1 term divides by the share of hole in the batch, but by no less than 1 %, and not at all
    if there is no hole, where the code divides by zero;
  - the three power iterations of a step run in another order (see systems/_shared/joint_loss.py);
  - binary cross-entropy is computed from logits, without PyTorch's clamp of the logarithm at -100.
"""

from ml_collections import ConfigDict

from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.systems._shared import joint_loss
from jaxinpaint.systems.misf import networks


def default_config() -> ConfigDict:
  """The published networks and weights."""
  model = dict(
    width=64,
    blocks=8,
    kernel_size=3,
    remat=False,  # ours: saves memory, does not change the numbers
    kernel_init='normal_0.02',
  )
  loss = dict(
    l1=1.0,
    l1_hole=0.0,
    psnr_hole=0.0,
    adversarial=0.1,
    perceptual=0.1,
    style=250.0,
    adversarial_kind='non_saturating',
    discriminator_input='out',
    discriminator_width=64,
    l1_over_mask_mean=True,
    vgg='vgg19',
    vgg_file='',
    vgg_normalize=False,  # images go in as [0, 1]
    vgg_input='out',
    perceptual_layers=('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1'),
    style_layers=('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2'),
    style_on_hole=True,
  )
  return ConfigDict(dict(system='misf', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  return joint_loss.inference(
    config, networks.Generator, multiple=networks.MULTIPLE, min_side=networks.MIN_SIDE
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  return joint_loss.make(config, inference(config), networks.Generator)


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and removes the terms that need VGG's weights; changes `config`."""
  config.model.update(dict(width=8, blocks=1))
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=8))
