"""Attention within windows, to valid tokens only, and the transformer block of MAT around it.

Li, Lin, Zhou, Qi, Wang, Jia: "MAT: Mask-Aware Transformer for Large Hole Image Inpainting", CVPR
2022, sections 3.2 and 3.3, https://arxiv.org/abs/2203.15270; windows and their shift are those of
Liu et al., "Swin Transformer", ICCV 2021.

Tokens are the pixels of a feature map. A window with at least one valid token is valid as a whole
afterwards: all of its tokens have read the valid ones.

Differs from the reference code: a token that is zero throughout, where a partial convolution saw
nothing valid, passes no gradient to its features (the code's would be divided by 1e-12).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.layers import products
from jaxinpaint.layers.partial_conv import known_share
from jaxinpaint.layers.stylegan2 import EqualConv, EqualDense

HIDDEN = -100.0  # added to scores of keys that a query must not read, as in the code
_LEAST = 1e-24  # square of the smallest norm that divides


def to_windows(x: jax.Array, side: int) -> jax.Array:
  """[B,H,W,C] -> [B * windows, side^2, C]; both sides are multiples of `side`."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // side, side, w // side, side, c).swapaxes(2, 3)
  return x.reshape(-1, side**2, c)


def from_windows(x: jax.Array, side: int, height: int, width: int) -> jax.Array:
  """The inverse of `to_windows`: [B * windows, side^2, C] -> [B,height,width,C]."""
  c = x.shape[-1]
  x = x.reshape(-1, height // side, width // side, side, side, c).swapaxes(2, 3)
  return x.reshape(-1, height, width, c)


def regions(height: int, width: int, side: int, shift: int) -> np.ndarray:
  """i32[windows, side^2]: which region of the shifted map each token of a window is from.

  After the shift the last window of a row or column holds tokens from both rims of the map. Tokens
  read only those of their own region.
  """
  parts = lambda n: np.digitize(np.arange(n), [n - side, n - shift])
  ids = (3 * parts(height)[:, None] + parts(width)).astype(np.int32)
  return np.asarray(
    ids.reshape(height // side, side, width // side, side).swapaxes(1, 2).reshape(-1, side**2)
  )


def normalise(x: jax.Array) -> jax.Array:
  """[..., C] -> f32, divided by the 2-norm over C, and that at least 1e-12; zeros stay zeros."""
  x = x.astype(jnp.float32)
  squares = jnp.square(x).sum(-1, keepdims=True)
  return jnp.where(squares > 0, x * jax.lax.rsqrt(jnp.maximum(squares, _LEAST)), 0.0)


class WindowAttention(nn.Module):
  """Multi-head attention of the tokens of each window (section 3.3, eq. 2).

  Queries and keys are of normalised tokens, values of the tokens themselves.

  Attributes:
    side: of a window.
    heads: they divide the channels.
    dtype: of the products; the softmax is float32.
  """

  side: int
  heads: int = 6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, valid: jax.Array | None = None, region: np.ndarray | None = None
  ) -> jax.Array:
    """Attends.

    Args:
      x: [B * windows, n, C], n = side^2.
      valid: f32[B * windows, n, 1], 1 where a token may be read; None: everywhere.
      region: i32[windows, n] of `regions`; None: all tokens of a window may read each other.

    Returns:
      [B * windows, n, C].
    """
    rows, n, c = x.shape
    dense = lambda name: EqualDense(c, dtype=self.dtype, name=name)
    split = lambda y: y.reshape(rows, n, self.heads, c // self.heads)
    unit = normalise(x)
    query, key, value = (split(dense(name)(y)) for name, y in (('q', unit), ('k', unit), ('v', x)))
    scores = products.einsum('bqhd,bkhd->bhqk', query, key, self.dtype)
    scores = scores * (c // self.heads) ** -0.5
    if region is not None:
      apart = HIDDEN * (region[:, None] != region[..., None])
      scores = scores.reshape(-1, len(region), *scores.shape[1:]) + apart[:, None]
      scores = scores.reshape(rows, *scores.shape[2:])
    if valid is not None:
      scores = scores + jnp.where(valid[:, None, None, :, 0] > 0, 0.0, HIDDEN)
    weights = jax.nn.softmax(scores, axis=-1)
    out = products.einsum('bhqk,bkhd->bqhd', weights, value, self.dtype)
    return dense('proj')(out.reshape(rows, n, c))


class WindowBlock(nn.Module):
  """Attention in windows, fused with its input by a dense layer, then a two-layer perceptron.

  There is no layer norm and no residual sum (the paper's figure 3: both make training unstable
  where most tokens are invalid).

  Attributes:
    side: of a window.
    shift: of the map before it is divided into windows; 0: none.
    heads: of the attention.
    ratio: channels of the perceptron's hidden layer by those of the tokens.
    dtype: of the computation.
  """

  side: int
  shift: int = 0
  heads: int = 6
  ratio: float = 2.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, valid: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array | None]:
    """[B,H,W,C] and f32[B,H,W,1], 1 = valid, or None -> the same after the block.

    Raises:
      ValueError: the windows do not divide the map.
    """
    h, w, c = x.shape[1:]
    if h % self.side or w % self.side:
      raise ValueError(f'a map of {h} x {w} tokens cannot be divided into windows of {self.side}')
    roll = lambda y, by: jnp.roll(y, (by, by), (1, 2)) if self.shift else y
    window = lambda y: to_windows(roll(y, -self.shift), self.side)
    back = lambda y: roll(from_windows(y, self.side, h, w), self.shift)
    region = regions(h, w, self.side, self.shift) if self.shift else None
    known = None if valid is None else window(valid)
    attend = WindowAttention(self.side, self.heads, self.dtype, name='attention')
    y = back(attend(window(x), known, region))
    if known is not None:
      valid = back(jnp.broadcast_to(known.max(1, keepdims=True), known.shape))
    active = dict(activate=True, dtype=self.dtype)
    x = EqualDense(c, name='fuse', **active)(jnp.concatenate([x.astype(y.dtype), y], -1))
    x = EqualDense(int(c * self.ratio), name='fc1', **active)(x)
    return EqualDense(c, dtype=self.dtype, name='fc2')(x), valid


class PartialEqualConv(nn.Module):
  """`EqualConv` ('conv'), activated, times values / valid values of each window.

  Other than in `layers.partial_conv` bias and activation come before that factor, and what the
  input holds at invalid places is read, too.

  Attributes:
    features: output channels.
    down: halve the resolution.
    up: double it; without a mask only.
    dtype: of the computation.
  """

  features: int
  down: bool = False
  up: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, valid: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array | None]:
    """[B,H,W,C] and f32[B,H,W,1], 1 = valid, or None -> both after the 3x3 convolution."""
    conv = EqualConv(self.features, 3, down=self.down, up=self.up, dtype=self.dtype, name='conv')
    y = conv(x)
    if valid is None:
      return y, None
    factor, valid = known_share(valid, 1, 3, stride=2 if self.down else 1, padding=1)
    return y * factor.astype(y.dtype), valid


class WindowStage(nn.Module):
  """A resampling convolution, blocks with every second one shifted, a convolution and a sum.

  Attributes:
    depth: number of blocks ('block0', ...).
    side: of a window.
    shifted: whether odd blocks shift by half a window; False where one window is the whole map.
    resample: 'down', 'up' or '': none.
    heads: of the attention.
    ratio: of the perceptrons.
    dtype: of the computation.
  """

  depth: int
  side: int
  shifted: bool = True
  resample: str = ''
  heads: int = 6
  ratio: float = 2.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, valid: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array | None]:
    """[B,H,W,C] and f32[B,H,W,1] or None -> both, at the stage's resolution."""
    c = x.shape[-1]
    if self.resample:
      factor = {self.resample: True}
      conv = PartialEqualConv(c, dtype=self.dtype, name='resample', **factor)
      x, valid = conv(x, valid)
    start = x
    for i in range(self.depth):
      shift = self.side // 2 if self.shifted and i % 2 else 0
      block = WindowBlock(self.side, shift, self.heads, self.ratio, self.dtype, name=f'block{i}')
      x, valid = block(x, valid)
    x, valid = PartialEqualConv(c, dtype=self.dtype, name='conv')(x, valid)
    return x + start, valid
