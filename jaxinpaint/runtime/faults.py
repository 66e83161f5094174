"""How a run ends when it does not reach its last step: exceptions, exit codes, signals.

  code  meaning                                                     the same command again
  0     every step is done                                          says so and does nothing
  1     an unforeseen error, with a traceback                       perhaps meets it again
  2     a flag or config file is wrong                              no: correct the command
  65    numbers are not finite and the policy says stop             no: see config.training.nan
  69    another process, or the data's workers, died                yes
  74    checkpoints or logs cannot be written or read               yes, once there is space
  75    SIGTERM, SIGUSR1 or Ctrl-C: the state is saved              yes
  78    the config, the data or the workdir do not allow a run      no: correct them

65 to 78 are those of sysexits.h. 128 + n is signal n without a handler (137: SIGKILL, also by the
kernel when memory ran out; 134: jax's coordination service met a dead process while this one could
not answer): nothing was saved at the end, and the same command goes on from the last checkpoint.
See docs/faults.md.
"""

import os
import signal
import sys
import time
import traceback
from typing import Any

import jax
import numpy as np
from absl import logging


class Fault(Exception):
  """A sentence for the user, shown without a traceback."""

  exit_code = 1


class ConfigurationError(Fault):
  """The run cannot begin; the message says what to change."""

  exit_code = 78


class Diverged(Fault):
  """A loss or gradient became NaN or infinite; the message names update, term and step."""

  exit_code = 65


class WorkerLost(Fault):
  """Another process of the run, or a worker that decodes images, is gone."""

  exit_code = 69


class StorageError(Fault):
  """The workdir cannot be written or read; the message says which part and what is safe."""

  exit_code = 74


class Stopped(Fault):
  """A signal ended the run; its state is saved."""

  exit_code = 75


# Seconds between two exchanges in which the processes tell each other about signals. Schedulers
# leave 30 s between the signal and the kill.
_ASK_EVERY = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopSignals:
  """Turns SIGTERM, SIGUSR1 and the first Ctrl-C into a stop at the next step, on all processes."""

  def __enter__(self) -> 'StopSignals':
    self.received: int | None = None
    self._ask_at, self._asked, self._questions, self._clock = 0, 0, 0, time.monotonic()
    self._steps = 1  # between the last two questions
    self._old = {}
    for number in _SIGNALS:
      try:
        self._old[number] = signal.signal(number, self._receive)
      except ValueError:  # not in the main thread: the caller keeps its own handlers
        logging.info('Not in the main thread: signals are left to the caller.')
        break
    return self

  def __exit__(self, *_) -> None:
    for number in self._old:
      self._restore(number)

  def _restore(self, number: int) -> None:
    # None: the handler was not set from Python, and cannot be set from here.
    old = self._old[number]
    signal.signal(number, signal.SIG_DFL if old is None else old)

  def _receive(self, number: int, frame: Any) -> None:
    self.received = number
    # A second signal ends the process as it always did.
    self._restore(number)
    logging.warning('%s: saving at the next step.', signal.Signals(number).name)

  def reached(self, done: int) -> bool:
    """Whether to stop before the step after `done`; the same answer on every process.

    Several processes ask each other only every few steps, about two seconds apart, because each
    question waits for the device.
    """
    if jax.process_count() == 1:
      return self.received is not None
    if done < self._ask_at:
      return False
    from jax.experimental import multihost_utils

    now = time.monotonic()
    pace = (now - self._clock) / max(done - self._asked, 1)
    self._asked, self._clock = done, now
    mine = np.array([self.received or 0, pace], np.float32)
    received, paces = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, 2).T
    # Computed from what all processes have gathered, so that all ask again at the same step. The
    # first steps after a start include compilation and say nothing about the pace. Nor do the next
    # ones, which are dispatched before the host waits for any (on CPU a question may overtake
    # them). So the interval grows slowly.
    first, self._questions = self._questions < 3, self._questions + 1
    steps = 1 if first else int(np.clip(_ASK_EVERY / max(paces.max(), 1e-3), 1, 2 * self._steps))
    self._steps = min(steps, 50)
    self._ask_at = done + steps
    if received.any() and self.received is None:
      self.received = int(received.max())
      logging.warning('Another process got %s.', signal.Signals(self.received).name)
    return bool(received.any())


def of_the_runtime(error: Exception) -> Fault | None:
  """The fault behind an error of jax in a run of several processes; None: unknown."""
  if jax.process_count() == 1:
    return None
  text = str(error)
  words = ('gloo', 'nccl', 'connection', 'socket', 'unavailable', 'deadline', 'heartbeat', 'peer')
  if not any(w in text.lower() for w in words):
    return None
  line = text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__
  return WorkerLost(
    f'process {jax.process_index()} of {jax.process_count()} lost the others ({line}). One of them '
    'ended or cannot be reached: its own log says why. The checkpoints are untouched; start all '
    'processes again with the same command'
  )


def leave(error: BaseException) -> None:
  """Ends the process with the exit code of `error`, a sentence or a traceback on stderr.

  In a run of several processes, one that fails alone does not wait for the others; jax's own
  shutdown would wait for minutes.
  """
  code = error.exit_code if isinstance(error, Fault) else 1
  if isinstance(error, Fault):
    logging.debug('traceback', exc_info=error)
    sys.stderr.write(f'jaxinpaint train: {error}\n')
  else:
    traceback.print_exception(error)
  if jax.process_count() > 1 and not isinstance(error, Stopped):
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)
