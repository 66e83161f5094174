"""The train loop, the same for every system.

Prepares everything that can fail (config, data, weights, checkpoints) before the first
compilation, then repeats: batch -> step -> numbers, pictures, evaluations, checkpoints. A run is
started, resumed and extended by the same command; what is resumed equals what was never stopped, to
the bit.
"""

import dataclasses
import functools
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint import distributed, systems
from jaxinpaint.data import brush, masks, pipeline
from jaxinpaint.evaluation import run as evaluation
from jaxinpaint.training import checkpoints as checkpoints_lib
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import (
  faults,
  initial,
  numerics,
  optimizers,
  sharding,
  state,
  step,
  writers,
)
from jaxinpaint.training.faults import ConfigurationError
from jaxinpaint.training.recipe import Recipe

# Times in a row that the processes which decode images are started again for one batch.
_RESTARTS = 3


@dataclasses.dataclass
class Run:
  """A run that is ready to take steps."""

  config: ConfigDict
  workdir: pathlib.Path
  recipe: Recipe
  mesh: jax.sharding.Mesh
  constants: Any
  state: state.TrainState
  train_step: Callable
  checkpoints: checkpoints_lib.Checkpoints
  batches: Iterator[dict[str, np.ndarray]]
  rng: jax.Array
  record: dict[str, int]  # of `numerics.Guard`


def train(config: ConfigDict, workdir: str | pathlib.Path) -> state.TrainState:
  """Trains, or goes on training, until `config.training.steps` steps are done.

  Args:
    config: see `training.config.base`.
    workdir: gets config.json, environment.json, metrics.jsonl, tb/, checkpoints/, samples/ and
      evaluation/. When it holds checkpoints of the same run, the newest whole one is resumed.

  Returns:
    The last state.

  Raises:
    faults.Fault: one of its kinds, with a sentence and an exit code: ConfigurationError before any
      training; Diverged under config.training.nan; Stopped after SIGTERM, SIGUSR1 or the first
      Ctrl-C, when the state is saved; StorageError (CheckpointError) for a disk that cannot be
      written or checkpoints that cannot be used; WorkerLost when other processes are gone.
  """
  workdir = pathlib.Path(workdir)
  try:
    run = prepare(config, workdir)
  except (ValueError, OSError) as error:
    raise ConfigurationError(str(error)) from error
  total = total_steps(config, run.recipe)
  start = int(run.state.step)
  if start >= total:
    logging.info('%s is at step %d of %d: nothing is left to train.', workdir, start, total)
    run.checkpoints.close()
    if config.evaluation.at_end and not (workdir / 'evaluation' / str(start)).exists():
      logging.info('The evaluation at the end is missing; it is made now.')
      watch = evaluation.Watch(run.recipe, config, workdir, writers.Writer(workdir, active=False))
      watch.final(start, run.state, run.constants)
    return run.state
  try:
    with faults.StopSignals() as stop:
      return _loop(run, start, total, stop)
  except OSError as error:
    # Checkpoints and data have sentences of their own: what is left are logs and pictures.
    raise faults.StorageError(
      f'{error.filename or workdir} cannot be written or read ({error.strerror or error}). The '
      'checkpoints are untouched: the same command goes on when there is room'
    ) from error
  except (jax.errors.JaxRuntimeError, ValueError) as error:  # jax raises either of dead processes
    fault = faults.of_the_runtime(error)
    if fault is None:
      raise
    raise fault from error


def total_steps(config: ConfigDict, recipe: Recipe) -> int:
  """config.training.steps, or the length of the recipe's phases where they all have an end."""
  if recipe.steps is None:
    return config.training.steps
  return min(config.training.steps, recipe.steps)


def prepare(config: ConfigDict, workdir: pathlib.Path) -> Run:
  """Everything before the first step; whatever the user can get wrong fails here.

  Raises:
    ValueError, OSError: naming the field or path, and the fix.
  """
  config_lib.validate(config)
  recipe = systems.make_recipe(config)
  mesh = sharding.make_mesh(**config.training.mesh)
  sharding.check_batch(config.data.batch_size, config.data.size, mesh)
  distributed.announce(mesh)
  evaluation.check(config, recipe)
  txs = optimizers.make_optimizers(
    config.optimizers, recipe.optimizers, accumulate=config.training.accumulate
  )
  own_rows = sharding.local_rows(config.data.batch_size, mesh)
  pipeline.check(config.data, config.seed, inputs=recipe.inputs, rows=own_rows)
  constants = recipe.load_constants(True)

  size, rows = config.data.size, config.data.batch_size
  shapes = {
    'image': jax.ShapeDtypeStruct((rows, size, size, 3), np.float32),
    'mask': jax.ShapeDtypeStruct((rows, size, size, 1), np.float32),
    'id': jax.ShapeDtypeStruct((rows,), np.int32),
  }
  init_key = jax.random.fold_in(jax.random.key(config.seed), 0)
  ema = tuple(config.training.ema_networks) if config.training.ema_decay else ()
  absent = [n for n in ema if n not in recipe.networks]
  if absent:
    raise ValueError(f'config.training.ema_networks {absent} are not among {recipe.networks}')

  def create(key):
    # The parameters depend on the shapes of a batch, not on what is in it.
    batch = jax.tree.map(lambda s: jax.numpy.zeros((1, *s.shape[1:]), s.dtype), shapes)
    return state.create(recipe, txs, ema, key, batch)

  abstract = jax.eval_shape(create, init_key)
  min_size = config.training.mesh.get('fsdp_min_size', sharding.FSDP_MIN_SIZE)
  placed = sharding.state_sharding(abstract, mesh, min_size)
  abstract = jax.tree.map(
    lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), abstract, placed
  )

  _check_workdir(workdir)
  checkpoints = checkpoints_lib.Checkpoints(
    workdir,
    keep=config.checkpoint.keep,
    keep_every=config.checkpoint.keep_every,
    best=config.checkpoint.best if config.training.evaluate_every else '',
  )
  checkpoints.check_writable()
  restored = checkpoints.restore(abstract, config)
  record: dict[str, int] = {}
  if restored is None:
    current = jax.jit(create, out_shardings=placed)(init_key)
    current = initial.merge(recipe.start(), current)
    if recipe.pretrained and not config.init_from:
      raise ValueError(
        f'this config wants config.init_from to bring the {", ".join(recipe.pretrained)}: a file '
        f'of `python -m jaxinpaint.weights import {config.system} FILE OUT`'
      )
    if config.init_from:
      current = initial.load(config.init_from, current, recipe)
  else:
    current, meta = restored
    record = meta['data'].get('sick', {})
    logging.info('Resumed %s at step %d.', workdir, int(current.step))
    _report_changes(meta, config)
  _write_workdir(workdir, config)

  replicated = sharding.replicated(mesh)
  constants = jax.device_put(constants, replicated)
  train_step = step.make_train_step(
    recipe,
    txs,
    ema_decay=config.training.ema_decay,
    accumulate=config.training.accumulate,
    state_sharding=placed,
    constants_sharding=replicated,
    replicated=replicated,
    draw_masks=_draw_masks(config.data),
  )
  rollbacks = record.get('rollbacks', 0)
  batches = _batches(config, recipe, mesh, int(current.step), rollbacks)
  rng = _key(config, mesh, rollbacks)
  return Run(
    config, workdir, recipe, mesh, constants, current, train_step, checkpoints, batches, rng, record
  )


def _batches(
  config: ConfigDict, recipe: Recipe, mesh: jax.sharding.Mesh, start: int, rollbacks: int
) -> pipeline.Batches:
  """The stream from step `start` on, after so many returns of a run whose numbers were sick."""
  return pipeline.make(
    config.data,
    numerics.seed_after(config.seed, rollbacks),
    start_step=start,
    inputs=recipe.inputs,
    rows=sharding.local_rows(config.data.batch_size, mesh),
  )


def _key(config: ConfigDict, mesh: jax.sharding.Mesh, rollbacks: int) -> jax.Array:
  """The key of all steps, on every device; made there: keys cannot be put on other processes'."""

  def make() -> jax.Array:
    return numerics.key_after(jax.random.fold_in(jax.random.key(config.seed), 1), rollbacks)

  return jax.jit(make, out_shardings=sharding.replicated(mesh))()


def _draw_masks(data: ConfigDict) -> Callable | None:
  """What draws the masks inside the step; None where the pipeline does."""
  if not data.masks_on_device:
    return None
  return functools.partial(brush.draw_on_device, brush=masks.make(data.masks))


def _loop(run: Run, start: int, total: int, stop: faults.StopSignals) -> state.TrainState:
  """Takes the steps from `start` to `total`."""
  config, first = run.config, jax.process_index() == 0
  writer = writers.Writer(run.workdir, active=first, start=start)
  if first:
    for network, params in run.state.params.items():
      count = parameter_overview.count_parameters(params)
      logging.info('%s: %s parameters', network, f'{count:,}')
  watch = evaluation.Watch(run.recipe, config, run.workdir, writer)
  if start == 0 and config.training.sample_every:
    watch.samples(0, run.state, run.constants)
  progress = writers.Progress(total, start, active=first)
  policy, limit = config.training.nan, config.training.nan_limit
  guard = numerics.Guard(policy, limit, run.workdir, run.record, _draw_masks(config.data))
  if policy == 'rollback':
    _save(run, writer, guard, None)  # a first step may be sick, too
  meter = _Meter(config.data.batch_size)
  done, phase, first_step = start, None, start + 1
  try:
    while True:
      try:
        if done == total or stop.reached(done):
          guard.drain()
          break
        begun = time.monotonic()
        rows = _next_batch(run, done, guard.rollbacks)
        batch = sharding.to_devices(rows, run.mesh)
        meter.waited += time.monotonic() - begun
        plan = run.recipe.plan(done)
        if plan.phase != phase:
          phase = plan.phase
          name = run.recipe.phases[phase].name
          logging.info('Phase %r begins or goes on at step %d.', name, done)
        run.state, metrics = run.train_step(run.state, run.constants, batch, run.rng, plan)
        guard.add(done, metrics, rows)
        meter.add(metrics)
        done += 1
        progress.step()

        last = done == total
        if done % config.training.log_every == 0 or last or done == first_step:
          # The first step of a start is shown at once; its time is mostly compilation.
          scalars, speed = meter.read()
          writer.scalars(done, scalars | speed)
          progress.show(done, _totals(scalars), speed)
          run.checkpoints.check()
        evaluated = None
        if config.training.evaluate_every and (done % config.training.evaluate_every == 0 or last):
          guard.drain()
          evaluated = watch.evaluate(done, run.state, run.constants)
          meter.pause()
        if config.training.sample_every and (done % config.training.sample_every == 0 or last):
          guard.drain()
          watch.samples(done, run.state, run.constants)
          meter.pause()
        if done % config.checkpoint.every == 0 or last or evaluated:
          guard.drain()
          _save(run, writer, guard, evaluated)
          meter.pause()
      except numerics.Rollback:
        done = _roll_back(run, guard.rollbacks)
        writer.rewind(done)
        progress.rewind(done)
        meter, phase = _Meter(config.data.batch_size), None
    if done < total:
      _save(run, writer, guard, None)
    run.checkpoints.wait()
  finally:
    progress.close()
    writer.close()
    run.checkpoints.close()
  if done < total:
    raise faults.Stopped(f'stopped by a signal; step {done} is saved and the same command goes on')
  if config.evaluation.at_end:
    watch.final(done, run.state, run.constants)
  return run.state


def _next_batch(run: Run, done: int, rollbacks: int) -> dict[str, np.ndarray]:
  """This process's rows of batch `done`; dead worker processes are replaced.

  A batch follows from its number alone, so that new workers go on where the old ones were.
  """
  for attempt in range(_RESTARTS + 1):
    try:
      return next(run.batches)
    except RuntimeError as error:  # grain's word for a worker that is gone
      cause = str(error).splitlines()[0]
      if not run.config.data.workers:
        raise
      if attempt == _RESTARTS:
        raise faults.WorkerLost(
          f'the {run.config.data.workers} processes that decode images died {attempt + 1} times at '
          f'batch {done} ({cause}). Exit code -9 is usually the kernel, out of memory: set fewer '
          'config.data.workers. The checkpoints are untouched; the same command goes on'
        ) from error
      logging.error('A process that decodes images died (%s); all are started again.', cause)
      run.batches.close()
      run.batches = _batches(run.config, run.recipe, run.mesh, done, rollbacks)
    except (ValueError, OSError) as error:
      raise faults.StorageError(
        f'batch {done} cannot be read: {error}. The checkpoints are untouched; the same command '
        'goes on when the data is back'
      ) from error
  raise AssertionError('unreachable')


def _save(
  run: Run, writer: writers.Writer, guard: numerics.Guard, metrics: dict[str, float] | None
) -> None:
  # What a checkpoint is about to confirm must not be lost in a kill afterwards.
  writer.flush()
  run.record = guard.record
  run.checkpoints.save(run.state, run.config, _position(run), metrics)
  guard.saved()


def _roll_back(run: Run, rollbacks: int) -> int:
  """Gives the run the state of its newest whole checkpoint, and other data; the steps done."""
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), run.state
  )
  run.checkpoints.wait()
  restored = run.checkpoints.restore(abstract, run.config)
  if restored is None:
    raise checkpoints_lib.CheckpointError(
      f'{run.checkpoints.folder} holds no checkpoint any more to go back to'
    )
  run.state = restored[0]
  done = int(run.state.step)
  run.batches.close()
  run.batches = _batches(run.config, run.recipe, run.mesh, done, rollbacks)
  run.rng = _key(run.config, run.mesh, rollbacks)
  logging.warning('Back at step %d; images and random numbers are others from here on.', done)
  return done


def _position(run: Run) -> dict[str, Any]:
  """Where the data is: the step is enough, the rest lets a resumed run notice a change."""
  data = run.config.data
  return {
    'next_batch': int(run.state.step),
    'seed': run.config.seed,
    'batch_size': data.batch_size,
    'length': pipeline.source_length(data),
    'sick': run.record,
  }


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


def _totals(scalars: Mapping[str, float]) -> dict[str, float]:
  """{update: its total loss}, for the terminal; every term where none is called total."""
  totals = {k.removesuffix('/total'): v for k, v in scalars.items() if k.endswith('/total')}
  return totals or dict(scalars)


class _Meter:
  """Means of the metrics and the speed since the last reading."""

  def __init__(self, batch_size: int):
    self._batch_size = batch_size
    self._metrics: list[Mapping[str, jax.Array]] = []
    self._begun = self._last = time.monotonic()
    self._paused = 0.0
    self.waited = 0.0

  def add(self, metrics: Mapping[str, jax.Array]) -> None:
    self._metrics.append(metrics)
    self._last = time.monotonic()

  def pause(self) -> None:
    """What happened since the last step was not training."""
    now = time.monotonic()
    self._paused += now - self._last
    self._last = now

  def read(self) -> tuple[dict[str, float], dict[str, float]]:
    values = jax.device_get(self._metrics)
    healthy = [m for m in values if m['finite']]
    seconds = max(time.monotonic() - self._begun - self._paused, 1e-9)
    names = dict.fromkeys(k for m in values for k in m if k != 'finite')
    # Steps whose changes were dropped would make every mean NaN; alone they are shown.
    shown = healthy or values
    names = [k for k in names if any(k in m for m in shown)]
    means = {k: float(np.mean([m[k] for m in shown if k in m])) for k in names}
    if len(healthy) < len(values):
      means['sick_steps'] = float(len(values) - len(healthy))
    speed = {
      'speed/img_per_s': len(values) * self._batch_size / seconds,
      'speed/step_ms': 1e3 * seconds / len(values),
      'speed/data_wait': self.waited / seconds,
    }
    self._metrics, self._paused, self.waited = [], 0.0, 0.0
    self._begun = self._last = time.monotonic()  # a pause after this one is counted from here
    return means, speed


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
  _replace(path, text)
  devices = jax.devices()
  environment = {
    'jaxinpaint': jaxinpaint.__version__,
    'commit': _commit(),
    'jax': jax.__version__,
    'python': platform.python_version(),
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'processes': jax.process_count(),
    'arguments': sys.argv[1:],
  }
  _replace(workdir / 'environment.json', json.dumps(environment, indent=2))


def _replace(path: pathlib.Path, text: str) -> None:
  """Writes under another name, then renames: a kill leaves the old file or the new one."""
  new = path.with_name(f'.{path.name}.{os.getpid()}')
  new.write_text(text)
  os.replace(new, path)


def _commit() -> str:
  """The commit of the code that runs; '' outside a git checkout."""
  here = pathlib.Path(__file__).parent
  try:
    done = subprocess.run(
      ['git', 'describe', '--always', '--dirty'], cwd=here, capture_output=True, text=True
    )
  except FileNotFoundError:
    return ''
  return done.stdout.strip() if done.returncode == 0 else ''
