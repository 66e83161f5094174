"""Shift-Net (Yan et al., ECCV 2018) on Places2 at 256 x 256 with centre holes, as surveyed.

  jaxinpaint train --config places2_shiftnet --workdir runs/places2_shiftnet
  jaxinpaint evaluate --workdir runs/places2_shiftnet

Data: docs/data.md (places365_small); as in the survey, the set's test images train, and it is
measured by the survey's protocol. C marks the released code, O our choice; the losses' numbers are
in jaxinpaint/systems/shiftnet/recipe.py. For holes of any shape (C: islands of noise, or masks of
20-30 %): `--config.loss.crop=0 --config.loss.hole=0 --config.data.masks=survey_random:0.1-0.4`.
Published there (survey, tables 4 and 5, PSNR): centre holes of 10, 15, 20, 25 %: 24.97, 23.44,
22.19, 20.98; random ones of 10, 20, 30, 40 %: 28.91, 25.11, 22.69, 20.72. Result here: not trained
here; no weights of this set are published.
"""

from jaxinpaint.configs import _base

IMAGES = 328_500  # of the survey's training set, Places2's test images


def get_config(variant=''):
  config = _base.base('shiftnet')
  _base.places2(config)
  with config.unlocked():
    for name in ('generator', 'discriminator'):
      config.optimizers[name] = _base.adam(2e-4, b1=0.5, b2=0.999)  # C
  config.data.split = 'test'  # the survey's
  config.data.size = 256  # C
  config.data.batch_size = 1  # C
  config.data.crop = 'random'  # C, out of images enlarged to 350; O: these are 256
  config.data.flip = True  # C
  config.data.masks = f'center:{(120 / 256) ** 2}'  # C: 120 x 120
  config.data.workers = 4
  config.training.steps = 30 * IMAGES  # C: 30 epochs at a constant rate
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)
