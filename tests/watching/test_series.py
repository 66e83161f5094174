"""metrics.jsonl while it grows, is cut off, goes back, is replaced, is long."""

import json
import math
import os

import pytest

from jaxinpaint.watching import series
from jaxinpaint.watching.series import Metrics, Series


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'metrics.jsonl'


def row(step, time=0.0, **values):
  return json.dumps({'step': step, 'time': time, **values}) + '\n'


def write(path, text, mode='a'):
  with open(path, mode) as file:
    file.write(text)
  # The clock of a file system may stand still between two writes of a test.
  write.time += 1
  os.utime(path, (write.time, write.time))


write.time = 1_700_000_000


def points(metrics, name='x'):
  document = metrics.series[name].document()
  return list(zip(document['steps'], document['means'], strict=True))


def test_a_half_written_line_waits_for_its_end(path):
  metrics = Metrics(path)
  metrics.poll()
  assert metrics.step is None
  whole = row(2, x=0.25)
  write(path, row(1, x=0.5) + whole[:9])
  metrics.poll()
  assert points(metrics) == [(1, 0.5)] and metrics.broken == 0
  write(path, whole[9:])
  metrics.poll()
  assert points(metrics) == [(1, 0.5), (2, 0.25)] and metrics.broken == 0


def test_only_what_is_new_is_read(path, monkeypatch):
  metrics = Metrics(path)
  write(path, row(1, x=1) + row(2, x=2))
  metrics.poll()
  read = []
  add = Metrics._add
  monkeypatch.setattr(Metrics, '_add', lambda self, line: read.append(line) or add(self, line))
  metrics.poll()
  write(path, row(3, x=3))
  metrics.poll()
  assert [json.loads(line)['step'] for line in read if line] == [3]
  assert [step for step, _ in points(metrics)] == [1, 2, 3]


def test_after_a_resume_the_later_row_wins(path):
  """The writer replaces the file; a program that only appends is understood, too."""
  metrics = Metrics(path)
  before = ''.join(row(s, x=s, y=0) for s in range(1, 7))
  write(path, before)
  metrics.poll()
  write(path, row(4, x=40) + row(5, x=50))
  metrics.poll()
  assert points(metrics) == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50)]
  assert points(metrics, 'y') == [(1, 0), (2, 0), (3, 0)], 'of lost steps nothing stays'
  write(path, row(5, x=51, z=1))
  metrics.poll()
  assert points(metrics)[-2:] == [(4, 40), (5, 51)]


@pytest.mark.parametrize('longer', [False, True])
def test_a_file_that_was_replaced_is_read_again(path, longer):
  metrics = Metrics(path)
  write(path, ''.join(row(s, time=1, x=1) for s in range(1, 7)))
  metrics.poll()
  count = 9 if longer else 3
  write(path, ''.join(row(s, time=2, x=2) for s in range(1, count)), 'w')
  metrics.poll()
  assert points(metrics) == [(s, 2) for s in range(1, count)] and metrics.rows == count - 1
  path.unlink()
  metrics.poll()
  assert metrics.step is None and not metrics.series


def test_numbers_that_are_not_finite_and_lines_that_are_no_rows(path):
  metrics = Metrics(path)
  write(path, row(1, x='nan', y=1) + 'no json\n' + '[1]\n' + '{"x": 1}\n' + '\n')
  write(path, row(2, x=2.0, words='nothing', on=True, many=[1], none=None))
  write(path, row(3, x='-inf') + '{"step": 4, "time": 0, "x": NaN}\n')
  metrics.poll()
  assert points(metrics) == [(1, None), (2, 2.0), (3, None), (4, None)]
  assert metrics.series['x'].document()['bad'] == {0: 1, 2: 1, 3: 1}
  assert list(metrics.series) == ['x', 'y'] and metrics.broken == 3
  json.dumps(metrics.series['x'].document(), allow_nan=False)


def test_many_rows_stay_few_buckets_with_their_mean_and_extremes():
  many = Series(most=10)
  for step in range(1, 10_001):
    many.add(step, step % 2)
  document = many.document()
  assert 10 <= len(document['steps']) <= 20
  assert document['steps'][-1] == 10_000 and document['steps'] == sorted(document['steps'])
  assert all(abs(mean - 0.5) < 0.01 for mean in document['means'][:-1])
  assert set(document['lows']) == {0.0} and set(document['highs']) == {1.0}
  many.drop(5000)
  assert many.document()['steps'][-1] < 5000
  left = len(many)
  many.add(5000, math.inf)
  assert len(many) == left + 1 and many.document()['lows'][-1] is None
  assert many.document()['bad'] == {len(many) - 1: 1}
  assert many.document()['steps'][-1] == 5000, 'a bucket that was cut off is not filled up'


def test_a_long_file_is_read_in_parts(path, monkeypatch):
  monkeypatch.setattr(series, '_PIECE', 200)
  write(path, ''.join(row(s, x=s) for s in range(1, 101)))
  metrics = Metrics(path)
  metrics.poll(seconds=0)
  assert metrics.behind and 0 < metrics.step < 100
  for _ in range(100):
    metrics.poll(seconds=0)
  assert not metrics.behind and metrics.step == 100 and metrics.rows == 100


def test_names_have_a_bound(path, monkeypatch):
  monkeypatch.setattr(series, '_NAMES', 3)
  write(path, row(1, a=1, b=1, c=1, d=1, e=1) + row(2, a=1, d=1))
  metrics = Metrics(path)
  metrics.poll()
  assert list(metrics.series) == ['a', 'b', 'c'] and metrics.left_out == {'d', 'e'}


def test_the_pace_is_that_of_this_start(path):
  metrics = Metrics(path)
  write(path, row(10, time=0) + row(20, time=100) + row(30, time=5000) + row(50, time=5040))
  metrics.poll()
  assert metrics.seconds_per_step(since=4000) == 2.0
  assert metrics.seconds_per_step(since=5020) is None
