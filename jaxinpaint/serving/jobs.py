"""A queue with a bound, and the one thread that works it off.

  queue = Queue(work, limits)
  job = queue.submit(request, size)    # Full: nothing was accepted
  job.future.result()                  # what work(job) returned, or the error that it raised

A job that was accepted ends in exactly one of the states done, failed and cancelled. One that is
cancelled, or waits beyond the end of the server, is never started. Work that runs cannot be
interrupted: what it returns after its time limit or a cancellation is dropped.
"""

import collections
import concurrent.futures
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from absl import logging

from jaxinpaint.serving.limits import Limits

QUEUED, LOADING, COMPILING, RUNNING, WRITING = (
  'queued',
  'loading',
  'compiling',
  'running',
  'writing',
)
DONE, FAILED, CANCELLED = 'done', 'failed', 'cancelled'
STATES = (QUEUED, LOADING, COMPILING, RUNNING, WRITING, DONE, FAILED, CANCELLED)
ENDS = (DONE, FAILED, CANCELLED)


class Full(Exception):
  """No more jobs, or bytes, are taken now."""


class Overdue(Exception):
  """A job ran longer than its limit."""


class Closed(Exception):
  """The server is ending."""


class Cancelled(Exception):
  """Somebody cancelled the job."""


@dataclasses.dataclass(eq=False)
class Job:
  """Something to do, accepted.

  Attributes:
    request: what `work` reads; dropped when the job ends.
    size: bytes that the request holds.
    id: not to be guessed: who knows it may see, cancel and fetch the job.
    state: one of STATES; `work` may set those between queued and done.
    estimate: seconds that the present state may take; None: unknown.
    since: when the present state began, as the queue's clock.
    result_size: bytes that the result holds.
    future: the result.
  """

  request: Any
  size: int
  id: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(18))
  state: str = QUEUED
  estimate: float | None = None
  since: float = 0.0
  started: float | None = None
  ended: float | None = None
  result_size: int = 0
  future: concurrent.futures.Future = dataclasses.field(default_factory=concurrent.futures.Future)
  clock: Callable[[], float] = time.monotonic

  def __post_init__(self):
    self._lock = threading.Lock()  # between the worker and whoever ends the job
    # So that whoever waits cannot cancel the future itself, which the worker is to set.
    self.future.set_running_or_notify_cancel()

  def enter(self, state: str, estimate: float | None = None) -> None:
    """Goes to another state, unless the job has ended."""
    with self._lock:
      if self.state not in ENDS:
        self.state, self.estimate, self.since = state, estimate, self.clock()


class Queue:
  """See the module.

  Args:
    work: job -> result, called by the one thread; a result may have the attribute `data`, bytes.
    limits: of the server.
    clock: seconds, for tests.
    ended: is called with each job that ended, and its state.
  """

  def __init__(
    self,
    work: Callable[[Job], Any],
    limits: Limits,
    clock: Callable[[], float] = time.monotonic,
    ended: Callable[[Job], object] = lambda job: None,
  ):
    self._work, self._limits, self._clock, self._ended = work, limits, clock, ended
    self._changed = threading.Condition()
    self._waiting: collections.deque[Job] = collections.deque()
    self._jobs: dict[str, Job] = {}  # of which somebody may still ask
    self._running: Job | None = None
    self._reserved = 0
    self._closed = False
    self._thread = threading.Thread(target=self._run, name='jaxinpaint-worker', daemon=True)
    self._thread.start()

  def reserve(self, size: int) -> None:
    """Takes bytes of a body that is being received, until `release`.

    Raises:
      Full: too many are held.
    """
    with self._changed:
      if self.held + size > self._limits.held_bytes:
        raise Full
      self._reserved += size

  def release(self, size: int) -> None:
    """Gives back what was reserved."""
    with self._changed:
      self._reserved -= size

  @property
  def held(self) -> int:
    """Bytes of bodies that are received or wait, and of results."""
    return self._reserved + sum(job.size + job.result_size for job in self._jobs.values())

  @property
  def waiting(self) -> int:
    """Jobs that wait for the worker."""
    return len(self._waiting)

  @property
  def running(self) -> Job | None:
    """The job that the worker is at, even if it has ended for whoever asked for it."""
    return self._running

  def check(self) -> None:
    """Raises Full or Closed where a job would not be accepted now."""
    if self._closed:
      raise Closed
    if len(self._waiting) >= self._limits.waiting:
      raise Full

  def submit(self, request: Any, size: int) -> Job:
    """Accepts a job.

    Raises:
      Full: the queue is.
      Closed: the server is ending.
    """
    with self._changed:
      self.check()
      job = Job(request, size, clock=self._clock, since=self._clock())
      self._jobs[job.id] = job
      self._waiting.append(job)
      self._changed.notify()
      return job

  def find(self, id: str) -> Job | None:
    """The job, if somebody may still ask for it."""
    return self._jobs.get(id)

  def position(self, job: Job) -> int | None:
    """How many jobs are before it; None: it does not wait."""
    with self._changed:
      return self._waiting.index(job) if job in self._waiting else None

  def cancel(self, job: Job) -> bool:
    """Ends a job without a result; whether it had not ended before."""
    return self._end(job, CANCELLED, error=Cancelled())

  def forget(self, job: Job) -> None:
    """Drops a job, its result too."""
    with self._changed:
      self._jobs.pop(job.id, None)

  def sweep(self) -> None:
    """Ends the job that runs for too long, and forgets results that nobody fetched."""
    now = self._clock()
    running = self._running
    if running and now - running.started > self._limits.job_seconds:
      self._end(running, FAILED, error=Overdue())
    with self._changed:
      for job in list(self._jobs.values()):
        if job.ended is not None and now - job.ended > self._limits.keep_seconds:
          del self._jobs[job.id]

  @property
  def stuck(self) -> bool:
    """Whether the worker is still at a job that has exceeded its time limit twice over."""
    running = self._running
    return bool(running and self._clock() - running.started > 2 * self._limits.job_seconds)

  def close(self) -> None:
    """Ends all jobs that wait; the one that runs is waited for, as long as it may take."""
    with self._changed:
      self._closed = True
      waiting = list(self._waiting)
      self._changed.notify()
    for job in waiting:
      self._end(job, FAILED, error=Closed())
    self._thread.join(self._limits.job_seconds)

  def _end(self, job: Job, state: str, result: Any = None, error: Exception | None = None) -> bool:
    with self._changed:
      if job.state in ENDS:
        return False
      if job in self._waiting:
        self._waiting.remove(job)
      job.enter(state)
      job.ended, job.request, job.size = self._clock(), None, 0
      job.result_size = len(getattr(result, 'data', b''))
    if error is None:
      job.future.set_result(result)
    else:
      job.future.set_exception(error)
    self._ended(job)
    return True

  def _run(self) -> None:
    while True:
      with self._changed:
        while not self._waiting and not self._closed:
          self._changed.wait()
        if self._closed:
          return
        job = self._running = self._waiting.popleft()
        job.started = self._clock()
        job.enter(RUNNING)
      try:
        result = self._work(job)
      except Exception as error:  # any: whoever waits for the job gets it, and the next one is done
        self._end(job, FAILED, error=error)
      else:
        if not self._end(job, DONE, result):
          logging.info('a result came after its job had ended, and is dropped')
      self._running = None
      del job
