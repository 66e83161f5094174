import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import level_attention as layer

fill = jax.jit(layer.fill, static_argnames=('form', 'rule'))
scores = jax.jit(layer.scores, static_argnums=(2, 3))


@goldens.cases('lfr_attention')
def test_scores_and_filling(case):
  data = case.data()
  deep, shallow, hole = (goldens.nhwc(data[n]) for n in ('P', 'Q', 'hole'))
  for name, scale in (('scores', 10.0), ('scores_scale1', 1.0)):
    goldens.assert_close(
      np.asarray(scores(deep, hole, scale, 'clear'))[:, ::4], data[name], what=name
    )
  for form in ('plain', 'blocks'):
    filled = fill(deep, shallow, hole, form=form, rule='clear')  # as the reference
    goldens.assert_close(goldens.nchw(filled), data['filled'], what=form)


def test_blocks_equal_the_plain_form_with_gradients(monkeypatch):
  monkeypatch.setattr(layer, 'BLOCK_ELEMENTS', 5 * 32)  # 32 cells, five at a time: a remainder
  draw = np.random.default_rng(0).standard_normal
  deep, shallow = draw((2, 4, 8, 3), np.float32), draw((2, 8, 16, 2), np.float32)
  weight = draw(shallow.shape, np.float32)
  hole = np.zeros((2, 16, 32, 1), np.float32)
  hole[:, 4:9, 8:13] = 1
  values = {}
  for form in ('plain', 'blocks'):

    def run(a, b, form=form):
      filled = layer.fill(a, b, hole, form=form)
      return (filled * weight).sum(), filled

    gradients, filled = jax.jit(jax.grad(run, (0, 1), has_aux=True))(deep, shallow)
    values[form] = filled, *gradients
  for a, b in zip(*values.values(), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_each_sample_has_its_own_hole_and_a_picture_of_hole_is_filled_with_zero():
  draw = np.random.default_rng(0).standard_normal
  deep, shallow = draw((3, 4, 4, 3), np.float32), draw((3, 8, 8, 2), np.float32)
  hole = np.zeros((3, 16, 16, 1), np.float32)
  hole[0] = hole[1, :12] = 1
  filled = np.asarray(fill(deep, shallow, hole))
  assert not filled[0].any() and np.isfinite(filled).all()
  # Of the second only a row of cells is known, next to the hole: both rules use it.
  for rule in ('known', 'clear'):
    np.testing.assert_array_equal(
      layer.valid_keys(layer.pool_mask(hole, 4, 4), rule)[1], [False] * 12 + [True] * 4
    )
  assert filled[1, :6].any()
  np.testing.assert_array_equal(filled[2], shallow[2])
  grad = jax.jit(jax.grad(lambda x: layer.fill(x, shallow, hole).sum()))(np.zeros_like(deep))
  assert np.isfinite(grad).all()


def test_keys_are_all_cells_outside_the_hole_or_those_that_have_not_seen_it():
  cells = np.zeros((1, 4, 5, 1), np.float32)
  cells[0, 0, 1] = 1
  known, clear = (layer.valid_keys(cells, rule).reshape(4, 5) for rule in ('known', 'clear'))
  np.testing.assert_array_equal(known, cells[0, ..., 0] == 0)
  seen = np.zeros((4, 5), bool)
  seen[:2, :3] = True
  np.testing.assert_array_equal(clear, ~seen)
  np.testing.assert_array_equal(layer.valid_keys(cells), layer.valid_keys(cells, 'known'))
  with pytest.raises(ValueError, match="rule 'near' of the keys must be 'known' or 'clear'"):
    layer.valid_keys(cells, 'near')


def test_wrong_sizes_are_named():
  with pytest.raises(ValueError, match='8 x 12 features have no square cells on a 4 x 4 grid'):
    layer.fill(jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 8, 12, 1)), jnp.zeros((1, 16, 16, 1)))
  with pytest.raises(ValueError, match='15 x 16 has no cells'):
    layer.pool_mask(jnp.zeros((1, 15, 16, 1)), 4, 4)
