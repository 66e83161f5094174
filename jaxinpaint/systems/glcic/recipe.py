"""How GL (GLCIC) is trained: the completion network alone, the discriminator alone, then both.

Iizuka, Simo-Serra, Ishikawa: "Globally and Locally Consistent Image Completion", ACM Transactions
on Graphics 36 (4), 2017, https://doi.org/10.1145/3072959.3073659, algorithm 1.

  phase           generator's loss                      discriminator's loss
  completion      MSE
  discriminator                                         (BCE(fake, 0) + BCE(real, 1)) / 2
  joint           (MSE + alpha BCE(fake, 1)) / 2        alpha (BCE(fake, 0) + BCE(real, 1)) / 2

MSE is the mean over all elements of ((out - image) mask)^2 (eq. 2). Each network keeps one Adadelta
state through all its phases. Batch norm normalises by the batch in all of them, and its running
statistics move with every forward pass, the discriminator phase's included. Logged terms carry
their weights, so they sum to 'total'.

Fakes are the generator's whole output, known pixels not pasted back. The discriminator's local part
is a square that holds the hole, of reals one at another place, independent of it. Its two branches
end in dense layers, so it judges images of config.model.image_size and parts of local_size only;
the generator takes any size.

Adadelta's 1e-6 below the root outweighs squared gradients as small as alpha makes those of the
discriminator in the joint phase: there it all but descends plainly, with small steps.

Differs from the reference code (otenim/GLCIC-PyTorch):
  - the square around the hole is drawn among those that hold the hole, and for each image on its
    own; the code draws one square for a batch, then holes in it, and one square for all reals. For
    masks 'rectangles;within=...' (masks/shapes.py) one image's hole and square have the same
    joint distribution;
  - the gradient of the generator's adversarial term does not leak into the discriminator's next
    step, where it taught to take fakes for reals;
  - binary cross-entropy is taken of logits: exact up to its clamp at 100, where the code's jumps
    to 100 once its sigmoid has rounded to 0 or 1;
  - biases start at 0.

`model.variant = 'tf'` is shinseung428/GlobalLocalImageCompletion_TF:
  - known pixels are pasted back before any loss; values are in [-1, 1] there, so MSE is four times
    that of [0, 1];
  - no halves; alpha weighs the discriminator's loss in its own phase too;
  - the local part is the hole's box, wider by `margin` pixels on each side and stretched to
    `local_size`, at the same place in real images;
  - as released, `separate_heads=True` (see networks.py) and `discriminator_in_joint=False`: after
    its own phase the discriminator is never trained again. Both are off by default, for they
    leave the generator without an opponent; the survey's configuration has them on.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.layers import windows
from jaxinpaint.recipe import (
  Phase,
  Recipe,
  Update,
)
from jaxinpaint.systems.glcic import networks

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
VARIANTS = ('pytorch', 'tf')
# config.model.discriminator: convolutions of its branch for the whole image.
GLOBAL_LAYERS = {'celeba': 5, 'places2': 6}
_LOCAL_LAYERS = 5
# What the least sides are that unpadded 5 x 5 convolutions of stride 2 leave a pixel of.
_TF_LEAST = {5: 125, 6: 253}
_BCE_LIMIT = 100.0  # PyTorch's clamp of the logarithm


def default_config() -> ConfigDict:
  """The PyTorch variant on CelebA: networks, weights and phases as published."""
  model = dict(
    variant='pytorch',  # or 'tf'
    width=64,  # P, code
    mpv=(0.5061, 0.4254, 0.3828),  # CelebA's mean pixel value; of published weights: config.json's
    norm_first=False,  # code; P: True. The tf variant always does
    discriminator='celeba',  # P, code; 'places2': one more convolution; tf has its own
    discriminator_width=64,  # P, code
    discriminator_features=1024,  # P, code
    image_size=160,  # P (CelebA), code: side of the training images
    local_size=96,  # P (CelebA), code: side of the part around the hole
    separate_heads=False,  # tf variant only; as released: True
  )
  loss = dict(
    alpha=4e-4,  # P, code
    margin=10,  # code; tf variant only, pixels
    discriminator_in_joint=True,  # P, code; the tf variant as released: False
  )
  phases = dict(completion=90_000, discriminator=10_000, joint=400_000)  # P, code
  return ConfigDict(dict(system='glcic', dtype='float32', model=model, loss=loss, phases=phases))


def make(config: ConfigDict) -> Recipe:
  """The recipe of `config`.

  Raises:
    ValueError: an unknown field or a value that makes no sense; names it and what it may be.
  """
  _check(config)
  model, steps = config.model, config.phases
  tf = model.variant == 'tf'
  nets = {'generator': _generator(config)}
  if config.loss.alpha and (steps.discriminator or steps.joint):
    nets['discriminator'] = _discriminator(config)
  completion = _forward(config, nets, judged=False)
  judged = _forward(config, nets, judged=True)
  update = lambda name, loss: Update(name, (name,), loss, name)
  alone = update('generator', _generator_loss(config, {}, scale=1.0))
  phases = [Phase('completion', steps.completion, completion, (alone,))]
  if 'discriminator' in nets:
    weight = config.loss.alpha if tf else 0.5
    judge = update('discriminator', _discriminator_loss(nets['discriminator'], weight))
    phases.append(Phase('discriminator', steps.discriminator, judged, (judge,)))
    weight = config.loss.alpha * (1.0 if tf else 0.5)
    judge = update('discriminator', _discriminator_loss(nets['discriminator'], weight))
    both = [judge] if config.loss.discriminator_in_joint else []
    both.append(update('generator', _generator_loss(config, nets, scale=1.0 if tf else 0.5)))
    phases.append(Phase('joint', steps.joint, judged, tuple(both)))
  else:
    phases.append(Phase('joint', steps.joint, completion, (alone,)))

  def init(rng, batch):
    return _init(config, nets, rng, batch)

  def output(params, stats, constants, image, mask, rng):
    found = nets['generator'].apply(_variables(params, stats, 'generator'), image, mask)
    return found['out']

  return Recipe(
    networks=tuple(nets),
    init=init,
    phases=tuple(phase for phase in phases if phase.steps),
    output=output,
    multiple=networks.MULTIPLE,
    min_side=networks.MIN_SIDE,
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, and shortens the phases to two steps each, in place."""
  model = config.model
  model.update(dict(width=8, discriminator_width=4, discriminator_features=16))
  if model.variant == 'tf':  # its discriminator takes no smaller images
    config.data.size = 256
    config.evaluation.batch_size = 2
  else:
    model.local_size = 32
  model.image_size = config.data.size
  config.phases.update({name: 2 for name, steps in config.phases.items() if steps})
  config.training.steps = sum(config.phases.values())


def _generator(config: ConfigDict) -> nn.Module:
  model, dtype = config.model, DTYPES[config.dtype]
  if model.variant == 'tf':
    return networks.TFGenerator(width=model.width, dtype=dtype)
  mpv = tuple(float(v) for v in model.mpv)
  return networks.Generator(width=model.width, mpv=mpv, norm_first=model.norm_first, dtype=dtype)


def _discriminator(config: ConfigDict) -> nn.Module:
  model = config.model
  fields = dict(
    width=model.discriminator_width,
    features=model.discriminator_features,
    dtype=DTYPES[config.dtype],
  )
  if model.variant == 'tf':
    return networks.TFDiscriminator(separate_heads=model.separate_heads, **fields)
  fields['norm_first'] = model.norm_first
  return networks.Discriminator(global_layers=GLOBAL_LAYERS[model.discriminator], **fields)


def _variables(params: Mapping[str, Any], stats: Mapping[str, Any], network: str) -> dict[str, Any]:
  return {'params': params[network], **stats.get(network, {})}


def _init(config: ConfigDict, nets: Mapping[str, nn.Module], rng: jax.Array, batch: Any):
  """Parameters and statistics; of the batch only its height and width matter."""
  height, width = batch['image'].shape[1:3]
  image = jnp.zeros((1, height, width, 3))
  square = lambda side: jnp.zeros((1, side, side, 3))
  given = {
    'generator': (image, image[..., :1]),
    'discriminator': (square(config.model.local_size), square(config.model.image_size)),
  }
  params, stats = {}, {}
  for key, (name, net) in zip(jax.random.split(rng, len(nets)), nets.items(), strict=True):
    variables = dict(net.init(key, *given[name]))
    params[name] = variables.pop('params')
    if variables:
      stats[name] = variables
  return params, stats


def _forward(config: ConfigDict, nets: Mapping[str, nn.Module], judged: bool) -> Callable:
  """One pass of the generator; with `judged` also the parts that the discriminator is shown.

  Outputs: 'out'; 'local', a part of it; 'real_local', a part of the real image.
  """
  model, tf = config.model, config.model.variant == 'tf'

  def forward(params, stats, constants, batch, rng):
    image, mask = batch['image'], batch['mask']
    if 'discriminator' in nets:  # in every phase: not only after days of the first
      _check_size(image, model.image_size)
    found, changed = nets['generator'].apply(
      _variables(params, stats, 'generator'), image, mask, train=True, mutable=['batch_stats']
    )
    out = arrays.compose(found['out'], image, mask) if tf else found['out']
    outputs = {'out': out}
    if judged and tf:
      box = _widened(windows.hole_box(mask), config.loss.margin, image.shape[1:3])
      cut = lambda x: windows.cut_resized(x, box, model.local_size)
      outputs |= {'local': cut(out), 'real_local': cut(image)}
    elif judged:
      size, keys = model.local_size, jax.random.split(rng)
      window = windows.window_on_hole(keys[0], mask, size)
      outputs['local'] = windows.cut(out, window, size)
      window = windows.random_window(keys[1], mask, size)
      outputs['real_local'] = windows.cut(image, window, size)
    return outputs, {'generator': dict(changed)} if changed else {}

  return forward


def _widened(box: tuple[jax.Array, ...], margin: int, size: tuple[int, int]) -> tuple:
  top, bottom, left, right = box
  return (
    jnp.maximum(top - margin, 0),
    jnp.minimum(bottom + margin, size[0]),
    jnp.maximum(left - margin, 0),
    jnp.minimum(right + margin, size[1]),
  )


def cross_entropy(logits: jax.Array, real: bool) -> jax.Array:
  """Binary cross-entropy of the logits' sigmoid with 1 (real) or 0, at most 100; f32[], a mean."""
  logits = logits.astype(jnp.float32)
  return jnp.minimum(jax.nn.softplus(-logits if real else logits), _BCE_LIMIT).mean()


def completion_loss(out: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean over all elements, known ones included, of ((out - image) * mask)^2; f32[]; eq. 2.

  Args:
    out: [B,H,W,3].
    image: [B,H,W,3].
    mask: [B,H,W,1], 1 = hole.
  """
  difference = out.astype(jnp.float32) - image.astype(jnp.float32)
  return jnp.square(difference * mask).mean()


def _judge(discriminator: nn.Module, params: Any, stats: Any, local: jax.Array, whole: jax.Array):
  """Its findings, and {'discriminator': its statistics} where they moved."""
  variables = _variables(params, stats, 'discriminator')
  found, changed = discriminator.apply(variables, local, whole, train=True, mutable=['batch_stats'])
  return found, {'discriminator': dict(changed)} if changed else {}


def _discriminator_loss(discriminator: nn.Module, weight: float) -> Callable:
  def discriminator_loss(params, stats, constants, outputs, batch, rng):
    fake = jax.lax.stop_gradient(outputs)
    # Two calls, not one of a double batch: each is normalised by its own statistics.
    found, changed = _judge(discriminator, params, stats, fake['local'], fake['out'])
    fake_term = weight * cross_entropy(found['fake'], real=False)
    stats = {**stats, **changed}
    found, changed = _judge(discriminator, params, stats, outputs['real_local'], batch['image'])
    real_term = weight * cross_entropy(found['real'], real=True)
    metrics = {'fake': fake_term, 'real': real_term, 'total': fake_term + real_term}
    return metrics['total'], {'metrics': metrics, 'stats': changed}

  return discriminator_loss


def _generator_loss(config: ConfigDict, nets: Mapping[str, nn.Module], scale: float) -> Callable:
  """scale * MSE, and with a discriminator among `nets` scale * alpha * its judgement."""
  discriminator = nets.get('discriminator')
  mse_weight = scale * (4.0 if config.model.variant == 'tf' else 1.0)  # of values in [-1, 1]
  weight = scale * config.loss.alpha

  def generator_loss(params, stats, constants, outputs, batch, rng):
    mse = completion_loss(outputs['out'], batch['image'], batch['mask'])
    metrics, changed = {'mse': mse_weight * mse}, {}
    if discriminator is not None:
      found, changed = _judge(discriminator, params, stats, outputs['local'], outputs['out'])
      metrics['adversarial'] = weight * cross_entropy(found['fake'], real=True)
    total = sum(metrics.values())
    return total, {'metrics': {**metrics, 'total': total}, 'stats': changed}

  return generator_loss


def _check_size(image: jax.Array, size: int) -> None:
  if image.shape[1:3] != (size, size):
    raise ValueError(
      f'training images are {image.shape[1]} x {image.shape[2]}, but the discriminator is made for '
      f'config.model.image_size={size}: make config.data.size and config.model.image_size equal'
    )


def _check(config: ConfigDict) -> None:
  known = default_config()
  for section in ('model', 'loss', 'phases'):
    for name in config[section]:
      if name not in known[section]:
        choices = ', '.join(sorted(known[section]))
        raise ValueError(f'config.{section} has no {name!r}; it has: {choices}')
    missing = sorted(set(known[section]) - set(config[section]))
    if missing:
      raise ValueError(
        f"config.{section} lacks {missing}: start from the system's default_config()"
      )
  _one_of('dtype', config.dtype, DTYPES)
  _one_of('model.variant', config.model.variant, VARIANTS)
  _one_of('model.discriminator', config.model.discriminator, GLOBAL_LAYERS)
  mpv = tuple(config.model.mpv)
  if len(mpv) != 3 or not all(0 <= v <= 1 for v in mpv):
    raise ValueError(f'config.model.mpv {mpv} must be red, green and blue in [0, 1]')
  for name in ('width', 'discriminator_width', 'discriminator_features'):
    if config.model[name] < 2:
      raise ValueError(f'config.model.{name} {config.model[name]} must be at least 2')
  if config.loss.alpha < 0:
    raise ValueError(f'config.loss.alpha {config.loss.alpha} must be >= 0 (0: no discriminator)')
  if config.loss.margin < 0:
    raise ValueError(f'config.loss.margin {config.loss.margin} must be >= 0')
  steps = config.phases
  for name in steps:
    if steps[name] < (-1 if name == 'joint' else 0):
      least = '>= 0, or -1: to the end of training' if name == 'joint' else '>= 0'
      raise ValueError(f'config.phases.{name} {steps[name]} must be {least}')
  if not any(steps.values()):
    raise ValueError(f'config.phases: all ({", ".join(steps)}) have 0 steps: nothing to train')
  if steps.discriminator and not config.loss.alpha:
    raise ValueError(
      'config.loss.alpha=0 leaves out the discriminator: set config.phases.discriminator=0 too'
    )
  _check_sizes(config.model)


def _check_sizes(model: ConfigDict) -> None:
  layers = 6 if model.variant == 'tf' else GLOBAL_LAYERS[model.discriminator]
  for name, count in (('image_size', layers), ('local_size', _LOCAL_LAYERS)):
    size = model[name]
    if model.variant == 'tf':
      if size < _TF_LEAST[count]:
        raise ValueError(
          f"config.model.{name} {size} must be at least {_TF_LEAST[count]}: the tf variant's "
          f'discriminator shrinks it by {count} unpadded convolutions'
        )
    elif size < 1 or size % 2**count:
      raise ValueError(
        f'config.model.{name} {size} must be a multiple of {2**count}: the discriminator '
        f'{model.discriminator!r} halves it {count} times before a dense layer'
      )
  if model.variant != 'tf' and model.local_size > model.image_size:
    raise ValueError(
      f'config.model.local_size {model.local_size} must not exceed image_size {model.image_size}'
    )


def _one_of(name: str, value: Any, choices: Any) -> None:
  if value not in choices:
    raise ValueError(f'config.{name} {value!r} must be one of: {", ".join(map(repr, choices))}')
