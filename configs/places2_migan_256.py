"""MI-GAN on Places2 at 256 x 256.

  jaxinpaint train --config places2_migan_256 --workdir runs/places2_migan_256 \
    --config.loss.teacher=comodgan/places2-256
  jaxinpaint evaluate --workdir runs/places2_migan_256

The teacher: `jaxinpaint weights fetch comodgan/places2-256` says how to get it. Data: docs/data.md
(places365_small, 256 x 256). Everything else as places2_migan.py. Result here: not trained here;
the published weights are imported by `jaxinpaint weights import migan migan_256_places2.pt OUT`.
"""

from jaxinpaint.configs import _base, places2_migan


def get_config(variant=''):
  config = places2_migan.get_config()
  _base.places2(config)
  config.model.size = 256
  config.data.size = 256
  return _base.finish(config, variant)
