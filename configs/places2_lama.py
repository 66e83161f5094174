"""Big LaMa (Suvorov et al., WACV 2022) on Places2, crops of 256 x 256.

  jaxinpaint train --config places2_lama --workdir runs/places2_lama \
    --config.data.source=/data/places365/train --config.data.eval_source=/data/places365/val
  jaxinpaint evaluate --workdir runs/places2_lama --size 512

Data: Places365-Standard at full size, as a folder (docs/data.md); the paper's Big LaMa took 4.5
million images of Places-Challenge. Numbers are those of the authors' code (big-lama.yaml) unless
marked: P is the paper's, O is ours. The perceptual loss needs weights, of which a run that lacks
them says where to get them; --config.loss.perceptual=0 trains without. Published result (P, Table
1, 512 x 512): see the paper. Result here: not trained here; the published weights are imported by
`jaxinpaint weights import lama best.ckpt OUT`.
"""

from jaxinpaint.configs import _base

EPOCHS, ITERATIONS = 40, 25_000


def get_config(variant=''):
  config = _base.base('lama')
  with config.unlocked():
    config.optimizers.generator = _base.adam(1e-3, b1=0.9, b2=0.999, clip_norm=1.0)
    config.optimizers.discriminator = _base.adam(1e-4, b1=0.9, b2=0.999, clip_norm=1.0)
  config.data.source = 'folder:~/data/places365'
  config.data.split = 'train'
  config.data.eval_split = 'val'
  config.data.size = 256
  config.data.batch_size = 120  # P; the code: 10 for each device
  config.data.crop = 'distorted'  # and colors: in part O, see data/distortions.py
  config.data.flip = True
  config.data.colors = 'strong'
  config.data.masks = 'lama'
  config.data.workers = 4  # O
  config.training.steps = EPOCHS * ITERATIONS
  config.checkpoint.keep_every = 50_000  # O
  _base.measured_by(config, 'lama', best='ssim')
  return _base.finish(config, variant)
