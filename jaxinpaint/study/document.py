"""A study as data and as a page: its numbers in the survey's tables, beside the published ones.

study.json holds every number with what it was measured of (row, data set, holes and their
generator, composite or raw output, size, images); study.md is made from it.
"""

import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxinpaint.cost.resources import Measured
from jaxinpaint.masks import sets
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric, Protocol
from jaxinpaint.report import resources
from jaxinpaint.report.published import published_rows
from jaxinpaint.report.results import Results
from jaxinpaint.runtime import atomic

SCHEMA = 1
OUTPUTS = ('composite', 'raw')
PUBLISHED = "the survey's own, published: other images, masks, weights and machines"
_EXACT = 1e-9

Cell = dict[str, Any]


def holes_of(b: Bin) -> tuple[str, int]:
  """('center', 10) of the survey's bin 'center 10'."""
  kind, percent = b.label.split()
  return kind, int(percent)


def base_metrics(protocol: Protocol) -> dict[str, tuple[Metric, str]]:
  """{metric: (its plain form, 'composite' or 'raw')}: 'raw_psnr' is 'psnr' of the raw output."""
  forms = {}
  for m in protocol.metrics:
    of = ('composite' if protocol.composite else 'raw') if m.of == 'protocol' else m.of
    first = next(x for x in protocol.metrics if (x.function, x.options) == (m.function, m.options))
    forms[m.name] = (first, of)
  return forms


def cells(results: Results, dataset: str, size: int) -> list[Cell]:
  """Every mean of an evaluation; None without a finite value."""
  forms = base_metrics(results.protocol)
  cells = []
  for row in results.predictors:
    for b in results.bins:
      kind, percent = holes_of(b)
      for m in results.protocol.metrics:
        s = results.summary(row, b, m.name)
        metric, of = forms[m.name]
        cells.append(
          {
            'row': row,
            'dataset': dataset,
            'holes': kind,
            'percent': percent,
            'masks': sets.name_of(b.masks, own=True),
            'metric': metric.name,
            'of': of,
            'mean': s.mean if math.isfinite(s.mean) else None,
            'standard_error': s.standard_error if math.isfinite(s.standard_error) else None,
            'n': s.n,
            'infinite': s.infinite,
            'size': size,
          }
        )
  return cells


def make(
  *,
  config: ConfigDict,
  protocol: Protocol,
  datasets: Mapping[str, Any],
  rows: Sequence[Mapping[str, Any]],
  fills: Sequence[str],
  cells: Sequence[Cell],
  measured: Measured | None,
  environment: Mapping[str, Any],
  size: int,
  full_size: bool = False,
) -> dict[str, Any]:
  """The content of study.json.

  Args:
    config: of the study.
    protocol: how it was measured.
    datasets: {name: which images were measured; None if the data set was not given}.
    rows: {name, system, method, size, origin, dataset, resources} of each row on each data set.
    fills: names of the rows that are classical fills.
    cells: of `cells`.
    measured: resources; None: not measured.
    environment: versions and hardware.
    size: of the images, for rows that have no size of their own.
    full_size: the resources are those of the published networks, whatever the rows' own are.
  """
  labels = {d: config.datasets[d].label for d in config.datasets}
  document = {
    'schema': SCHEMA,
    'protocol': protocol.description(),
    'labels': labels,
    'settings': {n: config[n] for n in ('count', 'seed', 'draw_seed')} | {'size': size},
    'metrics': list(config.metrics),
    'datasets': dict(datasets),
    'rows': [dict(r) for r in rows],
    'fills': list(fills),
    'tables': [dict(t) for t in config.tables],
    'cells': list(cells),
    'published': [r for x in labels.values() for r in published_rows(protocol.id, x)],
    'resources': measured.to_json() | {'full_size': full_size} if measured else None,
    'environment': dict(environment),
  }
  document = json.loads(json.dumps(document, allow_nan=False))
  findings = [finding(dict(f), document) for f in config.findings]
  document['findings'] = sorted(findings, key=lambda f: f['measured'] is None)
  return document


def finding(f: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
  """A conclusion of the survey, by its own tables and, if all its rows were measured, by these.

  Returns:
    {title, kind, published: {method: cells or number}, missing: [what is not there], measured:
    {'composite': {method: ...}, ...} or None, sentence}
  """
  f = json.loads(json.dumps(f))
  names = {d: document['labels'][d] for d in f['datasets']}
  missing = [names[d] for d in f['datasets'] if document['datasets'].get(d) is None]
  for d in f['datasets']:
    there = {r['method'] for r in document['rows'] if r['dataset'] == d}
    lacking = [m for m in f['methods'] if m not in there]
    if lacking and names[d] not in missing:
      few = len(lacking) <= 3
      which = ', '.join(lacking) if few else f'{len(lacking)} of its {len(f["methods"])} methods'
      missing.append(f'{which} on {names[d]}')
  result = {k: f[k] for k in ('title', 'kind')} | {'missing': missing, 'measured': None}
  if f['kind'] == 'least':
    return result | _least(f, document, missing)
  values = _published_cells(document['published'], names, f['methods'], f['holes'])
  counts, total = wins(values)
  result['published'] = counts
  text = f'{f["title"]}: published, {_counts(counts, total)}.'
  if missing:
    return result | {'sentence': f'{text} Not checked here: missing {"; ".join(missing)}.'}
  result['measured'] = {}
  for of in OUTPUTS:
    mine, mine_total = wins(_measured_cells(document, f, of))
    result['measured'][of] = mine
    same = 'the same' if _best(mine) == _best(counts) else 'another'
    text += f' Here, {of} outputs, {_counts(mine, mine_total)}: {same} winner.'
  rows = [r for r in document['rows'] if r['dataset'] in names and r['method'] in f['methods']]
  if len({r['size'] for r in rows}) > 1:
    sizes = dict.fromkeys(f'{r["name"]} {r["size"]}' for r in rows)
    text += f' Their images are not of one size ({", ".join(sizes)}).'
  return result | {'sentence': text}


def _least(f: Mapping[str, Any], document: Mapping[str, Any], missing: list[str]) -> dict[str, Any]:
  """Which method needs least of a resource, by means over the data sets."""
  labels = [document['labels'][d] for d in f['datasets']]
  known = next(r for r in resources.RESOURCES if r.name == f['resource'])
  printed: dict[str, list[float]] = {}
  for r in document['published']:
    if r['metric'] == known.published and r['dataset'] in labels and r['method'] in f['methods']:
      printed.setdefault(r['method'], []).append(float(r['value']))
  means = {m: sum(v) / len(v) for m, v in printed.items()}
  least = min(means.values())
  best = [m for m in means if means[m] == least]
  shown = resources.shown(known.name, least)
  text = f'{f["title"]}: published, {" and ".join(best)} ({shown} {known.unit}).'
  costs = (document['resources'] or {}).get('resources', {})
  mine: dict[str, float] = {}
  for m in f['methods']:
    values = [
      costs[r['resources']][known.name]
      for r in document['rows']
      if r['method'] == m
      and r['dataset'] in f['datasets']
      and known.name in costs.get(r['resources'], {})
    ]
    if values:
      mine[m] = sum(values) / len(values)
  lacking = [m for m in f['methods'] if m not in mine]
  if missing or lacking:
    why = missing or [f'{known.label} measured of {", ".join(lacking)} (--resources)']
    return {
      'published': means,
      'missing': why,
      'sentence': f'{text} Not checked here: missing {"; ".join(why)}.',
    }
  own = min(mine, key=mine.get)
  same = 'the same' if own in best else 'another'
  shown = resources.shown(known.name, mine[own])
  return {
    'published': means,
    'measured': mine,
    'sentence': f'{text} Here: {own} ({shown} {known.unit}): {same}.',
  }


def wins(values: Iterable[Mapping[str, float]]) -> tuple[dict[str, int], int]:
  """({method: in how many cells no other is better}, number of cells); a tie counts for each."""
  counts: dict[str, int] = {}
  total = 0
  for cell in values:
    total += 1
    best = max(cell.values())
    for method, value in cell.items():
      counts[method] = counts.get(method, 0) + (value >= best - _EXACT)
  return dict(sorted(counts.items(), key=lambda x: -x[1])), total


def _best(counts: Mapping[str, int]) -> set[str]:
  return {m for m, n in counts.items() if n == max(counts.values())}


def _counts(counts: Mapping[str, int], total: int) -> str:
  shown = ', '.join(f'{m} {n}' for m, n in counts.items() if n)
  return f'best {shown} of {total} cells'


def _published_cells(
  printed: Sequence[Mapping[str, str]],
  names: Mapping[str, str],
  methods: Sequence[str],
  holes: Sequence[str],
) -> list[dict[str, float]]:
  by_cell: dict[tuple, dict[str, float]] = {}
  for r in printed:
    if r['dataset'] in names.values() and r['mask'] in holes and r['method'] in methods:
      key = (r['dataset'], r['mask'], r['percent'], r['metric'])
      by_cell.setdefault(key, {})[r['method']] = float(r['value'])
  return [v for v in by_cell.values() if set(v) == set(methods)]


def _measured_cells(
  document: Mapping[str, Any], f: Mapping[str, Any], of: str
) -> list[dict[str, float]]:
  """{method: mean} in each cell, for the two metrics that the survey prints; higher is better."""
  printed = [m['name'] for m in document['protocol']['metrics'] if m['published']]
  method: dict[tuple[str, str], str] = {}
  for r in document['rows']:
    if r['method'] in f['methods'] and r['method'] not in [
      m for (d, _), m in method.items() if d == r['dataset']
    ]:
      method[r['dataset'], r['name']] = r['method']
  by_cell: dict[tuple, dict[str, float]] = {}
  for c in document['cells']:
    name = method.get((c['dataset'], c['row']))
    if name and c['dataset'] in f['datasets'] and c['holes'] in f['holes']:
      if c['of'] == of and c['metric'] in printed and c['mean'] is not None:
        key = (c['dataset'], c['holes'], c['percent'], c['metric'])
        by_cell.setdefault(key, {})[name] = c['mean']
  return list(by_cell.values())


def write(document: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Writes study.json and study.md; keeps earlier ones as study.json.bak and study.md.bak."""
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
  for name, content in (('study.json', text), ('study.md', markdown(document))):
    path = folder / name
    new = folder / f'.{name}.{os.getpid()}'
    new.write_bytes(atomic.as_bytes(content))
    if path.exists():
      path.replace(folder / f'{name}.bak')
    new.replace(path)


def markdown(document: Mapping[str, Any]) -> str:
  """The text of study.md."""
  p = document['protocol']
  lines = ["# The survey's study", '', f'Protocol {p["id"]}: {p["source"]}.', '']
  lines += [_about(d, document) for d in document['datasets']]
  lines += [
    '',
    f'Numbers in *italics* are {PUBLISHED}. *composite*: known pixels pasted back; '
    '*raw*: the output as the networks give it. Means over images; study.json has the standard '
    'errors, and the reports of each data set the images.',
    '',
    '## Findings',
    '',
    *(f'- {f["sentence"]}' for f in document['findings']),
  ]
  for table in document['tables']:
    if table['kind'] == 'quality':
      lines += _quality(table, document)
    else:
      lines += _costs(table, document)
  lines += ['', '## How it was measured', '', p['notes'], '']
  lines += [f'- {r["name"]} on {document["labels"][r["dataset"]]}: {r["origin"]}, {r["size"]} x '
            f'{r["size"]}' for r in document['rows']]  # fmt: skip
  if document['resources']:
    lines += [f'- {m["label"]}: {m["method"]}.' for m in document['resources']['methods']]
    for name, why in document['resources']['not_measured'].items():
      lines += [f'- {name}, {what}: not measured: {text}' for what, text in why.items()]
  lines += [f'- {key}: {value}' for key, value in document['environment'].items()]
  return '\n'.join(lines) + '\n'


def _about(d: str, document: Mapping[str, Any]) -> str:
  about, label = document['datasets'][d], document['labels'][d]
  if about is None:
    return f'- **{label}**: not given (--{d}).'
  reports = '; '.join(
    f'{side} x {side}{holes}'
    + (
      ''
      if int(side) == document['protocol']['size']
      else f' (the protocol: {document["protocol"]["size"]})'
    )
    + f': [{r["folder"]}]({r["folder"]}/report.md), masks SHA-256 `{r["mask_sha256"][:12]}`'
    + (f', {len(r["skipped"])} unreadable' if r['skipped'] else '')
    for size, r in about['reports'].items()
    for side, *rest in [size.partition(' ')]
    for holes in [''.join(rest)]
  )
  wanted = document['protocol']
  short = '' if about['count'] == wanted['count'] else f' (the survey: {wanted["count"]:,})'
  return (
    f'- **{label}**: {about["count"]} test images{short} drawn with seed {about["draw_seed"]} of '
    f'the {about["of"]} of {about["source"]}, names SHA-256 `{about["names_sha256"][:12]}` '
    f'({d}_test.txt); {reports}.'
  )


def _quality(table: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
  word = {'center': 'centre', 'random': 'random'}[table['holes']]
  lines = ['', f'## Table {table["number"]}: {table["group"]} class, {word} holes']
  metrics = [m for m in document['protocol']['metrics'] if m['name'] in document['metrics']]
  for d, about in document['datasets'].items():
    label = document['labels'][d]
    here = [c for c in document['cells'] if (c['dataset'], c['holes']) == (d, table['holes'])]
    printed = [
      r
      for r in document['published']
      if r['dataset'] == label and r['mask'] == table['holes'] and r['method'] in table['methods']
    ]
    levels = sorted({int(r['percent']) for r in printed})
    generators = ', '.join(dict.fromkeys(c['masks'] for c in here)) or 'none drawn'
    seed = document['settings']['seed']
    lines += ['', f'**{label}**, masks `{generators}`, seed {seed}:' if about else
              f'**{label}**: not given.', '']  # fmt: skip
    heads = [f'{m["label"]} {p} %' for m in metrics for p in levels]
    lines += ['| method | output | ' + ' | '.join(heads) + ' |']
    lines += ['|---|---|' + '---:|' * len(heads)]
    for name, method, note in _lines(table, d, document):
      if name:
        for of in OUTPUTS:
          mine = {(c['metric'], c['percent']): c for c in here if (c['row'], c['of']) == (name, of)}
          if of == 'raw' and name in document['fills']:
            continue  # a fill has only a composite output
          shown = [_shown(mine.get((m['name'], p)), m) for m in metrics for p in levels]
          lines.append(f'| {name}{note} | {of} | ' + ' | '.join(shown) + ' |')
      else:
        lines.append(f'| {method} | not given | ' + ' | '.join(['–'] * len(heads)) + ' |')
      if method:
        values = {
          (r['metric'], int(r['percent'])): r['value'] for r in printed if r['method'] == method
        }
        shown = [values.get((m['published'], p)) for m in metrics for p in levels]
        cells = [f'*{v}*' if v else '–' for v in shown]
        lines.append(f'| *{method}* | *published* | ' + ' | '.join(cells) + ' |')
  return lines


def _lines(
  table: Mapping[str, Any], d: str, document: Mapping[str, Any]
) -> list[tuple[str | None, str, str]]:
  """[(row or None, its method or '', note)] of a table and data set: methods, others, fills."""
  usual = document['settings']['size']
  rows = [r for r in document['rows'] if r['dataset'] == d]
  note = lambda r: '' if r['size'] == usual else f' ({r["size"]} x {r["size"]})'
  lines: list[tuple[str | None, str, str]] = []
  for m in table['methods']:
    own = [r for r in rows if r['method'] == m]
    lines += [(r['name'], '', note(r)) for r in own[:-1]]
    lines += [(own[-1]['name'], m, note(own[-1]))] if own else [(None, m, '')]
  lines += [(r['name'], '', note(r)) for r in rows if not r['method']]
  if document['datasets'].get(d):
    lines += [(name, '', '') for name in document['fills']]
  return lines


def _shown(cell: Cell | None, metric: Mapping[str, Any]) -> str:
  if cell is None:
    return '–'
  if cell['mean'] is None:
    return '∞' if cell['infinite'] else '–'
  return f'{cell["mean"]:.{metric["digits"]}f}'


_COLUMNS = (
  'size',
  'parameters',
  'gflops',
  'seconds_per_image',
  'seconds_per_image_best_batch',
  'host_gb',
  'device_gb',
  'planned_gb',
  'train_batch',
  'train_size',
  'train_seconds_per_step',
  'train_steps',
  'train_hours',
  'train_host_gb',
)


def _costs(table: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
  """A table of resources; published numbers are for CelebA / Places2."""
  lines = ['', f'## Table {table["number"]}: {table["group"]} class, resources', '']
  known = {r.name: r for r in resources.RESOURCES}
  columns = [known[n] for n in _COLUMNS]
  heads = [f'{c.label}{f" ({c.unit})" if c.unit else ""}' for c in columns]
  lines += ['| method | | ' + ' | '.join(heads) + ' |', '|---|---|' + '---:|' * len(heads)]
  costs = (document['resources'] or {}).get('resources', {})
  printed = {
    (r['method'], r['metric'], r['dataset']): r['value']
    for r in document['published']
    if str(r['table']) == str(table['number'])
  }
  shown: set[str] = set()

  def add(name: str, words: str) -> None:
    if name in shown:
      return
    shown.add(name)
    values = costs.get(name, {})
    cells = [resources.shown(c.name, values[c.name]) if c.name in values else '–' for c in columns]
    lines.append(f'| {name} | {words} | ' + ' | '.join(cells) + ' |')

  networks = ', published networks' if costs and document['resources'].get('full_size') else ''
  state = f'measured here{networks}' if costs else 'not measured (--resources)'
  for m in table['methods']:
    own = list(dict.fromkeys(r['resources'] for r in document['rows'] if r['method'] == m))
    for name in own:
      add(name, state)
    if not own:
      lines.append(f'| {m} | not given | ' + ' | '.join(['–'] * len(columns)) + ' |')
    cells = []
    for c in columns:
      both = [printed.get((m, c.published, label), '–') for label in document['labels'].values()]
      cells.append(f'*{" / ".join(both)}*' if any(v != '–' for v in both) else '–')
    lines.append(f'| *{m}* | *published* | ' + ' | '.join(cells) + ' |')
  for r in document['rows']:
    if not r['method']:
      add(r['resources'], state)
  for name in document['fills']:
    if name in costs:
      add(name, state)
  lines += [
    '',
    f'*Published: {" / ".join(document["labels"].values())}, Intel E5-2620, 32 GB, Tesla K80 of 12 '
    'GB; it does not say whether memory is of testing or of training.*',
  ]
  return lines


__all__ = ['cells', 'finding', 'make', 'markdown', 'wins', 'write']
