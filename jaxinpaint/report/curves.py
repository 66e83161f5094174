"""Curves of a metric over the share of the hole, as SVG for a web page.

Colours are classes (series0, series1, ...) of the page's style sheet, so that they follow its light
or dark scheme; every series has a marker of its own as well.
"""

import html
import math
from collections.abc import Sequence

import numpy as np

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric
from jaxinpaint.report.results import Summary
from jaxinpaint.report.statistics import Statistics
from jaxinpaint.report.tables import (
  heading,
  interval_text,
  number,
)

SERIES = 10  # colours of the style sheet; more predictors start over, with another marker
_WIDTH, _HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 28, 40
_DODGE = 5  # between the whiskers of predictors at one place

# Each around the origin, some four units in radius.
_MARKERS = (
  'M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z',  # circle
  'M-3.2-3.2h6.4v6.4h-6.4z',  # square
  'M0-4.4L4.2 3.2H-4.2z',  # triangle
  'M0-4.6L4.6 0L0 4.6L-4.6 0z',  # diamond
  'M0 4.4L4.2-3.2H-4.2z',  # triangle upside down
  'M-4-1.2H-1.2V-4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4z',  # cross
  'M-4.5-2h9v4h-9z',  # bar
)


def marker(series: int) -> str:
  """The SVG of a legend's entry."""
  return (
    f'<svg class="key series{series % SERIES}" viewBox="-8 -6 16 12" width="21" height="16" '
    f'aria-hidden="true"><path class="line" d="M-8 0H8"/>'
    f'<path class="dot" d="{_MARKERS[series % len(_MARKERS)]}"/></svg>'
  )


def groups(bins: Sequence[Bin]) -> dict[str, list[Bin]]:
  """Bins of one kind of mask belong to one curve: {kind: bins}."""
  found: dict[str, list[Bin]] = {}
  for b in bins:
    found.setdefault(b.masks.split(':')[0], []).append(b)
  return found


def curve(stats: Statistics, metric: Metric, bins: Sequence[Bin], *, images: bool = False) -> str:
  """The SVG of one metric.

  A line through the means of the bins, each at the mean share of its holes, in a band of their 95 %
  intervals; with one bin alone, dots with whiskers.

  Args:
    stats: of the results.
    metric: measured per image.
    bins: on one curve.
    images: draws every image as a dot too, and widens the axes to hold them.
  """
  results = stats.results
  shares = {b: np.mean([100 * r.hole_share for r in results.records if r.bin == b]) for b in bins}
  bins = sorted(bins, key=lambda b: shares[b])
  lines = []
  for k, name in enumerate(results.predictors):
    found = [(b, stats.summary(name, b, metric.name)) for b in bins]
    found = [(b, s) for b, s in found if s.n]
    if found:
      lines.append((k, name, found))
  if not lines:
    return ''
  scatter = {}
  if images:
    for k, name, _ in lines:
      chosen = [r for r in results.records if r.predictor == name and r.bin in shares]
      points = [(100 * r.hole_share, r.values.get(metric.name, math.nan)) for r in chosen]
      scatter[k] = [(x, y) for x, y in points if math.isfinite(y)]
  ys = [y for _, _, found in lines for _, s in found for y in (s.mean, s.low, s.high)]
  ys += [y for points in scatter.values() for _, y in points]
  xs = list(shares.values()) + [x for points in scatter.values() for x, _ in points]
  axes = _Axes(xs, [y for y in ys if math.isfinite(y)])
  label = f'{metric.label} over the share of the hole: ' + '; '.join(
    f'{name} ' + ', '.join(f'{number(s.mean, metric)} at {shares[b]:.0f} %' for b, s in found)
    for _, name, found in lines
  )
  parts = [
    f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
    f'aria-label="{html.escape(label)}">',
    f'<text class="title" x="{_LEFT}" y="16">{html.escape(heading(metric))}</text>',
    axes.svg(metric),
  ]
  for k, points in scatter.items():
    dots = ''.join(f'M{axes.x(x):.1f} {axes.y(y):.1f}h0' for x, y in points)
    parts.append(f'<path class="cloud series{k % SERIES}" d="{dots}"/>')
  for at, (k, name, found) in enumerate(lines):
    offset = _DODGE * (at - (len(lines) - 1) / 2) if len(found) == 1 else 0
    parts.append(_series(axes, k, name, found, shares, metric, offset))
  return ''.join([*parts, '</svg>'])


def _series(
  axes: '_Axes',
  k: int,
  name: str,
  found: Sequence[tuple[Bin, Summary]],
  shares: dict[Bin, float],
  metric: Metric,
  offset: float,
) -> str:
  """Band or whiskers, line and markers of one predictor."""
  place = lambda b, y: f'{axes.x(shares[b]) + offset:.1f} {axes.y(y):.1f}'
  known = [(b, s) for b, s in found if not math.isnan(s.low)]
  parts = [f'<g class="series{k % SERIES}">']
  if len(found) > 1 and known:
    edge = [place(b, s.high) for b, s in known] + [place(b, s.low) for b, s in known[::-1]]
    parts.append(f'<path class="band" d="M{"L".join(edge)}z"/>')
  else:
    parts += [f'<path class="line" d="M{place(b, s.low)}L{place(b, s.high)}"/>' for b, s in known]
  if len(found) > 1:
    parts.append(f'<path class="line" d="M{"L".join(place(b, s.mean) for b, s in found)}"/>')
  for b, s in found:
    words = f'{name}, {shares[b]:.1f} % hole: {number(s.mean, metric)} '
    words += interval_text(s.low, s.high, metric)
    parts.append(
      f'<path class="dot" transform="translate({place(b, s.mean)})" '
      f'd="{_MARKERS[k % len(_MARKERS)]}"><title>{html.escape(words.strip())}</title></path>'
    )
  return ''.join([*parts, '</g>'])


class _Axes:
  """Linear scales that hold all points, with round ticks."""

  def __init__(self, xs: Sequence[float], ys: Sequence[float]):
    """See the class."""
    self._x = _widened(min(xs), max(xs), 0.05, 2.0)
    self._y = _widened(min(ys), max(ys), 0.08, 1e-3 * max(map(abs, ys)) or 1e-3)

  def x(self, value: float) -> float:
    """Pixels from the left."""
    low, high = self._x
    return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

  def y(self, value: float) -> float:
    """Pixels from the top."""
    low, high = self._y
    return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

  def svg(self, metric: Metric) -> str:
    """Grid lines, numbers and the name of the x axis."""
    parts = []
    for value, text in _ticks(*self._y):
      y = f'{self.y(value):.1f}'
      parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
      parts.append(f'<text x="{_LEFT - 6}" y="{y}" dy="4" text-anchor="end">{text}</text>')
    for value, text in _ticks(*self._x):
      x = f'{self.x(value):.1f}'
      parts.append(f'<path class="grid" d="M{x} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
      parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{text}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
      f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">hole, % of the image</text>'
    )
    return ''.join(parts)


def _widened(low: float, high: float, share: float, least: float) -> tuple[float, float]:
  margin = max(share * (high - low), least)
  return low - margin, high + margin


def _ticks(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
  """Some `count` round numbers between low and high, as drawn."""
  step = 10 ** math.floor(math.log10((high - low) / count))
  step *= min((1, 2, 5, 10), key=lambda k: abs((high - low) / (k * step) - count))
  digits = max(0, -math.floor(math.log10(step) + 1e-9))
  values = np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step
  return [(float(v), f'{v + 0.0:.{digits}f}'.replace('-', '−')) for v in values]
