"""CE (Pathak et al., CVPR 2016) on CelebA as a survey benchmarked it: the middle of 128 x 128.

  jaxinpaint study --config survey_study --celeba folder:img_align_celeba --output runs/survey
  jaxinpaint train --config celeba_context_encoder --workdir runs/celeba_context_encoder
  jaxinpaint evaluate --workdir runs/celeba_context_encoder

The first line draws the survey's 1,000 test images and lists them, and the 201,599 others to train
on (docs/evaluation.md). Everything else as places2_context_encoder.py, with the epochs of this set.
Result here: not trained here; no weights for faces are published.
"""

from jaxinpaint.configs import _base, places2_context_encoder

EPOCH = 201_599 // 64  # steps of one pass over the survey's training set, in batches of 64


def get_config(variant=''):
  config = places2_context_encoder.get_config()
  config.data.source = 'files:runs/survey/celeba_train.txt'
  config.data.eval_source = 'files:runs/survey/celeba_test.txt'
  config.data.update(dict(split='', eval_split=''))
  config.training.steps = 200 * EPOCH
  return _base.finish(config, variant)
