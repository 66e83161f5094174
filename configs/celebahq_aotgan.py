"""AOT-GAN on CelebA-HQ at 512 x 512: the paper's faces.

  jaxinpaint train --config celebahq_aotgan --workdir runs/celebahq_aotgan
  jaxinpaint evaluate --workdir runs/celebahq_aotgan

Data: docs/data.md (celeb_a_hq/512, made by hand). Everything else as places2_aotgan.py; O: the
division into 28,000 training and 2,000 evaluation images. Result here: not trained here; the
published weights are imported by `jaxinpaint weights import aotgan G0000000.pt OUT`.
"""

from jaxinpaint.configs import _base, places2_aotgan


def get_config(variant=''):
  config = places2_aotgan.get_config()
  config.data.source = 'tfds:celeb_a_hq/512'
  config.data.split = 'train[:28000]'
  config.data.eval_split = 'train[28000:]'
  return _base.finish(config, variant)
