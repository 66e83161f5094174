"""Rows as a person names them: weights, runs, folders of outputs; found, loaded, checked.

--row NAME=PATH     PATH is WORKDIR or WORKDIR@STEP of a run, a weights file (.safetensors), or a
                    folder of outputs (see `folders`)
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.predictor import Bound, Model
from jaxinpaint.recipe import Inference, Variables
from jaxinpaint.training import checkpoints
from jaxinpaint.weights import store


@dataclasses.dataclass(frozen=True)
class Trained:
  """A system with weights that were found.

  Attributes:
    config: of the system.
    variables: of its networks.
    origin: where they come from.
    output: the default folder of a report about it.
  """

  config: ConfigDict
  variables: Variables
  origin: str
  output: pathlib.Path

  def bind(self, seed: int) -> Bound:
    """The predictor.

    Args:
      seed: of systems that sample.

    Raises:
      ValueError: the weights are not those of the networks, or the config is of no known system.
    """
    inference = systems.inference(self.config)
    _check_weights(self, inference)
    return Model(inference, seed).bind(self.variables, inference.load_constants())


def split(rows: Sequence[str]) -> dict[str, str]:
  """['NAME=PATH', ...] -> {name: path}.

  Raises:
    ValueError: another form, or a name that is there twice.
  """
  found: dict[str, str] = {}
  for row in rows:
    name, equals, path = row.partition('=')
    name, path = name.strip(), path.strip()
    if not (equals and name and path):
      raise ValueError(
        f'--row {row!r} must be NAME=PATH, the path of a run, a weights file or a folder of outputs'
      )
    if name in found:
      raise ValueError(f'--row {name}: two rows have this name, {found[name]} and {path}')
    found[name] = path
  return found


def is_folder(path: str | os.PathLike) -> bool:
  """Whether a row's path is a folder of outputs."""
  path = pathlib.Path(path).expanduser()
  return path.is_dir() and not (path / 'checkpoints').is_dir()


def load(path: str | os.PathLike) -> Trained:
  """The system of a row that is a run, WORKDIR or WORKDIR@STEP, or a weights file.

  Raises:
    ValueError, OSError, checkpoints.CheckpointError: nothing of the kind is there.
  """
  text = str(path)
  folder, at, step = text.rpartition('@')
  if at and not pathlib.Path(text).expanduser().exists():
    if not step.isdigit():
      raise ValueError(f'{text}: what follows @ must be the step of a checkpoint, not {step!r}')
    return from_workdir(folder, int(step))
  path = pathlib.Path(text).expanduser()
  if path.is_dir():
    return from_workdir(path, None)
  if not path.exists():
    near = next((p for p in path.absolute().parents if p.is_dir()), pathlib.Path('/'))
    raise FileNotFoundError(
      f'there is no {path} (the path exists up to {near}): give a run, a weights file or a folder '
      'of outputs'
    )
  return from_weights(path)


def from_workdir(workdir: str | os.PathLike, step: int | None) -> Trained:
  """The newest checkpoint of a run, or that of a step."""
  workdir = pathlib.Path(workdir).expanduser()
  if not workdir.is_dir():
    raise FileNotFoundError(f'--workdir {workdir} does not exist: give the folder of a run')
  config, variables, step = checkpoints.restore_for_inference(workdir, step)
  output = workdir / 'evaluation' / str(step)
  return Trained(config, variables, f'{workdir}, step {step}', output)


def from_weights(path: str | os.PathLike) -> Trained:
  """Of a weights file of this library."""
  path = pathlib.Path(path).expanduser()
  stored = store.load(path)
  output = pathlib.Path('runs') / 'evaluation' / path.name.removesuffix('.safetensors')
  variables = Variables(stored.params, stored.stats)
  return Trained(stored.config, variables, str(path), output)


def _check_weights(trained: Trained, inference: Inference) -> None:
  """Raises ValueError when the arrays are not those that the system's networks read."""
  own = trained.variables.pick(inference.networks)
  stored = store.Stored(trained.config.system, trained.config, own.params, own.stats, {})
  store.check_shapes(stored, *inference.shapes())
