import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.losses import perceptual


def test_gram_matrix_by_hand():
  features = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)  # two positions, two channels
  np.testing.assert_allclose(
    perceptual.gram_matrix(features)[0], np.array([[10, 14], [14, 20]]) / (2 * 1 * 2)
  )


def test_losses_by_hand_and_weights():
  pred = {'a': jnp.ones((1, 1, 2, 1)), 'b': 3 * jnp.ones((1, 1, 1, 2))}
  target = {'a': jnp.zeros((1, 1, 2, 1)), 'b': jnp.ones((1, 1, 1, 2))}
  assert perceptual.perceptual(pred, target) == 1 + 2
  assert perceptual.perceptual(pred, target, {'a': 2.0, 'b': 0.5}) == 2 + 1
  # Gram matrices: 'a' 2/2 against 0; 'b' all four entries 9/2 against 1/2.
  assert perceptual.style(pred, target) == 1 + 4
  assert perceptual.style(pred, target, {'a': 2.0, 'b': 0.5}) == 2 + 2


def test_no_gradient_into_the_target():
  features = {'a': jnp.arange(4.0).reshape(1, 1, 2, 2)}
  other = {'a': jnp.ones((1, 1, 2, 2))}
  for loss in (perceptual.perceptual, perceptual.style):
    by_pred, by_target = jax.grad(loss, (0, 1))(features, other)
    assert jnp.any(by_pred['a'] != 0) and jnp.all(by_target['a'] == 0)


def test_layers_must_be_the_same():
  a, b = {'a': jnp.ones((1, 1, 1, 1))}, {'b': jnp.ones((1, 1, 1, 1))}
  for args in ((a, b), (a, a, {'b': 1.0}), ({}, {})):
    with pytest.raises(ValueError, match='same layers'):
      perceptual.style(*args)


def test_bfloat16_features_are_promoted():
  x = jax.random.normal(jax.random.key(0), (1, 16, 16, 4)).astype(jnp.bfloat16)
  gram = perceptual.gram_matrix(x)
  flat = np.asarray(x, np.float64).reshape(-1, 4)
  assert gram.dtype == jnp.float32
  goldens.assert_close(gram[0], flat.T @ flat / flat.size, 1e-6)
