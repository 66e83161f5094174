"""Shift-Net on CelebA at 256 x 256 with centre holes, as surveyed.

  jaxinpaint study --config survey_study --celeba folder:img_align_celeba --output runs/survey
  jaxinpaint train --config celeba_shiftnet --workdir runs/celeba_shiftnet
  jaxinpaint evaluate --workdir runs/celeba_shiftnet

The first line draws the survey's 1,000 test images and lists them, and the 201,599 others to train
on (docs/evaluation.md). Everything else as places2_shiftnet.py. Published there (survey, tables 4
and 5, PSNR): centre holes of 10, 15, 20, 25 %: 24.23, 22.53, 22.51, 22.82; random ones of 10, 20,
30, 40 %: 32.20, 29.10, 26.54, 23.62. Result here: not trained here; published weights for faces are
imported by `jaxinpaint weights import shiftnet face_center_mask.pth OUT`.
"""

from jaxinpaint.configs import _base, places2_shiftnet

IMAGES = 201_599  # of the survey's training set


def get_config(variant=''):
  config = places2_shiftnet.get_config()
  config.data.source = 'files:runs/survey/celeba_train.txt'
  config.data.eval_source = 'files:runs/survey/celeba_test.txt'
  config.data.update(dict(split='', eval_split=''))
  config.data.crop = 'center'  # the survey protocol's square, so resized
  config.training.steps = 30 * IMAGES
  return _base.finish(config, variant)
