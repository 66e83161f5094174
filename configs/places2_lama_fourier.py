"""LaMa-Fourier (Suvorov et al., WACV 2022) on Places2, crops of 256 x 256.

  jaxinpaint train --config places2_lama_fourier --workdir runs/places2_lama_fourier \
    --config.data.source=/data/places365/train --config.data.eval_source=/data/places365/val
  jaxinpaint evaluate --workdir runs/places2_lama_fourier --size 512

Everything as places2_lama.py, but nine blocks and batches of 30 (P, the paper's). Result here: not
trained here; the published weights are imported by `jaxinpaint weights import lama best.ckpt OUT`.
"""

from jaxinpaint.configs import _base, places2_lama


def get_config(variant=''):
  config = places2_lama.get_config()
  config.model.blocks = 9
  config.data.batch_size = 30  # P
  return _base.finish(config, variant)
