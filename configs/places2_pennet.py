"""PEN-Net (Zeng et al., CVPR 2019) on Places2 at 256 x 256.

  jaxinpaint train --config places2_pennet --workdir runs/places2_pennet
  jaxinpaint evaluate --workdir runs/places2_pennet

Data: docs/data.md (places365_small). Numbers are those of the released code, the losses' in
jaxinpaint/systems/pennet/recipe.py; O marks ours. It is measured by the protocol of the survey that
retrained it (docs/evaluation.md). Published there, mean of the composites or of the whole outputs
(it does not say): centre holes of 10 / 15 / 20 / 25 % of the picture, PSNR 22.79 / 21.99 / 21.12 /
20.22, SSIM 0.817 / 0.794 / 0.765 / 0.729. Result here: not trained here; the published weights are
imported by `jaxinpaint weights import pennet gen_00033.pth OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('pennet')
  _base.places2(config)
  # The rate is divided by ten once, after 100,000 steps.
  schedule = dict(transition_steps=100_000, decay_rate=0.1, staircase=True, end_value=1e-5)
  with config.unlocked():
    for name in ('generator', 'discriminator'):
      config.optimizers[name] = _base.adam(
        1e-4, b1=0.5, b2=0.999, schedule='exponential_decay', schedule_args=schedule
      )
  config.data.size = 256
  config.data.batch_size = 16
  config.data.crop = 'resize'  # O: nothing is said of a crop
  config.data.flip = True
  config.data.colors = 'jitter'
  # A square of half the side, its corner anywhere in the first half. O: not rotated; the code turns
  # it by up to 45 degrees.
  config.data.masks = (
    'rectangles;square=True;min_side=128;max_side=128;margin=0;min_times=1;max_times=1'
  )
  config.data.workers = 4  # O
  config.training.steps = 1_000_000
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)
