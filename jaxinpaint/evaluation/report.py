"""Results as files: metrics.json, per_image.csv, report.md and grids; and as a terminal's table."""

import csv
import importlib.metadata
import importlib.resources
import io
import json
import math
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

import jaxinpaint
from jaxinpaint.evaluation import classical, grids
from jaxinpaint.evaluation.protocols import Bin, Metric
from jaxinpaint.evaluation.results import Results, Summary

SCHEMA = 1
PUBLISHED = 'published, other images and masks'

Published = dict[str, str]


def write(
  results: Results, folder: str | os.PathLike, published: Sequence[Published] = ()
) -> pathlib.Path:
  """Writes a report; an earlier one in the same folder is kept as FOLDER.bak, FOLDER.bak2, ...

  The files are written beside the folder first and take its place at once, so that a crash leaves
  the earlier report whole.

  Args:
    results: of `evaluate`.
    folder: made where it is missing.
    published: of `published_rows`.

  Returns:
    The folder.

  Raises:
    FileExistsError: see `check_folder`.
  """
  folder = pathlib.Path(folder)
  check_folder(folder)
  folder.parent.mkdir(parents=True, exist_ok=True)
  new = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f'.{folder.name}.'))
  try:
    new.chmod(0o755)
    document = to_json(results, published)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (new / 'metrics.json').write_text(text + '\n', encoding='utf-8')
    (new / 'per_image.csv').write_text(per_image_csv(results), encoding='utf-8')
    pictures = {}
    for b in results.bins:
      picture = grid(results, b)
      if picture is not None:
        pictures[b] = f'grid_{b.label}.png'
        picture.save(new / pictures[b])
    text = markdown(results, published, document['environment'], pictures)
    (new / 'report.md').write_text(text, encoding='utf-8')
    if folder.exists():
      folder.rename(_free_backup(folder))
    new.rename(folder)
  except BaseException:
    shutil.rmtree(new, ignore_errors=True)
    raise
  return folder


def check_folder(folder: str | os.PathLike) -> None:
  """Raises FileExistsError when a report must not take this folder's place.

  An empty folder and one that holds a report may be replaced, a folder of other things not.
  """
  folder = pathlib.Path(folder)
  if folder.exists() and not folder.is_dir():
    raise FileExistsError(f'--output {folder} is a file: give a folder')
  if folder.is_dir() and any(folder.iterdir()) and not (folder / 'metrics.json').exists():
    raise FileExistsError(
      f'--output {folder} holds other files and no report: give a new folder, e.g. '
      f'{folder / "evaluation"}'
    )


def _free_backup(folder: pathlib.Path) -> pathlib.Path:
  path, count = folder.with_name(folder.name + '.bak'), 1
  while path.exists():
    count += 1
    path = folder.with_name(f'{folder.name}.bak{count}')
  return path


def published_rows(protocol: str, dataset: str) -> list[Published]:
  """Rows of published.csv: {protocol, table, method, dataset, mask, percent, metric, value}."""
  text = importlib.resources.files('jaxinpaint.evaluation').joinpath('published.csv').read_text()
  rows = csv.DictReader(io.StringIO(text))
  return [r for r in rows if r['protocol'] == protocol and r['dataset'] == dataset]


def published_datasets(protocol: str) -> list[str]:
  """The data sets of a protocol's published rows."""
  text = importlib.resources.files('jaxinpaint.evaluation').joinpath('published.csv').read_text()
  rows = csv.DictReader(io.StringIO(text))
  return sorted({r['dataset'] for r in rows if r['protocol'] == protocol})


def environment() -> dict[str, Any]:
  """Versions and hardware of this process."""
  devices = jax.devices()
  version = importlib.metadata.version
  return {
    'jaxinpaint': jaxinpaint.__version__,
    'commit': commit(),
    'python': platform.python_version(),
    'jax': jax.__version__,
    'flax': version('flax'),
    'numpy': version('numpy'),
    'opencv': version('opencv-python-headless'),
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'machine': f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores',
  }


def commit() -> str | None:
  """The commit of this library's checkout ('-dirty' with changes); None where it is not in git."""
  root = pathlib.Path(jaxinpaint.__file__).parent.parent
  git = lambda *words: subprocess.run(
    ['git', *words], cwd=root, capture_output=True, text=True, check=True
  ).stdout.strip()
  try:
    # An installed package may lie inside somebody else's checkout.
    if pathlib.Path(git('rev-parse', '--show-toplevel')).resolve() != root.resolve():
      return None
    return git('describe', '--always', '--dirty', '--abbrev=12')
  except (OSError, subprocess.CalledProcessError):
    return None


def to_json(results: Results, published: Sequence[Published] = ()) -> dict[str, Any]:
  """The document of metrics.json; docs/evaluation.md describes it."""
  rows = []
  for name in results.predictors:
    for b in results.bins:
      for metric in results.protocol.metrics:
        s = results.summary(name, b, metric.name)
        rows.append(
          {
            'predictor': name,
            'bin': b.label,
            'metric': metric.name,
            'mean': _or_none(s.mean),
            'standard_error': _or_none(s.standard_error),
            'n': s.n,
            'infinite': s.infinite,
            'undefined': s.undefined,
          }
        )
  return {
    'schema': SCHEMA,
    'protocol': results.protocol.description(),
    'deviations': results.deviations(),
    'dataset': {
      'name': results.dataset,
      'count': results.count,
      'height': results.size[0],
      'width': results.size[1],
      'skipped': [{'file': file, 'why': why} for file, why in results.skipped],
    },
    'masks': {'name': results.masks, 'seed': results.seed, 'sha256': results.mask_sha256},
    'environment': environment(),
    'notes': results.notes,
    'results': rows,
    'published': [dict(r) for r in published],
  }


def _or_none(x: float) -> float | None:
  return x if math.isfinite(x) else None


def per_image_csv(results: Results) -> str:
  """One line for each predictor, bin and image; a perfect output's PSNR is 'inf'."""
  out = io.StringIO()
  lines = csv.writer(out, lineterminator='\n')
  names = [m.name for m in results.protocol.metrics]
  lines.writerow(['protocol', 'predictor', 'bin', 'index', 'file', 'hole_share', *names])
  for r in results.records:
    values = [f'{r.values[n]:.8g}' for n in names]
    share = f'{r.hole_share:.6f}'
    lines.writerow([results.protocol.id, r.predictor, r.bin.label, r.index, r.file, share, *values])
  return out.getvalue()


def _cell(summary: Summary, metric: Metric) -> str:
  if summary.n == 0:
    return '∞' if summary.infinite else '–'
  text = f'{summary.mean:.{metric.digits}f}'
  if math.isfinite(summary.standard_error):
    text += f' ± {summary.standard_error:.{metric.digits}f}'
  return text


def _table(
  results: Results, b: Bin, published: Sequence[Published]
) -> tuple[list[str], list[list[str]]]:
  """(heads, rows) of one bin; published rows have '*' before their name."""
  metrics = results.protocol.metrics
  heads = ['method', *(f'{m.label} {"↑" if m.better == "higher" else "↓"}' for m in metrics), 'n']
  rows = []
  for name in results.predictors:
    summaries = [results.summary(name, b, m.name) for m in metrics]
    cells = [_cell(s, m) for s, m in zip(summaries, metrics, strict=True)]
    rows.append([name, *cells, str(max(s.n + s.infinite for s in summaries))])
  here = [r for r in published if r['percent'] == b.label]
  for method in dict.fromkeys(r['method'] for r in here):
    given = {r['metric']: r['value'] for r in here if r['method'] == method}
    rows.append([f'* {method}', *(given.get(m.published, '–') for m in metrics), '–'])
  return heads, rows


def terminal_table(results: Results, published: Sequence[Published] = ()) -> str:
  """All bins as aligned text, with what a reader must know below."""
  blocks = []
  for b in results.bins:
    heads, rows = _table(results, b, published)
    widths = [max(len(r[k]) for r in [heads, *rows]) for k in range(len(heads))]
    lines = [f'hole {b.label} %']
    for row in [heads, *rows]:
      cells = [row[0].ljust(widths[0])]
      cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
      lines.append('  '.join(cells))
    blocks.append('\n'.join(lines))
  foot = [_stamp(results)]
  if published:
    foot.append(f'* {PUBLISHED} ({published[0]["dataset"]}).')
  return '\n\n'.join([*blocks, '\n'.join(foot + verdicts(results))])


def _stamp(results: Results) -> str:
  parts = [
    f'protocol {results.protocol.id}',
    f'{results.dataset or "images"}: {results.count} of {results.size[0]} x {results.size[1]}',
    f'masks {results.masks or "given"}, seed {results.seed}, SHA-256 {results.mask_sha256[:12]}',
    'mean ± standard error over images',
  ]
  if results.skipped:
    parts.append(f'{len(results.skipped)} unreadable images skipped')
  return '; '.join(parts) + '.'


def verdicts(results: Results) -> list[str]:
  """A sentence for each predictor that is not a classical fill: where does it beat all that are?"""
  fills = [n for n in results.predictors if n in classical.PREDICTORS]
  metrics = results.protocol.metrics
  total = len(results.bins) * len(metrics)
  sentences = []
  for name in results.predictors:
    if name in fills or not fills:
      continue
    lost = {}
    for b in results.bins:
      labels = [m.label for m in metrics if not _beats(results, name, fills, b, m)]
      if labels:
        lost[b] = labels
    won = total - sum(map(len, lost.values()))
    if not lost:
      sentences.append(f'{name} beats every classical fill in all {total} means.')
    elif not won:
      sentences.append(f'{name} does not beat the classical fills in any of the {total} means.')
    else:
      where = '; '.join(f'{", ".join(labels)} at {b.label} %' for b, labels in lost.items())
      sentences.append(
        f'{name} beats every classical fill in {won} of {total} means, not in {where}.'
      )
  return sentences


def _beats(results: Results, name: str, fills: Sequence[str], b: Bin, metric: Metric) -> bool:
  """Whether the mean of `name` is better than those of all fills; False where one is undefined."""
  sign = 1 if metric.better == 'higher' else -1
  mean = lambda n: sign * results.summary(n, b, metric.name).mean
  return all(mean(name) > mean(fill) for fill in fills)


def markdown(
  results: Results,
  published: Sequence[Published],
  environment: dict[str, Any],
  pictures: dict[Bin, str],
) -> str:
  """The text of report.md."""
  p = results.protocol
  lines = [f'# Evaluation by protocol {p.id}', '', _stamp(results), '']
  lines += [f'- {sentence}' for sentence in verdicts(results)]
  lines += [f'- Departs from the protocol: {d}.' for d in results.deviations()]
  lines += [f'- Skipped {file}: {why}' for file, why in results.skipped]
  lines += [f'- {key}: {value}' for key, value in results.notes.items()]
  for b in results.bins:
    heads, rows = _table(results, b, published)
    lines += ['', f'## Hole {b.label} %', '', '| ' + ' | '.join(heads) + ' |']
    lines.append('|---|' + '---:|' * (len(heads) - 1))
    lines += ['| ' + ' | '.join([r[0].replace('* ', '\\* '), *r[1:]]) + ' |' for r in rows]
    if b in pictures:
      lines += ['', f'![input, mask, outputs, truth]({pictures[b]})']
  if published:
    lines += ['', f'\\* {PUBLISHED}: {published[0]["dataset"]}, as printed in the paper.']
  lines += ['', '## How it was measured', '', f'Source: {p.source}.', '', p.notes, '']
  lines += [
    f'- Mask set: {results.masks}, seed {results.seed}, SHA-256 `{results.mask_sha256}`',
    *(f'- {key}: {value}' for key, value in environment.items()),
  ]
  return '\n'.join(lines) + '\n'


def grid(
  results: Results, b: Bin, pictures: Mapping[str, Sequence[np.ndarray]] | None = None
) -> Image.Image | None:
  """The examples of a bin: input | mask | outputs with their PSNR | pictures | truth.

  Args:
    results: with examples.
    b: the bin.
    pictures: {label: uint8[H, W, 3] of each example of the bin}.
  """
  pictures = pictures or {}
  examples = [e for e in results.examples if e.bin == b]
  if not examples:
    return None
  first = results.protocol.metrics[0]
  values = {(r.predictor, r.index): r.values[first.name] for r in results.records if r.bin == b}
  rows = grids.rows_of(
    [e.truth for e in examples],
    [e.mask for e in examples],
    [
      [*(e.outputs[n] for n in results.predictors), *(p[i] for p in pictures.values())]
      for i, e in enumerate(examples)
    ],
  )
  captions = [
    [
      '',
      f'{100 * e.mask.mean():.1f} %',
      *(f'{first.label} {values[n, e.index]:.2f}' for n in results.predictors),
      *('' for _ in pictures),
      '',
    ]
    for e in examples
  ]
  labels = ['input', 'mask', *results.predictors, *pictures, 'truth']
  return Image.fromarray(grids.draw(rows, labels, captions))
