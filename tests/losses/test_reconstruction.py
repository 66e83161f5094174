import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.losses import reconstruction

PRED = jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]])[None]
TARGET = jnp.array([[[0.0], [4.0]], [[3.0], [1.0]]])[None]  # errors 1 2 0 3
HOLE = jnp.array([[[1.0], [0.0]], [[0.0], [1.0]]])[None]


def test_l1_by_hand():
  assert reconstruction.l1(PRED, TARGET) == 6 / 4
  assert reconstruction.l1(PRED, TARGET, HOLE) == 4 / 4
  assert reconstruction.l1_over_mask_mean(PRED, TARGET, HOLE) == 6 / 4 / 0.5


def test_pixels_that_have_met_their_target_are_left_alone():
  gradient = jax.grad(reconstruction.l1)(PRED, TARGET)
  np.testing.assert_array_equal(gradient[0, ..., 0], [[1 / 4, -1 / 4], [0, 1 / 4]])


def test_masked_l1_divides_by_all_or_by_the_region():
  assert reconstruction.masked_l1(PRED, TARGET, HOLE) == 4 / 4
  assert reconstruction.masked_l1(PRED, TARGET, HOLE, over_region=True) == 4 / 2
  assert reconstruction.masked_l1(PRED, TARGET, 1 - HOLE, over_region=True) == 2 / 2


def test_a_region_is_counted_in_pixels_not_channels():
  colour = lambda x: jnp.repeat(x, 3, axis=-1)
  value = reconstruction.masked_l1(colour(PRED), colour(TARGET), HOLE, over_region=True)
  assert value == 2


def test_masks_without_a_hole_stay_finite():
  none = jnp.zeros_like(HOLE)
  assert reconstruction.l1_over_mask_mean(PRED, TARGET, none) == 6 / 4
  assert reconstruction.masked_l1(PRED, TARGET, none, over_region=True) == 0


def test_psnr_of_holes_by_hand_and_without_any():
  pair = lambda x, y: jnp.concatenate([x, y])
  half = pair(HOLE, jnp.zeros_like(HOLE))  # the second image has no hole and is left out
  value, gradient = jax.value_and_grad(reconstruction.negative_psnr)(
    pair(PRED, PRED), pair(TARGET, TARGET), half
  )
  error = (1 + 9) / 2 + 1e-4
  assert value == pytest.approx(10 * np.log10(error), rel=1e-6)
  by_hand = np.array([[1, 0], [0, 3]]) * 10 / np.log(10) / error
  np.testing.assert_allclose(gradient[..., 0], [by_hand, np.zeros((2, 2))], rtol=1e-5)
  value, gradient = jax.value_and_grad(reconstruction.negative_psnr)(PRED, TARGET, 0 * HOLE)
  assert value == 0 and not gradient.any()


def test_bfloat16_is_promoted_before_the_difference():
  rng = np.random.default_rng(0)
  pred, target = (jnp.asarray(rng.random((1, 64, 64, 3)), jnp.bfloat16) for _ in range(2))
  value = reconstruction.l1(pred, target)
  exact = np.abs(np.asarray(pred, np.float64) - np.asarray(target, np.float64)).mean()
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, exact, rtol=1e-5)


@goldens.cases('spatial_discount')
def test_spatial_discount_mask(case):
  data = case.data()
  height, width = (int(n) for n in data['hw'])
  mask = reconstruction.spatial_discount_mask(height, width, 0.9)
  goldens.assert_close(mask[..., 0], data['mask'], atol=1e-6)


def test_discounted_l1_by_hand():
  # 2 x 2 with gamma 0.5: distances 0 and 1 from the top and left, so only [1, 1] weighs 0.5.
  np.testing.assert_array_equal(
    reconstruction.spatial_discount_mask(2, 2, 0.5)[..., 0], [[1, 1], [1, 0.5]]
  )
  value = reconstruction.discounted_l1(PRED, TARGET, 0.5)
  assert value == pytest.approx((1 + 2 + 0 + 1.5) / 4)
  gradient = jax.grad(reconstruction.discounted_l1)(PRED, TARGET, 0.5)
  assert gradient[0, 1, 1, 0] == 0.5 / 4
