"""Writes the files of a new system into a clone: a folder, a config and a test.

  jaxinpaint new-system pconv

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
_CLONE = pathlib.Path(__file__).parents[3]
# {template: where its text goes}.
_FILES = {
  'networks.txt': 'jaxinpaint/systems/{name}/networks.py',
  'recipe.txt': 'jaxinpaint/systems/{name}/recipe.py',
  'published.txt': 'jaxinpaint/systems/{name}/published.py',
  'config.txt': 'configs/places2_{name}.py',
  'test.txt': 'tests/systems/test_{name}_networks.py',
}


def write(name: str, clone: pathlib.Path = _CLONE) -> list[pathlib.Path]:
  """Writes the files of the system `name`.

  Returns:
    Them, relative to the clone.

  Raises:
    ValueError: the name cannot be one.
    FileNotFoundError: `clone` is no clone of the repository.
    FileExistsError: one of the files is there already; nothing is written.
  """
  if not re.fullmatch('[a-z][a-z0-9_]*', name) or keyword.iskeyword(name):
    raise ValueError(
      f'{name!r} must be a name in small letters, digits and _ that Python can import, as '
      'deepfillv2'
    )
  if not (clone / 'configs').is_dir() or not (clone / 'tests' / 'systems').is_dir():
    raise FileNotFoundError(
      f'this library is installed in {clone}, which is no clone of its repository: a new system is '
      "added in a clone, installed with pip install -e '.[test]'"
    )
  texts = {
    pathlib.Path(file.format(name=name)): string.Template((_TEMPLATES / template).read_text())
    for template, file in _FILES.items()
  }
  for path in texts:
    if (clone / path).exists():
      raise FileExistsError(f'{path} is there already: choose another name')
  (clone / 'jaxinpaint' / 'systems' / name).mkdir(exist_ok=True)
  (clone / 'jaxinpaint' / 'systems' / name / '__init__.py').touch()
  for path, text in texts.items():
    (clone / path).write_text(text.substitute(name=name))
  return list(texts)


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = command_line.Parser('jaxinpaint new-system', __doc__, 'NAME')
  parser.add_argument('name', metavar='NAME', help='of the system: small letters, digits, _.')
  given = parser.parse_args(argv)
  try:
    written = write(given.name)
  except (ValueError, OSError) as error:
    command_line.say(parser.prog, error)
    return 1
  print('\n'.join([f'in {_CLONE}', *(f'written: {path}' for path in written)]))
  print(f'next: python -m pytest tests/systems/test_{given.name}_networks.py says what to fill in')
  return 0
