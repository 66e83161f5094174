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
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxinpaint import migrations, systems
from jaxinpaint.recipe import Constants, Inference, Variables
from jaxinpaint.weights import fetching, hub, mapping, names, store
from jaxinpaint.weights.store import MissingWeights, StoreError

# Files that hold weights, but not as this library stores them.
_FOREIGN = ('.pth', '.pt', '.ckpt', '.bin', '.pkl', '.tar', '.th', '.h5', '.npz', '.msgpack')


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


@dataclasses.dataclass(frozen=True)
class Opened:
  """What `open_weights` returns.

  Attributes:
    path: of the weights file, or the workdir of the run.
    step: of the checkpoint; None: a weights file.
    config: of the system, with today's fields.
    read: reads the networks of these names, as far as they are there; all for None.
    card: of a weights file; of a run: {}.
  """

  path: pathlib.Path
  step: int | None
  config: ConfigDict
  read: Callable[[tuple[str, ...] | None], Variables]
  card: Mapping[str, Any]


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
      f'the configuration in {_place(opened)} is not one that this version knows: {error}. Import '
      'or save the weights again.'
    ) from error
  variables = opened.read(inference.networks)
  # It traces the networks, a fifth of the time of a start. The tests check what ships.
  if not names.ships(opened.path):
    _check_fit(opened.path, inference, variables)
  constants = inference.load_constants()
  place = opened.path, opened.step, opened.config
  return Trained(*place, inference, variables, constants, opened.card)


def open_weights(path: str | os.PathLike | None = None, step: int | None = None) -> Opened:
  """Finds weights and the config that they belong to.

  Args:
    path: as `load`.
    step: as `load`.

  Raises:
    weights.store.StoreError, OSError: as `load`, but for what concerns the networks.
  """
  path, step = (find(path), step) if path is None else locate(path, step)
  if path.is_dir():
    step, config, read = _open_run(path, step)
    card: Mapping[str, Any] = {}
  else:
    check_file(path)
    if step is not None:
      raise StoreError(f'step {step} was given, but {path} is a weights file: leave it out')
    stored = store.load(path)
    config, variables = stored.config, Variables(stored.params, stored.stats)
    card = stored.meta
    read = lambda networks: variables if networks is None else variables.pick(networks)
  opened = Opened(path, step, config, read, card)
  try:
    config = migrations.migrate(config, systems.default_config)
  except ValueError as error:
    raise StoreError(
      f'the configuration in {_place(opened)} is not one that this version knows: {error}'
    ) from error
  return dataclasses.replace(opened, config=config)


def _place(opened: Opened) -> pathlib.Path:
  return opened.path if opened.step is None else opened.path / 'checkpoints' / str(opened.step)


def is_run(path: str | os.PathLike) -> bool:
  """Whether a folder is the workdir of a run that has checkpoints."""
  return (pathlib.Path(path).expanduser() / 'checkpoints').is_dir()


def find(path: str | os.PathLike | None) -> pathlib.Path:
  """The path of weights that a person named: `names.find`, and published weights by name.

  Args:
    path: any path, which need not exist; a name of weights that come with the library, or of
      published ones (`jaxinpaint weights list`), which are fetched and converted at first use. A
      file or folder at this path comes before a name.

  Raises:
    weights.store.StoreError: a name's weights cannot be had (MissingWeights), or are not what was
      published.
  """
  found = names.find(path)
  named = None if path is None or found.exists() else systems.named(path)
  if named is None:
    return found
  try:
    return fetching.require(*named)
  except hub.DownloadError as error:
    raise MissingWeights(str(error)) from error


def locate(path: str | os.PathLike, step: int | None = None) -> tuple[pathlib.Path, int | None]:
  """(the path of weights that a person named, which need not exist; the step behind its '@').

  Raises:
    weights.store.StoreError: what follows '@' is no step, or another than `step`.
  """
  whole = find(path)
  folder, at, named = str(path).rpartition('@')
  if not at or whole.exists():
    return whole, step
  if not named.isdigit():
    raise StoreError(f'{path}: what follows @ must be the step of a checkpoint, not {named!r}')
  if step is not None and step != int(named):
    raise StoreError(f'{path} names step {named}, but step {step} was given too: leave one out')
  return find(folder), int(named)


def _open_run(
  path: pathlib.Path, step: int | None
) -> tuple[int, ConfigDict, Callable[[tuple[str, ...] | None], Variables]]:
  """(step, config, function that reads networks) of a checkpoint."""
  check_run(path)
  # Orbax takes a second to import, and weights files do not need it.
  from jaxinpaint.weights import checkpoints

  folder = checkpoints.find(path, step)
  config = store.read_config(checkpoints.read_meta(folder)['config'])
  return int(folder.name), config, lambda networks: checkpoints.read(folder, networks)


def check_run(path: pathlib.Path) -> None:
  """Raises StoreError unless the folder `path` may be the workdir of a run."""
  if not is_run(path):
    inside = sorted(p.name for p in path.glob('*.safetensors'))
    hint = f'; name one of its weight files: {", ".join(inside[:8])}' if inside else ''
    if path.parent.name == 'checkpoints':
      hint = f'; this checkpoint is called {path.parent.parent}@{path.name}'
    raise StoreError(f'{path} is no workdir of a training run (it has no folder checkpoints){hint}')


def check_file(path: pathlib.Path) -> None:
  """Raises StoreError, or MissingWeights, unless `path` may be a weights file of this library."""
  if path.suffix.lower() in _FOREIGN and path.exists():
    raise StoreError(
      f'{path} is not a weights file of this library (.safetensors); a published checkpoint is '
      f'brought in by `jaxinpaint weights import SYSTEM {path} OUT`'
    )
  if not path.exists() and not path.with_name(path.name + '.safetensors').exists():
    near = next((p for p in path.absolute().parents if p.is_dir()), pathlib.Path('/'))
    inside = sorted(p.name for p in near.glob('*.safetensors'))
    hint = f'{near} holds {", ".join(inside[:8])}' if inside else f'the path exists up to {near}'
    raise MissingWeights(
      f'there are no weights at {path} ({hint}): give the workdir of a run, WORKDIR@STEP, a '
      'weights file, the name of published weights (`jaxinpaint weights list`), or of those that '
      f'come with the library: {", ".join(names.FILES)}'
    )
  if path.exists() and path.suffix not in ('.safetensors', '.json', ''):
    raise StoreError(
      f'{path} is not a weights file (.safetensors) and no workdir: give one of these'
    )


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
