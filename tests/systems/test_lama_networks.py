"""LaMa's networks and layers against the outputs of the authors' code."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import fourier_conv
from jaxinpaint.systems.lama import networks, published
from jaxinpaint.weights import mapping


def variables_of(state, entries, network='generator'):
  """What flax's apply takes, of a module whose entries have the path ('m', ...) or none."""
  tree = mapping.convert(state, entries)
  own = {'params': tree['params'][network], **tree['stats'].get(network, {})}
  return {k: v.get('m', v) for k, v in own.items()}


def check_pair(case, module, entries):
  """One layer of pairs."""
  data = case.data()
  pair = tuple(goldens.nhwc(data[k]) if k in data else None for k in ('x_l', 'x_g'))
  got = jax.jit(module.apply)(variables_of(case.state(), entries), pair)
  for y, name in zip(got, ('y_l', 'y_g'), strict=True):
    goldens.assert_close(goldens.nchw(y), data[name], what=name)


@goldens.cases('lama_fourier_unit')
def test_fourier_unit(case):
  data = case.data()
  variables = variables_of(case.state(), published.unit_entries('', ('m',)))
  y = fourier_conv.FourierUnit(16).apply(variables, goldens.nhwc(data['x']))
  goldens.assert_close(goldens.nchw(y), data['y'])


@goldens.cases(
  'lama_spectral_transform', 'lama_spectral_transform_lfu', 'lama_spectral_transform_stride2'
)
def test_spectral_transform(case):
  data, kind = case.data(), case.name.rpartition('_')[2]
  local = kind == 'lfu'
  variables = variables_of(case.state(), published.transform_entries('', ('m',), local))
  module = fourier_conv.SpectralTransform(
    data['y'].shape[1], stride=2 if kind == 'stride2' else 1, local=local
  )
  y = jax.jit(module.apply)(variables, goldens.nhwc(data['x']))
  goldens.assert_close(goldens.nchw(y), data['y'])


@goldens.cases('lama_ffc_bn_act', 'lama_ffc_bn_act_l2both', 'lama_ffc_bn_act_mid_lfu')
def test_ffc(case):
  kinds = {
    'lama_ffc_bn_act': (dict(), dict()),
    'lama_ffc_bn_act_l2both': (dict(stride=2), dict(from_global=False)),
    'lama_ffc_bn_act_mid_lfu': (
      dict(stride=2, global_out=0.5, local_fourier=True),
      dict(local=True),
    ),
  }
  fields, parts = kinds[case.name]
  check_pair(case, fourier_conv.FFC(32, **fields), published.ffc_entries('', ('m',), **parts))


@goldens.cases('lama_ffc_resblock')
def test_block(case):
  check_pair(case, fourier_conv.FFCResnetBlock(), published.block_entries('', ('m',)))


def test_spectra_of_any_size_go_there_and_back():
  for shape in ((2, 5, 7, 3), (1, 4, 6, 2), (1, 8, 1, 1)):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y = fourier_conv.spectrum(x)
    assert y.shape == (*shape[:2], shape[2] // 2 + 1, 2 * shape[3])
    np.testing.assert_allclose(fourier_conv.picture(y, *shape[1:3]), x, atol=1e-5)
    want = np.fft.rfft2(x, axes=(1, 2), norm='ortho')
    np.testing.assert_allclose(y[..., 0::2], want.real, atol=1e-5)
    np.testing.assert_allclose(y[..., 1::2], want.imag, atol=1e-5)


def test_spectra_are_float32_in_a_bfloat16_network():
  module = fourier_conv.FFCResnetBlock(dtype=jnp.bfloat16)
  pair = tuple(jax.ShapeDtypeStruct((1, 8, 8, n), jnp.bfloat16) for n in (4, 12))
  variables = jax.eval_shape(module.init, jax.random.key(0), pair)
  run = lambda v, x: module.apply(v, x, capture_intermediates=True)
  y, seen = jax.eval_shape(run, variables, pair)
  assert {x.dtype for x in y} == {jnp.dtype('bfloat16')}
  parts = jax.tree.leaves_with_path(seen['intermediates'])
  kinds = lambda word: {x.dtype.name for path, x in parts if word in jax.tree_util.keystr(path)}
  assert kinds("'fourier'") == {'float32'} and kinds("'conv1'") == {'bfloat16'}


@functools.cache
def shapes(blocks):
  sized = lambda c: jax.ShapeDtypeStruct((1, 64, 64, c), np.float32)
  return jax.eval_shape(
    networks.Generator(blocks=blocks).init, jax.random.key(0), sized(3), sized(1)
  )


def expected(variables, network):
  stats = {k: v for k, v in variables.items() if k != 'params'}
  return {'params': {network: variables['params']}, 'stats': {network: stats}}


# 50.98 and 27.05 millions, those of the reference outputs' checkpoints.
@pytest.mark.parametrize('blocks, count', [(18, 50_975_875), (9, 27_048_835)])
def test_parameter_counts(blocks, count):
  assert sum(x.size for x in jax.tree.leaves(shapes(blocks)['params'])) == count


def check_generator(case, blocks):
  data, model = case.data(), {'blocks': blocks}
  tree = mapping.convert(
    case.state(), published.generator_entries(model), expected=expected(shapes(blocks), 'generator')
  )
  variables = {'params': tree['params']['generator'], **tree['stats']['generator']}
  x = goldens.nhwc(data['x'])
  second = lambda module, _: module.path == ('rear', 'block0', 'ffc2')
  run = lambda v, image, mask: networks.Generator(blocks=blocks).apply(
    v, image, mask, capture_intermediates=second
  )
  outputs, seen = jax.jit(run)(variables, x[..., :3], x[..., 3:])
  (pair,) = seen['intermediates']['rear']['block0']['ffc2']['__call__']
  for y, name in zip(pair, 'lg', strict=True):
    goldens.assert_close(goldens.nchw(y)[:, ::8], data[f'block0_conv2_{name}'], what=name)
  middle = goldens.nchw(outputs['middle'])[:, ::16]
  goldens.assert_close(middle, data['concat'], 1e-4 * np.abs(data['concat']).max(), what='concat')
  goldens.assert_close(goldens.nchw(outputs['out']), data['y'], what='y')


@pytest.mark.slow
@goldens.cases('lama_big_generator')
def test_big_generator(case):
  check_generator(case, 18)


@pytest.mark.slow
@goldens.cases('lama_fourier_generator')
def test_fourier_generator(case):
  check_generator(case, 9)


@goldens.cases('lama_discriminator')
def test_discriminator(case):
  data = case.data()
  variables = variables_of(case.state(), published.discriminator_entries(), 'discriminator')
  logits, features = jax.jit(networks.Discriminator().apply)(variables, goldens.nhwc(data['x']))
  goldens.assert_close(goldens.nchw(logits), data['y'])
  for i, feature in enumerate(features):
    goldens.assert_close(goldens.nchw(feature)[:, ::16], data[f'feat_{i}'], what=f'feat_{i}')


@pytest.mark.parametrize('size, text', [((60, 64), '8'), ((64, 8), 'at least 16')])
def test_sizes_that_do_not_fit_are_named(size, text):
  image, mask = np.zeros((1, *size, 3)), np.zeros((1, *size, 1))
  with pytest.raises(ValueError, match=text):
    jax.eval_shape(networks.Generator(8, 1).init, jax.random.key(0), image, mask)
  with pytest.raises(ValueError, match='has no quarters'):
    fourier_conv.quarters(np.zeros((1, 3, 4, 8)))
