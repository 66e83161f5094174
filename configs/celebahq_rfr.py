"""RFR (Li et al., CVPR 2020) on CelebA-HQ at 256 x 256, as Zhang and Liu compare with it.

  jaxinpaint train --config celebahq_rfr --workdir runs/celebahq_rfr
  jaxinpaint evaluate --workdir runs/celebahq_rfr

Data: docs/data.md (celeb_a_hq/256; 28,000 images to train, 2,000 to test, by index: ours). C marks
the numbers of the released code and its README, O ours; the losses' are in
jaxinpaint/systems/rfr/recipe.py. The phases are those that its README gives for CelebA. The paper's
own tables are not measured here. Published by Zhang and Liu (table 1; ten squares): PSNR 32.252,
SSIM 0.948, FID 106.312. Result here: not trained here; published weights are imported by
`jaxinpaint weights import rfr g_N.pth OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('rfr')  # phases of 350,000 and 150,000 steps: C
  with config.unlocked():
    config.optimizers.generator = _base.adam(2e-4, b1=0.9, b2=0.999)  # C; betas: PyTorch's
    config.optimizers.generator_finetuning = _base.adam(5e-5, b1=0.9, b2=0.999)  # C
  config.data.source = 'tfds:celeb_a_hq/256'
  config.data.split = 'train[:28000]'  # O
  config.data.eval_split = 'train[28000:]'
  config.data.size = 256  # C
  config.data.batch_size = 6  # C
  config.data.crop = 'resize'  # O: nothing is said of a crop
  config.data.flip = True  # C
  # C: up to 15 parts of up to 25 vertices, lines of up to 100 pixels, brushes of 10 to 24. O: the
  # nearest family here, chains of 1 to 5 lines of 10 to 109 pixels and brushes of 5 to 23, whose
  # holes cover 39 % of the picture on average.
  config.data.masks = 'irregular;max_len=100;max_width=19;min_times=1;max_times=29'
  config.data.workers = 4  # O
  config.training.steps = sum(config.phases.values())
  _base.measured_by(config, 'seed003')  # its paper is where this data set's numbers are from
  return _base.finish(config, variant)
