"""The networks of pix2pix against the outputs of its TensorFlow code."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.systems.pix2pix import networks, published
from jaxinpaint.weights import mapping


def inner(state, name):
  return state['intermediates'][name]['__call__'][0]


@goldens.cases('pix2pix_generator')
def test_generator(case, monkeypatch):
  data = case.data()
  image = (data['image'] + 1) / 2
  mask = (np.abs(data['image']).sum(-1, keepdims=True) == 0).astype(np.float32)  # painted grey
  assert 0 < mask.mean() < 1
  params = mapping.convert(case.state(), published.generator_entries(), published.IGNORE)['params']
  stored = {data[f'dropout{i}'].shape: data[f'dropout{i}'] for i in (8, 7, 6)}
  monkeypatch.setattr(networks, 'keep', lambda rng, rate, shape: jnp.asarray(stored.pop(shape)))
  run = functools.partial(
    networks.Generator(norm_over_batch=True).apply,
    train=True,
    capture_intermediates=True,
    mutable=['intermediates'],
  )
  # What is under the hole is not read.
  image = np.where(mask > 0, np.float32(0.9), image)

  @jax.jit
  def both(params, image, mask):
    return run({'params': params}, image, mask, jax.random.key(0)), run(
      {'params': params}, image, mask
    )[0]['out']

  (found, seen), without = both(params['generator'], image, mask)
  assert not stored
  goldens.assert_close(inner(seen, 'encoder4_bn')[..., ::64], data['encoder4'], what='encoder4')
  # Two samples at 1 x 1: the norm divides by half their difference, which enlarges its rounding.
  encoder8 = inner(seen, 'encoder8_bn')
  goldens.assert_close(encoder8, data['encoder8'], atol=ENCODER8, what='encoder8')
  for got, name in ((found['out'], 'out_s2'), (without, 'out_nodrop_s2')):
    goldens.assert_close(2 * got[:, ::2, ::2] - 1, data[name], what=name)


ENCODER8 = 5e-4


@goldens.cases('pix2pix_discriminator')
def test_discriminator(case):
  data = case.data()
  tree = mapping.convert(case.state(), published.discriminator_entries(), published.IGNORE)
  pair = [(data[name] + 1) / 2 for name in ('condition', 'candidate')]
  apply = jax.jit(functools.partial(networks.Discriminator(norm_over_batch=True).apply, train=True))
  logits = apply({'params': tree['params']['discriminator']}, *pair)
  goldens.assert_close(logits, data['logits'], what='logits')
  goldens.assert_close(jax.nn.sigmoid(logits), data['out'], what='out')


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('levels', [8, 6])
def test_parameter_counts_are_the_published_ones_and_each_has_its_key(levels):
  config = systems.default_config('pix2pix')
  config.model.levels = levels
  recipe = systems.make_recipe(config)
  batch = {'image': jnp.zeros((1, 256, 256, 3)), 'mask': jnp.zeros((1, 256, 256, 1))}
  params, stats = jax.eval_shape(recipe.init, jax.random.key(0), batch)
  if levels == 8:
    assert {n: count(p) for n, p in params.items()} == PARAMETERS
  want = set(mapping.flatten({'params': params, 'stats': stats}, separator='/'))
  entries = ['/'.join(e.target) for e in published.entries(config.model)]
  assert len(entries) == len(set(entries)) and set(entries) == want


PARAMETERS = {'generator': 54_420_483, 'discriminator': 2_769_601}


@pytest.fixture(scope='module')
def narrow():
  """(apply(image, mask, rng, train), image, mask) of a network of four levels."""
  generator = networks.Generator(width=4, levels=4)
  rng = np.random.default_rng(0)
  image = rng.random((2, 32, 16, 3), np.float32)
  mask = np.zeros((2, 32, 16, 1), np.float32)
  mask[:, 4:10, 3:9] = 1
  shapes = jax.eval_shape(generator.init, jax.random.key(0), image, mask)
  draw = lambda s: (0.2 * rng.normal(size=s.shape)).astype(np.float32)
  variables = jax.tree.map(draw, shapes)

  @functools.partial(jax.jit, static_argnames=('train', 'noise', 'over_batch'))
  def apply(image, mask, rng=0, train=False, noise=True, over_batch=True):
    those = generator.clone(norm_over_batch=over_batch)
    key = jax.random.key(rng) if noise else None
    return those.apply(variables, image, mask, key, train=train)['out']

  return apply, image, mask


def test_pixels_in_the_hole_are_not_read(narrow):
  apply, image, mask = narrow
  other = np.where(mask > 0, 1 - image, image)
  np.testing.assert_array_equal(apply(image, mask), apply(other, mask))
  assert (apply(image, mask) != apply(np.where(mask > 0, image, 1 - image), mask)).any()


def test_dropout_is_its_noise(narrow):
  apply, image, mask = narrow
  assert (apply(image, mask, 1) != apply(image, mask, 2)).any()
  np.testing.assert_array_equal(apply(image, mask, 1), apply(image, mask, 1))
  still = [apply(image, mask, seed, noise=False) for seed in (1, 2)]
  np.testing.assert_array_equal(*still)


def test_an_image_is_completed_as_if_it_were_alone(narrow):
  apply, image, mask = narrow
  both = apply(image, mask, noise=False)
  other = np.stack([image[0], 1 - image[1]])
  np.testing.assert_allclose(apply(other, mask, noise=False)[0], both[0], atol=1e-6)
  together = apply(image, mask, noise=False, train=True)
  assert np.abs(together - both).max() > 1e-3
  alone = apply(image, mask, noise=False, train=True, over_batch=False)
  np.testing.assert_allclose(alone, both, atol=1e-6)
  copies = apply(np.stack([image[0]] * 2), mask, noise=False, train=True)
  np.testing.assert_allclose(copies[0], both[0], atol=1e-4)


def test_values_that_are_kept_are_twice_as_large():
  kept = networks.keep(jax.random.key(0), 0.25, (4000,))
  assert set(np.unique(kept)) == {0.0, 1.0} and abs(float(kept.mean()) - 0.75) < 0.03


def test_sizes_that_do_not_fit_are_refused():
  image, mask = jnp.zeros((1, 256, 128, 3)), jnp.zeros((1, 256, 128, 1))
  with pytest.raises(ValueError, match='image width 128 must be a multiple of 256'):
    jax.eval_shape(networks.Generator().init, jax.random.key(0), image, mask)
