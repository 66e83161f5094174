"""MI-GAN (Sargsyan et al., ICCV 2023) on Places2 at 512 x 512.

  jaxinpaint train --config places2_migan --workdir runs/places2_migan \
    --config.data.source=/data/places365/train --config.data.eval_source=/data/places365/val \
    --config.loss.teacher=comodgan/places2-512
  jaxinpaint evaluate --workdir runs/places2_migan

The teacher is Co-Mod-GAN; `jaxinpaint weights fetch comodgan/places2-512` says how to get it, and
the workdir of a run will do, too. --config.loss.distillation=0 does without. Data:
Places365-Standard at full size, as a folder (docs/data.md). Numbers are those of the authors' code
unless marked: O is ours, S StyleGAN2-ADA's, which it is made from. Published results: FID and LPIPS
(protocol migan) in the paper, not repeated here. Result here: not trained here; the published
weights are imported by `jaxinpaint weights import migan migan_512_places2.pt OUT`.
"""

from jaxinpaint.configs import _base

KIMG = 25_000
GENERATOR_EVERY = 4  # S: the generator's rate, too, is that of a lazily regularised network


def get_config(variant=''):
  config = _base.base('migan')
  adam = lambda every: _base.lazily_regularised_adam(1e-3, b1=0.0, b2=0.99, every=every)
  with config.unlocked():
    config.optimizers.generator = adam(GENERATOR_EVERY)
    config.optimizers.critic = adam(config.loss.r1_every)
  _base.places2_large(config)  # O: its flip
  config.data.masks = 'free_form'
  config.training.steps = 1000 * KIMG // config.data.batch_size
  config.training.ema_half_life = 20_000.0
  config.training.ema_rampup = 0.05  # S
  config.checkpoint.keep_every = 10_000  # O
  _base.measured_by(config, 'migan')
  return _base.finish(config, variant)
