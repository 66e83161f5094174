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
import math
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from benchmarks import accelerator_page, measure, traces, workloads
from benchmarks.accelerator_record import (
  ATTENTION,
  DTYPES,
  HEADLINE,
  Job,
  Record,
  Row,
  job_of,
  jobs,
  sentence,
)
from jaxinpaint import systems
from jaxinpaint.layers import contextual_attention
from jaxinpaint.runtime import chips, environment

KERNELS = 10
_TRACED_CALLS = 3
_LEAST_SECONDS = 0.3
_SIDE, _QUICK_SIDE = 1024, 64  # of the picture for the attention


def run(
  wanted: Sequence[Job],
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
    wanted: the jobs.
    record: takes the rows.
    seconds: that all may take.
    measured: job -> its row.
    clock: of seconds.
  """
  begun, left = clock(), []
  for job in wanted:
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


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--minutes', type=float, default=20, help='that all may take')
  parser.add_argument('--json', type=pathlib.Path, default=accelerator_page.FILE)
  parser.add_argument('--systems', default='', help='comma-separated; default: all')
  parser.add_argument('--size', type=int, default=256, help='side of the images')
  parser.add_argument('--largest', type=int, default=512, help='batch; a power of two')
  parser.add_argument('--repeats', type=int, default=3, help='timings; the fastest counts')
  parser.add_argument('--rehearse', action='store_true', help='small networks and pictures')
  parser.add_argument('--page', action='store_true', help='only write docs/performance.md')
  given = parser.parse_args()
  if given.page:
    performance = accelerator_page.DOCS / 'performance.md'
    performance.write_text(accelerator_page.write_page(performance.read_text()))
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
    print(f'FAILED: {job_of(row)}: {row["failed"]}')
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
