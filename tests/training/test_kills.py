"""Runs that are killed, frozen, signalled, or lose a process, as users start them."""

import collections
import json
import pathlib

import jax
import kill_harness
import numpy as np
import pytest

from jaxinpaint.training import checkpoints

KILLS, STEPS = 24, 120


def arrays_of(workdir):
  """(step, every array of the newest checkpoint)."""
  folder = pathlib.Path(workdir).absolute() / 'checkpoints'
  step = checkpoints.list_steps(folder)[-1]
  items = [n for n in ('params', 'stats', 'opt', 'ema') if (folder / str(step) / n).is_dir()]
  return step, {n: checkpoints._read_networks(folder / str(step) / n, None) for n in items}


@pytest.mark.slow
def test_a_run_killed_two_dozen_times_ends_as_one_that_was_not(tmp_path):
  process = kill_harness.start(tmp_path / 'straight', STEPS)
  assert process.wait() == 0, (tmp_path / 'straight.log').read_text()
  kills, code = kill_harness.kill_until_done(tmp_path / 'killed', STEPS, KILLS)
  print(f'\n{kills.total} kills: {kills}')
  log = (tmp_path / 'killed.log').read_text()
  assert code == 0, log
  assert kills.total >= 20 and kills.saving >= 5 and kills.stepping >= 5, kills
  assert 'is set aside' not in log and 'Traceback' not in log
  step, want = arrays_of(tmp_path / 'straight')
  again, got = arrays_of(tmp_path / 'killed')
  assert step == again == STEPS
  jax.tree.map(np.testing.assert_array_equal, want, got)
  # The log holds each step once, with the numbers of the straight run.
  lines = lambda name: [json.loads(x) for x in (tmp_path / name / 'metrics.jsonl').open()]
  seen = collections.Counter(line['step'] for line in lines('killed'))
  assert seen == {s: 1 for s in range(1, STEPS + 1)}
  plain = lambda line: {k: v for k, v in line.items() if 'speed' not in k and k != 'time'}
  assert [plain(x) for x in lines('killed')] == [plain(x) for x in lines('straight')]
  assert json.loads((tmp_path / 'killed' / 'config.json').read_text())
  assert not kill_harness.saving(tmp_path / 'killed')
