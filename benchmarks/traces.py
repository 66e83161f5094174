"""Where a device's time goes: the kernels of a trace that `jax.profiler` wrote, without any viewer.

  with jax.profiler.trace(folder):
    ...
  for kernel in top(read(folder), count=10): ...

The file is `trace.json.gz`, in the format of Chrome's trace viewer. On a GPU a kernel is what runs
on a stream, on a TPU an operation of the line `XLA Ops`, on a CPU an event of the host that names
its operation. An operation may contain others (a loop its body): the time of each is its own.
"""

import collections
import dataclasses
import gzip
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

_US = 1e-6


@dataclasses.dataclass(frozen=True)
class Event:
  """One run of a kernel.

  Attributes:
    kernel: its name.
    operation: of the compiled program, or its category; '' where the trace does not say.
    seconds: its own, without what ran inside.
  """

  kernel: str
  operation: str
  seconds: float


@dataclasses.dataclass(frozen=True)
class Kernel:
  """All runs of a kernel.

  Attributes:
    name: of the kernel.
    operation: one that it computes.
    calls: how many runs.
    seconds: of all of them.
    share: of the time of all kernels.
  """

  name: str
  operation: str
  calls: int
  seconds: float
  share: float


def read(folder: pathlib.Path) -> list[Event]:
  """The kernels' runs of the newest trace below a folder, of the device that worked most.

  Raises:
    ValueError: there is no trace, or it has no kernel.
  """
  files = sorted(folder.rglob('*.trace.json.gz'), key=lambda p: p.stat().st_mtime)
  if not files:
    raise ValueError(f'no *.trace.json.gz below {folder}')
  with gzip.open(files[-1], 'rt', encoding='utf-8') as f:
    events = kernels(json.load(f)['traceEvents'])
  if not events:
    raise ValueError(f'{files[-1].name} has no event of a device: may this process profile it?')
  return events


def kernels(events: Iterable[dict[str, Any]]) -> list[Event]:
  """Of the events of a trace; [] where it has no kernels."""
  events = list(events)
  names = {
    (e['name'], e['pid'], e.get('tid')): e['args']['name']
    for e in events
    if e.get('ph') == 'M' and e['name'] in ('process_name', 'thread_name')
  }
  process = lambda e: names.get(('process_name', e['pid'], None), '')
  thread = lambda e: names.get(('thread_name', e['pid'], e['tid']), '')
  by_device = collections.defaultdict(list)
  for e in events:
    if e.get('ph') == 'X' and _is_kernel(e, process(e), thread(e)):
      by_device[process(e)].append(e)
  accelerators = {k: v for k, v in by_device.items() if k.startswith('/device:')}
  found = [_own_times(v) for v in (accelerators or by_device).values()]
  return max(found, key=lambda runs: sum(r.seconds for r in runs), default=[])


def top(events: Sequence[Event], count: int) -> list[Kernel]:
  """The kernels that take most time, the largest first."""
  total = sum(e.seconds for e in events)
  runs = collections.defaultdict(list)
  for e in events:
    runs[e.kernel].append(e)
  made = [
    Kernel(name, own[0].operation, len(own), time, time / total if total else 0.0)
    for name, own in runs.items()
    for time in [sum(e.seconds for e in own)]
  ]
  return sorted(made, key=lambda k: -k.seconds)[:count]


def _is_kernel(event: dict[str, Any], process: str, thread: str) -> bool:
  if not process.startswith('/device:'):
    return 'hlo_op' in event.get('args', {}) and not event['name'].startswith('end: ')
  # The other lines of a device repeat the same time by step, by module and by name.
  return thread.startswith('Stream') or thread == 'XLA Ops'


def _own_times(events: Sequence[dict[str, Any]]) -> list[Event]:
  """Of one device; an event that began inside of another on the same thread is within it."""
  inside: collections.Counter[int] = collections.Counter()
  open_: dict[Any, list[int]] = collections.defaultdict(list)
  end = lambda e: e['ts'] + e.get('dur', 0)
  order = sorted(range(len(events)), key=lambda i: (events[i]['ts'], -events[i].get('dur', 0)))
  for i in order:
    stack = open_[events[i]['tid']]
    while stack and end(events[stack[-1]]) <= events[i]['ts']:
      stack.pop()
    if stack:
      inside[stack[-1]] += events[i].get('dur', 0)
    stack.append(i)
  return [_event(events[i], events[i].get('dur', 0) - inside[i]) for i in order]


def _event(event: dict[str, Any], microseconds: float) -> Event:
  args = event.get('args', {})
  operation = args.get('hlo_op') or args.get('hlo_category') or ''
  return Event(event['name'], operation, max(microseconds, 0) * _US)
