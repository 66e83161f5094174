"""Timing of compiled functions, counting of their useful work, and this machine's matmul peak.

Times are the best of several calls after one to warm up; every ratio that a benchmark prints is of
two measurements of the same run.
"""

import dataclasses
import math
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.workloads import Task, of_function, same_again
from jaxinpaint.cost import costs


@dataclasses.dataclass(frozen=True)
class Measured:
  """One function, compiled for its arguments.

  Attributes:
    seconds: of one call, best of several.
    compile_seconds: of tracing and compiling, without the persistent cache.
    temporary_mib: memory that the compiled program allocates besides arguments and results.
    planned_mib: all that it needs at once, as its compiler says; 0 where it does not.
    flops: of the compiled program by XLA's own count (nan where the backend has none).
    useful: floating point operations of its convolutions and matrix products (see `useful_flops`).
  """

  seconds: float
  compile_seconds: float
  temporary_mib: float
  planned_mib: float
  flops: float
  useful: float


class Calls:
  """A function that is called again and again.

  Args:
    function: compiled, or jitted.
    arguments: of the first call.
    follow: of `Task`.
  """

  def __init__(
    self,
    function: Callable,
    arguments: tuple,
    follow: Callable[[tuple, Any], tuple] = same_again,
  ):
    """See the class."""
    self._function, self._arguments, self._follow = function, arguments, follow

  def run(self, n: int) -> float:
    """Seconds of a call, where n follow each other and only the last is waited for."""
    begun = time.perf_counter()
    for _ in range(n):
      results = self._function(*self._arguments)
      self._arguments = self._follow(self._arguments, results)
    jax.block_until_ready(results)
    return (time.perf_counter() - begun) / n

  def best(self, repeats: int, least_seconds: float = 0.0) -> float:
    """Seconds of a call in the fastest of `repeats` timings, after two calls not counted."""
    self.run(1)
    n = min(math.ceil(least_seconds / self.run(1)), 50)
    return min(self.run(max(n, 1)) for _ in range(repeats))


def measure(
  function: Callable, *args: Any, repeats: int = 5, least_seconds: float = 0.0
) -> Measured:
  """Compiles and times `function(*args)`; options as those of `measure_task`."""
  task = of_function(function, lambda: args)
  return measure_task(task, repeats=repeats, least_seconds=least_seconds)


def measure_task(
  task: Task,
  *,
  repeats: int = 5,
  least_seconds: float = 0.0,
  useful: float | None = None,
  then: Callable[[Calls], None] | None = None,
) -> Measured:
  """Compiles and times a task.

  Args:
    task: of `workloads`.
    repeats: timings, of which the fastest counts.
    least_seconds: each timing is of as many calls in a row, at most 50, as fill this time: the
      device then need not wait for the host between two of them, as in the train loop.
    useful: where it is known; else it is counted.
    then: is called after the timing, with the function ready to run again.

  Raises:
    MemoryError: the compiler says that the program does not fit into the device.
    jax.errors.JaxRuntimeError: what the backend says.
  """
  compiled, compile_seconds = compile_cold(task)
  needed, free = costs.planned_bytes(compiled), costs.free_bytes(jax.local_devices()[0])
  if needed > free:
    raise MemoryError(f'needs {needed / 2**30:.1f} GiB of {free / 2**30:.1f}')
  counts = compiled.cost_analysis() or {}
  counts = counts[0] if isinstance(counts, list) else counts
  memory = compiled.memory_analysis()
  calls = Calls(compiled, task.arguments(), task.follow)
  seconds = calls.best(repeats, least_seconds)
  if then:
    then(calls)
  return Measured(
    seconds=seconds,
    compile_seconds=compile_seconds,
    temporary_mib=memory.temp_size_in_bytes / 2**20 if memory is not None else math.nan,
    planned_mib=needed / 2**20,
    flops=float(counts.get('flops', math.nan)),
    useful=task.useful() if useful is None else useful,
  )


def compile_cold(task: Task) -> tuple[Any, float]:
  """(the compiled function, seconds of tracing and compiling it without the persistent cache)."""
  with costs.without_cache():
    begun = time.perf_counter()
    compiled = task.trace().lower().compile()
    return compiled, time.perf_counter() - begun


def best_seconds(function: Callable, *args: Any, repeats: int = 5) -> float:
  """Seconds of the fastest of `repeats` calls, after two that are not counted."""
  return Calls(function, args).best(repeats)


def matmul_peak(dtype: Any = jnp.float32, size: int | None = None) -> float:
  """FLOP/s of a square matrix product, the best of ten."""
  size = size or (2048 if jax.default_backend() == 'cpu' else 8192)
  a = jax.random.normal(jax.random.key(0), (size, size), dtype)
  return 2 * size**3 / best_seconds(jax.jit(jnp.matmul), a, a, repeats=10)


def peak_memory_mib() -> float:
  """Of the device where it says, else the process's largest resident size so far."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    return stats['peak_bytes_in_use'] / 2**20
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def hardware() -> str:
  """The device, and for a CPU its model and number of cores."""
  device = jax.devices()[0]
  if device.platform != 'cpu':
    return f'{jax.device_count()} x {device.device_kind}'
  import os

  model = platform.processor() or platform.machine()
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as f:
      model = next(line.split(':')[1].strip() for line in f if line.startswith('model name'))
  except (OSError, StopIteration):
    pass  # not Linux: the platform's own word stands
  return f'{os.cpu_count()} cores of {model}'
