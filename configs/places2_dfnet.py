"""DFNet (Hong et al., ACM MM 2019) on Places2, as the survey retrained it: at 256 x 256.

  jaxinpaint train --config places2_dfnet --workdir runs/places2_dfnet
  jaxinpaint evaluate --workdir runs/places2_dfnet

Data: docs/data.md (places365_small). C marks the released code's config.yaml, O what we chose; the
losses' numbers are in jaxinpaint/systems/dfnet/recipe.py. The authors train on 512 x 512
(--config.data.size=512, with larger pictures). Measured by the survey's protocol.

Published (the survey, PSNR with centre holes of 10 / 15 / 20 / 25 % of the area): 25.44 / 23.76 /
22.35 / 21.10. Result here: not trained here; the authors' weights are imported by `jaxinpaint
weights import dfnet model_places2.pth OUT`.
"""

from jaxinpaint.configs import _base

EPOCH = 37_500  # C: steps of one pass over Places2's 1.8 million images


def get_config(variant=''):
  config = _base.base('dfnet')
  _base.places2(config)
  with config.unlocked():
    config.optimizers.generator = _base.adam(2e-4, b1=0.9, b2=0.999, **decay(5 * EPOCH))  # C
  config.data.size = 256  # the survey's; C: 512
  config.data.batch_size = 48  # C: 6 on each of 8 GPUs
  config.data.crop = 'random'  # O
  config.data.flip = True  # O
  config.data.masks = 'irregular'  # O
  config.data.workers = 4
  config.training.steps = 20 * EPOCH  # C
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)


def decay(steps):
  """A tenth of the rate after so many steps, again and again: C, every 5 epochs."""
  arguments = dict(transition_steps=steps, decay_rate=0.1, staircase=True)
  return dict(schedule='exponential_decay', schedule_args=arguments)
