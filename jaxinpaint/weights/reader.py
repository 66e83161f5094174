"""Reads published weight files without their frameworks, running nothing that is in them.

  state = reader.read('vgg16-397923af.pth', only=lambda key: key.startswith('features.'))

Five kinds are read: the zip archives and the older streams of `torch.save`, the TorchScript
archives of `torch.jit.save`, safetensors, and TensorFlow's checkpoints. A PyTorch file may hold
tensors, dicts, lists, tuples, text, bytes, numbers and None; with anything else in it, the whole
file is refused and the message names it. A TorchScript archive also holds objects of its own
classes, which are read as dicts of their attributes; its code is not looked at.
See `pickle_machine` for how, and `tensorflow_checkpoint` for TensorFlow's checkpoints, which are
several files under one prefix.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import safetensors

from jaxinpaint.weights.formats import (
  sorted_table,
  tensorflow_checkpoint,
  torch_files,
)
from jaxinpaint.weights.formats.pickle_machine import Global, Object
from jaxinpaint.weights.formats.tensors import DTYPES, LazyTensor, UnsafeFileError

__all__ = ['UnsafeFileError', 'describe', 'files', 'read']

_MAX_DEPTH = 64
_MAX_VALUES = 200_000
# Tensors may share storage (tied weights), so a file may hold less than what it unfolds to; a
# forged one could unfold to any size.
_MAX_GROWTH = 8
_SAFETENSORS_DTYPES = {
  'F64': 'float64',
  'F32': 'float32',
  'F16': 'float16',
  'BF16': 'bfloat16',
  'I64': 'int64',
  'I32': 'int32',
  'U8': 'uint8',
  'BOOL': 'bool',
}
_PLAIN = (str, bytes, int, float, bool, type(None))


def read(path: str | os.PathLike, only: Callable[[str], bool] | None = None) -> Any:
  """What a weight file holds.

  Args:
    path: a file of torch.save (either kind), torch.jit.save or safetensors; or a TensorFlow
      checkpoint: its prefix, one of its files, or a folder with the text file `checkpoint`.
    only: (dotted key, e.g. 'generator.encoder0.1.weight') -> whether to read that tensor; others
      are left out of their dict (None in a list) without being read.

  Returns:
    Nested dicts, lists and tuples of numpy arrays (bfloat16 as ml_dtypes.bfloat16) and plain
    scalars, as in the file; attributes of dicts are dropped. For TorchScript: the attributes of the
    module and of all below it, so that dotted keys are those of its state dict. For TensorFlow:
    {variable's name: array}.

  Raises:
    FileNotFoundError: no such file.
    UnsafeFileError: another kind of file, a damaged one, or one that asks for anything but
      tensors and plain containers.
  """
  prefix = tensorflow_checkpoint.find(path)
  if prefix is not None:
    with _naming(prefix):
      return tensorflow_checkpoint.Checkpoint(prefix).read(only)
  path = _file(path)
  budget = _MAX_GROWTH * path.stat().st_size

  def leaf(key: str, value: Any) -> Any:
    nonlocal budget
    if not isinstance(value, LazyTensor):
      return value
    budget -= value.nbytes
    if budget < 0:
      raise UnsafeFileError(f'its tensors unfold to over {_MAX_GROWTH} times the size of the file')
    return value.read()

  with _naming(path):
    if _kind(path) == 'safetensors':
      return _read_safetensors(path, only)
    return _walk(_open(path), leaf, only or (lambda key: True), '', 0, [0])


def describe(path: str | os.PathLike) -> Iterator[tuple[str, tuple[int, ...], str]]:
  """(dotted key, shape, dtype) of every tensor and (key, (), type) of every other value.

  No tensor is read. Raises as `read`.
  """
  prefix = tensorflow_checkpoint.find(path)
  if prefix is not None:
    with _naming(prefix):
      variables = tensorflow_checkpoint.Checkpoint(prefix).variables.values()
    return iter((v.name, v.shape, v.dtype.name if v.dtype else 'text') for v in variables)
  path = _file(path)
  rows: list[tuple[str, tuple[int, ...], str]] = []

  def leaf(key: str, value: Any) -> None:
    lazy = isinstance(value, LazyTensor)
    rows.append((key, value.shape, value.dtype.name) if lazy else (key, (), type(value).__name__))

  with _naming(path):
    if _kind(path) == 'safetensors':
      with _open_safetensors(path) as f:
        for key in f.keys():
          part = f.get_slice(key)
          dtype = _SAFETENSORS_DTYPES.get(part.get_dtype(), part.get_dtype())
          rows.append((key, tuple(part.get_shape()), dtype))
    else:
      _walk(_open(path), leaf, lambda key: True, '', 0, [0])
  return iter(rows)


def files(path: str | os.PathLike) -> tuple[pathlib.Path, ...]:
  """The files that `read` reads for this path; raises the same errors."""
  prefix = tensorflow_checkpoint.find(path)
  if prefix is None:
    return (_file(path),)
  with _naming(prefix):
    return tensorflow_checkpoint.Checkpoint(prefix).files


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  """Puts the path before the reason why a file is refused."""
  try:
    yield
  except UnsafeFileError as error:
    raise UnsafeFileError(f'{path} is refused: {error}') from error


def _file(path: str | os.PathLike) -> pathlib.Path:
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file')
  return path


def _kind(path: pathlib.Path) -> str:
  with open(path, 'rb') as f:
    head = f.read(512)
  if not head:
    raise UnsafeFileError('it is empty: get it again, and look whether the disk is full')
  if head.startswith(b'PK\x03\x04'):
    return 'zip'
  if head.startswith(b'\x80'):
    return 'stream'
  if len(head) > 8 and head[8:9] == b'{':
    return 'safetensors'
  if head[257:262] == b'ustar':
    raise UnsafeFileError(
      'it is a tar archive, as torch.save wrote before 2017: load and save it again with PyTorch'
    )
  if head.lstrip()[:1] == b'<':
    raise UnsafeFileError('it is a web page, not weights: the download did not give the file')
  if _ends_as_table(path):
    raise UnsafeFileError(
      'it is a TensorFlow checkpoint of the first version, in a single file: load it with '
      'TensorFlow and save it again with tf.compat.v1.train.Saver(), which writes the second'
    )
  raise UnsafeFileError(
    'it is neither a file of torch.save nor safetensors, nor of a TensorFlow checkpoint (it begins '
    f'with {head[:8]!r})'
  )


def _ends_as_table(path: pathlib.Path) -> bool:
  with open(path, 'rb') as f:
    f.seek(max(0, path.stat().st_size - len(sorted_table.MAGIC)))
    return f.read() == sorted_table.MAGIC


def _open(path: pathlib.Path) -> Any:
  if _kind(path) == 'zip':
    return torch_files.read_zip(path)
  return torch_files.read_stream(path)


def _walk(
  value: Any,
  leaf: Callable[[str, Any], Any],
  only: Callable[[str], bool],
  key: str,
  depth: int,
  count: list[int],
) -> Any:
  """Copies containers; the limits stop one that contains itself, or is shared very often."""
  count[0] += 1
  if depth > _MAX_DEPTH or count[0] > _MAX_VALUES:
    raise UnsafeFileError(
      f'its containers are nested over {_MAX_DEPTH} deep or hold over {_MAX_VALUES} values'
    )
  if isinstance(value, Object):
    value = value.attributes or {}
  below = lambda name, item: _walk(
    item, leaf, only, f'{key}.{name}' if key else str(name), depth + 1, count
  )
  if type(value) is dict:
    return {
      name: below(name, item)
      for name, item in value.items()
      if not isinstance(item, LazyTensor) or only(f'{key}.{name}' if key else str(name))
    }
  if type(value) in (list, tuple):
    items = (
      None if isinstance(v, LazyTensor) and not only(f'{key}.{i}') else below(i, v)
      for i, v in enumerate(value)
    )
    return type(value)(items)
  if isinstance(value, Global) and value.name in DTYPES:  # 'torch.float32' kept as a value
    return leaf(key, value.name)
  if isinstance(value, LazyTensor) or type(value) in _PLAIN:
    return leaf(key, value)
  raise UnsafeFileError(f'{key!r} is a {type(value).__name__}, not a tensor or a plain value')


def _open_safetensors(path: pathlib.Path) -> Any:
  try:
    return safetensors.safe_open(path, framework='numpy')
  except (safetensors.SafetensorError, ValueError) as error:
    raise UnsafeFileError(f'the safetensors file is damaged: {error}') from error


def _read_safetensors(
  path: pathlib.Path, only: Callable[[str], bool] | None
) -> dict[str, np.ndarray]:
  with _open_safetensors(path) as f:
    return {key: f.get_tensor(key) for key in f.keys() if only is None or only(key)}
