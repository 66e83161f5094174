"""GMCNN's published file through the import: one plain state dict."""

import goldens
import numpy as np
import pytest
from torch_bytes import emit, tensor, write_zip

from jaxinpaint import systems
from jaxinpaint.weights import importer, mapping, store


def write(path, state):
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[key] = tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  write_zip(path, emit(tensors), storages)
  return path


@pytest.fixture(scope='module')
def state():
  """The published keys and shapes, each array with numbers of its own."""
  case = next(c for c in goldens.all_cases() if c.name == 'gmcnn_generator')
  rng = np.random.default_rng(0)
  return {k: rng.random(shape, np.float32) for k, shape in case.manifest()['state']}


def test_the_generator(state, tmp_path):
  path = write(tmp_path / '40_net_GM.pth', state)
  stored = store.load(importer.import_file(systems.published('gmcnn'), path, tmp_path / 'out'))
  assert list(stored.params) == ['generator'] and stored.meta['source']['format'] == 'pytorch'
  kernel = stored.params['generator']['column5']['conv14']['kernel']
  np.testing.assert_array_equal(kernel, state['EB2.14.weight'].transpose(2, 3, 1, 0))
  bias = stored.params['generator']['merge1']['bias']
  np.testing.assert_array_equal(bias, state['decoding_layers.1.bias'])


def test_files_that_do_not_fit_are_refused_with_their_keys(state, tmp_path):
  lacking = {k: v for k, v in state.items() if k != 'EB3.16.bias'}
  for extra, words in (
    ({}, ('EB3.16.bias',)),
    ({'coarse_generator.conv1.conv.weight': np.zeros((1, 1, 3, 3))}, ('coarse_generator.conv1',)),
  ):
    path = write(tmp_path / 'some.pth', lacking | extra)
    with pytest.raises(mapping.MappingError) as error:
      importer.import_file(systems.published('gmcnn'), path, tmp_path / 'out')
    assert all(word in str(error.value) for word in words)
  assert not list(tmp_path.glob('out*'))
