"""Large pictures, refined: what fills a hole at full size is fitted to what fills it at half size.

Kulshreshtha, Pugh, Jiddi: "Feature Refinement to Improve High Resolution Image Inpainting", 2022,
https://arxiv.org/abs/2206.13644. A network that was trained on crops of 256 pixels completes
structures at that size better than at four times it. So the smallest picture of a pyramid is
completed first. At each larger scale the features in front of the generator's blocks are optimised
by some steps of Adam, so that the output, reduced, is near the completion of the scale below in the
hole, and near the picture at known pixels.

Scales, iterations, rate and the smallest side are those of LaMa's code; the form of its loss was
not read.

Differs from the paper:
  - pictures are reduced by means of 2x2 known pixels, outputs by means of 2x2 pixels, and not by a
    Gaussian filter and bilinear resizing;
  - pixels near the rim of the hole are not compared (`BORDER`);
  - there is no limit to the pixels: `max_side` of inference is one.
"""

import math

import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import avg_pool
from jaxinpaint.systems.lama.networks import Generator, multiple

MIN_SIDE = 512  # the shorter side of the smallest picture is about so long
LEAST_SIDE = math.ceil(2**0.5 * MIN_SIDE)  # pictures with a shorter side have one scale alone
MAX_SCALES = 3
ITERATIONS = 15
LEARNING_RATE = 0.002
BORDER = 7  # pixels of the smaller hole that are not compared, next to known ones


def scales(height: int, width: int, min_side: int = MIN_SIDE) -> int:
  """How many pictures the pyramid has; 1: there is nothing to refine."""
  halvings = round(max(0.0, math.log2(min(height, width) / min_side)))
  return min(1 + halvings, MAX_SCALES)


def refine(
  generator: Generator,
  variables: dict,
  image: jax.Array,
  mask: jax.Array,
  *,
  min_side: int = MIN_SIDE,
  iterations: int = ITERATIONS,
) -> tuple[jax.Array, list[jax.Array]]:
  """The refined output, and how the optimisation went.

  Args:
    generator: of LaMa.
    variables: of it.
    image: f32[B,H,W,3] in [0,1], as the generator takes it.
    mask: f32[B,H,W,1], 1 = hole.
    min_side: of the smallest picture.
    iterations: at each scale but the smallest.

  Returns:
    f32[B,H,W,3] in [0,1], known pixels not pasted, and for each scale but the smallest the loss of
    each image before every iteration, f32[iterations,B].
  """
  pyramid = [(image, (mask > 0).astype(jnp.float32))]
  for _ in range(1, scales(*image.shape[1:3], min_side)):
    pyramid.append(_half(*pyramid[-1]))
  losses, below = [], None
  for image, mask in reversed(pyramid):
    fitted, hole = (_fit(x, multiple(generator.local_fourier)) for x in (image, mask))
    if below is None:
      out = generator.apply(variables, fitted, hole)['out']
    else:
      out, history = _optimised(generator, variables, fitted, hole, *below, iterations)
      losses.append(history)
    out = out[:, : image.shape[1], : image.shape[2]]
    below = arrays.compose(out, image, mask), mask
  return out, losses


def _half(image: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Means of the known pixels of 2x2, and a hole where one of the four is one."""
  known = avg_pool(1 - mask)
  small = avg_pool(image * (1 - mask)) / jnp.maximum(known, 0.25)
  return small, (known < 1).astype(jnp.float32)


def _fit(x: jax.Array, multiple: int) -> jax.Array:
  """Padded at the bottom and right to a multiple."""
  rows, columns = arrays.padded_size(*x.shape[1:3], multiple)
  widths = ((0, 0), (0, rows - x.shape[1]), (0, columns - x.shape[2]), (0, 0))
  return jnp.pad(x, widths, mode='symmetric')


def _optimised(
  generator: Generator,
  variables: dict,
  image: jax.Array,
  mask: jax.Array,
  wanted: jax.Array,
  small_mask: jax.Array,
  iterations: int,
) -> tuple[jax.Array, jax.Array]:
  """(output, losses): features are fitted to `wanted`, the completion of the scale below."""
  import optax  # here, so that running a system does not load the libraries of training

  of = lambda part: {kind: tree[part] for kind, tree in variables.items()}
  rear = generator.rear.clone(remat=True)
  paint = lambda features: rear.apply(of('rear'), features)['out']
  height, width = wanted.shape[1:3]
  compared = _eroded(small_mask)

  def loss_of(features):
    out = paint(features)
    reduced = avg_pool(out)[:, :height, :width]
    each = _mean_over(out - image, 1 - mask) + _mean_over(reduced - wanted, compared)
    return each.sum(), each  # images do not share features, so each is optimised alone

  optimizer = optax.adam(LEARNING_RATE)

  def iterate(state, _):
    features, moments = state
    gradient, each = jax.grad(loss_of, has_aux=True)(features)
    change, moments = optimizer.update(gradient, moments)
    return (optax.apply_updates(features, change), moments), each

  features = generator.front.apply(of('front'), image, mask)
  start = features, optimizer.init(features)
  (features, _), losses = jax.lax.scan(iterate, start, length=iterations)
  return paint(features), losses


def _mean_over(difference: jax.Array, region: jax.Array) -> jax.Array:
  """f32[B]: mean of |difference| over the region [B,H,W,1]; 0 where it is empty."""
  total = (jnp.abs(difference) * region).sum((1, 2, 3))
  return total / jnp.maximum(region.sum((1, 2, 3)) * difference.shape[-1], 1)


def _eroded(mask: jax.Array) -> jax.Array:
  """The hole without the pixels within `BORDER` of known ones."""
  side = 2 * BORDER + 1
  window = (1, side, side, 1)
  return jax.lax.reduce_window(mask, jnp.inf, jax.lax.min, window, (1, 1, 1, 1), 'SAME')
