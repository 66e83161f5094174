"""A fill without learning that a network can start from, and the stem that halves its resolution.

Gortler, Grzeszczuk, Szeliski, Cohen: "The Lumigraph", SIGGRAPH 1996, section 4.4 (push-pull): known
colours are averaged down a pyramid, and what is missing is taken from the next coarser level.
Here some sweeps of Jacobi's method follow at each level, which take the result close to the
membrane between the known pixels (the solution of Laplace's equation).
"""

import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import upsample_bilinear

SWEEPS = 4


def smooth_fill(image: jax.Array, mask: jax.Array, sweeps: int = SWEEPS) -> jax.Array:
  """The known pixels of `image`, and a smooth continuation of them in the hole.

  Args:
    image: f32[B,H,W,C], any size; what it holds in the hole is not read.
    mask: f32[B,H,W,1], 1 = hole.
    sweeps: of Jacobi's method at each level of the pyramid; more give a smoother fill.

  Returns:
    f32[B,H,W,C] within the range of the known pixels; 0 everywhere where nothing is known.
  """
  known = 1 - mask.astype(jnp.float32)
  colour = jnp.where(mask == 1, 0.0, image.astype(jnp.float32)) * known
  levels = [(colour, known)]
  while max(known.shape[1:3]) > 1:
    sums, share = _halved(colour), _halved(known)
    # A coarse pixel counts as known where half of it is.
    known = jnp.minimum(2 * share, 1)
    colour = sums / jnp.maximum(share, 1e-6) * known
    levels.append((colour, known))
  colour, known = levels.pop()
  y = colour / jnp.maximum(known, 1e-6)
  for colour, known in reversed(levels):
    h, w = colour.shape[1:3]
    y = colour + (1 - known) * upsample_bilinear(y)[:, :h, :w]
    for _ in range(sweeps):
      y = colour + (1 - known) * _neighbours(y)
  return y


def standardisation(
  image: jax.Array, mask: jax.Array, deviation: float = 0.25
) -> tuple[jax.Array, jax.Array]:
  """Mean and scale of the known pixels: (image - mean) / scale has mean 0 and this deviation.

  A network that works on such images and whose result is brought back treats pictures of low and
  high contrast, dark and light ones, alike.

  Args:
    image: f32[B,H,W,C] in [-1,1]; what it holds in the hole is not read.
    mask: f32[B,H,W,1], 1 = hole.
    deviation: over all colours; with a quarter nearly all pixels stay in [-1,1].

  Returns:
    mean f32[B,1,1,C], 0 where nothing is known; scale f32[B,1,1,1] > 0: a deviation of less than
    0.04 counts as 0.04.
  """
  known = 1 - mask.astype(jnp.float32)
  image = jnp.where(mask == 1, 0.0, image.astype(jnp.float32))
  count = jnp.maximum(known.sum((1, 2), keepdims=True), 1)
  mean = (image * known).sum((1, 2), keepdims=True) / count
  squares = (jnp.square(image - mean) * known).sum((1, 2), keepdims=True) / count
  variance = squares.mean(-1, keepdims=True)
  return mean, jnp.sqrt(jnp.maximum(variance, 0.04**2)) / deviation


def _halved(x: jax.Array) -> jax.Array:
  """Means of squares of 2 x 2; an odd side gets a row of zeros."""
  b, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
  return x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c).mean((2, 4))


def _neighbours(x: jax.Array) -> jax.Array:
  """Means of the four neighbours; the border is repeated."""
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  rows = x[:, :-2, 1:-1] + x[:, 2:, 1:-1]
  return (rows + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]) / 4


def space_to_depth(x: jax.Array, factor: int) -> jax.Array:
  """[B,H,W,C] -> [B,H/factor,W/factor,factor*factor*C]: squares of pixels become channels."""
  if factor == 1:
    return x
  b, h, w, c = x.shape
  x = x.reshape(b, h // factor, factor, w // factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h // factor, w // factor, factor * factor * c)


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
  """[B,h,w,factor*factor*C] -> [B,h*factor,w*factor,C], the inverse of `space_to_depth`."""
  if factor == 1:
    return x
  b, h, w, c = x.shape
  c //= factor**2
  x = x.reshape(b, h, w, factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h * factor, w * factor, c)


def without_grid(x: jax.Array, mask: jax.Array, period: int) -> jax.Array:
  """A moving average in the hole, which has nothing left of a pattern of `period` pixels.

  What comes out of `depth_to_space` can have such a pattern, a grid of squares (Odena, Dumoulin,
  Olah: "Deconvolution and Checkerboard Artifacts", Distill 2016). Each axis is averaged over a
  period, or one and a pixel with half a weight for both ends where it is even, and over pixels of
  the hole alone.

  Args:
    x: f32[B,H,W,C].
    mask: f32[B,H,W,1], 1 = hole.
    period: in pixels; 1 changes nothing.

  Returns:
    f32[B,H,W,C], 0 outside the hole.
  """
  reach = period // 2
  ends = 1.0 if period % 2 else 0.5
  weights = [ends] + [1.0] * (2 * reach - 1) + [ends] if reach else [1.0]

  def averaged(y):
    for axis in (1, 2):
      widths = [(0, 0)] * 4
      widths[axis] = (reach, reach)
      wide, n = jnp.pad(y, widths), y.shape[axis]
      pieces = (jax.lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(len(weights)))
      y = sum(weight * piece for weight, piece in zip(weights, pieces, strict=True))
    return y

  hole = (mask == 1).astype(jnp.float32)
  return hole * averaged(x * hole) / jnp.maximum(averaged(hole), 1e-6)


def clip_with_gradient(x: jax.Array) -> jax.Array:
  """`x` clipped to [0, 1]; its gradient is that of `x`, so that no pixel is stuck outside."""
  return x + jax.lax.stop_gradient(jnp.clip(x, 0, 1) - x)
