"""GL (Iizuka et al., ToG 2017) on Places2 at 256 x 256: the paper's main experiment.

  jaxinpaint train --config places2_glcic --workdir runs/places2_glcic
  jaxinpaint evaluate --workdir runs/places2_glcic

Data: docs/data.md (places365_small). P marks the paper, "code" otenim/GLCIC-PyTorch, O what we
chose. The paper took crops of images whose short side was 256 to 384 pixels; this set has 256 x
256. The paper has a user study and no numbers, so it is measured by seed000 as the other systems
here. Result here: not trained here.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('glcic')  # phases of 90,000, 10,000 and 400,000 steps: P
  _base.places2(config)
  with config.unlocked():
    config.optimizers.generator = _base.adadelta(1.0, rho=0.9, eps=1e-6)  # P
    config.optimizers.discriminator = _base.adadelta(1.0, rho=0.9, eps=1e-6)
  config.model.discriminator = 'places2'  # P, code: six convolutions for the whole image
  config.model.image_size = 256  # P
  config.model.local_size = 128  # P
  config.model.mpv = (0.4578, 0.4414, 0.4078)  # O: Places365's mean, as commonly quoted
  config.data.size = 256  # P
  config.data.batch_size = 96  # P
  config.data.crop = 'random'  # P
  config.data.flip = True  # O: not said
  # P: one rectangle of 96 to 128 pixels in a square of 128
  config.data.masks = (
    'rectangles;min_side=96;max_side=128;margin=0;min_times=1;max_times=1;within=128;reference=256'
  )
  config.data.workers = 4
  config.training.steps = 500_000
  return _base.finish(config, variant)
