"""How the SE-ResNet completion network is trained: three phases, with a contextual loss.

Lin, Wang: "Image Inpainting Based on New Encoder and Similarity Constraint", Computer Systems &
Applications 30(1), 2021, http://c-s-a.org.cn/html/2021/1/7742.html.

  completion      90,000 steps  the generator alone, L_res
  discriminator   10,000 steps  the discriminators alone
  joint          400,000 steps  the discriminators, then the generator: L_res + 0.0004 L_adv +
                                0.004 L_CX (eq. 4), both of one forward pass of the generator

Where the paper is silent, GLCIC's PyTorch port is followed, whose numbers are the paper's: see
networks.py. Norms use the batch's statistics throughout, the generator's also while it rests. What
is judged and compared is the generator's whole output, not pasted into the image.

Differs from the paper, or reads it in one of several ways:
  - L_res (eq. 2) is printed with a minus, and over the known pixels: its minimum would be an error
    without bound, and the hole would never be supervised. Here it is the mean over all elements
    of the squared difference in the hole (GLCIC's); loss.content_region: 'known' reads the mask
    literally, 'all' takes every pixel;
  - L_adv (eq. 1) is -D, D the probability; loss.adv_form='log' is -log D, which fits eq. 5;
  - L_dis (eq. 5) is of D's logits; its G(x) is read as G of the damaged image;
  - L_CX (eq. 6): the roles of output and target are those of the contextual loss's own paper, in
    which every feature of the target should be met; loss.cx_roles='paper' exchanges them. Layers
    (relu3_2, relu4_2 of VGG16), bandwidth 0.5 and weights 1 are those of its authors' code;
  - phase one has L_res only; loss.contextual_in_completion adds L_CX;
  - the local discriminator sees, of an output, an area that holds the hole, drawn for each image
    among those of its size that do (the middle of the hole where it is too large); of a
    photograph, an area drawn on its own.

Differs from GLCIC's port: the gradient of the generator's adversarial loss does not leak into the
discriminators' next step; eq. 5 is not halved or weighted, which Adadelta hardly notices.

Logged terms carry their weights, so they sum to 'total'.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint.features import vgg
from jaxinpaint.losses import adversarial, contextual
from jaxinpaint.recipe import (
  Phase,
  Recipe,
  Update,
)
from jaxinpaint.systems.seresnet_cx import networks as networks_lib

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
VGG_DEPTH = 16
CHOICES = {
  'adv_form': ('paper', 'log'),
  'content_region': ('hole', 'known', 'all'),
  'cx_roles': ('reference', 'paper'),
  'cx_layers': vgg.layer_names(VGG_DEPTH),
}


def default_config() -> ConfigDict:
  """The published settings; O marks ours, with the reason in the module's text."""
  model = dict(
    width=64,  # O
    use_se_resnet=True,
    se_reduction=16,  # O: SENet's
    mask_channel=False,
    discriminator_width=64,
    discriminator_features=1024,
    disc_tail_stride=1,
    global_size=160,  # side of the training images, to which the discriminators are bound ...
    local_size=96,  # ... and of the areas
  )
  loss = dict(
    content_region='hole',  # O
    adversarial=0.0004,
    adv_form='paper',
    contextual=0.004,
    contextual_in_completion=False,  # O
    cx_roles='reference',  # O
    cx_h=0.5,  # O: that of the contextual loss's code
    cx_layers=('relu3_2', 'relu4_2'),  # O: likewise
    vgg_file='',  # '': torchvision's VGG16
  )
  phases = dict(completion=90_000, discriminator=10_000, joint=400_000)
  sections = dict(system='seresnet_cx', dtype='float32', model=model, loss=loss, phases=phases)
  return ConfigDict(sections)


def make(config: ConfigDict) -> Recipe:
  """The recipe of `config`; raises ValueError for fields and values that make no sense.

  A loss of weight 0 is not built: without `adversarial` there is no discriminator, without
  `contextual` no VGG. A phase of 0 steps is left out.
  """
  _check(config)
  model, loss = config.model, config.loss
  dtype = DTYPES[config.dtype]
  shared = dict(use_se_resnet=model.use_se_resnet, se_reduction=model.se_reduction, dtype=dtype)
  generator = networks_lib.Generator(width=model.width, mask_channel=model.mask_channel, **shared)
  networks = {'generator': generator}
  if loss.adversarial:
    networks['discriminator'] = networks_lib.Discriminator(
      width=model.discriminator_width,
      features=model.discriminator_features,
      tail_stride=model.disc_tail_stride,
      **shared,
    )

  def output(params, stats, constants, image, mask, rng):
    variables = {'params': params['generator'], **stats['generator']}
    return generator.apply(variables, image, mask)['out']

  judge = None
  if loss.adversarial:
    judge = _judge(networks['discriminator'])
    judging = Update('discriminator', ('discriminator',), _judging_loss(judge), 'discriminator')
  painting = lambda terms: Update('generator', ('generator',), _sum(terms), 'generator')
  content = [_content_term(loss)]
  context = [_contextual_term(loss, dtype)] if loss.contextual else []
  adversary = [_adversarial_term(loss, judge)] if judge else []
  early = content + (context if loss.contextual_in_completion else [])
  updates = {
    'completion': (painting(early),),
    'discriminator': (judging,) if judge else (),
    'joint': ((judging,) if judge else ()) + (painting(content + adversary + context),),
  }
  phases = tuple(
    Phase(name, steps, _forward(generator, model, judge, name), updates[name])
    for name, steps in ((name, config.phases[name]) for name in updates)
    if steps
  )
  return Recipe(
    networks=tuple(networks),
    init=_init(networks, model),
    phases=phases,
    output=output,
    load_constants=_load_constants(loss),
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.MULTIPLE,
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks in place, drops the term that needs VGG's weights, shortens the phases."""
  config.model.update(dict(width=8, discriminator_width=8, discriminator_features=16))
  config.model.update(dict(global_size=64, local_size=40))
  config.loss.contextual = 0.0
  config.phases.update({name: 2 if steps else 0 for name, steps in config.phases.items()})
  config.training.steps = sum(config.phases.values())


def hole_area(rng: jax.Array, mask: jax.Array, side: int) -> tuple[jax.Array, jax.Array]:
  """Where squares of `side` that hold the hole begin: (top i32[B], left i32[B]).

  Uniform among the squares within the image that hold the hole's bounding box, for each image on
  its own; where none does, as near to the middle of the box as the image allows.

  Args:
    rng: a key.
    mask: f32[B,H,W,1], 1 = hole; an image without a hole counts as one hole.
    side: at most H and W.
  """
  starts = []
  for axis, key in zip((1, 2), jax.random.split(rng), strict=True):
    n = mask.shape[axis]
    rows = (mask > 0).any((3 - axis, 3))
    first = jnp.argmax(rows, axis=1)
    end = n - jnp.argmax(rows[:, ::-1], axis=1)
    low, high = jnp.maximum(end - side, 0), jnp.minimum(first, n - side)
    drawn = jax.random.randint(key, first.shape, low, jnp.maximum(high, low) + 1)
    middle = jnp.clip((first + end - side) // 2, 0, n - side)
    starts.append(jnp.where(low <= high, drawn, middle))
  return starts[0], starts[1]


def areas(image: jax.Array, start: tuple[jax.Array, jax.Array], side: int) -> jax.Array:
  """[B,H,W,C] -> [B,side,side,C], from row start[0] and column start[1] of each image on."""
  cut = lambda x, top, left: lax.dynamic_slice(x, (top, left, 0), (side, side, x.shape[-1]))
  return jax.vmap(cut)(image, *start)


def _init(networks: Mapping[str, Any], model: ConfigDict) -> Callable:
  def init(rng, batch):
    height, width = batch['image'].shape[1:3]
    rngs = dict(zip(networks, jax.random.split(rng, len(networks)), strict=True))
    image = jnp.zeros((1, height, width, 3))
    inputs = {
      'generator': (image, image[..., :1]),
      'discriminator': tuple(
        jnp.zeros((1, n, n, 3)) for n in (model.local_size, model.global_size)
      ),
    }
    found = {name: net.init(rngs[name], *inputs[name]) for name, net in networks.items()}
    stats = {name: {'batch_stats': v['batch_stats']} for name, v in found.items()}
    return {name: v['params'] for name, v in found.items()}, stats

  return init


def _forward(generator: Any, model: ConfigDict, judge: Callable | None, phase: str) -> Callable:
  """The generator's pass, and where the local discriminator will look."""

  def forward(params, stats, constants, batch, rng):
    image, mask = batch['image'], batch['mask']
    params = params['generator']
    if phase == 'discriminator':
      params = lax.stop_gradient(params)
    variables = {'params': params, **stats['generator']}
    found, changed = generator.apply(variables, image, mask, train=True, mutable=['batch_stats'])
    outputs = {'out': found['out']}
    if judge:
      size = model.global_size
      # In every phase, so that a wrong size is known before the first is over.
      if image.shape[1:3] != (size, size):
        raise ValueError(
          f'images of {image.shape[1]} x {image.shape[2]} do not fit the global discriminator, '
          f'which is built for {size} x {size}: set config.data.size and config.model.global_size '
          'to the same number, and config.model.local_size to about 0.6 of it'
        )
    if judge and phase != 'completion':
      key_fake, key_real = jax.random.split(rng)
      outputs['fake_area'] = hole_area(key_fake, mask, model.local_size)
      last = size - model.local_size
      drawn = jax.random.randint(key_real, (2, image.shape[0]), 0, last + 1)
      outputs['real_area'] = (drawn[0], drawn[1])
      outputs['fake_local'] = areas(found['out'], outputs['fake_area'], model.local_size)
      outputs['real_local'] = areas(image, outputs['real_area'], model.local_size)
    return outputs, {'generator': changed}

  return forward


def _judge(discriminator: Any) -> Callable:
  """(params, stats, local, whole) -> (logits, stats after it)."""

  def judge(params, stats, local, whole):
    variables = {'params': params['discriminator'], **stats['discriminator']}
    found, changed = discriminator.apply(
      variables, local, whole, train=True, mutable=['batch_stats']
    )
    return found['logits'], {**stats, 'discriminator': changed}

  return judge


def _judging_loss(judge: Callable) -> Callable:
  """Eq. 5; fakes first, so the running statistics move in the port's order."""

  def loss(params, stats, constants, outputs, batch, rng):
    fake_local, fake = lax.stop_gradient((outputs['fake_local'], outputs['out']))
    fake_logits, stats = judge(params, stats, fake_local, fake)
    real_logits, stats = judge(params, stats, outputs['real_local'], batch['image'])
    terms = adversarial.non_saturating.discriminator(real_logits, fake_logits)
    metrics = {'real': terms[0], 'fake': terms[1], 'total': terms[0] + terms[1]}
    return metrics['total'], {
      'metrics': metrics,
      'stats': {'discriminator': stats['discriminator']},
    }

  return loss


def _sum(terms: list[Callable]) -> Callable:
  """The generator's loss. A term is (params, stats, constants, outputs, batch) -> ({name: weighted
  value}, changed stats)."""

  def loss(params, stats, constants, outputs, batch, rng):
    metrics, changed = {}, {}
    for term in terms:
      values, new = term(params, stats, constants, outputs, batch)
      metrics |= values
      changed |= new
    total = sum(metrics.values())
    return total, {'metrics': {**metrics, 'total': total}, 'stats': changed}

  return loss


def _content_term(loss: ConfigDict) -> Callable:
  """Eq. 2: the mean over all elements, whatever the region's share of them."""
  region = {
    'hole': lambda mask: mask,
    'known': lambda mask: 1 - mask,
    'all': jnp.ones_like,
  }[loss.content_region]

  def term(params, stats, constants, outputs, batch):
    error = (outputs['out'] - batch['image']) * region(batch['mask'])
    return {'content': jnp.square(error).mean()}, {}

  return term


def _adversarial_term(loss: ConfigDict, judge: Callable) -> Callable:
  """Eq. 1."""
  gan = {
    'paper': lambda logits: -jax.nn.sigmoid(logits).mean(),
    'log': adversarial.non_saturating.generator,
  }[loss.adv_form]

  def term(params, stats, constants, outputs, batch):
    logits, stats = judge(params, stats, outputs['fake_local'], outputs['out'])
    changed = {'discriminator': stats['discriminator']}
    return {'adversarial': loss.adversarial * gan(logits)}, changed

  return term


def _contextual_term(loss: ConfigDict, dtype: Any) -> Callable:
  """Eq. 6, the sum over the layers."""
  layers = tuple(loss.cx_layers)

  def features(constants, image):
    return vgg.apply(constants['vgg'], image, layers, depth=VGG_DEPTH, dtype=dtype)

  def term(params, stats, constants, outputs, batch):
    found = features(constants, outputs['out'])
    wanted = features(constants, batch['image'])
    pair = (found, wanted) if loss.cx_roles == 'reference' else (wanted, found)
    values = (contextual.contextual_loss(pair[0][n], pair[1][n], h=loss.cx_h) for n in layers)
    return {'contextual': loss.contextual * sum(values)}, {}

  return term


def _load_constants(loss: ConfigDict) -> Callable:
  def load(training):
    """{'vgg': its parameters down to the deepest layer in use}, or {}."""
    if not training or not loss.contextual:
      return {}
    params = vgg.load(VGG_DEPTH, loss.vgg_file or None)
    names = vgg.layer_names(VGG_DEPTH)
    used = names[: max(map(names.index, loss.cx_layers)) + 1]
    return {'vgg': {n: params[n] for n in (u.replace('relu', 'conv') for u in used) if n in params}}

  return load


def _check(config: ConfigDict) -> None:
  """Raises ValueError for what could only fail later, or train nonsense."""
  known = default_config()
  model, loss, phases = config.model, config.loss, config.phases
  for section in ('model', 'loss', 'phases'):
    extra, lacking = (sorted(a) for a in _differences(config[section], known[section]))
    if extra or lacking:
      raise ValueError(
        f'config.{section}: unknown {extra or "none"}, missing {lacking or "none"}; it has: '
        f'{", ".join(sorted(known[section]))}'
      )
  if config.dtype not in DTYPES:
    raise ValueError(f'config.dtype {config.dtype!r} must be one of: {", ".join(DTYPES)}')
  for name, choices in CHOICES.items():
    value = loss[name]
    for one in (value,) if isinstance(value, str) else value:
      if one not in choices:
        raise ValueError(f'config.loss.{name} {one!r} must be one of: {", ".join(choices)}')
  for name in ('adversarial', 'contextual', 'cx_h'):
    if not (math.isfinite(loss[name]) and loss[name] >= 0):
      raise ValueError(f'config.loss.{name} {loss[name]!r} must be finite and >= 0')
  if loss.contextual and not (loss.cx_layers and loss.cx_h):
    raise ValueError('config.loss.contextual needs cx_layers and a positive cx_h, or to be 0')
  if model.disc_tail_stride not in (1, 2):
    raise ValueError(f'config.model.disc_tail_stride {model.disc_tail_stride!r} must be 1 or 2')
  if not 16 <= model.local_size <= model.global_size:
    raise ValueError(
      f'config.model.local_size {model.local_size} must be at least 16 and at most global_size '
      f'({model.global_size})'
    )
  for name in phases:
    least = -1 if name == 'joint' else 0
    if phases[name] < least:
      raise ValueError(f'config.phases.{name} {phases[name]} must be a number of steps (0: none)')
  if not loss.adversarial and phases.discriminator:
    raise ValueError(
      'config.loss.adversarial=0 leaves out the discriminators: set '
      'config.phases.discriminator=0 too'
    )


def _differences(a: Any, b: Any) -> tuple[set, set]:
  return set(a) - set(b), set(b) - set(a)
