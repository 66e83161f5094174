"""pix2pix (Isola et al., CVPR 2017) on CelebA as a survey benchmarked it, filling holes.

  jaxinpaint study --config survey_study --celeba folder:img_align_celeba --output runs/survey
  jaxinpaint train --config celeba_pix2pix --workdir runs/celeba_pix2pix
  jaxinpaint evaluate --workdir runs/celeba_pix2pix

The first line draws the survey's 1,000 test images and lists them, and the 201,599 others to train
on (docs/evaluation.md). Everything else as places2_pix2pix.py, with the epochs of this set. Result
here: not trained here; no weights for inpainting are published.
"""

from jaxinpaint.configs import _base, places2_pix2pix

EPOCH = 201_599  # steps of one pass over the survey's training set, image by image


def get_config(variant=''):
  config = places2_pix2pix.get_config()
  config.data.source = 'files:runs/survey/celeba_train.txt'
  config.data.eval_source = 'files:runs/survey/celeba_test.txt'
  config.data.update(dict(split='', eval_split=''))
  config.data.crop = 'center'  # O: the centre square; faces of 178 x 218 are smaller than 256
  config.training.steps = 200 * EPOCH
  return _base.finish(config, variant)
