"""The section of docs/performance.md that docs/accelerator.json becomes."""

import json
import pathlib
from collections.abc import Sequence

from benchmarks import accelerator_record as record
from benchmarks import pages

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
FILE = DOCS / 'accelerator.json'
_AIM = 'The aim: MESFF at 256 px in bfloat16, 300 img/s and 45 % of the peak on one H200.'
_NOT_MEASURED = 'Not measured on an accelerator.\n'


def render(page: record.Row | None) -> str:
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
    f'{_AIM}\n' + _fastest(measured),
    pages.table(_COLUMNS, [_cells(row) for row in sorted(measured, key=record.job_of)]),
    *_kernel_tables(measured),
    _absent(page),
  ]
  return '\n'.join(part for part in parts if part)


_COLUMNS = ['', '', 'px', 'dtype', 'batch', 'time', 'img/s', 'share', 'compiled in', 'memory']


def _cells(row: record.Row) -> list[str]:
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


def _fastest(rows: Sequence[record.Row]) -> str:
  own = [r for r in rows if record.job_of(r).ladder == (record.HEADLINE, 'step', 'bfloat16')]
  if not own:
    return ''
  best = max(own, key=lambda r: r['img_per_s'])
  return (
    f'Measured: {best["img_per_s"]:.1f} img/s and {best["mfu"]:.1%}, at batch {best["batch"]}.\n'
  )


def _kernel_tables(rows: Sequence[record.Row]) -> list[str]:
  """Of each dtype, at the batch with most images per second."""
  tables = []
  for dtype in record.DTYPES:
    own = [r for r in rows if r.get('kernels') and r['dtype'] == dtype]
    if own:
      best = max(own, key=lambda r: r['img_per_s'])
      cells = [
        [f'`{k["name"]}`', k['operation'], f'{k["calls"]:g}', f'{1e3 * k["seconds"]:.2f} ms']
        + [f'{k["share"]:.1%}']
        for k in best['kernels']
      ]
      title = f'The kernels of {record.job_of(best)} that take most time:\n\n'
      columns = ['kernel', 'for example', 'calls', 'time of a step', 'share']
      tables.append(title + pages.table(columns, cells))
  return tables


def _absent(page: record.Row) -> str:
  """What has no row, in sentences."""
  lines = [
    f'- {record.job_of(r)}: {record.sentence(r)}' for r in page['rows'] if 'seconds' not in r
  ]
  if page['not_measured']:
    lines.append(f'- not measured, for want of time: {"; ".join(page["not_measured"])}')
  return ''.join(f'{line}\n' for line in lines)


def write_page(text: str, file: pathlib.Path = FILE) -> str:
  """docs/performance.md `text` with the section of the file, or of no file, in its place."""
  page = json.loads(file.read_text(encoding='utf-8')) if file.exists() else None
  return pages.between(text, 'accelerator: made by python -m benchmarks.accelerator', render(page))
