"""CSA (Liu et al., ICCV 2019) on Places2 at 256 x 256.

  jaxinpaint train --config places2_csa --workdir runs/places2_csa
  jaxinpaint evaluate --workdir runs/places2_csa

As configs/celeba_csa.py but for the data (docs/data.md, places365_small). The steps are as many as
there (ours): the code's 120 epochs would be 216 million here. Result here: not trained here.
"""

from jaxinpaint.configs import _base, celeba_csa


def get_config(variant=''):
  config = celeba_csa.get_config()
  _base.places2(config)
  return _base.finish(config, variant)
