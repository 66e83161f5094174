"""DeepFill v1 on DTD textures at 256 x 256.

  jaxinpaint train --config dtd_deepfillv1 --workdir runs/dtd_deepfillv1
  jaxinpaint evaluate --workdir runs/dtd_deepfillv1

Data: docs/data.md (dtd). Everything else as places2_deepfillv1.py, random windows of 256 x 256
included. The paper shows pictures of this set and no numbers. Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_deepfillv1


def get_config(variant=''):
  config = places2_deepfillv1.get_config()
  config.data.source = 'tfds:dtd'
  config.data.eval_split = 'test'
  return _base.finish(config, variant)
