"""Goodput: the share of the time since a run's first start that was spent on steps that are kept.

WORKDIR/starts.jsonl has a line for each start of the run, for each return to a checkpoint, for each
saved checkpoint, and for the end of a start, unless its process was killed:

  {"event": "start", "time": 1763735400.1, "step": 0, "devices": "8 x TPU v4", "steps": 200}
  {"event": "saved", "time": 1763735460.2, "step": 40, "useful_s": 41.5}
  {"event": "start", "time": 1763735470.3, "step": 40, "devices": ..., "returned": true}
  {"event": "ended", "time": 1763735500.0, "step": 60, "how": "stopped", "why": ""}

`useful_s` are the seconds that the steps of this start have taken so far (`Meter.useful_seconds`),
`steps` those of the whole run. `how` is 'finished', 'early stop', 'stopped' (by a signal) or the
kind of an error, whose message is `why`. Steps after the one from which a later start resumed are
lost and do not count. Lines are only appended; an incomplete last line, left by a kill, is ignored.
"""

import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Goodput:
  """Keeps WORKDIR/starts.jsonl.

  Args:
    workdir: of the run.
    step: from which this start resumes.
    devices: in words.
    began: when this start began, by `clock`; None: now.
    active: False on all processes but the first: nothing is written or read.
    clock: seconds since 1970; it must also run while no process does.
    steps: of the whole run.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    step: int,
    devices: str,
    began: float | None = None,
    active: bool = True,
    clock: Callable[[], float] = time.time,
    steps: int | None = None,
  ):
    """See the class."""
    self._path, self._devices, self._steps = workdir / 'starts.jsonl', devices, steps
    self._active, self._clock = active, clock
    self._kept, self._first = 0.0, clock() if began is None else began
    if active:
      self._begin(step, self._first)

  def _begin(self, step: int, now: float, **more: Any) -> None:
    records = _read(self._path)
    self._kept = kept_seconds(records, step)
    self._first = min([r['time'] for r in records] or [now])
    steps = {} if self._steps is None else {'steps': self._steps}
    start = {'event': 'start', 'time': now, 'step': step, 'devices': self._devices}
    self._append(start | steps | more)

  def rewind(self, step: int) -> None:
    """The run went back to a checkpoint; useful seconds are counted from zero again."""
    if self._active:
      self._begin(step, self._clock(), returned=True)

  def saved(self, step: int, useful_seconds: float) -> None:
    """Called before a checkpoint of `step` is written, so that the line is on disk first.

    Args:
      step: steps done.
      useful_seconds: time that the steps of this start have taken so far.
    """
    if self._active:
      line = {'event': 'saved', 'time': self._clock(), 'step': step, 'useful_s': useful_seconds}
      self._append(line)

  def ended(self, step: int, how: str, why: str = '') -> None:
    """This start ends.

    Args:
      step: steps done.
      how: see the module.
      why: the message of an error.
    """
    if self._active:
      end = {'event': 'ended', 'time': self._clock(), 'step': step, 'how': how}
      self._append(end | {'why': why[:2000]})

  def share(self, useful_seconds: float) -> float | None:
    """The goodput now, in [0, 1], if the steps of this start are kept; None on other processes."""
    wall = self._clock() - self._first
    if not self._active or wall <= 0:
      return None
    return min((self._kept + useful_seconds) / wall, 1.0)

  @property
  def wall_seconds(self) -> float:
    """Since the run first began."""
    return max(self._clock() - self._first, 0.0)

  def _append(self, record: Mapping[str, Any]) -> None:
    line = {k: round(v, 3) if isinstance(v, float) else v for k, v in record.items()}
    with open(self._path, 'ab+') as file:
      if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b'\n':  # a kill cut the last line off
          file.write(b'\n')
      file.write(json.dumps(line).encode() + b'\n')
      file.flush()
      os.fsync(file.fileno())


def kept_seconds(records: Iterable[Mapping[str, Any]], step: int) -> float:
  """Useful seconds of earlier starts, for the steps that a start from `step` still has.

  Args:
    records: of starts.jsonl, in its order.
    step: steps done.
  """
  total, best = 0.0, 0.0
  # Backwards: a start keeps what it saved at or before the earliest step from which a later start
  # resumed.
  for record in reversed(list(records)):
    if record['event'] == 'saved' and record['step'] <= step:
      best = max(best, record['useful_s'])
    elif record['event'] == 'start':
      total, best, step = total + best, 0.0, min(step, record['step'])
  return total


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The complete lines."""
  fields = {'start': ('time', 'step'), 'saved': ('time', 'step', 'useful_s')}
  records = []
  for line in path.read_bytes().splitlines() if path.exists() else ():
    try:
      record = json.loads(line)
      for name in fields[record['event']]:
        float(record[name])
    except (ValueError, KeyError, TypeError):
      continue
    records.append(record)
  return records
