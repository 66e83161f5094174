"""EdgeConnect (Nazeri et al., ICCV Workshops 2019) on CelebA at 256 x 256.

  jaxinpaint train --config celeba_edgeconnect --workdir runs/celeba_edgeconnect
  jaxinpaint evaluate --workdir runs/celeba_edgeconnect

Data: docs/data.md (celeb_a). Everything else as places2_edgeconnect.py. Result here: not trained
here; the published weights are imported by `jaxinpaint weights import edgeconnect
EdgeModel_gen.pth InpaintingModel_gen.pth OUT`.
"""

from jaxinpaint.configs import _base, places2_edgeconnect


def get_config(variant=''):
  config = places2_edgeconnect.get_config()
  _base.celeba(config)
  return _base.finish(config, variant)
