"""A fill without learning: the spline in tension through the known pixels.

Smith, Wessel: "Gridding with continuous curvature splines in tension", Geophysics 55 (3), 1990,
https://doi.org/10.1190/1.1442837: the surface u through given points that solves
(1 - T) L L u + T L u = 0, with L = -Laplace. Between a membrane (T = 1), which leaves the border of
a hole with a crease, and a thin plate (T = 0), which overshoots. Here L is the difference of a
pixel to its neighbours, nothing flows over the picture's border, and the equation is divided by T:

  L u + STIFFNESS L L u = 0 in the hole, u = image elsewhere.

It is solved by conjugate gradients, which begin with push-pull (`smooth_fill` without sweeps) and
have one multigrid cycle as preconditioner. A coarser level has the same operator with a quarter of
the stiffness, as its pixels are twice as wide.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers.smooth_fill import smooth_fill

# In pixels^2. Of 1/2, 1, 2 and 4, 2 had the best PSNR of the hole (16 photographs of 256 px).
STIFFNESS = 2.0
# Of conjugate gradients. The root mean square error in the hole was 0.0014 of colours in [0, 1]
# (12 photographs of 256 px, a stiffness of 1.5).
STEPS = 4
_SWEEPS = 2  # before and after each coarser level
_DAMPING = 1.9  # of Jacobi's method, in units of what the largest eigenvalue allows; below 2
_COARSEST = 8  # the longer side at the last level
_OPEN = 0.9  # a coarse pixel is free where at least this share of it is hole

T = TypeVar('T')


def tension_fill(image: jax.Array, mask: jax.Array, steps: int = STEPS) -> jax.Array:
  """The known pixels of `image`, and their spline in tension in the hole.

  Args:
    image: f32[B,H,W,C], any size; what it holds in the hole is not read.
    mask: f32[B,H,W,1], 1 = hole.
    steps: of conjugate gradients; 16 reach the solution within 0.001.

  Returns:
    f32[B,H,W,C] within the range of the known pixels; 0 everywhere where nothing is known.
  """
  hole = mask.astype(jnp.float32).transpose(0, 3, 1, 2)  # rows last: they are long
  image = jnp.where(hole == 1, 0.0, image.astype(jnp.float32).transpose(0, 3, 1, 2)) * (1 - hole)
  holes = _coarser(hole)
  x = smooth_fill(image.transpose(0, 2, 3, 1), mask, sweeps=0).transpose(0, 3, 1, 2)
  residual = -hole * _operator(x, STIFFNESS)
  state = (x, residual, jnp.zeros_like(x), jnp.zeros_like(_dot(x, x)))

  def step(state):
    x, residual, direction, before = state
    better = _cycle(holes, residual)
    now = _dot(residual, better)
    direction = better + _ratio(now, before) * direction
    change = hole * _operator(direction, STIFFNESS)
    length = _ratio(now, _dot(direction, change))
    return x + length * direction, residual - length * change, direction, now

  x = _repeat(steps, step, state)[0]
  low = jnp.where(hole == 1, jnp.inf, image).min((2, 3), keepdims=True)
  high = jnp.where(hole == 1, -jnp.inf, image).max((2, 3), keepdims=True)
  x = jnp.where(low <= high, jnp.clip(x, low, high), 0.0)
  return jnp.where(hole == 1, x, image).transpose(0, 2, 3, 1)


def _cycle(holes: list[jax.Array], residual: jax.Array, level: int = 0) -> jax.Array:
  """An approximate solution x of operator(x) = residual in the hole, 0 outside it."""
  hole = holes[level]
  if level == len(holes) - 1:
    return _relax(jnp.zeros_like(residual), residual, hole, level, 4 * _SWEEPS)
  x = _relax(jnp.zeros_like(residual), residual, hole, level, _SWEEPS)
  left = hole * (residual - _operator(x, STIFFNESS / 4**level))
  x += hole * _doubled(
    _cycle(holes, _gathered(left) * holes[level + 1], level + 1), *hole.shape[2:]
  )
  return _relax(x, residual, hole, level, _SWEEPS)


def _relax(x: jax.Array, wanted: jax.Array, hole: jax.Array, level: int, sweeps: int) -> jax.Array:
  """Damped Jacobi for operator(x) = wanted in the hole."""
  stiffness = STIFFNESS / 4**level
  step = _DAMPING / (8 + 64 * stiffness)  # 8 is the largest eigenvalue of L
  return _repeat(sweeps, lambda x: x + step * hole * (wanted - _operator(x, stiffness)), x)


def _repeat(times: int, function: Callable[[T], T], x: T) -> T:
  """A loop for the compiler, which needs minutes for the same operations one after another."""
  return lax.fori_loop(0, times, lambda _, x: function(x), x)


def _operator(x: jax.Array, stiffness: float) -> jax.Array:
  y = _differences(x)
  return y + stiffness * _differences(y)


def _differences(x: jax.Array) -> jax.Array:
  """L: each pixel minus its four neighbours, summed."""
  wide = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), 'edge')
  across = wide[:, :, 1:-1, 2:] + wide[:, :, 1:-1, :-2]
  return 4 * x - wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1] - across


def _coarser(hole: jax.Array) -> list[jax.Array]:
  """The free pixels of each level."""
  holes, share = [hole], hole
  while max(share.shape[2:]) > _COARSEST:
    # The row beyond an odd side counts as the last row does: the border is free.
    share = _halved(share, 'edge')
    holes.append((share >= _OPEN).astype(jnp.float32))
  return holes


def _halved(x: jax.Array, beyond: str = 'constant') -> jax.Array:
  """Means of squares of 2 x 2; an odd side gets a row of zeros, or what `beyond` says."""
  b, c, h, w = x.shape
  x = jnp.pad(x, ((0, 0), (0, 0), (0, h % 2), (0, w % 2)), beyond)
  return x.reshape(b, c, (h + 1) // 2, 2, (w + 1) // 2, 2).mean((3, 5))


def _doubled(x: jax.Array, height: int, width: int) -> jax.Array:
  """Bilinear, pixels as squares; the last row and column are cut off where a side is odd."""
  for axis in (2, 3):
    wide = _edge(x, axis)
    n = x.shape[axis]
    parts = (0.75 * x + 0.25 * lax.slice_in_dim(wide, i, i + n, axis=axis) for i in (0, 2))
    y = jnp.stack(tuple(parts), axis + 1)
    x = y.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
  return x[:, :, :height, :width]


def _gathered(x: jax.Array) -> jax.Array:
  """The transpose of `_doubled`."""
  for axis in (2, 3):
    odd = [(0, 0)] * 4
    odd[axis] = (0, x.shape[axis] % 2)
    x = jnp.pad(x, odd)
    wide = _edge(x, axis)
    end = x.shape[axis] - 1
    part = [lax.slice_in_dim(wide, i, i + end, stride=2, axis=axis) for i in range(4)]
    x = 0.25 * (part[0] + part[3]) + 0.75 * (part[1] + part[2])
  return x


def _edge(x: jax.Array, axis: int) -> jax.Array:
  widths = [(0, 0)] * 4
  widths[axis] = (1, 1)
  return jnp.pad(x, widths, 'edge')


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return (a * b).sum((2, 3), keepdims=True)


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
