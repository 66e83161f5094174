"""SE-ResNet completion with a contextual loss (Lin and Wang, 2021) on LFW at 160 x 160.

  jaxinpaint train --config lfw_seresnet_cx --workdir runs/lfw_seresnet_cx
  jaxinpaint evaluate --workdir runs/lfw_seresnet_cx

Data: docs/data.md (lfw). As configs/celeba_seresnet_cx.py but for the set and the batch. The paper
gives no numbers for LFW. Result here: not trained here.
"""

from jaxinpaint.configs import _base
from jaxinpaint.configs.celeba_seresnet_cx import experiment


def get_config(variant=''):
  config = experiment()
  config.data.source = 'tfds:lfw'
  config.data.split = 'train[:10000]'  # "about 10,000", the rest is for testing
  config.data.eval_split = 'train[10000:]'
  config.data.batch_size = 16
  return _base.finish(config, variant)
