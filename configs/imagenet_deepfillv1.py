"""DeepFill v1 on ImageNet at 256 x 256.

  jaxinpaint train --config imagenet_deepfillv1 --workdir runs/imagenet_deepfillv1
  jaxinpaint evaluate --workdir runs/imagenet_deepfillv1

Data: docs/data.md (imagenet2012). Everything else as places2_deepfillv1.py, random windows of 256 x
256 included. The paper shows pictures of this set and no numbers. Result here: not trained here;
published weights are imported by `jaxinpaint weights import deepfillv1 release_imagenet_256 OUT`.
"""

from jaxinpaint.configs import _base, places2_deepfillv1


def get_config(variant=''):
  config = places2_deepfillv1.get_config()
  config.data.source = 'tfds:imagenet2012'
  return _base.finish(config, variant)
