"""Results as files: report.html, report.md, metrics.json, per_image.csv, grids and pictures."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxinpaint.masks.bins import Bin
from jaxinpaint.report import files, grids, page
from jaxinpaint.report.files import (
  Report,
  ReportError,
  load,
  per_image_csv,
)
from jaxinpaint.report.published import (
  PUBLISHED,
  Published,
  published_datasets,
  published_rows,
)
from jaxinpaint.report.results import Results
from jaxinpaint.report.tables import (
  markdown,
  terminal_table,
  verdicts,
)
from jaxinpaint.runtime import atomic
from jaxinpaint.runtime.environment import commit, environment

SCHEMA = files.SCHEMA


def write(
  results: Results,
  folder: str | os.PathLike,
  published: Sequence[Published] = (),
  *,
  measured_on: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes a report; an earlier one in the same folder is kept as FOLDER.bak, FOLDER.bak2, ...

  The files are written beside the folder first and take its place at once, so that a crash leaves
  the earlier report whole.

  Args:
    results: of `evaluate`.
    folder: made where it is missing.
    published: of `published_rows`.
    measured_on: versions and hardware; None: those of this process.

  Returns:
    The folder.

  Raises:
    FileExistsError: see `check_folder`.
  """
  folder = pathlib.Path(folder)
  check_folder(folder)
  folder.parent.mkdir(parents=True, exist_ok=True)
  with atomic.folder(folder) as new:
    about = dict(environment() if measured_on is None else measured_on)
    text = json.dumps(
      files.to_json(results, published, about), indent=2, ensure_ascii=False, allow_nan=False
    )
    (new / files.METRICS).write_text(text + '\n', encoding='utf-8')
    (new / files.IMAGES).write_text(per_image_csv(results), encoding='utf-8')
    files.save_pictures(results, new / files.PICTURES)
    pictures = {}
    for b in results.bins:
      picture = grid(results, b)
      if picture is not None:
        pictures[b] = f'grid_{b.label.replace(" ", "_").replace("/", "_")}.png'
        picture.save(new / pictures[b])
    text = markdown(results, published, about, pictures)
    (new / 'report.md').write_text(text, encoding='utf-8')
    (new / 'report.html').write_text(page.page(results, published, about), encoding='utf-8')
    if folder.exists():
      folder.rename(_free_backup(folder))
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


def to_json(results: Results, published: Sequence[Published] = ()) -> dict[str, Any]:
  """The document of metrics.json, of an evaluation in this process."""
  return files.to_json(results, published, environment())


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
  first = results.image_metrics[0]
  values = {
    (r.predictor, r.index): r.values.get(first.name, math.nan)
    for r in results.records
    if r.bin == b
  }
  # Joined reports may know a predictor's numbers without its pictures.
  names = [n for n in results.predictors if all(n in e.outputs for e in examples)]
  rows = grids.rows_of(
    [e.truth for e in examples],
    [e.mask for e in examples],
    [
      [*(e.outputs[n] for n in names), *(p[i] for p in pictures.values())]
      for i, e in enumerate(examples)
    ],
  )
  captions = [
    [
      '',
      f'{100 * e.mask.mean():.1f} %',
      *(f'{first.label} {values[n, e.index]:.2f}' for n in names),
      *('' for _ in pictures),
      '',
    ]
    for e in examples
  ]
  labels = ['input', 'mask', *names, *pictures, 'truth']
  return Image.fromarray(grids.draw(rows, labels, captions))


__all__: Sequence[str] = (
  'PUBLISHED',
  'SCHEMA',
  'Published',
  'Report',
  'ReportError',
  'check_folder',
  'commit',
  'environment',
  'grid',
  'load',
  'markdown',
  'per_image_csv',
  'published_datasets',
  'published_rows',
  'terminal_table',
  'to_json',
  'verdicts',
  'write',
)
