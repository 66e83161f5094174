"""LFR with scores of level 6 only and no structure: variant 1 of its ablation.

  jaxinpaint train --config celebahq_lfr_variant1 --workdir runs/celebahq_lfr_variant1

As configs/celebahq_lfr.py otherwise. Published (table 2): PSNR 34.364, SSIM 0.959, FID 33.357.
Result here: not trained here.
"""

from jaxinpaint.configs import _base, celebahq_lfr


def get_config(variant=''):
  config = celebahq_lfr.get_config()
  config.model.attention_from = (6, 6, 6)
  config.model.structure = False
  config.phases.structure = 0
  config.training.steps = sum(config.phases.values())
  return _base.finish(config, variant)
