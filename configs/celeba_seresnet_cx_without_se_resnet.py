"""Ablation: configs/celeba_seresnet_cx.py without SE-ResNet blocks: the plain layers of GLCIC in the encoder and both discriminators (figure 3).

  python train.py --config configs/celeba_seresnet_cx_without_se_resnet.py \
    --workdir runs/celeba_seresnet_cx_without_se_resnet

The paper shows pictures and gives no numbers. Result here: not trained here.
"""

from configs import celeba_seresnet_cx


def get_config(variant=''):
  config = celeba_seresnet_cx.get_config(variant)
  config.model.use_se_resnet = False
  return config
