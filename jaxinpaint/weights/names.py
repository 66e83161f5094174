"""Weights that come with the library, by name: 'mesff/box' is a file of this package.

  path = names.find('mesff/box')       # a path of the package
  path = names.find('runs/mesff')      # any other path as it is
  path = names.find(None)              # the weights used where none are given

`find` is called wherever a person gives the path of weights, so a name can stand there everywhere.
A file or folder at this path comes before a name, so that commands with a workdir of that spelling
still do what they did. The default is always the package's file, whatever the current folder holds.
"""

import os
import pathlib

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


def name_of(path: pathlib.Path) -> str:
  """The name of a file that `find` found, else ''."""
  return next((name for name, file in FILES.items() if path == FOLDER / file), '')
