"""How AOT-GAN is trained: the joint loss with a discriminator that looks for the hole.

Zeng, Fu, Chao, Guo: "Aggregated Contextual Transformations for High-Resolution Image Inpainting",
IEEE Transactions on Visualization and Computer Graphics 2022, https://arxiv.org/abs/2104.01431
(sections 3.2 and 3.3). The numbers below are the released code's.

Differs from the released code, and follows the paper:
  - `adversarial_kind='soft_mask'`. The code's labels are reversed (real 0, hole 1) while its
    generator still pushes towards 1, which rewards being found out; its mask weighs a mean that was
    already taken, so that all patches count. 'soft_mask_released' is that. Published weights load
    either way: a discriminator's file was trained with the reversed labels.
    'non_saturating' is the code's alternative 'nsgan'.

Differs from the released code:
  - the discriminator is not stepped with the gradient of the generator's adversarial term as well
    (0.01 of it leaks there: the code clears the gradients before the generator's backward pass and
    steps both networks after it);
  - half the sum of the discriminator's two terms is minimised instead of the sum: Adam's steps do
    not change with it;
  - the three power iterations of a step run in another order (see systems/joint_loss.py);
  - L1 is of images in [0, 1], where the code's are in [-1, 1]: hence its weight 2;
  - images are saved rounded to eight bits; the code truncates, which darkens by half a level;
  - images of any size are completed, padded at the bottom and right; the code takes multiples of 4
    above 32.
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
    remat=False,  # ours: saves memory, changes no number
    kernel_init='normal_0.02',
  )
  loss = dict(
    l1=2.0,  # 1 on images in [-1, 1]
    l1_hole=0.0,
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
    perceptual_layers=('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1'),
    style_layers=('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2'),
    style_on_hole=False,
  )
  return ConfigDict(dict(system='aotgan', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for fields that make no sense."""
  rates = tuple(config.model.rates)
  checks.dilations('model.rates', rates)
  return joint_loss.inference(
    config, networks.Generator, multiple=networks.MULTIPLE, min_side=networks.min_side(rates)
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for fields that make no sense."""
  return joint_loss.make(config, inference(config), networks.Generator, networks.Discriminator)


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks in place, and drops the terms that need VGG's weights."""
  # The published deviation lets everything fade to grey in a network this narrow.
  config.model.update(dict(width=8, blocks=1, kernel_init='he_normal'))
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=8))
