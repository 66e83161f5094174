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


@pytest.mark.parametrize('size', [1, 3])
def test_a_transfer_with_free_keys_by_blocks(size, monkeypatch):
  rng = np.random.default_rng(0)
  deep, shallow = rng.standard_normal((2, 4, 6, 3)), rng.standard_normal((2, 8, 12, 2))
  valid = (rng.random((2, 24)) > 0.5).astype(np.float32)
  monkeypatch.setattr(layer, 'BLOCK_ELEMENTS', 5 * 24)

  def both(form):
    run = lambda *x: layer.transfer(*x, valid, size=size, form=form)
    out, pull = jax.vjp(run, jnp.asarray(deep), jnp.asarray(shallow))
    return out, *pull(out)

  for a, b in zip(*map(jax.jit(both, static_argnums=0), ('plain', 'blocks')), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_flat_picture_has_finite_gradients():
  grad = jax.jit(jax.grad(lambda x: layer.region_affinity(x).sum()))(jnp.zeros((1, 8, 8, 2)))
  assert np.isfinite(grad).all()


def test_odd_sides_and_unknown_forms_are_named():
  with pytest.raises(ValueError, match='7 x 8 must have even sides'):
    layer.region_affinity(jnp.zeros((1, 7, 8, 2)))
  with pytest.raises(ValueError, match="form 'fast' must be"):
    layer.region_affinity(jnp.zeros((1, 8, 8, 2)), form='fast')
  with pytest.raises(ValueError, match='must have twice the sides'):
    layer.transfer(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 8, 6, 2)))
  with pytest.raises(ValueError, match='size 2 of the patches'):
    layer.transfer(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 8, 8, 2)), size=2)
