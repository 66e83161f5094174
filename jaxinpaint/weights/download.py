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

from tqdm import tqdm

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
    _transfer(url, part, progress)
  except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
    reason = getattr(error, 'reason', None) or error
    kept = f' What came is kept in {part} and continued next time.' if part.exists() else ''
    raise DownloadError(f'{name} could not be fetched: {reason}.{kept} {by_hand}') from error
  got = _digest(part)
  if not got.startswith(sha256.lower()):
    part.unlink()
    raise DownloadError(
      f'what {url} gave has the SHA-256 {got}, not {sha256}...: it was removed. Try again; if it '
      f'comes out the same, the file has changed at its source. {by_hand}'
    )
  os.replace(part, path)
  return path


def _transfer(url: str, part: pathlib.Path, progress: bool) -> None:
  """Appends to `part` what is missing of it; raises OSError when the connection breaks off."""
  have = part.stat().st_size if part.exists() else 0
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
    resumed = response.status == 206
    if have and not resumed:  # the server sends it all again
      have = 0
    length = response.headers.get('Content-Length')
    total = have + int(length) if length else None
    bar = tqdm(
      total=total,
      initial=have,
      unit='B',
      unit_scale=True,
      desc=part.stem,
      disable=not progress,
    )
    with open(part, 'ab' if resumed else 'wb') as f, bar:
      while piece := response.read(_PIECE):
        f.write(piece)
        bar.update(len(piece))
  got = part.stat().st_size
  if total is not None and got != total:
    raise OSError(f'the connection broke off after {got} of {total} bytes')


def _digest(path: pathlib.Path) -> str:
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()
