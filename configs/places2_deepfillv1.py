"""DeepFill v1 (Yu et al., CVPR 2018) on Places2 at 256 x 256.

  jaxinpaint train --config places2_deepfillv1 --workdir runs/places2_deepfillv1
  jaxinpaint evaluate --workdir runs/places2_deepfillv1

Data: docs/data.md (places365_small). Numbers are those of the authors' code: P marks the paper's
text, O what is ours. The code crops 256 x 256 from the large pictures, here the small set is 256
pixels high and wide. A step is one critic step on a batch of its own and every fifth one a
step of the generator, so 5,000,000 are the code's 1,000,000 iterations. Published results (paper,
table 1: Places2 validation, holes up to 128 x 128, not pasted): mean l1 8.6 %, l2 2.1 %, PSNR
18.91, total variation 25.3 %. Result here: not trained here; published weights are imported by
`jaxinpaint weights import deepfillv1 release_places2_256 OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('deepfillv1')
  _base.places2(config)
  with config.unlocked():
    config.optimizers.generator = _base.adam(1e-4, b1=0.5, b2=0.9)
    config.optimizers.critic = _base.adam(1e-4, b1=0.5, b2=0.9)
  config.data.size = 256
  config.data.batch_size = 16
  config.data.crop = 'random'
  config.data.flip = False  # the code has the option, off
  config.data.masks = 'box'  # 128 x 128, shrunk by up to 16 pixels on each side
  config.data.workers = 4  # O
  _base.measured_by(config, 'seed004', best='hole_psnr')  # P
  config.training.steps = 5_000_000
  config.training.evaluate_every = 10_000  # O
  config.checkpoint.every = 10_000  # O
  config.checkpoint.keep_every = 500_000  # O
  return _base.finish(config, variant)
