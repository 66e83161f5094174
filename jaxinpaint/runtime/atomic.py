"""Files and folders that are there whole or not at all, whenever the process is killed.

  atomic.write(path, text)
  atomic.write(path, lambda file: np.savez(file, **arrays))
  with atomic.folder(path) as new:
    (new / 'a.txt').write_text('a')

Each is written under a hidden temporary name in the same folder and then renamed.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import BinaryIO

Content = str | bytes | Callable[[BinaryIO], object]


def write(path: str | os.PathLike, content: Content, *, sync: bool = True) -> None:
  """Writes a file, or replaces it: readers see the old content or the new one, never half of it.

  Args:
    path: of the file; its folder exists.
    content: text (see `as_bytes`), bytes, or a function that writes into an open binary file.
    sync: wait until the disk has the content, so that the file survives a power cut. False is
      faster, for many files that can be made again.

  Raises:
    OSError: it cannot be written; the temporary file is removed.
  """
  path = pathlib.Path(path)
  temporary = _beside(path)
  try:
    with open(temporary, 'x+b') as file:
      if callable(content):
        content(file)
      else:
        file.write(as_bytes(content) if isinstance(content, str) else content)
      if sync:
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    # The name that the caller knows; a full disk has none. Errors of words alone stay as they are.
    if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
      error.filename = str(path)
    raise


def as_bytes(text: str) -> bytes:
  """UTF-8. A file's name need not be text: its other bytes are written as \\udcXX."""
  return text.encode('utf-8', 'backslashreplace')


@contextlib.contextmanager
def folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A new folder to fill, which takes the name `path` when the block ends without an error.

  Args:
    path: of the folder; its parent exists. At the end of the block it may be an empty folder, but
      nothing else.

  Yields:
    The folder under its temporary name.

  Raises:
    OSError: it cannot be made, or `path` is taken; what was written is removed.
  """
  path = pathlib.Path(path)
  temporary = _beside(path)
  try:
    temporary.mkdir()
    yield temporary
    temporary.rename(path)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise


@contextlib.contextmanager
def no_empty_folders(*paths: str | os.PathLike) -> Iterator[None]:
  """If the block fails, the folders that it made and put nothing into are removed.

  Args:
    paths: folders that the block may make, with their parents.
  """
  absolute = [pathlib.Path(path).absolute() for path in paths]
  new = {p for path in absolute for p in (path, *path.parents) if not p.exists()}
  try:
    yield
  except BaseException:
    for folder in sorted(new, reverse=True):  # what is inside of a folder comes before it
      with contextlib.suppress(OSError):  # it was not made, or it is not empty
        folder.rmdir()
    raise


def _beside(path: pathlib.Path) -> pathlib.Path:
  """A hidden name in the same folder that no other process or thread has."""
  return path.with_name(f'.{path.name}.{os.getpid()}-{secrets.token_hex(4)}')
