"""MAT (Li et al., CVPR 2022) on CelebA-HQ at 512 x 512, and with `:256` at 256 x 256.

  jaxinpaint train --config celebahq_mat --workdir runs/celebahq_mat
  jaxinpaint train --config celebahq_mat:256 --workdir runs/celebahq_mat_256

Data: docs/data.md (celeb_a_hq/512 or /256, made by hand). Everything else as places2_mat.py, with
half as many images; O: the division into 28,000 training and 2,000 evaluation images. Measured by
the protocol of Places at 512 x 512. Result here: not trained here; the weights that the authors
publish for faces are pickles, which are not read (jaxinpaint/systems/mat/published.py).
"""

from jaxinpaint.configs import _base, places2_mat

KIMG = 25_000  # thousands of images


def get_config(variant=''):
  config = places2_mat.get_config()
  size = 256 if variant == '256' else 512
  config.model.size = config.data.size = size
  config.data.masks = places2_mat.MASKS[size]
  config.data.source = f'tfds:celeb_a_hq/{size}'
  config.data.split = 'train[:28000]'  # O
  config.data.eval_split = 'train[28000:]'
  config.data.crop = 'resize'
  config.training.steps = KIMG * 1000 // config.data.batch_size
  return _base.finish(config, variant, own=('256',))
