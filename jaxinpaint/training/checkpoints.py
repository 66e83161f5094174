"""Checkpoints of a run: asynchronous, exact, and never silently lost.

`WORKDIR/checkpoints/STEP/` holds the items params, stats, opt and ema (arrays, by orbax) and meta
(JSON: the config, the position of the data, versions). Items are separate so that inference reads
only what it runs.
"""

import datetime
import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint.training import config as config_lib
from jaxinpaint.training.state import TrainState

_ARRAYS = ('params', 'stats', 'opt', 'ema')
_policy = ocp.checkpoint_managers


class CheckpointError(Exception):
  """No checkpoint can be used; the message says why and what to do."""


class Checkpoints:
  """Saves and restores the states of one workdir.

  Args:
    workdir: of the run.
    keep: the newest n are kept.
    keep_every: and those at multiples of it (0: none).
    best: and the best by this metric ('': none), the larger the better.
  """

  def __init__(
    self, workdir: str | pathlib.Path, keep: int = 3, keep_every: int = 0, best: str = ''
  ):
    """See the class."""
    self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    policies = [_policy.LatestN(keep)]
    if keep_every:
      policies.append(_policy.EveryNSteps(keep_every))
    if best:
      metric = lambda metrics: metrics[best]
      policies.append(
        _policy.BestN(get_metric_fn=metric, n=1, keep_checkpoints_without_metrics=False)
      )
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=_policy.AnyPreservationPolicy(policies),
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True,
    )
    self._best = best
    self._manager_ = None

  @property
  def _manager(self) -> ocp.CheckpointManager:
    # Made at first use: `restore` sets broken checkpoints aside before orbax reads the folder.
    if self._manager_ is None:
      self._manager_ = ocp.CheckpointManager(self.folder, options=self._options)
    return self._manager_

  def save(
    self, state: TrainState, config: ConfigDict, data: dict[str, Any], metrics: dict | None = None
  ) -> None:
    """Begins to write the state of `state.step`; returns once the arrays are copied to the host.

    Args:
      state: to save.
      config: of the run.
      data: JSON-able position of the data.
      metrics: of an evaluation of this very state, for `best`.
    """
    step = int(state.step)
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
    if self._best and metrics and self._best not in metrics:
      raise ValueError(
        f'config.checkpoint.best {self._best!r} is not measured; there are: {", ".join(metrics)}'
      )
    self._manager.save(
      step, args=ocp.args.Composite(meta=ocp.args.JsonSave(meta), **items), metrics=metrics or None
    )

  def wait(self) -> None:
    """Blocks until what was begun is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes writing and releases the folder."""
    if self._manager_ is not None:
      self._manager_.wait_until_finished()
      self._manager_.close()

  def restore(
    self, abstract: TrainState, config: ConfigDict
  ) -> tuple[TrainState, dict[str, Any]] | None:
    """The newest state that can be read, with its meta; None when the workdir has no checkpoint.

    Args:
      abstract: shapes, dtypes and shardings of the state wanted.
      config: of this run; a run with other networks is refused.

    Raises:
      CheckpointError: the run in this workdir is another one, or none of its checkpoints is whole.
    """
    steps = list_steps(self.folder)
    if not steps:
      return None
    problems = []
    for step in reversed(steps):
      path = self.folder / str(step)
      try:
        meta = read_meta(path)
      except (OSError, ValueError, KeyError) as error:
        problems.append((path, error))
        continue
      _check_same_run(meta, config, path)
      try:
        state = _read_state(path, abstract)
      except Exception as error:  # whatever orbax meets in a damaged file; it is reported below
        problems.append((path, error))
        continue
      self._set_aside(problems)
      return state, meta
    listed = '\n'.join(f'  {p}: {_first_line(e)}' for p, e in problems)
    raise CheckpointError(
      f'none of the {len(problems)} checkpoints can be read; nothing was changed:\n{listed}\n'
      'To begin anew give another --workdir.'
    )

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


def list_steps(folder: str | pathlib.Path) -> list[int]:
  """Steps of the finished checkpoints in a `checkpoints` folder, ascending."""
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def read_meta(path: pathlib.Path) -> dict[str, Any]:
  """The JSON item of the checkpoint at `path`."""
  with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
    meta = reader.restore(path / 'meta')
  if not isinstance(meta, dict) or 'config' not in meta or 'step' not in meta:
    raise ValueError(f'{path}/meta does not hold step and config')
  return meta


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


def _check_same_run(meta: dict[str, Any], config: ConfigDict, path: pathlib.Path) -> None:
  """Raises when the checkpoint's networks or optimizers are not this run's."""
  old, new = meta['config'], json.loads(config.to_json_best_effort())
  changed = [
    line
    for line in config_lib.differences(old, new)
    if line.startswith(('system:', 'model.', 'training.accumulate', 'training.ema_networks'))
    or (line.startswith('optimizers.') and '.name:' in line)
    or (
      line.startswith('training.ema_decay')
      and not all(c['training']['ema_decay'] for c in (old, new))
    )
  ]
  if changed:
    raise CheckpointError(
      f'{path} belongs to a run with other networks or optimizers:\n  '
      + '\n  '.join(changed)
      + '\nGive another --workdir, or start from its weights with --config.init_from='
      + str(path.parent.parent)
    )


def _first_line(error: Exception) -> str:
  text = str(error).strip()
  return f'{type(error).__name__}: {text.splitlines()[0][:300] if text else ""}'


def restore_for_inference(
  workdir: str | pathlib.Path, step: int | None = None
) -> tuple[ConfigDict, dict[str, Any], dict[str, Any], int]:
  """What `predict` needs of a run: averaged parameters where the run keeps averages.

  Args:
    workdir: of a run.
    step: which checkpoint; None: the newest.

  Returns:
    (config, params, stats, step), on the default device.

  Raises:
    CheckpointError: no such checkpoint, with those there are.
  """
  from jaxinpaint import systems

  folder = pathlib.Path(workdir).absolute() / 'checkpoints'
  steps = list_steps(folder)
  if not steps:
    raise CheckpointError(f'{workdir} holds no checkpoint: is it the --workdir of a training run?')
  if step is None:
    step = steps[-1]
  if step not in steps:
    raise CheckpointError(f'{workdir} has no checkpoint of step {step}; there are: {steps}')
  path = folder / str(step)
  try:
    meta = read_meta(path)
    config = ConfigDict(meta['config'])
    networks = systems.make_recipe(config).predict_networks
    params = _read_networks(path / 'params', networks)
    if (path / 'ema').is_dir():
      params |= _read_networks(path / 'ema', networks)
    stats = _read_networks(path / 'stats', networks) if (path / 'stats').is_dir() else {}
  except (OSError, ValueError, KeyError) as error:
    others = [s for s in steps if s != step]
    raise CheckpointError(
      f'checkpoint {path} cannot be read ({_first_line(error)}); other steps here: {others}'
    ) from error
  missing = [n for n in networks if n not in params]
  if missing:
    raise CheckpointError(f'checkpoint {path} lacks the networks {missing}')
  return config, params, {n: stats.get(n, {}) for n in networks if n in stats}, step


def read_weights(workdir: str | pathlib.Path) -> dict[str, Any]:
  """{'params': ..., 'stats': ...} of all networks of the newest checkpoint, averages merged in."""
  folder = pathlib.Path(workdir).absolute() / 'checkpoints'
  steps = list_steps(folder)
  if not steps:
    raise CheckpointError(f'{workdir} holds no checkpoint: is it the --workdir of a training run?')
  path = folder / str(steps[-1])
  items = {n: _read_networks(path / n, None) for n in _ARRAYS if n != 'opt' and (path / n).is_dir()}
  return {
    'params': items['params'] | items.get('ema', {}),
    'stats': items.get('stats', {}),
  }


def _read_networks(path: pathlib.Path, networks: tuple[str, ...] | None) -> dict[str, Any]:
  """Those of `networks` (None: all) that an item holds, whole, on one device."""
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  with ocp.PyTreeCheckpointer() as reader:
    tree = reader.metadata(path).item_metadata.tree
    target = {
      n: jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device), tree[n])
      for n in (tree if networks is None else networks)
      if n in tree
    }
    if not target:
      return {}
    return reader.restore(
      path,
      args=ocp.args.PyTreeRestore(
        target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
      ),
    )
