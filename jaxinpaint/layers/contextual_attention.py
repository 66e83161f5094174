"""Contextual attention: each patch of a feature map is rebuilt from patches of known background.

Yu, Lin, Yang, Shen, Lu, Huang: "Generative Image Inpainting with Contextual Attention", CVPR 2018,
section 4, https://arxiv.org/abs/1801.07892. Foreground patches (3 x 3 of the map at half its size)
are compared with all background patches, scores are propagated along both axes ("fuse"), and the
softmax of the scores mixes 4 x 4 background patches of the full map, which overlap by half.

  valid = valid_keys(reduce_mask(mask, h // 2, w // 2))
  y, index = contextual_attention(f, b, valid)

Where the paper leaves something open, this follows the authors' code, quirks included:
  - foreground patches are not normalised, so the softmax sharpens with their norm;
  - a patch that touches the hole gets the score 0, not minus infinity, and its weight is set to 0
    after the softmax: weights sum to less than 1 where nothing matches well;
  - the result is divided by 4, the number of patches that overlap, also at the border, where fewer
    overlap: it is darker there;
  - propagation runs over flattened positions, so that the end of a row continues in the next one;
  - known positions are rebuilt as well.

Every sample has its own mask here (published ports use the first one's for the whole batch). All
products are matrix products. The score matrix, [H*W/4, H*W/4] for each image, is held only for a
block of rows of queries at a time; `block_bytes` limits its size and does not change the result.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinpaint.layers import products

Resize = Literal['align_corners', 'floor']
KeyNorm = Literal['max', 'sum']
_EPS = 1e-4
BLOCK_BYTES = 2**27


def reduce_nearest(x: jax.Array, height: int, width: int, resize: Resize) -> jax.Array:
  """[B,H,W,C] -> [B,height,width,C] by picking pixels.

  Args:
    x: the map to reduce.
    height: rows of the result.
    width: columns of the result.
    resize: 'align_corners': round(i * (n - 1) / (m - 1)), as TensorFlow 1 does with that flag;
      'floor': floor(i * n / m).

  Raises:
    ValueError: unknown `resize`.
  """
  if resize == 'align_corners':
    # TensorFlow computes in float32 and rounds halves up.
    pick = lambda n, m: np.floor(
      np.arange(m, dtype=np.float32) * np.float32((n - 1) / max(m - 1, 1)) + np.float32(0.5)
    ).astype(np.int32)
  elif resize == 'floor':
    pick = lambda n, m: np.arange(m) * n // m
  else:
    raise ValueError(f"resize {resize!r} must be 'align_corners' or 'floor'")
  rows, columns = (pick(n, m) for n, m in zip(x.shape[1:3], (height, width), strict=True))
  return x[:, rows][:, :, columns]


def reduce_mask(
  mask: jax.Array,
  height: int,
  width: int,
  *,
  resize: Resize = 'align_corners',
  steps: Literal[1, 2] = 2,
) -> jax.Array:
  """The image's mask at the size of the keys.

  Args:
    mask: f32[B,H,W,1], 1 = hole.
    height: of the keys, half that of the feature map.
    width: of the keys.
    resize: as in `reduce_nearest`.
    steps: 2: first to the feature map's size, then to half of it (the authors' code); 1: at once
      (published ports). The two differ with aligned corners, on some sizes.

  Returns:
    f32[B,height,width,1].
  """
  if steps not in (1, 2):
    raise ValueError(f'mask_steps {steps!r} must be 1 or 2')
  if steps == 2:
    mask = reduce_nearest(mask, 2 * height, 2 * width, resize)
  return reduce_nearest(mask, height, width, resize)


def valid_keys(mask: jax.Array, size: int = 3) -> jax.Array:
  """f32[B,h*w]: 1 where the patch of a mask [B,h,w,1], size x size, is free of the hole.

  Outside the image counts as known.
  """
  touched = lax.reduce_window(
    mask.astype(jnp.float32), -jnp.inf, lax.max, (1, size, size, 1), (1, 1, 1, 1), 'SAME'
  )
  return (touched <= 0).astype(jnp.float32).reshape(mask.shape[0], -1)


def contextual_attention(
  f: jax.Array,
  b: jax.Array,
  valid: jax.Array,
  *,
  fuse: bool = True,
  scale: float = 10.0,
  resize: Resize = 'align_corners',
  key_norm: KeyNorm = 'max',
  block_bytes: int = BLOCK_BYTES,
) -> tuple[jax.Array, jax.Array]:
  """Rebuilds the foreground `f` from patches of the background `b`.

  Args:
    f: [B,H,W,C], H and W even.
    b: [B,H,W,C].
    valid: f32[B or 1, H/2 * W/2], 1: the background patch there may be used (`valid_keys`).
    fuse: propagate scores.
    scale: of the scores before the softmax.
    resize: how f and b are halved, as in `reduce_nearest`.
    key_norm: background patches w are divided by max(|w|, 1e-4) ('max', the authors' code) or by
      sqrt(sum(w^2 + 1e-4)) ('sum', a published port).
    block_bytes: limit of the scores held at once, for the whole batch. If all of them need more,
      blocks are computed one after the other, and again in the backward pass.

  Returns:
    [B,H,W,C] in f's dtype, and i32[B,H/2,W/2]: for each position the flat index of the background
    patch with the largest weight.

  Raises:
    ValueError: odd sides, or shapes that do not fit together.
  """
  _check(f, b, valid)
  height, width = f.shape[1] // 2, f.shape[2] // 2
  queries, keys = _queries_and_keys(f, b, resize, key_norm, fuse)
  values = _value_patches(b)
  valid = jnp.broadcast_to(valid, (f.shape[0], height * width))

  def of_block(strips, keys, values, first):
    weights = _weights(strips, keys, valid, fuse, scale, (height, width), first)
    weights *= valid[:, None, None]
    mixed = jnp.einsum('bhwk,bkv->bhwv', weights.astype(f.dtype), values)
    return mixed, jnp.argmax(weights, -1).astype(jnp.int32)

  halo = queries.shape[1] - height
  of_row = 4 * f.shape[0] * queries.shape[2] * height * width
  rows = max(1, min(height, block_bytes // of_row - halo))
  if rows == height:
    patches, index = of_block(queries, keys, values, 0)
  else:
    blocks = -(-height // rows)
    more = ((0, 0), (0, blocks * rows - height), (0, 0), (0, 0))
    queries = jnp.pad(queries, more)
    # Without the checkpoint the backward pass would keep the scores of all blocks.
    run = jax.checkpoint(of_block)
    part = lambda i: lax.dynamic_slice_in_dim(queries, i * rows, rows + halo, 1)
    results = lax.map(lambda i: run(part(i), keys, values, i * rows), jnp.arange(blocks))
    join = lambda x: jnp.moveaxis(x, 0, 1).reshape(f.shape[0], -1, *x.shape[3:])[:, :height]
    patches, index = join(results[0]), join(results[1])
  return (_overlap_patches(patches) / 4).astype(f.dtype), index


def offset_picture(index: jax.Array, height: int, width: int) -> jax.Array:
  """Where each position takes its content from: hue is the direction, saturation the distance.

  Positions that look at their own place are white. Red looks to the right, the hue turns
  clockwise with the direction; full saturation is the picture's diagonal.

  Args:
    index: i32[B,h,w] of `contextual_attention`.
    height: of the picture.
    width: of the picture.

  Returns:
    f32[B,height,width,3] in [0,1].
  """
  h, w = index.shape[1:]
  down = index // w - jnp.arange(h)[:, None]
  right = index % w - jnp.arange(w)
  # The square root keeps short offsets visible.
  saturation = jnp.sqrt(jnp.hypot(down / h, right / w) / np.sqrt(2.0))
  turn = jnp.arctan2(down.astype(jnp.float32), right.astype(jnp.float32)) / (2 * np.pi)
  hue = (turn[..., None] + jnp.array([0.0, 2 / 3, 1 / 3])) % 1.0
  wheel = jnp.clip(jnp.abs(6 * hue - 3) - 1, 0, 1)
  colors = 1 - saturation[..., None] * (1 - wheel)
  return reduce_nearest(colors, height, width, 'floor')


def _check(f, b, valid) -> None:
  height, width = f.shape[1:3]
  if height % 2 or width % 2:
    raise ValueError(f'contextual attention halves its maps: {height} x {width} must be even')
  if f.shape != b.shape:
    raise ValueError(f'foreground {f.shape} and background {b.shape} must have one shape')
  if valid.shape not in ((n, height * width // 4) for n in (1, f.shape[0])):
    raise ValueError(
      f'valid {valid.shape} must be [{f.shape[0]} or 1, {height * width // 4}] for maps of '
      f'{height} x {width}'
    )


def _queries_and_keys(f, b, resize, key_norm, fuse):
  """Strips of query patches [B,h(+2),w(+2),9C] (see `_with_halo`), keys [B,h*w,9C]."""
  size = (f.shape[1] // 2, f.shape[2] // 2)
  queries = _patches(reduce_nearest(f, *size, resize))
  keys = _patches(reduce_nearest(b, *size, resize))
  squares = jnp.square(keys.astype(jnp.float32))
  if key_norm == 'max':
    squared = jnp.maximum(squares.sum(-1, keepdims=True), _EPS**2)
  elif key_norm == 'sum':
    squared = (squares + _EPS).sum(-1, keepdims=True)
  else:
    raise ValueError(f"key_norm {key_norm!r} must be 'max' or 'sum'")
  keys = (keys * lax.rsqrt(squared)).astype(f.dtype)
  keys = keys.reshape(keys.shape[0], -1, keys.shape[-1])
  return (_with_halo(queries) if fuse else queries), keys


def _patches(x: jax.Array) -> jax.Array:
  """[B,H,W,C] -> [B,H,W,9C]: 3 x 3 around each position, zeros outside."""
  h, w = x.shape[1:3]
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  taps = [x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
  return jnp.concatenate(taps, -1)


def _value_patches(x: jax.Array) -> jax.Array:
  """[B,2h,2w,C] -> [B,h*w,16C]: 4 x 4 from (2i - 1, 2j - 1) on, zeros outside."""
  b, height, width, c = x.shape
  h, w = height // 2, width // 2
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(b, h + 1, 2, w + 1, 2, c)
  part = lambda i, j: x[:, i : i + h, :, j : j + w].transpose(0, 1, 3, 2, 4, 5)
  # Axes: taps of the patch are (i, row, j, column).
  patches = jnp.stack([jnp.stack([part(i, j) for j in range(2)], 4) for i in range(2)], 3)
  return patches.reshape(b, h * w, 16 * c)


def _overlap_patches(patches: jax.Array) -> jax.Array:
  """Adds [B,h,w,16C] up where they lie, the adjoint of `_value_patches`: [B,2h,2w,C] in f32."""
  b, h, w, n = patches.shape
  x = patches.astype(jnp.float32).reshape(b, h, w, 2, 2, 2, 2, n // 16)
  total = 0.0
  for i in range(2):
    for j in range(2):
      spread = ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0), (0, 0), (0, 0))
      total += jnp.pad(x[:, :, :, i, :, j], spread)
  total = total.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h + 2, 2 * w + 2, -1)
  return total[:, 1:-1, 1:-1]


def _with_halo(queries: jax.Array) -> jax.Array:
  """[B,h,w,D] -> [B,h+2,w+2,D], what the two propagations of rows 0 ... h-1 reach.

  Along a row, beyond its ends, the rows before and after go on. Above the first row there is the
  last one, moved right by one column, and below the last row the first one, moved left:
  so a column goes on in its neighbour.
  """
  b, h, w, d = queries.shape
  flat = jnp.pad(queries.reshape(b, h * w, d), ((0, 0), (2, 2), (0, 0)))
  at = lambda start, n: flat[:, start + 2 : start + 2 + n]
  before = at(-1, h * w).reshape(b, h, w, d)[:, :, :1]
  after = at(1, h * w).reshape(b, h, w, d)[:, :, -1:]
  rows = jnp.concatenate([before, queries, after], 2)
  above, below = at((h - 1) * w - 2, w + 2), at(0, w + 2)
  return jnp.concatenate([above[:, None], rows, below[:, None]], 1)


def _weights(strips, keys, valid, fuse, scale, size, first):
  """Softmax f32[B,rows,w,h*w] of the queries' rows from `first` on (with halo, if propagated)."""
  scores = products.einsum('bhwd,bkd->bhwk', strips, keys, strips.dtype, precision=None)
  if fuse:
    scores = _propagate(scores, *size, first)
  valid = valid[:, None, None]
  return jax.nn.softmax(scores * (valid * scale), -1)


def _propagate(scores: jax.Array, h: int, w: int, first: int | jax.Array) -> jax.Array:
  """f32[B,rows+2,w+2,h*w] -> f32[B,rows,w,h*w]: sums along diagonals, by rows and by columns.

  S1[q, k] = sum over d of S[q + d, k + d] for d = -1, 0, 1, q and k counted along rows; then the
  same of S1, counted along columns; 0 outside. What the authors' code writes as two convolutions
  with a 3 x 3 identity kernel over the score matrix.
  """
  b, rows, _, n = scores.shape
  zero = jnp.zeros((), scores.dtype)
  moved = lambda x, d: lax.pad(x, zero, ((0, 0, 0),) * 3 + ((-d, d, 0),))  # x[..., k + d]
  along = sum(moved(scores[:, :, 1 + d : 1 + d + w], d) for d in (-1, 0, 1))
  # The halo's rows hold one position that does not exist: before the first, after the last.
  row = first + jnp.arange(rows)[:, None]
  column = jnp.arange(w)
  outside = ((row == 0) & (column == 0)) | ((row == h + 1) & (column == w - 1))
  x = jnp.where(outside[..., None], 0.0, along).reshape(b, rows, w, h, w)
  # Counted along columns, the key after (h-1, j) is (0, j+1), and no key comes after the last.
  cut = lambda x, d: lax.pad(x, zero, ((0, 0, 0),) * 4 + ((-d, d, 0),))
  after = jnp.concatenate([x[..., 1:, :], cut(x[..., :1, :], 1)], -2)
  before = jnp.concatenate([cut(x[..., -1:, :], -1), x[..., :-1, :]], -2)
  return (x[:, 1:-1] + after[:, 2:] + before[:, :-2]).reshape(b, rows - 2, w, n)
