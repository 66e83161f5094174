"""Windows on images: where they lie, what they show, and the gradients through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.masks import spec
from jaxinpaint.systems._shared import windows


def mask_of(*boxes, size=(20, 24)):
  mask = np.zeros((len(boxes), *size, 1), np.float32)
  for i, (top, bottom, left, right) in enumerate(boxes):
    mask[i, top:bottom, left:right] = 1
  return jnp.asarray(mask)


def test_hole_box():
  mask = mask_of((3, 7, 5, 20), (0, 20, 0, 24), (0, 0, 0, 0), (19, 20, 23, 24))
  got = np.stack(windows.hole_box(mask), 1).tolist()
  assert got == [[3, 7, 5, 20], [0, 20, 0, 24], [0, 20, 0, 24], [19, 20, 23, 24]]


def test_windows_on_a_hole_hold_it_and_are_as_various_as_they_can_be():
  mask = mask_of(*[(3, 7, 5, 11)] * 400, *[(18, 20, 0, 3)] * 400)
  top, left = (np.asarray(x) for x in windows.window_on_hole(jax.random.key(0), mask, 8))
  assert set(top[:400]) == {0, 1, 2, 3} and set(left[:400]) == {3, 4, 5}
  assert set(top[400:]) == {12} and set(left[400:]) == {0}
  counts = np.bincount(top[:400])
  assert counts.min() > 60  # of 100


def test_windows_on_no_hole_or_too_large_a_one_stay_in_the_image():
  mask = mask_of(*[(0, 0, 0, 0)] * 300, *[(2, 18, 1, 23)] * 300)
  top, left = (np.asarray(x) for x in windows.window_on_hole(jax.random.key(0), mask, 8))
  assert (top[:300].min(), top[:300].max(), left[:300].max()) == (0, 12, 16)
  assert (top[300:].min(), top[300:].max()) == (2, 10)
  assert (left[300:].min(), left[300:].max()) == (1, 15)


def test_holes_and_windows_are_distributed_as_if_the_window_were_drawn_first():
  sampler = spec.make(
    'rectangles;min_side=4;max_side=8;margin=0;min_times=1;max_times=1;within=8;reference=20'
  )
  rng = np.random.default_rng(0)
  drawn = jnp.asarray(np.stack([sampler(rng, 20, 20) for _ in range(3000)])[..., None])
  top, _ = windows.window_on_hole(jax.random.key(0), drawn, 8)
  counts = np.bincount(np.asarray(top), minlength=13)
  assert counts.shape == (13,) and abs(counts - 3000 / 13).max() < 75  # five deviations


def test_cut_shows_the_window_and_takes_its_gradient():
  x = jnp.arange(2 * 20 * 24 * 2, dtype=jnp.float32).reshape(2, 20, 24, 2)
  window = jnp.array([2, 12]), jnp.array([16, 0])
  got = jax.jit(windows.cut, static_argnums=2)(x, window, 8)
  np.testing.assert_array_equal(got[0], x[0, 2:10, 16:24])
  np.testing.assert_array_equal(got[1], x[1, 12:20, :8])
  gradient = np.asarray(jax.grad(lambda x: windows.cut(x, window, 8).sum())(x))
  assert gradient.sum() == 2 * 8 * 8 * 2 and (gradient[0, 2:10, 16:24] == 1).all()


def test_cut_resized_samples_as_tensorflow_1():
  ramp = jnp.broadcast_to(jnp.arange(20.0)[None, :, None, None], (1, 20, 24, 1))
  box = tuple(jnp.array([n]) for n in (4, 8, 0, 24))
  got = windows.cut_resized(ramp, box, 8)
  assert got.shape == (1, 8, 8, 1)
  np.testing.assert_allclose(got[0, :, 3, 0], [4, 4.5, 5, 5.5, 6, 6.5, 7, 7], atol=1e-6)
  whole = tuple(jnp.array([n]) for n in (0, 20, 0, 20))
  x = jax.random.uniform(jax.random.key(0), (1, 20, 20, 3))
  np.testing.assert_allclose(windows.cut_resized(x, whole, 20), x, atol=1e-6)


@pytest.mark.parametrize('within', [40, 128])
def test_rectangles_within_a_square(within):
  sampler = spec.make(f'rectangles;min_side=8;max_side=24;min_times=3;max_times=3;within={within}')
  drawn = [sampler(np.random.default_rng(seed), 256, 300) for seed in range(20)]
  top, bottom, left, right = windows.hole_box(jnp.asarray(np.stack(drawn)[..., None]))
  sides = np.maximum(bottom - top, right - left)
  assert within / 2 < sides.max() <= within
  with pytest.raises(ValueError, match='up to 150 pixels do not fit within 96'):
    spec.make('rectangles;within=96')
