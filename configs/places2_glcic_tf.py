"""GL on Places2 as surveys benchmarked it: the TensorFlow variant, its oddities included.

  jaxinpaint train --config places2_glcic_tf --workdir runs/places2_glcic_tf
  jaxinpaint evaluate --workdir runs/places2_glcic_tf

Data: docs/data.md (places365_small); as in the survey, the set's test images train, and it is
measured by the survey's protocol. "code" marks shinseung428/GlobalLocalImageCompletion_TF, O our
choice. As released, fakes and reals are judged by different output layers, and the discriminator
stands still in the joint phase: `--config.model.separate_heads=False` and
`--config.loss.discriminator_in_joint=True` mend both. Result here: not trained here; no weights are
published.
"""

from jaxinpaint.configs import _base

# Steps of one pass over the survey's training set, Places2's 328,500 test images, in batches of 16.
# The code counts epochs: 100 of the generator, 1 of the discriminator, up to 400 of both losses.
EPOCH = 328_500 // 16


def get_config(variant=''):
  config = _base.base('glcic')
  _base.places2(config)
  with config.unlocked():
    for name in ('generator', 'discriminator'):  # code; b2 and eps: TensorFlow's defaults
      config.optimizers[name] = _base.adam(1e-3, b1=0.5, b2=0.999)
  config.model.variant = 'tf'
  config.model.separate_heads = True  # code
  config.model.image_size = 256  # O: the set's own size; code: 512 (its README: 128)
  config.model.local_size = 128  # code
  config.loss.alpha = 1.0  # code
  config.loss.discriminator_in_joint = False  # code
  config.phases.completion = 100 * EPOCH
  config.phases.discriminator = EPOCH
  config.phases.joint = 400 * EPOCH
  config.data.split = 'test'  # the survey's
  config.data.size = 256
  config.data.batch_size = 16  # code
  config.data.crop = 'center'  # code: the central three quarters, resized
  config.data.flip = False  # O: not said
  # code: one rectangle with sides in [0.1, 1) of half the image's, 10 pixels off the border
  config.data.masks = (
    'rectangles;min_side=26;max_side=255;margin=10;min_times=1;max_times=1;reference=512'
  )
  config.data.workers = 4
  config.training.steps = 501 * EPOCH
  _base.measured_by(config, 'survey')
  return _base.finish(config, variant)
