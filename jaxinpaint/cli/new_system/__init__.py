"""Writes the files of a new system into the clone you are in: a folder, a config and a test.

  jaxinpaint new-system pconv

  jaxinpaint/systems/pconv/__init__.py     empty
  jaxinpaint/systems/pconv/networks.py     a generator of three layers, for the paper's
  jaxinpaint/systems/pconv/recipe.py       a joint loss with a patch discriminator
  jaxinpaint/systems/pconv/published.py    the paper and the checkpoints of its authors
  configs/places2_pconv.py                 the paper's experiment
  tests/systems/test_pconv_networks.py     fails until the rest is filled in

It trains as it stands: jaxinpaint train --config places2_pconv:quicktest. docs/adding_a_system.md
goes on from here.

Exit codes: 0; 1 with a sentence; 2 wrong flags.
"""

import keyword
import pathlib
import re
import string
from collections.abc import Sequence

from jaxinpaint.cli import command_line

_TEMPLATES = pathlib.Path(__file__).parent
# What a clone has, and an installed library lacks.
_FOLDERS = ('jaxinpaint/systems', 'configs', 'tests/systems')
# {where it goes: template}.
_FILES = {
  'jaxinpaint/systems/{name}/__init__.py': None,
  'jaxinpaint/systems/{name}/networks.py': 'networks.txt',
  'jaxinpaint/systems/{name}/recipe.py': 'recipe.txt',
  'jaxinpaint/systems/{name}/published.py': 'published.txt',
  'configs/places2_{name}.py': 'config.txt',
  'tests/systems/test_{name}_networks.py': 'test.txt',
}


def find_clone(folder: pathlib.Path) -> pathlib.Path:
  """The clone of the repository that `folder` is in.

  Raises:
    FileNotFoundError: it is in none.
  """
  for parent in (folder, *folder.parents):
    if all((parent / name).is_dir() for name in _FOLDERS):
      return parent
  raise FileNotFoundError(
    f'{folder} is in no clone of the repository, and a new system is added in one: cd into your '
    "clone (installed with pip install -e '.[test]') and give the command there"
  )


def write(name: str, clone: pathlib.Path) -> list[pathlib.Path]:
  """Writes the files of the system `name`.

  Returns:
    Them, relative to the clone.

  Raises:
    ValueError: the name cannot be one.
    FileExistsError: one of the files is there already; nothing is written.
  """
  if not re.fullmatch('[a-z][a-z0-9_]*', name) or keyword.iskeyword(name):
    raise ValueError(
      f'{name!r} must be a name in small letters, digits and _ that Python can import, as '
      'deepfillv2'
    )
  texts = {
    pathlib.Path(file.format(name=name)): (_TEMPLATES / template).read_text() if template else ''
    for file, template in _FILES.items()
  }
  for path in texts:
    if (clone / path).exists():
      raise FileExistsError(f'{path} is there already: choose another name')
  (clone / 'jaxinpaint' / 'systems' / name).mkdir(exist_ok=True)
  for path, text in texts.items():
    (clone / path).write_text(string.Template(text).substitute(name=name))
  return list(texts)


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = command_line.Parser('jaxinpaint new-system', __doc__, 'NAME')
  parser.add_argument('name', metavar='NAME', help='of the system: small letters, digits, _.')
  given = parser.parse_args(argv)
  try:
    clone = find_clone(pathlib.Path.cwd())
    written = write(given.name, clone)
  except (ValueError, OSError) as error:
    command_line.say(parser.prog, error)
    return 1
  print('\n'.join([f'in {clone}', *(f'written: {path}' for path in written)]))
  print(f'next: python -m pytest tests/systems/test_{given.name}_networks.py says what to fill in')
  return 0
