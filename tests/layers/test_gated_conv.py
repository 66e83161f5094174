import functools

import flax.linen as nn
import goldens
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.layers.gated_conv import GatedConv, gated_init
from jaxinpaint.layers.same_conv import SameConv
from jaxinpaint.weights import mapping


@goldens.cases('gated_conv')
def test_a_chain_of_gated_convolutions(case):
  keys = {'a': 'a', 'b': 'b', 'c': 'c', 'r': 'r', 'd': 'd.conv', 'o': 'o'}
  entries = [mapping.conv(f'{key}.conv', 'net', (name,)) for name, key in keys.items()]
  params = mapping.convert(case.state(), sum(entries, ()))['params']['net']
  layers = {
    'a': GatedConv(8, 5),
    'b': GatedConv(12, stride=2),
    'c': GatedConv(12, dilation=4),
    'r': GatedConv(12, activation=nn.relu),
    'd': GatedConv(6),
    'o': SameConv(3),
  }

  @jax.jit
  def chain(x):
    outputs = {}
    for name, layer in layers.items():
      x = x.repeat(2, axis=1).repeat(2, axis=2) if name == 'd' else x
      own = params[name] if name == 'o' else {'conv': params[name]}
      outputs[name] = x = layer.apply({'params': own}, x)
    return outputs

  data = case.data()
  for name, got in chain(goldens.nhwc(data['x'])).items():
    goldens.assert_close(goldens.nchw(got), data[name], what=name)


def test_the_second_half_of_the_channels_is_the_gate():
  kernel = jnp.asarray([[[[2.0, -3.0, 0.0, 100.0]]]])  # features 2x and -3x; gates 1/2 and 1
  params = {'conv': {'kernel': kernel, 'bias': jnp.zeros(4)}}
  got = GatedConv(2, 1).apply({'params': params}, jnp.ones((1, 1, 1, 1)))
  np.testing.assert_allclose(got[0, 0, 0], [1.0, np.expm1(-3.0)], rtol=1e-6)


def test_features_keep_their_size_with_the_initialisation_for_gates():
  # A dozen layers: glorot's would lose the features, this one does not.
  x = jax.random.normal(jax.random.key(0), (1, 16, 16, 32))
  layers = [GatedConv(32, kernel_init=gated_init, name=f'conv{i}') for i in range(12)]
  chain = nn.Sequential(layers)
  run = jax.jit(functools.partial(chain.init_with_output, jax.random.key(1)))
  assert 0.1 < float(run(x)[0].std()) < 10
