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

from jaxinpaint.layers.operations import useful_flops


@dataclasses.dataclass(frozen=True)
class Measured:
  """One function, compiled for its arguments.

  Attributes:
    seconds: of one call, best of several.
    compile_seconds: of tracing and compiling, without the persistent cache.
    temporary_mib: memory that the compiled program allocates besides arguments and results.
    flops: of the compiled program by XLA's own count (nan where the backend has none).
    useful: floating point operations of its convolutions and matrix products (see `useful_flops`).
  """

  seconds: float
  compile_seconds: float
  temporary_mib: float
  flops: float
  useful: float


def measure(function: Callable, *args: Any, repeats: int = 5) -> Measured:
  """Compiles and times `function(*args)`."""
  begun = time.perf_counter()
  compiled = jax.jit(function).lower(*args).compile()
  compile_seconds = time.perf_counter() - begun
  costs = compiled.cost_analysis() or {}
  costs = costs[0] if isinstance(costs, list) else costs
  memory = compiled.memory_analysis()
  return Measured(
    seconds=best_seconds(compiled, *args, repeats=repeats),
    compile_seconds=compile_seconds,
    temporary_mib=memory.temp_size_in_bytes / 2**20 if memory is not None else math.nan,
    flops=float(costs.get('flops', math.nan)),
    useful=useful_flops(function, *args),
  )


def best_seconds(function: Callable, *args: Any, repeats: int = 5) -> float:
  """Seconds of the fastest of `repeats` calls, after one that is not counted."""
  jax.block_until_ready(function(*args))
  times = []
  for _ in range(repeats):
    begun = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - begun)
  return min(times)


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
