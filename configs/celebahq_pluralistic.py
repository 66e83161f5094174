"""Pluralistic (Zheng et al., CVPR 2019) on CelebA-HQ at 256 x 256: many completions of a face.

  jaxinpaint train --config celebahq_pluralistic --workdir runs/celebahq_pluralistic
  jaxinpaint evaluate --workdir runs/celebahq_pluralistic --samples 5

Data: docs/data.md (celeb_a_hq/256, made by hand). P marks the paper, C the authors' code, O our
choice; the losses' numbers are in jaxinpaint/systems/pluralistic/recipe.py. Their models for holes
in the centre have one square of half the side: `--config.data.masks=center:0.25`. Measured by the
protocol of the survey that retrained it. Result here: not trained here; published weights are
imported by `jaxinpaint weights import pluralistic latest_net_E.pth latest_net_G.pth OUT`.
"""

from jaxinpaint.configs import _base

# C: 1 to 5 rectangles, or 16 to 64 lines, circles and ellipses. O: the sides of the rectangles, and
# LaMa's lines instead of these shapes.
MASKS = (
  'mixture: 0.5*rectangles;margin=0;min_side=30;max_side=128;min_times=1;max_times=5'
  ' + 0.5*irregular'
)


def get_config(variant=''):
  config = _base.base('pluralistic')
  with config.unlocked():
    for name in ('generator', 'discriminator'):
      config.optimizers[name] = _base.adam(1e-4, b1=0.0, b2=0.999)  # C
  config.data.source = 'tfds:celeb_a_hq/256'
  # C: 24,183 images to train and 2,824 to test; O: which, by index.
  config.data.split = 'train[:24183]'
  config.data.eval_split = 'train[27176:]'
  config.data.size = 256  # P, C
  config.data.batch_size = 8  # C
  # O: as they are. C: enlarged to 266, turned by up to 3 degrees, and a random 256 of it.
  config.data.crop = 'resize'
  config.data.flip = True  # C
  config.data.masks = MASKS
  config.data.workers = 4
  config.training.steps = 5_000_000  # C: at most
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)
