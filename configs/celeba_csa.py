"""CSA (Liu et al., ICCV 2019) on CelebA at 256 x 256.

  jaxinpaint train --config celeba_csa --workdir runs/celeba_csa
  jaxinpaint evaluate --workdir runs/celeba_csa

Data: docs/data.md (celeb_a); training needs VGG16's weights (docs/weights.md). C marks the authors'
code, O what is ours; the losses' numbers are in jaxinpaint/systems/csa/recipe.py. It is measured by
the protocol of the survey that compares it with others (docs/evaluation.md). The code as it is,
where the paper wants something else: `--config.loss.consistency_gradient=False
--config.loss.feature_gradient=False`. Result here: not trained here; the authors link no weights.
"""

from jaxinpaint.configs import _base

EPOCH = 162_770  # steps of one pass over CelebA's training images, one by one
STEPS = 120 * EPOCH


def get_config(variant=''):
  config = _base.base('csa')
  _base.celeba(config, crop='resize')  # C: resized, not cropped
  with config.unlocked():
    for name in ('generators', 'critics'):
      config.optimizers[name] = _base.adam(  # C
        2e-4,
        b1=0.5,
        b2=0.999,
        # C: 20 epochs, then linearly to 0 in 100; there by steps of an epoch.
        schedule='linear',
        schedule_args=dict(
          end_value=0.0, transition_begin=20 * EPOCH, transition_steps=100 * EPOCH
        ),
      )
  config.data.size = 256  # C
  config.data.batch_size = 1  # C
  config.data.flip = True  # C
  config.data.masks = 'irregular'  # the code used NVIDIA's files: 'folder:PATH'
  config.data.workers = 4  # O
  config.training.steps = STEPS
  config.training.evaluate_every = 10_000  # O
  config.checkpoint.every = 10_000  # O
  config.checkpoint.keep_every = 500_000  # O
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)
