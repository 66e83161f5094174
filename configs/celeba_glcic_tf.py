"""GL on CelebA as surveys benchmarked it: the TensorFlow variant, its oddities included.

  jaxinpaint study --config survey_study --celeba folder:img_align_celeba --output runs/survey
  jaxinpaint train --config celeba_glcic_tf --workdir runs/celeba_glcic_tf
  jaxinpaint evaluate --workdir runs/celeba_glcic_tf

The first line draws the survey's 1,000 test images and lists them, and the 201,599 others to train
on (docs/evaluation.md). Everything else as places2_glcic_tf.py, with the epochs of this set. Result
here: not trained here; no weights are published.
"""

from jaxinpaint.configs import _base, places2_glcic_tf

EPOCH = 201_599 // 16  # steps of one pass over the survey's training set, in batches of 16


def get_config(variant=''):
  config = places2_glcic_tf.get_config()
  config.data.source = 'files:runs/survey/celeba_train.txt'
  config.data.eval_source = 'files:runs/survey/celeba_test.txt'
  config.data.update(dict(split='', eval_split=''))
  config.phases.update(dict(completion=100 * EPOCH, discriminator=EPOCH, joint=400 * EPOCH))
  config.training.steps = 501 * EPOCH
  return _base.finish(config, variant)
