"""GMCNN (Wang et al., NeurIPS 2018) on CelebA-HQ at 256 x 256: the paper's faces.

  jaxinpaint train --config celebahq_gmcnn --workdir runs/celebahq_gmcnn
  jaxinpaint evaluate --workdir runs/celebahq_gmcnn

Data: docs/data.md (celeb_a_hq/256, made by hand). C marks the authors' PyTorch code, P? what the
paper is said to have, which was not checked against its text, O our choice; the losses' numbers are
in jaxinpaint/systems/gmcnn/recipe.py. The second phase needs VGG19's weights (docs/weights.md). It
is measured by the survey that compared it with other systems; published there for CelebA's centre
holes of 10, 15, 20 and 25 %: PSNR 28.26, 25.86, 24.31, 22.63. Result here: not trained here; the
published weights are imported by `jaxinpaint weights import gmcnn N_net_GM.pth OUT`.
"""

from jaxinpaint.configs import _base

EPOCH = 28_000 // 16  # steps of one pass over the training set


def get_config(variant=''):
  config = _base.base('gmcnn')
  config.data.source = 'tfds:celeb_a_hq/256'
  config.data.split = 'train[:28000]'  # O, as the division of the set
  config.data.eval_split = 'train[28000:]'
  with config.unlocked():
    for name in ('generator', 'critic'):  # C: the betas, with a rate of 1e-5; P?: this rate
      config.optimizers[name] = _base.adam(1e-4, b1=0.5, b2=0.9)
  config.phases.reconstruction = 40 * EPOCH  # C: its default, for each of the two runs
  config.data.size = 256  # C, P?
  config.data.batch_size = 16  # C, P? (C's README: 8 or 6 in the second phase)
  config.data.crop = 'center'  # C: scaled until both sides cover, then the middle
  config.data.flip = False  # C
  # C, P?: one square of 128 x 128, 8 pixels off the border
  config.data.masks = 'rectangles;min_side=128;max_side=128;margin=8;min_times=1;max_times=1'
  config.data.workers = 4  # O
  config.training.steps = 80 * EPOCH  # C
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)
