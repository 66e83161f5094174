"""How sure the means are: bootstrap intervals, and paired differences between rows.

All rows are measured on the same images with the same masks, so two rows can be compared image by
image. The difference between easy and hard images, which makes most of a mean's spread, cancels.

Intervals are percentile bootstrap intervals over images (Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, chapter 13): the images of a bin are drawn with replacement `RESAMPLES` times,
and the interval goes from the 2.5 % to the 97.5 % quantile of the resampled means. The draws are
seeded, and the same for all rows and metrics of a bin. Images are taken as independent; with fewer
than about twenty images the intervals are too narrow.
"""

import dataclasses
import math

import numpy as np

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric
from jaxinpaint.report.results import Results, Summary

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
FEW = 20  # with fewer images the reader is warned

# How many draws are in memory at once (8 bytes each), for any count of images.
_CHUNK = 4_000_000

METHOD = (
  f'95 % intervals: percentile bootstrap over images, {RESAMPLES} resamples, seed {SEED}; images '
  'are taken as independent'
)


def resampled_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
  """Means over images drawn with replacement; drawn values that are not finite are left out.

  Args:
    values: f64[n, k], one row per image; all columns use the same draws.
    resamples: how often n images are drawn.
    seed: of the draws.

  Returns:
    f64[resamples, k]; nan if no drawn value is finite.
  """
  n = len(values)
  finite = np.isfinite(values)
  sums = np.where(finite, values, 0.0)
  rng = np.random.default_rng(seed)
  rows = max(1, _CHUNK // max(n, 1))
  means = []
  for start in range(0, resamples, rows):
    b = min(rows, resamples - start)
    drawn = rng.integers(0, n, (b, n)) + n * np.arange(b)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n).astype(np.float64)
    weight = counts @ finite
    with np.errstate(invalid='ignore', divide='ignore'):
      means.append((counts @ sums) / np.where(weight > 0, weight, np.nan))
  return np.concatenate(means)


def intervals(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
  """95 % intervals of the means of columns.

  Args:
    values: f64[n, k].
    resamples: see `resampled_means`.
    seed: likewise.

  Returns:
    f64[k, 2]: (low, high); nan if a column has fewer than two finite values.
  """
  intervals = np.full((values.shape[1], 2), np.nan)
  usable = np.isfinite(values).sum(0) > 1
  if usable.any():
    means = resampled_means(values[:, usable], resamples, seed)
    tail = 50 * (1 - LEVEL)
    quantile = np.nanpercentile if np.isnan(means).any() else np.percentile
    intervals[usable] = quantile(means, [tail, 100 - tail], axis=0).T
  return intervals


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A row compared with another on the same images with the same masks.

  Attributes:
    predictor: name of the row.
    baseline: name of the row that it is compared with.
    bin: of the masks.
    metric: that is compared.
    difference: mean of predictor - baseline over the images where it is finite; nan without any.
    low: lower end of its 95 % interval; nan with fewer than two images.
    high: upper end, likewise.
    n: how many images are in the mean.
    left_out: how many images have a difference that is not finite.
    better: share of images on which the row is better than the baseline, of all images where
      neither is nan (an infinite PSNR is better than a finite one).
    equal: share of images on which both are equal, likewise.
  """

  predictor: str
  baseline: str
  bin: Bin
  metric: Metric
  difference: float
  low: float
  high: float
  n: int
  left_out: int
  better: float
  equal: float

  @property
  def excludes_zero(self) -> bool:
    """Whether there is an interval of the difference and 0 is not in it."""
    return self.low > 0 or self.high < 0

  @property
  def verdict(self) -> str:
    """'better', 'worse' or 'undecided'."""
    if not self.excludes_zero:
      return 'undecided'
    higher = self.low > 0
    return 'better' if higher == (self.metric.better == 'higher') else 'worse'


@dataclasses.dataclass(frozen=True)
class Best:
  """The best row of a column.

  Attributes:
    name: of the row with the best number; '' if fewer than two rows have a number.
    tied: rows whose paired difference from the best has 0 in its interval.
  """

  name: str = ''
  tied: frozenset[str] = frozenset()


class Statistics:
  """Means with intervals, and paired differences; each bin is resampled once, at first use.

  Args:
    results: of an evaluation.
  """

  def __init__(self, results: Results):
    """See the class."""
    self.results = results
    self.metrics = results.image_metrics
    self._values: dict[tuple[Bin, str], np.ndarray] = {}
    self._intervals: dict[tuple[Bin, str, str, str], tuple[float, float]] = {}
    self._summaries: dict[tuple[Bin, str, str], Summary] = {}
    self._done: set[Bin] = set()
    for b in results.bins:
      self._gather(b)

  def _gather(self, b: Bin) -> None:
    """Fills _values: {(bin, metric): f64[n, rows]}, nan if an image has no number."""
    names = self.results.predictors
    records = [r for r in self.results.records if r.bin == b]
    row = {index: k for k, index in enumerate(sorted({r.index for r in records}))}
    for m in self.metrics:
      table = np.full((len(row), len(names)), np.nan)
      for r in records:
        table[row[r.index], names.index(r.predictor)] = r.values.get(m.name, np.nan)
      self._values[b, m.name] = table

  def summary(self, predictor: str, bin: Bin, metric: str) -> Summary:
    """The mean with its interval."""
    key = (bin, metric, predictor)
    if key not in self._summaries:
      plain = self.results.summary(predictor, bin, metric)
      low, high = self._interval(bin, metric, predictor, '')
      self._summaries[key] = dataclasses.replace(plain, low=low, high=high)
    return self._summaries[key]

  def comparison(self, predictor: str, baseline: str, bin: Bin, metric: Metric) -> Comparison:
    """`predictor` against `baseline`, image by image."""
    a, b = (self._column(bin, metric.name, n) for n in (predictor, baseline))
    difference = _differences(a, b)
    finite = np.isfinite(difference)
    known = ~(np.isnan(a) | np.isnan(b))
    above = a > b if metric.better == 'higher' else a < b
    low, high = self._interval(bin, metric.name, predictor, baseline)
    share = lambda of: float(of[known].mean()) if known.any() else math.nan
    return Comparison(
      predictor,
      baseline,
      bin,
      metric,
      difference=float(difference[finite].mean()) if finite.any() else math.nan,
      low=low,
      high=high,
      n=int(finite.sum()),
      left_out=int((~finite).sum()),
      better=share(above),
      equal=share(a == b),
    )

  def comparisons(self) -> list[Comparison]:
    """Every other row compared with the baseline, in every bin and metric."""
    base = self.results.baseline
    if base not in self.results.predictors:
      return []
    return [
      self.comparison(name, base, b, m)
      for b in self.results.bins
      for name in self.results.predictors
      if name != base
      for m in self.metrics
    ]

  def best(self, bin: Bin, metric: Metric) -> Best:
    """The best row of a column, and the rows that are not significantly worse."""
    sign = 1 if metric.better == 'higher' else -1
    if metric.name not in {m.name for m in self.metrics}:
      values = {n: self.results.set_value(n, bin, metric.name) for n in self.results.predictors}
      numbers = {n: sign * v.value for n, v in values.items() if v and math.isfinite(v.value)}
      return Best(max(numbers, key=numbers.get)) if len(numbers) > 1 else Best()
    scores = {}
    for name in self.results.predictors:
      s = self.summary(name, bin, metric.name)
      if s.n or s.infinite:
        scores[name] = sign * (s.mean if s.n else math.inf)
    if len(scores) < 2:
      return Best()
    first = max(scores, key=scores.get)
    others = [n for n in scores if n != first]
    against = [self.comparison(n, first, bin, metric) for n in others]
    return Best(first, frozenset(c.predictor for c in against if not c.excludes_zero))

  def _column(self, bin: Bin, metric: str, predictor: str) -> np.ndarray:
    return self._values[bin, metric][:, self.results.predictors.index(predictor)]

  def _interval(self, b: Bin, metric: str, predictor: str, against: str) -> tuple[float, float]:
    """Interval of a mean, or, with `against`, of the mean difference from that row."""
    if b not in self._done:
      self._resample(b)
    if (b, metric, predictor, against) in self._intervals:
      return self._intervals[b, metric, predictor, against]
    low, high = self._intervals[b, metric, against, predictor]
    return -high, -low

  def _resample(self, b: Bin) -> None:
    """Computes all intervals of a bin with the same draws: of means and of paired differences."""
    names = self.results.predictors
    keys, columns = [], []
    for m in self.metrics:
      for k, name in enumerate(names):
        a = self._column(b, m.name, name)
        keys.append((b, m.name, name, ''))
        columns.append(a)
        for other in names[k + 1 :]:
          keys.append((b, m.name, name, other))
          columns.append(_differences(a, self._column(b, m.name, other)))
    if keys:
      for key, (low, high) in zip(keys, intervals(np.stack(columns, 1)), strict=True):
        self._intervals[key] = (float(low), float(high))
    self._done.add(b)


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """a - b; inf - inf is nan, without a warning."""
  with np.errstate(invalid='ignore'):
    return a - b
