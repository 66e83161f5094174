"""Where a run's time goes: the one object through which the loop takes, shows and stores it.

What the loop does is training, unless it stands under `clock.paused()`: evaluations, pictures,
checkpoints, compilations and traces do. docs/monitoring.md defines the numbers.
"""

import contextlib
from collections.abc import Iterator, Mapping

import jax
from absl import logging

from jaxinpaint.recipe import Plan
from jaxinpaint.runtime import activity, chips
from jaxinpaint.training.compiled import Compiled, Programs
from jaxinpaint.training.goodput import Goodput
from jaxinpaint.training.meter import Meter, memory_used
from jaxinpaint.training.profiling import Profiler
from jaxinpaint.training.run import Run
from jaxinpaint.training.writers import Progress, duration


class Clock:
  """The time of a run, from here on.

  Args:
    run: ready to take steps.
    profiler: which steps are traced.
    began: when this start began, in seconds since 1970.
  """

  def __init__(self, run: Run, profiler: Profiler, began: float):
    """See the class."""
    first, devices = jax.process_index() == 0, run.mesh.devices.flat
    place = f'{len(devices)} x {devices[0].device_kind}'
    self._run, self._profiler = run, profiler
    self._progress = Progress(run.total, run.done, active=first)
    self._goodput = Goodput(run.workdir, run.done, place, began, active=first, steps=run.total)
    self._programs = Programs(run.train_step, run.recipe, len(devices))
    self._meter = self._new_meter()
    self._phase: int | None = None
    self._program: Compiled | None = None
    self._started = not first

  def _new_meter(self) -> Meter:
    return Meter(self._run.config.data.batch_size, self._run.mesh.size, self._peak())

  def _peak(self) -> float | None:
    """FLOP/s that one device can do at most; None where that is not known."""
    chip = chips.find(self._run.mesh.devices.flat[0].device_kind)
    return chip.flops(self._run.config.dtype) if chip else None

  def settle(self) -> None:
    """Waits for the steps under way, and checks their numbers.

    Raises:
      numerics.Rollback, faults.Diverged: as the guard decides.
    """
    self._run.guard.drain()
    self._meter.ready()

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Around what is not training; the steps under way are waited for and checked first."""
    self.settle()
    with self._meter.paused():
      yield

  @contextlib.contextmanager
  def step(self) -> Iterator[None]:
    """Around the work of one step; a trace begins or ends before it where one is due."""
    if self._profiler.due(self._run.done):
      with self.paused():
        self._profiler.switch(self._run.done)
    with self._profiler.step(self._run.done):
      yield

  def waiting(self) -> contextlib.AbstractContextManager[None]:
    """Around the wait for the next batch."""
    return self._meter.waiting()

  def program(self, batch: Mapping[str, jax.Array], plan: Plan) -> Compiled:
    """The compiled step of a plan for such a batch; compiles it if it is new."""
    run = self._run
    if plan.phase != self._phase:
      self._phase = plan.phase
      name = run.recipe.phases[plan.phase].name
      logging.info('Phase %r begins or goes on at step %d.', name, run.done)
    program = self._programs.find(batch, plan)
    if program is None:
      name, updates = run.recipe.phases[plan.phase].name, ', '.join(plan.updates) or 'no update'
      doing = activity.shown(f'Compiling a step of phase {name!r} ({updates})')
      with self.paused(), doing:
        program = self._programs.compile(run.state, run.constants, batch, run.rng, plan)
      self._progress.skip(program.seconds)
    self._program = program
    return program

  def stepped(self, metrics: Mapping[str, jax.Array]) -> None:
    """A step of the last `program` is under way, and the guard knows of it."""
    self._meter.add(metrics, self._program)
    self._meter.ready(self._run.guard.under_way)
    self._progress.step()

  def read(self) -> tuple[dict[str, float], dict[str, float]]:
    """The numbers since the last reading; waits for the last step.

    Returns:
      {update/term: mean}, and the speed/, memory/ and time/ numbers of docs/monitoring.md.
    """
    terms, speed = self._meter.read()
    speed |= memory_used() | {'time/compile_s': self._programs.seconds}
    share = self._goodput.share(self._meter.useful_seconds)
    if share is not None:
      speed['time/goodput'] = share
    if self._program and not self._started:
      self._started = True
      self._report_start(self._program)
    return terms, speed

  def show(self, terms: Mapping[str, float], speed: Mapping[str, float]) -> None:
    """What `read` gave, on the terminal: of the losses the totals, or all where there are none."""
    totals = {k.removesuffix('/total'): v for k, v in terms.items() if k.endswith('/total')}
    self._progress.show(self._run.done, totals or terms, speed)

  def saved(self) -> None:
    """A checkpoint is about to be written."""
    self._goodput.saved(self._run.done, self._meter.useful_seconds)

  def rewind(self) -> None:
    """The run went back to a checkpoint."""
    self._progress.rewind(self._run.done)
    self._goodput.rewind(self._run.done)
    self._meter, self._phase = self._new_meter(), None

  def close(self) -> None:
    """Ends a trace that is under way, and the bar."""
    self._profiler.close()
    self._progress.close()

  def _report_start(self, program: Compiled) -> None:
    """What is known when the first step is done."""
    run = self._run
    counts = {n: sum(x.size for x in jax.tree.leaves(p)) for n, p in run.state.params.items()}
    logging.info(
      'Compiled in %.1f s. A step: %s on all devices (useful: %s). Parameters: %s.',
      program.seconds,
      f'{program.flops:.3g} FLOPs' if program.flops else 'FLOPs that the compiler does not tell',
      f'{program.useful_flops:.3g}',
      ', '.join(f'{name} {count:,}' for name, count in counts.items()),
    )
    if not self._peak():
      kind, dtype = run.mesh.devices.flat[0].device_kind, run.config.dtype
      logging.info('No MFU: what %r can do at most in %s is not known.', kind, dtype)

  def note_end(self, kind: type | None, error: BaseException | None, trace: object) -> None:
    """Notes how this start ended; for `contextlib.ExitStack.push`, which tells the error."""
    run, how = self._run, 'stopped'
    if error is not None:
      how = type(error).__name__
    elif run.ended:
      how = 'early stop' if run.done < run.total else 'finished'
    try:
      self._goodput.ended(run.done, how, str(error or ''))
    except OSError as problem:  # a full disk, as a rule: the error itself matters more
      logging.debug('The end of the run is not noted: %s', problem)

  def report_end(self) -> None:
    """The last line of a start: how long the run took, and its goodput."""
    share = self._goodput.share(self._meter.useful_seconds)
    if share is not None:
      wall = duration(self._goodput.wall_seconds)
      logging.info(
        'Step %d, %s since the run first began: goodput %.1f%%.', self._run.done, wall, 100 * share
      )
