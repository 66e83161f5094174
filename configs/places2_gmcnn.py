"""GMCNN (Wang et al., NeurIPS 2018) on Places2 at 256 x 256.

  jaxinpaint train --config places2_gmcnn --workdir runs/places2_gmcnn
  jaxinpaint evaluate --workdir runs/places2_gmcnn

Data: docs/data.md (places365_small). Everything else as celebahq_gmcnn.py, with the epochs of this
set. Published by the survey for centre holes of 10, 15, 20 and 25 %: PSNR 24.13, 22.12, 20.35,
18.79. Result here: not trained here; of this set only TensorFlow weights are published, which are
not read.
"""

from jaxinpaint.configs import _base, celebahq_gmcnn

EPOCH = 1_803_460 // 16  # steps of one pass over the training set


def get_config(variant=''):
  config = celebahq_gmcnn.get_config()
  _base.places2(config)
  config.phases.reconstruction = 40 * EPOCH
  config.training.steps = 80 * EPOCH
  return _base.finish(config, variant)
