"""The shift layer: known features are copied into the hole, each to where it is expected most.

Yan, Li, Li, Zuo, Shan: "Shift-Net: Image Inpainting via Deep Feature Rearrangement", ECCV 2018,
https://arxiv.org/abs/1801.09392, section 3: the decoder's feature at a place in the hole chooses
the encoder's feature at a known place. The layer has no parameters.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers import blocks, placement

Form = Literal['plain', 'blocks']

PLAIN_ELEMENTS = 2**22  # up to this many cosines of one image are held at once
BLOCK_ELEMENTS = 2**20  # cosines in a block


def shift(
  former: jax.Array,
  latter: jax.Array,
  hole: jax.Array,
  others: tuple[jax.Array, jax.Array] | None = None,
  *,
  form: Form | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Fills the hole with features of known places.

    shifted[p] = latter[argmax over known q of cos(former[p], latter[q])] in the hole, 0 elsewhere

  The first of equal matches wins. The gradient flows into `latter` through the copies, and neither
  into the cosines nor into `former`.

  Args:
    former: [B,h,w,C], of the decoder.
    latter: [B,h,w,C], of the encoder.
    hole: [B,h,w,1], 1 = hole.
    others: more features to choose from, and their hole, of any size; they come after `latter`.
    form: of `nearest`.

  Returns:
    [B,h,w,C], and for each place i32[B,h,w] the number of the feature that is most like it, row by
    row, `others` included. Without any known feature: zeros.
  """
  b, h, w, c = former.shape
  flat = lambda x: x.reshape(b, -1, x.shape[-1])
  parts = [(latter, hole), *([others] if others else [])]
  values = jnp.concatenate([flat(x) for x, _ in parts], 1)
  known = jnp.concatenate([flat(m)[..., 0] < 1 for _, m in parts], 1)
  wanted = flat(hole)[..., 0] >= 1
  index, _ = nearest(flat(former), values, known, wanted, form=form)
  filled = wanted & known.any(1, keepdims=True)

  def copy(one):
    values, index, filled = one
    return jnp.where(filled[:, None], values[index], 0)

  shifted = placement.map_images(copy, (values, index, filled))
  return shifted.reshape(b, h, w, c), index.reshape(b, h, w)


def nearest(
  queries: jax.Array,
  keys: jax.Array,
  known: jax.Array,
  wanted: jax.Array,
  *,
  form: Form | None = None,
) -> tuple[jax.Array, jax.Array]:
  """For each query the known key with the largest cosine; no gradient flows through it.

  Args:
    queries: [B,N,C].
    keys: [B,M,C]; cosines with a vector of length 0 are 0.
    known: bool[B,M], which keys may be chosen.
    wanted: bool[B,N]; results of other queries may be left out (0).
    form: 'plain' holds all N*M cosines of an image; 'blocks' those of some queries at a time, and
      passes over blocks without a wanted query; None: chosen by their number.

  Returns:
    i32[B,N] and the largest cosine f32[B,N], -inf without a known key.

  Raises:
    ValueError: an unknown form.
  """
  if form not in (None, 'plain', 'blocks'):
    raise ValueError(f"form {form!r} must be 'plain' or 'blocks'")
  n, m = queries.shape[1], keys.shape[1]
  form = form or ('plain' if n * m <= PLAIN_ELEMENTS else 'blocks')
  queries, keys = (_directions(lax.stop_gradient(x)) for x in (queries, keys))

  def best(queries, keys, known):
    scores = jnp.einsum('qc,kc->qk', queries, keys, precision='highest')
    scores = jnp.where(known, scores, -jnp.inf)
    return jnp.argmax(scores, -1).astype(jnp.int32), scores.max(-1)

  def by_blocks(queries, keys, known, wanted):
    def block(one):
      queries, wanted = one
      zeros = lambda dtype: jnp.zeros(len(queries), dtype)
      nothing = lambda *_: (zeros(jnp.int32), zeros(jnp.float32))
      return lax.cond(wanted.any(), best, nothing, queries, keys, known)

    return blocks.map_rows(block, (queries, wanted), BLOCK_ELEMENTS // m)

  run = by_blocks if form == 'blocks' else lambda q, k, known, wanted: best(q, k, known)
  return placement.map_images(lambda one: run(*one), (queries, keys, known, wanted))


def _directions(x: jax.Array) -> jax.Array:
  """f32[...,C] of length 1, or 0."""
  x = x.astype(jnp.float32)
  square = jnp.square(x).sum(-1, keepdims=True)
  return x * jnp.where(square > 0, lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)
