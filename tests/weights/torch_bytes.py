"""Writes the two containers of torch.save, opcode by opcode, so that tests can forge any of it."""

import io
import math
import pickle
import struct
import zipfile

MAGIC = b'\x80\x02\x8a\n' + (0x1950A86A20F9469CFC6C).to_bytes(10, 'little') + b'.'


class Raw(bytes):
  """Opcodes that are emitted as they are."""


def emit(value) -> bytes:
  """Opcodes that push a value (protocol 2)."""
  if isinstance(value, Raw):
    return bytes(value)
  if value is None:
    return b'N'
  if isinstance(value, bool):
    return b'\x88' if value else b'\x89'
  if isinstance(value, int):
    data = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8b' + struct.pack('<i', len(data)) + data
  if isinstance(value, float):
    return b'G' + struct.pack('>d', value)
  if isinstance(value, str):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data
  if isinstance(value, tuple):
    return b'(' + b''.join(map(emit, value)) + b't'
  if isinstance(value, list):
    return b'](' + b''.join(map(emit, value)) + b'e'
  if isinstance(value, dict):
    return b'}(' + b''.join(emit(k) + emit(v) for k, v in value.items()) + b'u'
  raise TypeError(type(value))


def name(dotted: str) -> Raw:
  """GLOBAL module.name."""
  module, _, last = dotted.rpartition('.')
  return Raw(f'c{module}\n{last}\n'.encode())


def call(dotted: str, *arguments) -> Raw:
  """REDUCE of a global."""
  return Raw(name(dotted) + emit(arguments) + b'R')


def tensor(
  key='0', size=6, shape=(2, 3), stride=(3, 1), offset=0, kind='torch.FloatStorage', view=False
) -> Raw:
  """A tensor over the storage `key`; `view` for what streams put behind a storage's size."""
  identifier = ('storage', name(kind), key, 'cpu', size)
  if view is not False:
    identifier += (view,)
  storage = Raw(emit(identifier) + b'Q')
  hooks = call('collections.OrderedDict')
  return call('torch._utils._rebuild_tensor_v2', storage, offset, shape, stride, False, hooks)


def write_zip(path, body: bytes, storages=None, *, byteorder=None, compress=False):
  """A zip archive around a pickle (without PROTO and STOP) and {key: bytes} of storages."""
  method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
  with zipfile.ZipFile(path, 'w', method) as f:
    f.writestr('archive/data.pkl', b'\x80\x02' + body + b'.')
    if byteorder:
      f.writestr('archive/byteorder', byteorder)
    for key, data in (storages or {}).items():
      f.writestr(f'archive/data/{key}', data)
  return path


def write_script(path, body: bytes, storages=None, **options):
  """The same as an archive of torch.jit.save, with code that nobody reads."""
  write_zip(path, body, storages, **options)
  with zipfile.ZipFile(path, 'a') as f:
    f.writestr('archive/constants.pkl', b'\x80\x02).')
    f.writestr('archive/code/__torch__.py', 'import os; os.abort()\n' * 20, zipfile.ZIP_DEFLATED)
  return path


def module(attributes, kind='__torch__.Network') -> Raw:
  """An object of an archive's own class, with these attributes."""
  return Raw(name(kind) + b')\x81' + emit(attributes) + b'b')


def of_arrays(state) -> tuple[dict[str, Raw], dict[str, bytes]]:
  """({key: tensor}, {storage: bytes}) of {key: array}; floats become float32, integers int64."""
  tensors, storages = {}, {}
  for i, (key, array) in enumerate(state.items()):
    kind, dtype = ('Long', '<i8') if array.dtype.kind == 'i' else ('Float', '<f4')
    stride = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    tensors[key] = tensor(str(i), array.size, array.shape, stride, kind=f'torch.{kind}Storage')
    storages[str(i)] = array.astype(dtype).tobytes()
  return tensors, storages


def modules(tensors) -> Raw:
  """{'a.b.weight': tensor} as an archive's objects, one below the other."""
  tree: dict = {}
  for key, value in tensors.items():
    *above, last = key.split('.')
    at = tree
    for part in above:
      at = at.setdefault(part, {'training': False})
    at[last] = value
  build = lambda node: module({k: build(v) if isinstance(v, dict) else v for k, v in node.items()})
  return build(tree)


def write_stream(path, body: bytes, storages=None, itemsize=4):
  """The older stream around a pickle and {key: bytes} of storages."""
  out = io.BytesIO()
  out.write(MAGIC)
  system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'int': 4}}
  for value in (1001, system):
    out.write(pickle.dumps(value, 2))
  out.write(b'\x80\x02' + body + b'.')
  out.write(pickle.dumps(list(storages or {}), 2))
  for data in (storages or {}).values():
    out.write(struct.pack('<q', len(data) // itemsize) + data)
  path.write_bytes(out.getvalue())
  return path
