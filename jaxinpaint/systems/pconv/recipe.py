"""How PConv is trained: six terms, and a second phase in which the encoder's batch norms rest.

Liu, Reda, Shih, Wang, Tao, Catanzaro: "Image Inpainting for Irregular Holes Using Partial
Convolutions", ECCV 2018, sections 3.3 and 4.2. Marks: P, the paper; C, the port
naoto0804/pytorch-inpainting-with-partial-conv; O, ours.

  total = valid * L1 of known pixels + hole * L1 of the hole
          + perceptual * Perceptual of (output and composite)
          + style * Style of the output + style * Style of the composite
          + tv * TV of the composite

  training     batch norm of the batch
  finetuning   lower rate; the encoder's batch norms use their running statistics and do not move
               them, because the zeros of the hole spoil a batch's. Scales and biases are trained
               on, and the decoder's norms stay as they were.

All terms are of pictures standardised by ImageNet's mean and deviation (C), as VGG16 wants them,
and of the output before it is clipped. Both L1 are means over all elements. There is no adversary.
Logged terms include their weights, so they sum to 'total'.

Differs from the paper:
  - TV is of the whole composite (C); `loss.tv_region = 'hole'` takes the pairs within one pixel of
    the hole. Known pixels have no gradient, so the two differ where known pixels meet the hole.

Differs from the reference code (the port):
  - the logged style is of the output and of the composite by itself; the sum is the same;
  - fine-tuning starts with fresh moments of Adam (O).
"""

import flax.linen as nn
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.systems._shared import checks, modules, pconv_terms
from jaxinpaint.systems.pconv import networks as networks_lib

RENORMS = ('ratio', 'mean')
LEVELS = range(2, len(networks_lib.SCALES) + 1)


def default_config() -> ConfigDict:
  """The published settings."""
  model = dict(
    width=64,  # P, C
    levels=7,  # C; P: 8, for 512 x 512
    renorm='ratio',  # P; C: 'mean', which its published weights need
  )
  loss = dict(
    valid=1.0,  # P, C
    hole=6.0,  # P, C
    perceptual=0.05,  # P, C
    style=120.0,  # P, C
    tv=0.1,  # P, C
    tv_region='picture',  # C; P: 'hole'
    vgg_file='',
    vgg_layers=('pool1', 'pool2', 'pool3'),  # P, C
  )
  phases = dict(training=500_000, finetuning=500_000)  # C
  return ConfigDict(dict(system='pconv', dtype='float32', model=model, loss=loss, phases=phases))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  multiple = 2 ** _model(config).levels
  return modules.one_generator(_generator(config), multiple=multiple, min_side=multiple)


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A term of weight 0 is not built: without `perceptual` and `style` no VGG is loaded. A phase of 0
  steps is left out.
  """
  running = inference(config)
  pconv_terms.check_training(config, default_config())
  return pconv_terms.make(
    config,
    running,
    _generator(config),
    frozen='frozen_encoder',
    out='standardised',
    prepare=arrays.standardise,
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the network and removes the terms that need VGG's weights; changes `config`."""
  pconv_terms.quicktest(config, width=8, levels=5)


def _model(config: ConfigDict) -> ConfigDict:
  """config.model, checked."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.count('model.width', model.width)
  checks.one_of('model.levels', model.levels, LEVELS)
  checks.one_of('model.renorm', model.renorm, RENORMS)
  return model


def _generator(config: ConfigDict) -> nn.Module:
  model = _model(config)
  dtype = modules.DTYPES[config.dtype]
  return networks_lib.Generator(model.width, model.levels, model.renorm, dtype=dtype)
