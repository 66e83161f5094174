"""The networks of CSA against their code's own outputs."""

import functools

import goldens
import jax
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.features import vgg
from jaxinpaint.layers.conv import conv2d
from jaxinpaint.systems.csa import networks, published, recipe
from jaxinpaint.weights import mapping


def unit(x):
  """[N,C,H,W] in [-1,1] -> [N,H,W,C] in [0,1]."""
  return (goldens.nhwc(x) + 1) / 2


def params(case, entries):
  (tree,) = mapping.convert(case.state(), entries)['params'].values()
  return {'params': tree}


@goldens.cases('csa_rough_generator')
def test_rough_generator(case):
  data = case.data()
  image = unit(data['image'])
  # The stored picture is filled already; here the hole has other values, and is filled again.
  mask = np.isclose(image, networks.HOLE_COLOR, atol=1e-6).all(-1, keepdims=True)
  assert 0.1 < mask.mean() < 0.3
  out = jax.jit(networks.RoughGenerator().apply)(
    params(case, published.rough_entries({})), np.where(mask, 0.9, image), mask.astype(np.float32)
  )['out']
  out, want = goldens.nchw(2 * out - 1), data['out'] if 'out' in data else data['out_s2']
  goldens.assert_close(out if 'out' in data else out[:, :, ::2, ::2], want, what='out')


@functools.cache
def trunk():
  """VGG16's parameters of the stored case, down to relu4_3."""
  case = next(c for c in goldens.all_cases() if c.name == 'csa_vgg16')
  tree = mapping.convert(case.state(), vgg.torchvision_entries(16))['params']['vgg']
  return {name: layer for name, layer in tree.items() if not name.startswith('conv5')}


@goldens.cases('csa_refine_generator')
def test_refinement_and_its_consistency(case):
  data = case.data()
  synthesis, image, mask = unit(data['synthesis']), unit(data['image']), goldens.nhwc(data['mask'])
  variables = params(case, published.refinement_entries({}))

  @jax.jit
  def run(variables, trunk):
    found = networks.RefinementGenerator().apply(
      variables, synthesis, np.where(mask == 1, 0.9, image), mask
    )
    features = vgg.apply(trunk, 2 * image - 1, ('relu4_3',), depth=16, normalize=False)
    compared = found | {'consistent': features['relu4_3']}
    return found, recipe.consistency(compared, gradient=False)

  found, values = run(variables, trunk())
  for ours, theirs in (('attention_input', 'csa_in'), ('attention', 'csa_out')):
    goldens.assert_close(goldens.nchw(found[ours])[:, ::64], data[theirs], what=theirs)
  for name, value in zip(('consistency1', 'consistency2'), values, strict=True):
    goldens.assert_close(value, data[name], what=name)
  # Of values of up to 20, after 40 layers; the stored case allows 1e-3 to 5e-3.
  want = data['out']
  step = 1 if want.shape[2] == image.shape[1] else 2  # a file may hold every second pixel
  goldens.assert_close(goldens.nchw(2 * found['raw'] - 1)[..., ::step, ::step], want, 1e-3, 'out')
  goldens.assert_close(found['out'], np.clip(found['raw'], 0, 1), 0.0)


@goldens.cases('csa_discriminator')
def test_critic(case):
  data = case.data()
  out = jax.jit(networks.Critic().apply)(
    params(case, published.critic_entries()), unit(data['image'])
  )
  goldens.assert_close(goldens.nchw(out), data['out'])


@goldens.cases('csa_feature_discriminator')
def test_feature_critic(case):
  data = case.data()
  out = jax.jit(networks.FeatureCritic().apply)(
    params(case, published.feature_critic_entries()), goldens.nhwc(data['feature'])
  )
  goldens.assert_close(goldens.nchw(out), data['out'])


@goldens.cases('csa_vgg16')
def test_vgg16_takes_images_as_they_are(case):
  data = case.data()
  apply = jax.jit(lambda p, x: vgg.apply(p, x, ('pool3', 'relu4_3'), depth=16, normalize=False))
  found = apply(trunk(), goldens.nhwc(data['image']))
  # What the file calls relu3_3 is pooled: the code's slice of torchvision's layers ends after that.
  for ours, theirs in (('pool3', 'relu3_3'), ('relu4_3', 'relu4_3')):
    goldens.assert_close(goldens.nchw(found[ours])[:, ::8], data[theirs], what=theirs)


def test_a_spaced_convolution_is_one_of_stride_and_dilation_2():
  layer = networks._SpacedConv(5)
  x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
  variables = layer.init(jax.random.key(1), x)
  want = conv2d(x, variables['params']['kernel'], stride=2, padding=3, dilation=2, form='plain')
  np.testing.assert_allclose(layer.apply(variables, x), want, atol=1e-5)


def test_a_side_that_does_not_fit_is_named():
  generator = networks.RoughGenerator(width=4, levels=5)
  image, mask = np.zeros((1, 64, 48, 3)), np.zeros((1, 64, 48, 1))
  with pytest.raises(ValueError, match='width 48 must be a multiple of 32'):
    jax.eval_shape(generator.init, jax.random.key(0), image, mask)


def test_parameters_are_the_published_ones_and_each_has_one_key():
  counts = dict(
    rough=54_419_459, refinement=77_692_291, critic=2_766_529, feature_critic=10_487_296
  )
  config = systems.default_config('csa')
  shapes = systems.make_recipe(config).shapes()
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert {n: count(tree) for n, tree in shapes.params.items()} == counts and not shapes.stats
  wanted = set(mapping.flatten(dict(shapes.params), separator='/'))
  found = ['/'.join((e.network, *e.path)) for e in published.entries(config.model)]
  assert len(found) == len(set(found)) and set(found) == wanted
  # The files of the code have as many numbers.
  names = dict(
    rough='rough_generator',
    refinement='refine_generator',
    critic='discriminator',
    feature_critic='feature_discriminator',
  )
  for network, name in names.items():
    case = next(c for c in goldens.all_cases() if c.name == f'csa_{name}')
    assert sum(np.prod(shape) for _, shape in case.manifest()['state']) == counts[network]
