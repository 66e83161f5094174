import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ModifyScopeVariableError

from jaxinpaint.layers import conv
from jaxinpaint.layers.spectral_norm import SNConv, SNConvTranspose
from jaxinpaint.weights import mapping


@goldens.cases('spectral_norm_train')
def test_training_forwards_advance_u_and_v_as_torch(case):
  data, state = case.data(), case.state()
  entries = mapping.sn_conv('conv', 'net', ('conv',)) + mapping.sn_conv(
    'deconv', 'net', ('deconv',), layout='conv_transpose'
  )
  tree = mapping.convert(state, entries)
  layers = {
    'conv': SNConv(10, 4, stride=2, padding=1),
    'deconv': SNConvTranspose(7, 4, 2, 1),
  }
  x = goldens.nhwc(data['x'])
  spectral = tree['stats']['net']['spectral']
  run = lambda layer: jax.jit(lambda v, y: layer.apply(v, y, train=True, mutable=['spectral']))
  runs = {name: run(layer) for name, layer in layers.items()}
  for step in (1, 2):
    y = x
    for name, train in runs.items():
      variables = {'params': tree['params']['net'][name], 'spectral': spectral[name]}
      y, changed = train(variables, y)
      spectral = {**spectral, name: changed['spectral']}
      goldens.assert_close(goldens.nchw(y), data[f'{name}_out{step}'], what=f'{name} {step}')
      for vector in 'uv':
        want = data[f'{name}_{vector}{step}']
        goldens.assert_close(changed['spectral'][vector], want, what=f'{name} {vector}{step}')


def test_evaluation_uses_the_stored_vectors_and_changes_nothing():
  layer, x = SNConv(3, 3), jnp.ones((1, 4, 4, 2))
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  apply = jax.jit(lambda v, x: layer.apply(v, x, mutable=['spectral']))
  y, changed = apply(variables, x)
  for name in 'uv':
    np.testing.assert_array_equal(changed['spectral'][name], variables['spectral'][name])
  doubled = jax.tree.map(lambda v: 2 * v, variables['params']['kernel'])
  again, _ = apply({**variables, 'params': {**variables['params'], 'kernel': doubled}}, x)
  np.testing.assert_allclose(y, again, rtol=1e-5)


@pytest.mark.parametrize('layer', [SNConv(3, 3, always=True), SNConvTranspose(3, always=True)])
def test_an_iteration_in_every_pass_is_that_of_training_and_is_forgotten(layer):
  x = jnp.ones((1, 4, 4, 2))
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  run = jax.jit(
    lambda v, train: layer.apply(v, x, train=train, mutable=['spectral']), static_argnums=1
  )
  trained, moved = run(variables, True)
  found, kept = run(variables, False)
  np.testing.assert_allclose(found, trained, rtol=1e-6)
  for name in 'uv':
    np.testing.assert_array_equal(kept['spectral'][name], variables['spectral'][name])
    assert (moved['spectral'][name] != variables['spectral'][name]).any()


def test_rows_of_inputs_flatten_a_transposed_kernel_as_it_is_stored():
  layer, x = SNConvTranspose(3, rows='in', use_bias=False, always=True), jnp.ones((1, 4, 4, 2))
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  kernel = np.asarray(variables['params']['kernel'], np.float64)
  matrix = kernel.transpose(2, 3, 0, 1).reshape(2, -1)  # PyTorch's [in, out, kh, kw]
  u = np.linalg.svd(matrix)[0][:, 0].astype(np.float32)
  spectral = dict(u=jnp.asarray(u), v=variables['spectral']['v'])
  assert spectral['v'].shape == (3 * 16,)
  found = layer.apply({**variables, 'spectral': spectral}, x)
  plain = conv.conv_transpose2d(x, kernel / np.linalg.norm(matrix, 2), stride=2, padding=1)
  np.testing.assert_allclose(found, plain, atol=1e-5)


def test_training_needs_the_collection_to_be_mutable():
  layer, x = SNConv(3, 3), jnp.ones((1, 4, 4, 2))
  variables = jax.jit(lambda key: layer.init(key, x, train=True))(jax.random.key(0))
  with pytest.raises(ModifyScopeVariableError):
    layer.apply(variables, x, train=True)


def test_gradient_flows_through_sigma_with_constant_vectors():
  layer, x = SNConv(1, 1, use_bias=False), jnp.ones((1, 1, 1, 2))
  kernel = jnp.asarray([3.0, 4.0]).reshape(1, 1, 2, 1)
  spectral = {'u': jnp.ones(1), 'v': jnp.asarray([0.6, 0.8])}
  loss = lambda k: layer.apply({'params': {'kernel': k}, 'spectral': spectral}, x).sum()
  # y = sum(w) / sigma, sigma = w . v = 5: dy/dw = 1/sigma - sum(w) v / sigma^2
  np.testing.assert_allclose(
    jax.jit(jax.grad(loss))(kernel).reshape(-1), [0.2 - 7 * 0.6 / 25, 0.2 - 7 * 0.8 / 25], rtol=1e-5
  )


@goldens.cases('spectral_norm_power_iteration')
def test_forwards_with_u_alone_are_those_of_a_kernel_divided_in_place(case):
  data, state = case.data(), case.state()
  kernel, u = state['weight'].transpose(2, 3, 1, 0), state['weight_u'][:, 0]
  variables = {'params': {'kernel': kernel, 'bias': state['bias']}, 'spectral': {'u': u}}
  layer, x = SNConv(10, 3, padding=1, always=True, keep_v=False), goldens.nhwc(data['x'])
  train = jax.jit(lambda v: layer.apply(v, x, train=True, mutable=['spectral']))
  rest = jax.jit(lambda v: layer.apply(v, x, mutable=['spectral']))
  for call in (1, 2, 3):
    y, same = rest(variables)
    goldens.assert_close(goldens.nchw(y), data[f'y{call}'], what=f'y{call} at rest')
    np.testing.assert_array_equal(same['spectral']['u'], variables['spectral']['u'])
    y, changed = train(variables)
    goldens.assert_close(goldens.nchw(y), data[f'y{call}'], what=f'y{call}')
    goldens.assert_close(changed['spectral']['u'], data[f'u{call}'][:, 0], what=f'u{call}')
    variables = {**variables, **changed}
  # The kernel that is left of dividing three times is the one of ours, normalised.
  sigma = np.linalg.norm(kernel) / np.linalg.norm(data['w3'])
  goldens.assert_close(kernel.transpose(3, 2, 0, 1) / sigma, data['w3'], what='w3')


def test_padding_as_tensorflow_is_less_above_and_left():
  layer = SNConv(1, 3, stride=2, padding='same', always=True, keep_v=False, use_bias=False)
  variables = {
    'params': {'kernel': jnp.zeros((3, 3, 1, 1)).at[0, 0].set(2.0)},
    'spectral': {'u': jnp.ones(1)},
  }
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)  # no padding above or left: the first tap is x[0, 0]
  y = jax.jit(layer.apply)(variables, x)
  np.testing.assert_allclose(y[0, :, :, 0], x[0, ::2, ::2, 0], rtol=1e-6)
