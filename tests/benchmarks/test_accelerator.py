"""The visit to an accelerator: order, minutes, what does not fit, and going on after a kill."""

import json

import jax
import pytest

from benchmarks import accelerator, accelerator_page, accelerator_record, pages
from benchmarks.accelerator_record import Job, Record
from jaxinpaint import systems

HEAD = {
  'hardware': '1 x NVIDIA H200',
  'jax': '0.10.2',
  'commit': 'abc',
  'size': 256,
  'rehearsal': False,
  'peak_flops': {'bfloat16': 989.4e12, 'float32': 494.7e12},
}
FULL = 'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 96.00GiB.'


class Machine:
  """A clock, and jobs that take seconds of it; `room` images fit."""

  def __init__(self, seconds=10.0, room=10**6):
    self.now, self.seconds, self.room, self.ran = 0.0, seconds, room, []

  def clock(self):
    return self.now

  def measure(self, job):
    self.ran.append(job)
    self.now += self.seconds
    if job.batch > self.room:
      raise jax.errors.JaxRuntimeError(FULL)
    return row_of(job)


def row_of(job):
  return dict(
    size=256,
    seconds=job.batch / 300,
    img_per_s=300.0,
    mfu=0.4818,
    useful_flops=1589e9 * job.batch,
    compile_seconds=31.0,
    planned_mib=2048.0,
  )


def go(machine, path, planned, seconds=1e9, measure=None):
  record = Record(path, HEAD)
  accelerator.run(planned, record, seconds, measure or machine.measure, clock=machine.clock)
  return json.loads(path.read_text())


def ladder(*batches, system='mesff'):
  return [Job(system, 'step', 'bfloat16', b) for b in batches]


def test_the_headline_comes_first_and_every_job_once():
  planned = accelerator_record.jobs(systems.list_systems(), 64)
  assert planned[:2] == ladder(8, 32) and planned[2].what == 'forward'
  assert len(set(planned)) == len(planned)
  by_system = {(j.system, j.what, j.dtype): set() for j in planned}
  for job in planned:
    by_system[job.ladder].add(job.batch)
  for system in systems.list_systems():
    for what in ('step', 'forward'):
      for dtype in ('bfloat16', 'float32'):
        assert by_system[system, what, dtype] == {1, 2, 4, 8, 16, 32, 64}


def test_batches_double_and_the_filling_ones_come_first_with_wide_steps():
  assert accelerator_record.batches(512) == [8, 32, 128, 512, 16, 64, 256, 4, 2, 1]
  assert accelerator_record.batches(2) == [2, 1]


def test_all_systems_have_one_batch_before_any_has_the_next():
  names = systems.list_systems()
  after = [
    j
    for j in accelerator_record.jobs(names, 64)
    if j.system not in ('mesff', 'contextual attention')
  ]
  assert {j.system for j in after[: len(names) - 1]} == set(names) - {'mesff'}
  assert {j.batch for j in after[: 4 * (len(names) - 1)]} == {8}


def test_nothing_begins_that_would_end_after_the_minutes(tmp_path):
  machine = Machine(seconds=10)
  page = go(machine, tmp_path / 'a.json', ladder(8, 16, 32, 64), seconds=35)
  assert [r['batch'] for r in page['rows']] == [8, 16, 32]
  assert page['not_measured'] == ['mesff step, bfloat16, batch 64']
  assert machine.now <= 35


def test_a_shorter_job_still_has_its_turn_where_a_long_one_has_not(tmp_path):
  machine = Machine()

  def measure(job):
    machine.seconds = 50 if job.system == 'rfr' else 5
    return machine.measure(job)

  planned = [*ladder(1), *ladder(1, system='rfr'), *ladder(2, system='rfr'), *ladder(2)]
  page = go(machine, tmp_path / 'a.json', planned, seconds=70, measure=measure)
  assert [(r['system'], r['batch']) for r in page['rows']] == [
    ('mesff', 1),
    ('rfr', 1),
    ('mesff', 2),
  ]
  assert page['not_measured'] == ['rfr step, bfloat16, batch 2']


def test_what_does_not_fit_ends_its_ladder_and_no_other(tmp_path):
  machine = Machine(room=16)
  other = [Job('mesff', 'forward', 'bfloat16', b) for b in (8, 16)]
  page = go(machine, tmp_path / 'a.json', [*ladder(8, 16, 32, 64, 128, 1), *other])
  assert [j.batch for j in machine.ran] == [8, 16, 32, 1, 8, 16]
  too_large = [r for r in page['rows'] if 'does_not_fit' in r]
  assert [r['batch'] for r in too_large] == [32]
  assert 'RESOURCE_EXHAUSTED: Out of memory' in too_large[0]['does_not_fit']
  assert page['not_measured'] == [], 'what cannot fit is not wanting time'


def test_another_error_is_noted_with_its_sentence_and_the_next_system_begins(tmp_path):
  machine = Machine()

  def measure(job):
    if job.system == 'csa':
      raise jax.errors.JaxRuntimeError('INTERNAL: no algorithm worked\nmany lines')
    return machine.measure(job)

  planned = [*ladder(8, 16, system='csa'), *ladder(8)]
  page = go(machine, tmp_path / 'a.json', planned, measure=measure)
  assert page['rows'][0]['failed'] == 'JaxRuntimeError: INTERNAL: no algorithm worked'
  assert 'does_not_fit' not in page['rows'][0]
  assert [(r['system'], r['batch']) for r in page['rows']] == [('csa', 8), ('mesff', 8)]


@pytest.mark.parametrize(
  ('error', 'memory'),
  [
    (MemoryError('needs 3 GiB of 2'), True),
    (jax.errors.JaxRuntimeError(FULL), True),
    (jax.errors.JaxRuntimeError('INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS'), False),
    (ValueError('RESOURCE_EXHAUSTED is only a word here'), False),
  ],
)
def test_too_little_memory_is_told_from_other_errors(error, memory):
  assert accelerator.out_of_memory(error) is memory


def test_it_goes_on_after_a_kill_without_measuring_twice_or_dying_twice(tmp_path):
  path, machine = tmp_path / 'a.json', Machine()

  def die(job):
    if job.batch == 32:
      raise KeyboardInterrupt  # as a kill would, it passes through every handler
    return machine.measure(job)

  with pytest.raises(KeyboardInterrupt):
    go(machine, path, ladder(8, 16, 32, 64, 1), measure=die)
  assert json.loads(path.read_text())['running']['batch'] == 32, 'the file is whole'
  machine.ran.clear()
  page = go(machine, path, ladder(8, 16, 32, 64, 1))
  assert [j.batch for j in machine.ran] == [1]
  assert [r['batch'] for r in page['rows'] if 'died' in r] == [32]
  assert page['running'] is None


def test_what_failed_is_tried_again(tmp_path):
  path, machine = tmp_path / 'a.json', Machine()

  def broken(job):
    raise ValueError('not yet')

  go(machine, path, ladder(8), measure=broken)
  page = go(machine, path, ladder(8))
  assert [('failed' in r, r['batch']) for r in page['rows']] == [(False, 8)]


@pytest.mark.parametrize(
  ('key', 'value'), [('hardware', '1 x cpu'), ('commit', 'def'), ('size', 64)]
)
def test_rows_of_other_hardware_or_code_are_not_mixed(tmp_path, key, value):
  path = tmp_path / 'a.json'
  go(Machine(), path, ladder(8))
  with pytest.raises(ValueError, match=f'{key}.*--json'):
    Record(path, {**HEAD, key: value})


def test_a_file_that_makes_its_checkout_dirty_goes_on(tmp_path):
  path = tmp_path / 'a.json'
  go(Machine(), path, ladder(8))
  assert len(Record(path, {**HEAD, 'commit': 'abc-dirty'}).rows) == 1


def test_useful_work_is_known_from_another_batch(tmp_path):
  path = tmp_path / 'a.json'
  go(Machine(), path, ladder(8))
  record = Record(path, HEAD)
  assert record.useful(Job('mesff', 'step', 'float32', 32)) == pytest.approx(32 * 1589e9)
  assert record.useful(Job('mesff', 'forward', 'float32', 32)) is None
  assert record.useful(Job('csa', 'step', 'bfloat16', 32)) is None


def test_the_page_says_the_headline_the_kernels_and_what_is_absent(tmp_path):
  def measure(job):
    if job.batch == 64:
      raise MemoryError('needs 200.0 GiB of 139.0')
    kernel = dict(name='conv_fprop', operation='fusion.3', calls=12.0, seconds=0.01, share=0.4)
    return row_of(job) | {'kernels': [kernel], 'device_peak_mib': 3072.0}

  page = go(Machine(), tmp_path / 'a.json', ladder(32, 64), measure=measure)
  page['not_measured'] = ['csa step, bfloat16, batch 8']
  text = accelerator_page.render(page)
  assert '300.0 img/s and 48.2%, at batch 32' in text
  assert (
    '| mesff | step | 256 | bfloat16 | 32 | 106.67 ms | 300.0 | 48.2% | 31.0 s | 3.00 GiB |' in text
  )
  assert '| `conv_fprop` | fusion.3 | 12 | 10.00 ms | 40.0% |' in text
  assert 'batch 64: does_not_fit: MemoryError: needs 200.0 GiB of 139.0' in text
  assert 'not measured, for want of time: csa step, bfloat16, batch 8' in text


def test_a_rehearsal_makes_no_page_and_without_a_file_the_page_says_so():
  with pytest.raises(ValueError, match='rehearsal'):
    accelerator_page.render({**HEAD, 'rehearsal': True})
  assert accelerator_page.render(None) == 'Not measured on an accelerator.\n'


def test_marks_that_are_gone_are_an_error():
  with pytest.raises(ValueError, match='end of accelerator'):
    pages.between('text', 'accelerator: made', 'body\n')


def test_the_performance_page_is_that_of_the_file():
  text = (accelerator_page.DOCS / 'performance.md').read_text()
  assert text == accelerator_page.write_page(text), 'run python -m benchmarks.accelerator --page'


def settings():
  peaks = {'bfloat16': 1e12, 'float32': 2e12}
  return accelerator.Settings(size=0, quick=True, repeats=1, peaks=peaks, useful=lambda job: None)


def test_a_job_is_measured_whole():
  row = settings().measured(Job(accelerator_record.ATTENTION, 'forward in blocks', 'float32', 1))
  assert row['size'] == 64 and 'kernels' not in row
  # Scores of 64 queries and keys of 9 x 128 numbers with a halo, and the mixing of 16 x 128.
  assert row['useful_flops'] == 2 * 64 * (100 * 9 + 64 * 16) * 128
  assert row['mfu'] == pytest.approx(row['useful_flops'] / row['seconds'] / 2e12)
  assert row['compile_seconds'] > 0 and row['planned_mib'] > 0


@pytest.mark.slow
def test_the_headlines_step_brings_its_kernels():
  row = settings().measured(Job('mesff', 'step', 'bfloat16', 1))
  assert len(row['kernels']) == accelerator.KERNELS
  assert all(k['seconds'] > 0 and 0 < k['share'] < 1 for k in row['kernels'])
