"""Checkpoints of a run: asynchronous, exact, and never silently lost.

`WORKDIR/checkpoints/STEP/` holds the items params, stats, opt and ema (arrays, by orbax) and meta
(JSON: the config, the position of the data, versions). Items are separate so that inference reads
only what it runs. A checkpoint is written under a temporary name and renamed when it is complete.
It contains the checksums of its files; a checkpoint that does not match them is not used.
"""

import contextlib
import datetime
import json
import pathlib
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint import migrations
from jaxinpaint.runtime.faults import StorageError, of_the_runtime
from jaxinpaint.training import averages
from jaxinpaint.training import config as config_lib
from jaxinpaint.training.state import TrainState
from jaxinpaint.weights import checksums
from jaxinpaint.weights.checkpoints import list_steps, read_meta

_ARRAYS = ('params', 'stats', 'opt', 'ema')
_policy = ocp.checkpoint_managers


class CheckpointError(StorageError):
  """A checkpoint cannot be read or written; the message says why and what to do."""


class OtherRunError(CheckpointError):
  """The workdir holds another run than the config describes; the message says what differs."""

  exit_code = 78  # the config has to change, so a script must not just start it again


class _Steps:
  """A policy of orbax that keeps these steps.

  Orbax has one for the best by a metric, but it forgets the metrics when the process ends.
  """

  steps: frozenset[int] = frozenset()

  def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
    """One answer for each checkpoint."""
    return [checkpoint.step in self.steps for checkpoint in checkpoints]


class Checkpoints:
  """Saves and restores the states of one workdir.

  Args:
    workdir: of the run.
    keep: how many of the newest checkpoints are kept.
    keep_every: checkpoints at multiples of it are kept, too (0: none).
  """

  def __init__(self, workdir: str | pathlib.Path, keep: int = 3, keep_every: int = 0):
    """See the class."""
    self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    self._kept = _Steps()
    policies = [_policy.LatestN(keep), self._kept]
    if keep_every:
      policies.append(_policy.EveryNSteps(keep_every))
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=_policy.AnyPreservationPolicy(policies),
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True,
      # If a folder is made asynchronously and that fails, it is only noticed after many minutes.
      async_options=ocp.AsyncOptions(
        post_finalization_callback=self._seal, create_directories_asynchronously=False
      ),
    )
    self._saving: int | None = None
    self._manager_ = None

  @property
  def _manager(self) -> ocp.CheckpointManager:
    # Made at first use: `restore` sets broken checkpoints aside before orbax reads the folder.
    if self._manager_ is None:
      self._manager_ = ocp.CheckpointManager(self.folder, options=self._options)
    return self._manager_

  def save(
    self,
    state: TrainState,
    config: ConfigDict,
    data: dict[str, Any],
    kept: Collection[int] = (),
  ) -> None:
    """Begins to write the state of `state.step`; returns once the arrays are copied to the host.

    Args:
      state: to save.
      config: of the run.
      data: position of the data, JSON-able.
      kept: steps whose checkpoints are kept, too.
    """
    step = int(state.step)
    with self._reporting():
      # Here orbax also reports errors from writing the previous checkpoint.
      self._manager.wait_until_finished()
      if step in self._manager.all_steps():
        return
    meta = {
      'step': step,
      'config': json.loads(config.to_json_best_effort()),
      'data': data,
      'version': jaxinpaint.__version__,
      'jax': jax.__version__,
      'saved': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    }
    items = {
      name: ocp.args.StandardSave(getattr(state, name))
      for name in _ARRAYS
      if jax.tree.leaves(getattr(state, name))
    }
    self._saving, self._kept.steps = step, frozenset(kept)
    args = ocp.args.Composite(meta=ocp.args.JsonSave(meta), **items)
    with self._reporting():
      self._manager.save(step, args=args)

  def _seal(self) -> None:
    """Called by orbax, on its thread, when all files are written, before the folder is renamed."""
    if jax.process_index() != 0:
      return
    folders = [p for p in self.folder.glob(f'{self._saving}.orbax*') if p.is_dir()]
    for path in folders or [self.folder / str(self._saving)]:
      checksums.write(path)

  def check(self) -> None:
    """Raises CheckpointError if a checkpoint could not be written."""
    if self._manager_ is not None:
      with self._reporting():
        self._manager_.check_for_errors()

  def wait(self) -> None:
    """Waits until the checkpoint that is being written is on disk.

    Raises:
      CheckpointError: it could not be written.
    """
    with self._reporting():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes writing and releases the folder; call `wait` first, which reports errors."""
    if self._manager_ is not None:
      try:
        self._manager_.wait_until_finished()
        self._manager_.close()
      except Exception as error:  # a run that ends because of the disk ends with its sentence
        logging.error('Closing %s: %s', self.folder, _first_line(error))
      self._manager_ = None

  @contextlib.contextmanager
  def _reporting(self) -> Iterator[None]:
    """Turns any error of orbax while writing into a message that says what is already safe."""
    try:
      yield
    except Exception as error:
      fault = of_the_runtime(error)
      if fault is not None:
        raise fault from error
      last = [s for s in list_steps(self.folder) if s != self._saving]
      safe = f'the last whole one is step {last[-1]}' if last else 'there is none yet'
      try:
        free = f'{shutil.disk_usage(self.folder).free / 1e9:.2f} GB are free there'
      except OSError:
        free = 'the folder cannot be reached'
      raise CheckpointError(
        f'the checkpoint of step {self._saving} cannot be written to {self.folder} '
        f'({_cause(error)}); {safe}, {free}. Make room or make the folder writable, then run the '
        'same command: it goes on from there'
      ) from error

  def check_writable(self) -> None:
    """Raises StorageError if nothing can be written; leaves no files behind."""
    folder = self.folder if self.folder.exists() else self.folder.parent
    try:
      with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b'0' * 4096)
        file.flush()
    except OSError as error:
      raise StorageError(
        f'nothing can be written to {folder} ({error.strerror}): give a --workdir on a disk that '
        'is writable and has room'
      ) from error

  def restore(
    self, abstract: TrainState, config: ConfigDict
  ) -> tuple[TrainState, dict[str, Any]] | None:
    """The newest state that can be read, with its meta; None if the workdir has no checkpoint.

    Args:
      abstract: shapes, dtypes and shardings of the state to read.
      config: of this run; a run with other networks or other optimizers is refused before any
        array is read.

    Returns:
      The state, and the meta, whose config has the fields of this version.

    Raises:
      OtherRunError: the workdir belongs to another run, or to a newer version.
      CheckpointError: none of its checkpoints is intact.
    """
    steps = list_steps(self.folder)
    if not steps:
      return None
    problems = []
    for step in reversed(steps):
      path = self.folder / str(step)
      error: Exception | None = None
      try:
        if jax.process_index() == 0:
          checksums.verify(path)
        meta = read_meta(path)
      except (OSError, ValueError, KeyError) as e:
        error = e
      if not _all_agree(error is None):
        problems.append((path, error or CheckpointError('another process cannot read it')))
        continue
      meta['config'] = _todays_config(meta, path).to_dict()
      _check_same_run(meta, config, path)
      try:
        other = _other_structures(path, abstract)
      except Exception as e:  # of orbax, as below
        error, other = e, {}
      if not _all_agree(error is None):
        problems.append((path, error or CheckpointError('another process cannot read it')))
        continue
      if other:
        raise OtherRunError(_structure_message(path, other, meta, config))
      try:
        state = _read_state(path, abstract)
      except Exception as e:  # orbax raises many kinds of errors for a damaged file; reported below
        error = e
      if not _all_agree(error is None):
        problems.append((path, error or CheckpointError('another process cannot read it')))
        continue
      # What remains of a checkpoint whose deletion was interrupted would only be found when it is
      # the last resort.
      older = [self.folder / str(s) for s in steps if s < step]
      halves = [p for p in older if not _whole(p)]
      missing = checksums.Damaged('files are missing; a deletion was interrupted, perhaps')
      self._set_aside(problems + [(p, missing) for p in halves])
      return state, meta
    raise _none_can_be_read(problems)

  def _set_aside(self, problems: list[tuple[pathlib.Path, Exception]]) -> None:
    """Renames unreadable checkpoints, so that their steps can be saved again; deletes nothing."""
    for path, error in problems:
      logging.error('Checkpoint %s is broken and is set aside: %s', path, _first_line(error))
      if jax.process_index() == 0:
        aside = path.with_name(f'broken-{path.name}')
        count = 1
        while aside.exists():
          count += 1
          aside = path.with_name(f'broken-{path.name}-{count}')
        path.rename(aside)
    if problems and jax.process_count() > 1:
      from jax.experimental import multihost_utils

      multihost_utils.sync_global_devices('jaxinpaint: broken checkpoints set aside')


def stored_config(workdir: str | pathlib.Path) -> ConfigDict | None:
  """The config that the newest checkpoint of a run was made with, with the fields of this version.

  Returns:
    It; None if the workdir has no checkpoint.

  Raises:
    OtherRunError: a newer version wrote it.
    CheckpointError: no checkpoint can be read.
  """
  folder = pathlib.Path(workdir).absolute() / 'checkpoints'
  problems: list[tuple[pathlib.Path, Exception]] = []
  for step in reversed(list_steps(folder)):
    path = folder / str(step)
    try:
      meta = read_meta(path)
    except (OSError, ValueError) as error:
      problems.append((path, error))
    else:
      return _todays_config(meta, path)
  if problems:
    raise _none_can_be_read(problems)
  return None


def _none_can_be_read(problems: list[tuple[pathlib.Path, Exception]]) -> CheckpointError:
  listed = '\n'.join(f'  {p}: {_first_line(e)}' for p, e in problems)
  return CheckpointError(
    f'none of the {len(problems)} checkpoints can be read; nothing was changed:\n{listed}\n'
    'Give another --workdir to start a new run.'
  )


def _read_item(path: pathlib.Path, name: str, abstract: Any) -> Any:
  if not jax.tree.leaves(abstract):
    return abstract
  with ocp.StandardCheckpointer() as reader:
    return reader.restore(path / name, abstract)


def _read_state(path: pathlib.Path, abstract: TrainState) -> TrainState:
  items = {name: _read_item(path, name, getattr(abstract, name)) for name in _ARRAYS}
  step = jax.device_put(np.int32(int(path.name)), abstract.step.sharding)
  # Arrays read from a file may share its memory, and the train step is given these buffers to
  # overwrite: one copy on the device makes them its own.
  items = jax.tree.map(lambda x: x.copy(), items)
  return TrainState(step=step, **items)


def _todays_config(meta: dict[str, Any], path: pathlib.Path) -> ConfigDict:
  """The config that a checkpoint was made with, with the fields of this version.

  Raises:
    OtherRunError: it cannot be converted.
  """
  try:
    return migrations.migrate(meta['config'], config_lib.base)
  except ValueError as error:
    raise OtherRunError(f'{path}: {error}') from error


def _check_same_run(meta: dict[str, Any], config: ConfigDict, path: pathlib.Path) -> None:
  """Raises OtherRunError if the checkpoint's networks or optimizers are not this run's."""
  old, new = meta['config'], json.loads(config.to_json_best_effort())
  changed = [
    line
    for line in config_lib.differences(old, new)
    if line.startswith(('system:', 'model.', 'training.accumulate', 'training.ema_networks'))
    or (line.startswith('optimizers.') and '.name:' in line)
    or (
      line.startswith(('training.ema_decay', 'training.ema_half_life'))
      and not all(averages.networks(c['training']) for c in (old, new))
    )
  ]
  if changed:
    raise OtherRunError(
      f'{path} belongs to a run with other networks or optimizers:\n  '
      + '\n  '.join(changed)
      + _either(path)
    )


def _either(path: pathlib.Path) -> str:
  """The sentence that says what to do about a checkpoint of another run."""
  return (
    '\nPut these fields back as they were, or give another --workdir; a new run starts from these '
    f'weights with --config.init_from={path.parent.parent}'
  )


def _other_structures(path: pathlib.Path, abstract: TrainState) -> dict[str, list[str]]:
  """{item: its networks or optimizers whose arrays are not those of `abstract`}; reads no array."""
  differing = {}
  for item in _ARRAYS:
    stored: Any = {}
    if (path / item).is_dir():
      with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(path / item).item_metadata.tree
    elif item == 'params':  # the others may be empty, and are not stored then
      raise checksums.Damaged(f'{path / item} is missing')
    shapes = [
      {(name, *key): tuple(x.shape) for name in tree for key, x in _flat(tree[name]).items()}
      for tree in (stored, getattr(abstract, item))
    ]
    names = sorted({key[0] for key, _ in shapes[0].items() ^ shapes[1].items()})
    if names:
      differing[item] = names
  return differing


def _flat(tree: Any) -> dict[tuple[str, ...], Any]:
  return ocp.tree.to_flat_dict(tree, keep_empty_nodes=False)


def _structure_message(
  path: pathlib.Path, other: dict[str, list[str]], meta: dict[str, Any], config: ConfigDict
) -> str:
  """Which fields of the config gave a state another structure than the checkpoint has."""
  changed = config_lib.differences(meta['config'], json.loads(config.to_json_best_effort()))
  optimizers = other.get('opt', [])
  networks = sorted({name for item, names in other.items() if item != 'opt' for name in names})
  # Rates and the arguments of a schedule change numbers, never the structure of a state.
  lines = [
    line
    for line in changed
    for name in optimizers
    if line.startswith(f'optimizers.{name}.')
    and not re.match(r'\S+\.(learning_rate|schedule_args)', line)
  ]
  # Which networks and optimizers exist also depends on the terms of a loss and on the phases.
  if networks or not lines:
    lines += [s for s in changed if s.startswith(('loss.', 'phases.', 'data.size', 'dtype'))]
  what = ', '.join(networks or optimizers)
  if not lines:
    return (
      f'{path} holds other arrays for {what} than this program wants, and no field of the config '
      f'says why: jaxinpaint {meta.get("version", "?")} with jax {meta.get("jax", "?")} wrote it. '
      'Go on with those versions, or give another --workdir; a new run starts from these weights '
      f'with --config.init_from={path.parent.parent}'
    )
  listed = '\n  '.join(lines)
  kind = 'networks' if networks else 'optimizers'
  return f'{path} belongs to a run with other {kind} ({what}):\n  {listed}{_either(path)}'


def _all_agree(fine: bool) -> bool:
  """Whether this is true on all processes; every process has to call it."""
  if jax.process_count() == 1:
    return fine
  from jax.experimental import multihost_utils

  return bool(np.all(multihost_utils.process_allgather(np.array(fine))))


def _whole(path: pathlib.Path) -> bool:
  """Whether all files of a checkpoint exist; does not read them."""
  return (path / 'meta').is_dir() and (path / 'params').is_dir() and checksums.complete(path)


def _cause(error: BaseException) -> str:
  """The operating system's message, if it is in the error of orbax and its libraries."""
  text = f'{error}\n{error.__cause__ or ""}\n{error.__context__ or ""}'
  known = (
    'No space left on device',
    'Read-only file system',
    'Permission denied',
    'File too large',
  )
  reasons = [k for k in (*known, 'Disk quota exceeded', 'Input/output error') if k in text]
  return reasons[0] if reasons else _first_line(error)


def _first_line(error: BaseException) -> str:
  text = str(error).strip()
  return f'{type(error).__name__}: {text.splitlines()[0][:300] if text else ""}'
