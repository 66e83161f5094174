"""Co-Mod-GAN (Zhao et al., ICLR 2021) on Places2 at 512 x 512.

  jaxinpaint train --config places2_comodgan --workdir runs/places2_comodgan \
    --config.data.source=/data/places365/train --config.data.eval_source=/data/places365/val
  jaxinpaint evaluate --workdir runs/places2_comodgan

Data: Places365-Standard at full size, as a folder (docs/data.md). Numbers are those of the authors'
code unless marked: O is ours, S StyleGAN2-ADA's. For 256 pixels, as the published port:
--config.model.size=256 --config.data.size=256. Published result (as MAT's authors measured it, FID
/ P-IDS / U-IDS): 1.10 / 26.95 / 41.88 of small masks, 2.92 / 19.64 / 35.78 of large ones. Result
here: not trained here; the port's weights are imported by
`jaxinpaint weights import comodgan comodgan_512_places2.pt OUT`.
"""

from jaxinpaint.configs import _base

KIMG = 50_000


def get_config(variant=''):
  config = _base.base('comodgan')
  with config.unlocked():
    config.optimizers.generator = _base.adam(2e-3, b1=0.0, b2=0.99)
    every = config.loss.r1_every
    config.optimizers.critic = _base.lazily_regularised_adam(2e-3, b1=0.0, b2=0.99, every=every)
  _base.places2_large(config)  # O: its flip
  config.data.masks = 'free_form'
  config.training.steps = 1000 * KIMG // config.data.batch_size
  config.training.ema_half_life = 10_000.0
  config.training.ema_rampup = 0.05  # S; the code has none
  config.checkpoint.keep_every = 10_000
  _base.measured_by(config, 'mat')  # whose authors measured the published weights
  return _base.finish(config, variant)
