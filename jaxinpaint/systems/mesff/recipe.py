"""How MESFF + SFI is trained (paper and sources: networks.py).

One generator and one patch discriminator on a joint loss with weights 1 (L1), 0.1 (adversarial),
0.1 (perceptual) and 250 (style), paper section 2.5.

Differs from the paper:
  - eq. 12 lacks the discriminator and is malformed; the standard game in its non-saturating form
    with binary cross-entropy is used, as in MISF.
  - eq. 13 and 14 write norms without normalisation; means are used, as in the code of CTSDG and
    MISF (a sum under the weight 250 would drown every other term). Pools 1 to 3 of VGG-16 (CTSDG).
  - VGG sees ImageNet-normalised images, as it was trained; MISF and CTSDG feed raw [0, 1]
    (`loss.vgg_normalize=False`).
Differs from MISF's code: the L1 term is a plain mean (`loss.l1_over_mask_mean`), and the style term
compares whole images (`loss.style_on_hole`), as the paper's text has them.
"""

from ml_collections import ConfigDict

from jaxinpaint.systems import joint_loss
from jaxinpaint.systems.mesff import networks
from jaxinpaint.training.recipe import Recipe


def default_config() -> ConfigDict:
  """The paper's networks and loss. P: paper, M: MISF's code, O: this project's reading."""
  model = dict(
    width=64,  # M
    use_mesff=True,  # ablation "w/o MESFF": False
    bottleneck='sfi',  # ablation "w/o SFI": 'none'; MISF's residual blocks: 'resnet'
    blocks=6,  # P
    resnet_blocks=8,  # M
    kernel_size=3,  # M
    filter_rates=(1,),  # M; JPGNet uses (1, 2, 3, 4) and a merging convolution
    attention_size=256,  # P
    attention_hidden=64,  # O
    mesff_skip='add',  # O
    gate_norm='aot',  # AOT-GAN's code; 'none': the plain sigmoid of the text
    sfi_residual_scale=1.0,  # P
    remat=False,
    discriminator_width=64,  # M
  )
  loss = joint_loss.default_loss(
    l1=1.0,
    adversarial=0.1,
    perceptual=0.1,
    style=250.0,  # P
  )
  return ConfigDict(dict(system='mesff', dtype='float32', model=model, loss=loss))


def make(config: ConfigDict) -> Recipe:
  """The recipe of config.model, config.loss and config.dtype."""
  return joint_loss.make(
    networks.Generator, config, multiple=networks.MULTIPLE, min_side=networks.MIN_SIDE
  )


def quicktest(config: ConfigDict) -> None:
  """In place: small enough for a run of seconds on a CPU."""
  joint_loss.quicktest(config)
  config.model.update(dict(blocks=2, resnet_blocks=2, attention_size=32, attention_hidden=8))
