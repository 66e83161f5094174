"""AOT-GAN on Places2 at 256 x 256, as the main paper compares with it.

  jaxinpaint train --config places2_aotgan_256 --workdir runs/places2_aotgan_256
  jaxinpaint evaluate --workdir runs/places2_aotgan_256

Data: docs/data.md (places365_small, 256 x 256). Everything else as places2_aotgan.py, whose 512 x
512 are AOT-GAN's own. Measured by seed000. Published there (table 1; holes of 10-20 / 20-40 / 40-60
%): PSNR 21.384 / 20.873 / 18.474, which is low for this system. Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_aotgan


def get_config(variant=''):
  config = places2_aotgan.get_config()
  _base.places2(config)
  config.data.size = 256
  _base.measured_by(config, 'seed000')
  return _base.finish(config, variant)
