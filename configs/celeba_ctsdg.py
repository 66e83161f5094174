"""CTSDG (Guo et al., ICCV 2021) on CelebA at 256 x 256.

  jaxinpaint train --config celeba_ctsdg --workdir runs/celeba_ctsdg

As configs/places2_ctsdg.py but for the data. Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_ctsdg


def get_config(variant=''):
  config = places2_ctsdg.get_config()
  _base.celeba(config, crop='resize')  # the code's centre square is commented out
  return _base.finish(config, variant)
