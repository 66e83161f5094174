"""The report as one web page, report.html, which loads nothing from elsewhere.

It can be read without scripts; they add the slider, sorting, and intervals on demand. This module
says what is shown. The templates lay it out, and escape all texts (names of files, of rows, ...).
"""

import dataclasses
import importlib.resources
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric
from jaxinpaint.report import curves, extremes, statistics
from jaxinpaint.report import published as papers
from jaxinpaint.report.gallery import BUDGET, Album, Gallery
from jaxinpaint.report.published import PUBLISHED, PUBLISHED_RESOURCES, Published
from jaxinpaint.report.results import Results
from jaxinpaint.report.statistics import Statistics
from jaxinpaint.report.tables import (
  SIGNS,
  bin_title,
  columns,
  count_text,
  drawn_text,
  heading,
  interval_text,
  mean_text,
  not_computed,
  number,
  percent,
  printed_names,
  resource,
  resource_names,
  verdicts,
)

_HARDWARE = ('devices', 'machine')
_MANY = 20_000  # with more dots than this, images are not drawn one by one


def page(
  results: Results,
  published: Sequence[Published] = (),
  environment: Mapping[str, Any] | None = None,
  *,
  budget: int = BUDGET,
) -> str:
  """The text of report.html.

  Args:
    results: of an evaluation, or joined.
    published: rows of papers to show beside, marked as published.
    environment: versions and hardware.
    budget: bytes that the pictures may take.
  """
  environment = environment or {}
  stats = Statistics(results)
  album = Album(budget)
  gallery = Gallery(results, album)
  album.close()
  printed = papers.resources(published, results.protocol.metrics)
  metrics = results.protocol.metrics
  return (
    _templates()
    .get_template('page.html')
    .render(
      results=results,
      statistics=statistics,
      environment=environment,
      about=_about(results, environment),
      deviations=results.deviations(),
      verdict=verdicts(results, stats),
      tables=[_bin(stats, b, published) for b in results.bins],
      published_label=PUBLISHED,
      published_elsewhere=papers.elsewhere(published, results.protocol.bins, metrics),
      keys=[curves.key(k) for k in range(len(results.predictors))],
      curves=_curves(stats),
      pictures=[shown for b in results.bins if (shown := gallery.examples(b))],
      album_note=album.note(),
      cases=gallery.cases(),
      case_metric=extremes.metric_of(results).label,
      resources=[
        (label, [resource(r.get(name)) for r in results.resources.values()])
        for name, label in resource_names(results.resources).items()
      ],
      resources_label=PUBLISHED_RESOURCES,
      printed_names=printed_names(printed),
      printed_resources=printed,
      not_computed=not_computed(results),
      sources=[_source(source, environment) for source in results.sources],
      style=_file('report.css'),
      script=_file('report.js'),
    )
  )


def _templates() -> jinja2.Environment:
  templates = jinja2.Environment(
    loader=jinja2.PackageLoader('jaxinpaint.report'),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  templates.filters |= dict(
    heading=heading,
    explained=_explained,
    sentence=lambda text: text[0].upper() + text[1:],
  )
  return templates


def _file(name: str) -> str:
  folder = importlib.resources.files('jaxinpaint.report').joinpath('templates')
  return folder.joinpath(name).read_text('utf-8')


def _explained(metric: Metric) -> str:
  """'SSIM: higher is better; data_range 255'."""
  options = ', '.join(f'{k} {v}' for k, v in metric.options.items())
  return f'{metric.label}: {metric.better} is better' + (f'; {options}' if options else '')


def _about(results: Results, environment: Mapping[str, Any]) -> list[tuple[str, Any]]:
  """[(term, text)] of the page's head."""
  images = f'{results.count} of {results.size[0]} x {results.size[1]} pixels'
  if results.skipped:
    images += f', {len(results.skipped)} unreadable ones skipped'
  rows = [
    ('Protocol', results.protocol.id),
    ('Source', results.protocol.source),
    ('Data set', results.dataset or 'not named'),
    ('Images', images),
    ('Masks', f'{results.masks_shown}, seed {results.seed}'),
    ('SHA-256 of the masks', results.mask_sha256),
    ('Commit', environment.get('commit') or 'not from a git checkout'),
    ('Hardware', '; '.join(str(environment[k]) for k in _HARDWARE if k in environment)),
    *((str(k).capitalize(), v) for k, v in results.notes.items()),
  ]
  return [row for row in rows if row[1]]


def _source(source: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
  """What is said about one of several joined reports, where it differs from the others."""
  own = [(k, v) for k, v in source.get('environment', {}).items() if v != environment.get(k)]
  about = [('Rows', ', '.join(source['predictors'])), *source.get('notes', {}).items(), *own]
  return {'folder': source['folder'], 'about': about}


@dataclasses.dataclass(frozen=True)
class _Cell:
  """A number in a table.

  Attributes:
    text: the number as shown.
    value: the number that the column is sorted by; None: sorted last.
    title: shown when a pointer rests on it.
    mark: class of the style sheet.
    interval: shown on demand; None: a number that cannot have one.
    sign: before the number.
    note: below it.
  """

  text: str
  value: str | None = None
  title: str | None = None
  mark: str | None = None
  interval: str | None = None
  sign: str = ''
  note: str = ''


@dataclasses.dataclass(frozen=True)
class _Row:
  """A row of a table: its name with colour and shape, and its cells."""

  key: curves.Key
  name: str
  cells: list[_Cell]


def _bin(stats: Statistics, b: Bin, published: Sequence[Published]) -> dict[str, Any]:
  """The tables of a bin."""
  results = stats.results
  metrics = columns(results)
  best = {m.name: stats.best(b, m) for m in metrics}
  rows = []
  for k, name in enumerate(results.predictors):
    count = count_text(stats, name, b)
    cells = [_cell(stats, name, b, m, best[m.name]) for m in metrics]
    rows.append(_Row(curves.key(k), name, [*cells, _Cell(count, count.split()[0])]))
  return dict(
    title=bin_title(b),
    drawn=drawn_text(results, b),
    metrics=metrics,
    rows=rows,
    published=papers.of_bin(published, b, metrics),
    dataset=published[0]['dataset'] if published else '',
    differences=_differences(stats, b),
  )


def _cell(stats: Statistics, name: str, b: Bin, m: Metric, best: statistics.Best) -> _Cell:
  if m not in stats.metrics:
    of_set = stats.results.set_value(name, b, m.name)
    if of_set is None:
      return _Cell('–')
    about = f'one number of {of_set.n} images together; it has no interval'
    mark = 'best' if name == best.name else None
    return _Cell(number(of_set.value, m), f'{of_set.value:.8g}', about, mark)
  s = stats.summary(name, b, m.name)
  if not s.n:
    return _Cell(mean_text(s, m), 'inf' if s.infinite else None)
  interval = interval_text(s.low, s.high, m)
  about = f'{s.n} images'
  if interval:
    about = f'95 % interval {interval}, standard error {s.standard_error:.3g}, {about}'
  if s.infinite or s.undefined:
    about += f'; left out: {s.infinite} infinite, {s.undefined} undefined'
  mark = None
  if name == best.name:
    mark, about = 'best', f'{about}; best mean'
  elif name in best.tied:
    mark, about = 'tied', f'{about}; not told apart from {best.name}'
  return _Cell(mean_text(s, m), f'{s.mean:.8g}', about, mark, interval)


def _differences(stats: Statistics, b: Bin) -> list[_Row]:
  """Of each row from the baseline, image by image; [] without a baseline."""
  rows: dict[str, _Row] = {}
  for c in stats.comparisons():
    if c.bin != b:
      continue
    interval = interval_text(c.low, c.high, c.metric, True)
    about = f'{c.verdict}; 95 % interval {interval}; {c.n} images'
    about += f', {c.left_out} left out as not finite' if c.left_out else ''
    about += f'; better on {percent(c.better)}, equal on {percent(c.equal)} of them'
    cell = _Cell(
      text=number(c.difference, c.metric, True),
      value=None if math.isnan(c.difference) else f'{c.difference:.8g}',
      title=about,
      mark=c.verdict,
      interval=interval,
      sign=SIGNS[c.verdict],
      note=f'better on {percent(c.better)}',
    )
    key = curves.key(stats.results.predictors.index(c.predictor))
    rows.setdefault(c.predictor, _Row(key, c.predictor, [])).cells.append(cell)
  return list(rows.values())


def _curves(stats: Statistics) -> list[dict[str, Any]]:
  """The curves of each kind of mask: of the means, and with a dot for every image."""
  results = stats.results
  few = len(results.records) * len(stats.metrics) <= _MANY
  groups = []
  for kind, bins in curves.groups(results.bins).items():
    draw = lambda images, bins=bins: [
      c for m in stats.metrics if (c := curves.curve(stats, m, bins, images=images))
    ]
    title = (kind or results.masks).replace('_', ' ').capitalize()
    groups.append(dict(title=title, means=draw(False), images=draw(True) if few else []))
  return groups
