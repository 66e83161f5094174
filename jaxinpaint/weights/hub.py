"""Published files, by address or by name: fetched once into the cache, and checked by SHA-256.

  path = hub.download('https://download.pytorch.org/models/vgg16-397923af.pth', '397923af')
  paths = hub.fetch('vgg16', published.FILES)

The cache is $JAXINPAINT_CACHE, else $XDG_CACHE_HOME/jaxinpaint, else ~/.cache/jaxinpaint. Only a
file with the published digest takes its place in it. A transfer that breaks off stays beside it as
NAME.part, and the next one continues it. Proxies are those of the environment (https_proxy).
"""

import dataclasses
import http.client
import math
import os
import pathlib
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence

from tqdm import tqdm

from jaxinpaint.runtime import atomic, digest, locks

_PIECE = 1 << 20
_TIMEOUT_SECONDS = 30


class DownloadError(OSError):
  """A file is not in the cache and could not be fetched; the message says how to put it there."""


@dataclasses.dataclass(frozen=True)
class File:
  """One published file.

  Attributes:
    what: is in it.
    url: where it is published.
    sha256: hex digest, or its first digits; '': none was published, so it is never fetched.
    read: takes a path; raises ValueError when the content is something else.
    folder: below the cache.
    name: in that folder; '': the last part of `url`.
    by_hand: why it cannot be fetched, where it cannot.
  """

  what: str
  url: str
  sha256: str
  read: Callable[[pathlib.Path], object]
  folder: str = ''
  name: str = ''
  by_hand: str = ''

  @property
  def path(self) -> pathlib.Path:
    """Its place in the cache."""
    return cache_folder() / self.folder / (self.name or _last_part(self.url))


Table = Mapping[str, tuple[File, ...]]  # {name: the files of that network}


def cache_folder() -> pathlib.Path:
  """The folder of fetched files; it may not exist yet."""
  if folder := os.environ.get('JAXINPAINT_CACHE'):
    return pathlib.Path(folder).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'jaxinpaint'


def download(
  url: str,
  sha256: str,
  *,
  folder: str | os.PathLike | None = None,
  progress: bool = True,
) -> pathlib.Path:
  """Path of the file at `url`, which is fetched at its first use.

  Args:
    url: http or https; its last part is the file's name in the cache.
    sha256: hex digest, or its first digits (at least 8) where no more are published.
    folder: instead of the cache.
    progress: show a bar.

  Raises:
    DownloadError: it is not there and cannot be fetched, or its digest is another; the message
      gives the address and the folder to put the file in.
  """
  if len(sha256) < 8:
    raise ValueError(f'the SHA-256 {sha256!r} is too short to check a file: give at least 8 digits')
  folder = pathlib.Path(folder).expanduser() if folder is not None else cache_folder()
  name = _last_part(url)
  path, part = folder / name, folder / f'{name}.part'
  by_hand = (
    f'Fetch {url} by hand (SHA-256 begins with {sha256[:8]}) and put it at {path} '
    '(JAXINPAINT_CACHE chooses another folder).'
  )
  if path.exists():
    got = digest.of_file(path)
    if got.startswith(sha256.lower()):
      return path
    raise DownloadError(
      f'{path} has the SHA-256 {got}, not {sha256}...: it is damaged or another file. '
      f'Remove it, and it will be fetched again. {by_hand}'
    )
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with locks.hold(folder / f'.{name}.lock', f'the download of {name}', math.inf):
      if not path.exists():  # else another process fetched it while this one waited
        _transfer(url, part, progress)
        _accept(part, path, sha256, url, by_hand)
  except DownloadError:
    raise
  except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
    kept = ''
    if part.exists() and part.stat().st_size:
      kept = f' The part that came is kept in {part} and continued next time.'
    else:
      part.unlink(missing_ok=True)
    reason = getattr(error, 'reason', None) or error
    raise DownloadError(f'{name} could not be fetched: {reason}.{kept} {by_hand}') from error
  return path


def _transfer(url: str, part: pathlib.Path, progress: bool) -> None:
  """Appends to `part` what it lacks; raises OSError when the connection breaks off."""
  with open(part, 'ab') as file:
    have = file.tell()
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
      if have and response.status != 206:  # the server sends all of it again
        file.truncate(0)
        have = 0
      length = response.headers.get('Content-Length')
      total = have + int(length) if length else None
      options = dict(unit='B', unit_scale=True, desc=_last_part(url), disable=not progress)
      with tqdm(total=total, initial=have, **options) as bar:
        while piece := response.read(_PIECE):
          file.write(piece)
          bar.update(len(piece))
    got = file.tell()
  if total is not None and got != total:
    raise OSError(f'the connection broke off after {got} of {total} bytes')


def _accept(part: pathlib.Path, path: pathlib.Path, sha256: str, url: str, by_hand: str) -> None:
  """Renames a whole transfer, or removes it when its digest is another."""
  got = digest.of_file(part)
  if not got.startswith(sha256.lower()):
    part.unlink()
    raise DownloadError(
      f'what {url} gave has the SHA-256 {got}, not {sha256}...: it was removed. Try again; if it '
      f'comes out the same, the file has changed at its source. {by_hand}'
    )
  os.replace(part, path)


def files(name: str, table: Table) -> tuple[File, ...]:
  """The files of a name.

  Raises:
    ValueError: the table has no such name; lists those it has.
  """
  if name not in table:
    raise ValueError(f'nothing to fetch is called {name!r}; there are: {", ".join(table)}')
  return table[name]


def find(
  name: str, table: Table, need: Sequence[bool] | None = None
) -> tuple[pathlib.Path, ...] | None:
  """Paths of the files of a name in the cache; None where one is missing. Nothing is fetched.

  Args:
    name: in the table.
    table: of published files.
    need: which of its files; the others are neither looked for nor checked. None: all.

  Raises:
    ValueError: no such name.
    DownloadError: a file is there and has another digest.
  """
  wanted = files(name, table)
  needed = [f for f, yes in zip(wanted, need or [True] * len(wanted), strict=True) if yes]
  for file in needed:
    if not file.path.is_file():
      return None
    if file.sha256:
      download(file.url, file.sha256, folder=file.path.parent)  # it is there: only checked
  return tuple(file.path for file in wanted)


def fetch(
  name: str, table: Table, sources: Sequence[str | os.PathLike] = ()
) -> tuple[pathlib.Path, ...]:
  """Paths of the files of a name in the cache; missing ones are fetched or copied there.

  Args:
    name: in the table.
    table: of published files.
    sources: files that are here already and are copied instead of fetched.

  Raises:
    ValueError: no such name; a source is not one of its files.
    FileNotFoundError: a source is not there.
    DownloadError: a file cannot be fetched; says the address and where to put it.
  """
  wanted = files(name, table)
  given: dict[File, pathlib.Path] = {}
  for source in sources:
    path = pathlib.Path(source).expanduser()
    file = _recognise(path, name, wanted)
    if file in given:
      raise ValueError(f'{given[file]} and {path} are both {file.what}: give one')
    given[file] = path
  command = f'`jaxinpaint weights fetch {name} --from FILE`'
  for file in wanted:
    if file in given:
      _copy(given[file], file.path)
    elif file.sha256:
      try:
        download(file.url, file.sha256, folder=file.path.parent)
      except DownloadError as error:
        raise DownloadError(f'{error} {command} copies it there.') from error
    elif not file.path.is_file():
      raise DownloadError(
        f'{file.what} cannot be fetched: {file.by_hand}. Get {file.url} in a browser, then run '
        f'{command}, which puts it at {file.path}'
      )
  return tuple(file.path for file in wanted)


def listing(table: Table) -> list[str]:
  """Two lines for each name and file: whether it is here, where, what it is, and its address."""
  lines = []
  for name, wanted in table.items():
    for file in wanted:
      here = 'here' if file.path.is_file() else 'not here'
      lines.append(f'{name:<14} {here:<9} {file.path}')
      lines.append(f'{"":<14} {file.what}, {file.url}')
  return lines


def _recognise(path: pathlib.Path, name: str, wanted: Sequence[File]) -> File:
  """Which of the files this is, by digest and content."""
  if not path.is_file():
    raise FileNotFoundError(f'--from {path}: no such file')
  got = digest.of_file(path)
  for file in wanted:
    if not file.sha256 or got.startswith(file.sha256):
      file.read(path)
      return file
  known = ', '.join(f'{f.path.name} {f.sha256[:8]}...' for f in wanted)
  raise ValueError(
    f'{path} is none of the published files of {name}: its SHA-256 is {got}, wanted {known}. '
    'Weights of your own are given where they are used, not put in the cache'
  )


def _copy(source: pathlib.Path, path: pathlib.Path) -> None:
  if path.exists() and source.samefile(path):
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(source, 'rb') as content:
    atomic.write(path, lambda file: shutil.copyfileobj(content, file))


def _last_part(url: str) -> str:
  return pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name
