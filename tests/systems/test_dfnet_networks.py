import dataclasses

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_bytes

from jaxinpaint import systems
from jaxinpaint.systems.dfnet import networks, published
from jaxinpaint.weights import importer, mapping, store


def narrow(**fields):
  config = systems.default_config('dfnet')
  config.model.update(dict(width=2, levels=3) | fields)
  return config


def draw(shapes, seed=0):
  """Kernels around 0 whose sums have a deviation of 1; the rest is above 0."""
  rng = np.random.default_rng(seed)

  def value(leaf):
    x = rng.standard_normal(leaf.shape)
    x = x / np.prod(leaf.shape[:-1]) ** 0.5 if len(leaf.shape) > 1 else np.abs(x)
    return x.astype(np.float32)

  return jax.tree.map(value, shapes)


def convert(case, entries):
  tree = mapping.convert(case.state(), entries)
  return {'params': tree['params']['generator'], **tree['stats']['generator']}


@pytest.fixture(scope='module')
def small():
  """(compiled network, variables, image, mask) of a picture that is no square."""
  generator = networks.Generator(width=2, levels=3)
  rng = np.random.default_rng(0)
  image = rng.random((1, 16, 24, 3), np.float32)
  mask = np.zeros((1, 16, 24, 1), np.float32)
  mask[:, 4:12, 5:20] = 1
  shapes = jax.eval_shape(generator.init, jax.random.key(0), image, mask)
  return jax.jit(generator.apply), draw(shapes), image, mask


@goldens.cases('dfnet_fusion_block')
def test_fusion_block(case):
  data = case.data()
  variables = convert(case, published.fusion_entries('', ()))
  shown, features = (goldens.nhwc(data[name]) for name in ('img_miss', 'feat'))
  found = jax.jit(networks.FusionBlock().apply)(variables, shown, features)
  for name, got in zip(('result', 'alpha', 'raw'), found, strict=True):
    goldens.assert_close(goldens.nchw(got), data[name], what=name)


@goldens.cases('dfnet_generator')
def test_network(case):
  data = case.data()
  variables = convert(case, published.entries({}))
  generator = networks.Generator()
  keep = lambda module, _: module.name in ('decoder7', 'encoder7_bn', 'decoder7_bn')

  @jax.jit
  def run(variables, image, mask):
    return generator.apply(
      variables, image, mask, capture_intermediates=keep, mutable=['intermediates']
    )

  shown, known = goldens.nhwc(data['img_miss']), goldens.nhwc(data['mask'])
  found, state = run(variables, shown, 1 - known)
  inner = lambda name: state['intermediates'][name]['__call__'][0]
  goldens.assert_close(goldens.nchw(jax.nn.relu(inner('encoder7_bn'))), data['en_7'], what='en_7')
  deepest = jax.nn.leaky_relu(inner('decoder7_bn'), 0.2)
  goldens.assert_close(goldens.nchw(deepest), data['de_7'], what='de_7')
  for name in ('result', 'alpha', 'raw'):
    for i, value in enumerate(found[f'{name}s']):
      if f'{name}_{i}' in data:
        step = 4 if (name, i) == ('alpha', 0) else 1  # stored so
        got = goldens.nchw(value)[:, :, ::step, ::step]
        goldens.assert_close(got, data[f'{name}_{i}'], what=f'{name}_{i}')
  goldens.assert_close(goldens.nchw(found['out']), data['result_0'], what='out')


def test_parameter_count_is_the_published_one_and_each_has_its_key():
  config = systems.default_config('dfnet')
  tree = systems.inference(config).shapes()._asdict()
  assert sum(x.size for x in jax.tree.leaves(tree['params'])) == 32_880_504
  want = set(mapping.flatten(tree, separator='/'))
  found = ['/'.join(e.target) for e in published.entries(config.model)]
  assert len(found) == len(set(found)) and set(found) == want


def test_the_hole_is_not_read_and_sides_are_checked(small):
  run, variables, image, mask = small
  found = run(variables, image, mask)
  assert found['out'].shape == image.shape
  assert [x.shape[1:3] for x in found['results']] == [(16, 24), (8, 12), (4, 6)]
  other = run(variables, np.where(mask > 0, np.nan, image), mask)
  for one, two in zip(found['results'], other['results'], strict=True):
    np.testing.assert_array_equal(one, two)
    assert one.min() >= 0 and one.max() <= 1
  with pytest.raises(ValueError, match='width 20 must be a multiple of 8'):
    networks.Generator(levels=3).init(jax.random.key(1), image[:, :, :20], mask[:, :, :20])


def test_a_result_blends_the_prediction_with_the_reduced_picture(small):
  run, variables, image, mask = small
  found = run(variables, image, mask)
  shown = (image * (1 - mask)).reshape(1, 8, 2, 12, 2, 3).mean((2, 4))
  alpha, raw = (np.asarray(found[name][1]) for name in ('alphas', 'raws'))
  assert 0 < alpha.min() and alpha.max() < 1 and alpha.std() > 0
  np.testing.assert_allclose(found['results'][1], alpha * raw + (1 - alpha) * shown, atol=1e-5)


def test_bgr_swaps_what_goes_in_and_what_comes_out(small):
  run, variables, image, mask = small
  generator = networks.Generator(width=2, levels=3, channel_order='bgr')
  found = jax.jit(generator.apply)(variables, image[..., ::-1], mask)
  want = run(variables, image, mask)
  for name in ('results', 'alphas', 'raws'):
    for got, plain in zip(found[name], want[name], strict=True):
      np.testing.assert_allclose(got, plain[..., ::-1], atol=1e-6)
  with pytest.raises(ValueError, match="channel_order 'gbr' must be 'rgb' or 'bgr'"):
    networks.Generator(levels=3, channel_order='gbr').init(jax.random.key(0), image, mask)


def write(path, state):
  """As the authors save it: a plain state dict."""
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[key] = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  torch_bytes.write_zip(path, torch_bytes.emit(tensors), storages)


def test_published_files_are_imported_and_others_refused(tmp_path):
  system = dataclasses.replace(systems.published('dfnet'), default_config=narrow)
  tree = draw(systems.inference(narrow()).shapes())._asdict()
  state = mapping.export(tree, published.entries(narrow().model))
  counters = {'fuse_0.blend.blend.1.num_batches_tracked': np.zeros(1)}
  write(tmp_path / 'a.pth', state | counters)
  stored = store.load(importer.import_file(system, tmp_path / 'a.pth', tmp_path / 'out'))
  assert stored.config.model.channel_order == 'bgr', 'the published weights have seen BGR only'
  jax.tree.map(np.testing.assert_array_equal, stored.params, tree['params'])
  jax.tree.map(np.testing.assert_array_equal, stored.stats, tree['stats'])
  write(tmp_path / 'b.pth', {'enc_1.conv.input_conv.weight': np.zeros((4, 3, 7, 7))})
  with pytest.raises(mapping.MappingError, match=r"of 'dfnet'[^$]*enc_1\.conv[^$]*en_0\.encode"):
    importer.import_file(system, tmp_path / 'b.pth', tmp_path / 'x')


def test_the_encoder_pads_less_above_and_to_the_left(small):
  """A kernel whose centre alone is 1 reads pixel 2i + 1 of 7 and 5 taps, and of 3."""
  layer = networks.SameConv(1, 7, stride=2)
  x = jnp.arange(64.0).reshape(1, 8, 8, 1)
  for k in (7, 5, 3):
    layer = networks.SameConv(1, k, stride=2)
    kernel = np.zeros((k, k, 1, 1), np.float32)
    kernel[k // 2, k // 2] = 1
    y = layer.apply({'params': {'kernel': kernel, 'bias': np.zeros(1)}}, x)
    np.testing.assert_array_equal(y[0, :, :, 0], np.asarray(x)[0, 1::2, 1::2, 0])
