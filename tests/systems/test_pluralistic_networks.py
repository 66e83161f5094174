"""The networks of Pluralistic against the outputs of the authors' code."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import arrays, systems
from jaxinpaint.systems.pluralistic import networks, published, recipe
from jaxinpaint.weights import mapping


@functools.cache
def shapes():
  return systems.make_recipe(systems.default_config('pluralistic')).shapes()


def convert(case, entries):
  """Variables of the one network that the entries name; every key and parameter has its partner."""
  expected = shapes()._asdict()
  tree = mapping.convert(case.state(), entries, published.IGNORE, expected=expected)
  (network,) = tree['params']
  return {'params': tree['params'][network], **tree['stats'].get(network, {})}


def test_parameter_counts_are_the_published_ones_without_what_is_never_run():
  counts = {n: sum(x.size for x in jax.tree.leaves(tree)) for n, tree in shapes().params.items()}
  judge = 1_575_075 - 475_520 - 1  # its attention's residual block and alpha
  assert counts == dict(
    encoder=3_604_224, generator=2_374_016, discriminator=judge, discriminator_rec=judge
  )


def inputs(data):
  """Image in [0,1], and mask with 1 = hole, of the reference's."""
  valid = goldens.nhwc(data['mask'])
  return (goldens.nhwc(data['image']) + 1) / 2, 1 - valid


@pytest.fixture(scope='module')
def encode():
  """(image, mask) -> the encoder's outputs, with the golden's weights."""
  (case,) = (c for c in goldens.all_cases() if c.name == 'pluralistic_encoder')
  apply = jax.jit(functools.partial(networks.Encoder().apply, hidden=True))
  return functools.partial(apply, convert(case, published.encoder_entries({})))


@goldens.cases('pluralistic_encoder')
def test_encoder(case, encode):
  data = case.data()
  image, mask = inputs(data)
  # The reference is given both parts apart; grey elsewhere is 0 in its range.
  hidden = (goldens.nhwc(data['image_complement']) + 1) / 2
  found = encode(image + hidden - 0.5, mask)
  for got, name in zip(found['prior'], ('mu', 'sigma'), strict=True):
    goldens.assert_close(goldens.nchw(got), data[name], what=name)
  features = found['features']
  goldens.assert_close(goldens.nchw(features[2])[:, ::16], data['feature2'], what='feature2')
  goldens.assert_close(goldens.nchw(features[4])[:, ::8], data['feature4'], what='feature4')
  for got, name in zip(found['posterior'], ('post_mu', 'post_sigma'), strict=True):
    goldens.assert_close(goldens.nchw(got)[:, ::8], data[name], what=name)
  goldens.assert_close(goldens.nchw(recipe.assumed_deviation(mask)), data['prior_sigma_m'])
  terms = recipe.kl_terms(recipe.default_config().loss, found, mask)
  goldens.assert_close(terms['kl_rec'], data['kl_rec'], what='kl_rec')
  goldens.assert_close(terms['kl_gen'], data['kl_g'], what='kl_g')


def softmax_of(query):
  """The attention of places, of the query's features [B,h,w,d]."""
  flat = query.reshape(len(query), -1, query.shape[-1])
  return jax.nn.softmax(jnp.einsum('bqd,bkd->bqk', flat, flat, precision='highest'), -1)


def query_of(state, *path):
  tree = state['intermediates']
  for name in (*path, 'query', '__call__'):
    tree = tree[name]
  return tree[0]


def capturing(module):
  """(variables, ...) -> (outputs, {'intermediates': the query's features})."""
  of_query = lambda m, _: m.name == 'query'
  return jax.jit(
    functools.partial(module.apply, capture_intermediates=of_query, mutable=['intermediates'])
  )


@goldens.cases('pluralistic_generator')
def test_generator(case, encode):
  data = case.data()
  image, mask = inputs(data)
  encoded = encode(image, mask)
  mean, deviation = encoded['prior']
  z = mean + deviation * goldens.nhwc(data['eps'])
  valid = 1 - arrays.resize_bilinear(mask, 16, 16, align_corners=True)
  goldens.assert_close(goldens.nchw(valid), data['mask_scaled'], what='mask')
  variables = convert(case, published.generator_entries({}))
  features = encoded['features']
  found, state = capturing(networks.Generator())(variables, z, features[-1], features[2], mask)
  for i, scale in enumerate(found['scales']):
    goldens.assert_close(goldens.nchw(scale) * 2 - 1, data[f'out{i}'], what=f'out{i}')
  attention = softmax_of(query_of(state, 'attention'))
  goldens.assert_close(attention[:, ::16], data['attention'], what='attention')
  np.testing.assert_array_equal(found['out'], found['scales'][-1])


@goldens.cases('pluralistic_attention')
def test_attention(case):
  data = case.data()
  state = {f'attn.{key}': value for key, value in case.state().items()}
  entries = published.attention_entries('attn', 'generator')
  tree = mapping.convert(state, entries, published.IGNORE)
  variables = {
    'params': tree['params']['generator']['attention'],
    'spectral': tree['stats']['generator']['spectral']['attention'],
  }
  x, pre, valid = (goldens.nhwc(data[name]) for name in ('x', 'pre', 'mask'))
  run = capturing(networks.ShortLongAttention())
  out, state = run(variables, x, pre, valid)
  goldens.assert_close(goldens.nchw(out), data['out'], what='out')
  goldens.assert_close(softmax_of(query_of(state)), data['attention'], what='attention')
  short, _ = run(variables, x)
  goldens.assert_close(goldens.nchw(short), data['out_no_pre'], what='short')


@goldens.cases('pluralistic_discriminator')
def test_discriminator(case):
  data = case.data()
  variables = convert(case, published.discriminator_entries({}))
  image = (goldens.nhwc(data['image']) + 1) / 2
  apply = jax.jit(networks.Discriminator().apply)
  first = apply(variables, image)
  goldens.assert_close(goldens.nchw(first), data['out'], what='first pass')

  def advanced(path, value):
    """u after 99 passes: the reference's 'converged' output is that of its 100th."""
    if path[-1].key != 'u':
      return value
    layer = functools.reduce(lambda tree, key: tree[key.key], path[:-1], variables['params'])
    matrix = np.asarray(layer['kernel'], np.float64).reshape(-1, len(value))
    for _ in range(99):
      value = (matrix @ value) @ matrix
      value /= np.linalg.norm(value)
    return value.astype(np.float32)

  later = jax.tree_util.tree_map_with_path(advanced, variables['spectral'])
  found = apply({**variables, 'spectral': later}, image)
  goldens.assert_close(goldens.nchw(found), data['out_converged'], what='converged')
