import dataclasses
import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_bytes

from jaxinpaint import arrays, systems
from jaxinpaint.systems.pconv import networks, published
from jaxinpaint.weights import importer, mapping, store


def narrow(**fields):
  config = systems.default_config('pconv')
  config.model.update(dict(width=4, levels=3) | fields)
  return config


def draw(shapes, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda s: np.abs(rng.standard_normal(s.shape)).astype(np.float32), shapes)


@pytest.fixture(scope='module')
def small():
  """(generator, variables, image, mask) of a picture that is no square."""
  generator = networks.Generator(width=4, levels=3)
  rng = np.random.default_rng(0)
  image = rng.random((1, 16, 24, 3), np.float32)
  mask = np.zeros((1, 16, 24, 1), np.float32)
  mask[:, 4:12, 5:20] = 1
  shapes = jax.eval_shape(generator.init, jax.random.key(0), image, mask)
  return generator, draw(shapes), image, mask


@goldens.cases('pconv_unet', 'pconv_unet_l5')
def test_network_of_the_port(case):
  data, levels = case.data(), 5 if case.name.endswith('l5') else 7
  entries = published.entries({'levels': levels})
  tree = mapping.convert(case.state(), entries, published.IGNORE)
  variables = {'params': tree['params']['generator'], **tree['stats']['generator']}
  generator = networks.Generator(levels=levels, renorm='mean')
  x, valid = goldens.nhwc(data['x']), goldens.nhwc(data['mask'])[..., :1]
  image = x * np.asarray(arrays.IMAGENET_STD) + np.asarray(arrays.IMAGENET_MEAN)
  run = functools.partial(generator.apply, capture_intermediates=True, mutable=['intermediates'])
  found, state = jax.jit(run)(variables, image.astype(np.float32), 1 - valid)

  def close(got, want, what):
    # In units of the largest value, which the gain of the weights makes 200 in the output.
    scale = np.abs(want).max()
    goldens.assert_close(got / scale, want / scale, 1e-5, what)

  inner = lambda name: goldens.nchw(state['intermediates'][name]['__call__'][0][0])
  close(inner('encoder3')[:1, :32], data['enc_3'], 'encoder3')
  close(inner(f'encoder{levels}'), data['enc_last'], 'deepest')
  close(inner('decoder4')[:1, :32], data['dec_4'], 'decoder4')
  close(goldens.nchw(found['standardised']), data['y'], 'output')
  goldens.assert_close(goldens.nchw(found['valid']), data['mask_out'], 0, 'mask')


@pytest.mark.parametrize('levels, count', [(7, 25_779_796), (8, 32_859_732)])
def test_parameter_counts(levels, count):
  config = systems.default_config('pconv')
  config.model.levels = levels
  shapes = systems.inference(config).shapes()
  assert sum(x.size for x in jax.tree.leaves(shapes.params)) == count
  # And each parameter and statistic has one key in the files.
  tree = shapes._asdict()
  want = set(mapping.flatten(tree, separator='/'))
  found = ['/'.join(e.target) for e in published.entries(config.model)]
  assert len(found) == len(set(found)) and set(found) == want


def test_the_hole_is_not_read_and_sides_are_checked(small):
  generator, variables, image, mask = small
  run = jax.jit(generator.apply)
  found = run(variables, image, mask)
  assert found['out'].shape == image.shape
  assert found['out'].min() >= 0 and found['out'].max() <= 1
  other = run(variables, np.where(mask > 0, np.nan, image), mask)
  np.testing.assert_array_equal(found['standardised'], other['standardised'])
  with pytest.raises(ValueError, match='width 20 must be a multiple of 8'):
    generator.init(jax.random.key(1), image[:, :, :20], mask[:, :, :20])


def test_the_output_is_in_the_units_of_the_picture(small):
  """A last layer that gives 0 gives ImageNet's mean; one that gives 1, a deviation more."""
  generator, variables, image, mask = small
  last = variables['params']['decoder1']
  for value in (0.0, 1.0):
    params = {
      **variables['params'],
      'decoder1': {'kernel': 0 * last['kernel'], 'bias': last['bias'] * 0 + value},
    }
    out = jax.jit(generator.apply)({**variables, 'params': params}, image, mask)['out']
    want = np.asarray(arrays.IMAGENET_MEAN) + value * np.asarray(arrays.IMAGENET_STD)
    np.testing.assert_allclose(out, np.broadcast_to(want, out.shape), atol=1e-6)


def test_the_skip_of_the_last_layer_is_the_damaged_picture(small):
  """With its kernel on the skip alone, the last layer gives back what is known, and only that."""
  generator, variables, image, mask = small
  kernel = np.zeros((3, 3, 4 + 3, 3), np.float32)
  kernel[1, 1, 4:] = np.eye(3)
  params = {**variables['params'], 'decoder1': {'kernel': kernel, 'bias': np.zeros(3, np.float32)}}
  found = jax.jit(generator.apply)({**variables, 'params': params}, image, mask)
  # The deepest level knows all of this picture, so only the skip's windows are short of values.
  middle = (slice(None), slice(6, 9), slice(8, 12))
  assert (found['valid'] == 1).all()
  np.testing.assert_allclose(found['standardised'][middle], 0)
  shown = np.asarray(arrays.standardise(image))
  np.testing.assert_allclose(found['standardised'][:, 1:3, 1:-1], shown[:, 1:3, 1:-1], atol=1e-5)


def test_ratio_is_the_mean_times_the_window(small):
  """One layer of constant ones: eq. 1 keeps them, the port's reading divides by the window."""
  _, _, image, mask = small
  ones = jnp.ones_like(image)
  by = {}
  for renorm in ('ratio', 'mean'):
    layer = networks.PartialConvNorm(1, 3, norm=False, renorm=renorm)
    variables = {'params': {'conv': {'kernel': jnp.full((3, 3, 3, 1), 1 / 27)}}}
    by[renorm], _ = jax.jit(layer.apply)(variables, ones, 1 - mask)
  known = np.asarray(by['ratio']) > 0
  np.testing.assert_allclose(np.asarray(by['ratio'])[known], 1, rtol=1e-5)
  np.testing.assert_allclose(by['mean'], np.asarray(by['ratio']) / 27, rtol=1e-5)


def test_frozen_norms_are_those_of_the_encoder(small):
  generator, variables, image, mask = small

  @functools.partial(jax.jit, static_argnums=0)
  def moved(frozen):
    _, new = generator.apply(
      variables, image, mask, train=True, frozen_encoder=frozen, mutable=['batch_stats']
    )
    return new['batch_stats']

  for frozen in (False, True):
    rest = {
      name
      for name, old in variables['batch_stats'].items()
      if jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), old, moved(frozen)[name]))
    }
    assert rest == ({'encoder2', 'encoder3'} if frozen else set())


def write(path, state):
  """As the port saves it: {'n_iter', 'model', 'optimizer'}."""
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[key] = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  content = {'n_iter': 7, 'model': tensors, 'optimizer': {'param_groups': []}}
  torch_bytes.write_zip(path, torch_bytes.emit(content), storages)


def test_published_files_are_imported_and_others_refused(tmp_path):
  system = dataclasses.replace(systems.published('pconv'), default_config=narrow)
  tree = draw(systems.inference(narrow()).shapes())._asdict()
  state = mapping.export(tree, published.entries(narrow().model))
  masks = {k.replace('input', 'mask'): v for k, v in state.items() if k.endswith('conv.weight')}
  counters = {'enc_2.bn.num_batches_tracked': np.zeros(1)}
  write(tmp_path / 'a.pth', state | masks | counters)
  stored = store.load(importer.import_file(system, tmp_path / 'a.pth', tmp_path / 'out'))
  assert stored.config.model.renorm == 'mean', 'the published weights need it'
  jax.tree.map(np.testing.assert_array_equal, stored.params, tree['params'])
  jax.tree.map(np.testing.assert_array_equal, stored.stats, tree['stats'])
  write(tmp_path / 'b.pth', {'ec_texture_1.conv.weight': np.zeros((4, 3, 7, 7))})
  with pytest.raises(mapping.MappingError, match=r"of 'pconv'[^$]*ec_texture_1[^$]*enc_1\.conv"):
    importer.import_file(system, tmp_path / 'b.pth', tmp_path / 'x')
