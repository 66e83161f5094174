"""The train loop, the same for every system.

Prepares everything that can fail (config, data, weights, checkpoints) before the first
compilation, then repeats: batch -> step -> numbers, evaluations, pictures, checkpoints. A run is
started, resumed and extended by the same command. A resumed run equals one that was never stopped,
to the bit.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable

import jax
from absl import logging
from ml_collections import ConfigDict

from jaxinpaint.recipe import Inference
from jaxinpaint.runtime import activity, faults, locks
from jaxinpaint.training import numerics, preparation, sharding
from jaxinpaint.training.clock import Clock
from jaxinpaint.training.profiling import Profiler
from jaxinpaint.training.run import Run, Watch
from jaxinpaint.training.state import TrainState
from jaxinpaint.training.writers import Writer
from jaxinpaint.weights import checkpoints


def train(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  *,
  watch: Callable[[Inference, ConfigDict, pathlib.Path], Watch] | None = None,
  profile: tuple[int, int] | None = None,
) -> TrainState:
  """Trains, or continues to train, until all steps are done, or an early stop.

  There are `config.training.steps`, or as many as the recipe's phases have. The early stop is that
  of `config.training.patience`.

  Args:
    config: see `training.config.base`.
    workdir: gets config.json, environment.json, metrics.jsonl, starts.jsonl, tb/, checkpoints/,
      samples/ and evaluation/. When it holds checkpoints of the same run, the newest whole one is
      resumed.
    watch: makes the evaluations and pictures that the config asks for, and raises ValueError or
      OSError at once for what would make one fail later; `evaluation.watch.Watch`. None: there are
      no evaluations and no pictures.
    profile: (START, STOP): process 0 traces the steps after START are done, until STOP are, into
      profile/ of the workdir.

  Returns:
    The last state. With config.training.patience the result is that of the best evaluation, which
    `trained.load(workdir)` reads.

  Raises:
    faults.Fault: one of its kinds, with a sentence and an exit code: ConfigurationError before any
      training; Diverged under config.training.nan; Stopped after SIGTERM, SIGUSR1 or the first
      Ctrl-C, when the state is saved; StorageError (CheckpointError) for a disk that cannot be
      written or checkpoints that cannot be used; WorkerLost when other processes are gone.
  """
  began, workdir = time.time(), pathlib.Path(workdir)
  with contextlib.ExitStack() as alone:
    try:
      run = preparation.prepare(config, workdir, alone, watch)
      profiler = Profiler(profile, workdir, run.done, run.total, active=jax.process_index() == 0)
    except (ValueError, OSError, locks.InUse) as error:
      raise faults.ConfigurationError(str(error)) from error
    if run.ended:
      return _nothing_left(run)
    try:
      with faults.StopSignals() as stop:
        return _train(run, profiler, began, stop)
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


def _nothing_left(run: Run) -> TrainState:
  """A run that has all its steps, or stopped early, and perhaps has no evaluation yet."""
  early = ', where it stopped early' if run.stopped_early else ''
  logging.info(
    '%s is at step %d of %d%s: nothing is left to train.', run.workdir, run.done, run.total, early
  )
  run.checkpoints.close()
  if not (run.workdir / 'evaluation' / str(run.result)).exists():
    _evaluate_at_end(run)
  return run.state


def _train(run: Run, profiler: Profiler, began: float, stop: faults.StopSignals) -> TrainState:
  """From the first step to the evaluation at the end."""
  with contextlib.closing(run.checkpoints), contextlib.ExitStack() as files:
    writer = Writer(run.workdir, active=jax.process_index() == 0, start=run.done)
    files.enter_context(contextlib.closing(writer))
    clock = files.enter_context(contextlib.closing(Clock(run, profiler, began)))
    files.push(clock.note_end)
    if run.watch and run.config.training.sample_every and not run.done:
      with clock.paused(), activity.shown('Drawing the first pictures'):
        _show_samples(run.watch, run, writer)
    if not run.done:
      _keep_start(run, clock, writer)
    _loop(run, clock, writer, stop)
    if not run.ended:
      _save(run, clock, writer)
    run.checkpoints.wait()
  if run.stopped_early:
    logging.info('Stopped early, at step %d of %d.', run.done, run.total)
  if run.ended:
    _evaluate_at_end(run)
  clock.report_end()
  if not run.ended:
    raise faults.Stopped(
      f'stopped by a signal; step {run.done} is saved and the same command goes on'
    )
  return run.state


def _keep_start(run: Run, clock: Clock, writer: Writer) -> None:
  """Evaluates and saves what the run starts from, where its result may be that or is compared."""
  if run.watch and run.config.training.patience and run.best is None:
    with activity.shown('Evaluating what the run starts from'):
      _evaluate(run.watch, run, writer)
  if run.best or run.config.init_from:
    _save(run, clock, writer)


def _evaluate(watch: Watch, run: Run, writer: Writer) -> None:
  means = watch.evaluate(run.done, run.state, run.constants)
  writer.scalars(run.done, {f'evaluation/{k}': v for k, v in means.items()})
  run.evaluated(means)


def _evaluate_at_end(run: Run) -> None:
  """The whole evaluation of the run's result, if the config asks for one."""
  if not (run.watch and run.config.evaluation.at_end):
    return
  step, result, before = run.result, run.state.averaged, None
  if step != run.done:
    what = f'of step {step}, the best evaluated one' if step else 'what it started from'
    logging.info('The result of the run is %s.', what)
    result = checkpoints.read(checkpoints.find(run.workdir, step))
  if run.config.init_from and 0 in checkpoints.list_steps(run.checkpoints.folder):
    before = checkpoints.read(checkpoints.find(run.workdir, 0))
  run.watch.final(step, result, run.constants, before)


def _loop(run: Run, clock: Clock, writer: Writer, stop: faults.StopSignals) -> None:
  """Takes the steps that are left, or those before a signal."""
  training, first = run.config.training, run.done + 1
  due = lambda every: every and (run.done % every == 0 or run.ended)
  if training.nan == 'rollback':
    run.save()  # the first step may be a sick one
  while True:
    try:
      if run.ended or stop.reached(run.done):
        clock.settle()
        return
      _step(run, clock)
      if due(training.log_every) or run.done == first:
        terms, speed = clock.read()
        writer.scalars(run.done, terms | speed)
        clock.show(terms, speed)
        run.checkpoints.check()
      evaluated = run.watch and due(training.evaluate_every)
      if run.watch and evaluated:
        with clock.paused():
          _evaluate(run.watch, run, writer)
      if run.watch and due(training.sample_every):
        with clock.paused():
          _show_samples(run.watch, run, writer)
      if due(run.config.checkpoint.every) or evaluated:
        with clock.paused():
          _save(run, clock, writer)
    except numerics.Rollback:
      run.roll_back()
      writer.rewind(run.done)
      clock.rewind()


def _step(run: Run, clock: Clock) -> None:
  """Sends off the next step, and waits for the one before the last."""
  with clock.step():
    with clock.waiting():
      rows = run.next_batch()
      batch = sharding.to_devices(rows, run.mesh)
    program = clock.program(batch, run.recipe.plan(run.done))
    run.state, metrics = program.run(run.state, run.constants, batch, run.rng)
    run.guard.add(run.done, metrics, rows)
    clock.stepped(metrics)
  run.done += 1


def _show_samples(watch: Watch, run: Run, writer: Writer) -> None:
  picture = watch.samples(run.done, run.state, run.constants)
  if picture is not None:
    writer.image(run.done, 'samples', picture)


def _save(run: Run, clock: Clock, writer: Writer) -> None:
  clock.saved()
  writer.flush()  # a kill after the checkpoint must not lose numbers from before it
  run.save()
