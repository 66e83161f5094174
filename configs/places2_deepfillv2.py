"""DeepFill v2 (Yu et al., ICCV 2019) on Places2 at 256 x 256.

  jaxinpaint train --config places2_deepfillv2 --workdir runs/places2_deepfillv2
  jaxinpaint evaluate --workdir runs/places2_deepfillv2

Data: docs/data.md (places365_small). Numbers are those of the authors' code; O marks what is ours.
The code trains without end; 1,000,000 steps are those of nipponjo/deepfillv2-pytorch. Published
results (paper, Places2 validation at 256 x 256): rectangular holes mean l1 8.6 %, l2 2.0 %; free
forms l1 9.1 %, l2 1.6 %. Measured by the survey's protocol; `--protocol deepfill` is the paper's.
Result here: not trained here; published weights are imported by
`jaxinpaint weights import deepfillv2 release_places2_256 OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('deepfillv2')
  _base.places2(config)
  with config.unlocked():
    config.optimizers.generator = _base.adam(1e-4, b1=0.5, b2=0.999)
    config.optimizers.critic = _base.adam(1e-4, b1=0.5, b2=0.999)
  config.data.size = 256
  config.data.batch_size = 16
  config.data.crop = 'random'  # O: as the code of v1
  config.data.flip = False  # O: as the code of v1
  config.data.masks = 'deepfill_v2'  # a box and 1 to 3 brush strokes, united
  config.data.workers = 4  # O
  _base.measured_by(config, 'survey')  # O
  config.training.steps = 1_000_000  # the port's
  config.training.evaluate_every = 10_000  # O
  config.checkpoint.every = 4_000  # the code's epoch
  config.checkpoint.keep_every = 100_000  # O
  return _base.finish(config, variant)
