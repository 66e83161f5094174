"""GLCIC's published files through the import: two plain state dicts and a JSON file."""

import json

import goldens
import numpy as np
import pytest
from torch_bytes import emit, tensor, write_zip

from jaxinpaint import systems
from jaxinpaint.systems.glcic import published
from jaxinpaint.weights import importer, mapping, store


def write(path, state):
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[key] = tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  write_zip(path, emit(tensors), storages)


def state_of(name):
  return next(c for c in goldens.all_cases() if c.name == name).state()


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """model_cn and config.json as they are published."""
  folder = tmp_path_factory.mktemp('glcic')
  write(folder / 'model_cn', state_of('glcic_generator'))
  (folder / 'config.json').write_text(json.dumps({'mpv': [[0.5, 0.4, 0.3]], 'bsize': 16}))
  return folder


def test_the_generator_with_its_mean_pixel_value(files, tmp_path):
  inputs = [files / 'model_cn', files / 'config.json']
  stored = store.load(importer.import_file(systems.published('glcic'), inputs, tmp_path / 'out'))
  assert list(stored.params) == ['generator']
  assert tuple(stored.config.model.mpv) == (0.5, 0.4, 0.3)
  assert [f['name'] for f in stored.meta['source']['files']] == ['model_cn', 'config.json']
  want = mapping.convert(state_of('glcic_generator'), published.generator_entries())
  got = stored.stats['generator']['batch_stats']['bn9']['var']
  np.testing.assert_array_equal(got, want['stats']['generator']['batch_stats']['bn9']['var'])


def test_a_file_of_another_system_is_refused_with_its_keys(tmp_path):
  write(tmp_path / 'model_cn', {'encoder.0.weight': np.zeros((1, 1, 3, 3))})
  with pytest.raises(mapping.MappingError) as error:
    importer.import_file(
      systems.published('glcic'), tmp_path / 'model_cn', tmp_path / 'out', format='celeba'
    )
  assert 'encoder.0.weight' in str(error.value) and 'conv1.weight' in str(error.value)
  assert not list(tmp_path.glob('out*'))


@pytest.mark.parametrize(
  'content, message',
  [
    ('{"mpv": [120, 110, 100]}', 'must be three numbers in'),
    ('{"bsize": 16}', 'holds no "mpv"'),
    ('no json', 'config.json: '),
  ],
)
def test_a_config_json_that_does_not_serve_is_refused(files, tmp_path, content, message):
  (tmp_path / 'config.json').write_text(content)
  with pytest.raises(mapping.MappingError, match=message):
    importer.import_file(
      systems.published('glcic'),
      [files / 'model_cn', tmp_path / 'config.json'],
      tmp_path / 'out',
      format='celeba',
    )
  assert not list(tmp_path.glob('out*'))


def test_other_formats_take_no_json(files, tmp_path):
  with pytest.raises(mapping.MappingError, match='need no JSON file'):
    importer.import_file(
      systems.published('misf'),
      [files / 'model_cn', files / 'config.json'],
      tmp_path / 'out',
      format='misf',
    )
