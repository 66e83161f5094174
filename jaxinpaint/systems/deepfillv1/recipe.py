"""How DeepFill v1 is trained: spatially discounted L1 and two Wasserstein critics.

Yu, Lin, Yang, Shen, Lu, Huang: "Generative Image Inpainting with Contextual Attention", CVPR 2018,
sections 3 and 4.3. Weights and details are those of the authors' code (its release v1.0.0):

  generator = l1 * L1 of the hole's box, discounted + ae * L1 of known pixels
              + adversarial * (-mean D_local - global_weight * mean D_global)
  critics   = sum of both of mean D(completed) - mean D(real) + gradient_penalty * penalty

Images are in [-1, 1] in all of it. The box is a square of `model.local_size` around the hole, so
masks must be one hole of at most that size ('box' masks are); of other masks the middle is judged.

A step is one batch. With `critic_batches='fresh'` (the authors': five critic steps on five batches
to a step of the generator) the critics are stepped in each and the generator in every
`critic_steps`-th, so `critic_steps` times as many steps are one iteration of theirs. With 'same'
each step takes `critic_steps` critic steps on one batch, cheaper by as many forward passes of the
generator, and then one of the generator; the port trains so, with other batches.

The phase 'coarse', 0 steps as published, trains the first stage alone without critics
(PRETRAIN_COARSE_NETWORK in the code).

Differs from the paper:
  - the text gives neither the losses' weights nor the coarse result's factor: from the code;
  - the code, and so the default, adds the L1 of known pixels (`ae`), which the text leaves open.
Differs from the reference code:
  - each sample has its own hole;
  - the slope's square root has derivative 0 at 0, where the code's has none;
  - the first step of the generator follows one critic step, not five (fresh batches);
  - `gp_masked=False, l1_on='comp', ae_over_known=False` are the port's readings.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.layers import contextual_attention
from jaxinpaint.losses import adversarial, reconstruction
from jaxinpaint.recipe import (
  Phase,
  Recipe,
  Update,
)
from jaxinpaint.systems.deepfillv1 import networks

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
CRITICS = ('local_critic', 'global_critic')
WEIGHTS = ('l1', 'l1_coarse', 'ae', 'adversarial', 'global_weight', 'gradient_penalty')


def default_config() -> ConfigDict:
  """The networks and weights of the authors' code."""
  model = dict(
    width=32,
    use_attention=True,
    fuse=True,
    padding='same',
    resize='align_corners',
    mask_steps=2,
    key_norm='max',
    channel_order='rgb',  # ours; the authors' weights are imported with 'bgr'
    block_bytes=contextual_attention.BLOCK_BYTES,  # ours: memory, changes no number
    critic='official',
    critic_width=64,
    image_size=256,  # that the critics are built for ...
    local_size=128,  # ... and of the box around the hole
  )
  loss = dict(
    l1=1.2,
    l1_coarse=1.2,  # factor of the coarse result's L1, in the hole and outside
    ae=1.2,
    adversarial=0.001,
    global_weight=1.0,
    gradient_penalty=10.0,
    gp_masked=True,  # the penalty's slope is that of pixels in the hole
    discount=0.9,  # per pixel from the box's border; 1: none
    l1_on='out',  # 'comp': of results pasted into the image
    ae_over_known=True,  # divide by the share of known pixels
    critic_batches='fresh',  # or 'same'; see the module's text
    critic_steps=5,
  )
  phases = dict(coarse=0, joint=-1)
  return ConfigDict(
    dict(system='deepfillv1', dtype='float32', model=model, loss=loss, phases=phases)
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks in place and shortens the phases; of the second, two generator steps."""
  config.model.update(dict(width=8, critic_width=8, image_size=64, local_size=32))
  config.loss.critic_steps = 2
  config.phases.update(dict(coarse=2, joint=3))
  config.training.steps = 5


def make(config: ConfigDict) -> Recipe:
  """The recipe of `config`.

  Raises:
    ValueError: fields and values that make no sense, by name.
  """
  _check(config)
  model, loss = config.model.to_dict(), config.loss
  critics = networks.critics(
    model.pop('critic'), model.pop('critic_width'), model['channel_order'], DTYPES[config.dtype]
  )
  sizes = {'global_critic': model.pop('image_size'), 'local_critic': model.pop('local_size')}
  generator = networks.Generator(**model, dtype=DTYPES[config.dtype])
  if not loss.adversarial:
    critics = {}

  def init(rng, batch):
    rngs = jax.random.split(rng, 3)
    image = jnp.zeros((1, *batch['image'].shape[1:]))
    params = {'generator': generator.init(rngs[0], image, image[..., :1])['params']}
    for (name, critic), key in zip(critics.items(), rngs[1:], strict=False):
      size = sizes[name]
      params[name] = critic.init(key, jnp.zeros((1, size, size, 3)))['params']
    return params, {}

  def forward(params, stats, constants, batch, rng, *, coarse_only=False):
    found = generator.apply(
      {'params': params['generator']},
      batch['image'],
      batch['mask'],
      train=True,
      coarse_only=coarse_only,
    )
    return {name: found[name] for name in ('coarse', 'out')}, {}

  def output(params, stats, constants, image, mask, rng):
    found = generator.apply({'params': params['generator']}, image, mask)
    return found['out']

  def pictures(params, stats, constants, image, mask, rng):
    found = generator.apply({'params': params['generator']}, image, mask)
    drawn = {'coarse': arrays.compose(found['coarse'], image, mask)}
    if model['use_attention']:
      size = image.shape[1:3]
      drawn['attention'] = contextual_attention.offset_picture(found['index'], *size)
    return drawn

  size = sizes['local_critic']
  fresh = loss.critic_batches == 'fresh'
  generator_update = Update(
    'generator',
    ('generator',),
    _generator_loss(loss, critics, sizes, coarse_only=False),
    'generator',
    every=loss.critic_steps if fresh and critics else 1,
  )
  joint: tuple[Update, ...] = (generator_update,)
  if critics:
    exact = networks.critics(
      config.model.critic, config.model.critic_width, config.model.channel_order
    )
    critic_loss = _critic_loss(loss, critics, exact, size)
    repeat = 1 if fresh else loss.critic_steps
    joint = (Update('critic', CRITICS, critic_loss, 'critic', repeat=repeat), *joint)
  phases = []
  if config.phases.coarse:
    coarse_loss = _generator_loss(loss, {}, sizes, coarse_only=True)
    update = Update('coarse', ('generator',), coarse_loss, 'generator')
    alone = functools.partial(forward, coarse_only=True)
    phases.append(Phase('coarse', config.phases.coarse, alone, (update,)))
  if config.phases.joint:
    phases.append(Phase('joint', config.phases.joint, forward, joint))
  return Recipe(
    networks=('generator', *critics),
    init=init,
    phases=tuple(phases),
    output=output,
    multiple=networks.MULTIPLE,
    min_side=networks.MIN_SIDE,
    pictures=pictures,
  )


def hole_corner(mask: jax.Array, size: int) -> jax.Array:
  """Where the square of `size` around the hole begins.

  Its middle is that of the hole's bounding box, as far as the image allows. So a box mask that was
  shrunk by as much on opposite sides gives its original box.

  Args:
    mask: [B,H,W,1], 1 = hole; without any, the image's middle is taken.
    size: of the square.

  Returns:
    i32[B,2], row and column.
  """
  corner = []
  for axis in (1, 2):
    n = mask.shape[axis]
    line = (mask > 0).any(axis=(3 - axis, 3))
    found = line.any(-1)
    first = jnp.where(found, jnp.argmax(line, -1), 0)
    end = jnp.where(found, n - jnp.argmax(line[:, ::-1], -1), n)
    corner.append(jnp.clip((first + end - size) // 2, 0, n - size))
  return jnp.stack(corner, -1).astype(jnp.int32)


def crop(x: jax.Array, corner: jax.Array, size: int) -> jax.Array:
  """[B,H,W,C] -> [B,size,size,C], of each sample the square that begins at its corner i32[B,2]."""
  one = lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], 0), (size, size, x.shape[-1]))
  return jax.vmap(one)(x, corner)


def _check_size(image: jax.Array, sizes: dict[str, int], critics: Any) -> None:
  height, width = image.shape[1:3]
  side, local = sizes['global_critic'], sizes['local_critic']
  if critics and (height, width) != (side, side):
    raise ValueError(
      f'the critics are built for images of {side} x {side}, the batch has {height} x {width}: set '
      f'config.model.image_size to config.data.size (and model.local_size to half of it)'
    )
  if min(height, width) < local:
    raise ValueError(f'config.model.local_size {local} exceeds the images, {height} x {width}')


def _generator_loss(loss: ConfigDict, critics: Any, sizes: dict[str, int], *, coarse_only: bool):
  """The generator's update; the first stage's terms alone with `coarse_only`."""
  stages = (
    (('coarse', loss.l1_coarse),) if coarse_only else (('coarse', loss.l1_coarse), ('out', 1))
  )
  size = sizes['local_critic']

  def generator_loss(params, stats, constants, outputs, batch, rng):
    image, mask = batch['image'], batch['mask']
    _check_size(image, sizes, critics)
    known = 1 - mask
    corner = hole_corner(mask, size)
    patch = lambda x: crop(x, corner, size)
    # Twice the error in [0, 1] is that in [-1, 1]. Without known pixels the term is 0.
    share = jnp.maximum(known.mean(), 1 / known.size) if loss.ae_over_known else 1.0
    metrics = {}
    for name, factor in stages:
      out = outputs[name]
      if loss.l1:
        shown = arrays.compose(out, image, mask) if loss.l1_on == 'comp' else out
        value = reconstruction.discounted_l1(patch(shown), patch(image), loss.discount)
        metrics[f'l1_{name}'] = 2 * loss.l1 * factor * value
      if loss.ae:
        value = reconstruction.l1(out, image, known) / share
        metrics[f'ae_{name}'] = 2 * loss.ae * factor * value
    if critics:
      fake = arrays.compose(outputs['out'], image, mask)
      for name, x, weight in (
        ('local_critic', patch(fake), 1.0),
        ('global_critic', fake, loss.global_weight),
      ):
        scores = critics[name].apply({'params': params[name]}, x)
        value = adversarial.wasserstein.generator(scores)
        metrics[f'adversarial_{name.partition("_")[0]}'] = loss.adversarial * weight * value
    total = sum(metrics.values())
    return total, {'metrics': {**metrics, 'total': total}}

  return generator_loss


def _critic_loss(loss: ConfigDict, critics: Any, exact: Any, size: int):
  """Both critics' update; `exact`: the same networks in float32, for the gradient penalty."""

  def critic_loss(params, stats, constants, outputs, batch, rng):
    image, mask = batch['image'], batch['mask']
    fake = jax.lax.stop_gradient(arrays.compose(outputs['out'], image, mask))
    corner = hole_corner(mask, size)
    patch = lambda x: crop(x, corner, size)
    metrics = {}
    rngs = jax.random.split(rng)
    for name, real, made, hole, key in (
      ('local_critic', patch(image), patch(fake), patch(mask), rngs[0]),
      ('global_critic', image, fake, mask, rngs[1]),
    ):
      short, variables = name.partition('_')[0], {'params': params[name]}
      # Each real image beside its fake: one after the other, a batch that is split over devices
      # would have to move.
      both = jnp.stack([real, made], 1)
      scores = critics[name].apply(variables, both.reshape(-1, *real.shape[1:]))
      scores = scores.reshape(len(real), 2, *scores.shape[1:])
      terms = adversarial.wasserstein.discriminator(scores[:, 0], scores[:, 1])
      metrics[f'wasserstein_{short}'] = sum(terms)
      if loss.gradient_penalty:
        # The gradient in [-1, 1], which is the networks' own range, is half that in [0, 1].
        judge = lambda x, name=name, variables=variables: exact[name].apply(variables, (x + 1) / 2)
        penalty, slopes = adversarial.gradient_penalty(
          judge, real * 2 - 1, made * 2 - 1, key, mask=hole if loss.gp_masked else None
        )
        metrics[f'penalty_{short}'] = loss.gradient_penalty * penalty
        metrics[f'slope_{short}'] = slopes.mean()
    total = sum(v for k, v in metrics.items() if not k.startswith('slope'))
    return total, {'metrics': {**metrics, 'total': total}}

  return critic_loss


def _check(config: ConfigDict) -> None:
  """Raises ValueError for what `make` could only fail on later, or train nonsense with."""
  known = default_config()
  for section in ('model', 'loss', 'phases'):
    got, want = set(config[section]), set(known[section])
    if got != want:
      raise ValueError(
        f'config.{section}: unknown {sorted(got - want) or "none"}, missing '
        f'{sorted(want - got) or "none"}; it has: {", ".join(sorted(want))}'
      )
  model, loss, phases = config.model, config.loss, config.phases
  choices = {
    'dtype': (config.dtype, DTYPES),
    'model.padding': (model.padding, ('same', 'symmetric')),
    'model.resize': (model.resize, ('align_corners', 'floor')),
    'model.mask_steps': (model.mask_steps, (1, 2)),
    'model.key_norm': (model.key_norm, ('max', 'sum')),
    'model.channel_order': (model.channel_order, ('rgb', 'bgr')),
    'model.critic': (model.critic, ('official', 'port')),
    'loss.l1_on': (loss.l1_on, ('out', 'comp')),
    'loss.critic_batches': (loss.critic_batches, ('fresh', 'same')),
  }
  for name, (value, allowed) in choices.items():
    if value not in allowed:
      raise ValueError(f'config.{name} {value!r} must be one of: {", ".join(map(repr, allowed))}')
  for name in WEIGHTS:
    weight = loss[name]
    if isinstance(weight, bool) or not isinstance(weight, int | float):
      raise ValueError(f'config.loss.{name} {weight!r} must be a number (a weight; 0: not built)')
    if weight < 0 or not math.isfinite(weight):
      raise ValueError(f'config.loss.{name} {weight!r} must be finite and >= 0 (0: not built)')
  if not (loss.l1 or loss.ae or loss.adversarial):
    raise ValueError('config.loss: l1, ae and adversarial are 0: nothing to train')
  if not 0 < loss.discount <= 1:
    raise ValueError(f'config.loss.discount {loss.discount!r} must be in (0, 1] (1: no discount)')
  counts = {f'model.{n}': model[n] for n in ('width', 'critic_width', 'image_size', 'local_size')}
  for name, value in {**counts, 'loss.critic_steps': loss.critic_steps}.items():
    if not isinstance(value, int) or value < 1:
      raise ValueError(f'config.{name} {value!r} must be an integer of at least 1')
  if model.local_size > model.image_size:
    raise ValueError(
      f'config.model.local_size {model.local_size} exceeds model.image_size {model.image_size}'
    )
  if phases.coarse < 0 or phases.joint < -1 or not (phases.coarse or phases.joint):
    raise ValueError(
      f'config.phases coarse={phases.coarse}, joint={phases.joint}: coarse must be >= 0, joint '
      '>= -1 (to the end), and not both 0'
    )
