"""PConv (Liu et al., ECCV 2018) on CelebA-HQ at 256 x 256, as its port trains it.

  jaxinpaint train --config celebahq_pconv --workdir runs/celebahq_pconv
  jaxinpaint evaluate --workdir runs/celebahq_pconv

Data: docs/data.md (celeb_a_hq/256; 28,000 images to train, 2,000 to test, by index: ours). P marks
the paper, C the port naoto0804/pytorch-inpainting-with-partial-conv, O what we chose; the losses'
numbers are in jaxinpaint/systems/pconv/recipe.py. places2_pconv has the paper's 512 x 512.

Published (table 1 of Zhang and Liu, "Face Image Restoration Based on Latent Feature Reconstruction
and Attention Mechanism"; PSNR / SSIM / FID): 33.058 / 0.966 / 67.956. Result here: not trained
here; the port's weights, of other photographs, are imported by `jaxinpaint weights import pconv
FILE OUT`.
"""

from jaxinpaint.configs import _base


def get_config(variant=''):
  config = _base.base('pconv')  # phases of 500,000 steps each: C
  with config.unlocked():
    config.optimizers.generator = _base.adam(2e-4, b1=0.9, b2=0.999)  # P, C
    config.optimizers.generator_finetuning = _base.adam(5e-5, b1=0.9, b2=0.999)  # P, C
  config.data.source = 'tfds:celeb_a_hq/256'  # P
  config.data.split = 'train[:28000]'  # O
  config.data.eval_split = 'train[28000:]'
  config.data.size = 256  # C
  config.data.batch_size = 16  # C
  config.data.crop = 'resize'
  config.data.flip = True  # O
  config.data.masks = 'irregular'  # P: its own irregular files, 'folder:PATH'
  config.data.workers = 4
  config.training.steps = sum(config.phases.values())
  _base.measured_by(config, 'seed003')
  return _base.finish(config, variant)
