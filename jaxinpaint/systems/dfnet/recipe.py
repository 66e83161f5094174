"""How DFNet is trained: reconstruction at every scale, texture at the finest three, no adversary.

Hong, Xiong, Ji, Fan: "Deep Fusion Network for Image Completion", ACM Multimedia 2019, section 3.3.
Marks: C, the released code (hughplay/DFNet: losses and config.yaml); O, ours.

  total = reconstruction * L1 + perceptual * Perceptual + style * Style + tv * TV

L1 is the mean over the six scales of the mean absolute difference from the picture, reduced to that
scale (bilinear, without antialiasing). The other three are means over the finest three scales.
Perceptual and Style sum over three pools of VGG16, which gets pictures in [0, 1] as they are. TV is
the mean of |pixel above + pixel to the left - 2 pixels| at known pixels, where what lies outside
the picture is 0. All of them are of the results before known pixels are pasted back. Logged terms
include their weights, so they sum to 'total'.

Differs from the paper: nothing known; where its text leaves something open, the code is followed.

Differs from the reference code:
  - pictures without a known pixel are logged and train nothing;
  - TV is of the results. The code swaps results and targets on the way to its texture terms, so its
    TV is of the targets and trains nothing; the other terms are symmetric. `loss.tv_of = 'target'`
    does as the code does: a constant is logged.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from jaxinpaint.layers.conv import resize_bilinear
from jaxinpaint.losses import perceptual, reconstruction, regularisers
from jaxinpaint.recipe import Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules, vgg16_terms
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.dfnet import networks as networks_lib

WEIGHTS = ('reconstruction', 'perceptual', 'style', 'tv')
CHANNEL_ORDERS = ('rgb', 'bgr')
TV_OF = ('result', 'target')
LEVELS = range(2, len(networks_lib.SCALES) + 1)


def default_config() -> ConfigDict:
  """The published settings."""
  model = dict(
    width=64,  # C
    levels=8,  # C; fewer for pictures below 256 pixels
    channel_order='rgb',  # O; the published weights need 'bgr'
  )
  loss = dict(
    reconstruction=6.0,  # C
    perceptual=0.1,  # C
    style=240.0,  # C
    tv=0.1,  # C
    texture_scales=3,  # C: the finest, of which perceptual, style and tv are
    tv_of='result',  # O; C is 'target'
    vgg_file='',
    vgg_layers=('pool1', 'pool2', 'pool3'),  # C
  )
  return ConfigDict(dict(system='dfnet', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  generator, multiple = _generator(config), 2**config.model.levels
  networks = {'generator': generator}

  def pictures(variables, constants, image, mask, rng, **inputs):
    outputs = modules.run(networks, 'generator', variables, image, mask)
    return {'predicted': outputs['raws'][0], 'alpha': outputs['alphas'][0]}

  return modules.one_generator(generator, multiple=multiple, min_side=multiple, pictures=pictures)


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A term of weight 0 is not built: without `perceptual` and `style` no VGG is loaded.
  """
  running = inference(config)
  _check_training(config)
  networks = {'generator': _generator(config)}

  def forward(variables, constants, batch, rng):
    outputs, changed = modules.train_pass(
      networks, 'generator', variables, batch['image'], batch['mask']
    )
    return {'results': modules.only_of_known(outputs['results'], batch['mask'])}, changed

  update = Update('generator', ('generator',), _generator_loss(config), 'generator')
  return Recipe(
    running,
    networks=('generator',),
    init=running.init,
    phases=(Phase('training', -1, forward, (update,)),),
    load_constants=functools.partial(vgg16_terms.load_constants, config.loss),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the network and removes the terms that need VGG's weights; changes `config`."""
  config.model.update(dict(width=8, levels=5))
  config.loss.update(dict(perceptual=0.0, style=0.0))


def _generator(config: ConfigDict) -> nn.Module:
  """The network of config.model, which is checked."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.count('model.width', model.width)
  checks.one_of('model.levels', model.levels, LEVELS)
  checks.one_of('model.channel_order', model.channel_order, CHANNEL_ORDERS)
  dtype = modules.DTYPES[config.dtype]
  return networks_lib.Generator(model.width, model.levels, model.channel_order, dtype=dtype)


def generator_terms(
  loss: ConfigDict,
  results: Sequence[jax.Array],
  image: jax.Array,
  mask: jax.Array,
  features: vgg16_terms.Features,
) -> dict[str, jax.Array]:
  """{term: its value with its weight}; only terms with a weight are computed.

  Args:
    loss: config.loss.
    results: of the fusion blocks, f32[B,h,w,3] in [0, 1] each, from full resolution down.
    image: f32[B,H,W,3] in [0, 1], the whole picture.
    mask: f32[B,H,W,1], 1 = hole.
    features: of images in [0, 1].
  """
  mean = lambda values: sum(values) / len(values)
  targets = [resize_bilinear(image, *x.shape[1:3]) for x in results]
  pairs = list(zip(results, targets, strict=True))
  fine = pairs[: loss.texture_scales]
  terms = {}
  if loss.reconstruction:
    terms['reconstruction'] = mean([reconstruction.l1(x, target) for x, target in pairs])
  if loss.perceptual or loss.style:
    seen = [(features(x), features(target)) for x, target in fine]
    for name, function in (('perceptual', perceptual.perceptual), ('style', perceptual.style)):
      if loss[name]:
        terms[name] = mean([function(x, target) for x, target in seen])
  if loss.tv:
    chosen = [pair[TV_OF.index(loss.tv_of)] for pair in fine]
    known = [resize_bilinear(1 - mask, *x.shape[1:3]) for x in chosen]
    each = zip(chosen, known, strict=True)
    terms['tv'] = mean([regularisers.corner_variation(x, weight) for x, weight in each])
  return {name: loss[name] * value for name, value in terms.items()}


def _generator_loss(config: ConfigDict) -> Loss:
  loss, dtype = config.loss, modules.DTYPES[config.dtype]

  def generator_loss(variables, constants, outputs, batch, rng):
    features = vgg16_terms.features(constants, loss, normalize=False, dtype=dtype)
    return total(generator_terms(loss, outputs['results'], batch['image'], batch['mask'], features))

  return generator_loss


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  loss = config.loss
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, WEIGHTS)
  checks.one_of('loss.tv_of', loss.tv_of, TV_OF)
  checks.count('loss.texture_scales', loss.texture_scales)
  scales = min(config.model.levels, networks_lib.FUSIONS)
  if loss.texture_scales > scales:
    raise ValueError(
      f'config.loss.texture_scales {loss.texture_scales} must not exceed the {scales} scales of '
      f'a network with config.model.levels={config.model.levels}'
    )
  if loss.tv_of == 'target' and not any(loss[name] for name in WEIGHTS if name != 'tv'):
    raise ValueError("config.loss.tv_of 'target' alone trains nothing: give another term a weight")
  vgg16_terms.check(loss)
