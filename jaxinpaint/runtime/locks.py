"""One program at a time in a folder: two runs that write the same files would undo each other.

A lock of the operating system: it ends with the process that holds it, however that process ends.
A lock file left by a killed process is not a lock.
"""

import contextlib
import errno
import math
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock
from absl import logging

# What a file system says that has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class InUse(Exception):
  """Another program holds the lock; the message names it."""


@contextlib.contextmanager
def hold(path: pathlib.Path, what: str, patience: float = 0.0) -> Iterator[None]:
  """Holds the lock file of this path while the block runs, and removes the file afterwards.

  On a file system without locks nothing is held, and a warning says so.

  Args:
    path: of the lock file; its folder exists.
    what: is protected, for the message: '--workdir runs/mesff'.
    patience: seconds to wait for another holder (math.inf: for ever). A network file system needs
      some time to notice that a machine is gone.

  Raises:
    InUse: another process holds it, here or on another machine of the same network file system.
    OSError: the folder cannot be written.
  """
  # With `on_acquired`, filelock raises where there are no locks, instead of using a lock of its own
  # that would outlive a killed process.
  lock = filelock.FileLock(path, on_acquired=_sign)
  try:
    _acquire(lock, path, what, patience)
  except filelock.Timeout:
    raise InUse(
      f'{what} is in use by {_holder(path)}: wait until it has ended, or give another folder'
    ) from None
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    logging.warning('%s cannot be locked (%s): start nothing else in it.', what, error.strerror)
    path.unlink(missing_ok=True)
    yield
    return
  try:
    yield
  finally:
    # While it is still held: whoever waits for this file notices that it is gone. (Windows does not
    # remove an open file; filelock does it there.)
    with contextlib.suppress(OSError):
      path.unlink()
    lock.release()


def _acquire(lock: filelock.BaseFileLock, path: pathlib.Path, what: str, patience: float) -> None:
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout:
    if patience <= 0:
      raise
    until = f'up to {patience:.0f} s' if math.isfinite(patience) else 'until it has ended'
    logging.warning('%s is in use by %s: waiting %s.', what, _holder(path), until)
    lock.acquire(timeout=patience, poll_interval=0.25)


def _sign(descriptor: int) -> None:
  """Writes who holds the lock into its file."""
  os.ftruncate(descriptor, 0)
  os.write(descriptor, f'process {os.getpid()} on {socket.gethostname()}'.encode())


def _holder(path: pathlib.Path) -> str:
  """Who holds the lock, from its file."""
  with contextlib.suppress(OSError):
    return path.read_text(encoding='utf-8').strip() or 'another process'
  return 'another process'
