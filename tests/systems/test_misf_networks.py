import re

import goldens
import initial
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.systems.misf import networks, published
from jaxinpaint.weights import mapping


def shapes(**settings):
  image, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
  generator = networks.Generator(**settings)
  return jax.eval_shape(generator.init, jax.random.key(0), image, mask)['params']


def test_parameter_count_is_the_published_one_without_conv_final():
  sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes())]
  conv_final = 12 * 3 * 9 + 3
  assert sum(sizes) + conv_final == 23_059_493  # 23.06 M


@goldens.cases('misf_generator')
def test_generator(case):
  data = case.data()
  tree = mapping.convert(case.state(), published.generator_entries({}), published.IGNORE)
  x = goldens.nhwc(data['input'])
  apply = jax.jit(networks.Generator().apply)
  found = apply({'params': tree['params']['generator']}, x[..., :3], x[..., 3:])
  goldens.assert_close(goldens.nchw(found['kernels']), data['kernels_image'], what='kernels')
  feature = goldens.nchw(found['filtered_feature'])
  want = data['filtered_feature']  # its first channels
  goldens.assert_close(feature[:, : want.shape[1]], want, what='filtered feature')
  goldens.assert_close(goldens.nchw(found['out']), data['output'], what='out')


def test_other_shapes_than_squares_run_and_the_hole_is_not_read():
  generator = networks.Generator(width=8, blocks=1)
  image = jax.random.uniform(jax.random.key(0), (1, 16, 24, 3))
  mask = jnp.zeros((1, 16, 24, 1)).at[:, 4:8, 4:20].set(1.0)
  variables = initial.values(lambda key: generator.init(key, image, mask), seed=1)
  apply = jax.jit(generator.apply)
  found = apply(variables, image, mask)
  assert found['out'].shape == image.shape
  other = apply(variables, jnp.where(mask == 1, 0.5, image), mask)
  np.testing.assert_array_equal(found['out'], other['out'])
  with pytest.raises(ValueError, match='width 22 must be a multiple of 4'):
    generator.init(jax.random.key(1), image[:, :, :22], mask[:, :, :22])


def test_every_parameter_of_both_networks_is_mapped_once():
  want = {('generator', *path(p)) for p, _ in leaves(shapes())}
  discriminator = jax.eval_shape(
    PatchDiscriminator().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
  )
  for tree in discriminator.values():
    want |= {('discriminator', *path(p)) for p, _ in leaves(tree)}
  found = [(e.network, *e.path) for e in published.entries({})]
  assert len(found) == len(set(found)) and set(found) == want


def test_only_unused_keys_are_ignored():
  skipped = lambda key: any(re.search(pattern, key) for pattern in published.IGNORE)
  assert skipped('kpn_model.conv_final.weight') and skipped('features.0.weight_orig')
  assert not any(skipped(e.key) for e in published.entries({}))


def test_a_discriminator_file_with_aliases_and_module_prefix_converts():
  want = published.discriminator_entries()
  shapes = {'conv1.0.weight_orig': (64, 3, 4, 4)}
  state = {}
  for entry in want:
    state[f'module.{entry.key}'] = np.zeros(shapes.get(entry.key, (2, 2, 4, 4)), np.float32)
    if entry.key.startswith('conv1.0'):
      state[f'module.features.0.{entry.key.removeprefix("conv1.0.")}'] = np.zeros(1, np.float32)
  tree = mapping.convert(state, want, published.IGNORE)
  assert set(tree['params']['discriminator']) == {f'conv{i}' for i in range(1, 6)}
  assert tree['params']['discriminator']['conv1']['kernel'].shape == (4, 4, 3, 64)


def leaves(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def path(keys):
  return tuple(k.key for k in keys)
