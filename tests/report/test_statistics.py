import dataclasses
import math

import numpy as np
import pytest
from report_cases import BINS, PROTOCOL, make

from jaxinpaint.report import statistics
from jaxinpaint.report.results import SetValue
from jaxinpaint.report.statistics import Statistics

PSNR, SSIM, L1 = PROTOCOL.metrics[:3]


def test_intervals_are_those_of_a_plain_bootstrap():
  rng = np.random.default_rng(3)
  values = rng.gamma(2, 5, (40, 2))
  found = statistics.intervals(values, resamples=500, seed=9)
  draws = np.random.default_rng(9).integers(0, 40, (500, 40))
  for k in range(2):
    means = [values[d, k].mean() for d in draws]
    np.testing.assert_allclose(found[k], np.percentile(means, [2.5, 97.5]), rtol=1e-12)


def test_chunks_change_nothing(monkeypatch):
  values = np.random.default_rng(0).normal(size=(17, 3))
  whole = statistics.intervals(values)
  monkeypatch.setattr(statistics, '_CHUNK', 17 * 7)
  np.testing.assert_array_equal(statistics.intervals(values), whole)


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says():
  rng = np.random.default_rng(0)
  samples = rng.normal(10, 3, (80, 300))  # 300 evaluations of 80 images
  found = statistics.intervals(samples, resamples=400)
  share = ((found[:, 0] <= 10) & (10 <= found[:, 1])).mean()
  assert 0.90 < share < 0.98
  width = found[:, 1] - found[:, 0]
  assert np.median(width) == pytest.approx(2 * 1.96 * 3 / math.sqrt(80), rel=0.1)


def test_values_that_are_not_finite_are_left_out_of_the_resampled_means():
  values = np.array([[1.0, math.inf], [2.0, 5.0], [math.nan, 6.0], [4.0, math.inf], [1.0, 7.0]])
  found = statistics.intervals(values)
  assert (1 <= found[:, 0]).all() and found[0, 1] <= 4 and 5 <= found[1, 0] < found[1, 1] <= 7
  # Two values are needed: one does not say how they vary.
  one = statistics.intervals(np.array([[1.0, math.nan], [2.0, 3.0]]))
  assert np.isfinite(one[0]).all() and np.isnan(one[1]).all()


def test_pairs_tell_apart_what_means_cannot():
  stats = Statistics(make({'base': 0.0, 'better': 0.3, 'worse': -0.3}))
  b = BINS[0]
  base, better = (stats.summary(n, b, 'psnr') for n in ('base', 'better'))
  assert base.low < better.mean < base.high, 'the intervals of the means overlap'
  c = stats.comparison('better', 'base', b, PSNR)
  values = [np.array(stats.results.values(n, b, 'psnr')) for n in ('better', 'base')]
  assert c.difference == pytest.approx((values[0] - values[1]).mean())
  assert 0 < c.low < c.difference < c.high < 0.5
  assert (c.verdict, c.better, c.equal, c.n) == ('better', 1, 0, 12)
  # The metric says which way is better.
  assert stats.comparison('better', 'base', b, L1).high < 0
  assert stats.comparison('better', 'base', b, L1).verdict == 'better'
  assert stats.comparison('worse', 'base', b, L1).verdict == 'worse'
  back = stats.comparison('base', 'better', b, PSNR)
  assert (back.low, back.high, back.verdict) == (-c.high, -c.low, 'worse')


def test_equal_predictors_are_undecided():
  results = make({'a': 0.0, 'b': 0.0})
  c = Statistics(results).comparison('a', 'b', BINS[0], PSNR)
  assert (c.difference, c.low, c.high, c.equal, c.better) == (0, 0, 0, 1, 0)
  assert c.verdict == 'undecided' and not c.excludes_zero


def test_a_perfect_output_is_better_and_not_in_the_mean_difference():
  results = make({'a': 0.0, 'b': 1.0})
  change = {0: ('b', math.inf), 1: ('a', math.inf), 2: ('a', math.nan)}
  for r in results.records:
    name, value = change.get(r.index, ('', 0))
    if r.bin == BINS[0] and r.predictor == name:
      r.values['psnr'] = value
    if r.bin == BINS[0] and r.index == 3:
      r.values['psnr'] = math.inf
  c = Statistics(results).comparison('b', 'a', BINS[0], PSNR)
  assert (c.n, c.left_out) == (8, 4)
  # 11 images can be compared: 9 better, one worse (1), one equal (3).
  assert c.better == pytest.approx(9 / 11) and c.equal == pytest.approx(1 / 11)
  assert math.isfinite(c.difference)
  s = Statistics(results).summary('a', BINS[0], 'psnr')
  assert (s.n, s.infinite, s.undefined) == (9, 2, 1) and s.low < s.mean < s.high


def test_the_best_of_a_column_and_those_not_told_apart():
  results = make({'a': 0.0, 'same': 0.0, 'far': -3.0}, baseline='far')
  stats = Statistics(results)
  best = stats.best(BINS[0], L1)
  assert best.name == 'a' and best.tied == {'same'}
  assert stats.best(BINS[0], dataclasses.replace(L1, better='higher')).name == 'far'
  assert len(stats.comparisons()) == 2 * 2 * 6
  assert Statistics(make({'alone': 0.0})).best(BINS[0], PSNR).name == ''
  fid = dataclasses.replace(L1, name='fid', label='FID')
  results.set_values = [
    SetValue('a', BINS[0], 'fid', 9.0, 12),
    SetValue('far', BINS[0], 'fid', 8, 12),
  ]
  assert stats.best(BINS[0], fid) == statistics.Best('far')


def test_results_are_the_same_every_time():
  results = make({'a': 0.0, 'b': 1.0})
  once, again = (Statistics(results).summary('a', BINS[1], 'ssim') for _ in range(2))
  assert (once.low, once.high) == (again.low, again.high)
  # Another row beside changes no interval.
  more = make({'a': 0.0, 'b': 1.0, 'c': 2.0})
  assert Statistics(more).summary('a', BINS[1], 'ssim').low == once.low
