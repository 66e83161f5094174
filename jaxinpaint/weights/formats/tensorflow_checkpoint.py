"""Reads TensorFlow's checkpoints (tf.train.Saver's V2 and tf.train.Checkpoint) without TensorFlow.

A checkpoint is named by a prefix: PREFIX.index says where each variable lies, and
PREFIX.data-00000-of-00002, ... hold their bytes; PREFIX.meta (the graph) is not needed. The index
is a sorted table (`sorted_table`). Its first entry, of the empty key, is a BundleHeaderProto, each
other one a BundleEntryProto under the variable's name (tensorflow/core/protobuf/
tensor_bundle.proto). There is nothing to execute in any of these files.

  state = tensorflow_checkpoint.Checkpoint('snap-10000').read()   # {'net/conv1/kernel': array, ...}
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np

from jaxinpaint.weights.formats import sorted_table
from jaxinpaint.weights.formats.tensors import UnsafeFileError

# tensorflow/core/framework/types.proto
_DTYPES = {
  1: np.dtype('f4'),
  2: np.dtype('f8'),
  3: np.dtype('i4'),
  4: np.dtype('u1'),
  5: np.dtype('i2'),
  6: np.dtype('i1'),
  8: np.dtype('c8'),
  9: np.dtype('i8'),
  10: np.dtype('?'),
  14: np.dtype(ml_dtypes.bfloat16),
  17: np.dtype('u2'),
  18: np.dtype('c16'),
  19: np.dtype('f2'),
  22: np.dtype('u4'),
  23: np.dtype('u8'),
}
_STRING = 7  # text beside the weights: a description of the objects that were saved
_MAX_INDEX = 1 << 28
_MAX_SHARDS = 100_000
_MAX_AXES = 16
_MAX_SIDE = 1 << 40  # a negative size, which stands for an unknown one, is above this too
_MAX_GROWTH = 8  # how many times larger than the files the arrays may be; forged entries overlap
_PARTS = re.compile(r'(.+)\.(index|meta|data-\d{5}-of-\d{5})')


@dataclasses.dataclass(frozen=True)
class Variable:
  """Where a variable lies and what it is; `dtype` None: text, which is not read."""

  name: str
  dtype: np.dtype | None
  shape: tuple[int, ...]
  shard: int
  offset: int
  size: int
  checksum: int


def find(path: str | os.PathLike) -> pathlib.Path | None:
  """The prefix that a path stands for; None where it does not belong to a TensorFlow checkpoint.

  Args:
    path: PREFIX, one of its files, or a folder: with the text file `checkpoint` (its newest; taken
      from this folder, wherever the text says it was), or with a single PREFIX.index.

  Raises:
    FileNotFoundError: a folder without a checkpoint, or the index of a checkpoint is missing.
    ValueError: a folder with several.
  """
  path = pathlib.Path(path).expanduser()
  if path.is_dir():
    return _in_folder(path)
  if path.name == 'checkpoint' and path.is_file() and _newest(path) is not None:
    return _in_folder(path.parent)
  if _index(path).is_file() and not path.is_file():
    return path
  match = _PARTS.fullmatch(path.name)
  if match is None or (match[2] == 'meta' and not _index(path.with_name(match[1])).is_file()):
    return None
  prefix = path.with_name(match[1])
  if not _index(prefix).is_file():
    raise FileNotFoundError(f'{_index(prefix)}: no such file; it says what is in {path.name}')
  return prefix


def _index(prefix: pathlib.Path) -> pathlib.Path:
  return prefix.with_name(f'{prefix.name}.index')


def _newest(text: pathlib.Path) -> str | None:
  """The last component of model_checkpoint_path in the text file `checkpoint`."""
  with open(text, 'rb') as f:
    content = f.read(1 << 20).decode('utf-8', 'replace')
  match = re.search(r'^\s*model_checkpoint_path:\s*"([^"\n]+)"', content, re.M)
  return re.split(r'[/\\]', match[1])[-1] or None if match else None


def _in_folder(folder: pathlib.Path) -> pathlib.Path:
  text = folder / 'checkpoint'
  name = _newest(text) if text.is_file() else None
  if name is not None:
    if not _index(folder / name).is_file():
      raise FileNotFoundError(
        f'{text} names the checkpoint {name!r}, but {name}.index is not there'
      )
    return folder / name
  prefixes = sorted(p.name.removesuffix('.index') for p in folder.glob('*.index'))
  if not prefixes:
    raise FileNotFoundError(f'{folder} is a folder without a TensorFlow checkpoint (*.index)')
  if len(prefixes) > 1:
    raise ValueError(f'{folder} holds several checkpoints, name one: {", ".join(prefixes[:8])}')
  return folder / prefixes[0]


class Checkpoint:
  """The variables of a checkpoint.

  Attributes:
    prefix: of its files.
    variables: by name.
    files: the index and the data files that its variables lie in.
  """

  def __init__(self, prefix: str | os.PathLike):
    """Reads the index.

    Raises:
      FileNotFoundError: no index, or not all data files.
      UnsafeFileError: a damaged index, or one that asks for what is not read.
    """
    self.prefix = pathlib.Path(prefix)
    index = _index(self.prefix)
    if index.stat().st_size > _MAX_INDEX:
      raise UnsafeFileError(f'{index.name} is over {_MAX_INDEX >> 20} MiB long: it is no index')
    rows = sorted_table.entries(index.read_bytes())
    key, value = next(rows, (None, b''))
    if key != b'':
      raise UnsafeFileError('the index lacks its header')
    self._shards, self._big_endian = _header(value)
    # Pieces of sliced variables stand under keys that begin with a zero byte.
    variables = [_entry(key, value) for key, value in rows if not key.startswith(b'\0')]
    self.variables = {v.name: v for v in variables}
    used = sorted({v.shard for v in variables if v.dtype is not None})
    self.files = (index, *map(self._data_file, used))
    self._check()

  def _data_file(self, shard: int) -> pathlib.Path:
    return self.prefix.with_name(f'{self.prefix.name}.data-{shard:05}-of-{self._shards:05}')

  def _check(self) -> None:
    sizes = {}
    for variable in self.variables.values():
      if variable.shard >= self._shards:
        raise UnsafeFileError(
          f'{variable.name!r} lies in data file {variable.shard} of {self._shards}'
        )
      if variable.dtype is None:
        continue
      path = self._data_file(variable.shard)
      if path not in sizes:
        if not path.is_file():
          raise FileNotFoundError(f'{path}: no such file, and {variable.name!r} lies in it')
        sizes[path] = path.stat().st_size
      end = variable.offset + variable.size
      if end > sizes[path]:
        raise UnsafeFileError(
          f'{path.name} is truncated: it holds {sizes[path]} bytes, and {variable.name!r} ends at '
          f'byte {end}'
        )
    total = sum(v.size for v in self.variables.values() if v.dtype is not None)
    if total > _MAX_GROWTH * sum(sizes.values()):
      raise UnsafeFileError(f'its variables are over {_MAX_GROWTH} times as large as its files')

  def read(self, only: Callable[[str], bool] | None = None) -> dict[str, np.ndarray]:
    """{name: array in native byte order}; text is left out.

    Args:
      only: name -> whether to read it.

    Raises:
      UnsafeFileError: a checksum is wrong.
    """
    wanted = [
      v for v in self.variables.values() if v.dtype is not None and (only is None or only(v.name))
    ]
    arrays = {}
    for shard in sorted({v.shard for v in wanted}):
      with open(self._data_file(shard), 'rb') as f:
        for variable in wanted:
          if variable.shard == shard:
            f.seek(variable.offset)
            arrays[variable.name] = self._array(variable, f.read(variable.size))
    return {v.name: arrays[v.name] for v in wanted}

  def _array(self, variable: Variable, data: bytes) -> np.ndarray:
    if len(data) != variable.size:
      raise UnsafeFileError(f'the file ends within {variable.name!r}: it is truncated')
    if not sorted_table.checksum_fits(data, variable.checksum):
      raise UnsafeFileError(
        f'the checksum of {variable.name!r} is wrong: its data file is damaged, or of another '
        'checkpoint'
      )
    array = np.frombuffer(data, variable.dtype).reshape(variable.shape)
    swap = self._big_endian and variable.dtype.itemsize > 1
    return array.byteswap() if swap else array.copy()


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
  """(number, value) of a protobuf message's fields: integers, or the bytes of what is nested."""
  at = 0
  while at < len(message):
    tag, at = sorted_table.varint(message, at)
    number, kind = tag >> 3, tag & 7
    if kind == 0:
      value, at = sorted_table.varint(message, at)
      yield number, value
      continue
    if kind == 2:
      length, at = sorted_table.varint(message, at)
    elif kind in (1, 5):
      length = 8 if kind == 1 else 4
    else:
      raise UnsafeFileError(f'the index is damaged: a field of wire type {kind}')
    if at + length > len(message):
      raise UnsafeFileError('the index is damaged: a field reaches past its message')
    value = message[at : at + length]
    yield number, value if kind == 2 else int.from_bytes(value, 'little')
    at += length


def _of_kind(value: int | bytes, kind: type) -> int | bytes:
  if not isinstance(value, kind):
    raise UnsafeFileError('the index is damaged: a field is of another type than it should be')
  return value


def _header(message: bytes) -> tuple[int, bool]:
  """(number of data files, big-endian) of a BundleHeaderProto."""
  shards, endianness = 0, 0
  for number, value in _fields(message):
    if number == 1:
      shards = _of_kind(value, int)
    elif number == 2:
      endianness = _of_kind(value, int)
  if not 1 <= shards <= _MAX_SHARDS or endianness > 1:
    raise UnsafeFileError(
      f'the index is damaged: {shards} data files in byte order {endianness} (0 or 1)'
    )
  return shards, endianness == 1


def _entry(key: bytes, message: bytes) -> Variable:
  """A BundleEntryProto, checked as far as possible without the data."""
  try:
    name = key.decode()
  except UnicodeDecodeError as error:
    raise UnsafeFileError(f'the index is damaged: {key!r} is no name') from error
  numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}  # dtype, shard, offset, size, checksum
  shape: tuple[int, ...] = ()
  for number, value in _fields(message):
    if number in numbers:
      numbers[number] = _of_kind(value, int)
    elif number == 2:
      shape = _shape(name, _of_kind(value, bytes))
    elif number == 7:
      raise UnsafeFileError(
        f'{name!r} is a variable kept in slices, which are not read: load the checkpoint without '
        'a partitioner and save it again with TensorFlow'
      )
  kind, shard, offset, size, checksum = numbers.values()
  if kind != _STRING and kind not in _DTYPES:
    raise UnsafeFileError(f'{name!r} is of TensorFlow type {kind}, which is not read')
  dtype = _DTYPES.get(kind)
  if dtype is not None and size != math.prod(shape) * dtype.itemsize:
    raise UnsafeFileError(
      f'{name!r} has {size} bytes, but the shape {shape} of {dtype.name} takes '
      f'{math.prod(shape) * dtype.itemsize}'
    )
  return Variable(name, dtype, shape, shard, offset, size, checksum)


def _shape(name: str, message: bytes) -> tuple[int, ...]:
  """A TensorShapeProto."""
  shape = []
  for number, value in _fields(message):
    if number == 3 and value:
      raise UnsafeFileError(f'{name!r} has no known number of axes')
    if number != 2:
      continue
    side = 0
    for inner, length in _fields(_of_kind(value, bytes)):
      if inner == 1:
        side = _of_kind(length, int)
    shape.append(side)
  if len(shape) > _MAX_AXES or any(side > _MAX_SIDE for side in shape):
    raise UnsafeFileError(
      f'{name!r} has {len(shape)} axes of up to {max(shape)}, which is too much'
    )
  return tuple(shape)
