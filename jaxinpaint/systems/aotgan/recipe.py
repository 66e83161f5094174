"""How AOT-GAN is trained: the joint loss with a discriminator that looks for the hole.

Zeng, Fu, Chao, Guo: "Aggregated Contextual Transformations for High-Resolution Image Inpainting",
IEEE Transactions on Visualization and Computer Graphics 2022, https://arxiv.org/abs/2104.01431
(sections 3.2 and 3.3). The numbers below are the released code's.

Differs from the released code, and follows the paper:
  - `adversarial_kind='soft_mask'`. The code reverses the labels (real 0, hole 1), but its generator
    still aims at 1, so it is rewarded when its pixels are recognised as painted. The code also
    applies the mask after taking the mean, so all patches count. 'soft_mask_released' reproduces
    both. Published weights load in either case; the published discriminators were trained with the
    reversed labels. 'non_saturating' is the code's alternative 'nsgan'.

Differs from the released code:
  - the discriminator's step does not include the gradient of the generator's adversarial term. In
    the code 0.01 of it leaks into that step: the gradients are cleared before the generator's
    backward pass, and both networks are stepped after it;
  - half the sum of the discriminator's two terms is minimised instead of the sum; Adam's steps are
    the same;
  - the three power iterations of a step run in another order (see systems/_shared/joint_loss.py);
  - L1 compares images in [0, 1], in the code images in [-1, 1]: hence its weight 2;
  - images are rounded to eight bits when they are saved; the code truncates, which darkens them by
    half a level;
  - images of any size are completed, padded at the bottom and right; the code accepts multiples of
    4 above 32.
"""

from ml_collections import ConfigDict

from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.systems._shared import checks, joint_loss
from jaxinpaint.systems.aotgan import networks


def default_config() -> ConfigDict:
  """The published networks and weights."""
  model = dict(
    width=64,
    blocks=8,
    rates=(1, 2, 4, 8),
    gate_norm='aot',  # the code's; 'none': the paper's text
    stem=1,  # ours: squares of stem x stem pixels as channels; 1: the paper's
    fill='none',  # ours; 'smooth', 'tension': the network adds to a fill
    remat=False,  # ours: saves memory, does not change the numbers
    kernel_init='normal_0.02',
  )
  loss = dict(
    l1=2.0,  # 1 on images in [-1, 1]
    l1_hole=0.0,
    psnr_hole=0.0,
    adversarial=0.01,
    perceptual=0.1,
    style=250.0,
    adversarial_kind='soft_mask',  # the paper's; 'soft_mask_released', 'non_saturating'
    discriminator_input='comp',
    discriminator_width=64,
    l1_over_mask_mean=False,
    vgg='vgg19',
    vgg_file='',
    vgg_normalize=True,
    vgg_input='out',
    perceptual_layers=('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1'),
    style_layers=('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2'),
    style_on_hole=False,
  )
  return ConfigDict(dict(system='aotgan', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  rates = tuple(config.model.rates)
  checks.dilations('model.rates', rates)
  stem = config.model.get('stem', 1)
  checks.stem('model.stem', stem)
  return joint_loss.inference(
    config,
    networks.Generator,
    multiple=networks.MULTIPLE * stem,
    min_side=networks.min_side(rates) * stem,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  return joint_loss.make(config, inference(config), networks.Generator, networks.Discriminator)


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and removes the terms that need VGG's weights; changes `config`."""
  # With the published standard deviation, a network this narrow outputs only grey.
  config.model.update(dict(width=8, blocks=1, stem=1, kernel_init='he_normal'))
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=8))
