"""GMCNN's networks against their code's own outputs, and its published file through the import."""

import functools
import re

import drawn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.systems.gmcnn import networks, published
from jaxinpaint.weights import mapping

SMALL = dict(width=4, dilations=(1, 2, 2, 1))


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def paths(tree, network):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {(network, *(key.key for key in path)) for path, _ in leaves}


@functools.cache
def shapes(**settings):
  config = systems.default_config('gmcnn')
  config.model.update(settings)
  return systems.make_recipe(config).shapes()


def case_of(name):
  return next(c for c in goldens.all_cases() if c.name == name)


def test_parameter_counts_are_the_published_ones():
  params = shapes().params
  assert count(params['generator']) == 12_561_891
  assert {name: count(params[name]) for name in ('local_critic', 'global_critic')} == {
    'local_critic': 2_684_289,
    'global_critic': 2_733_441,
  }


def test_every_parameter_is_mapped_once():
  entries = published.generator_entries()
  found = [(e.network, *e.path) for e in entries]
  assert len(found) == len(set(found)) and set(found) == paths(
    shapes().params['generator'], 'generator'
  )
  keys = {key: tuple(shape) for key, shape in case_of('gmcnn_generator').manifest()['state']}
  assert {e.key for e in entries} == set(keys)
  entries = published.critic_entries()
  made = shapes(critic='hinge')
  for collection in ('params', 'spectral'):
    found = [(e.network, *e.path) for e in entries if e.collection == collection]
    wanted = set()
    for name in ('local_critic', 'global_critic'):
      tree = made.params[name] if collection == 'params' else made.stats[name]['spectral']
      wanted |= paths(tree, name)
    assert len(found) == len(set(found)) and set(found) == wanted
  keys = {key for key, _ in case_of('gmcnn_discriminator').manifest()['state']}
  assert {e.key for e in entries} == keys


@goldens.cases('gmcnn_generator')
def test_generator(case):
  data = case.data()
  tree = mapping.convert(case.state(), published.generator_entries())
  image, mask = goldens.nhwc(data['image']), goldens.nhwc(data['mask'])
  seen = {'column7': 'conv11', 'column5': 'conv14', 'column3': 'conv17'}
  apply = functools.partial(
    networks.Generator().apply,
    capture_intermediates=lambda module, _: module.path in seen.items(),
    mutable=['intermediates'],
  )
  params = {'params': tree['params']['generator']}
  found, state = jax.jit(apply)(params, (image + 1) / 2, mask)
  goldens.assert_close(goldens.nchw(found['out']) * 2 - 1, data['out'], what='out')
  for column, name, step, channels in (
    ('column7', 'eb1_11', 4, 16),
    ('column5', 'eb2_14', 8, 16),
    ('column3', 'eb3_17', 8, 8),
  ):
    (got,) = state['intermediates'][column][seen[column]]['__call__']
    got = goldens.nchw(got)[:, ::channels, ::step, ::step]
    goldens.assert_close(got, data[name], what=name)


@goldens.cases('gmcnn_discriminator')
def test_critics(case):
  data = case.data()
  tree = mapping.convert(case.state(), published.critic_entries())
  sigmas = iter(data['sigma'][5:]), iter(data['sigma'][:5])
  for short, sigma in zip(('local', 'global'), sigmas, strict=True):
    critic = networks.Critic(spectral_norm=True)
    variables = {'params': tree['params'][f'{short}_critic'], **tree['stats'][f'{short}_critic']}
    image = (goldens.nhwc(data[f'image_{short}']) + 1) / 2
    train = jax.jit(lambda v, x, c=critic: c.apply(v, x, train=True, mutable=['spectral']))
    score, changed = train(variables, image)
    goldens.assert_close(score, data[f'out_{short}'], what=short)
    converged = {}
    for layer, wanted in zip(changed['spectral'], sigma, strict=True):
      kernel, vectors = variables['params'][layer]['kernel'], changed['spectral'][layer]
      matrix = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
      matrix = matrix.reshape(len(matrix), -1)
      goldens.assert_close(vectors['u'] @ matrix @ vectors['v'], wanted, what=f'{short} {layer}')
      u = np.linalg.eigh(matrix @ matrix.T)[1][:, -1]
      converged[layer] = dict(u=u, v=u @ matrix / np.linalg.norm(u @ matrix))
    ready = {'params': variables['params'], 'spectral': converged}
    goldens.assert_close(
      jax.jit(critic.apply)(ready, image), data[f'out_{short}_converged'], what='converged'
    )


def drawn_batch(height, width):
  keys = jax.random.split(jax.random.key(0), 2)
  image = jax.random.uniform(keys[0], (2, height, width, 3))
  return image, (jax.random.uniform(keys[1], (2, height, width, 1)) > 0.6).astype(jnp.float32)


def test_any_multiple_of_four_and_nothing_read_in_the_hole():
  config = systems.default_config('gmcnn')
  config.model.update(SMALL)
  image, mask = drawn_batch(32, 44)
  made = systems.inference(config)
  variables = drawn.variables(made, {'image': image, 'mask': mask})

  @jax.jit
  def run(image):
    arguments = (variables, {}, image, mask, jax.random.key(0))
    return made.output(*arguments), made.predict(*arguments)

  out, completed = run(image)
  assert out.shape == image.shape and out.dtype == jnp.float32
  assert 0 <= float(out.min()) < float(out.max()) <= 1
  known = np.broadcast_to(np.asarray(mask) == 0, out.shape)
  np.testing.assert_array_equal(np.asarray(completed)[known], np.asarray(image)[known])
  np.testing.assert_array_equal(np.asarray(completed)[~known], np.asarray(out)[~known])
  np.testing.assert_array_equal(out, run(jnp.where(mask == 1, 1 - image, image))[0])
  assert np.abs(out - run(jnp.where(mask == 0, 1 - image, image))[0]).max() > 0.01


def test_sizes_that_the_generator_cannot_take_are_named(monkeypatch):
  assert networks.min_side() == 196 and networks.min_side(SMALL['dilations']) == 28

  def run(height, **settings):
    generator = networks.Generator(**SMALL | settings)
    jax.eval_shape(generator.init, jax.random.key(0), *drawn_batch(height, 32))

  for height, message in ((24, 'image height 24 must be .* at least 28'), (30, 'multiple of 4')):
    with pytest.raises(ValueError, match=message):
      run(height)
  with pytest.raises(ValueError, match='must be four'):
    run(32, dilations=(1, 2))
  run(28)
  monkeypatch.setattr(networks.arrays, 'check_multiple', lambda *a: None)
  with pytest.raises(ValueError, match='cannot be mirrored'):
    run(24)
  made = systems.inference(systems.default_config('gmcnn'))
  assert (made.multiple, made.min_side) == (4, 196)


def test_no_key_but_the_formats_own():
  assert list(published.FORMATS) == ['pytorch'] and not published.FORMATS['pytorch'].ignore
  assert not [e.key for e in published.generator_entries() if re.search('pads', e.key)]
