"""MESFF + SFI on Places2 at 256 x 256: the main paper's experiment.

  jaxinpaint train --config places2_mesff --workdir runs/places2_mesff
  jaxinpaint evaluate --workdir runs/places2_mesff

Data: docs/data.md (places365_small, automatic download of 29 GB by tfds).
Numbers marked P are the paper's, M those of MISF, its ancestor, where the paper is silent.
Published result (P, table 1; masks 10-20 / 20-40 / 40-60 %): PSNR 30.809 / 23.762 / 19.714.
Result here: not trained here.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('mesff')
  _base.places2(config)
  with config.unlocked():
    config.optimizers.generator = _base.adam(1e-4, b1=0.0, b2=0.9)  # rate P; betas M
    config.optimizers.discriminator = _base.adam(1e-5, b1=0.0, b2=0.9)  # a tenth of it, M
  config.data.size = 256  # P
  config.data.batch_size = 4  # P
  config.data.flip = True  # M
  config.data.masks = 'irregular'  # P; the published mask files: config.data.masks='folder:PATH'
  config.data.workers = 4
  config.training.steps = 350_000  # M
  config.evaluation.count = 500  # P
  return _base.finish(config, variant)
