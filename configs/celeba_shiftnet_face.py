"""Shift-Net for faces, which also looks at the mirrored face, on CelebA with random holes.

  jaxinpaint study --config survey_study --celeba folder:img_align_celeba --output runs/survey
  jaxinpaint train --config celeba_shiftnet_face --workdir runs/celeba_shiftnet_face
  jaxinpaint evaluate --workdir runs/celeba_shiftnet_face

Everything else as celeba_shiftnet.py. C marks the released code, O our choice. Published weights
were trained with `model.mirror='released'`, a sum of many features in each place of the hole; here
each place has its best one (O). Result here: not trained here; published weights are imported by
`jaxinpaint weights import shiftnet face_flip_random.pth OUT`.
"""

from jaxinpaint.configs import _base, celeba_shiftnet


def get_config(variant=''):
  config = celeba_shiftnet.get_config()
  config.model.variant = 'face'  # C
  config.loss.crop = 0  # C: holes of any shape are judged in the whole picture ...
  config.loss.hole = 0.0  # C: ... without the term of the window
  config.data.masks = 'survey_random:0.1-0.4'  # O; C: islands of thresholded noise
  return _base.finish(config, variant)
