"""JPGNet (Guo et al., ACM Multimedia 2021) with EdgeConnect, on CelebA at 256 x 256.

  jaxinpaint train --config celeba_jpgnet --workdir runs/celeba_jpgnet
  jaxinpaint evaluate --workdir runs/celeba_jpgnet

Data: docs/data.md (celeb_a). Everything else as places2_jpgnet.py, which says how to begin with a
published EdgeConnect. Published (the main paper's table 1; holes of 10-20 / 20-40 / 40-60 %): PSNR
35.816 / 28.217 / 23.072. Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_jpgnet


def get_config(variant=''):
  config = places2_jpgnet.get_config()
  _base.celeba(config)
  return _base.finish(config, variant)
