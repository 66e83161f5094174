"""One program at a time in a folder: two runs that write the same files would undo each other.

A lock of the operating system, which ends with the process that holds it, however that ends: what
is left after a kill hinders nobody.
"""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import TextIO

from absl import logging

try:
  import fcntl
except ImportError:  # not on Windows
  fcntl = None


class InUse(Exception):
  """Another program holds the lock; the message names it."""


@contextlib.contextmanager
def hold(path: pathlib.Path, what: str, patience: float = 0.0) -> Iterator[None]:
  """Holds the lock file of this path while the block runs, and removes it afterwards.

  On file systems (and operating systems) without locks nothing is held, which is logged.

  Args:
    path: of the lock file; its folder exists.
    what: is protected, for the message: '--workdir runs/mesff'.
    patience: seconds to wait for another holder; a network file system learns late that a machine
      is gone.

  Raises:
    InUse: another process holds it, here or on another machine of the same network file system.
    OSError: the folder cannot be written.
  """
  if fcntl is None:
    yield
    return
  file = _lock(path, what, time.monotonic() + patience)
  if file is None:
    yield
    return
  with file:
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}')
    file.flush()
    try:
      yield
    finally:
      # While it is still held: who opened it before sees that it is not the path's any more.
      path.unlink(missing_ok=True)


def _lock(path: pathlib.Path, what: str, until: float) -> TextIO | None:
  """The open, locked file; None where the file system has no locks."""
  said = False
  while True:
    file = open(path, 'a+', encoding='utf-8')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      holder = file.read().strip() or 'another process'
      file.close()
      left = until - time.monotonic()
      if left > 0:
        if not said:
          logging.warning('%s is in use by %s: waiting up to %.0f s.', what, holder, left)
          said = True
        time.sleep(min(1.0, left))
        continue
      raise InUse(
        f'{what} is in use by {holder}: wait until it has ended, or give another folder'
      ) from None
    except OSError as error:
      logging.warning('%s cannot be locked (%s): start nothing else in it.', what, error.strerror)
      file.close()
      return None
    try:
      if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
        return file
    except FileNotFoundError:
      pass  # its holder removed it between our opening and locking it
    file.close()
