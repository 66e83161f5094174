"""MESFF + SFI on Places2 at 256 x 256: the main paper's experiment.

  jaxinpaint train --config places2_mesff --workdir runs/places2_mesff
  jaxinpaint evaluate --workdir runs/places2_mesff

Data: docs/data.md (places365_small, automatic download of 29 GB by tfds).
Numbers marked P are the paper's, M those of MISF, its ancestor, where the paper is silent, O ours.
Published result (P, table 1; masks 10-20 / 20-40 / 40-60 %): PSNR 30.809 / 23.762 / 19.714.
Result here: not trained here.
"""

from jaxinpaint.configs import _base

# P: irregular holes of three classes. O: each hole is of one of them with equal probability, and of
# this library's lines. Published mask files: config.data.masks='folder:PATH'.
MASKS = 'mixture: 1*irregular:0-0.2 + 1*irregular:0.2-0.4 + 1*irregular:0.4-0.6'


def get_config(variant=''):
  config = _base.base('mesff')
  _base.places2(config)
  with config.unlocked():
    # Rate P ("initial": the paper names no schedule; M: none); betas M.
    config.optimizers.generator = _base.adam(1e-4, b1=0.0, b2=0.9)
    config.optimizers.discriminator = _base.adam(1e-5, b1=0.0, b2=0.9)  # a tenth of it, M
  config.data.size = 256  # P
  config.data.batch_size = 4  # P
  config.data.flip = True  # M
  config.data.masks = MASKS
  config.data.workers = 4
  config.training.steps = 350_000  # M
  _base.measured_by(config, 'seed000')  # P
  return _base.finish(config, variant)
