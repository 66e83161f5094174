"""The contextual loss: every feature of the target should be matched somewhere in the output.

Mechrez, Talmi, Zelnik-Manor: "The Contextual Loss for Image Transformation with Non-Aligned Data",
ECCV 2018, https://arxiv.org/abs/1803.02077. Between features x_i and y_j, i and j running over the
positions of one image, centred on the mean of y:

  d_ij = (1 - cos(x_i, y_j)) / 2              (section 3, with the code's factor of a half)
  d~_ij = d_ij / (min_k d_ik + eps)           (eq. 2)
  w_ij = exp((1 - d~_ij) / h)                 (eq. 3)
  cx_ij = w_ij / sum_k w_ik                   (eq. 4)
  CX(x, y) = mean_j max_i cx_ij               (eq. 1)

Differs from the authors' code: each image has its own centre, as in the paper, and not the whole
batch one; positions are not sampled at random where there are many.

An image of N positions has N x N of each of these. `similarity` holds them all at once if they are
few, otherwise only some rows at a time. A row's minimum and sum lie within the row, and the maxima
over rows are carried from block to block, so both forms compute the same numbers. In both,
gradients go through the first of equal maxima.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers import placement

Form = Literal['plain', 'blocks']
Centre = Literal['image', 'place']

BLOCK_ELEMENTS = 2**20  # scores in a block: 4 MiB
# Up to this many scores of a batch are held at once. For more, blocks are faster too, as
# benchmarks.layers measured on a CPU.
PLAIN_ELEMENTS = 2**20
_TINY = 1e-12  # shortest length that a feature is divided by


def contextual_loss(
  pred: jax.Array,
  target: jax.Array,
  *,
  h: float = 0.5,
  eps: float = 1e-5,
  form: Form | None = None,
) -> jax.Array:
  """f32[]: mean over the batch of -log CX(pred, target); see `similarity`."""
  return -jnp.log(similarity(pred, target, h=h, eps=eps, form=form)).mean()


def similarity(
  x: jax.Array,
  y: jax.Array,
  *,
  h: float = 0.5,
  eps: float = 1e-5,
  form: Form | None = None,
  centre: Centre = 'image',
) -> jax.Array:
  """f32[B] in (0, 1]: CX(x, y) of each image; 1 if every y_j is matched by one x_i alone.

  Args:
    x: [B,h,w,C] features whose rows are normalised, the generated ones in the paper.
    y: [B,h',w',C] features to match, the target's.
    h: the bandwidth; smaller is more selective.
    eps: added to the smallest distance of a row.
    form: 'plain' or 'blocks'; None: chosen by the number of scores.
    centre: what is subtracted of both before they are compared: 'image', the mean feature of y, or
      'place', at each place the mean over the channels of y there (the ID-MRF loss).

  Raises:
    ValueError: shapes that do not fit together, h or eps not positive, an unknown form or centre.
  """
  if x.ndim != 4 or y.ndim != 4 or (x.shape[0], x.shape[3]) != (y.shape[0], y.shape[3]):
    raise ValueError(f'features {x.shape} and {y.shape} must be [B,h,w,C] with the same B and C')
  if h <= 0 or eps <= 0:
    raise ValueError(f'h {h} and eps {eps} of the contextual loss must be positive')
  if centre not in ('image', 'place'):
    raise ValueError(f"centre {centre!r} must be 'image' or 'place'")
  if centre == 'place' and x.shape != y.shape:
    raise ValueError(f'features {x.shape} and {y.shape} must have the same places')
  x, y = (z.reshape(z.shape[0], -1, z.shape[-1]).astype(jnp.float32) for z in (x, y))
  middle = y.mean(1 if centre == 'image' else -1, keepdims=True)
  x, y = _normalized(x - middle), _normalized(y - middle)
  scores = x.shape[0] * x.shape[1] * y.shape[1]
  form = form or ('plain' if scores <= PLAIN_ELEMENTS else 'blocks')
  if form == 'plain':
    return _first_max(_rows(x, y, h, eps)).mean(-1)
  if form != 'blocks':
    raise ValueError(f"form {form!r} must be 'plain' or 'blocks'")
  return placement.map_images(lambda pair: _blocks(*pair, h, eps), (x, y))


def _normalized(x: jax.Array) -> jax.Array:
  """x over its length in the last axis; a zero stays zero, and its gradient is zero too."""
  square = jnp.square(x).sum(-1, keepdims=True)
  some = square > _TINY**2
  return jnp.where(some, x * lax.rsqrt(jnp.where(some, square, 1.0)), 0.0)


def _rows(x: jax.Array, y: jax.Array, h: float, eps: float) -> jax.Array:
  """cx of [...,n,C] and [...,m,C]: [...,n,m]; each row sums to 1."""
  cosine = jnp.einsum('...ic,...jc->...ij', x, y, precision='highest')
  distance = (1 - cosine) / 2
  least = distance.min(-1, keepdims=True)
  return jax.nn.softmax(distance * (-1 / (h * (least + eps))), axis=-1)


def _first_max(scores: jax.Array) -> jax.Array:
  """[...,n,m] -> [...,m], the largest of each column; gradients go to the first of equals."""
  index = jnp.argmax(scores, axis=-2, keepdims=True)
  return jnp.take_along_axis(scores, index, axis=-2)[..., 0, :]


def _blocks(x: jax.Array, y: jax.Array, h: float, eps: float) -> jax.Array:
  """CX of one image, [n,C] and [m,C] normalised, in blocks of rows.

  The blocks are computed again for the gradient.
  """
  n, m = x.shape[0], y.shape[0]
  size = max(1, min(n, BLOCK_ELEMENTS // m))
  count = -(-n // size)
  size = -(-n // count)
  padded = jnp.pad(x, ((0, count * size - n), (0, 0))).reshape(count, size, -1)
  valid = (jnp.arange(count * size) < n).reshape(count, size, 1)

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def step(best, block):
    rows, valid = block
    found = _first_max(jnp.where(valid, _rows(rows, y, h, eps), 0.0))
    return jnp.where(found > best, found, best), None

  best, _ = lax.scan(step, jnp.full((m,), -1.0), (padded, valid))
  return best.mean()
