"""LFR without scores of several levels: variant 2 of its ablation.

  jaxinpaint train --config celebahq_lfr_variant2:texture --config.init_from=runs/lfr_structure
      --workdir runs/celebahq_lfr_variant2

As configs/celebahq_lfr.py otherwise, whose first stage it shares; `jaxinpaint train --config
celebahq_lfr_variant2` does both. Published (table 2): PSNR 36.239, SSIM 0.973, FID 20.534. Result
here: not trained here.
"""

from jaxinpaint.configs import _base, celebahq_lfr


def get_config(variant=''):
  stages = celebahq_lfr.STAGES
  config = celebahq_lfr.get_config(variant if variant in stages else '')
  config.model.attention_from = (6, 6, 6)
  return _base.finish(config, variant, own=stages)
