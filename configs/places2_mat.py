"""MAT (Li et al., CVPR 2022) on Places365 at 512 x 512: large holes, many completions.

  jaxinpaint train --config places2_mat --workdir runs/places2_mat
  jaxinpaint evaluate --workdir runs/places2_mat

Data: a folder of Places365-Standard at high resolution, ~/data/places365/{train,val}. Numbers are
those of the authors' code unless marked: O is ours, S StyleGAN2-ADA's; the losses' are in
jaxinpaint/systems/mat/recipe.py. Published (FID / P-IDS / U-IDS, 36,500 validation images): 1.07 /
27.42 / 41.93 for small masks, 2.90 / 19.03 / 35.36 for large ones; by the 8 million images of
Places365-Challenge 0.78 / 31.72 / 43.71 and 1.96 / 23.42 / 38.34. Result here: not trained here;
the published weights are imported by `jaxinpaint weights import mat Places_512_FullData_G.pth OUT`.
"""

from jaxinpaint.configs import _base

KIMG = 50_000  # thousands of images
MASKS = {
  512: 'free_form;boxes=5;large_boxes=3;strokes=9',
  256: 'free_form;boxes=4;large_boxes=2;strokes=8;reference=256',
}


def get_config(variant=''):
  config = _base.base('mat')
  with config.unlocked():
    config.optimizers.generator = _base.adam(1e-3, b1=0.0, b2=0.99)
    config.optimizers.critics = _base.lazily_regularised_adam(  # S
      1e-3, b1=0.0, b2=0.99, every=config.loss.r1_every
    )
  _base.places2_large(config)
  config.data.masks = MASKS[512]
  config.training.steps = KIMG * 1000 // config.data.batch_size
  config.training.ema_half_life = 10_000.0
  config.training.ema_rampup = 0.05  # S
  _base.measured_by(config, 'mat')
  return _base.finish(config, variant)
