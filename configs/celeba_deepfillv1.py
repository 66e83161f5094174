"""DeepFill v1 on CelebA at 256 x 256.

  jaxinpaint train --config celeba_deepfillv1 --workdir runs/celeba_deepfillv1
  jaxinpaint evaluate --workdir runs/celeba_deepfillv1

Data: docs/data.md (celeb_a). Everything else as places2_deepfillv1.py, random windows of 256 x 256
included. The paper shows pictures of this set and no numbers. Result here: not trained here;
published weights are imported by `jaxinpaint weights import deepfillv1 release_celeba_256 OUT`.
"""

from jaxinpaint.configs import _base, places2_deepfillv1


def get_config(variant=''):
  config = places2_deepfillv1.get_config()
  _base.celeba(config, crop='random')  # faces of 178 x 218 are enlarged until 256 x 256 fit
  return _base.finish(config, variant)
