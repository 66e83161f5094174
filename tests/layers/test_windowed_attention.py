"""Windows, their shift, and MAT's block against the authors' code."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import windowed_attention as windowed
from jaxinpaint.systems.mat import published
from jaxinpaint.weights import mapping


@goldens.cases('mat_swin_block', 'mat_swin_block_shift')
def test_block(case):
  data = case.data()
  state = {f'block.{key}': value for key, value in case.state().items()}
  tree = mapping.convert(state, published.block_entries('block', ()))
  block = windowed.WindowBlock(8, shift=4 if case.name.endswith('shift') else 0)
  run = jax.jit(block.apply)
  variables = {'params': tree['params']['generator']}
  square = lambda name: data[name].reshape(2, 32, 32, -1)
  y, valid = run(variables, square('x'), square('mask'))
  goldens.assert_close(y, square('y'), what='y')
  np.testing.assert_array_equal(valid, square('mask_out'))
  y, valid = run(variables, square('x'))
  goldens.assert_close(y, square('y_nomask'), what='without a mask')
  assert valid is None


@goldens.cases('mat_partial_conv_down')
def test_partial_convolution(case):
  data = case.data()
  entries = mapping.conv('conv', 'network', ('conv',))
  params = mapping.convert(case.state(), entries, published.IGNORE)['params']['network']
  conv = windowed.PartialEqualConv(12, down=True)
  y, valid = conv.apply({'params': params}, goldens.nhwc(data['x']), goldens.nhwc(data['mask']))
  goldens.assert_close(goldens.nchw(y), data['y'], what='y')
  np.testing.assert_array_equal(goldens.nchw(valid), data['mask_out'])


def test_windows_come_back():
  x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  windows = windowed.to_windows(jnp.asarray(x), 2)
  assert windows.shape == (12, 4, 3)
  np.testing.assert_array_equal(windows[1], x[0, :2, 2:4].reshape(4, 3))
  np.testing.assert_array_equal(windowed.from_windows(windows, 2, 4, 6), x)


def test_a_token_reads_those_beside_it_in_the_picture_alone():
  """Which tokens are moved by one, in a map of 8 x 8 with windows of 4, shifted by 2."""
  block = windowed.WindowBlock(4, shift=2, heads=1)
  x = jax.random.normal(jax.random.key(0), (1, 8, 8, 2))
  variables = block.init(jax.random.key(1), x)
  run = jax.jit(lambda x, valid: block.apply(variables, x, valid)[0][0])

  def moved(i, j, valid):
    difference = run(x.at[0, i, j].add(1.0), valid) - run(x, valid)
    return np.argwhere(np.asarray(difference).any(-1)).tolist()

  square = lambda rows, columns: [[r, c] for r in rows for c in columns]
  assert moved(3, 3, None) == square(range(2, 6), range(2, 6))
  assert moved(0, 7, None) == square(range(2), (6, 7))
  # One that is hidden is read by itself alone, as the block's input.
  valid = jnp.ones((1, 8, 8, 1)).at[0, 3, 3].set(0.0)
  assert moved(3, 3, valid) == [[3, 3]]


def test_a_window_is_valid_where_any_token_was():
  block = windowed.WindowBlock(4, shift=2, heads=1)
  x, valid = jnp.ones((1, 8, 8, 2)), jnp.zeros((1, 8, 8, 1)).at[0, 3, 5].set(1.0)
  _, after = block.apply(block.init(jax.random.key(0), x), x, valid)
  assert np.argwhere(np.asarray(after)[0, ..., 0]).tolist() == [
    [r, c] for r in range(2, 6) for c in range(2, 6)
  ]


def test_zero_tokens_have_a_finite_gradient():
  x = jnp.zeros((1, 2, 3)).at[0, 1].set(jnp.array([3.0, 0.0, 4.0]))
  np.testing.assert_allclose(windowed.normalise(x)[0, 1], [0.6, 0.0, 0.8], rtol=1e-6)
  gradient = jax.grad(lambda x: windowed.normalise(x)[..., 0].sum())(x)
  np.testing.assert_allclose(gradient[0], [[0, 0, 0], [16 / 125, 0, -12 / 125]], atol=1e-6)


def test_maps_that_windows_do_not_divide_are_refused():
  with pytest.raises(ValueError, match='a map of 8 x 6 tokens cannot be divided into windows of 4'):
    windowed.WindowBlock(4, heads=1).init(jax.random.key(0), jnp.ones((1, 8, 6, 2)))
