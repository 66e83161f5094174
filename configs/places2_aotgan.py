"""AOT-GAN (Zeng et al., TVCG 2022) on Places2 at 512 x 512.

  jaxinpaint train --config places2_aotgan --workdir runs/places2_aotgan \
    --config.data.source=/data/places365/train --config.data.eval_source=/data/places365/val
  jaxinpaint evaluate --workdir runs/places2_aotgan

Data: Places365-Standard at full size, as a folder (docs/data.md). Numbers are those of the released
code unless marked: O is ours. Published result (abstract): an FID 38.60 % below that of the best
earlier method. Result here: not trained here; the published weights are imported by
`jaxinpaint weights import aotgan G0000000.pt OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('aotgan')
  with config.unlocked():
    config.optimizers.generator = _base.adam(1e-4, b1=0.5, b2=0.999)
    config.optimizers.discriminator = _base.adam(1e-4, b1=0.5, b2=0.999)
  config.seed = 2021
  config.data.source = 'folder:~/data/places365'
  config.data.split = 'train'
  config.data.eval_split = 'val'
  config.data.size = 512
  config.data.batch_size = 8
  config.data.crop = (
    'random_resized'  # O: squares; the code's differ in shape, from 8 % of the area
  )
  config.data.flip = True
  config.data.colors = 'jitter'
  config.data.masks = 'irregular'  # O: the published runs used NVIDIA's files: 'folder:PATH'
  config.data.workers = 4  # O
  config.training.steps = 1_000_000
  config.checkpoint.keep_every = 10_000
  _base.measured_by(config, 'aotgan')
  return _base.finish(config, variant)
