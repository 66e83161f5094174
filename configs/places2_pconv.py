"""PConv (Liu et al., ECCV 2018) on Places2 at 512 x 512: the paper's network and batch.

  jaxinpaint train --config places2_pconv --workdir runs/places2_pconv
  jaxinpaint evaluate --workdir runs/places2_pconv

Data: docs/data.md (places365_small, whose 256 px are enlarged; a folder of larger pictures does
better: --config.data.source=folder:PATH). P marks the paper, C the port
naoto0804/pytorch-inpainting-with-partial-conv, O what we chose; the losses' numbers are in
jaxinpaint/systems/pconv/recipe.py. Measured by seed000 as the other systems here. Result here: not
trained here.
"""

from jaxinpaint.configs import _base, celebahq_pconv


def get_config(variant=''):
  config = celebahq_pconv.get_config()
  _base.places2(config)
  config.model.levels = 8  # P
  config.loss.tv_region = 'hole'  # P
  config.data.size = 512  # P
  config.data.batch_size = 6  # P
  config.data.crop = 'random'  # O
  known = _base.base('pconv')
  config.evaluation.update(known.evaluation)
  config.checkpoint.best = known.checkpoint.best
  return _base.finish(config, variant)
