"""Whether speed is what a clock says: with a fake clock, on steps that were never run."""

import re

import numpy as np
import pytest

from jaxinpaint.runtime import memory
from jaxinpaint.training import meter as meter_lib
from jaxinpaint.training import writers
from jaxinpaint.training.compiled import Compiled


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock()


def program(flops=0.0, useful=0.0):
  return Compiled(run=None, seconds=0.0, flops=flops, useful_flops=useful)


def take(meter, clock, seconds, under_way, work=None, finite=True, loss=1.0):
  """A step that is dispatched, and `seconds` later all but `under_way` steps are done."""
  meter.add({'g/total': np.float32(loss), 'finite': np.bool_(finite)}, work)
  clock.now += seconds
  meter.ready(under_way)


def test_a_steps_time_runs_from_result_to_result(clock):
  meter = meter_lib.Meter(batch_size=6, devices=3, clock=clock)
  # Two steps are dispatched at once; then the host learns of one every 2 s, of the last after 4 s.
  take(meter, clock, 0.01, under_way=1)
  take(meter, clock, 0.01, under_way=2)
  for seconds in (1.98, 2.0, 4.0):
    take(meter, clock, seconds, under_way=2)
  clock.now += 4.0
  meter.ready()  # a drain: the last two share it
  _, speed = meter.read()
  # Times of the five steps: 2, 2, 4, 2, 2.
  assert speed['speed/step_ms'] == pytest.approx(2400)
  assert speed['speed/step_ms_median'] == pytest.approx(2000)
  assert speed['speed/step_ms_p95'] == pytest.approx(3600)
  assert speed['speed/img_per_s'] == pytest.approx(5 * 6 / 12)
  assert speed['speed/img_per_s_per_device'] == pytest.approx(5 * 6 / 12 / 3)
  assert meter.useful_seconds == pytest.approx(12)


def test_what_is_not_training_is_not_counted(clock):
  meter = meter_lib.Meter(batch_size=1, clock=clock)
  take(meter, clock, 1.0, under_way=0)
  with meter.paused():
    clock.now += 50  # an evaluation
  take(meter, clock, 3.0, under_way=0)
  _, speed = meter.read()
  assert speed['speed/step_ms'] == pytest.approx(2000)
  assert meter.useful_seconds == pytest.approx(4)
  # The next reading starts from zero.
  take(meter, clock, 5.0, under_way=0)
  assert meter.read()[1]['speed/step_ms'] == pytest.approx(5000)
  assert meter.useful_seconds == pytest.approx(9)


def test_data_wait_is_a_share_of_the_steps_time(clock):
  meter = meter_lib.Meter(batch_size=1, clock=clock)
  with meter.waiting():
    clock.now += 0.5
  take(meter, clock, 1.5, under_way=0)
  assert meter.read()[1]['speed/data_wait'] == pytest.approx(0.25)
  take(meter, clock, 2.0, under_way=0)
  assert meter.read()[1]['speed/data_wait'] == 0


def test_the_wait_for_the_batch_of_a_step_that_is_compiled_counts(clock):
  meter = meter_lib.Meter(batch_size=1, clock=clock)
  with meter.waiting():
    clock.now += 3.0
  meter.ready()  # nothing is under way
  with meter.paused():
    clock.now += 100.0  # compilation
  take(meter, clock, 1.0, under_way=0)
  _, speed = meter.read()
  assert speed['speed/step_ms'] == pytest.approx(4000)
  assert speed['speed/data_wait'] == pytest.approx(0.75)


def test_mfu_is_useful_work_over_what_all_devices_can_do(clock):
  meter = meter_lib.Meter(batch_size=1, devices=4, peak=1e12, clock=clock)
  take(meter, clock, 2.0, under_way=0, work=program(flops=9e12, useful=4e12))
  # A lazy update: a step in two does more.
  take(meter, clock, 2.0, under_way=0, work=program(flops=3e12, useful=2e12))
  _, speed = meter.read()
  assert speed['speed/flops_per_step'] == pytest.approx(6e12)
  assert speed['speed/mfu'] == pytest.approx(6e12 / (4 * 4 * 1e12))


def test_no_mfu_without_a_peak_and_no_flops_that_nobody_counted(clock):
  meter = meter_lib.Meter(batch_size=1, clock=clock)
  take(meter, clock, 2.0, under_way=0, work=program(flops=0.0, useful=4e12))
  _, speed = meter.read()
  assert 'speed/mfu' not in speed and 'speed/flops_per_step' not in speed


def test_sick_steps_are_left_out_of_means(clock):
  meter = meter_lib.Meter(batch_size=1, clock=clock)
  take(meter, clock, 1.0, 0, loss=2.0)
  take(meter, clock, 1.0, 0, loss=np.nan, finite=False)
  take(meter, clock, 1.0, 0, loss=4.0)
  assert meter.read()[0] == {'g/total': 3.0, 'sick_steps': 1.0}


def test_memory_is_the_devices_or_where_they_do_not_count_the_hosts(monkeypatch):
  assert set(meter_lib.memory_used()) == {'memory/host_peak_gb'}

  class Device:
    def __init__(self, peak):
      self.peak = peak

    def memory_stats(self):
      return {'peak_bytes_in_use': self.peak}

  monkeypatch.setattr(memory.jax, 'local_devices', lambda: [Device(1e9), Device(3e9)])
  assert meter_lib.memory_used() == {'memory/peak_gb': 3.0}


SPEED = {
  'speed/img_per_s': 1234.5,
  'speed/img_per_s_per_device': 154.3,
  'speed/step_ms_median': 51.84,
  'speed/step_ms_p95': 60.02,
  'speed/data_wait': 0.013,
  'speed/mfu': 0.234,
  'memory/peak_gb': 31.2,
}


def shown(monkeypatch, losses, speed, skipped=0.0):
  lines = []
  now = Clock()
  monkeypatch.setattr(writers.time, 'monotonic', now)
  monkeypatch.setattr(writers.logging, 'info', lambda text, *values: lines.append(text % values))
  progress = writers.Progress(total=100_000, start=100)
  now.now += 300.0
  progress.skip(skipped)
  progress.show(200, losses, speed)
  (line,) = lines
  return line


def test_the_line_is_readable(monkeypatch):
  line = shown(monkeypatch, {'generator': 0.12345, 'critic': -1.5}, SPEED)
  assert line.startswith(
    'step 200/100000  generator=0.1235 critic=-1.5  1234 img/s (154 per device), 51.84 ms (p95 '
    '60.02), data wait 1%, MFU 23.4%, 31.2 GB, '
  )
  # 100 steps took 300 s; 99,800 are left.
  assert line.endswith('83 h 10 min left')


def test_time_left_does_not_count_compilation(monkeypatch):
  assert shown(monkeypatch, {}, SPEED, skipped=200.0).endswith('27 h 43 min left')


def test_many_losses_are_cut_and_the_rest_of_the_line_stays(monkeypatch):
  losses = {f'update/a_long_name_{i}': 1 / 3 for i in range(30)}
  line = shown(monkeypatch, losses, SPEED)
  assert 130 < len(line) < 160
  assert re.search(r'a_long_name_0=0\.3333 .*\.\.\.  1234 img/s', line)
  assert line.endswith('left')
