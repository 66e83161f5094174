"""Ablation: configs/celeba_seresnet_cx.py without SE-ResNet blocks (figure 3).

The encoder and both discriminators have GLCIC's plain layers instead.

  jaxinpaint train --config celeba_seresnet_cx_without_se_resnet \
    --workdir runs/celeba_seresnet_cx_without_se_resnet

The paper shows pictures and gives no numbers. Result here: not trained here.
"""

from jaxinpaint.configs import celeba_seresnet_cx


def get_config(variant=''):
  config = celeba_seresnet_cx.get_config(variant)
  config.model.use_se_resnet = False
  return config
