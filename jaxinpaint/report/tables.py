"""Results as text: tables for the terminal, report.md, and sentences that say who is better."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric
from jaxinpaint.report import published as papers
from jaxinpaint.report import statistics
from jaxinpaint.report.published import PUBLISHED, Published
from jaxinpaint.report.resources import RESOURCES
from jaxinpaint.report.results import Results, Summary
from jaxinpaint.report.statistics import Comparison, Statistics

SIGNS = {'better': '▲', 'worse': '▼', 'undecided': '≈'}
_NAMED = 4  # up to this many columns are named in a sentence
_ITALIC, _PLAIN = '\x1b[3;36m', '\x1b[0m'


def columns(results: Results) -> tuple[Metric, ...]:
  """The metrics that were measured: of images, then of sets of images."""
  return results.image_metrics + tuple(
    m for m in results.set_metrics if m not in results.image_metrics
  )


def heading(metric: Metric) -> str:
  """'PSNR ↑': the arrow says whether higher or lower is better."""
  return f'{metric.label} {"↑" if metric.better == "higher" else "↓"}'


def number(value: float, metric: Metric, sign: bool = False) -> str:
  """The number with the metric's digits and a true minus sign; '–' for nan."""
  if math.isnan(value):
    return '–'
  if math.isinf(value):
    return '∞' if value > 0 else '−∞'
  return f'{value:{"+" if sign else ""}.{metric.digits}f}'.replace('-', '−')


def mean_text(summary: Summary, metric: Metric) -> str:
  """The mean; '∞' if all values are infinite, '–' without values."""
  if summary.n == 0:
    return '∞' if summary.infinite else '–'
  return number(summary.mean, metric)


def interval_text(low: float, high: float, metric: Metric, sign: bool = False) -> str:
  """'[26.5, 27.7]'; '' without an interval."""
  if math.isnan(low):
    return ''
  return f'[{number(low, metric, sign)}, {number(high, metric, sign)}]'


def count_text(stats: Statistics, name: str, bin: Bin) -> str:
  """How many images a row was measured on, as '60' or '60 (without 2 of PSNR)'."""
  summaries = [stats.summary(name, bin, m.name) for m in stats.metrics]
  sets = [stats.results.set_value(name, bin, m.name) for m in stats.results.set_metrics]
  n = max([s.n + s.infinite for s in summaries] + [v.n for v in sets if v], default=0)
  left = [
    f'{s.infinite + s.undefined} of {m.label}'
    for s, m in zip(summaries, stats.metrics, strict=True)
    if s.n and s.infinite + s.undefined
  ]
  return f'{n} (without {", ".join(left)})' if left else str(n)


def terminal_table(
  results: Results, published: Sequence[Published] = (), *, colour: bool | None = None
) -> str:
  """All bins as aligned text, with notes below.

  Args:
    results: of an evaluation.
    published: rows of papers to show beside.
    colour: show published rows in italics and colour; None: if stdout is a terminal.
  """
  if colour is None:
    colour = sys.stdout.isatty() and 'NO_COLOR' not in os.environ
  stats = Statistics(results)
  metrics = columns(results)
  blocks = []
  for b in results.bins:
    rows = [['method', *map(heading, metrics), 'n']]
    for name in results.predictors:
      cells = [_terminal_cell(stats, name, b, m) for m in metrics]
      rows.append([name, *cells, count_text(stats, name, b)])
    ours = len(rows)
    for method, given in papers.of_bin(published, b, metrics):
      rows.append([f'* {method}', *(given.get(m.name, '–') for m in metrics), '–'])
    widths = [max(len(r[k]) for r in rows) for k in range(len(rows[0]))]
    lines = [f'{bin_title(b)}{_in_brackets(drawn_text(results, b))}']
    for k, row in enumerate(rows):
      cells = [row[0].ljust(widths[0])]
      cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
      line = '  '.join(cells)
      lines.append(f'{_ITALIC}{line}{_PLAIN}' if k >= ours and colour else line)
    blocks.append('\n'.join(lines))
  foot = [stamp(results) + ' ± is half of the 95 % interval.']
  if results.baseline in results.predictors and len(results.predictors) > 1:
    foot.append(
      f'Against {results.baseline} on the same images and masks: ▲ better, ▼ worse, ≈ undecided '
      '(0 is in the 95 % interval of the difference).'
    )
  if published:
    foot.append(f'* {PUBLISHED} ({published[0]["dataset"]}).')
  foot += not_computed(results)
  return '\n\n'.join([*blocks, '\n'.join(foot + verdicts(results, stats))])


def bin_title(bin: Bin) -> str:
  """'hole 10-20 %', or the bin's own name."""
  return bin.name or f'hole {bin.label} %'


def drawn_text(results: Results, bin: Bin) -> str:
  """'drawn: 15.1 % on average, 10.0 to 20.0': the holes that were met, not those asked for."""
  share = results.hole_share(bin)
  if share is None:
    return ''
  mean, low, high = (f'{100 * x:.1f}' for x in share)
  return f'drawn: {mean} %' if low == high else f'drawn: {mean} % on average, {low} to {high}'


def _in_brackets(text: str) -> str:
  return f' ({text})' if text else ''


def _terminal_cell(stats: Statistics, name: str, b: Bin, metric: Metric) -> str:
  if metric not in stats.metrics:
    value = stats.results.set_value(name, b, metric.name)
    return number(value.value, metric) if value else '–'
  s = stats.summary(name, b, metric.name)
  text = mean_text(s, metric)
  if not math.isnan(s.low):
    text += f' ± {number((s.high - s.low) / 2, metric)}'
  base = stats.results.baseline
  if base in stats.results.predictors and name != base and s.n:
    text += f' {SIGNS[stats.comparison(name, base, b, metric).verdict]}'
  elif base in stats.results.predictors and len(stats.results.predictors) > 1:
    text += '  '
  return text


def stamp(results: Results) -> str:
  """One sentence: protocol, images and masks."""
  parts = [
    f'protocol {results.protocol.id}',
    f'{results.dataset or "images"}: {results.count} of {results.size[0]} x {results.size[1]}',
    f'masks {results.masks_shown}, seed {results.seed}, SHA-256 {results.mask_sha256[:12]}',
  ]
  if results.skipped:
    parts.append(f'{len(results.skipped)} unreadable images skipped')
  return '; '.join(parts) + '.'


def not_computed(results: Results) -> list[str]:
  """'LPIPS not computed: why, and which command helps' for each such metric."""
  labels = {m.name: m.label for m in results.protocol.metrics}
  said = lambda name, why: why.startswith(labels.get(name, name))
  return [
    why if said(name, why) else f'{labels.get(name, name)} not computed: {why}'
    for name, why in results.not_computed.items()
  ]


def verdicts(results: Results, stats: Statistics | None = None) -> list[str]:
  """For each row that is not a fill: where it beats all fills, and where it beats the baseline."""
  stats = stats or Statistics(results)
  metrics = stats.metrics
  fills = [n for n in results.predictors if results.kind(n) == 'fill']
  total = len(results.bins) * len(metrics)
  sentences = []
  for name in results.predictors:
    if name in fills or not fills:
      continue
    lost = {}
    for b in results.bins:
      labels = [m.label for m in metrics if not _beats(stats, name, fills, b, m)]
      if labels:
        lost[b] = labels
    won = total - sum(map(len, lost.values()))
    if not lost:
      sentences.append(f'{name} beats every classical fill in all {total} means.')
    elif not won:
      sentences.append(f'{name} beats all classical fills in none of the {total} means.')
    else:
      where = '; '.join(f'{", ".join(labels)} at {_at(b)}' for b, labels in lost.items())
      sentences.append(
        f'{name} beats every classical fill in {won} of {total} means, not in {where}.'
      )
  return sentences + _against_baseline(stats)


def _against_baseline(stats: Statistics) -> list[str]:
  """A sentence for each row but the baseline, and how many are expected by chance."""
  comparisons = stats.comparisons()
  sentences = []
  for name in dict.fromkeys(c.predictor for c in comparisons):
    mine = [c for c in comparisons if c.predictor == name]
    parts = []
    for verdict in SIGNS:
      some = [c for c in mine if c.verdict == verdict]
      if len(some) == len(mine):
        parts = [f'{verdict} in all {len(mine)} comparisons']
      elif some:
        where = f' ({_places(some)})' if len(some) <= _NAMED else ''
        parts.append(f'{verdict} in {len(some)} of {len(mine)}{where}')
    sentence = f'{name} against {mine[0].baseline}, paired by image: {", ".join(parts)}'
    sentences.append(sentence + '.')
  if sentences:
    n = min((c.n for c in comparisons), default=0)
    few = f' With {n} images the intervals are too narrow.' if n < statistics.FEW else ''
    by_chance = max(1, round((1 - statistics.LEVEL) * len(comparisons)))
    sentences.append(
      f'Of {len(comparisons)} comparisons about {by_chance} would be decided by chance if nothing '
      f'differed.{few}'
    )
  return sentences


def _places(comparisons: Sequence[Comparison]) -> str:
  """'PSNR, SSIM at 10-20 %; PSNR at 20-40 %'."""
  labels: dict[Bin, list[str]] = {}
  for c in comparisons:
    labels.setdefault(c.bin, []).append(c.metric.label)
  return '; '.join(f'{", ".join(some)} at {_at(b)}' for b, some in labels.items())


def _at(bin: Bin) -> str:
  return bin.name or f'{bin.label} %'


def _beats(stats: Statistics, name: str, fills: Sequence[str], b: Bin, metric: Metric) -> bool:
  """Whether the mean of `name` is better than those of all fills; False if one is undefined."""
  sign = 1 if metric.better == 'higher' else -1
  mean = lambda n: sign * stats.summary(n, b, metric.name).mean
  return all(mean(name) > mean(fill) for fill in fills)


def markdown(
  results: Results,
  published: Sequence[Published],
  environment: Mapping[str, Any],
  pictures: Mapping[Bin, str],
) -> str:
  """The text of report.md."""
  stats = Statistics(results)
  p = results.protocol
  lines = [f'# Evaluation by protocol {p.id}', '', stamp(results), '']
  lines += [f'- {sentence}' for sentence in verdicts(results, stats)]
  lines += [f'- Departs from the protocol: {d}.' for d in results.deviations()]
  lines += [f'- Skipped {file}: {why}' for file, why in results.skipped]
  lines += [f'- {key}: {value}' for key, value in results.notes.items()]
  for b in results.bins:
    title = bin_title(b)
    lines += ['', f'## {title[0].upper()}{title[1:]}', '']
    lines += [f'Holes {drawn_text(results, b)}.', ''] if results.hole_share(b) else []
    lines += [*_main_table(stats, b, published)]
    lines += _difference_table(stats, b)
    if b in pictures:
      lines += ['', f'![input, mask, outputs, truth]({pictures[b]})']
  lines += _published_text(results, published)
  if results.not_computed:
    lines += ['', '## Not computed', '', *(f'- {text}' for text in not_computed(results))]
  lines += resources_text(results, published)
  lines += ['', '## How it was measured', '', f'Source: {p.source}.', '', p.notes, '']
  lines += [
    f'- {statistics.METHOD}. In bold the best of a column, with ≈ those that are not told apart '
    'from it (0 is in the interval of the paired difference).',
    f'- Mask set: {results.masks}, seed {results.seed}, SHA-256 `{results.mask_sha256}`',
    *(f'- {key}: {value}' for key, value in environment.items()),
  ]
  for source in results.sources:
    about = ', '.join(f'{k} {v}' for k, v in source.get('environment', {}).items())
    lines.append(f'- {source["folder"]}: {", ".join(source["predictors"])}; {about}')
  return '\n'.join(lines) + '\n'


def _main_table(stats: Statistics, b: Bin, published: Sequence[Published]) -> list[str]:
  metrics = columns(stats.results)
  best = {m.name: stats.best(b, m) for m in metrics}
  rows = []
  for name in stats.results.predictors:
    cells = [plain(name)]
    for m in metrics:
      if m in stats.metrics:
        s = stats.summary(name, b, m.name)
        text, interval = mean_text(s, m), interval_text(s.low, s.high, m)
      else:
        value = stats.results.set_value(name, b, m.name)
        text, interval = number(value.value, m) if value else '–', ''
      text = f'**{text}**' if name == best[m.name].name else text
      text = f'≈ {text}' if name in best[m.name].tied else text
      cells.append(f'{text} {interval}'.strip())
    rows.append([*cells, count_text(stats, name, b)])
  for method, given in papers.of_bin(published, b, metrics):
    cells = [f'*{given[m.name]}*' if m.name in given else '–' for m in metrics]
    rows.append([f'*{plain(method)}* (published)', *cells, '–'])
  return table(['method', *map(heading, metrics), 'n'], rows)


def _difference_table(stats: Statistics, b: Bin) -> list[str]:
  comparisons = [c for c in stats.comparisons() if c.bin == b]
  if not comparisons:
    return []
  rows = []
  for name in dict.fromkeys(c.predictor for c in comparisons):
    cells = [
      f'{SIGNS[c.verdict]} {number(c.difference, c.metric, True)} '
      f'{interval_text(c.low, c.high, c.metric, True)}, better on {percent(c.better)}'
      + (f' (n {c.n}, {c.left_out} left out)' if c.left_out else '')
      for c in comparisons
      if c.predictor == name
    ]
    rows.append([plain(name), *cells])
  heads = [f'minus {plain(comparisons[0].baseline)}', *map(heading, stats.metrics)]
  return ['', *table(heads, rows)]


def percent(share: float) -> str:
  """'62 %'; '–' for nan."""
  return '–' if math.isnan(share) else f'{100 * share:.0f} %'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a Markdown table; all columns but the first are aligned to the right."""
  lines = ['| ' + ' | '.join(heads) + ' |', '|---|' + '---:|' * (len(heads) - 1)]
  return lines + ['| ' + ' | '.join(row) + ' |' for row in rows]


def plain(text: str) -> str:
  """A name escaped so that Markdown shows it unchanged, also in a table."""
  for sign in '\\`*_|<>[]':
    text = text.replace(sign, f'\\{sign}')
  return ' '.join(text.split())


def _published_text(results: Results, published: Sequence[Published]) -> list[str]:
  if not published:
    return []
  lines = ['', f'(published): {PUBLISHED}: {published[0]["dataset"]}, as printed in the paper.']
  further = papers.elsewhere(published, results.protocol.bins, results.protocol.metrics)
  if further:
    lines += ['', '### Published for other masks', '']
    keys = ('method', 'mask', 'percent', 'metric', 'value')
    rows = [[f'*{plain(r[k])}*' if r[k] else '' for k in keys] for r in further]
    lines += table(['method', 'masks', 'hole %', 'metric', 'value'], rows)
  return lines


def resource_names(resources: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
  """{name: label} of all resources that were measured, in their order."""
  names = dict.fromkeys(n for costs in resources.values() for n in costs)
  labels = {}
  for r in RESOURCES:
    labels[r.name] = f'{r.label}, {r.unit}' if r.unit else r.label
  return {n: labels.get(n, n.replace('_', ' ')) for n in names}


def printed_names(printed: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
  """{name: label} of the costs that papers print."""
  return {n: n.replace('_', ' ') for _, given in printed for n in given}


def resources_text(results: Results, published: Sequence[Published]) -> list[str]:
  """What each row costs, if it was measured, and what papers print about costs."""
  lines = []
  if results.resources:
    rows = [
      [plain(shown), *(resource(costs.get(name)) for costs in results.resources.values())]
      for name, shown in resource_names(results.resources).items()
    ]
    lines += ['', *table(['', *map(plain, results.resources)], rows)]
  printed = papers.resources(published, results.protocol.metrics)
  if printed:
    names = printed_names(printed)
    rows = [
      [f'*{plain(method)}* (published)', *(f'*{given[n]}*' if n in given else '–' for n in names)]
      for method, given in printed
    ]
    lines += ['', f'{papers.PUBLISHED_RESOURCES}:', '', *table(['', *names.values()], rows)]
  return ['', '## Resources', *lines] if lines else []


def resource(value: Any) -> str:
  """A number for people to read: 12,345,678; 0.0123."""
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    return '–'
  if isinstance(value, str):
    return value
  return f'{value:,.0f}' if float(value).is_integer() else f'{value:,.4g}'
