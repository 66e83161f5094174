"""Curves of a metric over the share of the hole: their places in pixels, which a template draws.

Colours are classes (series0, series1, ...) of the page's style sheet, so that they follow its light
or dark scheme; every row has a shape of its own as well.
"""

import dataclasses
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

SERIES = 10  # colours of the style sheet; more rows start over, with another shape
_WIDTH, _HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 28, 40
_DODGE = 5  # between the whiskers of rows at one place

# Each around the origin, some four units in radius.
_SHAPES = (
  'M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z',  # circle
  'M-3.2-3.2h6.4v6.4h-6.4z',  # square
  'M0-4.4L4.2 3.2H-4.2z',  # triangle
  'M0-4.6L4.6 0L0 4.6L-4.6 0z',  # diamond
  'M0 4.4L4.2-3.2H-4.2z',  # triangle upside down
  'M-4-1.2H-1.2V-4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4z',  # cross
  'M-4.5-2h9v4h-9z',  # bar
)


@dataclasses.dataclass(frozen=True)
class Key:
  """How a row looks in curves and legends: number of its colour, path of its shape."""

  colour: int
  shape: str


@dataclasses.dataclass(frozen=True)
class Series:
  """A row in a curve.

  Attributes:
    key: its colour and shape.
    lines: [('band' or 'line', path)].
    dots: [(place, words about it)].
  """

  key: Key
  lines: list[tuple[str, str]]
  dots: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Curve:
  """What is drawn of one metric; lengths are pixels of the picture.

  Attributes:
    label: the picture in words.
    title: above it.
    rows: [(y, number)] of the horizontal grid lines.
    columns: [(x, number)] of the vertical ones.
    clouds: [(colour, path)], a dot for every image.
    series: the rows.
  """

  label: str
  title: str
  rows: list[tuple[str, str]]
  columns: list[tuple[str, str]]
  clouds: list[tuple[int, str]]
  series: list[Series]
  width: int = _WIDTH
  height: int = _HEIGHT
  left: int = _LEFT
  right: int = _WIDTH - _RIGHT
  top: int = _TOP
  bottom: int = _HEIGHT - _BOTTOM
  middle: int = (_LEFT + _WIDTH - _RIGHT) // 2


def key(place: int) -> Key:
  """Of the row at this place among all."""
  return Key(place % SERIES, _SHAPES[place % len(_SHAPES)])


def groups(bins: Sequence[Bin]) -> dict[str, list[Bin]]:
  """{kind of mask: its bins}; bins of one kind are on one curve."""
  kinds: dict[str, list[Bin]] = {}
  for b in bins:
    kinds.setdefault(b.masks.split(':')[0], []).append(b)
  return kinds


def curve(
  stats: Statistics, metric: Metric, bins: Sequence[Bin], *, images: bool = False
) -> Curve | None:
  """The curve of one metric; None where no row has a number.

  A line goes through the means of the bins, each at the mean share of its holes, inside a band of
  their 95 % intervals. With only one bin there are dots with whiskers.

  Args:
    stats: of the results.
    metric: measured per image.
    bins: of one curve.
    images: also draws every image as a dot, on axes wide enough for all.
  """
  results = stats.results
  shares = {b: np.mean([100 * r.hole_share for r in results.records if r.bin == b]) for b in bins}
  bins = sorted(bins, key=lambda b: shares[b])
  lines = []
  for k, name in enumerate(results.predictors):
    summaries = [(b, stats.summary(name, b, metric.name)) for b in bins]
    summaries = [(b, s) for b, s in summaries if s.n]
    if summaries:
      lines.append((k, name, summaries))
  if not lines:
    return None
  scatter = {}
  if images:
    for k, name, _ in lines:
      chosen = [r for r in results.records if r.predictor == name and r.bin in shares]
      points = [(100 * r.hole_share, r.values.get(metric.name, math.nan)) for r in chosen]
      scatter[k] = [(x, y) for x, y in points if math.isfinite(y)]
  ys = [y for _, _, summaries in lines for _, s in summaries for y in (s.mean, s.low, s.high)]
  ys += [y for points in scatter.values() for _, y in points]
  xs = list(shares.values()) + [x for points in scatter.values() for x, _ in points]
  axes = _Axes(xs, [y for y in ys if math.isfinite(y)])
  label = f'{metric.label} over the share of the hole: ' + '; '.join(
    f'{name} ' + ', '.join(f'{number(s.mean, metric)} at {shares[b]:.0f} %' for b, s in summaries)
    for _, name, summaries in lines
  )
  offset = lambda at: _DODGE * (at - (len(lines) - 1) / 2)
  return Curve(
    label=label,
    title=heading(metric),
    rows=axes.rows(),
    columns=axes.columns(),
    clouds=[
      (key(k).colour, ''.join(f'M{axes.x(x):.1f} {axes.y(y):.1f}h0' for x, y in points))
      for k, points in scatter.items()
    ],
    series=[
      _series(
        axes, key(k), name, summaries, shares, metric, offset(at) if len(summaries) == 1 else 0
      )
      for at, (k, name, summaries) in enumerate(lines)
    ],
  )


def _series(
  axes: '_Axes',
  key: Key,
  name: str,
  summaries: Sequence[tuple[Bin, Summary]],
  shares: dict[Bin, float],
  metric: Metric,
  offset: float,
) -> Series:
  """Band or whiskers, line and dots of one row."""
  place = lambda b, y: f'{axes.x(shares[b]) + offset:.1f} {axes.y(y):.1f}'
  known = [(b, s) for b, s in summaries if not math.isnan(s.low)]
  lines = []
  if len(summaries) > 1 and known:
    edge = [place(b, s.high) for b, s in known] + [place(b, s.low) for b, s in known[::-1]]
    lines.append(('band', f'M{"L".join(edge)}z'))
  else:
    lines += [('line', f'M{place(b, s.low)}L{place(b, s.high)}') for b, s in known]
  if len(summaries) > 1:
    lines.append(('line', f'M{"L".join(place(b, s.mean) for b, s in summaries)}'))
  dots = []
  for b, s in summaries:
    words = f'{name}, {shares[b]:.1f} % hole: {number(s.mean, metric)} '
    words += interval_text(s.low, s.high, metric)
    dots.append((place(b, s.mean), words.strip()))
  return Series(key, lines, dots)


class _Axes:
  """Linear scales that cover all points, with ticks at round numbers."""

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

  def rows(self) -> list[tuple[str, str]]:
    """[(pixels from the top, number)] of the grid lines."""
    return [(f'{self.y(value):.1f}', text) for value, text in _ticks(*self._y)]

  def columns(self) -> list[tuple[str, str]]:
    """[(pixels from the left, number)] of the grid lines."""
    return [(f'{self.x(value):.1f}', text) for value, text in _ticks(*self._x)]


def _widened(low: float, high: float, share: float, least: float) -> tuple[float, float]:
  margin = max(share * (high - low), least)
  return low - margin, high + margin


def _ticks(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
  """[(value, text)] of about `count` round numbers between low and high."""
  step = 10 ** math.floor(math.log10((high - low) / count))
  step *= min((1, 2, 5, 10), key=lambda k: abs((high - low) / (k * step) - count))
  digits = max(0, -math.floor(math.log10(step) + 1e-9))
  values = np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step
  return [(float(v), f'{v + 0.0:.{digits}f}'.replace('-', '−')) for v in values]
