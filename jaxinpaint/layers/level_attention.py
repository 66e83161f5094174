"""Attention between levels: scores of deep features fill the holes of shallow ones.

Zhang and Liu's face inpainting by latent feature reconstruction and attention: cells of a deep
level are compared, and the holes of a shallow level are filled with cells of that level, weighted
by the scores. After HiFill's contextual residual aggregation (Yi et al., CVPR 2020), without its
overlaps.
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers import blocks, placement, products

Form = Literal['plain', 'blocks']
KeyRule = Literal['known', 'clear']  # see `valid_keys`

PLAIN_ELEMENTS = 2**22  # up to this many scores of one image are held at once
BLOCK_ELEMENTS = 2**22  # scores in a block
_LEAST_LENGTH = 1e-4  # a patch is divided by its length, or by this if it is shorter


def pool_mask(mask: jax.Array, height: int, width: int) -> jax.Array:
  """f32[B,H,W,1] -> f32[B,height,width,1], 1 where any pixel of the cell is hole.

  Raises:
    ValueError: the grid does not divide the mask.
  """
  h, w = mask.shape[1:3]
  if h % height or w % width:
    raise ValueError(f'a mask of {h} x {w} has no cells on a grid of {height} x {width}')
  size = (h // height, w // width)
  return nn.max_pool(mask.astype(jnp.float32), size, size)


def valid_keys(cells: jax.Array, rule: KeyRule = 'known') -> jax.Array:
  """bool[B,N]: which cells may be used; none in an image that is hole in every cell.

  Args:
    cells: f32[B,h,w,1], 1 = hole, of `pool_mask`.
    rule: 'known': cells without a hole, as the paper says. 'clear': cells whose 3x3 neighbourhood
      has no hole (HiFill's rule), so that no key has seen the hole; in an image without such cells
      as 'known'. Of a coarse level few are left.

  Raises:
    ValueError: an unknown rule.
  """
  if rule not in ('known', 'clear'):
    raise ValueError(f"rule {rule!r} of the keys must be 'known' or 'clear'")
  b = cells.shape[0]
  own = cells.reshape(b, -1) == 0
  if rule == 'known':
    return own
  near = nn.max_pool(cells, (3, 3), (1, 1), 'SAME').reshape(b, -1) == 0
  return jnp.where(near.any(1, keepdims=True), near, own)


def scores(
  features: jax.Array, mask: jax.Array, scale: float = 10.0, rule: KeyRule = 'known'
) -> jax.Array:
  """f32[B,N,N], [query, key]: softmax over valid keys of scale * cosine of 3x3 patches.

  Args:
    features: [B,h,w,C], N = h * w.
    mask: f32[B,H,W,1], 1 = hole, H and W multiples of h and w.
    scale: of the cosines.
    rule: which cells are keys.
  """
  keys, valid = _keys(features, mask, rule)
  return jax.vmap(functools.partial(_softmax, scale=scale, dtype=features.dtype))(keys, keys, valid)


def fill(
  features: jax.Array,
  shallow: jax.Array,
  mask: jax.Array,
  *,
  scale: float = 10.0,
  rule: KeyRule = 'known',
  form: Form | None = None,
) -> jax.Array:
  """Fills the holes of `shallow`: each cell is the mean of its cells, weighted by the scores.

  The products are of the arrays' own type (`products.einsum`); all else is float32.

  Args:
    features: [B,h,w,C] of a deep level.
    shallow: [B,rh,rw,D] of a shallow level: each place of the grid has a cell of r x r.
    mask: f32[B,H,W,1], 1 = hole, at any multiple of the shallow size.
    scale: of the cosines; larger values let fewer cells count.
    rule: which cells are keys.
    form: 'plain' holds all N^2 scores of an image, 'blocks' those of some queries at a time, and
      computes them again for the gradient; None: chosen by their number.

  Returns:
    f32[B,rh,rw,D], equal to `shallow` outside the (pooled) hole. If every cell is hole: 0.

  Raises:
    ValueError: sizes that do not divide each other, an unknown form or rule.
  """
  b, h, w, _ = features.shape
  height, width, d = shallow.shape[1:]
  if height % h or width % w or height // h != width // w:
    raise ValueError(f'{height} x {width} features have no square cells on a {h} x {w} grid')
  if form not in (None, 'plain', 'blocks'):
    raise ValueError(f"form {form!r} must be 'plain' or 'blocks'")
  r, dtype = height // h, jnp.result_type(features, shallow)
  shallow = shallow.astype(jnp.float32)
  cells = shallow.reshape(b, h, r, w, r, d).transpose(0, 1, 3, 2, 4, 5).reshape(b, h * w, -1)
  keys, valid = _keys(features, mask, rule)
  form = form or ('plain' if (h * w) ** 2 <= PLAIN_ELEMENTS else 'blocks')
  run = functools.partial(
    _attend if form == 'plain' else _attend_by_blocks, scale=scale, dtype=dtype
  )
  filled = placement.map_images(lambda one: run(*one), (keys, valid, cells))
  filled = filled.reshape(b, h, w, r, r, d).transpose(0, 1, 3, 2, 4, 5).reshape(shallow.shape)
  hole = pool_mask(mask, height, width)
  return shallow * (1 - hole) + filled * hole


def _keys(features: jax.Array, mask: jax.Array, rule: KeyRule) -> tuple[jax.Array, jax.Array]:
  """Normalised 3x3 patches f32[B,N,9C], zeros beyond the border, and bool[B,N]."""
  x = features.astype(jnp.float32)
  b, h, w, _ = x.shape
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  patches = jnp.stack([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], 3)
  patches = patches.reshape(b, h * w, -1)
  square = jnp.square(patches).sum(-1, keepdims=True)
  # The square root has no derivative at 0, where the length is not used.
  above = square > _LEAST_LENGTH**2
  patches *= jnp.where(above, lax.rsqrt(jnp.where(above, square, 1.0)), 1 / _LEAST_LENGTH)
  return patches, valid_keys(pool_mask(mask, h, w), rule)


def _softmax(
  queries: jax.Array, keys: jax.Array, valid: jax.Array, *, scale: float, dtype: Any
) -> jax.Array:
  cosines = products.einsum('qc,kc->qk', queries, keys, dtype)
  # Without any valid key the row is uniform, and then zero.
  logits = jnp.where(valid | ~valid.any(), scale * cosines, -jnp.inf)
  return jnp.where(valid, jax.nn.softmax(logits, axis=-1), 0.0)


def _attend(
  keys: jax.Array, valid: jax.Array, cells: jax.Array, *, scale: float, dtype: Any
) -> jax.Array:
  weights = _softmax(keys, keys, valid, scale=scale, dtype=dtype)
  return products.einsum('qk,kd->qd', weights, cells, dtype)


def _attend_by_blocks(
  keys: jax.Array, valid: jax.Array, cells: jax.Array, *, scale: float, dtype: Any
) -> jax.Array:
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def one(queries):
    weights = _softmax(queries, keys, valid, scale=scale, dtype=dtype)
    return products.einsum('qk,kd->qd', weights, cells, dtype)

  return blocks.map_rows(one, keys, BLOCK_ELEMENTS // len(keys))
