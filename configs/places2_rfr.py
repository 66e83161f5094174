"""RFR (Li et al., CVPR 2020) on Places2 at 256 x 256.

  jaxinpaint train --config places2_rfr --workdir runs/places2_rfr
  jaxinpaint evaluate --workdir runs/places2_rfr

Data: docs/data.md (places365_small). Everything else as celebahq_rfr.py, but for the steps: the
released code's README gives 2,000,000 and 1,000,000; and for the evaluation: its script is
EdgeConnect's (docs/protocols.md). Result here: not trained here.
"""

from jaxinpaint.configs import _base, celebahq_rfr


def get_config(variant=''):
  config = celebahq_rfr.get_config()
  _base.places2(config)
  config.phases.update(dict(training=2_000_000, finetuning=1_000_000))
  config.training.steps = sum(config.phases.values())
  _base.measured_by(config, 'edgeconnect', best='psnr_gray')
  return _base.finish(config, variant)
