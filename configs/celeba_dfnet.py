"""DFNet (Hong et al., ACM MM 2019) on CelebA at 256 x 256, as the survey retrained it.

  jaxinpaint study --config survey_study --celeba folder:img_align_celeba --output runs/survey
  jaxinpaint train --config celeba_dfnet --workdir runs/celeba_dfnet
  jaxinpaint evaluate --workdir runs/celeba_dfnet

The first line draws the survey's 1,000 test images and lists them, and the 201,599 others to train
on (docs/evaluation.md). Everything else as places2_dfnet.py, with the epochs of this set.

Published (the survey, PSNR with centre holes of 10 / 15 / 20 / 25 % of the area): 30.90 / 29.21 /
27.25 / 25.17. Result here: not trained here; the authors' weights are imported by `jaxinpaint
weights import dfnet model_celeba.pth OUT`.
"""

from jaxinpaint.configs import _base, places2_dfnet

EPOCH = 201_599 // 48  # steps of one pass over the survey's training set


def get_config(variant=''):
  config = places2_dfnet.get_config()
  config.data.source = 'files:runs/survey/celeba_train.txt'
  config.data.eval_source = 'files:runs/survey/celeba_test.txt'
  config.data.update(dict(split='', eval_split='', crop='center'))
  with config.unlocked():
    config.optimizers.generator.update(places2_dfnet.decay(5 * EPOCH))
  config.training.steps = 20 * EPOCH
  return _base.finish(config, variant)
