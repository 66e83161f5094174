"""MI-GAN (Sargsyan et al., ICCV 2023) on faces of FFHQ at 256 x 256.

  jaxinpaint train --config ffhq_migan --workdir runs/ffhq_migan \
    --config.data.source=/data/ffhq/train --config.data.eval_source=/data/ffhq/val \
    --config.loss.teacher=comodgan/ffhq-256
  jaxinpaint evaluate --workdir runs/ffhq_migan

The teacher: `jaxinpaint weights fetch comodgan/ffhq-256` says how to get it.
Data: FFHQ (Karras et al., 2019) as a folder, 10,000 of whose 70,000 faces are kept for tests.
Everything else as places2_migan.py, but trained twice as long. Result here: not trained here; the
published weights are imported by `jaxinpaint weights import migan migan_256_ffhq.pt OUT`.
"""

from jaxinpaint.configs import _base, places2_migan

KIMG = 50_000


def get_config(variant=''):
  config = places2_migan.get_config()
  config.model.size = 256
  config.data.source = 'folder:~/data/ffhq'
  config.data.size = 256
  config.data.crop = 'resize'  # the faces are squares
  config.training.steps = 1000 * KIMG // config.data.batch_size
  config.evaluation.count = 10_000
  return _base.finish(config, variant)
