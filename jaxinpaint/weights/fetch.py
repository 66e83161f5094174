"""Published files of the networks of features, by name: which, where, and whether they are here.

  python -m jaxinpaint.weights fetch --list
  python -m jaxinpaint.weights fetch fid-inception
  python -m jaxinpaint.weights fetch lpips-alex --from alexnet-owt-7be5be79.pth --from alex.pth

Files lie in the cache (see `download`). Nothing is taken into it but what has the published digest
and can be read as the network that it is for.
"""

import dataclasses
import os
import pathlib
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence

from jaxinpaint.features import arcface, inception, lpips, vgg
from jaxinpaint.runtime import digest
from jaxinpaint.weights import download


@dataclasses.dataclass(frozen=True)
class File:
  """One published file.

  Attributes:
    what: is in it.
    url: where it is published.
    sha256: hex digest, or its first digits; '': none was published, and nothing fetches it.
    read: of a path; raises ValueError when the content is something else.
    folder: below the cache.
    name: in that folder; '': the last part of `url`.
    by_hand: how to get what cannot be fetched.
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
    """Where it lies, or will."""
    name = self.name or pathlib.PurePosixPath(urllib.parse.urlsplit(self.url).path).name
    return download.cache_folder() / self.folder / name


def _lpips(net: str) -> tuple[File, ...]:
  part = lambda what, address, folder: File(
    f'LPIPS {net}, {what}', *address, lambda path: lpips.load_part(net, what, path), folder
  )
  return (
    part('trunk', lpips.TRUNKS[net], ''),
    part('heads', lpips.HEADS[net], lpips.HEADS_FOLDER),
  )


def _vgg(depth: int) -> tuple[File, ...]:
  return (File(f'VGG{depth}', *vgg.PUBLISHED[depth], lambda path: vgg.load(depth, path)),)


NAMES: dict[str, tuple[File, ...]] = {
  'fid-inception': (File('Inception of FID', *inception.PUBLISHED, inception.load),),
  **{f'lpips-{net}': _lpips(net) for net in lpips.CHANNELS},
  **{f'vgg{depth}': _vgg(depth) for depth in vgg.BLOCKS},
  'arcface': (
    File(
      'IR-SE50 of ArcFace',
      arcface.ADDRESS,
      '',
      arcface.load,
      name=arcface.FILE,
      by_hand='it lies on a drive that offers no checksum',
    ),
  ),
}


def files(name: str) -> tuple[File, ...]:
  """The files of that name.

  Raises:
    ValueError: there is none; lists those there are.
  """
  if name not in NAMES:
    raise ValueError(f'nothing to fetch is called {name!r}; there are: {", ".join(NAMES)}')
  return NAMES[name]


def find(name: str, need: Sequence[bool] | None = None) -> tuple[pathlib.Path, ...] | None:
  """Paths of the files of that name in the cache, None where one is lacking; fetches nothing.

  Args:
    name: of `NAMES`.
    need: which of its files; the others are neither looked for nor checked. None: all.

  Raises:
    ValueError: no such name.
    download.DownloadError: a file is there and has another digest.
  """
  paths = []
  wanted = files(name)
  for file, needed in zip(wanted, need or [True] * len(wanted), strict=True):
    if needed and not file.path.is_file():
      return None
    if needed and file.sha256:
      download.fetch(file.url, file.sha256, folder=file.path.parent)  # it is there: only checked
    paths.append(file.path)
  return tuple(paths)


def fetch(name: str, sources: Sequence[str | os.PathLike] = ()) -> tuple[pathlib.Path, ...]:
  """Paths of the files of that name in the cache, fetched or copied there where they are lacking.

  Args:
    name: of `NAMES`.
    sources: files that are here already and are copied instead of fetched.

  Raises:
    ValueError: no such name; a source is not one of its files.
    FileNotFoundError: a source is not there.
    download.DownloadError: a file cannot be fetched; says the address and where to put it.
  """
  wanted = files(name)
  given: dict[File, pathlib.Path] = {}
  for source in sources:
    path = pathlib.Path(source).expanduser()
    file = _whose(path, name, wanted)
    if file in given:
      raise ValueError(f'{given[file]} and {path} are both {file.what}: give one')
    given[file] = path
  paths = []
  for file in wanted:
    if file in given:
      _copy(given[file], file)
    elif not file.sha256:
      if not file.path.is_file():
        raise download.DownloadError(
          f'{file.what} cannot be fetched: {file.by_hand}. Get {file.url} in a browser, then run '
          f'`python -m jaxinpaint.weights fetch {name} --from FILE`, which puts it at {file.path}'
        )
    else:
      try:
        download.fetch(file.url, file.sha256, folder=file.path.parent)
      except download.DownloadError as error:
        raise download.DownloadError(
          f'{error} `python -m jaxinpaint.weights fetch {name} --from FILE` copies it there.'
        ) from error
    paths.append(file.path)
  return tuple(paths)


def _whose(path: pathlib.Path, name: str, wanted: Sequence[File]) -> File:
  """Which of the files this is, by digest and content."""
  if not path.is_file():
    raise FileNotFoundError(f'--from {path}: no such file')
  found = digest.of_file(path)
  for file in wanted:
    if not file.sha256 or found.startswith(file.sha256):
      file.read(path)
      return file
  known = ', '.join(f'{f.path.name} {f.sha256[:8]}...' for f in wanted)
  raise ValueError(
    f'{path} is none of the published files of {name}: its SHA-256 is {found}, wanted {known}. '
    'Weights of your own are given where they are used, not put in the cache'
  )


def _copy(source: pathlib.Path, file: File) -> None:
  """Copies under another name first, so that the file in the cache is always whole."""
  if file.path.exists() and source.samefile(file.path):
    return
  file.path.parent.mkdir(parents=True, exist_ok=True)
  handle, part = tempfile.mkstemp(dir=file.path.parent, prefix=f'{file.path.name}.')
  os.close(handle)
  try:
    shutil.copyfile(source, part)
    os.chmod(part, 0o644)
    os.replace(part, file.path)
  finally:
    pathlib.Path(part).unlink(missing_ok=True)


def table() -> list[str]:
  """A line for each name and file: here or not, where, and its address."""
  lines = []
  for name, wanted in NAMES.items():
    for file in wanted:
      here = 'here' if file.path.is_file() else 'not here'
      lines.append(f'{name:<14} {here:<9} {file.path}')
      lines.append(f'{"":<14} {file.what}, {file.url}')
  return lines
