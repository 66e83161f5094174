"""Numbers over steps, read from a metrics.jsonl that grows, in bounded memory."""

import array
import bisect
import collections
import json
import math
import os
import pathlib
import time
from typing import Any

MOST = 400  # a series has at most twice as many buckets
_NAMES = 400  # series of a run; more are counted and left out
_PIECE = 4 << 20  # bytes read at once
_TAIL = 64  # bytes before the place of reading, which tell whether the file is still the same
_PACE = 30  # rows from which the speed of a run is taken


class Series:
  """One number over steps: buckets of as many rows each as keep their count below 2 * MOST.

  Each bucket holds its last step, the mean of its finite values, the least and the greatest of
  them, and how many others there were. While there are few rows, each is a bucket of its own.
  """

  def __init__(self, most: int = MOST):
    """See the class."""
    self._most = most
    self._rows = 1  # of a full bucket
    self._open = 0  # rows in the last bucket
    self._steps = array.array('q')
    self._sums, self._lows, self._highs = (array.array('d') for _ in range(3))
    self._finite, self._bad = array.array('q'), array.array('q')

  def __len__(self) -> int:
    return len(self._steps)

  def add(self, step: int, value: float) -> None:
    """Adds a row; one of the same step takes the place of an earlier one in its own bucket."""
    if self._rows == 1 and self._steps and self._steps[-1] == step:
      self.drop(step)
    if not self._steps or self._open == self._rows:
      if len(self) == 2 * self._most:
        self._halve()
      self._open = 0
      columns = zip(self._columns(), (step, 0.0, math.inf, -math.inf, 0, 0), strict=True)
      for column, empty in columns:
        column.append(empty)
    self._open += 1
    self._steps[-1] = step
    if math.isfinite(value):
      self._sums[-1] += value
      self._lows[-1] = min(self._lows[-1], value)
      self._highs[-1] = max(self._highs[-1], value)
      self._finite[-1] += 1
    else:
      self._bad[-1] += 1

  def drop(self, step: int) -> None:
    """Forgets the buckets that reach this step or later ones."""
    kept = bisect.bisect_left(self._steps, step)
    if kept < len(self):
      for column in self._columns():
        del column[kept:]
      self._open = self._rows

  def _columns(self) -> tuple[array.array, ...]:
    return self._steps, self._sums, self._lows, self._highs, self._finite, self._bad

  def _halve(self) -> None:
    """Joins each bucket with its neighbour."""
    pairs = range(0, len(self), 2)
    joined: tuple[list, ...] = (
      [self._steps[i + 1] for i in pairs],
      [sum(self._sums[i : i + 2]) for i in pairs],
      [min(self._lows[i : i + 2]) for i in pairs],
      [max(self._highs[i : i + 2]) for i in pairs],
      [sum(self._finite[i : i + 2]) for i in pairs],
      [sum(self._bad[i : i + 2]) for i in pairs],
    )
    for column, values in zip(self._columns(), joined, strict=True):
      column[:] = array.array(column.typecode, values)
    self._rows *= 2
    self._open = self._rows

  def document(self) -> dict[str, Any]:
    """{'steps', 'means', and 'lows' and 'highs' where buckets are joined, 'bad': {place: count}}.

    A mean without finite values is None.
    """
    one = lambda x: float(f'{x:.6g}') if math.isfinite(x) else None
    means = [one(s / n) if n else None for s, n in zip(self._sums, self._finite, strict=True)]
    made: dict[str, Any] = {'steps': list(self._steps), 'means': means}
    if self._rows > 1:
      made |= {'lows': [one(x) for x in self._lows], 'highs': [one(x) for x in self._highs]}
    bad = {i: n for i, n in enumerate(self._bad) if n}
    return made | ({'bad': bad} if bad else {})


class Metrics:
  """A run's metrics.jsonl, of which each `poll` reads what is new.

  An incomplete last line is left for the next time. A file that was replaced or shortened is read
  again from its start. A row of an earlier step than the one before it means that the run went
  back: what was known of that step and later ones is forgotten.

  Args:
    path: of the file; need not exist.

  Attributes:
    series: {name: Series}, in the order in which they came.
    rows: read so far.
    broken: lines that could not be read.
    left_out: names beyond the most that are kept.
    step: of the last row; None: there is none.
    time: of the last row, seconds since 1970.
    behind: more is there to read.
  """

  def __init__(self, path: pathlib.Path):
    """See the class."""
    self._path = path
    self._seen: tuple[int, int] | None = None
    self._clear()

  def _clear(self) -> None:
    self.series: dict[str, Series] = {}
    self.rows, self.broken, self.behind = 0, 0, False
    self.left_out: set[str] = set()
    self.step: int | None = None
    self.time: float | None = None
    self._pace: collections.deque[tuple[float, int]] = collections.deque(maxlen=_PACE)
    self._offset, self._tail = 0, b''

  def poll(self, seconds: float = math.inf) -> None:
    """Reads what is new, for about so long at most.

    Raises:
      OSError: the file is there and cannot be read.
    """
    try:
      status = os.stat(self._path)
    except FileNotFoundError:
      if self._offset:
        self._clear()
      self._seen = None
      return
    seen = (status.st_size, status.st_mtime_ns)
    if seen == self._seen and not self.behind:
      return
    end = time.monotonic() + seconds
    with open(self._path, 'rb') as file:
      file.seek(max(self._offset - len(self._tail), 0))
      if file.read(len(self._tail)) != self._tail:
        self._clear()
        file.seek(0)
      self.behind = self._read(file, end)
    self._seen = seen

  def _read(self, file, end: float) -> bool:
    """Reads lines; returns whether the time was over before they were."""
    rest = b''
    while piece := file.read(_PIECE):
      whole, newline, rest = (rest + piece).rpartition(b'\n')
      read = whole + newline
      for line in whole.split(b'\n') if newline else ():
        self._add(line)
      self._offset += len(read)
      self._tail = (self._tail + read)[-_TAIL:]
      if time.monotonic() > end:
        return True
    return False

  def _add(self, line: bytes) -> None:
    try:
      row = json.loads(line)
      step, when = int(row.pop('step')), float(row.pop('time', math.nan))
    except (ValueError, KeyError, TypeError, AttributeError):
      self.broken += bool(line.strip())
      return
    if self.step is not None and step < self.step:
      for series in self.series.values():
        series.drop(step)
      while self._pace and self._pace[-1][1] >= step:
        self._pace.pop()
    self.rows, self.step = self.rows + 1, step
    if math.isfinite(when):
      self.time = when
      self._pace.append((when, step))
    for name, value in row.items():
      number = _number(value)
      if number is None:
        continue
      if name not in self.series and len(self.series) >= _NAMES:
        self.left_out.add(name)
        continue
      self.series.setdefault(name, Series()).add(step, number)

  def seconds_per_step(self, since: float) -> float | None:
    """Of the last rows that were written after `since`, evaluations and checkpoints included."""
    rows = [row for row in self._pace if row[0] >= since]
    if len(rows) < 2 or rows[-1][1] == rows[0][1]:
      return None
    return (rows[-1][0] - rows[0][0]) / (rows[-1][1] - rows[0][1])


def _number(value: object) -> float | None:
  """A JSON number, or one of the strings 'nan', 'inf', '-inf' that stand for such."""
  if isinstance(value, str) and value in ('nan', 'inf', '-inf'):
    return float(value)
  return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
