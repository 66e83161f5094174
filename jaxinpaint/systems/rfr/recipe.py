"""How RFR is trained: PConv's five terms, and a second phase in which all batch norms rest.

Li, Wang, Zhang, Du, Tao: "Recurrent Feature Reasoning for Image Inpainting", CVPR 2020, section
3.4; networks.py has the network. Weights and details are those of the released code:

  total = valid * L1 of known pixels + hole * L1 of the hole
          + perceptual * Perceptual of (output and composite)
          + style * Style of (output and composite) + tv * TV of the composite's hole

  training     batch norm of the batch
  finetuning   lower rate, all batch norms use their running statistics and do not move them

All terms are of pictures in [0, 1], which VGG16 gets as they are, and of the output before it is
clipped. Both L1 are means over all elements; TV is that of the composite with zeros at known
pixels, so the hole's border counts. There is no adversary. A term of weight 0 is not built. Logged
terms include their weights, so they sum to 'total'.

Differs from the paper:
  - the weights of TV and L1 are the code's.
Differs from the reference code:
  - fine-tuning starts with fresh moments of Adam, as in the code, but in the same run (ours).
"""

import flax.linen as nn
from ml_collections import ConfigDict

from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.systems._shared import checks, modules, pconv_terms
from jaxinpaint.systems.rfr import networks as networks_lib


def default_config() -> ConfigDict:
  """The released code's network and weights."""
  model = dict(
    width=64,
    recurrences=6,
    smaller_hole=False,  # True: the released variant for smaller holes
    attention_form='',  # ours: 'plain' or 'blocks'; '': chosen by the size, the numbers are equal
  )
  loss = dict(
    valid=1.0,
    hole=6.0,
    perceptual=0.05,
    style=120.0,
    tv=0.1,
    tv_region='masked',  # of the composite with zeros at known pixels; 'picture', 'hole'
    vgg_file='',
    vgg_layers=('pool1', 'pool2', 'pool3'),
  )
  phases = dict(training=350_000, finetuning=150_000)  # CelebA's
  return ConfigDict(dict(system='rfr', dtype='float32', model=model, loss=loss, phases=phases))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  multiple = networks_lib.MULTIPLE
  return modules.one_generator(_generator(config), multiple=multiple, min_side=multiple)


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  Without `perceptual` and `style` no VGG is loaded. A phase of 0 steps is left out.
  """
  running = inference(config)
  pconv_terms.check_training(config, default_config())
  return pconv_terms.make(
    config,
    running,
    _generator(config),
    frozen='frozen_norms',
    out='raw',
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the network and removes the terms that need VGG's weights; changes `config`."""
  pconv_terms.quicktest(config, width=8, recurrences=2)


def _generator(config: ConfigDict) -> nn.Module:
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.count('model.width', model.width)
  checks.count('model.recurrences', model.recurrences)
  checks.one_of('model.smaller_hole', model.smaller_hole, (False, True))
  checks.one_of('model.attention_form', model.attention_form, ('', 'plain', 'blocks'))
  if model.width % 8:
    raise ValueError(
      f'config.model.width {model.width} must be a multiple of 8: a residual block at the end has '
      'an eighth of it'
    )
  return networks_lib.Generator(
    model.width,
    model.recurrences,
    model.smaller_hole,
    model.attention_form or None,
    dtype=modules.DTYPES[config.dtype],
  )
