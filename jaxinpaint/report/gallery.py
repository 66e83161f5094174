"""The pictures of a report's web page: examples to compare with a slider, best and worst cases.

They are inside the page, as data URIs, within a budget of bytes.
"""

import base64
import io
import math
import pathlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxinpaint import arrays
from jaxinpaint.masks.bins import Bin
from jaxinpaint.report import extremes, grids
from jaxinpaint.report.results import (
  Example,
  Record,
  Results,
)
from jaxinpaint.report.tables import bin_title, number

BUDGET = 16 * 2**20  # bytes of all pictures of a page
_QUALITIES = (92, 80, 65)
_LOSSLESS = 128 * 128  # pixels; smaller pictures are PNG, because JPEG's blocks would be visible
_GAP = 4  # white pixels between the pictures of a case


class Album:
  """Collects pictures, then encodes all in the best quality that the budget allows.

  If not all fit, those that were asked for last are left out.

  Args:
    budget: bytes of all data URIs together.
  """

  def __init__(self, budget: int = BUDGET):
    """See the class."""
    self._budget = budget
    self._pictures: dict[Hashable, np.ndarray] = {}
    self._uris: dict[Hashable, str] = {}
    self.quality: int | None = None
    self.left_out = 0

  def ask(self, key: Hashable, picture: np.ndarray) -> None:
    """Asks for a picture in the page.

    Args:
      key: for `get`.
      picture: uint8[H, W, 3], or float in [0, 1].
    """
    picture = picture if picture.dtype == np.uint8 else arrays.to_uint8(picture)
    self._pictures.setdefault(key, picture)

  def close(self) -> None:
    """Encodes all pictures in the best quality in which they fit, or else as many as fit."""
    for quality in _QUALITIES:
      uris = {key: _uri(picture, quality) for key, picture in self._pictures.items()}
      if sum(map(len, uris.values())) <= self._budget:
        break
    room = self._budget
    for key, uri in uris.items():
      room -= len(uri)
      if room < 0:
        break
      self._uris[key] = uri
    self.left_out = len(uris) - len(self._uris)
    if any(u.startswith('data:image/jpeg') for u in self._uris.values()):
      self.quality = quality

  def get(self, key: Hashable) -> str | None:
    """The data URI; None if the picture was not asked for or did not fit."""
    return self._uris.get(key)

  def note(self) -> str:
    """How the pictures are stored; '' if all are there, without loss."""
    words = []
    if self.quality is not None:
      words.append(
        f'Pictures are stored as JPEG of quality {self.quality}; the numbers are of the originals.'
      )
    if self.left_out:
      words.append(f'{self.left_out} pictures were left out to keep the page small.')
    return ' '.join(words)


class Gallery:
  """Asks an album for pictures, and says how those that fitted are shown.

  Args:
    results: with or without examples and cases.
    album: to be closed after this constructor and before the other methods.
  """

  def __init__(self, results: Results, album: Album):
    """See the class."""
    self._results, self._album = results, album
    self._metrics, self._case_metric = results.image_metrics, extremes.metric_of(results)
    self._records = {(r.predictor, r.bin, r.index): r for r in results.records}
    for e in results.examples:
      for column, (_, picture) in enumerate(self._pictures(e)):
        album.ask((e.bin, e.index, column), picture)
    known = {(e.bin, e.index): e for e in results.examples}
    kept: dict[tuple[str, Bin, int], Example] = {}
    for e in [*results.examples, *results.cases]:
      kept |= {(name, e.bin, e.index): e for name in e.outputs}
    self._kept = kept | {(n, *at): e for at, e in known.items() for n in e.outputs}
    # The worst first: they are more interesting, if not all fit.
    for which in ('worst', 'best'):
      for name in self._shown():
        for b in results.bins:
          for record in extremes.chosen(results, name, b)[which]:
            e = self._kept.get((name, b, record.index))
            if e is not None:
              album.ask(('case', name, b, record.index), _triple(e, name))

  def _shown(self) -> list[str]:
    """The rows whose cases are shown: all but classical fills, or all if there are only fills."""
    results = self._results
    return [n for n in results.predictors if results.kind(n) != 'fill'] or list(results.predictors)

  def _names(self, examples: Sequence[Example]) -> list[str]:
    return [n for n in self._results.predictors if any(n in e.outputs for e in examples)]

  def _pictures(self, e: Example) -> list[tuple[str, np.ndarray]]:
    """[(name, picture)]: input, outputs, truth."""
    ours = [n for n in self._results.predictors if n in e.outputs]
    return [
      ('input', grids.hole_shown(e.truth, e.mask)),
      *((n, e.outputs[n]) for n in ours),
      ('truth', e.truth),
    ]

  def examples(self, bin: Bin) -> dict[str, Any] | None:
    """{'title', 'names' of the columns, 'rows'} of a bin; None if it has no pictures."""
    examples = [e for e in self._results.examples if e.bin == bin]
    examples = [e for e in examples if self._album.get((bin, e.index, 0))]
    if not examples:
      return None
    names = ['input', *self._names(examples), 'truth']
    return dict(title=bin_title(bin), names=names, rows=[self._row(e, names) for e in examples])

  def _row(self, e: Example, names: Sequence[str]) -> dict[str, Any]:
    columns = {name: column for column, (name, _) in enumerate(self._pictures(e))}
    pictures: list[dict[str, str] | None] = []
    for name in names:
      uri = self._album.get((e.bin, e.index, columns[name])) if name in columns else None
      what = {'input': 'input with its hole white', 'truth': 'truth'}.get(name, f'output of {name}')
      alt = f'{what}, {self._title(e)}'
      pictures.append(uri and dict(uri=uri, alt=alt, caption=self._caption(e, name)))
    return dict(title=self._title(e), small=self._small(e), pictures=pictures)

  def _caption(self, e: Example, name: str) -> str:
    record = self._records.get((name, e.bin, e.index))
    if name == 'input':
      return f'{100 * e.mask.mean():.1f} % hole'
    if record is None:
      return self._file(e.bin, e.index)
    metric = self._metrics[0]
    return f'{metric.label} {number(record.values.get(metric.name, math.nan), metric)}'

  def _title(self, e: Example) -> str:
    return f'image {e.index} {self._file(e.bin, e.index)}'.strip()

  def _file(self, bin: Bin, index: int) -> str:
    records = (self._records.get((n, bin, index)) for n in self._results.predictors)
    return next((pathlib.PurePath(r.file).name for r in records if r), '')

  def _small(self, e: Example) -> str:
    """The class of the style sheet that enlarges small pictures without smoothing; else ''."""
    return ' pixels' if max(e.truth.shape[:2]) <= 160 else ''

  def cases(self) -> list[dict[str, Any]]:
    """Best and worst cases of each row in each bin: their numbers, and pictures if kept."""
    return [dict(name=name, bins=self._cases_of(name)) for name in self._shown()]

  def _cases_of(self, name: str) -> list[dict[str, Any]]:
    bins = []
    for b in self._results.bins:
      cases = extremes.chosen(self._results, name, b)
      if cases['best']:
        figures = {which: [self._case(name, r) for r in some] for which, some in cases.items()}
        bins.append(dict(title=bin_title(b), **figures))
    return bins

  def _case(self, name: str, record: Record) -> dict[str, str | None]:
    metric = self._case_metric
    file = pathlib.PurePath(record.file).name
    metrics = [metric, *(m for m in self._metrics if m != metric)]
    numbers = ', '.join(
      f'{m.label} {number(record.values[m.name], m)}' for m in metrics if m.name in record.values
    )
    e = self._kept.get((name, record.bin, record.index))
    return dict(
      title=file or f'image {record.index}',
      numbers=f'{100 * record.hole_share:.1f} % hole; {numbers}',
      uri=self._album.get(('case', name, record.bin, record.index)) if e else None,
      small=self._small(e) if e else '',
      alt=f'input, output of {name} and truth of image {record.index} {file}',
    )


def _triple(e: Example, name: str) -> np.ndarray:
  """input | output | truth in one picture."""
  output = e.outputs[name]
  output = output if output.dtype == np.uint8 else arrays.to_uint8(output)
  gap = np.full((e.truth.shape[0], max(1, _GAP * e.truth.shape[1] // 256), 3), 255, np.uint8)
  return np.concatenate([grids.hole_shown(e.truth, e.mask), gap, output, gap, e.truth], axis=1)


def _uri(picture: np.ndarray, quality: int) -> str:
  stream = io.BytesIO()
  image = Image.fromarray(picture)
  if picture.shape[0] * picture.shape[1] <= _LOSSLESS:
    kind = 'png'
    image.save(stream, 'PNG', optimize=True)
  else:
    kind = 'jpeg'
    image.save(stream, 'JPEG', quality=quality, subsampling=0 if quality > 90 else 2)
  return f'data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode("ascii")}'
