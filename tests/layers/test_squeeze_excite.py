import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.squeeze_excite import SEResnetBlock, SqueezeExcite
from jaxinpaint.systems.seresnet_cx import published
from jaxinpaint.weights import mapping


@goldens.cases('seresnet_cx_se_block')
def test_squeeze_excite(case):
  data, state = case.data(), case.state()
  entries = [e for n in ('fc1', 'fc2') for e in mapping.dense(n, 'block', (n,))]
  params = mapping.convert(state, entries)['params']['block']
  reduction = state['fc1.weight'].shape[1] // state['fc1.weight'].shape[0]
  out = jax.jit(SqueezeExcite(reduction).apply)({'params': params}, goldens.nhwc(data['x']))
  goldens.assert_close(goldens.nchw(out), data['out'])


@goldens.cases('seresnet_cx_block_down', 'seresnet_cx_block_same')
def test_block(case):
  data, state = case.data(), case.state()
  shortcut = 'down.0.weight' in state
  tree = mapping.convert(state, published.block_entries('', 'block', (), shortcut))
  stride = data['x'].shape[2] // data['out'].shape[2]
  block = SEResnetBlock(data['out'].shape[1], stride)
  variables = {'params': tree['params']['block'], **tree['stats']['block']}
  out = jax.jit(block.apply)(variables, goldens.nhwc(data['x']))
  goldens.assert_close(goldens.nchw(out), data['out'])


def test_training_takes_the_statistics_of_the_batch_and_moves_the_running_ones():
  x = 3 * jax.random.normal(jax.random.key(0), (4, 6, 6, 8)) + 1
  block = SEResnetBlock(8)
  variables = jax.jit(block.init)(jax.random.key(1), x)
  train = jax.jit(lambda v, x: block.apply(v, x, train=True, mutable=['batch_stats']))
  out, new = train(variables, x)
  y = jax.lax.conv_general_dilated(
    x,
    variables['params']['conv1']['kernel'],
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  mean = new['batch_stats']['bn1']['mean']
  np.testing.assert_allclose(mean, 0.1 * y.mean((0, 1, 2)), atol=1e-5)
  assert out.shape == x.shape
  assert np.abs(out - jax.jit(block.apply)(variables, x)).max() > 0.1


@pytest.mark.parametrize('stride', [1, 2])
def test_the_shortcut_has_layers_only_where_shapes_differ(stride):
  x = jnp.zeros((1, 7, 6, 8))
  shape = jax.eval_shape(SEResnetBlock(8, stride).init, jax.random.key(0), x)['params']
  assert ('down_conv' in shape) == (stride == 2)
  out = jax.eval_shape(lambda: SEResnetBlock(8, stride).init_with_output(jax.random.key(0), x)[0])
  assert out.shape == ((1, 7, 6, 8) if stride == 1 else (1, 4, 3, 8))


def test_half_precision_stays_half():
  x = jnp.ones((1, 4, 4, 8), jnp.bfloat16)
  block = SEResnetBlock(8, dtype=jnp.bfloat16)
  out, variables = jax.eval_shape(block.init_with_output, jax.random.key(0), x)
  assert out.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
