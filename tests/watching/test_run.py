"""What a workdir tells: the state of its run, faults, pictures, checkpoints."""

import json
import os
import socket
import subprocess
import sys

import pytest
import workdirs

from jaxinpaint.watching import run as run_lib
from jaxinpaint.watching import runs as runs_lib
from jaxinpaint.watching.run import Run
from jaxinpaint.watching.runs import Runs


@pytest.fixture
def folder(tmp_path):
  return workdirs.workdir(tmp_path / 'run')


def look(folder, after=10.0):
  """The run, so many seconds after its last sign of life."""
  times = [p.stat().st_mtime for p in folder.glob('*')] if folder.exists() else []
  return Run(folder, 'name', clock=lambda: max(times, default=0) + after).read()


def test_what_is_not_there_yet_waits(tmp_path):
  assert look(tmp_path / 'none')['state'] == 'waiting'
  assert look(tmp_path)['state'] == 'waiting'
  document = look(tmp_path / 'none')
  assert document['step'] is None and document['seen'] is None


def test_a_run_whose_process_lives_is_running_however_quiet(folder):
  with workdirs.lock(folder):
    workdirs.lock_since(folder, 1000)
    assert look(folder, after=1e6)['state'] == 'running'
  assert look(folder, after=1e6)['state'] == 'silent'


def test_before_its_first_step_a_run_is_starting(folder):
  assert look(folder)['state'] == 'running'
  workdirs.begin(folder, step=3, at=5000.0)
  assert look(folder)['state'] == 'starting'
  workdirs.metrics(folder, [4], time=6000.0)
  assert look(folder)['state'] == 'running'
  with workdirs.lock(folder):  # a new start has it, and has not noted itself yet
    assert look(folder)['state'] == 'starting'
    workdirs.lock_since(folder, 5500)
    assert look(folder)['state'] == 'running'


def test_a_dead_process_of_this_machine_was_killed(folder):
  child = subprocess.Popen([sys.executable, '-c', ''])
  child.wait()
  (folder / '.lock').write_text(f'process {child.pid} on {socket.gethostname()}')
  assert look(folder)['state'] == 'killed'
  (folder / '.lock').write_text(f'process {child.pid} on another-machine')
  workdirs.lock_since(folder, 1000)
  assert look(folder)['state'] == 'running'
  assert look(folder, after=1e6)['state'] == 'silent'


@pytest.mark.parametrize(
  'how, state',
  [('finished', 'finished'), ('early stop', 'finished'), ('stopped', 'stopped')],
)
def test_a_noted_end(folder, how, state):
  workdirs.end(folder, how)
  assert look(folder)['state'] == state
  with workdirs.lock(folder):
    assert look(folder)['state'] == 'starting', 'it has been started again'


def test_an_error_is_told_in_its_own_words(folder):
  workdirs.end(folder, 'Diverged', 'step 3: total = nan')
  document = look(folder)
  assert (document['state'], document['why']) == ('failed', 'step 3: total = nan')
  assert [f['kind'] for f in document['faults']] == ['error']


def test_runs_of_versions_without_notes(tmp_path):
  folder = tmp_path / 'old'
  folder.mkdir()
  workdirs.config(folder, steps=3)
  workdirs.metrics(folder, [1, 2])
  assert look(folder)['state'] == 'running' and look(folder)['total'] == 3
  workdirs.metrics(folder, [3])
  assert look(folder)['state'] == 'finished'


def test_faults_in_their_order(folder):
  goodput = workdirs.begin(folder, at=1100.0)  # the one before was killed
  goodput.rewind(2)
  (folder / 'sick' / '3').mkdir(parents=True)
  report = {'step': 3, 'sick': ['generator/total'], 'terms': {'generator/total': float('nan')}}
  (folder / 'sick' / '3' / 'report.json').write_text(json.dumps(report))
  (folder / 'checkpoints' / 'broken-2').mkdir(parents=True)
  os.utime(folder / 'checkpoints' / 'broken-2', (1050, 1050))
  workdirs.end(folder, 'stopped')
  faults = look(folder)['faults']
  kinds = [f['kind'] for f in faults]
  assert kinds[:3] == ['broken', 'killed', 'returned'] and set(kinds[3:]) == {'stopped', 'sick'}
  (sick,) = (f for f in faults if f['kind'] == 'sick')
  assert sick['step'] == 3 and sick['text'] == 'generator/total = nan'


def test_pictures_that_are_not_whole_are_not_given(folder):
  workdirs.sample(folder, 4, workdirs.png()[:-3])
  (folder / 'samples' / '.0000005.png.1-abc').write_bytes(b'x')
  run = Run(folder, 'name')
  assert [s['step'] for s in run.read()['samples']] == [0, 4]
  assert run.sample(0) == workdirs.png() and run.sample(4) is None and run.sample(5) is None


def test_checkpoints_have_their_sizes(folder):
  for name in ('10', '4', '12.orbax-checkpoint-tmp'):
    (folder / 'checkpoints' / name / 'params').mkdir(parents=True)
    (folder / 'checkpoints' / name / 'params' / 'x').write_bytes(b'0' * 100)
  found = look(folder)['checkpoints']
  assert [(c['step'], c['bytes']) for c in found] == [(4, 100), (10, 100)]


def test_the_time_left_is_that_of_the_steps_left(folder):
  assert look(folder)['left'] == 17.0  # steps of one second


def test_the_version_changes_with_the_run_and_not_with_the_clock(folder, monkeypatch):
  monkeypatch.setattr(run_lib, '_LOOK_SECONDS', 0.0)
  now = [1e6]
  run = Run(folder, 'name', clock=lambda: now[0])
  first = run.read()['version']
  now[0] += 1
  assert run.read()['version'] == first
  workdirs.sample(folder, 9)
  assert run.read()['version'] != first


def test_a_torn_config_or_report_is_no_error(folder):
  (folder / 'config.json').write_text('{"training": ')
  (folder / 'evaluation' / '3').mkdir(parents=True)
  (folder / 'evaluation' / '3' / 'metrics.json').write_text('{"results": []}')
  document = look(folder)
  assert document['config'] == {} and document['evaluation'] is None


def test_a_folder_stands_for_the_runs_in_it(tmp_path, monkeypatch):
  runs = Runs([tmp_path / 'all', tmp_path / 'alone'])
  assert [run.name for run in runs.find().values()] == ['all', 'alone'], 'both are waited for'
  workdirs.workdir(tmp_path / 'all' / 'b')
  (tmp_path / 'all' / 'compilation_cache').mkdir()
  before = runs.find()
  assert [run.name for run in before.values()] == ['b', 'alone']
  workdirs.workdir(tmp_path / 'all' / 'a')
  after = runs.find()
  assert [run.name for run in after.values()] == ['a', 'b', 'alone']
  assert before.items() <= after.items(), 'runs keep their numbers'
  monkeypatch.setattr(runs_lib, 'MOST', 2)
  os.utime(tmp_path / 'all' / 'a' / 'metrics.jsonl', (1e9, 1e9))
  workdirs.workdir(tmp_path / 'alone')
  assert [run.name for run in runs.find().values()] == ['b', 'alone'] and runs.left_out == 1


def test_nothing_is_written(folder):
  (folder / 'checkpoints' / '1').mkdir(parents=True)
  tree = lambda: sorted((str(p), p.stat().st_mtime_ns) for p in [folder, *folder.rglob('*')])
  before = tree()
  Run(folder, 'name').read()
  Runs([folder.parent]).find()
  assert tree() == before
