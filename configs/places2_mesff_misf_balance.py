"""MESFF + SFI on Places2 with the losses as MISF has them, from which the paper's weights are.

  jaxinpaint train --config places2_mesff_misf_balance --workdir runs/places2_mesff_misf_balance

The weights 1, 0.1, 0.1 and 250 are MISF's, where L1 is divided by the mean of the mask, the style
term sees the hole alone, and VGG gets raw images. The paper describes a plain mean of L1 and whole
images. Everything else as places2_mesff.py. Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_mesff


def get_config(variant=''):
  config = places2_mesff.get_config()
  config.loss.update(dict(l1_over_mask_mean=True, style_on_hole=True, vgg_normalize=False))
  return _base.finish(config, variant)
