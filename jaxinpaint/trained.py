"""A system with its trained weights, found and checked: the one way in for files and runs.

  trained = load('mesff/box')                # weights that come with the library (weights.names)
  trained = load('misf/places2')             # published ones, fetched and converted at first use
  trained = load('runs/mesff')               # a run's result: its newest or best checkpoint
  trained = load('runs/mesff@100000')        # the checkpoint of a step
  trained = load('~/misf.safetensors')       # a weights file
  predictor = Predictor(trained.inference, trained.variables, trained.constants)

Evaluation, inference and the measurement of costs all load through here, so the same mistake gets
the same sentence everywhere.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.recipe import Constants, Inference, Variables
from jaxinpaint.systems.opening import (
  Opened,
  check_file,
  check_run,
  find,
  is_run,
  locate,
  open_weights,
)
from jaxinpaint.weights import mapping, names
from jaxinpaint.weights.store import MissingWeights, StoreError

__all__ = [
  'MissingWeights',
  'Opened',
  'StoreError',
  'Trained',
  'check_file',
  'check_run',
  'find',
  'is_run',
  'load',
  'locate',
  'open_weights',
]


@dataclasses.dataclass(frozen=True)
class Trained:
  """What `load` returns.

  Attributes:
    path: of the weights file, or the workdir of the run.
    step: of the checkpoint; None: a weights file.
    config: of the system, with today's fields.
    inference: of `config`.
    variables: of `inference.networks`; averages where a run keeps them.
    constants: of `inference.load_constants`.
    card: of a weights file, see `weights.store`; of a run: {}.
  """

  path: pathlib.Path
  step: int | None
  config: ConfigDict
  inference: Inference
  variables: Variables
  constants: Constants
  card: Mapping[str, Any]

  @property
  def origin(self) -> str:
    """Where the weights come from, for reports."""
    if self.step is None:
      return names.name_of(self.path) or str(self.path)
    return f'{self.path}, step {self.step}'

  @property
  def name(self) -> str:
    """'SYSTEM/NAME', 'SYSTEM (FILE)' or 'SYSTEM (FOLDER, step N)', for messages."""
    if name := names.name_of(self.path):
      return name
    where = self.path.name if self.step is None else f'{self.path.name}, step {self.step}'
    return f'{self.config.system} ({where})'


def load(path: str | os.PathLike | None = None, step: int | None = None) -> Trained:
  """Loads a system with its weights and checks that they fit.

  Args:
    path: WORKDIR or WORKDIR@STEP of a run, a weights file, or a name (see `find`); a leading ~ is
      the home folder. None: the default weights.
    step: of the checkpoint of a run, where the path does not name it; None: its result.

  Raises:
    weights.store.StoreError: one sentence that says what is wrong and what to do: nothing is there
      (MissingWeights), it is no run and no weights file of this library, it is damaged, its config
      is not one that this version knows, or its weights do not fit its system.
    OSError: a file that exists cannot be read, or a frozen network that inference needs is missing.
  """
  opened = open_weights(path, step)
  try:
    inference = systems.inference(opened.config)
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise StoreError(
      f'the configuration in {opened.place} is not one that this version knows: {error}. Import '
      'or save the weights again.'
    ) from error
  variables = opened.read(inference.networks)
  # It traces the networks, a fifth of the time of a start. The tests check what ships.
  if not names.ships(opened.path):
    _check_fit(opened.path, inference, variables)
  constants = inference.load_constants()
  place = opened.path, opened.step, opened.config
  return Trained(*place, inference, variables, constants, opened.card)


def _check_fit(path: pathlib.Path, inference: Inference, variables: Variables) -> None:
  """Raises StoreError when the arrays are not those of the networks that inference reads."""
  lacking = [n for n in inference.networks if n not in variables.params]
  if lacking:
    raise StoreError(
      f'{path} lacks the networks {", ".join(lacking)}, without which no image can be completed: '
      'import all files of the system, or give other weights'
    )
  problems = mapping.compare(variables._asdict(), inference.shapes()._asdict())
  if problems:
    raise StoreError(
      f'{path}: the weights do not fit the networks of its configuration:\n'
      + '\n'.join(problems)
      + '\nUse the configuration that they were saved with, or other weights.'
    )
