"""StyleGAN2's networks: sizes, noise, and latents, on toys; the goldens are LFR's key map's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import stylegan2_networks as networks
from jaxinpaint.losses import adversarial


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('size, want', [(64, 27_032_600), (256, 30_034_338), (1024, 30_370_060)])
def test_parameter_counts_are_the_published_ones(size, want):
  w = jax.ShapeDtypeStruct((1, networks.latent_count(size), 512), jnp.float32)
  variables = jax.eval_shape(networks.Generator(size).init, jax.random.key(0), w)
  assert count(variables['params']) == want
  assert count(variables['params']['style']) == 2_101_248
  noises = {k: v.shape for k, v in variables['buffers'].items() if k != 'latent_avg'}
  assert len(noises) == w.shape[1] - 1 and noises['noise0'] == (4, 4, 1)
  assert noises[f'noise{len(noises) - 1}'] == (size, size, 1)
  assert variables['buffers']['latent_avg'].shape == w.shape[1:]


@functools.cache
def toy():
  generator = networks.Generator(8, style_dim=8, mlp_layers=2, max_channels=8)
  shapes = jax.eval_shape(generator.init, jax.random.key(0), jnp.zeros((1, 4, 8)))
  return generator, drawn(shapes)


def drawn(shapes):
  """Random variables, as after some training: at the start noise is weighted by zero."""
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), shapes)


def test_noise_is_stored_random_given_or_none():
  generator, variables = toy()
  w = jax.random.normal(jax.random.key(1), (1, 4, 8)).repeat(2, 0)
  given = [variables['buffers'][f'noise{i}'][None] for i in range(3)]

  @jax.jit
  def run(variables, key):
    random = generator.apply(variables, w, 'random', rngs={'noise': key})
    kinds = {kind: generator.apply(variables, w, kind) for kind in ('stored', 'none')}
    return {'random': random, 'given': generator.apply(variables, w, given), **kinds}

  one, two = (run(variables, jax.random.key(i)) for i in range(2))
  stored = one['stored']
  assert stored.shape == (2, 8, 8, 3) and stored.dtype == jnp.float32
  np.testing.assert_array_equal(stored, two['stored'])
  np.testing.assert_allclose(one['given'], stored, atol=1e-5)
  for a, b in (
    (stored, one['none']),
    (stored, one['random']),
    (one['random'], two['random']),
    (one['random'][0], one['random'][1]),  # each sample has noise of its own
  ):
    assert float(jnp.abs(a - b).mean()) > 1e-2


def test_one_latent_serves_all_layers_and_each_layer_reads_its_own():
  generator, variables = toy()
  w = jax.random.normal(jax.random.key(1), (1, 8))
  apply = jax.jit(generator.apply)
  whole = apply(variables, w)
  np.testing.assert_allclose(whole, apply(variables, jnp.repeat(w[:, None], 4, 1)), atol=1e-6)
  plus = jnp.repeat(w[:, None], 4, 1)
  for i in range(4):
    assert float(jnp.abs(apply(variables, plus.at[:, i].add(1.0)) - whole).max()) > 1e-4, i


def test_mapping_ignores_the_length_of_z_and_truncation_goes_to_the_average():
  generator, variables = toy()
  z = jax.random.normal(jax.random.key(1), (3, 8))
  mapping = lambda z: generator.apply(variables, z, method='mapping')
  np.testing.assert_allclose(mapping(3 * z), mapping(z), atol=1e-5)
  average = jnp.full((4, 8), 2.0)
  w = jnp.zeros((1, 4, 8))
  np.testing.assert_allclose(networks.truncate(w, average, 0.25), 1.5)


def test_what_cannot_be_is_named():
  generator, variables = toy()
  with pytest.raises(ValueError, match=r'takes \(1, 4, 8\)'):
    generator.apply(variables, jnp.zeros((1, 3, 8)))
  with pytest.raises(ValueError, match='not one of stored, random, none'):
    generator.apply(variables, jnp.zeros((1, 4, 8)), 'constant')
  with pytest.raises(ValueError, match='1 noise pictures given, 3 wanted'):
    generator.apply(variables, jnp.zeros((1, 4, 8)), [jnp.zeros((1, 4, 4, 1))])
  with pytest.raises(ValueError, match='not 48'):
    networks.latent_count(48)
  with pytest.raises(ValueError, match='for a critic of 16 pixels'):
    networks.Discriminator(16).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_a_critic_of_four_channels_takes_the_r1_penalty():
  critic = networks.Discriminator(8, max_channels=4)
  x = jax.random.normal(jax.random.key(0), (4, 8, 8, 4))
  params = drawn(jax.eval_shape(critic.init, jax.random.key(1), x)['params'])

  def penalty(params):
    return adversarial.r1_penalty(lambda image: critic.apply({'params': params}, image), x)

  value, gradient = jax.jit(jax.value_and_grad(penalty))(params)
  assert jax.eval_shape(critic.apply, {'params': params}, x).shape == (4, 1) and value > 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert bool(jnp.isfinite(leaf).all()), path
  assert float(jnp.abs(gradient['from_rgb']['kernel']).max()) > 0


def test_bfloat16_convolves_in_bfloat16_and_returns_float32():
  _, variables = toy()
  w = jax.random.normal(jax.random.key(1), (2, 4, 8))
  full, half = (
    jax.jit(networks.Generator(8, 8, 2, max_channels=8, dtype=dtype).apply)(variables, w)
    for dtype in (jnp.float32, jnp.bfloat16)
  )
  assert half.dtype == full.dtype == jnp.float32
  assert 0 < float(jnp.abs(half - full).mean() / jnp.abs(full).mean()) < 0.05
