"""CTSDG (Guo et al., ICCV 2021) on Places2 at 256 x 256.

  jaxinpaint train --config places2_ctsdg --workdir runs/places2_ctsdg
  jaxinpaint evaluate --workdir runs/places2_ctsdg

Data: docs/data.md (places365_small). Numbers are those of the released code, the losses' in
jaxinpaint/systems/ctsdg/recipe.py; O marks ours. Result here: not trained here; the published
weights are imported by `jaxinpaint weights import ctsdg ITERATION.pt OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('ctsdg')
  _base.places2(config)
  with config.unlocked():
    for suffix, rate in (('', 2e-4), ('_finetuning', 5e-5)):
      config.optimizers[f'generator{suffix}'] = _base.adam(rate, b1=0.9, b2=0.999)
      config.optimizers[f'discriminator{suffix}'] = _base.adam(0.1 * rate, b1=0.9, b2=0.999)
  config.data.size = 256
  config.data.batch_size = 6
  config.data.crop = 'resize'  # O
  config.data.flip = False
  config.data.masks = 'irregular'  # the published runs used NVIDIA's files: 'folder:PATH'
  config.data.workers = 4
  config.training.steps = sum(config.phases.values())
  _base.measured_by(config, 'edgeconnect', best='psnr_gray')
  return _base.finish(config, variant)
