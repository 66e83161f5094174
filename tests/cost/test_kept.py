"""Finished measurements of costs are not repeated where everything that they depend on is equal."""

import json
import pathlib
import types

import pytest

from jaxinpaint.cli import experiments
from jaxinpaint.cost import costs, kept, resources

NAMES = dict(a='places2_csa', b='celeba_dfnet')


class Processes:
  """Stands for those that measure: every process finds another number.

  Attributes:
    asked: (what, job) of each.
    interrupted: the index of the one at which a person presses Ctrl-C.
    code: with which all but the first ends.
  """

  def __init__(self, interrupted=None, code=0):
    self.asked, self.interrupted, self.code = [], interrupted, code

  def __call__(self, what, job):
    if what == 'devices':
      return [{'devices': '1 x cpu'}], 0
    if len(self.asked) == self.interrupted:
      raise KeyboardInterrupt
    self.asked.append((what, job))
    n = float(len(self.asked))
    name = {'predict': 'gflops', 'train': 'train_hours', 'fill': 'seconds_per_image'}.get(what)
    lines = [{'stage': 'x'}, {'values': {name: n}}] if name else []
    return lines, 0 if n == 1 else self.code


@pytest.fixture
def measure(monkeypatch, tmp_path):
  """(processes, what is measured and how) -> the result; `file` is that of the measurements."""

  def measure(processes, names=NAMES, resume=True, **options):
    monkeypatch.setattr(resources, '_run', processes)
    paths = {name: experiments.named(config) for name, config in names.items()}
    own = resources.open_kept(measure.file, resume=resume)
    return resources.measure(paths, ['mean'], kept=own, **options)

  measure.file = tmp_path / 'out' / 'costs.json'
  return measure


def whats(processes):
  return [(what, job.get('name') or job['row']['system']) for what, job in processes.asked]


ALL = [('predict', 'csa'), ('train', 'csa'), ('predict', 'dfnet'), ('train', 'dfnet')]
ALL += [('fill', 'mean')]


def test_only_what_was_not_finished_is_measured_after_ctrl_c(measure, monkeypatch):
  said = []
  monkeypatch.setattr(kept.logging, 'info', lambda text, *values: said.append(text % values))
  first = Processes(interrupted=3)
  with pytest.raises(KeyboardInterrupt):
    measure(first)
  assert whats(first) == ALL[:3]
  second = Processes()
  found = measure(second)
  assert whats(second) == ALL[3:]
  assert found.resources == {
    'a': {'gflops': 1.0, 'train_hours': 2.0},
    'b': {'gflops': 3.0, 'train_hours': 1.0},
    'mean fill': {'seconds_per_image': 2.0},
  }
  assert [text for text in said if not text.startswith('What ')] == [
    f'{measure.file}: 3 finished measurements of costs are used again; 0 are of another machine '
    'or version.'
  ]
  third = Processes()
  assert measure(third).resources == found.resources and not third.asked


@pytest.mark.parametrize(
  ('options', 'again'),
  [
    (dict(size=64), ALL[::2]),
    (dict(max_batch=2), ALL[:4:2]),
    (dict(train_batch=2), ALL[1:4:2]),
    (dict(names=NAMES | dict(b='places2_pconv')), [('predict', 'pconv'), ('train', 'pconv')]),
    (dict(resume=False), ALL),
  ],
)
def test_what_is_asked_for_otherwise_is_measured(options, again, measure):
  measure(Processes())
  second = Processes()
  measure(second, **options)
  assert whats(second) == again


def test_another_dtype_is_measured(measure, monkeypatch):
  measure(Processes())
  own = experiments.named

  def bfloat16(name):
    config = own(name)
    config.dtype = 'bfloat16'
    return config

  monkeypatch.setattr(experiments, 'named', bfloat16)
  second = Processes()
  measure(second)
  assert whats(second) == ALL[:4]


@pytest.mark.parametrize(
  'changed', [dict(jaxinpaint='0.0.1'), dict(jax='0.1'), dict(processor='1 cores of an abacus')]
)
def test_another_machine_or_version_measures_all_and_loses_nothing(changed, measure, monkeypatch):
  before = measure(Processes()).resources
  own = resources.hardware
  with monkeypatch.context() as other:
    other.setattr(resources, 'hardware', lambda: own() | changed)
    second = Processes()
    measure(second)
    assert whats(second) == ALL
  third = Processes()
  assert measure(third).resources == before and not third.asked


@pytest.mark.parametrize(
  ('where', 'name', 'value'),
  [
    (resources.platform, 'node', lambda: 'another'),
    (resources.os, 'sched_getaffinity', lambda pid: set(range(99))),
    (resources.os, 'environ', resources.os.environ | {'XLA_FLAGS': '--another'}),
    (resources, 'commit', lambda: 'another'),
  ],
  ids=['name', 'cores', 'flags', 'commit'],
)
def test_what_a_machine_is_counts(where, name, value, measure, monkeypatch):
  measure(Processes())
  monkeypatch.setattr(where, name, value, raising=False)
  second = Processes()
  measure(second)
  assert whats(second) == ALL


def test_another_device_counts(measure):
  measure(Processes())

  class OnAnother(Processes):
    def __call__(self, what, job):
      return ([{'devices': '1 x H200'}], 0) if what == 'devices' else super().__call__(what, job)

  second = OnAnother()
  measure(second)
  assert whats(second) == ALL


def test_what_ended_badly_is_measured_again(measure):
  first = Processes(code=-9)
  measure(first)
  assert whats(first) == ALL
  second = Processes()
  found = measure(second)
  assert whats(second) == ALL[1:] and not found.not_measured


def test_the_config_of_a_run_counts(measure, monkeypatch):
  """A folder of the same name can be another run."""
  config = experiments.named('celeba_csa')
  opened = lambda path: types.SimpleNamespace(config=config)
  monkeypatch.setattr(resources.trained_lib, 'open_weights', opened)
  run = lambda processes: (
    monkeypatch.setattr(resources, '_run', processes),
    resources.measure({'a': 'runs/a'}, kept=resources.open_kept(measure.file)),
    [what for what, _ in processes.asked],
  )[-1]
  assert run(Processes()) == ['check', 'predict', 'train']
  assert run(Processes()) == ['check']
  config = experiments.named('places2_csa')
  assert run(Processes()) == ['check', 'predict', 'train']


def test_a_file_of_something_else_is_not_written_over(measure):
  measure.file.parent.mkdir()
  for text in ('[]x', '{"a": 1}', '[1]', '[{"what": "train"}]'):
    measure.file.write_text(text)
    with pytest.raises(resources.ResourceError, match=r'does not hold measurements .* remove it'):
      measure(Processes())
    assert measure.file.read_text() == text


def test_a_real_process_says_its_devices_and_is_kept(tmp_path):
  said = []
  costs.devices(lambda *line: said.append(line))
  file = pathlib.Path(tmp_path) / 'costs.json'
  size = dict(size=8, repeats=1)
  first = resources.measure({}, ['mean'], kept=resources.open_kept(file), **size)
  (entry,) = json.loads(file.read_text())
  assert entry['machine']['devices'] and entry['job'] == dict(name='mean', **size)
  assert said[0][0] == 'devices' and said[0][1].endswith(' x cpu')
  again = resources.measure({}, ['mean'], kept=resources.open_kept(file), **size)
  assert again.resources == first.resources, 'times of two measurements differ'
