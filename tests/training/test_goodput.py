"""Goodput over kills, with a fake clock, against seconds counted by hand."""

import json

import pytest

from jaxinpaint.training.goodput import Goodput


class Clock:
  def __init__(self, now):
    self.now = now

  def __call__(self):
    return self.now


def test_steps_that_were_lost_and_the_time_between_starts_do_not_count(tmp_path):
  clock = Clock(1000.0)
  first = Goodput(tmp_path, 0, '1 x cpu', clock=clock)
  clock.now = 1060.0  # 60 s, of which 50 in steps
  first.saved(40, 50.0)
  assert first.share(50.0) == pytest.approx(50 / 60)
  clock.now = 1080.0
  first.saved(60, 65.0)  # begun, but killed before it was whole
  # An hour in the queue; it goes on from 40.
  clock.now = 4700.0
  second = Goodput(tmp_path, 40, '8 x cpu', began=4690.0, clock=clock)
  assert second.share(0.0) == pytest.approx(50 / 3700)
  clock.now = 4800.0
  assert second.share(80.0) == pytest.approx(130 / 3800)
  second.saved(100, 80.0)
  clock.now = 5000.0
  third = Goodput(tmp_path, 100, '8 x cpu', clock=clock)
  assert third.share(0.0) == pytest.approx(130 / 4000)


def test_a_later_start_from_further_back_loses_what_earlier_ones_saved(tmp_path):
  clock = Clock(0.0)
  Goodput(tmp_path, 0, '', clock=clock).saved(10, 5.0)
  clock.now = 100.0
  again = Goodput(tmp_path, 10, '', clock=clock)
  again.saved(20, 7.0)
  again.saved(30, 9.0)
  clock.now = 200.0
  # The checkpoints of 20 and 30 turned out broken.
  assert Goodput(tmp_path, 10, '', clock=clock).share(0.0) == pytest.approx(5 / 200)


def test_a_return_to_a_checkpoint_counts_again(tmp_path):
  clock = Clock(0.0)
  run = Goodput(tmp_path, 0, '', clock=clock)
  run.saved(10, 5.0)
  clock.now = 40.0
  run.rewind(10)
  assert run.share(0.0) == pytest.approx(5 / 40)
  assert run.share(15.0) == pytest.approx(20 / 40)


def test_ends_and_returns_are_noted_and_change_no_sum(tmp_path):
  clock = Clock(0.0)
  run = Goodput(tmp_path, 0, '', clock=clock, steps=90)
  run.saved(10, 5.0)
  run.rewind(10)
  run.ended(12, 'StorageError', 'x' * 5000)
  Goodput(tmp_path, 10, '', active=False).ended(12, 'stopped')
  clock.now = 40.0
  assert Goodput(tmp_path, 10, '', clock=clock).share(0.0) == pytest.approx(5 / 40)
  first, _, back, end, _ = map(json.loads, (tmp_path / 'starts.jsonl').read_text().splitlines())
  assert first['steps'] == 90 and 'returned' not in first and back['returned'] is True
  assert (end['event'], end['step'], end['how']) == ('ended', 12, 'StorageError')
  assert len(end['why']) == 2000


@pytest.mark.parametrize('cut', range(1, 40))
def test_a_line_that_was_cut_off_is_ignored(tmp_path, cut):
  clock = Clock(0.0)
  run = Goodput(tmp_path, 0, '', clock=clock)
  run.saved(10, 5.0)
  run.saved(20, 8.0)
  file = tmp_path / 'starts.jsonl'
  file.write_bytes(file.read_bytes()[:-cut])
  clock.now = 100.0
  after = Goodput(tmp_path, 10, '', clock=clock)
  assert after.share(0.0) == pytest.approx(5 / 100)
  # What is appended then stands in lines of its own.
  last = json.loads(file.read_text().splitlines()[-1])
  assert (last['event'], last['step'], last['time']) == ('start', 10, 100.0)


def test_only_the_first_process_writes(tmp_path):
  run = Goodput(tmp_path, 0, '', active=False, clock=Clock(5.0))
  run.saved(10, 1.0)
  run.rewind(0)
  assert run.share(1.0) is None
  assert not list(tmp_path.iterdir())
