from unittest import mock

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import shift
from jaxinpaint.layers.coherent_attention import coherent_attention, feature_hole


@goldens.cases('csa_feature_mask')
def test_feature_hole(case):
  data = case.data()
  got = jax.jit(feature_hole)(goldens.nhwc(data['mask']))
  np.testing.assert_array_equal(goldens.nchw(got), data['out'])


@goldens.cases('csa_layer')
def test_layer_and_its_gradient(case):
  data = case.data()
  x, g = goldens.nhwc(data['x']), goldens.nhwc(data['grad_out'])
  hole = jnp.broadcast_to(data['mask'][None, ..., None], (*x.shape[:3], 1))
  out, back = jax.jit(lambda x: jax.vjp(lambda x: coherent_attention(x, hole), x))(x)
  goldens.assert_close(goldens.nchw(out), data['out'], what='out')
  goldens.assert_close(goldens.nchw(back(g)[0]), data['grad_x'], what='gradient')


def plain(x, hole):
  """One image [N,C] by the formula, place after place."""
  x, hole = np.asarray(x, np.float64), np.asarray(hole) == 1
  keys = x / np.linalg.norm(x, axis=1, keepdims=True)
  known, out, before = np.flatnonzero(~hole), x.copy(), None
  for i in np.flatnonzero(hole):
    scores = keys[known] @ x[i]
    source, v = x[known[scores.argmax()]], scores.max()
    a = 0.0 if before is None else keys[i] @ before
    before = source if before is None else (a * before + v * source) / (a + v)
    out[i] = before
  return out


@pytest.fixture(scope='module')
def features():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, 5, 7, 6)).astype(np.float32) + 0.7
  hole = np.zeros((2, 5, 7, 1), np.float32)
  hole[0, 1:4, 2:6], hole[1, 2:, :3] = 1, 1
  return x, hole


def test_a_map_that_is_no_square_with_a_hole_of_each_image(features):
  x, hole = features
  got = jax.jit(coherent_attention)(x, hole)
  for one, its_hole, found in zip(x, hole, got, strict=True):
    want = plain(one.reshape(35, 6), its_hole.ravel())
    np.testing.assert_allclose(found.reshape(35, 6), want, atol=1e-5)
  np.testing.assert_array_equal(got[hole[..., 0] == 0], x[hole[..., 0] == 0])


def test_blocks_equal_all_scores_at_once(features):
  x, hole = features
  with mock.patch.object(shift, 'BLOCK_ELEMENTS', 35 * 4):
    blocks = jax.jit(lambda x: coherent_attention(x, hole, form='blocks'))(x)
  np.testing.assert_array_equal(blocks, jax.jit(coherent_attention)(x, hole))


def test_the_true_gradient_is_the_formulas(features):
  x, hole = (a[:1] for a in features)
  weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
  loss = lambda x: (coherent_attention(x, hole, gradient='true') * weights).sum()
  got = np.asarray(jax.jit(jax.grad(loss))(x)).ravel()
  value = lambda x: (plain(x.reshape(35, 6), hole.ravel()) * weights.reshape(35, 6)).sum()
  for k in range(0, got.size, 7):
    step = np.zeros(x.size)
    step[k] = 1e-5
    step = step.reshape(x.shape)
    assert got[k] == pytest.approx((value(x + step) - value(x - step)) / 2e-5, rel=1e-2, abs=1e-2)


@pytest.mark.parametrize('gradient', ['reference', 'true'])
def test_any_hole_has_finite_gradients(features, gradient):
  x = features[0].copy()
  x[:, 2, 3] = 0  # a place without any feature

  def loss(x, hole):
    y = coherent_attention(x, hole, gradient=gradient)
    return jnp.square(y).sum(), y

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  one = np.zeros((2, 5, 7, 1), np.float32)
  one[:, 2, 3] = 1
  for hole in (0 * one, one, 1 - one, 1 + 0 * one, np.stack([one[0], 1 + 0 * one[1]])):
    (_, y), grad = run(x, hole)
    assert np.isfinite(y).all() and np.isfinite(grad).all()
  np.testing.assert_array_equal(run(x, 1 + 0 * one)[0][1], x)  # nothing to take from


def test_an_unknown_gradient_is_named(features):
  with pytest.raises(ValueError, match="gradient 'exact' must be 'reference' or 'true'"):
    coherent_attention(*features, gradient='exact')
