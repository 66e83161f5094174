"""The networks of Co-Mod-GAN against the outputs of the port's code."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.systems.comodgan import networks, published
from jaxinpaint.weights import mapping


@functools.cache
def shapes(size):
  sized = lambda c: jax.ShapeDtypeStruct((1, size, size, c), np.float32)
  z = jax.ShapeDtypeStruct((1, 512), np.float32)
  return jax.eval_shape(networks.Generator(size).init, jax.random.key(0), sized(3), sized(1), z)


def expected(size):
  variables = shapes(size)
  return {
    'params': {'generator': variables['params']},
    'stats': {'generator': {'buffers': variables['buffers']}},
  }


@goldens.cases('comodgan_torch_mapping')
def test_mapping(case):
  entries = published.mapping_entries({}, '')
  tree = mapping.convert(case.state(), entries, published.IGNORE)
  tree = {'params': tree['params']['generator'], 'buffers': tree['stats']['generator']['buffers']}
  tree['buffers'] |= {k: v for k, v in shapes(64)['buffers'].items() if k != 'latent_avg'}
  data = case.data()
  network = networks.Generator(64)
  run = lambda params, z: network.apply(tree | {'params': params}, z, method='mapping')
  w = jax.jit(run)(tree['params'], data['z'])
  goldens.assert_close(w, np.repeat(data['w'][:, None], 10, 1))


@goldens.cases('comodgan_torch_generator64')
def test_generator(case):
  tree = mapping.convert(
    case.state(), published.entries({'size': 64}), published.IGNORE, expected=expected(64)
  )
  params, data = tree['params']['generator'], case.data()
  buffers = tree['stats']['generator']['buffers']
  noises = [buffers[f'noise{i}'][None] for i in range(9)]

  @jax.jit
  def run(params, noises, x, ws):  # as constants, the weights would be compiled, too
    vector, maps = networks.Encoder(64).apply({'params': params['encoder']}, x)
    twice = jax.tree.map(lambda y: jnp.repeat(y, 2, 0), (vector, maps))
    images = networks.Synthesis(64).apply({'params': params['synthesis']}, ws, *twice, noises)
    return vector, maps, images[64]

  ws = np.concatenate([data['ws'], data['ws2']])
  vector, maps, images = run(params, noises, goldens.nhwc(data['x']), ws)
  goldens.assert_close(vector, data['x_global'], what='x_global')
  for r in (4, 32):
    some = goldens.nchw(maps[r])[:, :: 512 // data[f'feat_{r}'].shape[1]]
    goldens.assert_close(some, data[f'feat_{r}'], what=f'feat_{r}')
  want = np.concatenate([data['y'], data['y2']])
  goldens.assert_close(goldens.nchw(images), want, what='y')
