"""Ablation: configs/celeba_seresnet_cx.py without the contextual loss (figure 4).

  jaxinpaint train --config celeba_seresnet_cx_without_contextual \
    --workdir runs/celeba_seresnet_cx_without_contextual

The paper shows pictures and gives no numbers. Result here: not trained here.
"""

from jaxinpaint.configs import celeba_seresnet_cx


def get_config(variant=''):
  config = celeba_seresnet_cx.get_config(variant)
  config.loss.contextual = 0.0
  return config
