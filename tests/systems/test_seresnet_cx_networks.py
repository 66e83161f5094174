import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from skimage import filters

from jaxinpaint import systems
from jaxinpaint.systems.seresnet_cx import networks, published
from jaxinpaint.weights import importer, mapping, store


def generator_shapes(**settings):
  image, mask = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 32, 32, 1))
  generator = networks.Generator(**settings)
  return jax.eval_shape(generator.init, jax.random.key(0), image, mask)


def discriminator_shapes(local=96, whole=160, **settings):
  discriminator = networks.Discriminator(**settings)
  inputs = [jnp.zeros((1, n, n, 3)) for n in (local, whole)]
  return jax.eval_shape(discriminator.init, jax.random.key(0), *inputs)


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_parameter_counts():
  assert count(generator_shapes()['params']) == 8_207_427
  assert count(generator_shapes(use_se_resnet=False)['params']) == 6_070_531
  assert count(discriminator_shapes()['params']) == 156_219_073
  assert count(discriminator_shapes(tail_stride=2)['params']) == 38_782_657
  assert count(discriminator_shapes(use_se_resnet=False)['params']) == 44_078_593


@goldens.cases('seresnet_cx_generator', 'seresnet_cx_generator_no_se')
def test_generator(case):
  data, state = case.data(), case.state()
  blocks = 'block2.conv1.weight' in state
  tree = mapping.convert(state, published.generator_entries({'use_se_resnet': blocks}))
  variables = {'params': tree['params']['generator'], **tree['stats']['generator']}
  image, known = goldens.nhwc(data['image']), goldens.nhwc(data['mask'])
  # The file's mask is 1 where the image is known, if it is the one that blackened the image.
  hole = 1 - known if (image * known == image).all() else known
  found = jax.jit(networks.Generator(use_se_resnet=blocks).apply)(variables, image, hole)
  for name in ('encoder', 'middle'):
    goldens.assert_close(goldens.nchw(found[name])[:, ::16], data[name], what=name)
  goldens.assert_close(goldens.nchw(found['out']), data['out'], what='out')


@pytest.mark.slow  # 156 M parameters
@goldens.cases('seresnet_cx_discriminator')
def test_discriminator(case):
  check_discriminator(case)


@goldens.cases('seresnet_cx_discriminator_tail2')
def test_discriminator_of_the_strided_tail(case):
  check_discriminator(case)


def check_discriminator(case):
  data, state = case.data(), case.state()
  stride = 2 if 'model_gd.block5.down.0.weight' in state else 1
  tree = mapping.convert(state, published.discriminator_entries({'disc_tail_stride': stride}))
  variables = {'params': tree['params']['discriminator'], **tree['stats']['discriminator']}
  inputs = (goldens.nhwc(data['image_local']), goldens.nhwc(data['image_global']))
  found = jax.jit(networks.Discriminator(tail_stride=stride).apply)(variables, *inputs)
  goldens.assert_close(found['local'], data['feature_local'], what='local')
  goldens.assert_close(found['global'], data['feature_global'], what='global')
  goldens.assert_close(found['logits'], data['logit'], what='logits')
  goldens.assert_close(jax.nn.sigmoid(found['logits']), data['out'], what='out')


@pytest.mark.parametrize('model', [{}, {'use_se_resnet': False}, {'disc_tail_stride': 2}])
def test_every_parameter_and_statistic_of_both_networks_is_mapped_once(model):
  settings = {k: v for k, v in model.items() if k == 'use_se_resnet'}
  judge = settings | {'tail_stride': model.get('disc_tail_stride', 1)}
  trees = {
    'generator': generator_shapes(width=16, **settings),
    'discriminator': discriminator_shapes(32, 64, width=16, features=8, **judge),
  }
  want = set()
  for network, tree in trees.items():
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
      collection, *names = (k.key for k in path)
      want.add((network, collection, *names))
  found = [(e.network, e.collection, *e.path) for e in published.entries(model)]
  assert len(found) == len(set(found)) and set(found) == want


def test_any_multiple_of_four_runs_and_the_hole_is_not_read():
  generator = networks.Generator(width=4, mask_channel=True)
  image = jax.random.uniform(jax.random.key(0), (1, 12, 20, 3))
  mask = jnp.zeros((1, 12, 20, 1)).at[:, 4:8, 4:16].set(1.0)
  variables = filled(generator_shapes(width=4, mask_channel=True))
  apply = jax.jit(generator.apply)
  found = apply(variables, image, mask)
  assert found['out'].shape == image.shape and found['out'].std() > 0
  other = apply(variables, jnp.where(mask == 1, jnp.nan, image), mask)
  np.testing.assert_array_equal(found['out'], other['out'])
  with pytest.raises(ValueError, match='width 22 must be a multiple of 4'):
    generator.init(jax.random.key(1), jnp.zeros((1, 12, 22, 3)), jnp.zeros((1, 12, 22, 1)))


def filled(shapes):
  """Variables of those shapes, without compiling an initialisation."""
  rng = np.random.default_rng(0)
  draw = lambda s: rng.normal(size=s.shape).astype(np.float32) / np.sqrt(max(1, s.size) ** 0.7)
  variables = {'params': jax.tree.map(draw, shapes['params'])}
  return variables | {
    'batch_stats': jax.tree.map(lambda s: np.ones(s.shape, np.float32), shapes['batch_stats'])
  }


def test_the_edge_map_is_sobels_of_the_gray_image():
  image = np.random.default_rng(0).random((2, 9, 12, 3), np.float32)
  image[1, :, 6:], image[1, :, :6] = 1, 0
  found = np.asarray(networks.edge_map(image))
  for one, picture in zip(image, found, strict=True):
    want = np.sqrt(2) * filters.sobel(one @ np.array([0.2125, 0.7154, 0.0721]))
    np.testing.assert_allclose(picture[..., 0], np.clip(want, 0, 1), atol=1e-5)  # float32
  np.testing.assert_allclose(found[1, :, 5:7], 1, atol=1e-5)


def test_switches_change_the_networks():
  first = lambda **settings: generator_shapes(**settings)['params']['conv1']['kernel'].shape
  assert first() == (5, 5, 3, 64) and first(mask_channel=True) == (5, 5, 4, 64)
  assert 'block2' not in generator_shapes(use_se_resnet=False)['params']
  squeezed = generator_shapes(se_reduction=8)['params']['block6']['se']['fc1']['kernel']
  assert squeezed.shape == (256, 32)
  branches = discriminator_shapes(tail_stride=2)['params']
  assert 'conv1' in branches['global'] and 'conv1' not in branches['local']
  rows = {n: branches[n]['linear']['kernel'].shape[0] for n in ('local', 'global')}
  assert rows == {'local': 512 * 3 * 3, 'global': 512 * 3 * 3}


@pytest.mark.parametrize(
  'name, format', [('generator', 'seresnet_cx'), ('generator_no_se', 'without_se_resnet')]
)
def test_files_are_imported_in_their_format_and_others_refused(name, format, tmp_path):
  case = next(c for c in goldens.all_cases() if c.name == f'seresnet_cx_{name}')
  state = {k: v for k, v in case.state().items() if v.ndim}
  save_file(state, tmp_path / 'model.safetensors')
  path = importer.import_file(
    systems.published('seresnet_cx'), tmp_path / 'model.safetensors', tmp_path / 'ours'
  )
  stored = store.load(path)
  assert stored.meta['source']['format'] == format
  kernel = stored.params['generator']['conv17']['kernel']
  np.testing.assert_array_equal(kernel, state['conv17.weight'].transpose(2, 3, 1, 0))
  mean = stored.stats['generator']['batch_stats']['bn16']['mean']
  np.testing.assert_array_equal(mean, state['bn16.running_mean'])
  del state['conv11.bias']
  save_file(state, tmp_path / 'other.safetensors')
  with pytest.raises(mapping.MappingError, match=r'conv11\.bias'):
    importer.import_file(
      systems.published('seresnet_cx'), tmp_path / 'other.safetensors', tmp_path / 'x'
    )
