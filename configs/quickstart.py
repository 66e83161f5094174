"""The weights in the library, fine-tuned on a dozen real photographs, on a CPU, in minutes.

  jaxinpaint train --config quickstart

Shows the whole thing: training, grids of pictures, evaluations with an early stop, and a table of
before and after beside the classical fills. Data: photographs inside scikit-image's wheel (nothing
is downloaded), none of which the weights have seen; training and evaluation use different ones.
The result is the best evaluated step, the start included: it cannot be worse than what it began
with, on the images of these evaluations. All settings are this project's own.

With --config.init_from= the same network starts from random numbers, which is a smooth fill. In
these minutes it learns nothing better: the result of such a run was its start.
"""

from jaxinpaint.configs import _base, box_mesff
from jaxinpaint.weights import names


def get_config(variant=''):
  steps = 200
  schedule = dict(init_value=0.0, warmup_steps=20, decay_steps=steps, end_value=0.0)
  config = _base.fine_tuning(
    box_mesff.get_config(),
    '' if variant == 'quicktest' else names.DEFAULT,  # that is small, and tries every step of a run
    learning_rate=2e-4,
    clip_norm=1.0,
    schedule='warmup_cosine_decay',
    schedule_args=schedule,
  )
  config.data.size = 144  # the least that the network takes
  config.data.crop = 'random_resized'  # the evaluation resizes whole photographs
  config.data.colors = 'permute'  # nine photographs do not hold every colour
  config.data.batch_size = 8
  config.data.masks = 'irregular:0.05-0.6'
  config.training.update(dict(steps=steps, log_every=25, sample_every=100, evaluate_every=50))
  config.training.update(dict(patience=4, ema_decay=0.98))
  config.checkpoint.update(dict(every=50, keep=1, keep_every=0, best='hole_psnr'))
  config.evaluation.update(dict(count=48, quick_count=16, at_end=True))
  return _base.finish(config, variant)
