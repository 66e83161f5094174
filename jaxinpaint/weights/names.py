"""Weights that come with the library, by name: 'mesff/box' is a file of this package.

  path = names.find('mesff/box')       # a path of the package
  path = names.find('runs/mesff')      # any other path as it is
  path = names.find(None)              # the weights used where none are given

`find` is called wherever a person gives the path of weights, so a name can stand there everywhere.
A file or folder at this path comes before a name, so that commands with a workdir of that spelling
still do what they did. The default is always the package's file, whatever the current folder holds.

Published weights that are fetched by name (`fetching`) lie in the cache; `converted` says where.
"""

import os
import pathlib

from jaxinpaint.weights import hub
from jaxinpaint.weights.store import MissingWeights

FOLDER = pathlib.Path(__file__).with_name('shipped')
# SYSTEM/NAME: its file in FOLDER.
FILES = {'mesff/box': 'mesff_box.safetensors'}
DEFAULT = 'mesff/box'


def find(path: str | os.PathLike | None) -> pathlib.Path:
  """The path of weights that a person named.

  Args:
    path: any path (a leading ~ is the home folder), which need not exist; a name of `FILES`; or
      None: the default.

  Raises:
    MissingWeights: it is a name, but this installation lacks its file.
  """
  if path is not None:
    whole = pathlib.Path(path).expanduser()
    if str(path) not in FILES or whole.exists():
      return whole
  name = DEFAULT if path is None else str(path)
  file = FOLDER / FILES[name]
  if not file.exists():
    raise MissingWeights(
      f'the weights {name} are not in this installation ({file} is missing): install jaxinpaint '
      'again, or give weights of your own: a weights file or the workdir of a run'
    )
  return file


def ships(path: pathlib.Path) -> bool:
  """Whether it is a file of the package."""
  return any(path == FOLDER / file for file in FILES.values())


def converted(system: str, name: str) -> pathlib.Path:
  """Where the published weights SYSTEM/NAME are, once they were fetched and converted."""
  return hub.cache_folder() / 'weights' / system / f'{system}_{name}.safetensors'


def name_of(path: pathlib.Path) -> str:
  """The name of weights of the package, or of fetched ones, at this path; else ''."""
  for name, file in FILES.items():
    if path == FOLDER / file:
      return name
  system, name = path.parent.name, path.stem.removeprefix(f'{path.parent.name}_')
  return f'{system}/{name}' if path == converted(system, name) else ''
