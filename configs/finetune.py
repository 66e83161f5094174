"""Goes on with trained weights on photographs of one's own (docs/finetune.md).

  jaxinpaint train --config finetune --config.data.source=folder:MY_PHOTOS --workdir runs/mine
  jaxinpaint train --config finetune:WEIGHTS --config.data.source=folder:MY_PHOTOS ...

The first line starts from the weights in the library, the second from a weights file or a run.

System, networks and losses are those of the weights. Every 10th photograph by name is held out: 48
crops of these are measured every 100 steps, the run ends when 5 such evaluations bring nothing
better, and its result is the best evaluated step. It ends with a table of before and after, beside
the classical fills. All settings are this project's own.
"""

from jaxinpaint import trained
from jaxinpaint.configs import _base, box_mesff
from jaxinpaint.weights import names
from jaxinpaint.weights.store import MissingWeights


def get_config(variant=''):
  own = '' if variant in _base.VARIANTS else variant
  try:
    # The weights in the library are those of box_mesff.
    stored = trained.open_weights(own).config if own else box_mesff.get_config()
  except MissingWeights as error:
    raise ValueError(
      f'unknown config variant {variant!r}: it must be quicktest, or weights to start from; {error}'
    ) from error
  steps = 2000
  schedule = dict(init_value=0.0, warmup_steps=50, decay_steps=steps, end_value=0.0)
  config = _base.fine_tuning(
    stored,
    own or names.DEFAULT,
    learning_rate=1e-4,
    clip_norm=1.0,
    schedule='warmup_cosine_decay',
    schedule_args=schedule,
  )
  config.data.update(dict(source='folder:MY_PHOTOS', split='but every 10th'))
  config.data.update(dict(eval_split='every 10th, 48 crops', masks=box_mesff.MASKS))
  config.data.update(dict(size=256, crop='random_resized', batch_size=4))
  config.training.update(dict(steps=steps, log_every=20, sample_every=200, evaluate_every=100))
  config.training.update(dict(patience=5, ema_decay=0.99, nan='rollback'))
  config.checkpoint.update(dict(every=100, keep=1, keep_every=0, best='hole_psnr'))
  config.evaluation.update(dict(count=48, quick_count=48, at_end=True))
  return _base.finish(config, '' if own else variant)
