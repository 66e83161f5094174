"""Pluralistic (Zheng et al., CVPR 2019) on Places2 at 256 x 256, as the survey compares it.

  jaxinpaint train --config places2_pluralistic --workdir runs/places2_pluralistic
  jaxinpaint evaluate --workdir runs/places2_pluralistic --samples 5

Data: docs/data.md (places365_small); as in the survey, the set's test images train, and it is
measured by the survey's protocol. Everything else as celebahq_pluralistic.py. Published there:
jaxinpaint/report/published.csv. Result here: not trained here; published weights are imported by
`jaxinpaint weights import pluralistic latest_net_E.pth latest_net_G.pth OUT`.
"""

from jaxinpaint.configs import _base, celebahq_pluralistic


def get_config(variant=''):
  config = celebahq_pluralistic.get_config()
  _base.places2(config)
  config.data.split = 'test'  # the survey's
  return _base.finish(config, variant)
