"""What `benchmarks.accelerator` measures, in which order, and the file that it writes."""

import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

from jaxinpaint.runtime import atomic

HEADLINE = 'mesff'
ATTENTION = 'contextual attention'
DTYPES = ('bfloat16', 'float32')
_FIRST = (8, 32, 128)  # batches of the headline

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, order=True)
class Job:
  """One measurement.

  Attributes:
    system: or `ATTENTION`.
    what: 'forward' or 'step'; of the attention 'forward' or 'grad', 'at once' or 'in blocks'.
    dtype: of the computation.
    batch: images.
  """

  system: str
  what: str
  dtype: str
  batch: int

  @property
  def ladder(self) -> tuple[str, str, str]:
    """What jobs have in common that differ in the batch alone."""
    return self.system, self.what, self.dtype

  def __str__(self) -> str:
    """For people and for the file."""
    return f'{self.system} {self.what}, {self.dtype}, batch {self.batch}'


def batches(largest: int) -> list[int]:
  """Batches from 1 to `largest`, doubling: 8, 32, 128, ... first, then those between, then 4 to 1.

  A chip is full from about 8 images on, and each batch is another compilation.
  """
  doubling = [2**i for i in range(largest.bit_length())]
  filling = [b for b in doubling if b >= 8]
  return filling[::2] + filling[1::2] + [b for b in reversed(doubling) if b < 8]


def jobs(names: Sequence[str], largest: int) -> list[Job]:
  """All measurements, the most important first.

  MESFF's step and forward pass in bfloat16 at the batches of `_FIRST`, the attention, and then all
  systems side by side: one batch of each before the next batch of any.

  Args:
    names: of systems.
    largest: batch.
  """
  ladder = batches(largest)
  first = [
    Job(HEADLINE, what, 'bfloat16', b)
    for what in ('step', 'forward')
    for b in ladder
    if b in _FIRST and HEADLINE in names
  ]
  attention = [
    Job(ATTENTION, f'{what} {form}', dtype, 1)
    for dtype in DTYPES
    for form in ('in blocks', 'at once')
    for what in ('forward', 'grad')
  ]
  others = [
    Job(system, what, dtype, b)
    for b in ladder
    for dtype in DTYPES
    for what in ('step', 'forward')
    for system in sorted(names, key=lambda s: s != HEADLINE)
  ]
  return list(dict.fromkeys([*first, *attention, *others]))


class Record:
  """The file of a measurement, whole at any time.

  Args:
    path: of the file.
    head: what is measured on, and how: hardware, versions, sizes.

  Raises:
    ValueError: the file is of another head, whose rows must not be mixed with these.
  """

  def __init__(self, path: pathlib.Path, head: Row):
    """See the class."""
    self._path = path
    self.rows: list[Row] = []
    self._page = {**head, 'date': time.strftime('%Y-%m-%d'), 'running': None}
    if path.exists():
      self._go_on(json.loads(path.read_text(encoding='utf-8')), head)

  def _go_on(self, stored: Row, head: Row) -> None:
    """Takes the rows of the file, but for those that failed; a job that never ended is one row."""
    # The file itself may be what makes a checkout dirty.
    same = lambda value: value.removesuffix('-dirty') if isinstance(value, str) else value
    for key, value in head.items():
      if same(stored.get(key)) != same(value):
        raise ValueError(
          f'{self._path} has {key} {stored.get(key)!r}, and this is {value!r}: '
          'take another file with --json'
        )
    self.rows = [row for row in stored['rows'] if 'failed' not in row]
    if stored['running']:
      self.rows.append({**stored['running'], 'died': 'the process ended while this ran'})
    self._page['date'] = stored['date']

  def begin(self, job: Job) -> None:
    """Notes what is measured now: if the process dies of it, it is not tried again."""
    self._page['running'] = dataclasses.asdict(job)
    self._write()

  def add(self, job: Job, result: Row) -> None:
    """Appends what was measured of a job."""
    self._page['running'] = None
    self.rows.append({**dataclasses.asdict(job), **result})
    self._write()

  def leave(self, left: Iterable[Job]) -> None:
    """Notes what was not measured."""
    self._page['not_measured'] = [str(job) for job in left]
    self._write()

  def of(self, job: Job) -> Row | None:
    """The row of a job; None: there is none."""
    return next((row for row in self.rows if job_of(row) == job), None)

  def closed(self, job: Job) -> bool:
    """Whether it was seen that a job cannot be measured: not at this batch, or at a smaller one."""
    return any(
      'seconds' not in row and job_of(row).ladder == job.ladder and row['batch'] <= job.batch
      for row in self.rows
    )

  def useful(self, job: Job) -> float | None:
    """Useful FLOPs of a job, from those of another batch; None: not known."""
    for row in self.rows:
      if 'useful_flops' in row and (row['system'], row['what']) == (job.system, job.what):
        return row['useful_flops'] / row['batch'] * job.batch
    return None

  def expected(self, job: Job) -> float:
    """Seconds that a job will take: as long as its like; 0 where nothing was measured."""
    for alike in (
      lambda row: (row['system'], row['what']) == (job.system, job.what),
      lambda row: row['what'] == job.what,
      lambda row: True,
    ):
      if taken := [
        row['wall_seconds'] for row in self.rows if 'wall_seconds' in row and alike(row)
      ]:
        return statistics.median(taken)
    return 0.0

  def _write(self) -> None:
    page = {**self._page, 'rows': self.rows}
    atomic.write(self._path, json.dumps(page, indent=1) + '\n')


def job_of(row: Row) -> Job:
  """The job of a row."""
  return Job(row['system'], row['what'], row['dtype'], row['batch'])


def sentence(row: Row) -> str:
  """A row for the terminal."""
  if 'seconds' not in row:
    return next(f'{k}: {row[k]}' for k in ('does_not_fit', 'failed', 'died') if k in row)
  return (
    f'{1e3 * row["seconds"]:.2f} ms, {row["img_per_s"]:.1f} img/s, {row["mfu"]:.1%} of the peak, '
    f'compiled in {row["compile_seconds"]:.1f} s, {row["planned_mib"]:.0f} MiB'
  )
