import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import shift as shift_lib
from jaxinpaint.layers.shift import nearest, shift


def test_a_place_in_the_hole_takes_the_most_similar_known_feature():
  latter = jnp.asarray([[2.0, 0], [0, 3], [1, 1], [5, 5], [9, 1]]).reshape(1, 1, 5, 2)
  former = jnp.asarray([[0.0, 1], [0, 1], [0, 1], [2, 2], [1, 0.1]]).reshape(1, 1, 5, 2)
  hole = jnp.asarray([0.0, 0, 0, 1, 1]).reshape(1, 1, 5, 1)
  shifted, index = shift(former, latter, hole)
  # By the cosine, not by the product; the hole's own features (5, 5) and (9, 1) are no choice.
  assert shifted[0, 0].tolist() == [[0, 0], [0, 0], [0, 0], [1, 1], [2, 0]]
  assert index[0, 0, 3:].tolist() == [2, 0]
  more = jnp.asarray([[3.0, 3], [10, 1]]).reshape(1, 1, 2, 2)
  shifted, index = shift(former, latter, hole, (more, jnp.zeros((1, 1, 2, 1))))
  assert shifted[0, 0, 3:].tolist() == [[1, 1], [10, 1]], 'the first of equals wins'
  assert index[0, 0, 3:].tolist() == [2, 6]


def test_features_of_no_length_are_like_nothing():
  keys = jnp.asarray([[[0.0, 0], [-1, 0], [0, 1]]])
  queries = jnp.asarray([[[1.0, 0], [0, 0], [0, 2]]])
  index, cosine = nearest(queries, keys, jnp.ones((1, 3), bool), jnp.ones((1, 3), bool))
  assert index.tolist() == [[0, 0, 2]] and cosine.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize('side', [6, 7])
def test_blocks_give_what_all_at_once_gives(side, monkeypatch):
  monkeypatch.setattr(shift_lib, 'BLOCK_ELEMENTS', 5 * side**2)
  keys = jax.random.split(jax.random.key(0), 4)
  x, y, g = (jax.random.normal(k, (2, side, side, 8)) for k in keys[:3])
  hole = jnp.zeros((2, side, side, 1)).at[0, 2:5, 3:].set(1).at[1, 5, 1].set(1)

  def run(form):
    def both(x, y):
      shifted, pull = jax.vjp(lambda x, y: shift(x, y, hole, form=form)[0], x, y)
      return shifted, pull(g)

    return jax.jit(both)(x, y)

  for a, b in zip(*(jax.tree.leaves(run(form)) for form in ('plain', 'blocks')), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert not run('plain')[1][0].any(), 'the decoder only chooses'


@pytest.mark.parametrize('form', ['plain', 'blocks'])
def test_without_a_hole_or_with_nothing_else_there_is_nothing_to_shift(form):
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
  hole = jnp.zeros((2, 3, 4, 1)).at[1].set(1)
  value, grad = jax.value_and_grad(lambda x: shift(x, x, hole, form=form)[0].sum())(x)
  assert value == 0 and not grad.any()


def test_an_unknown_form_is_named():
  x, all_ = jnp.ones((1, 2, 3)), jnp.ones((1, 2), bool)
  with pytest.raises(ValueError, match="form 'loop' must be 'plain' or 'blocks'"):
    nearest(x, x, all_, all_, form='loop')
