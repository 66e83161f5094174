"""SHA-256 of every file in a folder, in the format of `sha256sum`, and the check that they agree.

The array formats notice a file that is too short, but not a flipped bit in it.
"""

import pathlib

from jaxinpaint.runtime import digest

NAME = 'checksums.sha256'
# Orbax writes the time of the renaming into this file afterwards. Nothing here reads it.
_CHANGES = '_CHECKPOINT_METADATA'


class Damaged(ValueError):
  """A file is not what was written; the message names it."""


def write(folder: pathlib.Path) -> None:
  """Writes FOLDER/checksums.sha256; `sha256sum -c` reads it too."""
  files = sorted(p for p in folder.rglob('*') if p.is_file())
  names = [p.relative_to(folder).as_posix() for p in files]
  lines = [f'{digest.of_file(folder / n)}  {n}\n' for n in names if n not in (NAME, _CHANGES)]
  (folder / NAME).write_text(''.join(lines))


def verify(folder: pathlib.Path, items: tuple[str, ...] | None = None) -> None:
  """Compares the files with the list; folders without one (of earlier versions) pass.

  Args:
    folder: with or without FOLDER/checksums.sha256.
    items: check only these subfolders; None: check everything.

  Raises:
    Damaged: names the first file that is missing or differs.
  """
  for name, wanted in _listed(folder):
    if items is not None and name.partition('/')[0] not in items:
      continue
    path = folder / name
    if not path.is_file():
      raise Damaged(f'{path} is missing')
    if digest.of_file(path) != wanted:
      raise Damaged(f'{path} is damaged: it does not have the SHA-256 of {NAME}')


def complete(folder: pathlib.Path) -> bool:
  """Whether every file of the list exists; their contents are not checked."""
  try:
    return all((folder / name).is_file() for name, _ in _listed(folder))
  except Damaged:
    return False


def _listed(folder: pathlib.Path) -> list[tuple[str, str]]:
  path = folder / NAME
  if not path.exists():
    return []
  try:
    pairs = [line.split('  ', 1) for line in path.read_text().splitlines()]
    return [(name, wanted) for wanted, name in pairs]
  except ValueError as error:  # not text, or a line without two columns
    raise Damaged(f'{path} is damaged: its lines are not "SHA-256  FILE"') from error
