"""LFR (Zhang, Liu) on CelebA-HQ at 256 x 256: latent feature reconstruction and attention.

  jaxinpaint train --config celebahq_lfr --workdir runs/celebahq_lfr
      --config.model.stylegan_file=stylegan2-ffhq-config-f.pt
      --config.model.encoder_file=model_ir_se50.pth
  jaxinpaint evaluate --workdir runs/celebahq_lfr

Data: docs/data.md (celeb_a_hq/256; 28,000 images to train, 2,000 to test, by index: ours). P marks
the paper's numbers, C our choices; the losses' are in jaxinpaint/systems/lfr/recipe.py. The paper's
batches are of 2 in the first phase and of 1 in the second; here they are of 2 in both (O), so that
the encoder's batch norms see more than one image.

Result here: not trained here; no weights are published.
"""

from jaxinpaint.configs import _base


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
  config.data.batch_size = 2  # P, of the first phase
  config.data.crop = 'resize'
  config.data.flip = True
  # P: "square masks, number 10"; C: sides of 16 to 28. 'one of ten' squares would be
  # dict(kind='rectangles', square=True, fixed=10, margin=0, min_side=64, max_side=96, ...).
  config.data.masks = (
    'rectangles;square=True;margin=0;min_side=16;max_side=28;min_times=10;max_times=10'
  )
  config.data.workers = 4
  config.training.steps = sum(config.phases.values())
  return _base.finish(config, variant)
