import re

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.systems.deepfillv1 import networks, published
from jaxinpaint.weights import mapping


def shapes(size=64, **settings):
  image, mask = jnp.zeros((1, size, size, 3)), jnp.zeros((1, size, size, 1))
  generator = networks.Generator(**settings)
  return jax.eval_shape(generator.init, jax.random.key(0), image, mask)['params']


def filled(**settings):
  """Variables of a small generator, without compiling its initialisation."""
  rng = np.random.default_rng(1)
  draw = lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32) * 0.2
  return {'params': jax.tree.map(draw, shapes(**settings))}


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def critic_shapes(critic, sizes):
  made = networks.critics(critic)
  init = lambda name, n: jax.eval_shape(made[name].init, jax.random.key(0), jnp.zeros((1, n, n, 3)))
  return {name: init(name, n)['params'] for name, n in sizes.items()}


SIZES = {'local_critic': 128, 'global_critic': 256}


def test_parameter_counts():
  assert count(shapes()) == 3_601_542
  without = shapes(use_attention=False)
  assert not any(name.startswith('pm') for name in without['refine'])
  official = critic_shapes('official', SIZES)
  assert count(official['local_critic']) == 4_339_329
  assert count(official['global_critic']) == 2_733_441
  # The port's local critic ends in half the channels.
  assert count(critic_shapes('port', SIZES)['local_critic']) == 2_684_289


def test_every_parameter_is_mapped_once():
  want = {('generator', *path(p)) for p, _ in leaves(shapes())}
  for name, tree in critic_shapes('official', SIZES).items():
    want |= {(name, *path(p)) for p, _ in leaves(tree)}
  for entries in (published.tf_entries({}), published.port_entries({})):
    found = [(e.network, *e.path) for e in entries]
    assert len(found) == len(set(found)) and set(found) == want
    assert len({(e.network, e.key) for e in entries}) == len(entries)
  baseline = [e.path for e in published.tf_entries({'use_attention': False})]
  assert set(baseline) == {path(p) for p, _ in leaves(shapes(use_attention=False))} | {
    e.path for e in published.tf_entries({}) if e.network != 'generator'
  }


def test_only_optimizer_state_is_ignored():
  skipped = lambda key: any(re.search(pattern, key) for pattern in published.TF_IGNORE)
  for key in ('inpaint_net/conv1/kernel/Adam_1', 'inpaint_net/conv1/bias/Adam', 'beta1_power_1'):
    assert skipped(key)
  assert not any(skipped(e.key) for e in published.tf_entries({}))


def run_generator(params, data, **settings):
  """The network's own range is that of the golden: [-1, 1] in and out."""
  image = (goldens.nhwc(data['x']) + 1) / 2
  mask = np.broadcast_to(goldens.nhwc(data['mask']), (*image.shape[:3], 1))
  apply = jax.jit(networks.Generator(**settings).apply)
  return apply({'params': params['generator']}, image, mask)


def check_generator(found, data):
  for name, want in (('coarse', 'x1'), ('out', 'x2')):
    got = goldens.nchw(found[name]) * 2 - 1
    goldens.assert_close(got, data[want], what=name)


def tf_state(case):
  """The case's weights as the TensorFlow variables that they were assigned to."""
  names = case.manifest()['tf_names']
  move = {4: lambda v: v.transpose(2, 3, 1, 0), 2: lambda v: v.T, 1: lambda v: v}
  return {names[k]: move[v.ndim](v) for k, v in case.state().items()}


@goldens.cases('deepfillv1_generator_official_tf')
def test_official_generator(case):
  state = tf_state(case)
  state['inpaint_net/conv1/kernel/Adam'] = np.zeros(1, np.float32)
  entries = [e for e in published.tf_entries({}) if e.network == 'generator']
  tree = mapping.convert(state, entries, published.TF_IGNORE)
  data = case.data()
  check_generator(run_generator(tree['params'], data), data)


@goldens.cases('deepfillv1_generator')
def test_port_generator(case):
  tree = mapping.convert(case.state(), published.port_generator_entries({}))
  data = case.data()
  settings = {k: v for k, v in published.PORT.items() if k != 'critic'}
  found = run_generator(tree['params'], data, **settings)
  check_generator(found, data)
  pairs = (('attended_from', 'att_in'), ('attended', 'att_out'), ('hallucinated', 'hallu'))
  for name, want in pairs:
    n, c = data[want].shape[:2]
    goldens.assert_close(goldens.nchw(found[name])[:n, :c], data[want], what=name)


@goldens.cases('deepfillv1_discriminators_official_tf')
def test_official_critics(case):
  data = case.data()
  entries = [e for e in published.tf_entries({}) if e.network != 'generator']
  tree = mapping.convert(tf_state(case), entries)['params']
  for name, x, want in (
    ('local_critic', 'local', 'd_local'),
    ('global_critic', 'glob', 'd_global'),
  ):
    critic = networks.critics('official')[name]
    got = jax.jit(critic.apply)({'params': tree[name]}, (goldens.nhwc(data[x]) + 1) / 2)
    goldens.assert_close(got, data[want], what=name)


@goldens.cases('deepfillv1_local_discriminator', 'deepfillv1_global_discriminator')
def test_port_critics(case):
  name = 'local_critic' if 'local' in case.name else 'global_critic'
  tree = mapping.convert(case.state(), published.port_critic_entries(name))
  data = case.data()
  apply = jax.jit(networks.critics('port')[name].apply)
  got = apply({'params': tree['params'][name]}, (goldens.nhwc(data['x']) + 1) / 2)
  goldens.assert_close(got, data['y'], what=name)


def test_other_shapes_run_the_hole_is_not_read_and_samples_are_apart():
  generator = networks.Generator(width=4)
  image = jax.random.uniform(jax.random.key(0), (2, 24, 40, 3))
  mask = jnp.zeros((2, 24, 40, 1)).at[0, 4:12, 8:24].set(1.0).at[1, 12:, :16].set(1.0)
  variables = filled(width=4)
  apply = jax.jit(generator.apply)
  found = apply(variables, image, mask)
  assert found['out'].shape == image.shape and found['index'].shape == (2, 3, 5)
  other = apply(variables, jnp.where(mask == 1, 0.5, image), mask)
  np.testing.assert_array_equal(found['out'], other['out'])
  alone = apply(variables, jnp.stack([image[1]] * 2), jnp.stack([mask[1]] * 2))
  np.testing.assert_allclose(found['out'][1], alone['out'][0], atol=1e-5)
  with pytest.raises(ValueError, match='width 36 must be a multiple of 8'):
    generator.init(jax.random.key(1), image[:, :, :36], mask[:, :, :36])


def test_bgr_is_inside_only():
  image = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3))
  mask = jnp.zeros((1, 16, 16, 1)).at[:, 4:12, 4:12].set(1.0)
  rgb, bgr = (networks.Generator(width=2, channel_order=order) for order in ('rgb', 'bgr'))
  variables = filled(width=2)
  want = jax.jit(rgb.apply)(variables, image[..., ::-1], mask)['out'][..., ::-1]
  np.testing.assert_array_equal(jax.jit(bgr.apply)(variables, image, mask)['out'], want)


def test_unknown_forms_are_named():
  with pytest.raises(ValueError, match="critic 'big' must be one of: 'official', 'port'"):
    networks.critics('big')
  image = jnp.zeros((1, 16, 16, 3))
  for settings, words in (
    (dict(padding='valid'), "padding 'valid'"),
    (dict(channel_order='rbg'), "channel_order 'rbg'"),
  ):
    with pytest.raises(ValueError, match=words):
      generator = networks.Generator(width=4, **settings)
      jax.eval_shape(generator.init, jax.random.key(0), image, image[..., :1])


def leaves(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def path(keys):
  return tuple(k.key for k in keys)


def test_formats_fit_the_configs_they_name():
  for name, format in published.FORMATS.items():
    config = systems.default_config('deepfillv1')
    config.model.update(format.model)
    recipe = systems.make_recipe(config)
    batch = {'image': jnp.zeros((1, 64, 64, 3)), 'mask': jnp.zeros((1, 64, 64, 1))}
    params, _ = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    for entry in format.entries(config.model):
      leaf = params[entry.network]
      for key in entry.path:
        leaf = leaf[key]
      rank = {'conv': 4, 'dense': 2}.get(entry.layout, leaf.ndim)
      assert leaf.ndim == rank, (name, entry)
