"""Rows as the user names them, and the default place of a report about one.

--row NAME=PATH     PATH is WORKDIR or WORKDIR@STEP of a run, a weights file (.safetensors), the
                    name of weights that come with the library (mesff/box), or a folder of outputs
                    (see `folders`)
"""

import os
import pathlib
from collections.abc import Sequence

from jaxinpaint import trained as trained_lib
from jaxinpaint.predictor import Predictor
from jaxinpaint.trained import Trained


def split(rows: Sequence[str]) -> dict[str, str]:
  """['NAME=PATH', ...] -> {name: path}.

  Raises:
    ValueError: another form, or a name that is given twice.
  """
  paths: dict[str, str] = {}
  for row in rows:
    name, equals, path = row.partition('=')
    name, path = name.strip(), path.strip()
    if not (equals and name and path):
      raise ValueError(
        f'--row {row!r} must be NAME=PATH, the path of a run, a weights file or a folder of outputs'
      )
    if name in paths:
      raise ValueError(f'--row {name}: two rows have this name, {paths[name]} and {path}')
    paths[name] = path
  return paths


def is_folder(path: str | os.PathLike) -> bool:
  """Whether a row's path is a folder of outputs."""
  return pathlib.Path(path).expanduser().is_dir() and not trained_lib.is_run(path)


def report_folder(trained: Trained) -> pathlib.Path:
  """The default folder of a report about a single system."""
  if trained.step is not None:
    return trained.path / 'evaluation' / str(trained.step)
  return pathlib.Path('runs') / 'evaluation' / trained.path.name.removesuffix('.safetensors')


def predictor(trained: Trained, seed: int) -> Predictor:
  """The row of a system; the seed is for systems that draw random numbers."""
  return Predictor(trained.inference, trained.variables, trained.constants, seed=seed)
