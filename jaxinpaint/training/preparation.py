"""Everything before the first step: from a config and a workdir to a `Run`.

Whatever the user can get wrong (config, data, weights, checkpoints) fails here, in seconds.
"""

import contextlib
import json
import pathlib
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint.data import pipeline
from jaxinpaint.masks import spec
from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.runtime import activity, atomic, distributed, faults, locks
from jaxinpaint.runtime.environment import commit
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import early_stop, initial, numerics, sharding, state
from jaxinpaint.training.checkpoints import Checkpoints
from jaxinpaint.training.program import Program
from jaxinpaint.training.run import Run, Watch, step_key, stream

# Seconds that a start waits for another run to leave its workdir: a scheduler may restart a job
# before the file system knows that the old machine is gone.
_PATIENCE = 120.0


def total_steps(config: ConfigDict, recipe: Recipe) -> int:
  """config.training.steps, or the length of the recipe's phases where they all have an end."""
  if recipe.steps is None:
    return config.training.steps
  return min(config.training.steps, recipe.steps)


def prepare(
  config: ConfigDict,
  workdir: pathlib.Path,
  alone: contextlib.ExitStack | None = None,
  watch: Callable[[Inference, ConfigDict, pathlib.Path], Watch] | None = None,
) -> Run:
  """Everything before the first step; whatever the user can get wrong fails here.

  Args:
    config: see `training.config.base`.
    workdir: of the run.
    alone: gets the lock that keeps other runs out of the workdir, by process 0; None: no lock.
    watch: see `loop.train`.

  Raises:
    ValueError, OSError: naming the field or path, and the fix.
    locks.InUse: another run is in the workdir.
  """
  config_lib.validate(config)
  if config.training.patience and watch is None:
    raise ValueError(
      f'config.training.patience {config.training.patience} needs evaluations, and this run has no '
      'watch: give one, as evaluation.watch.Watch, or set it to 0'
    )
  mesh = sharding.make_mesh(**config.training.mesh)
  with activity.shown('Tracing the networks'):
    program = Program.of(config, mesh)
  recipe = program.recipe
  distributed.announce(mesh)
  own_rows = sharding.local_rows(config.data.batch_size, mesh)
  with activity.shown('Looking at the data'):
    watched = watch(recipe.inference, config, workdir) if watch else None
    pipeline.check(config.data, config.seed, inputs=recipe.inference.inputs, rows=own_rows)
    _check_holes(config, recipe.inference)
  constants = recipe.load_constants()

  _check_workdir(workdir)
  checkpoints = Checkpoints(workdir, config.checkpoint.keep, config.checkpoint.keep_every)
  checkpoints.check_writable()
  if alone is not None and jax.process_index() == 0:
    alone.enter_context(locks.hold(workdir / '.lock', f'--workdir {workdir}', _PATIENCE))
  with activity.shown('Looking for a checkpoint'):
    restored = checkpoints.restore(program.state, config)
  sick: dict[str, int] = {}
  best: early_stop.Best | None = None
  if restored is None:
    current = _first_state(program, config)
  else:
    current, meta = restored
    sick, best = meta['data'].get('sick', {}), early_stop.stored(meta['data'])
    logging.info('Resumed %s at step %d.', workdir, int(current.step))
    _report_changes(meta, config)
  _write_workdir(workdir, config)

  done = int(current.step)
  guard = numerics.Guard(
    config.training.nan, config.training.nan_limit, workdir, sick, spec.drawer(config.data)
  )
  return Run(
    config=config,
    workdir=workdir,
    recipe=recipe,
    mesh=mesh,
    constants=jax.device_put(constants, sharding.replicated(mesh)),
    state=current,
    train_step=program.train_step,
    checkpoints=checkpoints,
    batches=stream(config, recipe, mesh, done, guard.rollbacks),
    rng=step_key(config, mesh, guard.rollbacks),
    guard=guard,
    watch=watched,
    total=total_steps(config, recipe),
    done=done,
    best=best,
  )


def _check_holes(config: ConfigDict, inference: Inference) -> None:
  """Raises ValueError if the system does not fill such holes as config.data.masks draws."""
  masks, size = spec.make(config.data.masks), config.data.size
  for seed in range(4):
    try:
      inference.check_hole(masks(np.random.default_rng(seed), size, size) > 0)
    except ValueError as error:
      raise ValueError(f'config.data.masks {config.data.masks!r}: {error}') from error


def _first_state(program: Program, config: ConfigDict) -> state.TrainState:
  """The state before the first step; with what config.init_from brings."""
  recipe = program.recipe
  if recipe.pretrained and not config.init_from:
    raise ValueError(
      f'this config wants config.init_from to bring the {", ".join(recipe.pretrained)}: a file '
      f'of `jaxinpaint weights import {config.system} FILE OUT`'
    )
  if not config.init_from:
    logging.info(
      'The networks start from random numbers: holes stay blurred for many thousands of steps. '
      '--config.init_from=NAME starts from trained weights; docs/finetune.md says more.'
    )
  with activity.shown('Initialising the networks'):
    current = jax.block_until_ready(program.random_state(config.seed))
  current = initial.merge(recipe.start(), current)
  if config.init_from:
    current = initial.load(config.init_from, current, recipe)
  return current


def _report_changes(meta: Mapping[str, Any], config: ConfigDict) -> None:
  """Logs what differs between the checkpoint's run and this one."""
  new = json.loads(config.to_json_best_effort())
  for line in config_lib.differences(meta['config'], new):
    logging.warning('Changed since the checkpoint: %s', line)
  was, now = meta['data'].get('length'), pipeline.source_length(config.data)
  if was != now:
    logging.warning(
      'The data had %s images when the checkpoint was saved and has %s now: the order of images '
      'and masks from here on is not that of an uninterrupted run.',
      was,
      now,
    )


def _check_workdir(workdir: pathlib.Path) -> None:
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'--workdir {workdir} is a file: give a folder')
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise faults.StorageError(
      f'--workdir {workdir} cannot be made ({error.strerror}): give another one'
    ) from error


def _write_workdir(workdir: pathlib.Path, config: ConfigDict) -> None:
  """config.json and environment.json; an earlier config that differs is kept beside it."""
  if jax.process_index() != 0:
    return
  path, text = workdir / 'config.json', config.to_json_best_effort(indent=2)
  if path.exists() and path.read_text() != text:
    count = len(list(workdir.glob('config.*.json')))
    path.rename(workdir / f'config.{count}.json')
  atomic.write(path, text)
  devices = jax.devices()
  environment = {
    'jaxinpaint': jaxinpaint.__version__,
    'commit': commit() or '',
    'jax': jax.__version__,
    'python': platform.python_version(),
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'processes': jax.process_count(),
    'arguments': sys.argv[1:],
  }
  atomic.write(workdir / 'environment.json', json.dumps(environment, indent=2))
