import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import region_affinity as layer


def test_blocks_equal_the_plain_form_with_gradients(monkeypatch):
  x, target = np.random.default_rng(0).standard_normal((2, 2, 12, 16, 3), np.float32)
  monkeypatch.setattr(layer, 'BLOCK_ELEMENTS', 5 * 48)  # 48 places, five at a time: a remainder
  values = {}
  for form in ('plain', 'blocks'):

    def loss(x, form=form):
      found = layer.region_affinity(x, form=form)
      return (found * target).sum(), found

    values[form] = jax.jit(jax.grad(loss, has_aux=True))(x)
  for a, b in zip(*values.values(), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_flat_picture_has_finite_gradients():
  grad = jax.jit(jax.grad(lambda x: layer.region_affinity(x).sum()))(jnp.zeros((1, 8, 8, 2)))
  assert np.isfinite(grad).all()


def test_odd_sides_and_unknown_forms_are_named():
  with pytest.raises(ValueError, match='7 x 8 must have even sides'):
    layer.region_affinity(jnp.zeros((1, 7, 8, 2)))
  with pytest.raises(ValueError, match="form 'fast' must be"):
    layer.region_affinity(jnp.zeros((1, 8, 8, 2)), form='fast')
