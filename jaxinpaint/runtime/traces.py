"""Traced programs kept between starts, so that a second start need not trace its networks.

jax finds a compiled program (`compilation_cache`) by the traced one, and to trace and lower a
network takes seconds at every start: 3 of 6 s for the library's own weights on a slow core. Here
the traced program is kept beside the compiled one, as jax.export serialises it, under a name made
of all that it follows from.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from absl import logging
from jax import export

from jaxinpaint.runtime import atomic, digest

_PACKAGE = pathlib.Path(__file__).parent.parent
_SETTINGS = (  # of jax, that a trace depends on
  'jax_enable_x64',
  'jax_default_matmul_precision',
  'jax_default_prng_impl',
  'jax_threefry_partitionable',
)
_DIGEST_LENGTH = 64  # of `digest.of`, which a file begins with


def beside(programs: str | None) -> str | None:
  """Where traces are kept: with the compiled programs (`compilation_cache.use`), if on a disk."""
  return programs if programs and '://' not in programs else None


class Kept:
  """A function whose traced programs are kept in a folder.

  A process that finds a program in the folder runs that one, and does not look at its function. So
  the name of a program holds all that a trace is made of: `identity`, the shapes of the arguments,
  the versions of jax and flax, jax's settings, the backend, and the library's source files (by size
  and time). With arguments on several devices the function runs as if nothing were kept.

  Attributes:
    lower: of the function, as `jax.stages.Wrapped` has it.
  """

  def __init__(self, function: jax.stages.Wrapped, folder: str | os.PathLike, identity: str):
    """Nothing is traced or read before the first call.

    Args:
      function: of `jax.jit`, of trees of arrays, into an array or a dict of arrays.
      folder: where programs are kept; nobody else may write there, see `compilation_cache.use`.
      identity: all that the function follows from beside the library's code: a configuration.
    """
    self._function, self._folder, self._identity = function, pathlib.Path(folder), identity
    self._programs: dict[Any, Callable] = {}
    self.lower = function.lower

  def __call__(self, *arguments: Any) -> Any:
    """The function's result; its program is read from the folder, or traced and written there."""
    leaves, tree = jax.tree.flatten(arguments)
    if any(len(x.devices()) > 1 for x in leaves if isinstance(x, jax.Array)):
      return self._function(*arguments)
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)
    if (tree, shapes) not in self._programs:
      self._programs[tree, shapes] = self._program(tree, shapes)
    return self._programs[tree, shapes](*leaves)

  def _program(self, tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> Callable:
    signature = f'{self._identity} {_surroundings()} {tree} {shapes}'
    path = self._folder / f'trace-{digest.of(signature.encode())}'
    content = _read(path)
    if content is None:
      flat = jax.jit(lambda *leaves: self._function(*jax.tree.unflatten(tree, leaves)))
      content = bytes(export.export(flat)(*shapes).serialize())
      try:
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic.write(path, digest.of(content).encode() + content, sync=False)
      except OSError as error:
        logging.warning('The traced program is not kept: %s', error)
    # What was just traced is read again, too: so both starts compile the same program.
    return jax.jit(export.deserialize(bytearray(content)).call)


def _read(path: pathlib.Path) -> bytes | None:
  """What was written under this name; None: nothing, or it is damaged."""
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    return None
  except OSError as error:
    logging.warning('The traced program cannot be read: %s', error)
    return None
  content = data[_DIGEST_LENGTH:]
  if digest.of(content).encode() == data[:_DIGEST_LENGTH]:
    return content
  logging.warning('The traced program %s is damaged, and is made again.', path)
  return None


def _surroundings() -> str:
  """What a trace depends on beside the function and its arguments."""
  import flax
  import jaxlib

  settings = [getattr(jax.config, name) for name in _SETTINGS]
  versions = jax.__version__, jaxlib.__version__, flax.__version__
  return f'{versions} {settings} {jax.default_backend()} {_source()}'


@functools.cache
def _source() -> str:
  """Names, sizes and times of the library's source files."""
  found = ((p.relative_to(_PACKAGE), p.stat()) for p in sorted(_PACKAGE.rglob('*.py')))
  return digest.of(*(f'{p} {s.st_size} {s.st_mtime_ns}\n'.encode() for p, s in found))
