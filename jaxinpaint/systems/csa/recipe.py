"""How CSA is trained: two generators at once, against a critic of pictures and one of features.

Liu, Jiang, Xiao, Yang: "Coherent Semantic Attention for Image Inpainting", ICCV 2019,
https://arxiv.org/abs/1905.12384; networks.py has the networks. Both updates use one forward pass.

  critics      1/2 RaLSGAN(critic) + 1/2 RaLSGAN(feature_critic)
  generators   l1 (L1(refined) + L1(rough)) + adversarial RaLSGAN(critic)
               + feature_adversarial RaLSGAN(feature_critic)
               + consistency (MSE(attention) + MSE(decoded))

RaLSGAN is the relativistic average LSGAN (losses/adversarial.py), of the refined picture and of its
VGG16 features. These are of pool3: in the code, too, what is called relu3_3 is pooled already. L1
is a mean of images in [-1, 1]. The consistency loss compares features of the hole after the
attention, and those of the same place in the decoder, with VGG16's relu4_3 of the real picture; its
mean runs over all places. VGG16 gets images in [-1, 1] as they are. The refining network gets the
rough picture without a gradient, so the rough one learns by its own L1 alone.

Differs from the paper:
  - what the feature critic judges is pooled, as in the code.
Differs from the reference code:
  - `consistency_gradient`: as in the paper, the consistency loss trains the refining network, and
    compares features of the hole with VGG's of the hole. In the code both features enter as
    constants, so that it trains nothing, and VGG's features are not masked. False is the code;
  - `feature_gradient`: likewise the feature critic trains the refining network. In the code what it
    judges for the generator is computed of a constant, so that it trains nothing. False is the
    code;
  - one optimizer for both generators, and one for both critics. Adam treats each number by itself,
    so that this is the same as four.

Logged terms include their weights, so they sum to 'total'.
"""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.features import vgg
from jaxinpaint.losses import adversarial
from jaxinpaint.losses.reconstruction import l1
from jaxinpaint.recipe import Constants, Forward, Inference, Loss, Phase, Recipe, Update, Variables
from jaxinpaint.systems._shared import checks, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.csa import networks as networks_lib

GENERATORS = ('rough', 'refinement')
WEIGHTS = ('l1', 'adversarial', 'feature_adversarial', 'consistency')
RALSGAN = adversarial.relativistic(adversarial.signed_least_squares, average=True)
_JUDGED, _CONSISTENT = 'pool3', 'relu4_3'  # of VGG16
_JUDGED_WIDTH, _CONSISTENT_WIDTH = 256, 512
# Of an image; each critic has no output for smaller ones.
_MIN_JUDGED_SIDES = {'critic': 24, 'feature_critic': 64}


def default_config() -> ConfigDict:
  """The published settings: those of the code, the paper's weights are the same times 100."""
  model = dict(
    width=64,
    deep_width=512,
    levels=8,  # fewer for pictures below 256 pixels: ours
    gradient='reference',
    critic_width=64,
    feature_critic_width=512,
  )
  loss = dict(
    l1=100.0,
    adversarial=0.2,
    feature_adversarial=0.2,
    consistency=1.0,
    consistency_gradient=True,  # the paper
    feature_gradient=True,  # the paper
    vgg_file='',
  )
  return ConfigDict(dict(system='csa', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  networks = _generators(config)

  def output(variables, constants, image, mask, rng):
    return _paint(networks, variables, image, mask)['out']

  def pictures(variables, constants, image, mask, rng):
    return {'rough': _paint(networks, variables, image, mask)['rough']}

  side = 2**config.model.levels
  return Inference(
    networks=GENERATORS,
    init=modules.initializer(networks, _arguments),
    output=output,
    multiple=side,
    min_side=side,
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A term of weight 0 is not built: without `feature_adversarial` and `consistency` no VGG is loaded,
  without `adversarial` there is no critic of pictures.
  """
  running = inference(config)
  _check_training(config)
  model, loss, dtype = config.model, config.loss, modules.DTYPES[config.dtype]
  networks = _generators(config)
  critics: dict[str, nn.Module] = {}
  if loss.adversarial:
    critics['critic'] = networks_lib.Critic(model.critic_width, dtype)
  if loss.feature_adversarial:
    critics['feature_critic'] = networks_lib.FeatureCritic(model.feature_critic_width, dtype)
  networks |= critics
  updates = (Update('generators', GENERATORS, _generators_loss(loss, networks), 'generators'),)
  if critics:
    names = tuple(critics)
    updates = (Update('critics', names, _critics_loss(networks, names), 'critics'), *updates)
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, _judged_arguments(critics)),
    phases=(Phase('joint', -1, _forward(loss, networks, dtype), updates),),
    load_constants=functools.partial(_load_constants, loss),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and removes the terms that need VGG's weights; changes `config`."""
  narrow = dict(width=8, deep_width=16, levels=5, critic_width=8, feature_critic_width=8)
  config.model.update(narrow)
  config.loss.update(dict(feature_adversarial=0.0, consistency=0.0))


def _generators(config: ConfigDict) -> dict[str, nn.Module]:
  """The two networks that paint; checks config.model."""
  model, dtype = config.model, config.dtype
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', dtype, modules.DTYPES)
  for name in ('width', 'deep_width', 'critic_width', 'feature_critic_width'):
    checks.count(f'model.{name}', model[name])
  if model.levels not in range(networks_lib.MIN_LEVELS, 10):
    raise ValueError(
      f'config.model.levels {model.levels!r} must be {networks_lib.MIN_LEVELS} to 9: the attention '
      f'is at level {networks_lib.ATTENTION_LEVEL}, above the last one'
    )
  checks.one_of('model.gradient', model.gradient, ('reference', 'true'))
  shared = dict(width=model.width, levels=model.levels, dtype=modules.DTYPES[dtype])
  own = dict(deep_width=model.deep_width, gradient=model.gradient)
  return {
    'rough': networks_lib.RoughGenerator(**shared),
    'refinement': networks_lib.RefinementGenerator(**own, **shared),
  }


def _arguments(height: int, width: int) -> dict[str, tuple[modules.Shape, ...]]:
  image, mask = (height, width, 3), (height, width, 1)
  features = (height // 8, width // 8, _JUDGED_WIDTH)
  return {
    'rough': (image, mask),
    'refinement': (image, image, mask),
    'critic': (image,),
    'feature_critic': (features,),
  }


def _judged_arguments(critics: Collection[str]) -> modules.Arguments:
  least = max((_MIN_JUDGED_SIDES[name] for name in critics), default=1)

  def arguments(height, width):
    if min(height, width) < least:
      raise ValueError(
        f'images of {height} x {width} are too small to be judged: set config.data.size >= {least}'
      )
    return _arguments(height, width)

  return arguments


def _paint(
  networks: Networks, variables: Variables, image: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """What the refining network returns, and 'rough': what it got."""
  rough = modules.run(networks, 'rough', variables, image, mask)['out']
  synthesis = arrays.compose(lax.stop_gradient(rough), image, mask)
  outputs = modules.run(networks, 'refinement', variables, synthesis, image, mask)
  return outputs | {'rough': rough}


def _forward(loss: ConfigDict, networks: Networks, dtype: Any) -> Forward:
  """One pass of both generators, with the features of VGG16 that the losses need.

  Outputs: 'rough' and 'raw' in [0,1], the latter not clipped; 'hole', 'attention' and 'decoded' of
  the refining network; 'judged' and 'judged_real', VGG's features for the critic; 'consistent',
  those for the consistency loss.
  """

  def forward(variables, constants, batch, rng):
    painted = _paint(networks, variables, batch['image'], batch['mask'])
    outputs = {n: painted[n] for n in ('rough', 'raw', 'hole', 'attention', 'decoded')}
    features = lambda image, layers: vgg.apply(
      constants['vgg'], 2 * image - 1, layers, depth=16, normalize=False, dtype=dtype
    )
    if layers := _layers(loss):
      real = features(batch['image'], layers)
      outputs |= {
        name: lax.stop_gradient(real[layer])
        for name, layer in (('judged_real', _JUDGED), ('consistent', _CONSISTENT))
        if layer in layers
      }
    if loss.feature_adversarial:
      raw = painted['raw'] if loss.feature_gradient else lax.stop_gradient(painted['raw'])
      outputs['judged'] = features(raw, (_JUDGED,))[_JUDGED]
    return outputs, {}

  return forward


def consistency(
  outputs: Mapping[str, jax.Array], *, gradient: bool = True
) -> tuple[jax.Array, jax.Array]:
  """Mean squared differences from 'consistent' of 'attention' and of 'decoded' in the hole; f32[].

  The means run over all places and channels.

  Args:
    outputs: [B,h,w,C] each and 'hole' [B,h,w,1].
    gradient: as in the paper. False: as in the code, where features are constants, and 'consistent'
      is not masked, so that known places are compared with 0.
  """
  hole, wanted = outputs['hole'], outputs['consistent']
  if gradient:
    wanted = wanted * hole
  of = lambda x: jnp.square(x * hole - wanted).mean()
  values = of(outputs['attention']), of(outputs['decoded'])
  return values if gradient else lax.stop_gradient(values)


def _generators_loss(loss: ConfigDict, networks: Networks) -> Loss:
  def generators_loss(variables, constants, outputs, batch, rng):
    image, metrics = batch['image'], {}
    judge = functools.partial(modules.run, networks)
    if loss.l1:  # of images in [-1, 1]
      metrics['l1_refined'] = 2 * loss.l1 * l1(outputs['raw'], image)
      metrics['l1_rough'] = 2 * loss.l1 * l1(outputs['rough'], image)
    if loss.adversarial:
      fake, real = (judge('critic', variables, x) for x in (outputs['raw'], image))
      metrics['adversarial'] = loss.adversarial * RALSGAN.generator(real, fake)
    if loss.feature_adversarial:
      fake = judge('feature_critic', variables, outputs['judged'])
      real = judge('feature_critic', variables, outputs['judged_real'])
      value = RALSGAN.generator(real, fake)
      metrics['feature_adversarial'] = loss.feature_adversarial * value
    if loss.consistency:
      values = consistency(outputs, gradient=loss.consistency_gradient)
      for name, value in zip(('attention', 'decoded'), values, strict=True):
        metrics[f'consistency_{name}'] = loss.consistency * value
    return total(metrics)

  return generators_loss


def _critics_loss(networks: Networks, critics: tuple[str, ...]) -> Loss:
  def critics_loss(variables, constants, outputs, batch, rng):
    outputs = lax.stop_gradient(outputs)
    pairs = {
      'critic': (batch['image'], outputs['raw']),
      'feature_critic': (outputs.get('judged_real'), outputs.get('judged')),
    }
    metrics = {}
    for name in critics:
      real, fake = (modules.run(networks, name, variables, x) for x in pairs[name])
      metrics[name] = RALSGAN.discriminator(real, fake) / 2
    return total(metrics)

  return critics_loss


def _layers(loss: ConfigDict) -> tuple[str, ...]:
  """The layers of VGG16 that the terms of `loss` need."""
  wanted = ((loss.feature_adversarial, _JUDGED), (loss.consistency, _CONSISTENT))
  return tuple(layer for weight, layer in wanted if weight)


def _load_constants(loss: ConfigDict, *, shapes_only: bool = False) -> Constants:
  """{'vgg': its parameters}, or {} if no term uses features."""
  layers = _layers(loss)
  if not layers:
    return {}
  return {'vgg': vgg.load_down_to(layers, 16, loss.vgg_file or None, shapes_only=shapes_only)}


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  loss = config.loss
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, WEIGHTS)
  if not loss.l1:
    raise ValueError('config.loss.l1 0 would leave the rough network without any loss')
  deep = config.model.deep_width
  if loss.consistency and deep != _CONSISTENT_WIDTH:
    raise ValueError(
      f'config.model.deep_width {deep} must be {_CONSISTENT_WIDTH}, the channels of VGG16 that the '
      'consistency loss compares with, or config.loss.consistency 0'
    )
