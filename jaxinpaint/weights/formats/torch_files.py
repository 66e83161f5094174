"""PyTorch's containers: zip archives (`torch.save` since 1.6, `torch.jit.save`), older streams.

Zip: a folder NAME/ with data.pkl, whose tensors name storages kept as NAME/data/KEY, uncompressed.
A TorchScript archive also has constants.pkl and code/, neither of which is read. Its data.pkl is
one object, the module, with its parameters, buffers and submodules as attributes.
Stream: five pickles in a row (magic number, protocol version, system, the object, the list of
storage keys), then for each key its number of elements as int64 and the elements, little-endian.
torchvision's VGG files are of the second kind.
"""

import functools
import io
import mmap
import pathlib
import re
import struct
import zipfile
from typing import Any

from jaxinpaint.weights.formats import pickle_machine
from jaxinpaint.weights.formats.tensors import STORAGES, Storage, UnsafeFileError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Records of torch.jit.save before 1.4, and of archives whose module is not in data.pkl.
_OLDER_SCRIPT = re.compile(r'[^/]+/(model\.json|attributes\.pkl|constants\.pkl|(tensors|code)/.+)')


def read_zip(path: pathlib.Path) -> Any:
  """The object of a zip archive, its tensors lazy; of TorchScript the module, as nested `Object`s.

  Raises:
    UnsafeFileError: not an archive of `torch.save` or `torch.jit.save`, damaged, or more than
      tensors inside.
  """
  try:
    archive = zipfile.ZipFile(path)
  except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
    raise UnsafeFileError(f'the zip archive is damaged: {error}') from error
  names = [i.filename for i in archive.infolist()]
  held_names = set(names)
  if len(held_names) != len(names):
    raise UnsafeFileError('the zip archive holds two records of the same name')
  pickles = [n for n in names if n.count('/') == 1 and n.endswith('/data.pkl')]
  if not pickles and any(_OLDER_SCRIPT.fullmatch(n) for n in names):
    raise UnsafeFileError(
      'it is a TorchScript archive of the older layout (attributes.pkl or constants.pkl beside '
      'tensors/, without data.pkl): load it with PyTorch and save it again with torch.jit.save'
    )
  if len(pickles) != 1:
    raise UnsafeFileError(
      'the zip archive has no single data.pkl, so it was not written by torch.save '
      f'(its records: {", ".join(names[:5])}{", ..." if len(names) > 5 else ""}): if weights are '
      'among them, unpack it and give their file'
    )
  folder = pickles[0].removesuffix('data.pkl')
  script = f'{folder}constants.pkl' in held_names or any(
    n.startswith(f'{folder}code/') for n in names
  )
  big_endian = False
  if f'{folder}byteorder' in names:
    order = _record(archive, f'{folder}byteorder')
    if order not in (b'little', b'big'):
      raise UnsafeFileError(f'the byte order {order[:20]!r} is neither little nor big')
    big_endian = order == b'big'
  if script and big_endian:
    raise UnsafeFileError(
      'it is a TorchScript archive of a big-endian machine, which is not read: save its '
      'state_dict() there with torch.save'
    )

  # Tensors that share a storage, or follow each other in it, read it once.
  @functools.lru_cache(maxsize=4)
  def load(name: str) -> bytes:
    return _record(archive, name)

  def persistent(identifier: Any) -> Storage:
    dtype, key, size, _ = _storage_id(identifier)
    name = f'{folder}data/{key}'
    if name not in held_names:
      raise UnsafeFileError(f'the archive has no record {name!r} for a storage')
    held = archive.getinfo(name).file_size
    if size * dtype.itemsize > held:
      raise UnsafeFileError(
        f'storage {key!r} holds {held} bytes, {size} elements of {dtype} are claimed: '
        'the file is truncated or forged'
      )
    return Storage(key, dtype, size, lambda: load(name), big_endian=big_endian)

  return pickle_machine.run(io.BytesIO(_record(archive, pickles[0])), persistent, script=script)


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
  """A record's bytes, CRC checked. torch.save never compresses; a zip bomb must."""
  info = archive.getinfo(name)
  if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
    raise UnsafeFileError(
      f'the record {name!r} is compressed, which torch.save never does: '
      'unpack the archive and pack it again without compression (zip -0)'
    )
  if info.flag_bits & 0x1:
    raise UnsafeFileError(f'the record {name!r} is encrypted')
  try:
    return archive.read(info)
  except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
    raise UnsafeFileError(f'the record {name!r} is damaged: {error}') from error


def read_stream(path: pathlib.Path) -> Any:
  """The object of a stream of the older kind, its tensors lazy; the file stays mapped, not read.

  Raises:
    UnsafeFileError: not a stream of `torch.save`, damaged, or more than tensors inside.
  """
  with open(path, 'rb') as f:
    data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
  if pickle_machine.run(data) != _MAGIC:
    raise UnsafeFileError(
      'this is a bare pickle, not a file of torch.save; it is not opened, since a pickle can run '
      'code. Save the arrays as safetensors.'
    )
  version = pickle_machine.run(data)
  if version != _PROTOCOL:
    raise UnsafeFileError(f'torch.save wrote stream version {version!r}; {_PROTOCOL} is read')
  pickle_machine.run(data)  # the writer's system; the elements are little-endian on all

  used: dict[str, Any] = {}  # key -> (dtype, number of elements)
  places: dict[str, tuple[int, int]] = {}  # key -> (first byte, end)

  def load(key: str) -> memoryview:
    begin, end = places[key]
    return memoryview(data)[begin:end]

  def persistent(identifier: Any) -> Storage:
    dtype, key, size, view = _storage_id(identifier)
    if used.setdefault(key, (dtype, size)) != (dtype, size):
      raise UnsafeFileError(f'storage {key!r} is described in two ways')
    start = 0
    if view is not None:
      if type(view) is not tuple or len(view) != 3 or any(type(n) is not int for n in view[1:]):
        raise UnsafeFileError(f'storage {key!r} has no proper view')
      start, length = view[1:]
      if start < 0 or length < 0 or start + length > size:
        raise UnsafeFileError(f'a view of storage {key!r} reaches past its {size} elements')
      size = length
    return Storage(key, dtype, size, lambda: load(key), start=start)

  tree = pickle_machine.run(data, persistent)
  keys = pickle_machine.run(data)
  if type(keys) is not list or any(type(k) is not str for k in keys) or set(keys) != set(used):
    raise UnsafeFileError('the storages that follow are not those that the tensors name')
  at = data.tell()
  for key in keys:
    dtype, size = used[key]
    count = struct.unpack('<q', data[at : at + 8])[0] if at + 8 <= len(data) else None
    end = at + 8 + size * dtype.itemsize
    if count != size or end > len(data):
      raise UnsafeFileError(
        f'storage {key!r} should hold {size} elements of {dtype}: the file ends before them, or '
        'holds another number; it is truncated or forged'
      )
    places[key] = (at + 8, end)
    at = end
  return tree


def _storage_id(identifier: Any) -> tuple[Any, str, int, Any]:
  """('storage', class, key, device, size[, view]) -> (dtype, key, size, view), checked."""
  if type(identifier) is not tuple or not identifier or identifier[0] != 'storage':
    raise UnsafeFileError(
      'the file holds a whole module or another object by reference, not just tensors: '
      'save its state_dict() with PyTorch'
    )
  if len(identifier) not in (5, 6):
    raise UnsafeFileError(f'a storage is described by {len(identifier)} values, not 5 or 6')
  _, kind, key, _, size = identifier[:5]
  if not isinstance(kind, pickle_machine.Global) or kind.name not in STORAGES:
    raise UnsafeFileError('a storage has no proper type')
  if type(key) is not str or '/' in key or type(size) is not int or not 0 <= size < 2**60:
    raise UnsafeFileError('a storage has no proper key or size')
  return STORAGES[kind.name], key, size, identifier[5] if len(identifier) == 6 else None
