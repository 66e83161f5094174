"""The train loop, the same for every system.

Prepares everything that can fail (config, data, weights, checkpoints) before the first
compilation, then repeats: batch -> step -> numbers, pictures, evaluations, checkpoints. A run is
started, resumed and extended by the same command; what is resumed equals what was never stopped, to
the bit.
"""

import contextlib
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxinpaint.data import pipeline
from jaxinpaint.evaluation import watch as evaluation
from jaxinpaint.masks import spec
from jaxinpaint.runtime import chips, faults, locks
from jaxinpaint.runtime.faults import ConfigurationError
from jaxinpaint.training import checkpoints as checkpoints_lib
from jaxinpaint.training import meter as meter_lib
from jaxinpaint.training import (
  numerics,
  preparation,
  sharding,
  state,
  writers,
)
from jaxinpaint.training.compiled import Compiled, Programs
from jaxinpaint.training.goodput import Goodput
from jaxinpaint.training.preparation import Run
from jaxinpaint.training.profiling import Profiler

# Times in a row that the processes which decode images are started again for one batch.
_RESTARTS = 3


def train(
  config: ConfigDict, workdir: str | pathlib.Path, *, profile: tuple[int, int] | None = None
) -> state.TrainState:
  """Trains, or goes on training, until `config.training.steps` steps are done.

  Args:
    config: see `training.config.base`.
    workdir: gets config.json, environment.json, metrics.jsonl, starts.jsonl, tb/, checkpoints/,
      samples/ and evaluation/. When it holds checkpoints of the same run, the newest whole one is
      resumed.
    profile: (START, STOP): the steps after START are done, until STOP are, are traced into
      profile/ of the workdir, by process 0.

  Returns:
    The last state.

  Raises:
    faults.Fault: one of its kinds, with a sentence and an exit code: ConfigurationError before any
      training; Diverged under config.training.nan; Stopped after SIGTERM, SIGUSR1 or the first
      Ctrl-C, when the state is saved; StorageError (CheckpointError) for a disk that cannot be
      written or checkpoints that cannot be used; WorkerLost when other processes are gone.
  """
  with contextlib.ExitStack() as alone:
    return _train(config, pathlib.Path(workdir), profile, alone)


def _train(
  config: ConfigDict,
  workdir: pathlib.Path,
  profile: tuple[int, int] | None,
  alone: contextlib.ExitStack,
) -> state.TrainState:
  began = time.time()
  try:
    run = preparation.prepare(config, workdir, alone)
    total = preparation.total_steps(config, run.recipe)
    start = int(run.state.step)
    profiler = Profiler(profile, workdir, start, total, active=jax.process_index() == 0)
  except (ValueError, OSError, locks.InUse) as error:
    raise ConfigurationError(str(error)) from error
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
      return _loop(run, start, total, stop, profiler, began)
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


def _loop(
  run: Run,
  start: int,
  total: int,
  stop: faults.StopSignals,
  profiler: Profiler,
  began: float,
) -> state.TrainState:
  """Takes the steps from `start` to `total`."""
  config, first = run.config, jax.process_index() == 0
  writer = writers.Writer(run.workdir, active=first, start=start)
  watch = evaluation.Watch(run.recipe, config, run.workdir, writer)
  if start == 0 and config.training.sample_every:
    watch.samples(0, run.state, run.constants)
  progress = writers.Progress(total, start, active=first)
  policy, limit = config.training.nan, config.training.nan_limit
  guard = numerics.Guard(policy, limit, run.workdir, run.record, spec.drawer(config.data))
  devices = run.mesh.devices.flat
  goodput = Goodput(
    run.workdir, start, f'{len(devices)} x {devices[0].device_kind}', began, active=first
  )
  meter, programs = _meter(run), Programs(run.train_step, run.recipe, len(devices))
  if policy == 'rollback':
    _save(run, writer, guard, None)  # a first step may be sick, too

  def settle() -> None:
    """Waits for the steps under way; what comes then, until meter.resume, is not training."""
    guard.drain()
    meter.ready()

  def save(metrics: dict[str, float] | None) -> None:
    goodput.saved(done, meter.useful_seconds)
    _save(run, writer, guard, metrics)

  done, phase, first_step = start, None, start + 1
  try:
    while True:
      try:
        if done == total or stop.reached(done):
          settle()
          break
        if profiler.due(done):
          settle()
          profiler.switch(done)
          meter.resume()
        with profiler.step(done):
          begun = time.monotonic()
          rows = _next_batch(run, done, guard.rollbacks)
          batch = sharding.to_devices(rows, run.mesh)
          meter.waited(time.monotonic() - begun)
          plan = run.recipe.plan(done)
          if plan.phase != phase:
            phase = plan.phase
            name = run.recipe.phases[phase].name
            logging.info('Phase %r begins or goes on at step %d.', name, done)
          arguments = (run.state, run.constants, batch, run.rng)
          if not programs.has(batch, plan):
            settle()
            seconds = programs.get(*arguments, plan).seconds
            progress.skip(seconds)
            meter.skip(seconds)
          program = programs.get(*arguments, plan)
          run.state, metrics = program.run(*arguments)
          meter.add(metrics, program)
          guard.add(done, metrics, rows)
          meter.ready(guard.under_way)
        done += 1
        progress.step()

        last = done == total
        if done % config.training.log_every == 0 or last or done == first_step:
          scalars, speed = meter.read()
          speed |= meter_lib.memory_used() | {'time/compile_s': programs.seconds}
          share = goodput.share(meter.useful_seconds)
          speed |= {} if share is None else {'time/goodput': share}
          writer.scalars(done, scalars | speed)
          if done == first_step and first:
            _report_start(run, program)
          progress.show(done, _totals(scalars), speed)
          run.checkpoints.check()
        evaluated = None
        if config.training.evaluate_every and (done % config.training.evaluate_every == 0 or last):
          settle()
          evaluated = watch.evaluate(done, run.state, run.constants)
          meter.resume()
        if config.training.sample_every and (done % config.training.sample_every == 0 or last):
          settle()
          watch.samples(done, run.state, run.constants)
          meter.resume()
        if done % config.checkpoint.every == 0 or last or evaluated:
          settle()
          save(evaluated)
          meter.resume()
      except numerics.Rollback:
        done = _roll_back(run, guard.rollbacks)
        writer.rewind(done)
        progress.rewind(done)
        goodput.rewind(done)
        meter, phase = _meter(run), None
    if done < total:
      save(None)
    run.checkpoints.wait()
  finally:
    profiler.close()
    progress.close()
    writer.close()
    run.checkpoints.close()
  if done < total:
    _report_end(done, goodput, meter)
    raise faults.Stopped(f'stopped by a signal; step {done} is saved and the same command goes on')
  if config.evaluation.at_end:
    watch.final(done, run.state, run.constants)
  _report_end(done, goodput, meter)
  return run.state


def _meter(run: Run) -> meter_lib.Meter:
  device = run.mesh.devices.flat[0]
  chip = chips.find(device.device_kind)
  peak = chip and chip.flops(run.config.dtype)
  return meter_lib.Meter(run.config.data.batch_size, run.mesh.size, peak)


def _report_start(run: Run, program: Compiled) -> None:
  """What is known when the first step is done."""
  counts = {n: sum(x.size for x in jax.tree.leaves(p)) for n, p in run.state.params.items()}
  logging.info(
    'Compiled in %.1f s. A step: %s on all devices (useful: %s). Parameters: %s.',
    program.seconds,
    f'{program.flops:.3g} FLOPs' if program.flops else 'FLOPs that the compiler does not tell',
    f'{program.useful_flops:.3g}',
    ', '.join(f'{name} {count:,}' for name, count in counts.items()),
  )
  kind = run.mesh.devices.flat[0].device_kind
  chip = chips.find(kind)
  if chip is None or not chip.flops(run.config.dtype):
    logging.info('No MFU: what %r can do at most in %s is not known.', kind, run.config.dtype)


def _report_end(done: int, goodput: Goodput, meter: meter_lib.Meter) -> None:
  share = goodput.share(meter.useful_seconds)
  if share is not None:
    wall = writers.duration(goodput.wall_seconds)
    logging.info('Step %d, %s since the run first began: goodput %.1f%%.', done, wall, 100 * share)


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
