"""The most memory that this process and its devices have held so far."""

import pathlib
import platform
import resource

import jax

GB = 1e9


def device_peak_gb() -> float | None:
  """The largest peak of this process's devices; None where the backend does not count (CPU)."""
  stats = [d.memory_stats() or {} for d in jax.local_devices()]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  return max(peaks) / GB if peaks else None


def host_peak_gb() -> float:
  """The largest resident size of this program.

  Linux counts it for each program. `getrusage`, used on other systems, starts from the size of the
  parent program.
  """
  try:
    text = pathlib.Path('/proc/self/status').read_text(encoding='ascii')
    kib = next(int(x.split()[1]) for x in text.splitlines() if x.startswith('VmHWM:'))
    return kib * 1024 / GB
  except (OSError, StopIteration):
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest * (1 if platform.system() == 'Darwin' else 1024) / GB
