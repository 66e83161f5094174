"""EdgeConnect (Nazeri et al., ICCV Workshops 2019) on Places2 at 256 x 256.

  jaxinpaint train --config places2_edgeconnect --workdir runs/places2_edgeconnect
  jaxinpaint evaluate --workdir runs/places2_edgeconnect

Data: docs/data.md (places365_small). Numbers are those of the released example configuration; P
marks the paper's. The three phases are as long as the code allows at most: the authors ended each
when its losses no longer fell, lowered the rates to 1e-5 and went on (P), and tuned both generators
end to end at 1e-6 (P; --config.loss.joint=end_to_end). Whoever ends a phase sooner sets its length
in config.phases and the sum in config.training.steps. Result here: not trained here; the published
weights are imported by `jaxinpaint weights import edgeconnect EdgeModel_gen.pth
InpaintingModel_gen.pth OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('edgeconnect')
  _base.places2(config)
  with config.unlocked():
    for stage in ('', 'edge_'):
      config.optimizers[f'{stage}generator'] = _base.adam(1e-4, b1=0.0, b2=0.9)
      config.optimizers[f'{stage}discriminator'] = _base.adam(1e-5, b1=0.0, b2=0.9)  # ratio 0.1
    config.optimizers.end_to_end = _base.adam(1e-6, b1=0.0, b2=0.9)  # P
  config.data.size = 256
  config.data.batch_size = 8
  config.data.crop = 'center'  # centre square, then resized
  config.data.flip = True
  config.data.masks = 'irregular'  # the published runs used NVIDIA's files: 'folder:PATH'
  config.data.workers = 4
  config.training.steps = sum(config.phases.values())
  _base.measured_by(config, 'edgeconnect', best='psnr_gray')
  return _base.finish(config, variant)
