"""Fetches published files once into a cache, checked by SHA-256, resuming where it broke off.

The cache is $JAXINPAINT_CACHE, else $XDG_CACHE_HOME/jaxinpaint, else ~/.cache/jaxinpaint. A file is
written as NAME.part and renamed when its digest is right, so NAME is always whole.
"""

import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from typing import BinaryIO

from tqdm import tqdm

try:
  import fcntl
except ImportError:  # Windows: nothing keeps two processes from fetching the same file there
  fcntl = None

_PIECE = 1 << 20
_TIMEOUT_SECONDS = 30


class DownloadError(OSError):
  """A file is not in the cache and could not be fetched; the message says how to put it there."""


def cache_folder() -> pathlib.Path:
  """Where fetched files are kept; not made yet."""
  if folder := os.environ.get('JAXINPAINT_CACHE'):
    return pathlib.Path(folder).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'jaxinpaint'


def fetch(
  url: str,
  sha256: str,
  *,
  folder: str | os.PathLike | None = None,
  progress: bool = True,
) -> pathlib.Path:
  """Path of the file at `url`, fetched at first use.

  Args:
    url: http or https; its last part is the file's name in the cache.
    sha256: hex digest, or as many of its first digits as are known (at least 8).
    folder: instead of the cache.
    progress: show a bar.

  Raises:
    DownloadError: it is not there and cannot be fetched, or its digest is another; the message
      gives the address and the folder to put the file in.
  """
  if len(sha256) < 8:
    raise ValueError(f'{sha256!r} is too little of a SHA-256 to check a file by: give 8 digits')
  folder = pathlib.Path(folder).expanduser() if folder is not None else cache_folder()
  name = pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name
  path, part = folder / name, folder / f'{name}.part'
  by_hand = (
    f'Fetch {url} by hand (SHA-256 begins with {sha256[:8]}) and put it at {path} '
    '(JAXINPAINT_CACHE chooses another folder).'
  )
  if path.exists():
    got = _digest(path)
    if got.startswith(sha256.lower()):
      return path
    raise DownloadError(
      f'{path} has the SHA-256 {got}, not {sha256}...: it is damaged or another file. '
      f'Remove it, and it will be fetched again. {by_hand}'
    )
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(part) as file:
      if path.exists():  # another process fetched it while this one waited
        part.unlink()
      else:
        _transfer(url, file, name, progress)
        _accept(file, part, path, sha256, f'what {url} gave', by_hand)
  except DownloadError:
    raise
  except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
    kept = ''
    if part.exists() and part.stat().st_size:
      kept = f' What came is kept in {part} and continued next time.'
    else:
      part.unlink(missing_ok=True)
    reason = getattr(error, 'reason', None) or error
    raise DownloadError(f'{name} could not be fetched: {reason}.{kept} {by_hand}') from error
  return path


def _accept(
  file: BinaryIO, part: pathlib.Path, path: pathlib.Path, sha256: str, what: str, by_hand: str
) -> None:
  """Renames a whole transfer, or removes it when its digest is another."""
  file.flush() if fcntl else file.close()  # Windows renames no open file
  got = _digest(part)
  if not got.startswith(sha256.lower()):
    part.unlink()
    raise DownloadError(
      f'{what} has the SHA-256 {got}, not {sha256}...: it was removed. Try again; if it comes '
      f'out the same, the file has changed at its source. {by_hand}'
    )
  os.replace(part, path)


def _locked(part: pathlib.Path) -> BinaryIO:
  """`part`, opened to append and locked, so that two processes never write to it at once."""
  while True:
    file = open(part, 'ab')
    if fcntl is None:
      return file
    fcntl.flock(file, fcntl.LOCK_EX)
    # Whoever held the lock may have renamed or removed the file since it was opened here.
    try:
      if os.path.samestat(os.fstat(file.fileno()), part.stat()):
        return file
    except FileNotFoundError:
      pass
    file.close()


def _transfer(url: str, file: BinaryIO, name: str, progress: bool) -> None:
  """Appends what is missing; raises OSError when the connection breaks off."""
  have = file.seek(0, os.SEEK_END)
  request = urllib.request.Request(url, headers={'User-Agent': 'jaxinpaint'})
  if have:
    request.add_header('Range', f'bytes={have}-')
  try:
    response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
  except urllib.error.HTTPError as error:
    if error.code == 416 and have:  # nothing is missing: the digest will tell
      return
    raise
  with response:
    if have and response.status != 206:  # the server sends it all again
      file.truncate(0)
      have = 0
    length = response.headers.get('Content-Length')
    total = have + int(length) if length else None
    bar = tqdm(
      total=total, initial=have, unit='B', unit_scale=True, desc=name, disable=not progress
    )
    with bar:
      while piece := response.read(_PIECE):
        file.write(piece)
        bar.update(len(piece))
  got = file.tell()
  if total is not None and got != total:
    raise OSError(f'the connection broke off after {got} of {total} bytes')


def _digest(path: pathlib.Path) -> str:
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()
