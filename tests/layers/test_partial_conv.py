import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.partial_conv import PartialConv


def kernel(state, key):
  params = {'kernel': state[f'{key}.weight'].transpose(2, 3, 1, 0)}
  return params | ({'bias': state[f'{key}.bias']} if f'{key}.bias' in state else {})


@goldens.cases('partial_conv_nvidia')
def test_layer_and_mask(case):
  state, data = case.state(), case.data()
  x, mask = goldens.nhwc(data['x']), goldens.nhwc(data['mask'])
  layers = {
    'a': PartialConv(8, 7, stride=2, padding=3),
    'b': PartialConv(6, 3, padding=1, use_bias=False),
    'c': PartialConv(5, 3, padding=1),
  }
  for name, layer in layers.items():
    x, mask = jax.jit(layer.apply)({'params': kernel(state, name)}, x, mask)
    goldens.assert_close(goldens.nchw(x), data[name], what=name)
    theirs = data[f'mask_{name}']
    goldens.assert_close(np.broadcast_to(goldens.nchw(mask), theirs.shape), theirs, 0, name)
  # Its 'c_nomask' is no other case: that layer remembers the mask of the call before.


def test_what_is_not_known_has_no_say_and_no_gradient():
  x = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
  mask = jnp.ones((1, 8, 8, 1)).at[:, 2:7, 2:7].set(0)
  layer = PartialConv(4, 3, padding=1)
  variables = jax.jit(layer.init)(jax.random.key(1), x, mask)
  run = jax.jit(lambda x, mask: layer.apply(variables, x, mask)[0].sum())
  grad_x = jax.jit(jax.grad(run))(x, mask)
  assert not (grad_x * (1 - mask)).any() and (grad_x * mask).any() and not np.isnan(grad_x).any()
  assert run(jnp.where(mask > 0, x, 100.0), mask) == run(x, mask)
  with pytest.raises(ValueError, match='mask of 2 channels must have 1 or 3'):
    layer.apply(variables, x, mask.repeat(2, -1))


@goldens.cases('partial_conv_naoto0804')
def test_the_mean_of_the_known_values(case):
  rename = lambda key: key.replace('.input_conv', '')
  state, data = {rename(k): v for k, v in case.state().items()}, case.data()
  x, mask = goldens.nhwc(data['x']), goldens.nhwc(data['mask'])
  layers = {
    'a': PartialConv(8, 7, stride=2, padding=3, renorm='mean'),
    'b': PartialConv(6, 3, padding=1, use_bias=False, renorm='mean'),
  }
  for name, layer in layers.items():
    x, mask = jax.jit(layer.apply)({'params': kernel(state, name)}, x, mask)
    goldens.assert_close(goldens.nchw(x), data[name], what=name)
    theirs = data[f'mask_{name}']
    goldens.assert_close(np.broadcast_to(goldens.nchw(mask), theirs.shape), theirs, 0, name)
  with pytest.raises(ValueError, match="renorm 'sum' must be 'ratio' or 'mean'"):
    PartialConv(4, renorm='sum').init(jax.random.key(0), x, mask)
