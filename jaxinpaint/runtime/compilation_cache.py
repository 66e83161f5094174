"""Where compiled programs are kept between starts: on by default, beside the workdir of a run.

A program that took a second or more to compile is read from the cache when the run is started
again, and by other runs with the same parent folder and program. JAX_COMPILATION_CACHE_DIR names
another folder; an empty value turns the cache off.
"""

import os
import pathlib
import stat
import zlib
from collections.abc import Mapping

import jax
from absl import logging
from jax.experimental.compilation_cache import compilation_cache

_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'
_NAME = 'compilation_cache'
_CHECKED = '.checked'
_LOOKED_AT = 64


def use(workdir: str | pathlib.Path) -> str | None:
  """Turns the cache on and logs where it is; call it before anything is compiled.

  Args:
    workdir: of the run, or any path in the folder that gets the cache; need not exist.

  Returns:
    The folder; None: nothing is kept.
  """
  folder, own, sentence = choose(
    pathlib.Path(workdir),
    os.environ,
    jax.config.jax_compilation_cache_dir,
    jax.default_backend(),
    jax.process_count(),
  )
  if own and (fault := _fault(pathlib.Path(folder))):
    logging.warning(
      'Compiled programs are not kept: %s %s. %s=DIR names another folder.',
      folder,
      fault,
      _VARIABLE,
    )
    folder = None
  elif jax.process_index() == 0:
    logging.info('%s', sentence)
  jax.config.update('jax_compilation_cache_dir', folder)
  compilation_cache.reset_cache()  # jax remembers what it found at its first compilation
  if folder is not None and jax.process_index() == 0:
    drop_damaged(pathlib.Path(folder))
  return folder


def choose(
  workdir: pathlib.Path,
  environment: Mapping[str, str],
  configured: str | None,
  platform: str,
  processes: int,
) -> tuple[str | None, bool, str]:
  """The folder (None: off), whether it is the default one, and a sentence that says so.

  Args:
    workdir: of the run.
    environment: of the process.
    configured: jax.config.jax_compilation_cache_dir.
    platform: 'cpu', 'gpu' or 'tpu'.
    processes: of the run.
  """
  if environment.get(_VARIABLE) == '':
    return None, False, f'Compiled programs are not kept ({_VARIABLE} is empty).'
  chosen = environment.get(_VARIABLE) or configured  # may be a bucket, too
  if chosen:
    return chosen, False, f'Compiled programs are kept in {chosen} ({_VARIABLE}).'
  # With several CPU processes only the first finds its programs (jaxlib's keys differ by process),
  # and then it waits for the others, which compile: nothing is gained.
  if platform == 'cpu' and processes > 1:
    return None, False, 'Compiled programs are not kept: several processes on CPUs.'
  folder = workdir.absolute().parent / _NAME
  return str(folder), True, f'Compiled programs are kept in {folder} ({_VARIABLE} names another).'


def _fault(folder: pathlib.Path) -> str:
  """Why a folder must not be used; '' where it may. Nothing is created.

  Stored programs are executed without a check, so a folder that belongs to someone else (below
  /tmp, for example) is not trusted, unless the environment names it.
  """
  existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
  if existing is None or not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
    return 'cannot be written'
  if existing == folder and (
    folder.stat().st_uid != os.getuid() or folder.stat().st_mode & stat.S_IWOTH
  ):
    return 'belongs to another user, or all may write it'
  return ''


def drop_damaged(folder: pathlib.Path) -> list[str]:
  """Deletes programs that a kill left half written, and returns their names.

  jax writes a program in place and never writes it again once the file exists: it would find the
  broken file at every start and compile again each time. Only the newest files are read, and only
  those that are newer than the last check.
  """
  stamp, dropped = folder / _CHECKED, []
  try:
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    times = {p: p.stat().st_mtime for p in folder.glob('*-cache')}
    newest = sorted(times, key=times.get)[-_LOOKED_AT:]
    entries = [p for p in newest if times[p] >= since - 60]
    for path in entries:
      if not _whole(path.read_bytes()):
        path.unlink(missing_ok=True)
        dropped.append(path.name)
    if entries:
      stamp.touch()
  except OSError as error:
    logging.warning('The compiled programs in %s cannot be checked: %s', folder, error)
  if dropped:
    logging.warning('%d half-written programs in %s were deleted.', len(dropped), folder)
  return dropped


def _whole(data: bytes) -> bool:
  """Whether a file can be decompressed; jax uses zstandard where it is installed, else zlib."""
  if data[:1] == b'\x78':
    try:
      return bool(zlib.decompress(data))
    except zlib.error:
      return False
  try:
    import zstandard
  except ImportError:
    return bool(data)
  try:
    return bool(zstandard.ZstdDecompressor().decompress(data))
  except zstandard.ZstdError:
    return False
