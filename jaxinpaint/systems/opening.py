"""Weights found by a path or a name, and the config that they belong to; no network is made.

  opened = open_weights('runs/comodgan@5000')    # a run, a weights file or a name (`find`)
  variables = opened.read(('generator',))

`trained.load` makes the networks, too, and checks that the weights fit them.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxinpaint import migrations, systems
from jaxinpaint.recipe import Variables
from jaxinpaint.weights import fetching, hub, names, store
from jaxinpaint.weights.store import MissingWeights, StoreError

# Files that hold weights, but not as this library stores them.
_FOREIGN = ('.pth', '.pt', '.ckpt', '.bin', '.pkl', '.tar', '.th', '.h5', '.npz', '.msgpack')


@dataclasses.dataclass(frozen=True)
class Opened:
  """What `open_weights` returns.

  Attributes:
    path: of the weights file, or the workdir of the run.
    step: of the checkpoint; None: a weights file.
    config: of the system, with today's fields.
    read: reads the networks of these names, as far as they are there; all for None.
    card: of a weights file, see `weights.store`; of a run: {}.
  """

  path: pathlib.Path
  step: int | None
  config: ConfigDict
  read: Callable[[tuple[str, ...] | None], Variables]
  card: Mapping[str, Any]

  @property
  def place(self) -> pathlib.Path:
    """The weights file, or the folder of the checkpoint."""
    return self.path if self.step is None else self.path / 'checkpoints' / str(self.step)


def open_weights(path: str | os.PathLike | None = None, step: int | None = None) -> Opened:
  """Finds weights and the config that they belong to.

  Args:
    path: WORKDIR or WORKDIR@STEP of a run, a weights file, or a name (see `find`); a leading ~ is
      the home folder. None: the default weights.
    step: of the checkpoint of a run, where the path does not name it; None: its result.

  Raises:
    weights.store.StoreError: one sentence that says what is wrong and what to do: nothing is there
      (MissingWeights), it is no run and no weights file of this library, it is damaged, or its
      config is not one that this version knows.
    OSError: a file that exists cannot be read.
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
      f'the configuration in {opened.place} is not one that this version knows: {error}'
    ) from error
  return dataclasses.replace(opened, config=config)


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
