"""MISF (Li et al., CVPR 2022) on Places2 at 256 x 256.

  jaxinpaint train --config places2_misf --workdir runs/places2_misf
  jaxinpaint evaluate --workdir runs/places2_misf

Data: docs/data.md (places365_small). Numbers are those of the released configuration; C marks the
paper's text where it differs. Result here: not trained here; the published weights are imported by
`jaxinpaint weights import misf places2_InpaintingModel_gen.pth OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('misf')
  _base.places2(config)
  with config.unlocked():
    config.optimizers.generator = _base.adam(1e-4, b1=0.0, b2=0.9)
    config.optimizers.discriminator = _base.adam(1e-5, b1=0.0, b2=0.9)  # ratio 0.1
  config.data.size = 256
  config.data.batch_size = 16  # C; the released configuration says 1
  config.data.crop = 'center'  # centre square, then resized
  config.data.flip = True
  config.data.masks = 'irregular'  # the published runs used NVIDIA's files: 'folder:PATH'
  config.data.workers = 4
  config.training.steps = 350_000
  _base.measured_by(config, 'edgeconnect', best='psnr_gray')
  return _base.finish(config, variant)
