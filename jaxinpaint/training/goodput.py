"""Goodput: which share of the time since a run first began went into steps that were kept.

WORKDIR/starts.jsonl holds a line for each start of the run, and one for each save of a checkpoint:

  {"event": "start", "time": 1763735400.1, "step": 0, "devices": "8 x TPU v4"}
  {"event": "saved", "time": 1763735460.2, "step": 40, "useful_s": 41.5}

`useful_s` are the seconds that the steps of this start had taken by then (`Meter.useful_seconds`).
What a start did past the step from which a later one went on was lost and does not count. The file
is appended to only; a last line that a kill cut off is ignored.
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
    step: from which this start goes on.
    devices: in words.
    began: when this start began, by `clock`; None: now.
    active: False on all processes but the first: nothing is written or known.
    clock: seconds since 1970: it has to go on while nothing runs.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    step: int,
    devices: str,
    began: float | None = None,
    active: bool = True,
    clock: Callable[[], float] = time.time,
  ):
    """See the class."""
    self._path, self._devices = workdir / 'starts.jsonl', devices
    self._active, self._clock = active, clock
    self._kept, self._first = 0.0, clock() if began is None else began
    if active:
      self._begin(step, self._first)

  def _begin(self, step: int, now: float) -> None:
    records = _read(self._path)
    self._kept = kept_seconds(records, step)
    self._first = min([r['time'] for r in records] or [now])
    self._append({'event': 'start', 'time': now, 'step': step, 'devices': self._devices})

  def rewind(self, step: int) -> None:
    """The run went back to a checkpoint; from here on useful seconds are counted anew."""
    if self._active:
      self._begin(step, self._clock())

  def saved(self, step: int, useful_seconds: float) -> None:
    """A checkpoint of `step` is about to be written; the line is on disk before it.

    Args:
      step: steps done.
      useful_seconds: that the steps of this start have taken so far.
    """
    if self._active:
      line = {'event': 'saved', 'time': self._clock(), 'step': step, 'useful_s': useful_seconds}
      self._append(line)

  def share(self, useful_seconds: float) -> float | None:
    """The goodput now, in [0, 1], if the steps of this start are kept; None: not known here."""
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
  """Useful seconds of earlier starts in steps that a start which goes on from `step` still has.

  Args:
    records: of starts.jsonl, in its order.
    step: steps done.
  """
  total, best = 0.0, 0.0
  # Backwards: a start keeps what it saved at or before the step from which any later one went on.
  for record in reversed(list(records)):
    if record['event'] == 'saved' and record['step'] <= step:
      best = max(best, record['useful_s'])
    elif record['event'] == 'start':
      total, best, step = total + best, 0.0, min(step, record['step'])
  return total


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines that are whole."""
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
