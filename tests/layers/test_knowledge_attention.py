import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import knowledge_attention as layer


def test_blocks_remember_as_the_plain_form_does(monkeypatch):
  rng = np.random.default_rng(0)
  f = rng.standard_normal((2, 2, 4, 6, 5)).astype(np.float32) / 2  # two steps of two images
  known = (rng.random((2, 2, 4, 6, 1)) > 0.5).astype(np.float32)
  monkeypatch.setattr(layer, 'BLOCK_ELEMENTS', 5 * 24)  # 24 places, five at a time: a remainder

  def run(f, ratio, form):
    memory, outputs = layer.empty(f[0].shape, 3, form), []
    for i in range(2):  # of three for which there is room
      out, memory = layer.attend(f[i], known[i], memory, ratio)
      outputs.append(out)
    return jnp.stack(outputs)

  def both(f, ratio, form):
    out, pull = jax.vjp(lambda *x: run(*x, form), f, ratio)
    return out, *pull(jnp.cos(7 * out))

  found = [
    jax.jit(both, static_argnums=2)(f, np.float32([0.7]), form) for form in ('plain', 'blocks')
  ]
  for a, b in zip(*found, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_known_place_keeps_its_scores_and_a_hole_forgets_them():
  rng = np.random.default_rng(0)
  first, second = rng.standard_normal((2, 1, 4, 4, 3)).astype(np.float32)
  known = np.zeros((1, 4, 4, 1), np.float32)
  known[:, :2] = 1
  start = layer.empty(first.shape, 2)
  run = jax.jit(layer.attend)
  _, memory = run(first, known, start, np.float32([1e-3]))
  _, after = run(second, known, memory, np.float32([1e-3]))
  _, alone = run(second, known, start, np.float32([1e-3]))
  np.testing.assert_allclose(after.scores[0, :8], memory.scores[0, :8], atol=2e-3)
  np.testing.assert_allclose(after.scores[0, 8:], alone.scores[0, 8:], atol=1e-6)


def test_features_of_nothing_have_finite_gradients():
  f = jnp.zeros((1, 4, 4, 3))
  start = layer.empty(f.shape, 1)
  run = lambda f: layer.attend(f, f[..., :1], start, jnp.ones(1))[0].sum()
  assert np.isfinite(jax.jit(jax.grad(run))(f)).all()


def test_the_form_follows_the_number_of_scores():
  forms = lambda *shape: jax.eval_shape(lambda: layer.empty(shape, 6)).scores is None
  assert not forms(1, 64, 64, 8) and forms(6, 64, 64, 8) and forms(1, 128, 128, 8)
  with pytest.raises(ValueError, match="form 'fast' must be"):
    layer.empty((1, 4, 4, 3), 1, 'fast')
