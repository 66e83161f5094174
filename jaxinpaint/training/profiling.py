"""A trace of some steps, for TensorBoard (XProf) or Perfetto: train --profile=START:STOP."""

import contextlib
import pathlib

import jax
from absl import logging


class Profiler:
  """Traces a run from the moment that START steps are done until STOP are, into WORKDIR/profile/.

  Args:
    window: (START, STOP); None: no trace.
    workdir: of the run.
    start: steps already done. If the window is before this step, nothing is traced and a warning
      says so; it is not an error, because the same command must be able to resume a run.
    total: steps of the run.
    active: False on all processes but the first: nothing is traced.

  Raises:
    ValueError: the window begins after the last step.
  """

  def __init__(
    self,
    window: tuple[int, int] | None,
    workdir: pathlib.Path,
    start: int,
    total: int,
    active: bool = True,
  ):
    """See the class."""
    self._window, self._folder, self._running = window, workdir / 'profile', False
    if window is None:
      return
    if window[0] >= total:
      raise ValueError(
        f'--profile={window[0]}:{window[1]} begins after the last step: the run has {total} steps, '
        f'so that START must be below {total}'
      )
    if window[1] <= start:
      logging.warning(
        '--profile=%d:%d: the run goes on at step %d, past these steps: nothing is traced.',
        *window,
        start,
      )
      self._window = None
    if not active:
      self._window = None

  def due(self, done: int) -> bool:
    """Whether `switch` has to be called before the next step."""
    if self._window is None:
      return False
    return done >= self._window[1] if self._running else done >= self._window[0]

  def switch(self, done: int) -> None:
    """Begins the trace, or ends it; call it when no step is running.

    Args:
      done: steps done.
    """
    if self._running:
      self.close(done)
    elif self._window and done < self._window[1]:
      self._folder.mkdir(parents=True, exist_ok=True)
      jax.profiler.start_trace(str(self._folder))
      self._running = True
      logging.info('Steps %d to %d are traced.', done, self._window[1])
    else:
      self._window = None

  def step(self, done: int) -> contextlib.AbstractContextManager:
    """A context for the step after `done`: gives the step its name in the trace."""
    if not self._running:
      return contextlib.nullcontext()
    return jax.profiler.StepTraceAnnotation('train', step_num=done)

  def close(self, done: int | None = None) -> None:
    """Ends a running trace and says where it is.

    Args:
      done: steps done; None: the run ends.
    """
    if not self._running:
      return
    self._running, self._window = False, None
    jax.profiler.stop_trace()
    logging.info(
      'The trace (until step %s) is in %s: `tensorboard --logdir %s` (with xprof installed) '
      'shows it; ui.perfetto.dev opens its trace.json.gz.',
      'the last' if done is None else done,
      self._folder,
      self._folder,
    )
