"""CE (Pathak et al., CVPR 2016) on Places2 as a survey benchmarked it: the middle of 128 x 128.

  jaxinpaint train --config places2_context_encoder --workdir runs/places2_context_encoder
  jaxinpaint evaluate --workdir runs/places2_context_encoder

Data: docs/data.md (places365_small); as in the survey, the set's test images train, and it is
measured by the survey's protocol at the network's own size, centre holes alone. P marks the paper,
C the code of the survey (BoyuanJiang/context_encoder_pytorch), O our choice. Result here: not
trained here; the weights for Paris StreetView are imported by `jaxinpaint weights import
context_encoder netG_streetview.pth OUT`.
"""

from jaxinpaint.configs import _base

EPOCH = 328_500 // 64  # steps of one pass over the survey's training set, in batches of 64


def get_config(variant=''):
  config = _base.base('context_encoder')
  _base.places2(config)
  with config.unlocked():
    # C; P: the critic's rate is a tenth of the generator's
    config.optimizers.generator = _base.adam(2e-4, b1=0.5, b2=0.999)
    config.optimizers.discriminator = _base.adam(2e-4, b1=0.5, b2=0.999)
  config.loss.wtl2 = 0.999  # P, C (its README); C's default: 0.998
  config.data.split = 'test'  # the survey's
  config.data.size = 128  # P, C
  config.data.batch_size = 64  # C
  config.data.crop = 'center'  # C: the shorter side becomes 128, then the centre square
  config.data.flip = False  # C
  config.data.masks = 'center:0.19140625'  # C: the middle 56 x 56, within the predicted 64 x 64
  config.data.workers = 4  # O
  config.training.steps = 200 * EPOCH  # C (its README); C's default: 25 epochs
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)
