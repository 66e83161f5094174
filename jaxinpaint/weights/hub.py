"""Published files, by address or by name: fetched once into the cache, and checked by their digest.

  path = hub.download('https://download.pytorch.org/models/vgg16-397923af.pth', '397923af')
  paths = hub.fetch('vgg16', published.FILES)

The cache is $JAXINPAINT_CACHE, else $XDG_CACHE_HOME/jaxinpaint, else ~/.cache/jaxinpaint. A file
whose digest was published takes its place in it only with this digest. A transfer that breaks off
stays beside it as NAME.part, and the next one continues it; a file without a published digest is
fetched from its beginning again. Before the first byte, address, size and licence are shown.
Proxies are those of the environment (https_proxy). With JAXINPAINT_OFFLINE=1 nothing is fetched.
"""

import contextlib
import dataclasses
import errno
import http.client
import math
import os
import pathlib
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence

from tqdm import tqdm

from jaxinpaint.runtime import atomic, digest, locks
from jaxinpaint.weights import reader

# Why most of the older systems' files cannot be fetched.
LINKED = 'its page links it, and no address of the file itself is known here'
_PIECE = 1 << 20
_TIMEOUT_SECONDS = 30
_OF_THE_DISK = {
  getattr(errno, name)
  for name in ('ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'ENOTDIR', 'EEXIST', 'ENAMETOOLONG')
  if hasattr(errno, name)  # not every system has all
}
_KINDS = {'sha256': 'SHA-256', 'md5': 'MD5'}


class DownloadError(OSError):
  """A file is not in the cache and could not be fetched; the message says how to put it there."""


@dataclasses.dataclass(frozen=True)
class File:
  """One published file.

  Attributes:
    what: is in it.
    url: where it is published, or the page that links it.
    sha256: hex digest, or its first digits; '': none was published.
    read: takes a path; raises ValueError when the content is something else.
    folder: below the cache.
    name: in that folder; '': the last part of `url`.
    by_hand: why it cannot be fetched, where it cannot.
    md5: whole hex digest, where this is what was published.
    size: in bytes, where it is known; 0: the server says it.
    licence: of the content, where it is known.
  """

  what: str
  url: str
  sha256: str = ''
  read: Callable[[pathlib.Path], object] = reader.describe
  folder: str = ''
  name: str = ''
  by_hand: str = ''
  md5: str = ''
  size: int = 0
  licence: str = ''

  @property
  def path(self) -> pathlib.Path:
    """Its place in the cache."""
    return cache_folder() / self.folder / (self.name or _last_part(self.url))

  @property
  def pin(self) -> tuple[str, str] | None:
    """(kind of digest, digits) that the content must have; None: none was published."""
    if self.sha256:
      return 'sha256', self.sha256.lower()
    return ('md5', self.md5.lower()) if self.md5 else None

  def fits(self, path: pathlib.Path) -> bool:
    """Whether a file has the published digest, if there is one."""
    return self.pin is None or digest.of_file(path, self.pin[0]).startswith(self.pin[1])


Table = Mapping[str, tuple[File, ...]]  # {name: the files of that network}


@dataclasses.dataclass(frozen=True)
class Named:
  """Published weights of a system that have a name.

  Attributes:
    format: one of the system's FORMATS. Files without an address or a licence have that of it.
    files: those that completing an image needs.
  """

  format: str
  files: tuple[File, ...]


def by_hand(
  what: str, name: str, *, read: Callable[[pathlib.Path], object] = reader.describe
) -> File:
  """A file (or folder) that a person must fetch; `name` is what it is called in the cache."""
  return File(what, '', read=read, name=name, by_hand=LINKED)


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
    DownloadError: as `get`.
  """
  if len(sha256) < 8:
    raise ValueError(f'the SHA-256 {sha256!r} is too short to check a file: give at least 8 digits')
  place = '' if folder is None else str(pathlib.Path(folder).expanduser().absolute())
  return get(File(_last_part(url), url, sha256, folder=place), progress=progress)


def get(file: File, *, progress: bool = True) -> pathlib.Path:
  """Path of a file in the cache, which is fetched at its first use.

  Args:
    file: that has an address.
    progress: show address, size, licence and a bar.

  Raises:
    DownloadError: it is not there and cannot be fetched, or its digest is another; the message
      gives the address and the folder to put the file in.
  """
  path = file.path
  name, part = path.name, path.with_name(f'{path.name}.part')
  begins = f' ({_KINDS[file.pin[0]]} begins with {file.pin[1][:8]})' if file.pin else ''
  manual = (
    f'Fetch {file.url} by hand{begins} and put it at {path} '
    '(JAXINPAINT_CACHE chooses another folder).'
  )
  if path.exists():
    if file.fits(path):
      return path
    raise DownloadError(
      f'{path} has the {_other(path, file)}: it is damaged or another file. '
      f'Remove it, and it will be fetched again. {manual}'
    )
  if os.environ.get('JAXINPAINT_OFFLINE', '0') not in ('', '0'):
    raise DownloadError(
      f'{name} is not here, and JAXINPAINT_OFFLINE is set, so nothing is fetched. {manual}'
    )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with locks.hold(path.with_name(f'.{name}.lock'), f'the download of {name}', math.inf):
      if not path.exists():  # else another process fetched it while this one waited
        if file.pin is None:
          part.unlink(missing_ok=True)  # nothing would tell whether its two halves belong together
        _transfer(file, part, progress)
        if not file.fits(part):
          other = _other(part, file)
          part.unlink()
          raise DownloadError(
            f'what {file.url} gave has the {other}: it was removed. Try again; if it comes out the '
            f'same, the file has changed at its source. {manual}'
          )
        os.replace(part, path)
  except DownloadError:
    raise
  except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
    kept = ''
    if file.pin and part.exists() and part.stat().st_size:
      kept = f' The part that came is kept in {part} and continued next time.'
    else:
      with contextlib.suppress(OSError):  # the folder cannot be written, or is none
        part.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
      raise unusable(f'{name} cannot be written', error) from error
    reason = getattr(error, 'reason', None) or error
    raise DownloadError(f'{name} could not be fetched: {reason}.{kept} {manual}') from error
  return path


def _other(path: pathlib.Path, file: File) -> str:
  """'SHA-256 12ab, not 34cd...', of a file that is not the published one."""
  kind, wanted = file.pin or ('sha256', '')
  return f'{_KINDS[kind]} {digest.of_file(path, kind)}, not {wanted}...'


def _transfer(source: File, part: pathlib.Path, progress: bool) -> None:
  """Appends to `part` what it lacks; raises OSError when the connection breaks off."""
  name = source.path.name
  with open(part, 'ab') as file:
    have = file.tell()
    request = urllib.request.Request(source.url, headers={'User-Agent': 'jaxinpaint'})
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
      if progress:
        about = [source.url, megabytes(total or source.size)]
        about += [f'licence: {source.licence}'] if source.licence else []
        print(f'{name}: {", ".join(about)}', file=sys.stderr)
      options = dict(unit='B', unit_scale=True, desc=name, disable=not progress)
      with tqdm(total=total, initial=have, **options) as bar:
        while piece := response.read1(_PIECE):  # what has come, so that nothing of it is lost
          file.write(piece)
          bar.update(len(piece))
    got = file.tell()
  if total is not None and got != total:
    raise OSError(f'the connection broke off after {got} of {total} bytes')


def megabytes(size: int) -> str:
  """'205.7 MB', for a person."""
  return f'{size / 1e6:.1f} MB' if size else 'size not stated'


def files(name: str, table: Table) -> tuple[File, ...]:
  """The files of a name.

  Raises:
    ValueError: the table has no such name; lists those it has.
  """
  if name not in table:
    raise ValueError(
      f'nothing to fetch is called {name!r}; there are: {", ".join(table)}, and the published '
      'weights of `jaxinpaint weights list`'
    )
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
    if not file.path.exists():
      return None
    if file.pin:
      get(file)  # it is there: only checked
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
  for file, path in recognise(name, wanted, sources).items():
    copy(path, file.path)
  command = f'`jaxinpaint weights fetch {name} --from FILE`'
  lacking = [file for file in wanted if file.by_hand and not file.path.exists()]
  if lacking:
    what = '; '.join(f'{file.what}, to be {file.path}' for file in lacking)
    raise DownloadError(
      f'{name} cannot be fetched: {lacking[0].by_hand}. Open {lacking[0].url} in a browser and get '
      f'{what}. Put it there, or run {command}, which does so (with --from for each of the files)'
    )
  for file in wanted:
    if not file.by_hand:
      try:
        get(file)
      except DownloadError as error:
        raise DownloadError(f'{error} {command} copies it there.') from error
  return tuple(file.path for file in wanted)


def listing(table: Table) -> list[str]:
  """Two lines for each name and file: whether it is here, where, what it is, and its address."""
  lines = []
  for name, wanted in table.items():
    for file in wanted:
      here = 'here' if file.path.exists() else 'by hand' if file.by_hand else 'not here'
      lines.append(f'{name:<14} {here:<9} {file.path}')
      lines.append(f'{"":<14} {file.what}, {file.url}')
  return lines


def recognise(
  name: str, wanted: Sequence[File], sources: Sequence[str | os.PathLike]
) -> dict[File, pathlib.Path]:
  """Which of the files of a name the sources are.

  Raises:
    ValueError: a source is none of them, or two are the same one.
    FileNotFoundError: a source is not there.
  """
  given: dict[File, pathlib.Path] = {}
  for source in sources:
    path = pathlib.Path(source).expanduser()
    file = _recognise(path, name, wanted)
    if file in given:
      raise ValueError(f'{given[file]} and {path} are both {file.what}: give one')
    given[file] = path
  return given


def _recognise(path: pathlib.Path, name: str, wanted: Sequence[File]) -> File:
  """Which of the files this is, by digest and content; by its name where neither tells."""
  if not path.exists():
    raise FileNotFoundError(f'--from {path}: no such file')
  fitting = [file for file in wanted if file.pin and path.is_file() and file.fits(path)]
  fitting = fitting or [file for file in wanted if not file.pin]
  if len(fitting) > 1:
    fitting = [file for file in fitting if file.path.name == path.name]
  if fitting:
    fitting[0].read(path)
    return fitting[0]
  known = ', '.join(
    f'{f.path.name} {f.pin[1][:8]}...' if f.pin else f'{f.path.name} (call it so)' for f in wanted
  )
  kinds = sorted({file.pin[0] for file in wanted if file.pin})
  got = ' and its '.join(f'{_KINDS[kind]} is {digest.of_file(path, kind)}' for kind in kinds)
  got = got if kinds and path.is_file() else 'name is another'
  raise ValueError(
    f'{path} is none of the published files of {name}: its {got}, wanted {known}. '
    'Weights of your own are given where they are used, not put in the cache'
  )


def copy(source: pathlib.Path, path: pathlib.Path) -> None:
  """Copies a file or a folder; of a file that is there, readers see the old or the new one.

  Raises:
    DownloadError: it cannot be read, or the cache cannot be written.
  """
  if path.exists() and source.samefile(path):
    return
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
      with atomic.folder(path) as new:
        shutil.copytree(source, new, dirs_exist_ok=True)
      return
    with open(source, 'rb') as content:
      atomic.write(path, lambda file: shutil.copyfileobj(content, file))
  except OSError as error:
    raise unusable(f'{source} cannot be copied into it', error) from error


def unusable(what: str, error: OSError) -> DownloadError:
  """The error for a cache that cannot be written; `what` failed."""
  return DownloadError(
    f'{cache_folder()}, the cache, cannot be used: {what} ({error.strerror or error}). Make room '
    'there or let it be written, or choose another folder by JAXINPAINT_CACHE'
  )


def _last_part(url: str) -> str:
  return pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name
