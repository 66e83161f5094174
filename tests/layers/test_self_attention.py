import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import self_attention


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_every_place_is_a_mean_of_all_weighted_by_products():
  queries, values = draw(2, 2, 3, 4), draw(2, 2, 3, 5, seed=1)
  found = self_attention.attend(queries, values)
  q, v = (np.asarray(x, np.float64).reshape(2, 6, -1) for x in (queries, values))
  for b in range(2):
    for i in range(6):
      weights = np.exp([q[b, i] @ q[b, j] for j in range(6)])
      want = sum(w * v[b, j] for j, w in enumerate(weights)) / weights.sum()
      np.testing.assert_allclose(found[b].reshape(6, 5)[i], want, atol=1e-5)


def test_blocks_are_the_plain_form_and_so_are_their_gradients(monkeypatch):
  monkeypatch.setattr(self_attention, 'BLOCK_ELEMENTS', 2 * 15 * 4)  # 4 blocks, one filled up
  queries, values = draw(2, 3, 5, 4), draw(2, 3, 5, 2, seed=1)

  @jax.jit
  def both(queries, values):
    def loss(form):
      of = lambda q, v: (self_attention.attend(q, v, form=form) * draw(2, 3, 5, 2, seed=2)).sum()
      return jax.value_and_grad(of, (0, 1))(queries, values)

    return loss('plain'), loss('blocks')

  plain, blocks = both(queries, values)
  for a, b in zip(*map(jax.tree.leaves, (plain, blocks)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_number_of_scores_decides_which_form_runs(monkeypatch):
  monkeypatch.setattr(self_attention, 'PLAIN_ELEMENTS', 2 * 36)
  text = lambda *shape: str(jax.make_jaxpr(self_attention.attend)(draw(*shape), draw(*shape)))
  assert 'scan' not in text(2, 2, 3, 1) and 'scan' in text(3, 2, 3, 1)
  with pytest.raises(ValueError, match="'whole' must be 'plain' or 'blocks'"):
    self_attention.attend(draw(1, 2, 2, 1), draw(1, 2, 2, 1), form='whole')
