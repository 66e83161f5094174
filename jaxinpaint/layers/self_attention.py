"""Attention of a feature map to itself, where one convolution makes both queries and keys.

Zheng, Cham, Cai: "Pluralistic Image Completion", CVPR 2019, section 3.3,
https://arxiv.org/abs/1903.04227.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxinpaint.layers import blocks, products

Form = Literal['plain', 'blocks']

PLAIN_ELEMENTS = 2**24  # up to this many scores of a batch are held at once
BLOCK_ELEMENTS = 2**22  # scores in a block


def attend(queries: jax.Array, values: jax.Array, *, form: Form | None = None) -> jax.Array:
  """Every place gets a mean of all places' values, weighted by how alike their queries are.

    out_i = sum_j softmax_j(<q_i, q_j>) v_j

  The products are of the arrays' own type (`products.einsum`); the softmax is float32.

  Args:
    queries: [B,H,W,D]; they are the keys, too. Their products are not scaled.
    values: [B,H,W,C].
    form: 'plain' holds all B (HW)^2 scores, 'blocks' those of some queries at a time, and computes
      them again for the gradient; None: chosen by their number.

  Returns:
    f32[B,H,W,C].

  Raises:
    ValueError: an unknown form.
  """
  if form not in (None, 'plain', 'blocks'):
    raise ValueError(f"form {form!r} must be 'plain' or 'blocks'")
  b, h, w, d = queries.shape
  n = h * w
  dtype = jnp.result_type(queries, values)
  keys = queries.astype(jnp.float32).reshape(b, n, d)
  flat = values.astype(jnp.float32).reshape(b, n, values.shape[-1])
  form = form or ('plain' if b * n**2 <= PLAIN_ELEMENTS else 'blocks')
  some = functools.partial(_some, keys=keys, values=flat, dtype=dtype)
  out = _by_blocks(some, keys) if form == 'blocks' else some(keys)
  return out.reshape(b, h, w, -1)


def _some(queries: jax.Array, *, keys: jax.Array, values: jax.Array, dtype: Any) -> jax.Array:
  scores = products.einsum('bqd,bkd->bqk', queries, keys, dtype)
  weights = jax.nn.softmax(scores, axis=-1)
  return products.einsum('bqk,bkc->bqc', weights, values, dtype)


def _by_blocks(some: functools.partial, queries: jax.Array) -> jax.Array:
  # Blocks of queries, each of all images: a batch that is split over devices stays split.
  b, n, _ = queries.shape
  one = jax.checkpoint(lambda q: some(q.swapaxes(0, 1)).swapaxes(0, 1), prevent_cse=False)
  return blocks.map_rows(one, queries.swapaxes(0, 1), BLOCK_ELEMENTS // (b * n)).swapaxes(0, 1)
