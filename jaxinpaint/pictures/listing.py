"""Which files are in a folder or a list."""

import codecs
import os
import pathlib

from absl import logging


def list_files(
  path: str | os.PathLike, extensions: tuple[str, ...], what: str, *, all_names: bool = False
) -> tuple[str, ...]:
  """Files below a folder, or named by a text file, sorted by path (a list keeps its order).

  Links are followed, and no real folder is entered twice. A real file that has several paths is
  taken once, by its own path where that is in the folder.

  Args:
    path: a folder, searched with all its subfolders, or a .txt file with one path a line, relative
      to the list's own folder; empty lines and lines that begin with # are skipped. It is UTF-8,
      with or without a byte-order mark; lines end in LF or CRLF.
    extensions: lower-case endings that count.
    what: 'images', 'real images' or 'masks', for messages.
    all_names: take links to files as files, for masks: a name may say which image it belongs to.

  Raises:
    FileNotFoundError: no such folder or list, or a listed file does not exist.
    ValueError: nothing in it, or a line that is not UTF-8.
  """
  root = pathlib.Path(path).expanduser()
  if root.is_file() and root.suffix.lower() == '.txt':
    return _listed(root, what)
  if root.is_file():
    raise ValueError(f'{what}: {root} is a file: give its folder, or a .txt list of paths')
  if not root.is_dir():
    near = next((p for p in root.parents if p.is_dir()), None)
    raise FileNotFoundError(
      f'{what}: there is no folder {root} (the path exists up to {near}): correct the path'
    )
  real, links = _below(str(root))
  matching = {r: p for r, p in real.items() if p.lower().endswith(extensions)}
  others = len(real) - len(matching)
  again = []
  for link in sorted(links):
    if not link.lower().endswith(extensions):
      others += 1
      continue
    target = link if all_names else os.path.realpath(link)
    if matching.setdefault(target, link) != link:
      again.append(link)
  if again:
    logging.info(
      '%s: %d files in %s are links to others and are left out, first %s',
      what, len(again), root, again[0],
    )  # fmt: skip
  if not matching:
    raise ValueError(
      f'{what}: the folder {root} holds no file ending in {", ".join(extensions)} '
      f'({others} other files): put {what} there or correct the path'
    )
  return tuple(sorted(matching.values()))


def _below(root: str) -> tuple[dict[str, str], list[str]]:
  """({real path: path} of the files below a folder, links to files); hidden ones are left out.

  Real folders come before links to folders, so that a file has its own path if it can.
  """
  files: dict[str, str] = {}
  links: list[str] = []
  entered: set[str] = set()
  folders, linked = [root], []
  while folders or linked:
    folder = folders.pop() if folders else linked.pop(linked.index(min(linked)))
    real = os.path.realpath(folder)
    if real in entered:
      continue
    entered.add(real)
    try:
      entries = list(os.scandir(folder))
    except PermissionError as error:
      logging.warning('%s is left out: %s', folder, error.strerror)
      continue
    for entry in entries:
      if entry.name.startswith('.'):
        continue
      if entry.is_symlink():
        (linked if os.path.isdir(entry.path) else links).append(entry.path)
      elif entry.is_dir():
        folders.append(entry.path)
      else:
        files[os.path.join(real, entry.name)] = entry.path
  return files, links


def _listed(root: pathlib.Path, what: str) -> tuple[str, ...]:
  paths, absent = [], []
  for number, line in enumerate(root.read_bytes().removeprefix(codecs.BOM_UTF8).split(b'\n'), 1):
    line = line.removesuffix(b'\r')
    if not line.strip() or line.lstrip().startswith(b'#'):
      continue
    try:
      name = line.decode('utf-8')
    except UnicodeDecodeError as error:
      name = os.fsdecode(line)
      if not os.path.exists(root.parent / name):  # a name need not be text
        raise ValueError(
          f'{what}: line {number} of the list {root} is not UTF-8 ({line!r}): save the '
          'list as UTF-8'
        ) from error
    path = str(root.parent / name)
    if not os.path.exists(path):
      path = str(root.parent / name.strip())
      if not os.path.exists(path):
        absent.append(f'{path} (line {number})')
    paths.append(path)
  if not paths:
    raise ValueError(f'{what}: the list {root} names no file: write one path a line')
  if absent:
    raise FileNotFoundError(
      f'{what}: {len(absent)} of {len(paths)} files in the list {root} do not exist, first '
      f'{absent[0]}: paths are relative to the folder of the list'
    )
  return tuple(paths)
