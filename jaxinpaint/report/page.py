"""The report as one web page, report.html: everything inside, nothing loaded from elsewhere.

The page reads without scripts; they add the slider, sorting, and intervals on demand. Whatever
comes from outside (names of files, predictors, data sets) is escaped.
"""

import importlib.resources
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric
from jaxinpaint.report import curves, extremes, statistics
from jaxinpaint.report import published as papers
from jaxinpaint.report.album import BUDGET, Album
from jaxinpaint.report.gallery import Gallery
from jaxinpaint.report.published import PUBLISHED, Published
from jaxinpaint.report.results import Results
from jaxinpaint.report.statistics import Statistics
from jaxinpaint.report.tables import (
  SIGNS,
  bin_title,
  columns,
  count_text,
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
_MANY = 20_000  # dots, above which images are not drawn one by one


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
    published: rows to stand beside, marked as such.
    environment: versions and hardware.
    budget: bytes that the pictures may take.
  """
  stats = Statistics(results)
  album = Album(budget)
  gallery = Gallery(results, album)
  album.close()
  examples = ''.join(gallery.examples(b) for b in results.bins)
  sections = [
    ('verdict', 'Verdict', _verdict(stats)),
    ('tables', 'Tables', ''.join(_bin(stats, b, published) for b in results.bins)
     + _further(results, published)),
    ('curves', 'By share of hole', _curves(stats)),
    ('pictures', 'Pictures', examples and _legend_of_pictures(album) + examples),
    ('cases', 'Best and worst', _legend_of_cases(results) + gallery.cases()),
    ('resources', 'Resources', _resources(results, published)),
    ('missing', 'Not computed, left out', _missing(results)),
    ('method', 'How it was measured', _method(results, environment or {})),
  ]  # fmt: skip
  sections = [s for s in sections if s[2]]
  links = ''.join(f'<a href="#{id}">{escape(title)}</a>' for id, title, _ in sections)
  body = ''.join(
    f'<section id="{id}"><h2>{escape(title)}</h2>{text}</section>' for id, title, text in sections
  )
  title = f'{results.protocol.id}: {", ".join(results.predictors)}'
  fields = {
    'title': escape(title),
    'header': _header(results, environment or {}),
    'links': links,
    'body': body,
    'style': _package_file('report.css'),
    'script': _package_file('report.js'),
  }
  text = _package_file('report_template.html')
  # Split first: what is filled in may itself contain such a mark.
  head, *parts = text.split('{{')
  filled = [head]
  for part in parts:
    name, _, rest = part.partition('}}')
    filled.append(fields[name] + rest)
  return ''.join(filled)


def _package_file(name: str) -> str:
  return importlib.resources.files('jaxinpaint.report').joinpath(name).read_text('utf-8')


def _pairs(rows: Sequence[tuple[str, Any]]) -> str:
  """A list of terms; the values are text."""
  items = (f'<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>' for k, v in rows)
  return f'<dl>{"".join(items)}</dl>'


def _header(results: Results, environment: Mapping[str, Any]) -> str:
  p = results.protocol
  images = f'{results.count} of {results.size[0]} x {results.size[1]} pixels'
  if results.skipped:
    images += f', {len(results.skipped)} unreadable ones skipped'
  rows = [
    ('Protocol', p.id),
    ('Source', p.source),
    ('Data set', results.dataset or 'not named'),
    ('Images', images),
    ('Masks', f'{results.masks_shown}, seed {results.seed}'),
    ('SHA-256 of the masks', results.mask_sha256),
    ('Commit', environment.get('commit') or 'not from a git checkout'),
    ('Hardware', '; '.join(str(environment[k]) for k in _HARDWARE if k in environment)),
    *((str(k).capitalize(), v) for k, v in results.notes.items()),
  ]  # fmt: skip
  deviations = results.deviations()
  text = f'<h1>Evaluation by protocol {escape(p.id)}</h1>{_pairs([r for r in rows if r[1]])}'
  if deviations:
    items = ''.join(f'<li>{escape(d)}</li>' for d in deviations)
    text += (
      '<div class="warning" role="note"><strong>Departs from the protocol:</strong>'
      f'<ul>{items}</ul></div>'
    )
  return text


def _verdict(stats: Statistics) -> str:
  found = verdicts(stats.results, stats)
  return f'<ul>{"".join(f"<li>{escape(v)}</li>" for v in found)}</ul>' if found else ''


def _bin(stats: Statistics, b: Bin, published: Sequence[Published]) -> str:
  title = bin_title(b)
  return (
    f'<h3>{escape(title[0].upper() + title[1:])}</h3>'
    + _main_table(stats, b, published)
    + _difference_table(stats, b)
  )


def _heads(first: str, metrics: Sequence[Metric], last: Sequence[str] = ()) -> str:
  about = lambda m: escape(
    f'{m.label}: {m.better} is better'
    + (f'; {", ".join(f"{k} {v}" for k, v in m.options.items())}' if m.options else '')
  )
  heads = [f'<th scope="col" data-sort="text">{escape(first)}</th>']
  heads += [
    f'<th scope="col" data-sort="{m.better}" title="{about(m)}">{escape(heading(m))}</th>'
    for m in metrics
  ]
  heads += [f'<th scope="col" data-sort="higher">{escape(x)}</th>' for x in last]
  return f'<thead><tr>{"".join(heads)}</tr></thead>'


def _scroll(label: str, table: str) -> str:
  return (
    f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'
  )


def _main_table(stats: Statistics, b: Bin, published: Sequence[Published]) -> str:
  results = stats.results
  metrics = columns(results)
  best = {m.name: stats.best(b, m) for m in metrics}
  rows = []
  for k, name in enumerate(results.predictors):
    cells = [
      f'<th scope="row">{curves.marker(k)}{escape(name)}'
      + ('<small> baseline</small>' if name == results.baseline else '')
      + '</th>'
    ]
    cells += [_cell(stats, name, b, m, best[m.name]) for m in metrics]
    n = count_text(stats, name, b)
    cells.append(f'<td data-value="{n.split()[0]}">{escape(n)}</td>')
    rows.append(f'<tr>{"".join(cells)}</tr>')
  bodies = f'<tbody>{"".join(rows)}</tbody>'
  printed = papers.of_bin(published, b, metrics)
  if printed:
    rows = []
    for method, given in printed:
      cells = [f'<th scope="row">{escape(method)} <small>published</small></th>']
      cells += [
        f'<td data-value="{escape(given[m.name])}">{escape(given[m.name])}</td>'
        if m.name in given
        else '<td>–</td>'
        for m in metrics
      ]
      rows.append(f'<tr>{"".join(cells)}<td>–</td></tr>')
    span = len(metrics) + 2
    what = f'{PUBLISHED}: {published[0]["dataset"]}, as printed in the paper'
    bodies += (
      f'<tbody class="published"><tr class="divide"><th colspan="{span}" scope="rowgroup">'
      f'{escape(what)}</th></tr>{"".join(rows)}</tbody>'
    )
  return _scroll(
    f'Means, {bin_title(b)}',
    f'<table class="sortable">{_heads("method", metrics, ["n"])}{bodies}</table>',
  )


def _cell(stats: Statistics, name: str, b: Bin, m: Metric, best: statistics.Best) -> str:
  if m not in stats.metrics:
    found = stats.results.set_value(name, b, m.name)
    if found is None:
      return '<td>–</td>'
    about = f'one number of {found.n} images together; it has no interval'
    mark = ' class="best"' if name == best.name else ''
    value = number(found.value, m)
    return f'<td{mark} data-value="{found.value:.8g}" title="{escape(about)}">{value}</td>'
  s = stats.summary(name, b, m.name)
  value = mean_text(s, m)
  if not s.n:
    return f'<td{" data-value=inf" if s.infinite else ""}>{value}</td>'
  interval = interval_text(s.low, s.high, m)
  about = f'{s.n} images'
  if interval:
    about = f'95 % interval {interval}, standard error {s.standard_error:.3g}, {about}'
  if s.infinite or s.undefined:
    about += f'; left out: {s.infinite} infinite, {s.undefined} undefined'
  mark = ''
  if name == best.name:
    mark, about = ' class="best"', f'{about}; best mean'
  elif name in best.tied:
    mark, about = ' class="tied"', f'{about}; not told apart from {best.name}'
  return (
    f'<td{mark} data-value="{s.mean:.8g}" title="{escape(about)}"><span class="mean">{value}</span>'
    f'<small class="interval">{interval}</small></td>'
  )


def _difference_table(stats: Statistics, b: Bin) -> str:
  found = [c for c in stats.comparisons() if c.bin == b]
  if not found:
    return ''
  base = found[0].baseline
  rows = []
  for name in dict.fromkeys(c.predictor for c in found):
    k = stats.results.predictors.index(name)
    cells = [f'<th scope="row">{curves.marker(k)}{escape(name)}</th>']
    for c in (c for c in found if c.predictor == name):
      value = '' if math.isnan(c.difference) else f' data-value="{c.difference:.8g}"'
      interval = interval_text(c.low, c.high, c.metric, True)
      about = f'{c.verdict}; 95 % interval {interval}; {c.n} images'
      about += f', {c.left_out} left out as not finite' if c.left_out else ''
      about += f'; better on {percent(c.better)}, equal on {percent(c.equal)} of them'
      cells.append(
        f'<td class="{c.verdict}"{value} title="{escape(about)}"><span class="mean">'
        f'<span aria-hidden="true">{SIGNS[c.verdict]}</span> '
        f'{number(c.difference, c.metric, True)}</span>'
        f'<small class="interval">{interval}</small>'
        f'<small>better on {percent(c.better)}</small></td>'
      )
    rows.append(f'<tr>{"".join(cells)}</tr>')
  title = f'Paired difference from {base}'
  table = f'<table class="sortable">{_heads("method", stats.metrics)}<tbody>{"".join(rows)}</tbody>'
  return f'<h4>{escape(title)}</h4>' + _scroll(f'{title}, {bin_title(b)}', f'{table}</table>')


def _further(results: Results, published: Sequence[Published]) -> str:
  rows = papers.elsewhere(published, results.protocol.bins, results.protocol.metrics)
  if not rows:
    return ''
  keys = ('method', 'mask', 'percent', 'metric', 'value')
  body = ''.join('<tr>' + ''.join(f'<td>{escape(r[k])}</td>' for k in keys) + '</tr>' for r in rows)
  heads = ('method', 'masks', 'hole %', 'metric', 'value')
  head = ''.join(f'<th scope="col">{h}</th>' for h in heads)
  return f'<h3>Published for other masks</h3><p>{escape(PUBLISHED)}.</p>' + _scroll(
    'Published for other masks',
    f'<table><thead><tr>{head}</tr></thead><tbody class="published">{body}</tbody></table>',
  )


def _curves(stats: Statistics) -> str:
  results = stats.results
  legend = ''.join(
    f'<li>{curves.marker(k)}{escape(n)}</li>' for k, n in enumerate(results.predictors)
  )
  parts = []
  several = curves.groups(results.bins)
  for kind, bins in several.items():
    if len(several) > 1:
      parts.append(f'<h3>{escape((kind or results.masks).replace("_", " ").capitalize())}</h3>')
    drawn = ''.join(curves.curve(stats, m, bins) for m in stats.metrics)
    parts.append(f'<div class="curves">{drawn}</div>')
    if len(results.records) * len(stats.metrics) <= _MANY:
      drawn = ''.join(curves.curve(stats, m, bins, images=True) for m in stats.metrics)
      parts.append(
        '<details class="screen"><summary>Every image as a dot</summary>'
        f'<div class="curves">{drawn}</div></details>'
      )
  return (
    '<p>Means of each bin at the mean share of its holes, in a band of their 95 % intervals. The '
    'bands say how sure a mean is; whether two methods differ is in the paired differences.</p>'
    f'<ul class="legend">{legend}</ul>{"".join(parts)}'
  )


def _legend_of_pictures(album: Album) -> str:
  text = 'The first images of the set; nobody chose them.'
  return f'<p>{escape(f"{text} {album.note()}".strip())}</p>'


def _legend_of_cases(results: Results) -> str:
  metric = extremes.metric_of(results)
  return (
    f'<p>By {escape(metric.label)}, each picture input, output and truth. These are extremes: they '
    'show how a method fails and succeeds, not how it does on the whole.</p>'
  )


def _resources(results: Results, published: Sequence[Published]) -> str:
  text = ''
  if results.resources:
    rows = ''.join(
      f'<tr><th scope="row">{escape(shown)}</th>'
      + ''.join(f'<td>{escape(resource(r.get(name)))}</td>' for r in results.resources.values())
      + '</tr>'
      for name, shown in resource_names(results.resources).items()
    )
    heads = ''.join(f'<th scope="col">{escape(n)}</th>' for n in ('', *results.resources))
    text += _scroll(
      'Resources', f'<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    )
  printed = papers.resources(published, results.protocol.metrics)
  if printed:
    names = printed_names(printed)
    rows = ''.join(
      f'<tr><th scope="row">{escape(method)} <small>published</small></th>'
      + ''.join(f'<td data-value="{escape(x)}">{escape(x or "–")}</td>' for x in values)
      + '</tr>'
      for method, given in printed
      for values in [[given.get(n, '') for n in names]]
    )
    heads = ''.join(f'<th scope="col" data-sort="lower">{escape(n)}</th>' for n in names.values())
    what = papers.PUBLISHED_RESOURCES
    text += f'<p class="published">{escape(what)}</p>' + _scroll(
      f'Resources, {what}',
      f'<table class="sortable"><thead><tr><th scope="col" data-sort="text">method</th>{heads}'
      f'</tr></thead><tbody class="published">{rows}</tbody></table>',
    )
  return text


def _missing(results: Results) -> str:
  items = [f'<li>{escape(text)}</li>' for text in not_computed(results)]
  text = f'<h3>Metrics not computed</h3><ul>{"".join(items)}</ul>' if items else ''
  skipped = [f'<li><code>{escape(f)}</code>: {escape(why)}</li>' for f, why in results.skipped]
  if skipped:
    text += f'<h3>Images that could not be read</h3><ul>{"".join(skipped)}</ul>'
  return text


def _method(results: Results, environment: Mapping[str, Any]) -> str:
  p = results.protocol
  few = ''
  if results.count < statistics.FEW:
    few = f' With {results.count} images the intervals are too narrow.'
  parts = [
    f'<p>{escape(p.notes)}</p>',
    f'<p>{escape(statistics.METHOD)}.{few} Paired differences are taken image by image, on the '
    'same image with the same mask. ▲ better, ▼ worse: the interval of the difference leaves out '
    '0; ≈ undecided. A best mean is bold; ≈ beside another says that it is not told apart from the '
    'best.</p>',
    _pairs(list(environment.items())),
  ]
  for source in results.sources:
    own = [(k, v) for k, v in source.get('environment', {}).items() if v != environment.get(k)]
    about = [('Rows', ', '.join(source['predictors'])), *source.get('notes', {}).items(), *own]
    parts.append(f'<h3>From {escape(source["folder"])}</h3>{_pairs(about)}')
  return ''.join(parts)
