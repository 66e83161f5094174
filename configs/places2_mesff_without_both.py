"""Ablation "w/o both" on Places2: of the two branches' exchange only image filtering is kept.

  jaxinpaint train --config places2_mesff_without_both

Everything else as places2_mesff.py. Published result: table 3 has PSNR, SSIM and L1; the text says
that the full system is best in all three, and its figures were not at hand here. Result here: not
trained here.
"""

from jaxinpaint.configs import _base, places2_mesff


def get_config(variant=''):
  config = places2_mesff.get_config()
  config.model.use_mesff = False
  config.model.bottleneck = 'none'
  return _base.finish(config, variant)
