"""LFR (Zhang, Liu) on CelebA-HQ at 256 x 256: latent feature reconstruction and attention.

  jaxinpaint train --config celebahq_lfr:structure --workdir runs/lfr_structure
      --config.model.stylegan_file=stylegan2-ffhq-config-f.pt
      --config.model.encoder_file=model_ir_se50.pth
  jaxinpaint train --config celebahq_lfr:texture --config.init_from=runs/lfr_structure
      --workdir runs/lfr
  jaxinpaint evaluate --workdir runs/lfr

These are the paper's two stages, with batches of 2 and of 1. `jaxinpaint train --config
celebahq_lfr` does both in one run, whose batches are of 1 (C: the encoder's batch norms then see
one image). A run without a StyleGAN2 file stops, unless --config.model.stand_in=True asks for an
untrained one.

Data: docs/data.md (celeb_a_hq/256; 28,000 images to train, 2,000 to test, by index: ours). P marks
the paper's numbers, C our choices; the losses' are in jaxinpaint/systems/lfr/recipe.py.

Published (table 1; PSNR / SSIM / FID): 36.733 / 0.977 / 15.077. Its rivals: PConv (33.058 / 0.966 /
67.956; celebahq_pconv) and RFR (32.252 / 0.948 / 106.312). Result here: not trained here; no
weights are published.
"""

from jaxinpaint.configs import _base

STAGES = ('structure', 'texture')  # variants that train one alone


def get_config(variant=''):
  config = _base.base('lfr')
  with config.unlocked():
    config.optimizers.structure = _base.adam(1e-3, b1=0.9, b2=0.999)  # P, read as 10^-3
    for name, every in (('texture', 1), ('critic', 5)):
      config.optimizers[name] = _base.adam(  # P, read as 10^-4
        1e-4,
        b1=0.5,  # C: DeepFill's
        b2=0.9,
        schedule='exponential_decay',
        schedule_args=dict(transition_steps=100_000 * every, decay_rate=0.96, staircase=True),  # P
      )
  config.data.source = 'tfds:celeb_a_hq/256'
  config.data.split = 'train[:28000]'  # C
  config.data.eval_split = 'train[28000:]'
  config.data.size = 256  # P
  config.data.batch_size = 2 if variant == 'structure' else 1  # P
  config.data.crop = 'resize'
  config.data.flip = True
  # P: "square masks, number 10"; C: sides of 16 to 28. 'one of ten' squares would be
  # dict(kind='rectangles', square=True, fixed=10, margin=0, min_side=64, max_side=96, ...).
  config.data.masks = (
    'rectangles;square=True;margin=0;min_side=16;max_side=28;min_times=10;max_times=10'
  )
  config.data.workers = 4
  if variant == 'structure':
    config.phases.texture = 0
  elif variant == 'texture':
    config.phases.structure = 0
    config.model.stylegan_file = 'init_from'
  config.training.steps = sum(config.phases.values())
  _base.measured_by(config, 'seed003')  # P
  return _base.finish(config, variant, own=STAGES)
