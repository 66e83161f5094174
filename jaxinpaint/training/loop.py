"""The train loop, the same for every system.

Prepares everything that can fail (config, data, weights, checkpoints) before the first
compilation, then repeats: batch -> step -> numbers, pictures, evaluations, checkpoints. A run is
started, resumed and extended by the same command; what is resumed equals what was never stopped, to
the bit.
"""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from ml_collections import ConfigDict

from jaxinpaint.data import masks, pipeline
from jaxinpaint.evaluation import run as evaluation
from jaxinpaint.training import checkpoints as checkpoints_lib
from jaxinpaint.training import faults, numerics, preparation, sharding, state, writers
from jaxinpaint.training.faults import ConfigurationError
from jaxinpaint.training.preparation import Run

# Times in a row that the processes which decode images are started again for one batch.
_RESTARTS = 3


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
    run = preparation.prepare(config, workdir)
  except (ValueError, OSError) as error:
    raise ConfigurationError(str(error)) from error
  total = preparation.total_steps(config, run.recipe)
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
  guard = numerics.Guard(policy, limit, run.workdir, run.record, masks.drawer(config.data))
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
      run.batches = preparation.batches(run.config, run.recipe, run.mesh, done, rollbacks)
    except (ValueError, OSError) as error:
      raise faults.StorageError(
        f'batch {done} cannot be read: {error}. The checkpoints are untouched; the same command '
        'goes on when the data is back'
      ) from error
  raise AssertionError('unreachable')


def _save(
  run: Run,
  writer: writers.Writer,
  guard: numerics.Guard,
  metrics: dict[str, float] | None,
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
  run.batches = preparation.batches(run.config, run.recipe, run.mesh, done, rollbacks)
  run.rng = preparation.key(run.config, run.mesh, rollbacks)
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
