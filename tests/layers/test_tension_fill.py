import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import tension_fill as layer
from jaxinpaint.layers.tension_fill import STEPS, STIFFNESS, tension_fill

compiled = jax.jit(tension_fill)
# Rows and columns that are odd at several levels, a single row, and sides that can be halved.
SIZES = [(33, 37), (1, 37), (32, 32)]


def fill(image, mask, steps=STEPS):
  """One program for each size, whatever the number of steps."""
  return np.asarray(compiled(image, mask, np.int32(steps)))


def picture(height=32, width=32, seed=0):
  image = np.random.default_rng(seed).random((2, height, width, 3), np.float32)
  mask = np.zeros((2, height, width, 1), np.float32)
  mask[0, 5:20, 8:30] = mask[1, :, :30] = 1
  return image, mask


def differences(n):
  """-d^2/dx^2 on n pixels, nothing flows over the ends."""
  ends = np.ones(n)
  ends[[0, -1]] = 0.5
  return 2 * np.diag(ends) - np.eye(n, k=1) - np.eye(n, k=-1) if n > 1 else np.zeros((1, 1))


def solution(image, mask):
  """The equations of one image [H,W,C], solved directly."""
  height, width, channels = image.shape
  laplace = np.kron(differences(height), np.eye(width)) + np.kron(
    np.eye(height), differences(width)
  )
  operator = laplace + STIFFNESS * laplace @ laplace
  hole = mask.ravel() == 1
  u = image.reshape(-1, channels).astype(np.float64)
  u[hole] = np.linalg.solve(operator[np.ix_(hole, hole)], -operator[np.ix_(hole, ~hole)] @ u[~hole])
  low, high = u[~hole].min(0), u[~hole].max(0)
  return np.clip(u, low, high).reshape(image.shape)


@pytest.mark.parametrize('height, width', SIZES)
def test_it_is_the_solution_of_its_equation(height, width):
  image, mask = picture(height, width)
  image = np.cumsum(image - 0.5, 2) / 4 + 0.5  # neighbours are alike
  want = np.stack([solution(*pair) for pair in zip(image, mask, strict=True)])
  error = lambda steps: np.sqrt(np.square(fill(image, mask, steps=steps) - want).mean())
  assert error(STEPS) < 0.05  # a noisy picture, and most of it a hole
  np.testing.assert_allclose(fill(image, mask, steps=16), want, atol=1e-3)


@pytest.mark.parametrize('height, width', SIZES)
def test_known_pixels_stay_and_the_hole_is_not_read(height, width):
  image, mask = picture(height, width)
  filled = fill(image, mask)
  np.testing.assert_array_equal(np.where(mask == 0, filled, 0), np.where(mask == 0, image, 0))
  np.testing.assert_array_equal(fill(np.where(mask == 1, np.float32(np.nan), image), mask), filled)
  known = np.where(mask == 0, image, np.nan)
  assert (filled >= np.nanmin(known, (1, 2), keepdims=True)).all()
  assert (filled <= np.nanmax(known, (1, 2), keepdims=True)).all()


def test_a_constant_and_a_slope_are_continued():
  _, mask = picture(32, 32)
  flat = np.full((2, 32, 32, 3), 0.3, np.float32)
  np.testing.assert_allclose(fill(flat, mask), flat, atol=1e-6)
  slope = np.zeros_like(flat) + np.linspace(0, 1, 32, dtype=np.float32)[:, None, None]
  mask = np.zeros_like(mask)
  mask[:, 12:20, 12:20] = 1
  np.testing.assert_allclose(fill(slope, mask), slope, atol=2e-3)


def test_where_nothing_is_known_it_is_0_and_where_all_is_known_it_is_the_image():
  image, mask = picture()
  np.testing.assert_array_equal(fill(image, np.ones_like(mask)), np.zeros_like(image))
  np.testing.assert_array_equal(fill(image, np.zeros_like(mask)), image)


def test_the_way_down_is_the_transpose_of_the_way_up():
  for height, width in ((6, 9), (1, 4)):
    coarse = jax.ShapeDtypeStruct((1, 1, (height + 1) // 2, (width + 1) // 2), jnp.float32)
    # Of whole numbers all sums are exact.
    x = np.random.default_rng(0).integers(-9, 9, (1, 1, height, width)).astype(np.float32)
    up = lambda y, height=height, width=width: layer._doubled(y, height, width)
    both = lambda x, up=up, coarse=coarse: (
      layer._gathered(x),
      jax.linear_transpose(up, coarse)(x)[0],
    )
    down, transpose = jax.jit(both)(x)
    np.testing.assert_array_equal(down, transpose)
