"""PEN-Net (Zeng et al., CVPR 2019) on CelebA at 256 x 256, as a survey retrained it.

  jaxinpaint study --config survey_study --celeba folder:img_align_celeba --output runs/survey
  jaxinpaint train --config celeba_pennet --workdir runs/celeba_pennet
  jaxinpaint evaluate --workdir runs/celeba_pennet

The first line draws the survey's 1,000 test images and lists them, and the 201,599 others to train
on (docs/evaluation.md). Everything else as places2_pennet.py, with the released code's number of
steps on CelebA-HQ; O: the rate falls as on Places2. Published in the survey: centre holes of 10 /
15 / 20 / 25 % of the picture, PSNR 26.29 / 24.87 / 23.57 / 21.70, SSIM 0.892 / 0.873 / 0.852 /
0.817. Result here: not trained here; the published weights are imported by
`jaxinpaint weights import pennet gen_00033.pth OUT`.
"""

from jaxinpaint.configs import _base, places2_pennet


def get_config(variant=''):
  config = places2_pennet.get_config()
  config.data.source = 'files:runs/survey/celeba_train.txt'
  config.data.eval_source = 'files:runs/survey/celeba_test.txt'
  config.data.update(dict(split='', eval_split='', crop='center'))
  config.training.steps = 330_000
  return _base.finish(config, variant)
