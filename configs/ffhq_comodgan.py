"""Co-Mod-GAN (Zhao et al., ICLR 2021) on faces of FFHQ at 512 x 512.

  jaxinpaint train --config ffhq_comodgan --workdir runs/ffhq_comodgan \
    --config.data.source=/data/ffhq/train --config.data.eval_source=/data/ffhq/val
  jaxinpaint evaluate --workdir runs/ffhq_comodgan

Data: FFHQ (Karras et al., 2019) as a folder, of whose 70,000 faces the paper keeps 10,000 for
tests. Everything else as places2_comodgan.py, but trained half as long. For 256 pixels, as the
published port: --config.model.size=256 --config.data.size=256. Result here: not trained here; the
port's weights are imported by `jaxinpaint weights import comodgan comodgan_256_ffhq.pt OUT`.
"""

from jaxinpaint.configs import _base, places2_comodgan

KIMG = 25_000


def get_config(variant=''):
  config = places2_comodgan.get_config()
  config.data.source = 'folder:~/data/ffhq'
  config.data.crop = 'resize'  # the faces are squares
  config.training.steps = 1000 * KIMG // config.data.batch_size
  config.evaluation.update(dict(protocol='seed000', masks='free_form', count=10_000))
  return _base.finish(config, variant)
