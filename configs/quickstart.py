"""A small MESFF on a dozen real photographs, on a CPU, in minutes: to see the whole thing work.

  jaxinpaint train --config quickstart

Data: photographs inside scikit-image's wheel (nothing is downloaded); training and evaluation use
different ones. All settings are this project's own, chosen so that two CPU cores get somewhere: a
quarter of the paper's width, two SFI blocks, no adversarial and no VGG terms (their weights would
have to be downloaded). The evaluation after the last step stands beside the classical fills.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('mesff')
  with config.unlocked():
    config.optimizers.generator = _base.adam(
      1.5e-3,
      b1=0.9,
      b2=0.99,
      schedule='warmup_cosine_decay',
      schedule_args=dict(init_value=0.0, warmup_steps=30, decay_steps=800, end_value=1e-5),
    )
  config.model.update(dict(width=16, blocks=2, attention_size=64, attention_hidden=16))
  config.model.kernel_init = 'he_normal'
  config.loss.update(dict(l1=0.5, l1_hole=1.0, adversarial=0.0, perceptual=0.0, style=0.0))
  config.data.size = 64
  config.data.crop = 'random_resized'  # the evaluation resizes whole photographs
  config.data.colors = 'permute'  # nine photographs do not hold every colour
  config.data.batch_size = 8
  config.data.masks = 'irregular:0.05-0.5'
  config.training.update(dict(steps=800, log_every=25, sample_every=200, evaluate_every=200))
  config.training.ema_decay = 0.98
  config.checkpoint.update(dict(every=200, keep=2, keep_every=0))
  config.evaluation.update(dict(count=48, quick_count=16, at_end=True))
  return _base.finish(config, variant)
