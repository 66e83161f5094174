"""The pictures of a report's web page: a slider over examples, and the best and worst cases."""

import math
import pathlib
from collections.abc import Sequence
from html import escape

import numpy as np

from jaxinpaint import arrays
from jaxinpaint.masks.bins import Bin
from jaxinpaint.report import extremes, grids
from jaxinpaint.report.album import Album
from jaxinpaint.report.results import (
  Example,
  Record,
  Results,
)
from jaxinpaint.report.tables import bin_title, number

_GAP = 4  # white pixels between the pictures of a case


class Gallery:
  """Asks an album for the pictures that there are, and shows those that it could hold.

  Args:
    results: with examples and cases, or without.
    album: closed between construction and the other methods.
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
    # The worst are looked at first.
    for which in ('worst', 'best'):
      for name in self._shown():
        for b in results.bins:
          for record in extremes.chosen(results, name, b)[which]:
            e = self._kept.get((name, b, record.index))
            if e is not None:
              album.ask(('case', name, b, record.index), _triple(e, name))

  def _shown(self) -> list[str]:
    """Whose cases are shown: everybody's but the classical fills'."""
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

  def examples(self, bin: Bin) -> str:
    """A slider and a strip of all pictures of a bin; '' where there are none."""
    found = [e for e in self._results.examples if e.bin == bin]
    found = [e for e in found if self._album.get((bin, e.index, 0))]
    if not found:
      return ''
    names = ['input', *self._names(found), 'truth']
    rows = [self._row(k, e, names) for k, e in enumerate(found)]
    option = lambda k, text, chosen: (
      f'<option value="{k}"{" selected" if k == chosen else ""}>{escape(text)}</option>'
    )
    images = ''.join(option(k, self._title(e), 0) for k, e in enumerate(found))
    pick = lambda chosen: ''.join(option(k, n, chosen) for k, n in enumerate(names))
    last = len(names) - 1
    heads = ''.join(f'<th scope="col">{escape(n)}</th>' for n in names)
    title = bin_title(bin)
    return f"""
<h3>{escape(title[0].upper() + title[1:])}</h3>
<div class="viewer" hidden>
<div class="controls">
<label>image <select data-image>{images}</select></label>
<label>left <select data-left>{pick(1)}</select></label>
<label>right <select data-right>{pick(last)}</select></label>
</div>
<div class="stage{self._small(found[0])}"><img data-under alt=""><img data-over alt="">
<span class="divider"></span><b class="side left" aria-hidden="true"></b>
<b class="side right" aria-hidden="true"></b>
<input type="range" min="0" max="100" step="1" value="50"
 aria-label="Divider between the left and the right picture, {escape(title)}"></div>
<p class="hint">Drag the divider, or use the arrow keys; press a picture below to see it on the
left.</p>
</div>
<div class="scroll" role="region" tabindex="0" aria-label="Pictures, {escape(title)}">
<table class="strip"><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>
"""

  def _row(self, k: int, e: Example, names: Sequence[str]) -> str:
    pictures = {name: column for column, (name, _) in enumerate(self._pictures(e))}
    cells = []
    for column, name in enumerate(names):
      uri = self._album.get((e.bin, e.index, pictures[name])) if name in pictures else None
      if uri is None:
        cells.append('<td>not kept</td>')
        continue
      what = {'input': 'input with its hole white', 'truth': 'truth'}.get(name, f'output of {name}')
      alt = escape(f'{what}, {self._title(e)}')
      cells.append(
        f'<td><button type="button" class="thumb" data-row="{k}" data-column="{column}">'
        f'<img class="picture{self._small(e)}" src="{uri}" alt="{alt}"></button>'
        f'<small>{self._caption(e, name)}</small></td>'
      )
    return f'<tr>{"".join(cells)}</tr>'

  def _caption(self, e: Example, name: str) -> str:
    record = self._records.get((name, e.bin, e.index))
    if name == 'input':
      return f'{100 * e.mask.mean():.1f} % hole'
    if record is None:
      return escape(self._file(e.bin, e.index))
    metric = self._metrics[0]
    return f'{escape(metric.label)} {number(record.values.get(metric.name, math.nan), metric)}'

  def _title(self, e: Example) -> str:
    return f'image {e.index} {self._file(e.bin, e.index)}'.strip()

  def _file(self, bin: Bin, index: int) -> str:
    found = (self._records.get((n, bin, index)) for n in self._results.predictors)
    return next((pathlib.PurePath(r.file).name for r in found if r), '')

  def _small(self, e: Example) -> str:
    """Small pictures are enlarged pixel by pixel."""
    return ' pixels' if max(e.truth.shape[:2]) <= 160 else ''

  def cases(self) -> str:
    """Best and worst of each predictor and bin: pictures where there are any, and the numbers."""
    return ''.join(self._cases_of(name, k == 0) for k, name in enumerate(self._shown()))

  def _cases_of(self, name: str, opened: bool) -> str:
    parts = []
    for b in self._results.bins:
      found = extremes.chosen(self._results, name, b)
      if not found['best']:
        continue
      title = bin_title(b)
      parts.append(f'<h3>{escape(title[0].upper() + title[1:])}</h3>')
      for which in ('worst', 'best'):
        figures = ''.join(self._case(name, r) for r in found[which])
        parts.append(f'<h4>{which.capitalize()}</h4><div class="cases">{figures}</div>')
    return (
      f'<details{" open" if opened else ""}><summary>{escape(name)}</summary>'
      f'{"".join(parts) or "<p>Too few images to choose from.</p>"}</details>'
    )

  def _case(self, name: str, record: Record) -> str:
    metric = self._case_metric
    uri = self._album.get(('case', name, record.bin, record.index))
    file = pathlib.PurePath(record.file).name
    numbers = [metric, *(m for m in self._metrics if m != metric)]
    shown = ', '.join(
      f'{m.label} {number(record.values[m.name], m)}' for m in numbers if m.name in record.values
    )
    e = self._kept.get((name, record.bin, record.index))
    picture = '<p class="nopicture">picture not kept</p>'
    if uri and e is not None:
      alt = escape(f'input, output of {name} and truth of image {record.index} {file}')
      picture = f'<img class="picture{self._small(e)}" src="{uri}" alt="{alt}">'
    return (
      f'<figure>{picture}<figcaption><b>{escape(file) or f"image {record.index}"}</b> '
      f'<span>{100 * record.hole_share:.1f} % hole; {escape(shown)}</span></figcaption></figure>'
    )


def _triple(e: Example, name: str) -> np.ndarray:
  """input | output | truth in one picture."""
  output = e.outputs[name]
  output = output if output.dtype == np.uint8 else arrays.to_uint8(output)
  gap = np.full((e.truth.shape[0], max(1, _GAP * e.truth.shape[1] // 256), 3), 255, np.uint8)
  return np.concatenate([grids.hole_shown(e.truth, e.mask), gap, output, gap, e.truth], axis=1)
