"""All that an hour with an accelerator should bring, the most important first, in one command.

  python -m benchmarks.accelerator --minutes 20                  measures, docs/accelerator.json
  python -m benchmarks.accelerator --page                        docs/performance.md from it
  python -m benchmarks.accelerator --rehearse --json OUT         small networks, on any machine

Every system's forward pass and train step in bfloat16 and float32, at batch 1 to the largest that
fits; the kernels of MESFF's step; contextual attention for a picture of 1024 pixels. The file is
written after every measurement, so that whatever ends the process leaves a whole one. The same
command goes on with a file that is there: what it holds is not measured again, what failed is
tried again, and what the process died of is not. Nothing begins that would end after the minutes,
as far as that can be told from what was measured before.
"""

import argparse
import dataclasses
import gc
import json
import math
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure, pages, traces, workloads
from jaxinpaint import systems
from jaxinpaint.layers import contextual_attention
from jaxinpaint.runtime import atomic, chips, environment

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
HEADLINE = 'mesff'
AIM = 'The aim: MESFF at 256 px in bfloat16, 300 img/s and 45 % of the peak on one H200.'
ATTENTION = 'contextual attention'
DTYPES = ('bfloat16', 'float32')
KERNELS = 10
_FIRST = (8, 32, 128)  # batches of the headline
_TRACED_CALLS = 3
_LEAST_SECONDS = 0.3
_SIDE, _QUICK_SIDE = 1024, 64  # of the picture for the attention
_NOT_MEASURED = 'Not measured on an accelerator.\n'

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
    return next((row for row in self.rows if _job(row) == job), None)

  def closed(self, job: Job) -> bool:
    """Whether it was seen that a job cannot be measured: not at this batch, or at a smaller one."""
    return any(
      'seconds' not in row and _job(row).ladder == job.ladder and row['batch'] <= job.batch
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


def _job(row: Row) -> Job:
  return Job(row['system'], row['what'], row['dtype'], row['batch'])


def run(
  todo: Sequence[Job],
  record: Record,
  seconds: float,
  measured: Callable[[Job], Row],
  *,
  clock: Callable[[], float] = time.monotonic,
) -> None:
  """Measures what fits into the time, in the order given, and notes what did not.

  An error of memory closes the ladder of a job: larger batches are not tried. Any other is noted
  with its sentence, closes the ladder too, and the next job begins.

  Args:
    todo: the jobs.
    record: takes the rows.
    seconds: that all may take.
    measured: job -> its row.
    clock: of seconds.
  """
  begun, left = clock(), []
  for job in todo:
    if record.of(job) or record.closed(job):
      continue
    if clock() - begun + record.expected(job) > seconds:
      left.append(job)
      continue
    record.begin(job)
    start = clock()
    result = attempt(measured, job)
    record.add(job, {**result, 'wall_seconds': clock() - start})
    print(f'{clock() - begun:6.0f} s  {job}: {sentence(record.rows[-1])}', flush=True)
  record.leave(left)


def attempt(measured: Callable[[Job], Row], job: Job) -> Row:
  """The row of a job; of an error its sentence, as 'does_not_fit' or 'failed'."""
  try:
    return measured(job)
  except Exception as error:  # of one system: the others must still be measured
    text = f'{type(error).__name__}: {str(error).strip() or "no message"}'.splitlines()[0]
    return {'does_not_fit' if out_of_memory(error) else 'failed': text}
  finally:
    gc.collect()
    jax.clear_caches()  # a program may hold memory


def out_of_memory(error: Exception) -> bool:
  """Whether an error says that there is too little memory: the backend's, or `measure`'s own."""
  if isinstance(error, MemoryError):
    return True
  return isinstance(error, jax.errors.JaxRuntimeError) and 'RESOURCE_EXHAUSTED' in str(error)


def sentence(row: Row) -> str:
  """A row for the terminal."""
  if 'seconds' not in row:
    return next(f'{k}: {row[k]}' for k in ('does_not_fit', 'failed', 'died') if k in row)
  return (
    f'{1e3 * row["seconds"]:.2f} ms, {row["img_per_s"]:.1f} img/s, {row["mfu"]:.1%} of the peak, '
    f'compiled in {row["compile_seconds"]:.1f} s, {row["planned_mib"]:.0f} MiB'
  )


@dataclasses.dataclass(frozen=True)
class Settings:
  """How jobs are measured.

  Attributes:
    size: side of the images; 0: of the config.
    quick: small networks, for a rehearsal.
    repeats: timings of each.
    peaks: {dtype: FLOP/s}.
    useful: (job) -> its useful FLOPs, where they are known.
  """

  size: int
  quick: bool
  repeats: int
  peaks: dict[str, float]
  useful: Callable[[Job], float | None]

  def measured(self, job: Job) -> Row:
    """Measures a job; the row's fields are those of `measure.Measured` and what follows of them."""
    if job.system == ATTENTION:
      task, size = self.attention(job)
    else:
      config = workloads.config_of(
        job.system, dtype=job.dtype, size=self.size, batch=job.batch, quick=self.quick
      )
      task, size = workloads.Workload(config).task(job.what), config.data.size
    before = _device_peak()
    kernels: list[Row] = []
    then = None
    if (job.system, job.what) == (HEADLINE, 'step'):
      then = lambda calls: kernels.extend(_traced(calls))
    m = measure.measure_task(
      task,
      repeats=self.repeats,
      least_seconds=0.0 if self.quick else _LEAST_SECONDS,
      useful=self.useful(job),
      then=then,
    )
    row = dict(size=size, seconds=m.seconds, img_per_s=job.batch / m.seconds, useful_flops=m.useful)
    row |= dict(mfu=m.useful / m.seconds / self.peaks[job.dtype])
    row |= dict(compile_seconds=m.compile_seconds, planned_mib=m.planned_mib)
    # The device counts the peak of the whole process: it is this job's only where it rose.
    if (peak := _device_peak()) > before:
      row['device_peak_mib'] = peak / 2**20
    if not math.isnan(m.flops):
      row['compiled_flops'] = m.flops
    return {**row, 'kernels': kernels} if kernels else row

  def attention(self, job: Job) -> tuple[workloads.Task, int]:
    """Of DeepFill v1's features of a picture to themselves, and the picture's side."""
    what, _, form = job.what.partition(' ')
    side = (_QUICK_SIDE if self.quick else _SIDE) // 4
    shape = (1, side, side, 128)
    limit = 2**40 if form == 'at once' else contextual_attention.BLOCK_BYTES

    def attend(x: jax.Array, valid: jax.Array) -> jax.Array:
      attend = contextual_attention.contextual_attention
      return attend(x, x, valid, resize='floor', block_bytes=limit)[0]

    def gradient(x: jax.Array, valid: jax.Array) -> jax.Array:
      return jax.grad(lambda x: attend(x, valid).astype(jnp.float32).sum())(x)

    function = attend if what == 'forward' else gradient
    make = lambda: (
      jax.random.normal(jax.random.key(0), shape, job.dtype),
      jnp.ones((1, side * side // 4)),
    )
    return workloads.of_function(function, make), 4 * side


def _traced(calls: measure.Calls) -> list[Row]:
  """The largest kernels of a few calls; their seconds are of one call."""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      calls.run(_TRACED_CALLS)
    found = traces.top(traces.read(pathlib.Path(folder)), KERNELS)
  return [
    {
      **dataclasses.asdict(k),
      'seconds': k.seconds / _TRACED_CALLS,
      'calls': k.calls / _TRACED_CALLS,
    }
    for k in found
  ]


def _device_peak() -> int:
  return (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0)


def head(size: int, quick: bool) -> Row:
  """What the rows of a file have in common."""
  chip = chips.find(jax.devices()[0].device_kind)
  known = {d: chip.flops(d) if chip else None for d in DTYPES}
  return {
    'hardware': measure.hardware(),
    'jax': jax.__version__,
    'commit': environment.commit(),
    'size': size,
    'rehearsal': quick,
    'peak_flops': {d: f for d, f in known.items() if f},
  }


def peaks(page: Row) -> dict[str, float]:
  """FLOP/s of each dtype: of the table of chips; else of a matrix product, measured now."""
  return {d: page['peak_flops'].get(d) or measure.matmul_peak(jnp.dtype(d)) for d in DTYPES}


def render(page: Row | None) -> str:
  """The section of docs/performance.md.

  Raises:
    ValueError: the file is of a rehearsal.
  """
  if page is None:
    return _NOT_MEASURED
  if page['rehearsal']:
    raise ValueError('a rehearsal measures nothing that a page should say')
  measured = [row for row in page['rows'] if 'seconds' in row]
  parts = [
    f'{page["hardware"]}, jax {page["jax"]}, commit {page["commit"]}, {page["date"]}, '
    f'{page["size"]} px. Share: useful work by time by the peak of the data sheet.\n',
    f'{AIM}\n' + _fastest(measured),
    pages.table(_COLUMNS, [_cells(row) for row in sorted(measured, key=_job)]),
    *_kernel_tables(measured),
    _absent(page),
  ]
  return '\n'.join(part for part in parts if part)


_COLUMNS = ['', '', 'px', 'dtype', 'batch', 'time', 'img/s', 'share', 'compiled in', 'memory']


def _cells(row: Row) -> list[str]:
  measured = 'device_peak_mib' in row
  mib = row['device_peak_mib' if measured else 'planned_mib']
  return [
    row['system'],
    row['what'],
    str(row['size']),
    row['dtype'],
    str(row['batch']),
    f'{1e3 * row["seconds"]:.2f} ms',
    f'{row["img_per_s"]:.1f}',
    f'{row["mfu"]:.1%}',
    f'{row["compile_seconds"]:.1f} s',
    f'{mib / 1024:.2f} GiB{"" if measured else " planned"}',
  ]


def _fastest(rows: Sequence[Row]) -> str:
  own = [r for r in rows if _job(r).ladder == (HEADLINE, 'step', 'bfloat16')]
  if not own:
    return ''
  best = max(own, key=lambda r: r['img_per_s'])
  return (
    f'Measured: {best["img_per_s"]:.1f} img/s and {best["mfu"]:.1%}, at batch {best["batch"]}.\n'
  )


def _kernel_tables(rows: Sequence[Row]) -> list[str]:
  """Of each dtype, at the batch with most images per second."""
  tables = []
  for dtype in DTYPES:
    own = [r for r in rows if r.get('kernels') and r['dtype'] == dtype]
    if own:
      best = max(own, key=lambda r: r['img_per_s'])
      cells = [
        [f'`{k["name"]}`', k['operation'], f'{k["calls"]:g}', f'{1e3 * k["seconds"]:.2f} ms']
        + [f'{k["share"]:.1%}']
        for k in best['kernels']
      ]
      title = f'The kernels of {_job(best)} that take most time:\n\n'
      columns = ['kernel', 'for example', 'calls', 'time of a step', 'share']
      tables.append(title + pages.table(columns, cells))
  return tables


def _absent(page: Row) -> str:
  """What has no row, in sentences."""
  lines = [f'- {_job(r)}: {sentence(r)}' for r in page['rows'] if 'seconds' not in r]
  if page['not_measured']:
    lines.append(f'- not measured, for want of time: {"; ".join(page["not_measured"])}')
  return ''.join(f'{line}\n' for line in lines)


def write_page(text: str, file: pathlib.Path = DOCS / 'accelerator.json') -> str:
  """docs/performance.md `text` with the section of the file, or of no file, in its place."""
  page = json.loads(file.read_text(encoding='utf-8')) if file.exists() else None
  return pages.between(text, 'accelerator: made by python -m benchmarks.accelerator', render(page))


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--minutes', type=float, default=20, help='that all may take')
  parser.add_argument('--json', type=pathlib.Path, default=DOCS / 'accelerator.json')
  parser.add_argument('--systems', default='', help='comma-separated; default: all')
  parser.add_argument('--size', type=int, default=256, help='side of the images')
  parser.add_argument('--largest', type=int, default=512, help='batch; a power of two')
  parser.add_argument('--repeats', type=int, default=3, help='timings; the fastest counts')
  parser.add_argument('--rehearse', action='store_true', help='small networks and pictures')
  parser.add_argument('--page', action='store_true', help='only write docs/performance.md')
  given = parser.parse_args()
  if given.page:
    performance = DOCS / 'performance.md'
    performance.write_text(write_page(performance.read_text()))
    return 0
  if given.rehearse and given.json == parser.get_default('json'):
    parser.error('--rehearse needs a --json of its own')
  # Of a GPU jax takes three quarters at its start; a larger batch fits into more.
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.95')
  begun = time.monotonic()
  page = head(0 if given.rehearse else given.size, given.rehearse)
  try:
    record = Record(given.json, page)
  except ValueError as error:
    parser.error(str(error))
  settings = Settings(page['size'], given.rehearse, given.repeats, peaks(page), record.useful)
  print(f'{page["hardware"]}, jax {page["jax"]}, commit {page["commit"]}', flush=True)
  names = given.systems.split(',') if given.systems else systems.list_systems()
  seconds = 60 * given.minutes - (time.monotonic() - begun)
  with tempfile.TemporaryDirectory() as cache:
    # What makes a system's first state is compiled once; what is measured never reads this.
    jax.config.update('jax_compilation_cache_dir', cache)
    run(jobs(names, given.largest), record, seconds, settings.measured)
  failed = [row for row in record.rows if 'failed' in row]
  for row in failed:
    print(f'FAILED: {_job(row)}: {row["failed"]}')
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
