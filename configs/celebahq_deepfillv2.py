"""DeepFill v2 on CelebA-HQ at 256 x 256: the paper's faces.

  jaxinpaint train --config celebahq_deepfillv2 --workdir runs/celebahq_deepfillv2
  jaxinpaint evaluate --workdir runs/celebahq_deepfillv2

Data: docs/data.md (celeb_a_hq/256, made by hand). Everything else as places2_deepfillv2.py;
pictures are resized, not cropped (O). O: the division into 28,000 training and 2,000 evaluation
images. Result here: not trained here; published weights are imported by
`jaxinpaint weights import deepfillv2 release_celeba_hq_256 OUT`.
"""

from jaxinpaint.configs import _base, places2_deepfillv2


def get_config(variant=''):
  config = places2_deepfillv2.get_config()
  config.data.source = 'tfds:celeb_a_hq/256'
  config.data.split = 'train[:28000]'
  config.data.eval_split = 'train[28000:]'
  config.data.crop = 'resize'
  return _base.finish(config, variant)
