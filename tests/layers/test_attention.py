import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.attention import ExternalSpatialAttention


@pytest.mark.parametrize('memory', ('mlp', 'matrix'))
def test_key_mixes_rows_and_value_mixes_columns(memory):
  layer = ExternalSpatialAttention(6, 4, memory, kernel_init=jax.nn.initializers.normal(1.0))
  x = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype(np.float32)
  out, variables = layer.init_with_output(jax.random.key(1), x)
  params = jax.tree.map(np.asarray, variables['params'])
  params = jax.tree.map(lambda p: p + 0.1 * (p.ndim == 1), params)  # biases count too
  out = layer.apply({'params': params}, x)

  def mlp(p, column):  # one vector along the axis
    hidden = np.maximum(column @ p['fc1']['kernel'] + p['fc1']['bias'], 0)
    return hidden @ p['fc2']['kernel'] + p['fc2']['bias']

  def act(p, column):
    if memory == 'mlp':
      return mlp(p, column)
    return sum(x * mlp(p, unit) for x, unit in zip(column, np.eye(6), strict=True))

  want = np.empty_like(x)
  for b in range(2):
    for c in range(3):
      keyed = np.stack([act(params['key'], x[b, :, w, c]) for w in range(6)], 1)
      want[b, :, :, c] = np.stack([act(params['value'], keyed[h]) for h in range(6)])
  np.testing.assert_allclose(out, want, atol=1e-4)


def test_another_size_is_refused():
  with pytest.raises(ValueError, match='size 6 got 6 x 8'):
    ExternalSpatialAttention(6).init(jax.random.key(0), jnp.zeros((1, 6, 8, 3)))
  with pytest.raises(ValueError, match="memory 'rows' must be 'mlp' or 'matrix'"):
    ExternalSpatialAttention(6, memory='rows').init(jax.random.key(0), jnp.zeros((1, 6, 6, 3)))
