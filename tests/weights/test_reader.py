"""What the reader reads, and what it refuses. fixtures/ was written by PyTorch 2.13 itself."""

import os
import pathlib
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_bytes import Raw, call, emit, name, tensor, write_script, write_stream, write_zip

from jaxinpaint.weights import reader
from jaxinpaint.weights.formats.tensors import LazyTensor
from jaxinpaint.weights.reader import UnsafeFileError

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
SIX = np.arange(6, dtype='<f4').tobytes()
WRITERS = [write_zip, write_stream, write_script]


@pytest.mark.parametrize('file', ['torch_zip.pth', 'torch_stream.pth'])
def test_files_of_pytorch(file):
  got = reader.read(FIXTURES / file)
  plain = {k: got[k] for k in ('iteration', 'best', 'name', 'none', 'flags', 'shape')}
  assert plain == {
    'iteration': 12345678901,
    'best': 0.25,
    'name': 'höhle',
    'none': None,
    'flags': [True, False, -1, 1.5],
    'shape': (2, 3),
  }
  state = got['generator']
  assert list(state)[:3] == ['conv.weight', 'conv.bias', 'bn.weight']
  want = (np.arange(108).reshape(4, 3, 3, 3) - 50) / 16
  assert state['conv.weight'].dtype == np.float32
  np.testing.assert_array_equal(state['conv.weight'], want)
  np.testing.assert_array_equal(state['conv.bias'], np.arange(4) / 2)
  assert state['bn.num_batches_tracked'].shape == ()

  for dtype, array in got['types'].items():
    assert array.dtype == (ml_dtypes.bfloat16 if dtype == 'bfloat16' else np.dtype(dtype))
    assert array.astype(np.complex64).tolist() == np.arange(5).astype(array.dtype).tolist()

  base = np.arange(24, dtype=np.float32).reshape(4, 6) / 8
  views = {
    'base': base,
    'transposed': base.T,
    'rows': base[1:3],
    'strided': base[::2, 1::3],
    'tied': base,
    'scalar': np.float32(2.5),
    'empty': np.zeros((0, 3), np.float32),
  }
  assert got['views'].keys() == views.keys()
  for key, want in views.items():
    np.testing.assert_array_equal(got['views'][key], want, err_msg=key, strict=key != 'scalar')
  np.testing.assert_array_equal(got['parameter'], np.full((2, 2), 3.0, np.float32))


@pytest.mark.parametrize('file', ['torch_zip.pth', 'torch_stream.pth'])
def test_describe_lists_without_reading(file):
  rows = {key: (shape, dtype) for key, shape, dtype in reader.describe(FIXTURES / file)}
  assert rows['generator.conv.weight'] == ((4, 3, 3, 3), 'float32')
  assert rows['types.bfloat16'] == ((5,), 'bfloat16')
  assert rows['iteration'] == ((), 'int')


@pytest.mark.parametrize('write', WRITERS)
def test_only_the_wanted_tensors_are_read(write, tmp_path, monkeypatch):
  count, make = [], LazyTensor.read
  monkeypatch.setattr(LazyTensor, 'read', lambda self: count.append(self) or make(self))
  body = emit({'n': {'a': tensor('0'), 'b': tensor('0'), 'step': 3}, 'l': [tensor('0')]})
  path = write(tmp_path / 'f.pth', body, {'0': SIX})
  got = reader.read(path, only=lambda key: key == 'n.a')
  np.testing.assert_array_equal(got['n'].pop('a'), np.arange(6).reshape(2, 3))
  assert got == {'n': {'step': 3}, 'l': [None]}
  assert len(count) == 1


def test_safetensors(tmp_path):
  arrays = {
    'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b': np.arange(3).astype(ml_dtypes.bfloat16),
  }
  save_file(arrays, tmp_path / 'x.safetensors')
  got = reader.read(tmp_path / 'x.safetensors')
  assert got.keys() == arrays.keys()
  for key, want in arrays.items():
    np.testing.assert_array_equal(got[key], want, strict=True)
  assert list(reader.read(tmp_path / 'x.safetensors', only=lambda k: k == 'b')) == ['b']
  assert ('a.weight', (2, 3), 'float32') in list(reader.describe(tmp_path / 'x.safetensors'))


def test_python_2_stream(tmp_path):
  # Python 2 wrote byte strings and OrderedDict([[key, value], ...]).
  key = Raw(b'U\x01k')
  identifier = (Raw(b'U\x07storage'), name('torch.FloatStorage'), Raw(b'U\x010'), 'cpu', 6, None)
  storage = Raw(emit(identifier) + b'Q')
  value = call('torch._utils._rebuild_tensor', storage, 0, (2, 3), (3, 1))
  body = call('collections.OrderedDict', [[key, value]])
  got = reader.read(write_stream(tmp_path / 'f.pth', body, {'0': SIX}))
  np.testing.assert_array_equal(got['k'], np.arange(6).reshape(2, 3))


def test_stream_views_of_a_storage(tmp_path):
  body = emit([tensor(size=6, shape=(2,), stride=(1,), view=('v', 3, 3), offset=1)])
  got = reader.read(write_stream(tmp_path / 'f.pth', body, {'0': SIX}))
  assert got[0].tolist() == [4.0, 5.0]


def test_big_endian_zip(tmp_path):
  data = np.arange(6, dtype='>f4').tobytes()
  path = write_zip(tmp_path / 'f.pth', tensor(), {'0': data}, byteorder='big')
  got = reader.read(path)
  assert got.dtype.isnative
  np.testing.assert_array_equal(got, np.arange(6).reshape(2, 3))
  # The same bytes read as little-endian are other numbers.
  path = write_zip(tmp_path / 'f.pth', tensor(), {'0': data}, byteorder='little')
  assert not np.array_equal(reader.read(path), np.arange(6).reshape(2, 3))


def _hostile(canary: str) -> dict[str, tuple[bytes, str]]:
  """{case: (pickle body, what the refusal must say)}; each would make the folder `canary`."""
  mkdir, argument = f'c{os.name}\nmkdir\n'.encode(), emit((canary,))
  text = emit(canary)
  return {
    'reduce': (mkdir + argument + b'R', 'mkdir'),
    'reduce in a dict': (emit({'a': Raw(mkdir + argument + b'R')}), 'mkdir'),
    'result thrown away': (mkdir + argument + b'R0' + emit({}), 'mkdir'),
    'eval': (call('builtins.eval', f'__import__("os").mkdir({canary!r})'), 'builtins.eval'),
    'eval of python 2': (call('__builtin__.eval', f'__import__("os").mkdir({canary!r})'), 'eval'),
    'getattr': (call('builtins.getattr', name('collections.OrderedDict'), 'x'), 'getattr'),
    'stack global': (emit(os.name) + emit('mkdir') + b'\x93' + argument + b'R', 'mkdir'),
    'stack global through the memo': (
      emit(os.name) + b'q\x00' + emit('mkdir') + b'q\x0100h\x00h\x01\x93' + argument + b'R',
      'mkdir',
    ),
    'dotted name': (
      emit('collections') + emit('OrderedDict.fromkeys') + b'\x93' + emit(([],)) + b'R',
      'OrderedDict.fromkeys',
    ),
    'a torch function': (call('torch.load', canary), 'torch.load'),
    'inst': (b'(' + text + f'i{os.name}\nmkdir\n'.encode(), 'INST'),
    'obj': (b'(' + name('collections.OrderedDict') + text + b'o', 'OBJ'),
    'newobj': (name('collections.OrderedDict') + emit(()) + b'\x81', 'NEWOBJ'),
    'newobj_ex': (name('collections.OrderedDict') + emit(()) + emit({}) + b'\x92', 'NEWOBJ_EX'),
    'build on a class': (name('collections.OrderedDict') + emit({'a': 1}) + b'b', 'attributes'),
    'build on a list': (emit([]) + emit({'__class__': 1}) + b'b', 'attributes'),
    'build on a tensor': (tensor() + emit({'a': 1}) + b'b', 'attributes'),
    'extension': (b'\x82\x01', 'EXT1'),
    'text persistent id': (b'P0\n', 'PERSID'),
    'call of a dict': (emit({}) + emit(()) + b'R', 'not a constructor'),
    'call of a storage class': (call('torch.FloatStorage', 1), 'not a constructor'),
    'arguments that are no tuple': (
      name('collections.OrderedDict') + emit([]) + b'R',
      'no proper arguments',
    ),
    'a number of arguments that is wrong': (call('torch.Size', 1, 2, 3), 'wrongly'),
    'namespace': (call('argparse.Namespace'), 'argparse.Namespace'),
    'set': (b'\x8f', 'EMPTY_SET'),
    'a class left as a value': (emit({'a': name('collections.OrderedDict')}), 'Global'),
    'a storage left as a value': (
      emit({'a': Raw(emit(('storage', name('torch.FloatStorage'), '0', 'cpu', 6)) + b'Q')}),
      'Storage',
    ),
    'module by reference': (Raw(emit(('module', 'x', 'y', 'z')) + b'Q'), 'state_dict'),
    'codec': (call('_codecs.encode', canary, 'rot13'), '_codecs'),
    'numpy object scalar': (call('numpy.dtype', 'O8', False, True), 'O8'),
    'numpy array': (call('numpy.core.multiarray._reconstruct', 0), '_reconstruct'),
    'unhashable key': (b'}' + emit([]) + emit(1) + b's', 'key'),
    'deep key': (b'}' + emit(((1,),)) + emit(1) + b's', 'key'),
    'odd number of items': (b'}(' + emit('a') + b'u', 'no value'),
    'append to a dict': (emit({}) + emit(1) + b'a', 'no list'),
    'item of a list': (emit([]) + emit(1) + emit(1) + b's', 'no dict'),
    'memo never kept': (b'h\x07', 'recalls'),
    'empty stack': (b'R', 'damaged'),
    'mark never closed': (emit({}) + b'(' + emit(1), 'one value'),
    'no mark': (emit({}) + b'u', 'damaged'),
    'unknown opcode': (b'\xff', 'damaged'),
    'text past the end': (b'X\xff\xff\xff\x7fabc', 'damaged'),
    'bytes past the end': (b'\x8e' + struct.pack('<Q', 2**62) + b'abc', 'damaged'),
    'broken utf-8': (b'X\x02\x00\x00\x00\xff\xff', ''),
    'nested': (b']' * 50_000 + b'a' * 49_999, 'nested'),
    'inside itself': (b']q\x00h\x00a', 'nested'),
    'a billion lists': (b']q\x000' + b'](h\x00h\x00eq\x000' * 60 + b'h\x00', 'nested'),
  }


@pytest.mark.parametrize('write', WRITERS)
@pytest.mark.parametrize('case', _hostile('x'))
def test_hostile_pickles_are_refused(case, write, tmp_path):
  canary = tmp_path / 'canary'
  body, why = _hostile(str(canary))[case]
  path = write(tmp_path / 'f.pth', body, {'0': SIX} if b'storage' in body else {})
  with pytest.raises(UnsafeFileError) as error:
    reader.read(path)
  assert not canary.exists()
  assert str(path) in str(error.value)
  assert why in str(error.value)
  with pytest.raises(UnsafeFileError):
    reader.describe(path)
  assert not canary.exists()


@pytest.mark.parametrize('write', WRITERS)
@pytest.mark.parametrize(
  'forged',
  [
    {'shape': (2, 4)},
    {'shape': (3, 3)},
    {'shape': (7,), 'stride': (1,)},
    {'offset': 1},
    {'offset': 7, 'shape': (0,), 'stride': (1,)},
    {'offset': -1},
    {'stride': (-3, 1)},
    {'shape': (-2, -3)},
    {'shape': (2**40,), 'stride': (0,)},
    {'shape': (2**40, 2**40), 'stride': (0, 0)},
    {'shape': (2**62, 4), 'stride': (1, 1)},
    {'shape': (2, 3), 'stride': (2**62, 2**62)},
    {'shape': (10**400,), 'stride': (1,)},
    {'shape': (2,), 'stride': (3, 1)},
    {'shape': (2.0, 3.0)},
    {'shape': (True, True)},
    {'shape': [2, 3]},
    {'shape': (1,) * 40, 'stride': (1,) * 40},
    {'size': 7},
    {'size': -6},
    {'size': 2**61},
    {'size': '6'},
    {'key': '1'},
    {'key': '../data.pkl'},
    {'key': 0},
    {'kind': 'torch.QInt8Storage'},
    {'kind': 'torch.float32'},
    {'kind': 'torch.DoubleStorage'},
  ],
  ids=str,
)
def test_forged_tensors_are_refused(forged, write, tmp_path):
  view = None if write is write_stream else False
  path = write(tmp_path / 'f.pth', emit({'a': tensor(**forged, view=view)}), {'0': SIX})
  with pytest.raises(UnsafeFileError) as error:
    reader.describe(path)  # reads no storage, so that the claim itself must be refused
  assert len(str(error.value)) < 1000
  with pytest.raises(UnsafeFileError):
    reader.read(path)


@pytest.mark.parametrize('view', [('v', 3, 4), ('v', -1, 2), ('v', 0, 2.0), 'v'])
def test_forged_views_are_refused(view, tmp_path):
  body = emit({'a': tensor(shape=(2,), stride=(1,), view=view)})
  path = write_stream(tmp_path / 'f.pth', body, {'0': SIX})
  with pytest.raises(UnsafeFileError):
    reader.describe(path)


@pytest.mark.parametrize(
  ('body', 'why'),
  [
    (tensor(size=5, shape=(5,), stride=(1,), view=None), 'another number'),
    (emit([tensor(view=None), tensor(kind='torch.IntStorage', view=None)]), 'in two ways'),
    (emit([tensor(view=None), tensor('1', view=None)]), 'not those that the tensors name'),
  ],
)
def test_streams_whose_storages_contradict_the_tensors_are_refused(body, why, tmp_path):
  path = write_stream(tmp_path / 'f.pth', body, {'0': SIX})
  with pytest.raises(UnsafeFileError, match=why):
    reader.describe(path)


@pytest.mark.parametrize('write', WRITERS)
def test_tensors_that_unfold_to_far_more_than_the_file_are_refused(write, tmp_path):
  big = np.zeros(50_000, '<f4').tobytes()
  shared = tensor(size=50_000, shape=(50_000,), stride=(1,))
  few, many = emit([shared] * 3), emit([shared] * 30)
  assert len(reader.read(write(tmp_path / 'few.pth', few, {'0': big}))) == 3
  with pytest.raises(UnsafeFileError, match='times the size'):
    reader.read(write(tmp_path / 'many.pth', many, {'0': big}))


def test_compressed_records_are_refused(tmp_path):
  path = write_zip(tmp_path / 'f.pth', tensor(), {'0': SIX}, compress=True)
  with pytest.raises(UnsafeFileError, match='compressed'):
    reader.read(path)


def test_a_changed_byte_in_a_zip_is_noticed(tmp_path):
  path = write_zip(tmp_path / 'f.pth', tensor(), {'0': SIX})
  data = path.read_bytes()
  at = data.index(SIX)
  path.write_bytes(data[:at] + b'\xff' + data[at + 1 :])
  with pytest.raises(UnsafeFileError, match='CRC'):
    reader.read(path)


@pytest.mark.parametrize(
  ('content', 'why'),
  [
    (b'', 'it is empty'),
    (b'<!DOCTYPE html><html>', 'web page'),
    (b'\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00]\x94.', 'bare pickle'),
    (b'\x80', 'damaged'),
    (b'PK\x03\x04' + bytes(100), 'damaged'),
    (b'\x93NUMPY\x01\x00', 'neither'),
    (bytes(257) + b'ustar' + bytes(300), 'tar archive'),
    (struct.pack('<Q', 2**40) + b'{"a":', 'damaged'),
    (struct.pack('<Q', 2) + b'{]', 'damaged'),
  ],
)
def test_other_files_are_refused(content, why, tmp_path):
  (tmp_path / 'f.pth').write_bytes(content)
  for read in (reader.read, reader.describe):
    with pytest.raises(UnsafeFileError, match=why):
      read(tmp_path / 'f.pth')


def test_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
    reader.read(tmp_path / 'nowhere.pth')


@pytest.mark.parametrize('file', ['torch_zip.pth', 'torch_stream.pth'])
def test_truncated_files_are_refused(file, tmp_path):
  data = (FIXTURES / file).read_bytes()
  path = tmp_path / 'f.pth'
  for length in range(0, len(data), 37):
    path.write_bytes(data[:length])
    with pytest.raises(UnsafeFileError):
      reader.read(path)


@pytest.mark.parametrize('file', ['torch_zip.pth', 'torch_stream.pth', 'torchscript/scripted.pt'])
def test_damaged_files_are_read_or_refused(file, tmp_path):
  """Random damage ends in a result or in a refusal, never in another exception."""
  data = np.frombuffer((FIXTURES / file).read_bytes(), np.uint8)
  rng = np.random.default_rng(0)
  refused = 0
  for _ in range(150):
    copy = data.copy()
    at = rng.integers(0, len(copy), size=rng.integers(1, 6))
    copy[at] = rng.integers(0, 256, size=len(at))
    (tmp_path / 'f.pth').write_bytes(copy.tobytes())
    try:
      reader.read(tmp_path / 'f.pth')
    except UnsafeFileError:
      refused += 1
  assert refused > 20
