"""Ablation: configs/places2_deepfillv1.py without contextual attention, the paper's baseline.

  jaxinpaint train --config places2_deepfillv1_baseline \
    --workdir runs/places2_deepfillv1_baseline
  jaxinpaint evaluate --workdir runs/places2_deepfillv1_baseline

The second stage has one encoder. Published result (paper, table 1): mean l1 9.4 %, l2 2.4 %, PSNR
18.15, total variation 25.7 %. Result here: not trained here.
"""

from jaxinpaint.configs import _base, places2_deepfillv1


def get_config(variant=''):
  config = places2_deepfillv1.get_config()
  config.model.use_attention = False
  return _base.finish(config, variant)
