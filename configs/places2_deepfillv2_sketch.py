"""DeepFill v2 guided by a sketch, on Places2 at 256 x 256.

  jaxinpaint train --config places2_deepfillv2_sketch --workdir runs/places2_deepfillv2_sketch
  jaxinpaint evaluate --workdir runs/places2_deepfillv2_sketch

Everything as places2_deepfillv2.py, but the networks also see a line drawing of the hole (the
code's guided mode). O: the drawing is Canny's edges of the picture, sigma 2 pixels, as EdgeConnect
takes them; the paper's are of HED, a network. O: half of the samples have none, so that the
networks can also do without, as the protocol measures them: there, nobody draws. Result here: not
trained here; no weights are published.
"""

from jaxinpaint.configs import _base, places2_deepfillv2


def get_config(variant=''):
  config = places2_deepfillv2.get_config()
  config.model.sketch = True
  config.model.sigma = 2.0  # O
  config.loss.sketch_left_out = 0.5  # O
  return _base.finish(config, variant)
