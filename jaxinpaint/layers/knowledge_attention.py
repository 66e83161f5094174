"""Knowledge-consistent attention: scores remember those of the steps before.

Li, Wang, Zhang, Du, Tao: "Recurrent Feature Reasoning for Image Inpainting", CVPR 2020, section
3.3, https://arxiv.org/abs/2008.03737. Features that are completed step by step attend to themselves
in every step. So that the steps choose the same places, each takes a mean of its own scores and
those of the step before, wherever that step knew the query.

  s~[q, k] = softmax_k(sum of <f_p, e_k> over the 3x3 neighbours p of q), e_k = f_k / |f_k|
  s[q, k]  = (s'[q, k] m'[q] + s~[q, k] r) / (m'[q] + r), s' and m' of the step before, r learned
  out_q    = sum_k s[q, k] e_k

As in the authors' code only the keys are normalised, the values are the keys, and holes are keys
like all others. Gradients flow through the remembered scores.

The sum over p is taken of the features, not of the scores, so that a row of scores needs nothing of
others. There are two forms with the same result. 'plain' keeps the last scores, (h*w)^2 of an
image. 'blocks' keeps the features of all steps instead, and computes the scores of some queries at
a time, of all steps and again for the gradient.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers import blocks, placement, products

Form = Literal['plain', 'blocks']

PLAIN_ELEMENTS = 2**26  # up to this many scores of a batch are held at once
BLOCK_ELEMENTS = 2**22  # scores in a block, of one step
_EPS = 1e-7


class Memory(NamedTuple):
  """What the steps before have left; a pytree of the same shapes in every step.

  Attributes:
    known: f32[B,N], the mask of the step before, 1 = known; 0 before the first step.
    scores: f32[B,N,N] of the step before ('plain'), else None.
    queries: f32[B,T,N,C] of all steps ('blocks'), else None.
    keys: likewise.
    shares: f32[B,T,N], how much a step's scores count for each query ('blocks'), else None.
  """

  known: jax.Array
  scores: jax.Array | None = None
  queries: jax.Array | None = None
  keys: jax.Array | None = None
  shares: jax.Array | None = None


def empty(shape: tuple[int, ...], steps: int, form: Form | None = None) -> Memory:
  """The memory before the first step.

  Args:
    shape: of the features, (B, h, w, C).
    steps: how many there will be.
    form: 'plain' or 'blocks', see above; None: chosen by the number of scores.

  Raises:
    ValueError: an unknown form.
  """
  if form not in (None, 'plain', 'blocks'):
    raise ValueError(f"form {form!r} must be 'plain' or 'blocks'")
  b, h, w, c = shape
  n = h * w
  known = jnp.zeros((b, n))
  if (form or ('plain' if b * n**2 <= PLAIN_ELEMENTS else 'blocks')) == 'plain':
    return Memory(known, scores=jnp.zeros((b, n, n)))
  features = jnp.zeros((b, steps, n, c))
  return Memory(known, queries=features, keys=features, shares=jnp.zeros((b, steps, n)))


def attend(
  f: jax.Array, known: jax.Array, memory: Memory, ratio: jax.Array
) -> tuple[jax.Array, Memory]:
  """One step. The products are of f's own type (`products.einsum`); all else is float32.

  Args:
    f: [B,h,w,C].
    known: f32[B,h,w,1], 1 = known; remembered for the next step.
    memory: of `empty` or of the step before.
    ratio: of the weight of this step's scores, f32[1]; its magnitude counts.

  Returns:
    f32[B,h,w,C] and the memory for the next step.
  """
  (b, h, w, c), dtype = f.shape, f.dtype
  f = f.astype(jnp.float32)
  sums = lax.reduce_window(f, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME')
  queries, shifted = sums.reshape(b, h * w, c), f.reshape(b, h * w, c) + _EPS
  square = jnp.square(shifted).sum(-1, keepdims=True)
  keys = shifted * lax.rsqrt(jnp.maximum(square, jnp.finfo(jnp.float32).tiny))
  weight = jnp.abs(ratio) + _EPS
  new = weight / (memory.known + weight)  # the share of this step's scores, for each query
  kept = memory.known / (memory.known + weight)
  known = lax.stop_gradient(known.astype(jnp.float32)).reshape(b, h * w)
  if memory.scores is not None:
    scores = kept[..., None] * memory.scores + new[..., None] * _softmax(queries, keys, dtype)
    out = products.einsum('bqk,bkc->bqc', scores, keys, dtype)
    memory = Memory(known, scores=scores)
  else:
    push = lambda old, x: jnp.concatenate([old[:, 1:], x[:, None]], 1)
    shares = push(memory.shares * kept[:, None], new)
    memory = Memory(known, None, push(memory.queries, queries), push(memory.keys, keys), shares)
    out = placement.map_images(lambda one: _by_blocks(*one, dtype), memory[2:])
  return out.reshape(b, h, w, c), memory


def _softmax(queries: jax.Array, keys: jax.Array, dtype: Any) -> jax.Array:
  """[...,n,C], [...,N,C] -> [...,n,N]."""
  scores = products.einsum('...qc,...kc->...qk', queries, keys, dtype)
  return jax.nn.softmax(scores, axis=-1)


def _by_blocks(queries: jax.Array, keys: jax.Array, shares: jax.Array, dtype: Any) -> jax.Array:
  """Of one image, [T,N,C], [T,N,C], [T,N]: the last step's values, mixed, [N,C]."""
  n = queries.shape[1]

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def block(part: tuple[jax.Array, jax.Array]) -> jax.Array:
    def add(total, one):
      own_queries, own_keys, share = one
      return total + share[:, None] * _softmax(own_queries, own_keys, dtype), None

    own_queries, own_shares = (x.swapaxes(0, 1) for x in part)  # steps first, again
    start = jnp.zeros((own_queries.shape[1], n))
    scores, _ = lax.scan(add, start, (own_queries, keys, own_shares))
    return products.einsum('qk,kc->qc', scores, keys[-1], dtype)

  rows = queries.swapaxes(0, 1), shares.swapaxes(0, 1)
  return blocks.map_rows(block, rows, BLOCK_ELEMENTS // n)
