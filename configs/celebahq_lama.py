"""LaMa-Fourier (Suvorov et al., WACV 2022) on CelebA-HQ at 256 x 256.

  jaxinpaint train --config celebahq_lama --workdir runs/celebahq_lama \
    --config.data.source=/data/celeba_hq_256/train --config.data.eval_source=/data/celeba_hq_256/val
  jaxinpaint evaluate --workdir runs/celebahq_lama

Data: CelebA-HQ at 256 pixels as a folder (docs/data.md), 26,000 faces to train and 2,000 to test.
Everything else as places2_lama_fourier.py. Result here: not trained here; the published weights
(lama-fourier of CelebA-HQ) are imported by `jaxinpaint weights import lama best.ckpt OUT`.
"""

from jaxinpaint.configs import _base, places2_lama_fourier


def get_config(variant=''):
  config = places2_lama_fourier.get_config()
  config.data.source = 'folder:~/data/celeba_hq_256'
  config.data.crop = 'resize'  # the faces are squares
  config.evaluation.update(dict(protocol='seed000', masks='lama_thick_256', count=2000))
  config.checkpoint.best = 'psnr'
  return _base.finish(config, variant)
