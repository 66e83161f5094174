import filled
import goldens
import initial
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.systems.aotgan import networks, published
from jaxinpaint.weights import mapping

# The gates' slope amplifies rounding: over eight blocks the reference in float32 is itself 2.4e-4
# away from the reference in float64.
GENERATOR_ATOL = 2e-3


def size(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def generator_shapes(**settings):
  image, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
  generator = networks.Generator(**settings)
  return jax.eval_shape(generator.init, jax.random.key(0), image, mask)['params']


def discriminator_shapes():
  discriminator = networks.Discriminator()
  return jax.eval_shape(discriminator.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def test_parameter_counts_are_the_published_ones():
  assert size(generator_shapes()) == 15_200_835
  assert size(discriminator_shapes()['params']) == 2_763_777


@goldens.cases('aotgan_generator')
def test_generator(case):
  data = case.data()
  params = mapping.convert(case.state(), published.generator_entries({}))['params']['generator']
  image, mask = (goldens.nhwc(data[k]) for k in ('image', 'mask'))
  # The reference takes [-1, 1], and paints what the mask hides white.
  found = jax.jit(networks.Generator().apply)({'params': params}, (image + 1) / 2, mask)
  for ours, theirs in (('encoded', 'enc'), ('first', 'block0'), ('middle', 'mid')):
    want = data[f'{theirs}_b0']  # the first sample, every n-th channel
    got = goldens.nchw(found[ours])[: len(want)]
    got = got[:, :: got.shape[1] // want.shape[1]]
    # After eight blocks the features are no more within [-1, 1], as the output is.
    atol = GENERATOR_ATOL * max(1, np.abs(want).max()) if ours == 'middle' else 1e-4
    goldens.assert_close(got, want, atol, what=ours)
  goldens.assert_close(goldens.nchw(found['logit']), data['logit'], GENERATOR_ATOL, what='logit')
  out = 2 * goldens.nchw(found['out']) - 1
  goldens.assert_close(out, data['out'], GENERATOR_ATOL, what='out')


@goldens.cases('aotgan_upconv')
def test_upconv(case):
  data = case.data()
  params = mapping.convert(case.state(), mapping.conv('conv', 'net', ('conv',)))['params']['net']
  features = params['conv']['bias'].size
  got = networks.UpConv(features).apply({'params': params}, goldens.nhwc(data['x']))
  goldens.assert_close(goldens.nchw(got), data['out'])


@goldens.cases('aotgan_discriminator')
def test_discriminator(case):
  data = case.data()
  tree = mapping.convert(case.state(), published.discriminator_entries())
  variables = {'params': tree['params']['discriminator'], **tree['stats']['discriminator']}
  x = (goldens.nhwc(data['x']) + 1) / 2
  logits, features = jax.jit(networks.Discriminator().apply)(variables, x)
  want = data['feat_b0']
  got = goldens.nchw(features[3])[: len(want)]
  goldens.assert_close(got[:, :: got.shape[1] // want.shape[1]], want, what='features')
  goldens.assert_close(goldens.nchw(logits), data['out'], what='logits')


def test_every_parameter_of_both_networks_is_mapped_once():
  want = {('generator', *path(p)) for p, _ in leaves(generator_shapes())}
  for tree in discriminator_shapes().values():
    want |= {('discriminator', *path(p)) for p, _ in leaves(tree)}
  found = [(e.network, *e.path) for e in published.entries({})]
  assert len(found) == len(set(found)) and set(found) == want


def test_entries_follow_the_settings():
  model = dict(blocks=2, rates=(1, 2))
  want = {path(p) for p, _ in leaves(generator_shapes(width=4, **model))}
  assert {e.path for e in published.generator_entries(model)} == want


def test_other_shapes_than_squares_run_and_the_hole_is_not_read():
  generator = networks.Generator(width=4, blocks=1, rates=(1, 2))
  image = jax.random.uniform(jax.random.key(0), (1, 16, 24, 3))
  mask = jnp.zeros((1, 16, 24, 1)).at[:, 4:8, 4:20].set(1.0)
  variables = initial.values(lambda key: generator.init(key, image, mask), seed=1)
  apply = jax.jit(generator.apply)
  found = apply(variables, image, mask)
  assert found['out'].shape == image.shape
  other = apply(variables, jnp.where(mask == 1, 0.5, image), mask)
  np.testing.assert_array_equal(found['out'], other['out'])
  white = apply(variables, jnp.where(mask == 1, 1.0, image), 0 * mask)  # as if it were known
  assert np.abs(white['out'] - found['out']).max() > 0  # the mask is read, too


def test_sizes_that_the_blocks_cannot_mirror_are_refused():
  refused = pytest.raises(ValueError, match='height 32 must be a multiple of 4 and at least 36')
  with refused:
    jax.eval_shape(networks.Generator().init, jax.random.key(0), jnp.zeros((1, 32, 40, 3)), 0.0)
  assert networks.min_side((1, 2)) == 12


@pytest.mark.parametrize('stem', [1, 2])
def test_an_untrained_network_with_a_fill_gives_the_fill_and_learns(stem):
  model = dict(
    width=4, blocks=1, rates=(1, 2), stem=stem, fill='tension' if stem == 1 else 'smooth'
  )
  generator = networks.Generator(**model, kernel_init=jax.nn.initializers.he_normal())
  image = jax.random.uniform(jax.random.key(0), (1, 24, 32, 3))
  mask = jnp.zeros((1, 24, 32, 1)).at[:, 4:20, 4:20].set(1.0)
  filled.check_start(generator, image, mask, [('decoder2',)])


def test_a_stem_works_on_squares_of_pixels():
  plain, stem = generator_shapes(width=8), generator_shapes(width=8, stem=1, fill='smooth')
  assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, stem)
  small = dict(width=8, rates=(1, 2), blocks=1)
  stem = generator_shapes(**small, stem=4)
  assert stem['encoder0']['kernel'].shape == (3, 3, 64, 8)
  assert stem['decoder2']['kernel'].shape == (3, 3, 8, 48)
  with pytest.raises(ValueError, match='height 64 must be a multiple of 16 and at least 144'):
    generator_shapes(stem=4)
  with pytest.raises(ValueError, match="fill 'blur' must be"):
    generator_shapes(fill='blur')


def leaves(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def path(keys):
  return tuple(k.key for k in keys)
