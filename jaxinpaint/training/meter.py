"""How fast a run is: the means of its metrics, and its speed, since the last reading.

Steps are sent off long before they are done, so the time between two of them says nothing. But the
loop learns in passing when steps are done, without asking the device: `numerics.Guard` reads
whether a step's numbers were finite two steps late, waiting for that step if need be, and reads all
of them before anything is saved or evaluated. `Meter.ready` is called right after, and takes the
time. A step's time runs from the moment at which the host knew the step before it to be done to the
moment at which it knew of this one. Where the run waits for the device, this is the device's time
for a step; where the host is slower (data), it is the host's. Steps that are found done together
get equal shares.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from jaxinpaint.runtime import memory
from jaxinpaint.training.compiled import Compiled


class Meter:
  """Takes the time of steps.

  Args:
    batch_size: images of a step, on all devices together.
    devices: how many share it.
    peak: FLOP/s that one of them can do at most; None: not known, and no MFU is told.
    clock: of seconds.
  """

  def __init__(
    self,
    batch_size: int,
    devices: int = 1,
    peak: float | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """See the class."""
    self._batch_size, self._devices, self._peak, self._clock = batch_size, devices, peak, clock
    self._metrics: list[Mapping[str, jax.Array]] = []
    self._programs: list[Compiled | None] = []
    self._times: list[float] = []
    self._under_way = 0
    self._waited = 0.0
    self._last = clock()
    self.useful_seconds = 0.0  # of all steps since the start

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Around what is not training; called when all steps are known to be done."""
    begun = self._clock()
    yield
    self._last += self._clock() - begun

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Around the wait for the next batch, which is part of a step's time."""
    begun = self._clock()
    yield
    self._waited += self._clock() - begun

  def add(self, metrics: Mapping[str, jax.Array], program: Compiled | None = None) -> None:
    """A step is under way.

    Args:
      metrics: of the train step.
      program: that it runs; None: its FLOPs are not known.
    """
    self._metrics.append(metrics)
    self._programs.append(program)
    self._under_way += 1

  def ready(self, under_way: int = 0) -> None:
    """All steps but the last `under_way` are known to be done, now."""
    done = self._under_way - under_way
    if done <= 0:
      return
    now = self._clock()
    self._times += [max(now - self._last, 0.0) / done] * done
    self.useful_seconds += max(now - self._last, 0.0)
    self._under_way, self._last = under_way, now

  def read(self) -> tuple[dict[str, float], dict[str, float]]:
    """The means of the metrics, and the speed, since the last reading; waits for the last step.

    Returns:
      {update/term: mean over the steps whose numbers were finite}, with 'sick_steps' where there
      were others, and the speed/ names of docs/monitoring.md.
    """
    values = jax.device_get(self._metrics)
    self.ready()
    healthy = [m for m in values if m['finite']]
    # Steps whose changes were dropped would make every mean NaN; alone they are shown.
    shown = healthy or values
    names = dict.fromkeys(k for m in shown for k in m if k != 'finite')
    means = {k: float(np.mean([m[k] for m in shown if k in m])) for k in names}
    if len(healthy) < len(values):
      means['sick_steps'] = float(len(values) - len(healthy))
    speed = self._speed()
    self._metrics, self._programs, self._times, self._waited = [], [], [], 0.0
    return means, speed

  def _speed(self) -> dict[str, float]:
    count, seconds = len(self._times), max(sum(self._times), 1e-9)
    images = count * self._batch_size / seconds
    speed = {
      'speed/img_per_s': images,
      'speed/img_per_s_per_device': images / self._devices,
      'speed/step_ms': 1e3 * seconds / count,
      'speed/step_ms_median': 1e3 * float(np.median(self._times)),
      'speed/step_ms_p95': 1e3 * float(np.percentile(self._times, 95)),
      'speed/data_wait': self._waited / seconds,
    }
    programs = [p for p in self._programs if p is not None]
    known = len(programs) == len(self._programs)
    if known and all(p.flops for p in programs):
      speed['speed/flops_per_step'] = float(np.mean([p.flops for p in programs]))
    if self._peak and known:
      useful = sum(p.useful_flops for p in programs)
      speed['speed/mfu'] = useful / (seconds * self._devices * self._peak)
    return speed


def memory_used() -> dict[str, float]:
  """{'memory/peak_gb': of the fullest device}, or 'memory/host_peak_gb' where none is counted."""
  peak = memory.device_peak_gb()
  if peak is None:
    return {'memory/host_peak_gb': memory.host_peak_gb()}
  return {'memory/peak_gb': peak}
