"""pix2pix (Isola et al., CVPR 2017) on Places2 as a survey benchmarked it, filling holes.

  jaxinpaint train --config places2_pix2pix --workdir runs/places2_pix2pix
  jaxinpaint evaluate --workdir runs/places2_pix2pix

Data: docs/data.md (places365_small); as in the survey, the set's test images train, and it is
measured by the survey's protocol, with the known pixels pasted back and without. Dropout stays on:
the first sample of each image (seed 0) is measured. P marks the paper, C the code of the survey
(affinelayer/pix2pix-tensorflow), O our choice. Result here: not trained here; no weights for
inpainting are published.
"""

from jaxinpaint.configs import _base

EPOCH = 328_500  # steps of one pass over the survey's training set, image by image


def get_config(variant=''):
  config = _base.base('pix2pix')
  _base.places2(config)
  with config.unlocked():
    config.optimizers.generator = _base.adam(2e-4, b1=0.5, b2=0.999)  # P, C
    config.optimizers.discriminator = _base.adam(2e-4, b1=0.5, b2=0.999)  # P, C
  config.data.split = 'test'  # the survey's
  config.data.size = 256  # P, C
  config.data.batch_size = 1  # P, C
  config.data.crop = 'random'  # O; P, C: stretched to 286 x 286, then a random 256 x 256 of it
  config.data.flip = True  # P, C
  # O: the survey's two kinds of holes, of all its sizes; it does not state how it trained
  config.data.masks = 'mixture: 0.5*center:0.1-0.25 + 0.5*survey_random:0.1-0.4'
  config.data.workers = 4  # O
  config.training.steps = 200 * EPOCH  # C (its README): 200 epochs
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)
