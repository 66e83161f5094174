"""Coherent semantic attention: a hole is filled place by place, each like the one before it.

Liu, Jiang, Xiao, Yang: "Coherent Semantic Attention for Image Inpainting", ICCV 2019, section 3.2,
https://arxiv.org/abs/1905.12384. Every place of the hole takes the known place that resembles it
most, mixed with the place of the hole that was filled last.

  hole = feature_hole(mask, halvings=3)
  y = coherent_attention(x, hole)

Places of the hole are visited in row-major order, so this is sequential: one step of a scan for
each place of the map, whatever the hole. A step is two products of vectors for each image of the
batch, all images at once. What is parallel, the search for the most similar known places, is that
of the shift layer.

As in the authors' code:
  - the place before is the one before in row-major order, also across a gap or at a row's start;
  - the two similarities that are mixed have different scales: that to the known place is
    |x_i| cos, that to the place before is |y_(i-1)| cos;
  - the latter may be negative, so weights may lie outside [0, 1].
Unlike there, every image has its own hole.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers.shift import Form, nearest

Gradient = Literal['reference', 'true']

_ROWS = 64  # rows of the attention matrix that the 'reference' gradient holds at once
_EPS = 1e-8  # added to the length of a feature; and the least denominator of the weights


def feature_hole(mask: jax.Array, halvings: int = 3, threshold: float = 5 / 16) -> jax.Array:
  """f32[B,h,w,1], 1 where a place of a feature map belongs to the hole.

  The mask is averaged over 4 x 4 windows, two pixels apart, with zeros beyond the border, as often
  as the features are halved; what exceeds `threshold` is hole.

  Args:
    mask: f32[B,H,W,1], 1 = hole.
    halvings: of the features.
    threshold: 5/16 as published.
  """
  share = lax.stop_gradient(mask.astype(jnp.float32))
  padding = ((0, 0), (1, 1), (1, 1), (0, 0))
  for _ in range(halvings):
    share = lax.reduce_window(share, 0.0, lax.add, (1, 4, 4, 1), (1, 2, 2, 1), padding) / 16
  return (share > threshold).astype(jnp.float32)


def coherent_attention(
  x: jax.Array,
  hole: jax.Array,
  *,
  gradient: Gradient = 'reference',
  form: Form | None = None,
) -> jax.Array:
  """Fills the hole of a feature map; known places are unchanged.

    y_0 = s_0,   y_i = a_i / (a_i + v_i) y_(i-1) + v_i / (a_i + v_i) s_i
    a_i = <x_i / |x_i|, y_(i-1)>,   v_i = <x_i, s_i / |s_i|>

  for the places i of the hole in row-major order; s_i is the known place with the largest v_i.

  Args:
    x: [B,h,w,C].
    hole: f32[B,h,w,1], 1 = hole. An image without any known place is returned as it is.
    gradient: 'true' differentiates the formula (but for the choice of s_i). 'reference' is what the
      authors' code defines as the gradient: g + A^T g. There A is the matrix that makes y of x,
      truncated to integers, so that it mostly holds the known places alone. Hence known places get
      their gradient twice, and those of the hole pass theirs on unchanged.
    form: of the search, see `layers.shift.nearest`.

  Returns:
    f32[B,h,w,C].

  Raises:
    ValueError: an unknown `gradient` or form.
  """
  if gradient not in ('reference', 'true'):
    raise ValueError(f"gradient {gradient!r} must be 'reference' or 'true'")
  b, h, w, c = x.shape
  features = x.astype(jnp.float32).reshape(b, h * w, c)
  empty = lax.stop_gradient(hole).reshape(b, h * w) > 0
  fill = _fill if gradient == 'true' else _fill_as_reference
  # The largest v is that of the largest cosine.
  source, _ = nearest(features, features, ~empty, empty, form=form)
  # Nothing to take from: the picture is all hole.
  empty &= ~empty.all(1, keepdims=True)
  return fill(features, source, empty)[0].reshape(b, h, w, c)


def _length(x: jax.Array) -> jax.Array:
  """Of the last axis, which is kept; its derivative at 0 is 0."""
  square = jnp.square(x).sum(-1, keepdims=True)
  above = square > 0
  return jnp.where(above, jnp.sqrt(jnp.where(above, square, 1.0)), 0.0)


def _fill(x: jax.Array, source: jax.Array, hole: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The filled features f32[B,N,C], and the weights of the places before them f32[N,B].

  Args:
    x: f32[B,N,C].
    source: i32[B,N], of `nearest`.
    hole: bool[B,N].
  """
  taken = jnp.take_along_axis(x, source[..., None], 1)
  similarity = (x * (taken / (_length(taken) + _EPS))).sum(-1)
  direction = x / (_length(x) + _EPS)

  def step(before, place):
    direction, taken, similarity, inside = place
    to_before = (direction * before).sum(-1)
    both = to_before + similarity
    # Before the first place there are zeros, so its weight is 0. Only zero features have `both` 0.
    weight = to_before / jnp.where(jnp.abs(both) > _EPS, both, _EPS)
    filled = weight[:, None] * before + (1 - weight[:, None]) * taken
    return jnp.where(inside[:, None], filled, before), (filled, weight)

  places = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (direction, taken, similarity, hole))
  _, (filled, weights) = lax.scan(step, jnp.zeros_like(x[:, 0]), places)
  return jnp.where(hole[..., None], jnp.moveaxis(filled, 0, 1), x), weights


@jax.custom_vjp
def _fill_as_reference(x, source, hole):
  return _fill(x, source, hole)


def _fill_as_reference_fwd(x, source, hole):
  out, weights = _fill(x, source, hole)
  return (out, weights), (source, hole, weights)


def _fill_as_reference_bwd(saved, cotangents):
  source, hole, weights = saved
  g, _ = cotangents
  known = jnp.where(hole[..., None], 0.0, g)  # of rows that are 1 at their own place
  return g + known + _back_through_integers(source, hole, weights, g), None, None


_fill_as_reference.defvjp(_fill_as_reference_fwd, _fill_as_reference_bwd)


def _back_through_integers(source, hole, weights, g):
  """A^T g f32[B,N,C] for the hole's rows of A, truncated to integers; `_ROWS` of them at a time."""
  b, n, _ = g.shape
  count = -(-n // _ROWS)
  in_blocks = lambda x: jnp.pad(x, ((0, count * _ROWS - n),) + ((0, 0),) * (x.ndim - 1)).reshape(
    count, _ROWS, *x.shape[1:]
  )
  rows = (source.T, hole.T, weights, jnp.moveaxis(g, 1, 0))
  places = jnp.arange(n)

  def next_row(row, place):
    source, inside, weight = place
    here = (places == source[:, None]).astype(jnp.float32)
    new = weight[:, None] * row + (1 - weight[:, None]) * here
    row = jnp.where(inside[:, None], new, row)
    return row, jnp.where(inside[:, None], jnp.trunc(row), 0.0)

  def of_block(carry, block):
    row, total = carry
    *block, g = block
    row, matrix = lax.scan(next_row, row, tuple(block))
    return (row, total + jnp.einsum('rbk,rbc->bkc', matrix, g, precision='highest')), None

  start = (jnp.zeros((b, n), jnp.float32), jnp.zeros_like(g))
  (_, total), _ = lax.scan(of_block, start, jax.tree.map(in_blocks, rows))
  return total
