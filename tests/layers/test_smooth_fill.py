import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.smooth_fill import (
  clip_with_gradient,
  depth_to_space,
  smooth_fill,
  space_to_depth,
  standardisation,
  without_grid,
)

fill = jax.jit(smooth_fill, static_argnames='sweeps')
average = jax.jit(without_grid, static_argnums=2)


def picture(height=32, width=32, seed=0):
  image = np.random.default_rng(seed).random((2, height, width, 3), np.float32)
  mask = np.zeros((2, height, width, 1), np.float32)
  mask[0, 5:20, 8:30] = mask[1, :, :30] = 1
  return image, mask


@pytest.mark.parametrize('height, width', [(33, 37), (1, 37), (32, 32)])
def test_known_pixels_stay_and_the_hole_is_not_read(height, width):
  image, mask = picture(height, width)
  filled = np.asarray(fill(image, mask))
  np.testing.assert_array_equal(np.where(mask == 0, filled, 0), np.where(mask == 0, image, 0))
  other = fill(np.where(mask == 1, np.float32(np.nan), image), mask)
  np.testing.assert_allclose(filled, other, atol=1e-6)
  known = np.where(mask == 0, image, np.nan)
  assert (filled >= np.nanmin(known, (1, 2), keepdims=True) - 1e-5).all()
  assert (filled <= np.nanmax(known, (1, 2), keepdims=True) + 1e-5).all()


def test_a_constant_and_a_slope_are_continued():
  _, mask = picture(32, 32)
  flat = np.full((2, 32, 32, 3), 0.3, np.float32)
  np.testing.assert_allclose(fill(flat, mask), flat, atol=1e-6)
  slope = np.zeros_like(flat) + np.linspace(0, 1, 32, dtype=np.float32)[:, None, None]
  mask = np.zeros_like(mask)
  mask[:, 12:20, 12:20] = 1
  # Both are membranes; the sweeps come near.
  error = [np.abs(y - slope).max() for y in (fill(slope, mask, sweeps=0), fill(slope, mask))]
  assert error[1] < 0.5 * error[0] < 0.01


def test_where_nothing_is_known_it_is_0():
  image, mask = picture()
  np.testing.assert_array_equal(fill(image, np.ones_like(mask)), np.zeros_like(image))


def test_standardised_known_pixels_have_mean_0_and_a_quarter_of_deviation():
  image, mask = picture()
  run = jax.jit(standardisation)
  both = lambda *arguments: map(np.asarray, run(*arguments))
  mean, scale = both(np.where(mask == 1, np.float32(np.nan), image), mask)
  assert mean.shape == (2, 1, 1, 3) and scale.shape == (2, 1, 1, 1)
  for i in range(2):
    known = ((image[i] - mean[i]) / scale[i])[mask[i, ..., 0] == 0]
    np.testing.assert_allclose(known.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(known.std(), 0.25, rtol=1e-5)
  for known in (np.zeros_like(mask), np.ones_like(mask)):  # a flat picture; nothing is known
    mean, scale = both(0 * image, known)
    assert not mean.any() and (scale == np.float32(0.04) / 0.25).all()


def test_depth_to_space_undoes_space_to_depth():
  x = np.random.default_rng(0).random((2, 8, 12, 3), np.float32)
  y = space_to_depth(x, 4)
  assert y.shape == (2, 2, 3, 48)
  np.testing.assert_array_equal(y[1, 1, 2, :3], x[1, 4, 8])
  np.testing.assert_array_equal(y[1, 1, 2, 3:6], x[1, 4, 9])  # columns go first
  np.testing.assert_array_equal(depth_to_space(y, 4), x)
  assert space_to_depth(x, 1) is x and depth_to_space(x, 1) is x


def test_clipping_keeps_the_gradient():
  x = jnp.array([-0.5, 0.25, 1.5])
  np.testing.assert_array_equal(clip_with_gradient(x), [0, 0.25, 1])
  np.testing.assert_array_equal(jax.grad(lambda x: clip_with_gradient(x).sum())(x), [1, 1, 1])


@pytest.mark.parametrize('period', [1, 2, 3, 4])
def test_nothing_is_left_of_a_grid_and_slopes_stay(period):
  rng = np.random.default_rng(0)
  tile = rng.standard_normal((period, period, 3))
  grid = np.tile(tile - tile.mean((0, 1)), (40 // period + 1,) * 2 + (1,))[None, :40, :40]
  rows = np.linspace(0, 1, 40)[:, None, None] * np.ones((1, 40, 3))
  mask = np.zeros((1, 40, 40, 1), np.float32)
  mask[:, 4:30, 8:38] = 1
  x = rows + (grid if period > 1 else 0)
  found = np.asarray(average(x.astype(np.float32), mask, period))
  assert not found[mask[..., 0] == 0].any()
  inner = (0, slice(7, 27), slice(11, 35))  # a period away from the hole's border
  np.testing.assert_allclose(found[inner], np.broadcast_to(rows, (40, 40, 3))[inner[1:]], atol=1e-5)


def test_the_moving_average_reads_the_hole_alone():
  rng = np.random.default_rng(0)
  x = rng.random((2, 12, 15, 3), np.float32)
  mask = (rng.random((2, 12, 15, 1)) < 0.4).astype(np.float32)
  one, two = (average(a, mask, 4) for a in (x, np.where(mask == 1, x, np.float32(9))))
  np.testing.assert_array_equal(one, two)
  constant = average(np.full_like(x, 0.3), mask, 4)
  np.testing.assert_allclose(constant, 0.3 * np.broadcast_to(mask, x.shape), atol=1e-6)
