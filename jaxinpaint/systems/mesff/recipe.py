"""How MESFF + SFI is trained: the joint loss of section 2.5 of the paper.

Wu, Zhang, Wang, Chen, Qin: "Image Inpainting Based on Perceptual Inference and External Spatial
Prior Features"; networks.py has the networks and says how the paper is read. Marks: P, the paper;
M, the code of its predecessor MISF, where the paper gives nothing; C, the code of CTSDG (Guo et
al., ICCV 2021), whose VGG terms the paper uses; O, our choice.

Differs from the paper, where it cannot be followed literally:
  - eq. 12 has no discriminator, and '1 - log' for log(1 - D). Here: the usual non-saturating
    adversarial loss, with the discriminator's loss halved (M);
  - eq. 13 and 14 have norms without a divisor. Here: means over all elements (C); with sums, a
    weight of 250 would dominate everything else;
  - the text on the style term refers to the activations of eq. 12, but means those of eq. 13;
  - "initial learning rate" implies that the rate falls, but the paper gives no schedule. Assumed:
    it stays constant (M);
  - the weights are MISF's, which has other terms behind them: L1 divided by the mean of the mask,
    style of the hole alone, raw images for VGG. These are switches (`l1_over_mask_mean`,
    `style_on_hole`, `vgg_normalize`); configs/places2_mesff_misf_balance.py sets all three.
"""

from ml_collections import ConfigDict

from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.systems._shared import checks, joint_loss
from jaxinpaint.systems.mesff import networks


def default_config() -> ConfigDict:
  """The published networks and weights, with the source of every number."""
  model = dict(
    width=64,  # M
    use_mesff=True,  # False: table 3, 'w/o MESFF'
    bottleneck='sfi',  # 'none': table 3, 'w/o SFI'; 'resnet': MISF's residual blocks
    blocks=6,  # P
    resnet_blocks=8,  # M
    kernel_size=3,  # M; P does not say
    filter_rates=(1,),  # M
    attention_size=256,  # P
    attention_hidden=64,  # O: the usual memory size of external attention
    attention_memory='mlp',  # O: eq. 3 allows 'matrix' as well, see networks.py
    mesff_skip='add',  # O: P mentions a skip connection, but not its kind
    gate_norm='aot',  # AOT-GAN's code; P's text has the plain sigmoid, 'none'
    sfi_residual_scale=1.0,  # P, eq. 11
    stem=1,  # O: squares of stem x stem pixels as channels; 1: M
    fill='none',  # O; 'smooth', 'tension': the network adds to a fill before the filter
    without_grid=False,  # O; True: what the network adds is averaged over the stem's squares
    standardise=False,  # O; True: the network sees colours relative to the known pixels' mean
    norm='instance',  # M; 'none': no normalisation, which keeps absolute colours
    encoder_skips=False,  # O; True: the encoder's features are added to the decoder's
    remat=False,
    kernel_init='normal_0.02',  # M; 'he_normal' for networks much narrower than 64
  )
  loss = dict(
    l1=1.0,  # P
    l1_hole=0.0,  # neither P nor M
    psnr_hole=0.0,  # as l1_hole
    adversarial=0.1,  # P
    perceptual=0.1,  # P
    style=250.0,  # P
    adversarial_kind='non_saturating',  # M
    discriminator_input='out',  # M
    discriminator_width=64,  # M
    l1_over_mask_mean=False,  # P: a plain mean; M divides
    vgg='vgg16',  # P
    vgg_file='',
    vgg_normalize=True,  # O: as VGG was trained; C and M feed raw images
    vgg_input='out',  # M
    perceptual_layers=('pool1', 'pool2', 'pool3'),  # P: pooling layers; C: these three
    style_layers=('pool1', 'pool2', 'pool3'),  # P: those of the perceptual term
    style_on_hole=False,  # P: whole images; M multiplies both images by the mask
  )
  return ConfigDict(dict(system='mesff', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  stem = config.model.get('stem', 1)
  checks.stem('model.stem', stem)
  return joint_loss.inference(
    config,
    networks.Generator,
    multiple=networks.MULTIPLE * stem,
    min_side=networks.MIN_SIDE * stem,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  return joint_loss.make(config, inference(config), networks.Generator)


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and removes the terms that need VGG's weights; changes `config`."""
  config.model.update(
    dict(width=8, blocks=1, resnet_blocks=1, attention_size=32, attention_hidden=8, stem=1)
  )
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=8))
