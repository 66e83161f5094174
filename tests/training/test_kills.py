"""Runs that are killed, frozen, signalled, or lose a process, as users start them."""

import collections
import json
import os
import pathlib
import signal
import time

import jax
import kill_harness
import numpy as np
import pytest

from jaxinpaint.training import checkpoints
from jaxinpaint.weights import checkpoints as stored_runs

KILLS, STEPS = 24, 120


def arrays_of(workdir):
  """(step, every array of the newest checkpoint)."""
  folder = pathlib.Path(workdir).absolute() / 'checkpoints'
  step = checkpoints.list_steps(folder)[-1]
  items = [n for n in ('params', 'stats', 'opt', 'ema') if (folder / str(step) / n).is_dir()]
  return step, {n: stored_runs.read_item(folder / str(step) / n, None) for n in items}


@pytest.mark.slow
def test_a_run_killed_two_dozen_times_ends_as_one_that_was_not(tmp_path):
  process = kill_harness.start(tmp_path / 'straight', STEPS)
  assert process.wait() == 0, (tmp_path / 'straight.log').read_text()
  kills, code = kill_harness.kill_until_done(tmp_path / 'killed', STEPS, KILLS)
  print(f'\n{kills.total} kills: {kills}')
  log = (tmp_path / 'killed.log').read_text()
  assert code == 0, log
  assert kills.total >= 20 and kills.saving >= 4 and kills.stepping >= 4, kills
  assert 'is set aside' not in log and 'Traceback' not in log
  step, want = arrays_of(tmp_path / 'straight')
  again, got = arrays_of(tmp_path / 'killed')
  assert step == again == STEPS
  jax.tree.map(np.testing.assert_array_equal, want, got)
  # The log holds each step once, with the numbers of the straight run.
  lines = lambda name: [json.loads(x) for x in (tmp_path / name / 'metrics.jsonl').open()]
  seen = collections.Counter(line['step'] for line in lines('killed'))
  assert seen == {s: 1 for s in range(1, STEPS + 1)}
  measured = ('speed/', 'memory/', 'time')
  plain = lambda line: {k: v for k, v in line.items() if not k.startswith(measured)}
  assert [plain(x) for x in lines('killed')] == [plain(x) for x in lines('straight')]
  assert json.loads((tmp_path / 'killed' / 'config.json').read_text())
  assert not kill_harness.saving(tmp_path / 'killed')


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_at_one_process_stops_both_at_one_step(tmp_path, number):
  workdir = tmp_path / 'run'
  both = kill_harness.start_processes(workdir, 100_000, 2)
  assert kill_harness.wait_for(both[0], lambda: kill_harness.last_step(workdir) >= 6)
  both[1].send_signal(number)
  assert [p.wait(timeout=100) for p in both] == [75, 75]
  said = [pathlib.Path(f'{workdir}.{i}.log').read_text().splitlines()[-1] for i in range(2)]
  step = checkpoints.list_steps(workdir / 'checkpoints')[-1]
  assert said[0] == said[1] and f'step {step} is saved' in said[0]
  # And both go on from there.
  both = kill_harness.start_processes(workdir, step + 3, 2)
  assert [p.wait(timeout=200) for p in both] == [0, 0]
  assert checkpoints.list_steps(workdir / 'checkpoints')[-1] == step + 3


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_when_one_process_dies_the_other_ends_soon_and_says_why(tmp_path, victim):
  workdir = tmp_path / 'run'
  both = kill_harness.start_processes(workdir, 100_000, 2)
  assert kill_harness.wait_for(both[0], lambda: kill_harness.last_step(workdir) >= 8)
  both[victim].send_signal(signal.SIGKILL)
  code = both[1 - victim].wait(timeout=250)  # of which jax waits 100 for a heartbeat
  log = pathlib.Path(f'{workdir}.{1 - victim}.log').read_text()
  both[victim].wait()
  # Whoever notices first: the collective (a sentence), or jax's coordination service (SIGABRT).
  assert (code == 69 and 'lost the others' in log) or (code == -6 and 'another task died' in log)
  folder = workdir / 'checkpoints'
  assert checkpoints.list_steps(folder)
  stored_runs.read(stored_runs.find(workdir))


@pytest.mark.slow
def test_dead_data_workers_are_replaced_and_orphans_end(tmp_path):
  workers = ('--config.data.workers=2', '--config.training.steps=40')
  straight = kill_harness.start(tmp_path / 'straight', 40)
  assert straight.wait() == 0
  process = kill_harness.start(tmp_path / 'run', 40, *workers)
  assert kill_harness.wait_for(process, lambda: kill_harness.last_step(tmp_path / 'run') >= 3)
  os.kill(children(process.pid)[0], signal.SIGKILL)
  assert process.wait(timeout=200) == 0
  log = (tmp_path / 'run.log').read_text()
  assert 'A process that decodes images died' in log
  jax.tree.map(
    np.testing.assert_array_equal, arrays_of(tmp_path / 'straight'), arrays_of(tmp_path / 'run')
  )
  # A killed parent leaves no workers; Ctrl-C, which all processes get, lets the parent save.
  process = kill_harness.start(tmp_path / 'other', 100_000, *workers[:1])
  assert kill_harness.wait_for(process, lambda: kill_harness.last_step(tmp_path / 'other') >= 3)
  left = children(process.pid)
  for pid in left:
    os.kill(pid, signal.SIGINT)
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=100) == 75
  process = kill_harness.start(tmp_path / 'other', 100_000, *workers[:1])
  time.sleep(1)
  begun = kill_harness.last_step(tmp_path / 'other')
  assert kill_harness.wait_for(
    process, lambda: kill_harness.last_step(tmp_path / 'other') > begun + 2
  )
  left = children(process.pid)
  process.kill()
  process.wait()
  time.sleep(2)
  assert len(left) >= 2 and not any(running(pid) for pid in left)


def children(pid):
  """Its data workers: spawned Python processes, without multiprocessing's resource tracker."""
  found = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
  found += [
    c
    for task in pathlib.Path(f'/proc/{pid}/task').iterdir()
    for c in (task / 'children').read_text().split()
  ]
  command = lambda c: pathlib.Path(f'/proc/{c}/cmdline').read_bytes()
  return sorted({int(c) for c in found if b'spawn_main' in command(c)})


def running(pid):
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().split()[2] != 'Z'
  except FileNotFoundError:
    return False
