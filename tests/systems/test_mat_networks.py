"""The networks of MAT against the outputs of the authors' code."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.systems.mat import networks, published
from jaxinpaint.weights import mapping


@functools.cache
def shapes(size):
  config = systems.default_config('mat')
  config.model.size = size
  return systems.make_recipe(config).shapes()


def check_generator(case, step):
  data = case.data()
  size = data['image'].shape[-1]
  tree = mapping.convert(case.state(), published.entries({'size': size}), published.IGNORE)
  variables = {'params': tree['params']['generator'], **tree['stats']['generator']}
  keep = (data['drop1'].reshape(1, 16, 16, -1), goldens.nhwc(data['drop2']))

  @jax.jit
  def run(variables, image, mask, w, keep):
    return networks.Generator(size).apply(variables, image, mask, w, 'stored', keep)

  image, valid = goldens.nhwc(data['image']), goldens.nhwc(data['mask'])
  found = run(variables, (image + 1) / 2, 1 - valid, data['ws'], keep)
  tokens = found['deepest1'].reshape(1, -1, 180)[:, ::4]
  goldens.assert_close(tokens, data['tran2'], what='tokens')
  goldens.assert_close(goldens.nchw(found['deepest2'])[:, ::16], data['enc16'], what='enc16')
  goldens.assert_close(found['style2'], data['gs'], what='style')
  for name, key in (('stage1', 'stg1'), ('out', 'y')):
    got = goldens.nchw(2 * found[name] - 1)[:, :, ::step, ::step]
    goldens.assert_close(got, data[key], what=name)


@goldens.cases('mat_generator128')
def test_generator(case):
  check_generator(case, 1)


@pytest.mark.slow
@goldens.cases('mat_generator')
def test_generator_of_256_pixels(case):
  check_generator(case, 2)


@goldens.cases('mat_mapping')
def test_mapping(case):
  data = case.data()
  state = {f'mapping.{key}': value for key, value in case.state().items()}
  tree = mapping.convert(state, published.mapping_entries())
  buffers = tree['stats']['generator']['buffers']
  buffers |= {f'noise{i}': np.zeros((1, 1, 1)) for i in range(len(networks.noise_sides(512)))}
  variables = {'params': tree['params']['generator'], 'buffers': buffers}
  run = functools.partial(networks.Generator().apply, variables, data['z'], method='latents')
  goldens.assert_close(run(), data['w'], what='w')
  goldens.assert_close(run(0.5), data['w_trunc05'], what='halfway to the average')


@pytest.mark.slow
@goldens.cases('mat_discriminator128')
def test_critics(case):
  data = case.data()
  config = systems.default_config('mat')
  config.model.size = 128
  critics = systems.module('mat', 'recipe').critics(config)
  tree = mapping.convert(case.state(), published.discriminator_entries(128), published.IGNORE)
  image = lambda name: (goldens.nhwc(data[name]) + 1) / 2
  mask = 1 - goldens.nhwc(data['mask'])
  for name, picture, key in (('critic', 'image', 'y'), ('critic_stage1', 'stg1', 'y_stg1')):
    seen = jnp.concatenate([0.5 - mask, 2 * image(picture) - 1], -1)
    got = jax.jit(critics[name].apply)({'params': tree['params'][name]}, seen)
    # Logits reach 216, and float32 sums in another order differ in proportion.
    scale = max(1.0, np.abs(data[key]).max())
    goldens.assert_close(got / scale, data[key] / scale, atol=1e-5, what=name)


@pytest.mark.parametrize('size, want', [(128, 56_940_126), (256, 59_779_834), (512, 61_562_518)])
def test_parameter_counts(size, want):
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert count(shapes(size).params['generator']) == want


@pytest.mark.parametrize('size', [256, 512])
def test_every_parameter_of_the_networks_is_mapped_once(size):
  entries = published.entries({'size': size}) + published.discriminator_entries(size)
  targets = [e.target for e in entries]
  assert len(targets) == len(set(targets)) == len({e.key for e in entries})
  want = set()
  for kind, tree in shapes(size)._asdict().items():
    want |= {(kind, *(k.key for k in path)) for path, _ in jax.tree.leaves_with_path(tree)}
  assert set(targets) == want


TOY = networks.Generator(
  32, 16, features=4, depths=(1, 1, 1, 1, 1), heads=2, style_dim=4, mlp_layers=1, max_channels=4
)


def test_larger_pictures_repeat_the_stored_noise(monkeypatch):
  """Stage 2 gets it; the networks themselves are left out."""
  given = []

  def second(self, x, w, keep, noises):
    given.append(noises)
    return x[..., :3], {'deepest': x, 'style': w}

  monkeypatch.setattr(networks.SecondStage, '__call__', second)
  monkeypatch.setattr(networks.FirstStage, '__call__', lambda self, x, *_: (x[..., :3], x))
  sides = networks.noise_sides(32)
  assert sides == [16, 32, 32]
  stored = {f'noise{i}': np.random.default_rng(i).random((n, n, 1)) for i, n in enumerate(sides)}
  variables = {'buffers': stored | {'w_avg': np.zeros(4)}}
  keep = jnp.ones((1, 4, 8, 4)), jnp.ones((1, 16, 32, 4))
  TOY.apply(
    variables, jnp.zeros((1, 32, 64, 3)), jnp.ones((1, 32, 64, 1)), jnp.zeros((1, 4)), keep=keep
  )
  for own, large in zip(stored.values(), given[0], strict=True):
    np.testing.assert_allclose(large[0], np.concatenate([own, own], 1), rtol=1e-6)


def test_sizes_that_do_not_fit_are_named():
  init = lambda net, h, w: jax.eval_shape(
    net.init,
    jax.random.key(0),
    *(jax.ShapeDtypeStruct((1, *s), np.float32) for s in ((h, w, 3), (h, w, 1), (4,))),
  )
  with pytest.raises(ValueError, match='image height 48 must be a multiple of 32'):
    init(TOY, 48, 32)
  with pytest.raises(ValueError, match='pictures of 48 pixels and 16 x 16 tokens'):
    init(TOY.copy(size=48), 48, 48)
