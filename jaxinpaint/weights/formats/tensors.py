"""Tensors of a file that are described but not read yet, with every bound checked.

A hostile file may claim a tensor far larger than the file, a negative stride or an offset past the
end. All arithmetic is on Python integers (which do not overflow), before numpy sees any of it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np


class UnsafeFileError(ValueError):
  """A weight file is refused: it is damaged, of an unknown kind, or asks for more than tensors."""


# PyTorch's storage classes by name; everything else (quantised types, ...) is refused.
STORAGES = {
  'torch.DoubleStorage': np.dtype('f8'),
  'torch.FloatStorage': np.dtype('f4'),
  'torch.HalfStorage': np.dtype('f2'),
  'torch.BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
  'torch.LongStorage': np.dtype('i8'),
  'torch.IntStorage': np.dtype('i4'),
  'torch.ShortStorage': np.dtype('i2'),
  'torch.CharStorage': np.dtype('i1'),
  'torch.ByteStorage': np.dtype('u1'),
  'torch.BoolStorage': np.dtype('?'),
  'torch.ComplexFloatStorage': np.dtype('c8'),
  'torch.ComplexDoubleStorage': np.dtype('c16'),
  'torch.UntypedStorage': np.dtype('u1'),
  'torch.storage.UntypedStorage': np.dtype('u1'),
}
DTYPES = {
  'torch.float64': np.dtype('f8'),
  'torch.float32': np.dtype('f4'),
  'torch.float16': np.dtype('f2'),
  'torch.bfloat16': np.dtype(ml_dtypes.bfloat16),
  'torch.int64': np.dtype('i8'),
  'torch.int32': np.dtype('i4'),
  'torch.int16': np.dtype('i2'),
  'torch.int8': np.dtype('i1'),
  'torch.uint64': np.dtype('u8'),
  'torch.uint32': np.dtype('u4'),
  'torch.uint16': np.dtype('u2'),
  'torch.uint8': np.dtype('u1'),
  'torch.bool': np.dtype('?'),
  'torch.complex64': np.dtype('c8'),
  'torch.complex128': np.dtype('c16'),
}
_MAX_AXES = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
  """A one-dimensional run of elements in a file.

  Attributes:
    key: its name in the file.
    dtype: of one element.
    size: number of elements that the file claims.
    load: () -> a buffer of at least size * dtype.itemsize bytes; raises UnsafeFileError.
    start: first element of this storage in the buffer.
    big_endian: byte order in the file.
  """

  key: str
  dtype: np.dtype
  size: int
  load: Callable[[], Any]
  start: int = 0
  big_endian: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class LazyTensor:
  """The description of a tensor over a storage; `read` makes the array."""

  storage: Storage
  dtype: np.dtype
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]

  @property
  def nbytes(self) -> int:
    """Bytes that the array will take."""
    return math.prod(self.shape) * self.dtype.itemsize

  def read(self) -> np.ndarray:
    """A new, writable, contiguous array in native byte order."""
    storage = self.storage
    buffer = storage.load()
    begin, length = storage.start * storage.dtype.itemsize, storage.size * storage.dtype.itemsize
    if len(buffer) < begin + length:
      raise UnsafeFileError(
        f'storage {storage.key!r} holds {len(buffer)} bytes, {begin + length} are claimed: '
        'the file is truncated or forged'
      )
    count = length // self.dtype.itemsize
    flat = np.frombuffer(buffer, np.uint8, length, begin)[: count * self.dtype.itemsize]
    flat = flat.view(self.dtype)
    steps = [s * self.dtype.itemsize for s in self.stride]
    view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps, writeable=False)
    array = np.array(view, order='C')
    return array.byteswap() if storage.big_endian and self.dtype.itemsize > 1 else array


def lazy_tensor(
  storage: Any, offset: Any, shape: Any, stride: Any, dtype: np.dtype | None = None
) -> LazyTensor:
  """Checks what a file says about a tensor.

  Args:
    storage: must be a `Storage`.
    offset: of the first element, in elements.
    shape: of integers.
    stride: of integers, in elements.
    dtype: of the tensor where its storage is untyped.

  Raises:
    UnsafeFileError: any of these is of a wrong type, negative, or reaches past the storage.
  """
  if not isinstance(storage, Storage):
    raise UnsafeFileError(f'a tensor is built on a {type(storage).__name__}, not on a storage')
  if not isinstance(shape, tuple) or not isinstance(stride, tuple) or len(shape) != len(stride):
    raise UnsafeFileError('a tensor has no proper shape and stride')
  if len(shape) > _MAX_AXES:
    raise UnsafeFileError(f'a tensor has {len(shape)} axes; at most {_MAX_AXES} are read')
  for n in (offset, *shape, *stride):
    if type(n) is not int or n < 0:
      raise UnsafeFileError(f'a tensor has the size, stride or offset {_short(n)}')
  dtype = dtype or storage.dtype
  size = storage.size * storage.dtype.itemsize // dtype.itemsize
  count = math.prod(shape)
  last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
  if count > size or (count and last >= size) or offset > size:
    raise UnsafeFileError(
      f'a tensor of shape {_short(shape)}, stride {_short(stride)} and offset {_short(offset)} '
      f'reaches past its storage {storage.key!r} of {_short(size)} elements'
    )
  return LazyTensor(storage, dtype, offset, shape, stride)


def _short(value: Any) -> str:
  """repr for an error message; integers of a hostile file may have millions of digits."""
  if isinstance(value, tuple):
    return '(' + ', '.join(_short(v) for v in value) + ')'
  if type(value) is int:
    return str(value) if value.bit_length() < 128 else f'an integer of {value.bit_length()} bits'
  return f'a {type(value).__name__}'
