"""MESFF on a folder of one's own photographs, with the paper's joint loss, small enough for a CPU.

  jaxinpaint train --config folder_mesff --config.data.source=folder:PHOTOS/train \\
    --config.data.eval_source=folder:PHOTOS/val --workdir runs/photos

The networks are a quarter of the paper's width with two SFI blocks, at 64 px; everything is this
project's own choice but the weights of the losses, which are the paper's (L1 1, adversarial 0.1,
perceptual 0.1, style 250). VGG-16's weights are fetched at the first start (docs/weights.md). On an
accelerator train the real thing instead: places2_mesff.py takes the same two flags.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('mesff')
  with config.unlocked():
    schedule = dict(init_value=0.0, warmup_steps=50, decay_steps=20_000, end_value=1e-5)
    config.optimizers.generator = _base.adam(
      1e-3, b1=0.9, b2=0.99, schedule='warmup_cosine_decay', schedule_args=schedule
    )
    config.optimizers.discriminator = _base.adam(1e-4, b1=0.0, b2=0.9)
  config.model.update(dict(width=16, blocks=2, attention_size=64, attention_hidden=16))
  config.model.kernel_init = 'he_normal'
  config.loss.update(dict(l1_hole=1.0, discriminator_width=16))
  config.data.update(dict(source='folder:photos/train', eval_source='folder:photos/val'))
  config.data.update(dict(size=64, crop='random_resized', batch_size=8))
  config.data.masks = 'irregular:0.05-0.6'
  config.training.update(dict(steps=20_000, log_every=50, sample_every=500, evaluate_every=500))
  config.training.ema_decay = 0.99
  config.checkpoint.update(dict(every=500, keep=2, keep_every=0))
  config.evaluation.update(dict(count=152, quick_count=32, at_end=True))
  return _base.finish(config, variant)
