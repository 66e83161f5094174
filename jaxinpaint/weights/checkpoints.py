"""Reads networks from a run's checkpoints, for inference and as the start of other runs.

`training.checkpoints` writes them. WORKDIR/checkpoints/STEP/ holds the items params, stats, opt and
ema (arrays, by orbax) and meta (JSON with the config). Only params, stats and ema are read here,
and of these only the networks that are asked for.

Importing this module imports orbax, which takes a second: import it where a run is read.
"""

import contextlib
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxinpaint.recipe import Variables
from jaxinpaint.weights import checksums
from jaxinpaint.weights.store import MissingWeights, StoreError


def list_steps(folder: str | pathlib.Path) -> list[int]:
  """Steps of the finished checkpoints in a `checkpoints` folder, ascending."""
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def find(workdir: str | pathlib.Path, step: int | None = None) -> pathlib.Path:
  """The folder of one checkpoint of a run.

  Args:
    workdir: of the run.
    step: of the checkpoint; None: the newest, or what the newest one says is the result of the run
      (the best evaluated step, where the run has an early stop).

  Raises:
    MissingWeights: there is none; the message lists the steps that there are.
    StoreError: the newest one cannot be read.
  """
  folder = pathlib.Path(workdir).absolute() / 'checkpoints'
  steps = list_steps(folder)
  if not steps:
    raise MissingWeights(f'{workdir} holds no checkpoint: is it the --workdir of a training run?')
  if step is None:
    meta = read_meta(folder / str(steps[-1]))
    step = meta.get('data', {}).get('result', steps[-1])
  if step not in steps:
    raise MissingWeights(f'{workdir} has no checkpoint of step {step}; there are: {steps}')
  return folder / str(step)


def read_meta(path: pathlib.Path) -> dict[str, Any]:
  """The JSON item of the checkpoint at `path`.

  Raises:
    StoreError: it cannot be read, or lacks the config or the step.
  """
  try:
    checksums.verify(path, ('meta',))
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
      meta = reader.restore(path / 'meta')
  except (OSError, ValueError, KeyError) as error:
    raise _unreadable(path, error) from error
  if not isinstance(meta, dict) or 'config' not in meta or 'step' not in meta:
    raise _unreadable(path, ValueError('its meta does not hold step and config'))
  return meta


def read(path: pathlib.Path, networks: Sequence[str] | None = None) -> Variables:
  """Parameters and statistics, on the default device; averages where the run keeps them.

  Args:
    path: of a checkpoint, see `find`.
    networks: names of the networks wanted; None: all.

  Returns:
    Of the networks that the checkpoint holds.

  Raises:
    StoreError: a file is missing or damaged; the message names it and the other steps.
  """
  try:
    checksums.verify(path, ('params', 'ema', 'stats'))
    params = read_item(path / 'params', networks)
    if (path / 'ema').is_dir():
      params |= read_item(path / 'ema', networks)
    stats = read_item(path / 'stats', networks) if (path / 'stats').is_dir() else {}
  except (OSError, ValueError, KeyError) as error:
    raise _unreadable(path, error) from error
  return Variables(params, stats)


def read_item(path: pathlib.Path, networks: Sequence[str] | None) -> dict[str, Any]:
  """One item of a checkpoint, {network: tree}, complete, on one device.

  Args:
    path: of the item, CHECKPOINT/params for example.
    networks: only these, if the item has them; None: all.
  """
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  with _without_warnings(), ocp.PyTreeCheckpointer() as reader:
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


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  """Orbax warns that an item has no metadata of its own; the checkpoint that it is in has them."""
  logger = logging.getLogger('absl')
  wanted = lambda record: not str(record.msg).startswith('Metadata file does not exist')
  logger.addFilter(wanted)
  try:
    yield
  finally:
    logger.removeFilter(wanted)


def _unreadable(path: pathlib.Path, error: Exception) -> StoreError:
  others = [s for s in list_steps(path.parent) if str(s) != path.name]
  lines = str(error).strip().splitlines()
  why = lines[0][:300] if lines else type(error).__name__
  return StoreError(f'checkpoint {path} cannot be read ({why}); other steps here: {others}')
