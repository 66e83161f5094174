"""TorchScript archives: read as their state dicts, nothing of them run.

fixtures/torchscript was written by PyTorch 2.13 itself (make.py there).
"""

import pathlib
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_bytes import Raw, call, emit, module, name, tensor, write_script, write_stream, write_zip

from jaxinpaint.weights import mapping, reader
from jaxinpaint.weights.reader import UnsafeFileError

FIXTURES = pathlib.Path(__file__).parent / 'fixtures' / 'torchscript'
SIX = np.arange(6, dtype='<f4').tobytes()


def _arrays(file):
  flat = mapping.flatten(reader.read(FIXTURES / file))
  return {key: value for key, value in flat.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize(
  ('archive', 'state', 'dtype'),
  [
    ('traced.pt', 'state.pth', np.float32),
    ('scripted.pt', 'block.pth', np.float32),
    ('half.pt', 'block.pth', np.float16),
    ('bfloat16.pt', 'block.pth', ml_dtypes.bfloat16),
  ],
)
def test_an_archive_holds_its_modules_state_dict(archive, state, dtype):
  got, want = _arrays(archive), _arrays(state)
  for key, value in want.items():  # the values are exact in every type
    assert got[key].dtype == (dtype if value.dtype == np.float32 else value.dtype)
    np.testing.assert_array_equal(got[key].astype(value.dtype), value, err_msg=key)
  # Buffers that no state dict keeps are in the archive, too.
  assert all(key.endswith('lost') for key in got.keys() - want.keys())
  with zipfile.ZipFile(FIXTURES / archive) as file:  # its code is compressed, and nobody reads it
    assert any(i.compress_type for i in file.infolist() if '/code/' in i.filename)


def test_attributes_that_are_no_tensors():
  got = reader.read(FIXTURES / 'plain.pt')
  shown = {
    key: got[key] for key in ('names', 'sizes', 'rates', 'pair', 'flags', 'halves', 'nothing')
  }
  assert shown == {
    'names': ['a', 'b'],
    'sizes': [1, 2, 3],
    'rates': {'x': 0.5},
    'pair': (1, 'two'),
    'flags': [True, False],
    'halves': [0.5, 1.5],
    'nothing': None,
  }
  assert [a.shape for a in got['maps']] == [(2,), (3,)] and got['weight'].shape == (2, 3)


def test_only_the_wanted_tensors_are_described_and_read():
  rows = {key: (shape, dtype) for key, shape, dtype in reader.describe(FIXTURES / 'traced.pt')}
  assert rows['model.generator.first.weight'] == ((2, 4, 1, 1), 'float32')
  got = reader.read(FIXTURES / 'traced.pt', only=lambda key: key.endswith('tied.weight'))
  flat = mapping.flatten(got)
  arrays = [key for key, value in flat.items() if isinstance(value, np.ndarray)]
  assert arrays == ['model.generator.tied.weight']


def _hostile(canary):
  """{case: (pickle body, what the refusal must say)}."""
  mkdir = call('os.mkdir', canary)
  kind = name('__torch__.N')
  own = Raw(kind + b')\x81')
  return {
    'call as an attribute': (module({'a': mkdir}), 'os.mkdir'),
    'call as the state': (own + call('posix.mkdir', canary) + b'b', 'posix.mkdir'),
    'call of an own class': (call('__torch__.N', canary), 'not a constructor'),
    'own class with arguments': (kind + emit((canary,)) + b'\x81', 'with arguments'),
    'own class with a list of arguments': (kind + emit([]) + b'\x81', 'with arguments'),
    'own class left as a value': (emit({'a': kind}), 'Global'),
    'new with keywords': (kind + emit(()) + emit({}) + b'\x92', 'NEWOBJ_EX'),
    'setstate with a tuple': (own + emit((1, canary)) + b'b', 'form of its own'),
    'setstate with slots': (own + emit((None, {'__class__': 1})) + b'b', 'form of its own'),
    'setstate twice': (module({'a': 1}) + emit({'b': 2}) + b'b', 'set twice'),
    'attribute that is no text': (module({1: 2}), 'attribute of the name'),
    'attribute with a dot': (module({'a.weight': 2}), 'attribute of the name'),
    'attribute without a name': (module({'': 2}), 'attribute of the name'),
    'an object as a key': (b'}' + own + emit(1) + b's', 'key'),
    'an object as a storage': (call('torch._utils._rebuild_tensor', own, 0, (), ()), 'storage'),
    'a look-alike': (call('__torch__evil.f', canary), '__torch__evil'),
    'the package itself': (name('__torch__'), '__torch__'),
    'code of the reader': (call('torch.jit._pickle.build_tensor_from_id', 1), 'build_tensor'),
    'tag on a tensor': (call('torch.jit._pickle.restore_type_tag', 1, 'int'), 'no list'),
    'list of text': (call('torch.jit._pickle.build_intlist', 'abc'), 'no list'),
    'an object inside itself': (own + b'q\x00' + b'}' + emit('a') + b'h\x00sb', 'nested'),
    'nested objects': (
      Raw(b''.join(own + b'}' + emit('a') for _ in range(99)) + emit(1) + b'sb' * 99),
      'nested',
    ),
    'objects shared very often': (
      b'N' + (b'q\x000' + own + b'}(' + emit('a') + b'h\x00' + emit('b') + b'h\x00ub') * 40,
      'nested',
    ),
  }


@pytest.mark.parametrize('case', _hostile('x'))
def test_hostile_archives_are_refused(case, tmp_path):
  canary = tmp_path / 'canary'
  body, why = _hostile(str(canary))[case]
  path = write_script(tmp_path / 'f.pt', body)
  for read in (reader.read, reader.describe):
    with pytest.raises(UnsafeFileError, match='refused') as error:
      read(path)
    assert why in str(error.value) and str(path) in str(error.value)
  assert not canary.exists()


@pytest.mark.parametrize('write', [write_zip, write_stream])
def test_objects_are_read_of_archives_alone(write, tmp_path):
  path = write(tmp_path / 'f.pth', module({'a': 1}))
  with pytest.raises(UnsafeFileError, match=r'__torch__\.Network'):
    reader.read(path)


def test_a_forged_archive_as_it_should_be_is_read(tmp_path):
  inner = module(
    {'weight': tensor(), 'training': False}, '__torch__.torch.nn.___torch_mangle_7.Conv'
  )
  got = reader.read(write_script(tmp_path / 'f.pt', module({'0': inner, 'x': None}), {'0': SIX}))
  np.testing.assert_array_equal(got['0'].pop('weight'), np.arange(6).reshape(2, 3))
  assert got == {'0': {'training': False}, 'x': None}


@pytest.mark.parametrize(
  ('forged', 'why'),
  [
    ({'shape': (2**40, 2**20), 'stride': (0, 0)}, 'past its storage'),
    ({'size': 2**40}, 'truncated or forged'),
    ({'key': '../../data.pkl'}, 'no proper key'),
    ({'key': '..'}, 'no record'),
    ({'key': '1'}, 'no record'),
    ({'offset': 1}, 'past its storage'),
  ],
  ids=str,
)
def test_forged_tensors_of_archives(forged, why, tmp_path):
  path = write_script(tmp_path / 'f.pt', module({'a': tensor(**forged)}), {'0': SIX})
  with pytest.raises(UnsafeFileError, match=why):
    reader.describe(path)


@pytest.mark.parametrize(
  ('members', 'why'),
  [
    ({'m/model.json': b'{}', 'm/tensors/0': SIX, 'm/code/m.py': b''}, 'older layout'),
    ({'m/attributes.pkl': b'', 'm/version': b'1'}, 'older layout'),
    ({'m/constants.pkl': b'\x80\x02).', 'm/data/0': SIX}, 'older layout'),
    ({'m/data.pkl': b'\x80\x02}.', 'm/code/m.py': b'', 'm/byteorder': b'big'}, 'big-endian'),
    ({'m/data.pkl': b'\x80\x02}.', 'n/data.pkl': b'\x80\x02}.', 'm/code/m.py': b''}, 'no single'),
    ({'/data.pkl': b'\x80\x02}.', '../code/m.py': b''}, None),
  ],
)
def test_layouts(members, why, tmp_path):
  with zipfile.ZipFile(tmp_path / 'f.pt', 'w') as file:
    for member, content in members.items():
      file.writestr(member, content)
  if why is None:
    assert reader.read(tmp_path / 'f.pt') == {}
    return
  with pytest.raises(UnsafeFileError, match=why):
    reader.read(tmp_path / 'f.pt')


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
  body = module({'a': tensor(size=2**24, shape=(2**24,), stride=(1,))})
  path = write_script(tmp_path / 'f.pt', body, {'0': bytes(2**26)}, compress=True)
  assert path.stat().st_size < 2**20
  with pytest.raises(UnsafeFileError, match='compressed'):
    reader.read(path)
