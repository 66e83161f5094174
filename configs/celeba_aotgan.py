"""AOT-GAN on CelebA at 256 x 256, as the main paper compares with it.

  jaxinpaint train --config celeba_aotgan --workdir runs/celeba_aotgan
  jaxinpaint evaluate --workdir runs/celeba_aotgan

Data: docs/data.md (celeb_a). Everything else as places2_aotgan_256.py. Published there (table 1;
holes of 10-20 / 20-40 / 40-60 %): PSNR 18.032 / 17.980 / 16.263, which is low for this system.
Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_aotgan_256


def get_config(variant=''):
  config = places2_aotgan_256.get_config()
  _base.celeba(config)
  return _base.finish(config, variant)
