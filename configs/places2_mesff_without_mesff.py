"""Ablation "w/o MESFF" on Places2: FIIFB's second stage sees its own features alone.

  jaxinpaint train --config places2_mesff_without_mesff

Everything else as places2_mesff.py. Published result: the paper's table 3 states only that the full
system is best. Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_mesff


def get_config(variant=''):
  config = places2_mesff.get_config()
  config.model.use_mesff = False
  return _base.finish(config, variant)
