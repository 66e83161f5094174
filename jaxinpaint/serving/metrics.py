"""Counters and durations in Prometheus' text format, without its library.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import collections
import pathlib
import threading
from collections.abc import Iterable, Mapping

from jaxinpaint.runtime import memory

CONTENT_TYPE = 'text/plain; version=0.0.4'  # a charset is added
_BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

Labels = Mapping[str, str]


class Metrics:
  """What has been counted since the start; threads may count at once."""

  def __init__(self):
    self._lock = threading.Lock()
    self._counts: dict[str, collections.Counter] = {}
    self._helps: dict[str, str] = {}
    self._durations: dict[str, dict[tuple, list[float]]] = {}

  def count(self, name: str, help: str, by: float = 1, **labels: str) -> None:
    """Adds to a counter; its name ends in _total."""
    with self._lock:
      self._helps[name] = help
      self._counts.setdefault(name, collections.Counter())[tuple(sorted(labels.items()))] += by

  def duration(self, name: str, help: str, seconds: float, **labels: str) -> None:
    """Adds to a histogram of seconds; its name ends in _seconds."""
    with self._lock:
      self._helps[name] = help
      cells = self._durations.setdefault(name, {}).setdefault(
        tuple(sorted(labels.items())), [0.0] * (len(_BOUNDS) + 2)
      )
      for i, bound in enumerate(_BOUNDS):
        cells[i] += seconds <= bound
      cells[-2] += 1
      cells[-1] += seconds

  def text(self, read: Iterable[tuple[str, str, str, float]]) -> str:
    """All of it.

    Args:
      read: (name, kind, help, value) of what others keep: kind is 'gauge' or 'counter'.
    """
    lines = []
    with self._lock:
      for name, counts in sorted(self._counts.items()):
        lines += _head(name, self._helps[name], 'counter')
        lines += [f'{name}{_labels(labels)} {value:g}' for labels, value in sorted(counts.items())]
      for name, rows in sorted(self._durations.items()):
        lines += _head(name, self._helps[name], 'histogram')
        for labels, cells in sorted(rows.items()):
          bounds = [*map(str, _BOUNDS), '+Inf']
          for bound, value in zip(bounds, cells, strict=False):
            lines.append(f'{name}_bucket{_labels((*labels, ("le", bound)))} {value:g}')
          lines.append(f'{name}_sum{_labels(labels)} {cells[-1]:.6f}')
          lines.append(f'{name}_count{_labels(labels)} {cells[-2]:g}')
    for name, kind, help, value in read:
      lines += [*_head(name, help, kind), f'{name} {float(value):.15g}']
    return '\n'.join(lines) + '\n'


def _head(name: str, help: str, kind: str) -> list[str]:
  return [f'# HELP {name} {help}', f'# TYPE {name} {kind}']


def _labels(labels: Iterable[tuple[str, str]]) -> str:
  escaped = lambda text: text.replace('\\', r'\\').replace('"', r'\"').replace('\n', r'\n')
  inside = ','.join(f'{name}="{escaped(value)}"' for name, value in labels)
  return f'{{{inside}}}' if inside else ''


def resident_bytes() -> float:
  """Memory of this process now; where the system does not tell, the most that it had."""
  try:
    pages = int(pathlib.Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return pages * 4096.0
  except OSError:
    return memory.host_peak_gb() * memory.GB
