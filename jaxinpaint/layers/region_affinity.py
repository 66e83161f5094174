"""Region affinity: every place is rebuilt from the patches that resemble it.

Guo, Yang, Huang: "Image Inpainting via Conditional Texture and Structure Dual Generation", ICCV
2021, section 3.3, https://arxiv.org/abs/2108.09760: the first half of the contextual feature
aggregation. Unlike contextual attention it treats holes and known places alike.

`transfer` is the general form: patches of one map are compared, and patches of a second map of
twice the size are mixed by these scores. It is also the attention transfer of PEN-Net (Zeng, Fu,
Chao, Guo: "Learning Pyramid-Context Encoder Network for High-Quality Image Inpainting", CVPR 2019,
https://arxiv.org/abs/1904.07475), whose scores of a deep level rebuild the next shallower one.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint import arrays
from jaxinpaint.layers import blocks, placement, products

Form = Literal['plain', 'blocks']

PLAIN_ELEMENTS = 2**24  # up to this many scores of one image are held at once
BLOCK_ELEMENTS = 2**22  # scores in a block
_LEAST_LENGTH = 1e-4  # a patch is divided by its length, or by this if it is shorter
_LEAST_WEIGHT = 1e-8  # of the softmax


def region_affinity(x: jax.Array, *, scale: float = 10.0, form: Form | None = None) -> jax.Array:
  """Each 3x3 patch of x at half size scores all others; their 4x4 patches of x are summed.

  That is `transfer` from x reduced bilinearly (corners aligned, as in the released code) to x.

  Args:
    x: [B,H,W,C]; H and W even.
    scale: as in `transfer`.
    form: likewise.

  Returns:
    f32[B,H,W,C].

  Raises:
    ValueError: an odd side, or an unknown form.
  """
  height, width = x.shape[1:3]
  if height % 2 or width % 2:
    raise ValueError(f'features of {height} x {width} must have even sides')
  exact = x.astype(jnp.float32)
  small = arrays.resize_bilinear(exact, height // 2, width // 2, align_corners=True)
  return transfer(small.astype(x.dtype), x, scale=scale, form=form)


def transfer(
  deep: jax.Array,
  shallow: jax.Array,
  valid: jax.Array | None = None,
  *,
  size: Literal[1, 3] = 3,
  scale: float = 10.0,
  form: Form | None = None,
) -> jax.Array:
  """Rebuilds `shallow` by the affinities of `deep`.

    score[q, k] = scale * <p_q, p_k / max(|p_k|, 1e-4)>
    out = overlapping sum over q of sum_k w[q, k] * v_k, divided by 4
    w[q, k] = max(softmax_k(score)[q, k], 1e-8)

  p are the patches of `deep`, zeros beyond the border; v are the 4x4 patches of `shallow`, two
  pixels apart. A key that is not valid has the score 0, takes part in the softmax, and has the
  weight 1e-8 after it. The products are of the arrays' own type (`products.einsum`); all else is
  float32.

  Args:
    deep: [B,h,w,D].
    shallow: [B,2h,2w,C].
    valid: f32[B,h*w] in {0, 1}, which patches may be used; None: all.
    size: of the patches p.
    scale: of the scores; larger values let fewer patches count.
    form: 'plain' holds all (h*w)^2 scores of an image, 'blocks' those of some queries at a time,
      and computes them again for the gradient; None: chosen by their number.

  Returns:
    f32[B,2h,2w,C].

  Raises:
    ValueError: `shallow` is not twice as large, or an unknown size or form.
  """
  b, h, w, _ = deep.shape
  if shallow.shape[1:3] != (2 * h, 2 * w):
    raise ValueError(f'shallow features {shallow.shape} must have twice the sides of {deep.shape}')
  if size not in (1, 3):
    raise ValueError(f'size {size!r} of the patches must be 1 or 3')
  if form not in (None, 'plain', 'blocks'):
    raise ValueError(f"form {form!r} must be 'plain' or 'blocks'")
  dtype = jnp.result_type(deep, shallow)
  deep, shallow = deep.astype(jnp.float32), shallow.astype(jnp.float32)
  queries = (_patches3(deep) if size == 3 else deep).reshape(b, h * w, -1)
  square = jnp.square(queries).sum(-1, keepdims=True)
  # The square root has no derivative at 0, where the length is not used.
  above = square > _LEAST_LENGTH**2
  keys = queries * jnp.where(above, lax.rsqrt(jnp.where(above, square, 1.0)), 1 / _LEAST_LENGTH)
  values = _patches4(shallow).reshape(b, h * w, -1)
  form = form or ('plain' if (h * w) ** 2 <= PLAIN_ELEMENTS else 'blocks')
  attend = functools.partial(_attend, scale=scale, dtype=dtype)
  if form == 'blocks':
    attend = functools.partial(_attend_by_blocks, attend)
  out = placement.map_images(lambda one: attend(*one), (queries, keys, values, valid))
  return _overlap(out.reshape(b, h, w, 4, 4, -1)) / 4


def _attend(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  valid: jax.Array | None,
  *,
  scale: float,
  dtype: Any,
) -> jax.Array:
  scores = scale * products.einsum('qc,kc->qk', queries, keys, dtype)
  weights = jax.nn.softmax(scores if valid is None else scores * valid, axis=-1)
  weights = jnp.maximum(weights if valid is None else weights * valid, _LEAST_WEIGHT)
  return products.einsum('qk,kc->qc', weights, values, dtype)


def _attend_by_blocks(
  attend: functools.partial,
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  valid: jax.Array | None,
) -> jax.Array:
  one = jax.checkpoint(lambda q: attend(q, keys, values, valid), prevent_cse=False)
  return blocks.map_rows(one, queries, BLOCK_ELEMENTS // len(keys))


def _patches3(x: jax.Array) -> jax.Array:
  """[B,h,w,C] -> [B,h,w,9,C], the neighbours of each place, zeros beyond the border."""
  h, w = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  parts = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
  return jnp.stack(parts, 3)


def _patches4(x: jax.Array) -> jax.Array:
  """[B,2h,2w,C] -> [B,h,w,4,4,C]: rows and columns 2i - 1 ... 2i + 2, zeros beyond the border."""
  height, width = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows = jnp.stack([padded[:, i : i + height : 2] for i in range(4)], 2)
  both = jnp.stack([rows[:, :, :, j : j + width : 2] for j in range(4)], 4)
  return both.transpose(0, 1, 3, 2, 4, 5)


def _overlap(patches: jax.Array) -> jax.Array:
  """[B,h,w,4,4,C] -> [B,2h,2w,C]: the sum of the patches, each where `_patches4` takes it."""
  return _overlap_axis(_overlap_axis(patches, 1), 2)


def _overlap_axis(patches: jax.Array, axis: int) -> jax.Array:
  """Sums along `axis`, whose offsets are the axis 3; both become one axis of twice the length."""
  part = lambda k: lax.index_in_dim(patches, k, 3, keepdims=False)
  n = patches.shape[axis]
  zero = jnp.zeros_like(lax.slice_in_dim(part(0), 0, 1, axis=axis))
  later = lambda x: jnp.concatenate([zero, lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
  sooner = lambda x: jnp.concatenate([lax.slice_in_dim(x, 1, n, axis=axis), zero], axis)
  both = jnp.stack([part(1) + later(part(3)), part(2) + sooner(part(0))], axis + 1)
  return both.reshape(*both.shape[:axis], 2 * n, *both.shape[axis + 2 :])
