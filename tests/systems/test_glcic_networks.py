"""The networks of GL, both released variants, against their code's own outputs."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.systems.glcic import networks, published
from jaxinpaint.weights import mapping


def convert(case, entries, ignore=()):
  return mapping.convert(case.state(), entries, ignore)


def variables(tree, network):
  return {'params': tree['params'][network], **tree['stats'].get(network, {})}


def inner(state, *path):
  """The output of the submodule at `path`, as flax captured it."""
  return functools.reduce(lambda tree, name: tree[name], path, state['intermediates'])['__call__'][
    0
  ]


def hole_color(image, mask):
  hole = image[np.broadcast_to(mask, image.shape) == 1].reshape(-1, 3)
  assert (hole == hole[0]).all()
  return tuple(float(v) for v in hole[0])


@goldens.cases('glcic_generator')
def test_generator(case):
  data = case.data()
  image, mask = goldens.nhwc(data['image']), goldens.nhwc(data['mask'])
  tree = convert(case, published.generator_entries())
  generator = networks.Generator(mpv=hole_color(image, mask))
  apply = jax.jit(
    functools.partial(generator.apply, capture_intermediates=True, mutable=['intermediates'])
  )
  found, state = apply(variables(tree, 'generator'), image, mask)
  for name in ('bn6', 'bn10', 'bn13'):
    got = goldens.nchw(inner(state, name))[:, ::16]
    goldens.assert_close(got, data[name], what=name)
  goldens.assert_close(goldens.nchw(found['out']), data['out'], what='out')


@goldens.cases('glcic_discriminator', 'glcic_discriminator_places2')
def test_discriminator(case):
  data = case.data()
  layers = 6 if 'places2' in case.name else 5
  tree = convert(case, published.discriminator_entries(layers))
  discriminator = networks.Discriminator(global_layers=layers)
  pair = [goldens.nhwc(data[f'image_{name}']) for name in ('local', 'global')]
  found = jax.jit(discriminator.apply)(variables(tree, 'discriminator'), *pair)
  goldens.assert_close(found['local'], data['feature_local'], what='local feature')
  goldens.assert_close(found['whole'], data['feature_global'], what='global feature')
  goldens.assert_close(found['fake'], data['logit'], what='logit')
  goldens.assert_close(jax.nn.sigmoid(found['real']), data['out'], what='score')


@goldens.cases('glcic_tf_generator')
def test_tf_generator(case):
  data = case.data()
  tree = convert(case, published.tf_generator_entries(), published.TF_IGNORE)
  image = (data['image'] + 1) / 2
  apply = jax.jit(
    functools.partial(
      networks.TFGenerator().apply,
      train=True,
      capture_intermediates=True,
      mutable=['intermediates'],
    )
  )
  found, state = apply(variables(tree, 'generator'), image, data['mask'])
  conv5 = jax.nn.relu(inner(state, 'conv5_bn'))[..., ::16]
  goldens.assert_close(conv5, data['conv5_relu'], what='conv5')
  goldens.assert_close(inner(state, 'dilated4')[..., ::16], data['dilate4'], what='dilated4')
  goldens.assert_close(found['out'] * 2 - 1, data['out'], what='out')


@goldens.cases('glcic_tf_discriminator')
def test_tf_discriminator(case):
  data = case.data()
  tree = convert(case, published.tf_discriminator_entries())
  discriminator = networks.TFDiscriminator(separate_heads=True)
  pair = [(data[f'image_{name}'] + 1) / 2 for name in ('local', 'global')]
  apply = jax.jit(functools.partial(discriminator.apply, train=True))
  found = apply(variables(tree, 'discriminator'), *pair)
  goldens.assert_close(found['local'], data['feature_local'], what='local feature')
  goldens.assert_close(found['whole'], data['feature_global'], what='global feature')
  goldens.assert_close(found['fake'], data['logit_fake_head'], what='fake head')
  goldens.assert_close(found['real'], data['logit_real_head'], what='real head')


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  'model, generator, discriminator',
  [
    ({}, 6_072_131, 39_557_121),
    (dict(discriminator='places2', image_size=256, local_size=128), 6_072_131, 45_063_681),
    (
      dict(variant='tf', separate_heads=True, image_size=512, local_size=128),
      5_477_897,
      41_920_002,
    ),
  ],
)
def test_parameter_counts_are_the_published_ones(model, generator, discriminator):
  config = systems.default_config('glcic')
  config.model.update(model)
  made = systems.make_recipe(config)
  batch = {'image': jnp.zeros((1, 64, 64, 3)), 'mask': jnp.zeros((1, 64, 64, 1))}
  params, stats = jax.eval_shape(made.init, jax.random.key(0), batch)
  assert count(params['generator']) == generator
  assert count(params['discriminator']) == discriminator
  # And each of them, statistics too, has one key in the files.
  want = set(mapping.flatten({'params': params, 'stats': stats}, separator='/'))
  found = ['/'.join(e.target) for e in published.entries(config.model)]
  assert len(found) == len(set(found)) and set(found) == want


@pytest.mark.parametrize('norm_first', [False, True])
def test_batch_norm_and_relu_in_either_order(norm_first):
  generator = networks.Generator(width=4, norm_first=norm_first)
  image, mask = jnp.full((1, 8, 8, 3), 0.5), jnp.zeros((1, 8, 8, 1))
  run = lambda key: generator.init_with_output(
    key, image, mask, capture_intermediates=True, mutable=True
  )
  shapes = jax.eval_shape(run, jax.random.key(0))[1]
  assert shapes['params']['conv16']['kernel'].shape == (3, 3, 4, 2)
  rng = np.random.default_rng(0)
  values = lambda tree: jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), tree)
  # Statistics of 1 and 0 but for a mean of 100: what leaves the first norm tells which came first.
  state = {'params': values(shapes['params']), 'batch_stats': shapes['batch_stats']}
  fill = lambda path, s: np.full(s.shape, 1.0 if path[-1].key == 'var' else 0.0, np.float32)
  state['batch_stats'] = jax.tree_util.tree_map_with_path(fill, state['batch_stats'])
  state['batch_stats']['bn1']['mean'] += 100
  state['params']['bn1'] = {'scale': np.ones(4, np.float32), 'bias': np.zeros(4, np.float32)}
  run = functools.partial(generator.apply, capture_intermediates=True, mutable=['intermediates'])
  _, seen = jax.jit(run)(state, image, mask)
  normed, second = np.asarray(inner(seen, 'bn1')), np.asarray(inner(seen, 'conv2'))
  assert (normed < -50).all()
  # ReLU after the norm leaves nothing of it to the second convolution but its bias.
  bias = np.broadcast_to(state['params']['conv2']['bias'], second.shape)
  assert np.allclose(second, bias) == norm_first


def test_the_tf_generator_completes_an_image_as_if_it_were_alone():
  generator = networks.TFGenerator(width=4)
  rng = np.random.default_rng(0)
  image = rng.random((2, 16, 24, 3), dtype=np.float32)
  mask = np.zeros((2, 16, 24, 1), np.float32)
  mask[:, 4:10, 6:20] = 1
  shapes = jax.eval_shape(generator.init, jax.random.key(0), image, mask)
  params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
  both = jax.jit(generator.apply)(params, image, mask)['out']
  train = jax.jit(functools.partial(generator.apply, train=True))
  # The released code fills a batch with copies of the image, normalised together.
  copies = train(params, np.stack([image[0]] * 2), np.stack([mask[0]] * 2))['out']
  np.testing.assert_allclose(both[0], copies[0], atol=1e-4)
  assert np.abs(train(params, image, mask)['out'] - both).max() > 1e-2
