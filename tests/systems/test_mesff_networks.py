import filled
import goldens
import initial
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.filtering import predicted_kernel_filter
from jaxinpaint.layers.smooth_fill import without_grid
from jaxinpaint.systems.mesff import networks, published
from jaxinpaint.weights import mapping

# Parameters of the six variants, counted in the paper's layout at full width.
COUNTS = {
  46_618_023: dict(),
  45_732_004: dict(use_mesff=False),
  14_355_873: dict(bottleneck='none'),
  13_469_854: dict(use_mesff=False, bottleneck='none'),
  22_911_134: dict(use_mesff=False, bottleneck='resnet'),
  23_797_153: dict(bottleneck='resnet'),
}
SMALL = dict(width=8, blocks=1, resnet_blocks=1, attention_size=16, attention_hidden=4)


def picture(height, width=None, count=1):
  shape = count, height, width or height
  image, mask = np.random.default_rng(0).random((*shape, 3), np.float32), np.zeros((*shape, 1))
  mask[:, 8:20, 8:30] = 1
  return image, mask.astype(np.float32)


@pytest.fixture(scope='module')
def variables():
  """Of SMALL, for every size and dtype."""
  generator = networks.Generator(**SMALL)
  return initial.values(lambda key: generator.init(key, *picture(40)), seed=1)


# The same functions for every test that runs these networks: each is compiled once.
apply_small = jax.jit(networks.Generator(**SMALL).apply)
STEM = SMALL | dict(stem=2, fill='smooth', norm='none')
plain_stem, smooth_stem = (networks.Generator(**STEM, without_grid=x) for x in (False, True))
# One program: what both have in common is compiled once.
apply_stems = jax.jit(
  lambda *arguments: (plain_stem.apply(*arguments), smooth_stem.apply(*arguments)['out'])
)


def shaken(variables, size):
  """Other than untrained: each parameter with a wave of this size added."""
  return jax.tree.map(
    lambda x: x + np.float32(size) * np.sin(np.arange(x.size, dtype=np.float32)).reshape(x.shape),
    variables,
  )


def shapes(side=64, **settings):
  image, mask = jnp.zeros((1, side, side, 3)), jnp.zeros((1, side, side, 1))
  generator = networks.Generator(**settings)
  return jax.eval_shape(generator.init, jax.random.key(0), image, mask)['params']


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('expected', COUNTS)
def test_parameter_count(expected):
  params = shapes(**COUNTS[expected])
  assert count(params) == expected
  settings = COUNTS[expected]
  assert ('mesff' in params) == settings.get('use_mesff', True)
  assert ('body0' in params) == (settings.get('bottleneck') != 'none')


def test_parts_have_the_published_sizes():
  params = shapes()
  assert count(params['ifkpb']) == 12_136_539
  assert count(params['mesff']) == 361_731
  assert count(params['body0']) == 5_377_025
  assert count(params['body0']['enhance']) == 1_770_240


@goldens.cases('mesff_generator')
def test_generator(case):
  data, state = case.data(), case.state()
  size = state['mesff.key.fc1.weight'].shape[1]
  model = dict(attention_size=size)
  params = mapping.convert(state, published.entries(model))['params']['generator']
  apply = jax.jit(networks.Generator(**model).apply)
  found = apply({'params': params}, goldens.nhwc(data['image']), goldens.nhwc(data['mask']))
  for name in ('out', 'raw'):
    goldens.assert_close(goldens.nchw(found[name]), data[name], atol=1e-3, what=name)
  strides = dict(kernels=3, dec2=16, prior=16, enc2=8, bottleneck=8)
  for name, stride in strides.items():
    got, want = goldens.nchw(found[name])[:1, ::stride], data[f'{name}_b0']
    scale = max(1.0, want.std())  # the body ends at a deviation of about a hundred
    goldens.assert_close(got / scale, want / scale, atol=1e-3, what=name)


@goldens.cases('mesff_module')
def test_mesff_module(case):
  data = case.data()
  tree = mapping.convert(case.state(), published.mesff_entries('', ()))
  module = networks.MESFF(dim=8, size=32, hidden=6)
  x, weights = goldens.nhwc(data['x']), goldens.nhwc(data['cotangent'])

  def loss(x):
    variables = {'params': tree['params']['generator']}
    out, inner = module.apply(variables, x, mutable=['intermediates'])
    return (out * weights).sum(), (out, inner['intermediates'])

  gradient, (out, inner) = jax.jit(jax.grad(loss, has_aux=True))(x)
  goldens.assert_close(goldens.nchw(out), data['out'], what='out')
  for name in ('feature', 'attended', 'weights', 'fused'):
    goldens.assert_close(goldens.nchw(inner[name][0])[:1], data[f'{name}_b0'], what=name)
  goldens.assert_close(goldens.nchw(gradient), data['grad_x'], what='d/dx')


@goldens.cases('mesff_sfi')
def test_sfi_block(case):
  data = case.data()
  tree = mapping.convert(case.state(), published.sfi_entries('', ()))
  x, weights = goldens.nhwc(data['x']), goldens.nhwc(data['cotangent'])

  def loss(x):
    variables = {'params': tree['params']['generator']}
    out, inner = networks.SFI().apply(variables, x, mutable=['intermediates'])
    return (out * weights).sum(), (out, inner['intermediates'])

  gradient, (out, inner) = jax.jit(jax.grad(loss, has_aux=True))(x)
  for name, got in dict(out=out, map=inner['map'][0], noise=inner['distraction'][0]).items():
    goldens.assert_close(goldens.nchw(got), data[name], what=name)
  goldens.assert_close(goldens.nchw(gradient), data['grad_x'], what='d/dx')


def test_the_hole_is_not_read_and_the_output_is_an_image(variables):
  image, mask = picture(40, 44, count=2)
  out = lambda image: np.asarray(apply_small(variables, image, mask)['out'])
  found = out(image)
  assert found.shape == image.shape and found.dtype == np.float32
  assert found.min() >= 0 and found.max() <= 1
  np.testing.assert_array_equal(found, out(np.where(mask == 1, 1 - image, image)))
  assert np.abs(found - out(1 - image)).max() > 0


def test_remat_changes_nothing_but_memory(variables):
  image, mask = picture(36)
  own = shapes(36, **SMALL, remat=True)
  assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, variables['params'])
  # What is recomputed, and what comes before it; other gradients would take long to compile.
  near = {name: variables['params'][name] for name in ('enc2', 'body0')}

  def loss(near, remat):
    generator = networks.Generator(**SMALL, remat=remat)
    out = generator.apply({'params': variables['params'] | near}, image, mask)['out']
    return jnp.square(out - image).mean()

  results = jax.jit(lambda near: [jax.grad(loss)(near, remat) for remat in (False, True)])(near)
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(results[0]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), *results)


@pytest.mark.parametrize(
  'switch, added',
  [
    (dict(filter_rates=(1, 2, 3, 4)), 12 * 3 * 9 + 3),
    (dict(mesff_skip='concat'), 16 * 8 * 9 + 8),
    (dict(mesff_skip='none'), 0),
    (dict(kernel_size=5), (75 - 27) * 9),
    (dict(gate_norm='none', sfi_residual_scale=0.5), 0),
    (dict(fill='smooth', norm='none', encoder_skips=True), 0),
  ],
)
def test_switches_add_what_they_say_and_convert(switch, added):
  params = shapes(side=40, **SMALL, **switch)
  assert count(params) == count(shapes(side=40, **SMALL)) + added
  model = SMALL | switch
  paths = {e.path for e in published.entries(model)}
  got = {tuple(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
  assert got == paths


def test_residual_scale_weighs_the_enhancement():
  x = np.random.default_rng(0).standard_normal((1, 10, 10, 8), np.float32)
  variables = initial.values(lambda key: networks.SFI().init(key, x), seed=1)
  scaled = lambda v: [networks.SFI(residual_scale=s).apply(v, x) for s in (0.0, 0.5, 1.0)]
  outs = list(map(np.asarray, jax.jit(scaled)(variables)))
  np.testing.assert_allclose(outs[0] + outs[2], 2 * outs[1], atol=1e-5)
  assert np.abs(outs[0] - outs[1]).max() > 0.1


def test_bfloat16_stays_near_float32(variables):
  image, mask = picture(40, 44, count=2)
  full = apply_small(variables, image, mask)['out']
  generator = networks.Generator(**SMALL, dtype=jnp.bfloat16)
  half = jax.jit(generator.apply)(variables, image, mask)
  assert half['out'].dtype == jnp.float32 and half['bottleneck'].dtype == jnp.bfloat16
  assert 0 < np.abs(np.asarray(half['out']) - full).max() < 0.02
  own = jax.eval_shape(generator.init, jax.random.key(1), image, mask)
  assert {leaf.dtype for leaf in jax.tree.leaves(own)} == {jnp.dtype('float32')}


def test_bad_sizes_and_switches_are_named():
  init = lambda side, **s: shapes(side, **SMALL, **s)
  with pytest.raises(ValueError, match='height 42 must be a multiple of 4 and at least 36'):
    init(42)
  with pytest.raises(ValueError, match='height 32 must be'):
    init(32)
  with pytest.raises(ValueError, match="bottleneck 'aot' must be"):
    init(40, bottleneck='aot')
  with pytest.raises(ValueError, match="skip 'cat' must be"):
    init(40, mesff_skip='cat')


@pytest.mark.parametrize('stem', [1, 2])
def test_an_untrained_network_with_a_fill_gives_the_fill_and_learns(stem):
  image, mask = picture(40 * stem)
  model = SMALL | dict(stem=stem, fill='smooth' if stem == 1 else 'tension', norm='none')
  model |= dict(encoder_skips=stem == 2, standardise=stem == 1, without_grid=stem == 2)
  model |= dict(bottleneck='none')  # takes long to compile, and nothing of it is seen
  generator = networks.Generator(**model, kernel_init=jax.nn.initializers.he_normal())
  filled.check_start(generator, image, mask, [('dec2',), ('ifkpb', 'kernels')])


def test_a_stem_works_on_squares_of_pixels():
  plain, stem = shapes(side=72, **SMALL), shapes(side=72, **SMALL, stem=2)
  assert plain['enc0']['kernel'].shape == (7, 7, 4, 8)
  assert stem['enc0']['kernel'].shape == (3, 3, 16, 8)
  assert stem['dec2']['kernel'].shape == (3, 3, 8, 12)
  assert stem['ifkpb']['kernels']['kernel'].shape == (1, 1, 8, 108)
  assert jax.tree.map(jnp.shape, stem['body0']) == jax.tree.map(jnp.shape, plain['body0'])
  with pytest.raises(ValueError, match='height 68 must be a multiple of 8 and at least 72'):
    shapes(side=68, **SMALL, stem=2)
  for switch in (dict(fill='blur'), dict(norm='group')):
    with pytest.raises(ValueError, match='must be'):
      shapes(**SMALL, **switch)
  with pytest.raises(ValueError, match='standardise=True needs a fill'):
    shapes(**SMALL, standardise=True)
  with pytest.raises(ValueError, match='without_grid=True needs a fill'):
    shapes(**SMALL, without_grid=True)


def test_standardised_pictures_of_any_light_and_contrast_are_completed_alike():
  image, mask = picture(40)
  model = SMALL | dict(fill='smooth', norm='none', standardise=True)
  generator = networks.Generator(**model)
  variables = initial.values(lambda key: generator.init(key, image, mask), seed=1)
  apply = jax.jit(lambda *arguments: generator.apply(*arguments)['raw'])
  run = lambda image, variables: np.asarray(apply(variables, image, mask))
  other = shaken(variables, 0.05)
  out, fill = run(0.3 * image + 0.3, other), run(image, variables)
  np.testing.assert_allclose(out, run(0.2 * image + 0.5, other), atol=1e-4)
  assert np.abs(out - fill).max() > 0.01  # the network has changed something


@pytest.fixture(scope='module')
def stem_variables():
  return initial.values(lambda key: plain_stem.init(key, *picture(80)), seed=1)


def test_the_kernels_handed_out_with_a_fill_are_those_that_filter(stem_variables):
  image, mask = picture(80)
  image = 0.4 + 0.2 * image  # nothing is clipped
  found, _ = jax.tree.map(np.asarray, apply_stems(shaken(stem_variables, 0.02), image, mask))
  run = jax.jit(predicted_kernel_filter, static_argnums=2)
  filtered = np.asarray(run(found['raw'], found['kernels'], 3))
  assert np.abs(filtered - found['raw']).max() > 0.01
  clipped = np.clip((filtered + 1) / 2, 0, 1)
  np.testing.assert_allclose(found['out'], clipped, atol=1e-5)


def test_squares_of_the_stem_are_averaged_away(stem_variables):
  image, mask = picture(80)
  run = lambda variables: jax.tree.map(np.asarray, apply_stems(variables, image, mask))
  fill = run(stem_variables)[0]['out']
  plain, found = run(shaken(stem_variables, 0.02))
  y = plain['out']
  averaged = jax.jit(without_grid, static_argnums=2)(y - fill, mask, 2)
  wanted = fill + np.asarray(averaged)
  hole = mask[..., 0] == 1
  np.testing.assert_allclose(found[hole], wanted[hole], atol=1e-5)
  assert np.abs(found - y)[hole].max() > 1e-3, 'there was something to average'
