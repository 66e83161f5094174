import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import region_affinity as layer


def test_blocks_equal_the_plain_form_with_gradients(monkeypatch):
  x = jax.random.normal(jax.random.key(0), (2, 12, 16, 3))
  monkeypatch.setattr(layer, 'BLOCK_ELEMENTS', 5 * 48)  # 48 places, five at a time: a remainder
  target = jax.random.normal(jax.random.key(1), x.shape)
  values = {}
  for form in ('plain', 'blocks'):
    loss = lambda x, form=form: (layer.region_affinity(x, form=form) * target).sum()
    values[form] = layer.region_affinity(x, form=form), jax.grad(loss)(x)
  for a, b in zip(*values.values(), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_flat_picture_has_finite_gradients():
  grad = jax.grad(lambda x: layer.region_affinity(x).sum())(jnp.zeros((1, 8, 8, 2)))
  assert np.isfinite(grad).all()


def test_odd_sides_and_unknown_forms_are_named():
  with pytest.raises(ValueError, match='7 x 8 must have even sides'):
    layer.region_affinity(jnp.zeros((1, 7, 8, 2)))
  with pytest.raises(ValueError, match="form 'fast' must be"):
    layer.region_affinity(jnp.zeros((1, 8, 8, 2)), form='fast')
