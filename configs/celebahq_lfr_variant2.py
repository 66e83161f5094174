"""LFR without scores of several levels: variant 2 of its ablation.

  jaxinpaint train --config celebahq_lfr_variant2 --workdir runs/celebahq_lfr_variant2

As configs/celebahq_lfr.py otherwise. Result here: not trained here.
"""

from jaxinpaint.configs import _base, celebahq_lfr


def get_config(variant=''):
  config = celebahq_lfr.get_config()
  config.model.attention_from = (6, 6, 6)
  return _base.finish(config, variant)
