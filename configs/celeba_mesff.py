"""MESFF + SFI on CelebA at 256 x 256: the main paper's second data set.

  jaxinpaint train --config celeba_mesff --workdir runs/celeba_mesff
  jaxinpaint evaluate --workdir runs/celeba_mesff

Data: docs/data.md (celeb_a; tfds fetches it from Google Drive, whose quota is often used up).
Everything else as places2_mesff.py: the paper states one setting for both data sets.
Published result (table 1; masks 10-20 / 20-40 / 40-60 %): PSNR 36.857 / 28.790 / 23.348.
Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_mesff


def get_config(variant=''):
  config = places2_mesff.get_config()
  _base.celeba(config)
  return _base.finish(config, variant)
