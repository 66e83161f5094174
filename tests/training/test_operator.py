"""What an operator sees of a run: its numbers, warnings and traces, through the whole loop.

The systems' networks would compile for a minute; a toy recipe takes their place.
"""

import gzip
import json
import shutil

import jax
import numpy as np
import pytest
import toy
from test_loop import small

from jaxinpaint import systems
from jaxinpaint.recipe import Phase
from jaxinpaint.runtime import faults
from jaxinpaint.training import loop
from jaxinpaint.training.profiling import Profiler
from jaxinpaint.training.run import Run

PHASES = (
  Phase('warm-up', 2, toy.forward, (toy.GENERATOR,)),
  Phase('joint', -1, toy.forward, (toy.GENERATOR, toy.CRITIC)),
)
SPEED = {
  *('speed/img_per_s', 'speed/img_per_s_per_device', 'speed/step_ms', 'speed/step_ms_median'),
  *('speed/step_ms_p95', 'speed/data_wait', 'speed/flops_per_step', 'memory/host_peak_gb'),
  *('time/compile_s', 'time/goodput'),
}


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setattr(systems, 'make_recipe', lambda config: toy.recipe(*PHASES))
  config = small(steps=6)
  with config.unlocked():
    for name in ('generator', 'critic'):
      config.optimizers[name] = dict(name='sgd', learning_rate=0.1)
    del config.optimizers['discriminator']
    config.evaluation.at_end = False
  return config


def lines(workdir, name='metrics.jsonl'):
  return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def traced(workdir):
  """(name, step) of the steps in the workdir's one trace, in order."""
  (file,) = workdir.glob('profile/**/*.trace.json.gz')
  events = json.loads(gzip.decompress(file.read_bytes()))['traceEvents']
  steps = [(e['name'], int(e['args']['step_num'])) for e in events if e.get('name') == 'train']
  return sorted(steps)


def test_a_run_of_several_phases_shows_its_numbers_and_warns_of_nothing(tmp_path, config, caplog):
  caplog.set_level('INFO')
  config.training.mesh.data = 2
  loop.train(config, tmp_path, profile=(3, 5))
  found = lines(tmp_path)
  assert [line['step'] for line in found] == [1, 2, 3, 4, 5, 6]
  for line in found:
    assert set(line) >= SPEED
    assert line['speed/img_per_s'] == pytest.approx(2 * line['speed/img_per_s_per_device'])
    assert 0 < line['time/goodput'] < 1
    assert 'speed/mfu' not in line  # of a CPU nothing is known
  # The second phase's step does more, and was compiled too.
  assert found[5]['speed/flops_per_step'] > found[1]['speed/flops_per_step'] > 0
  assert found[5]['time/compile_s'] > found[1]['time/compile_s'] == found[0]['time/compile_s']
  assert 'compiled again' not in caplog.text
  assert caplog.text.count('No MFU') == 1
  assert 'Parameters: critic 32, generator 15.' in caplog.text
  assert 'goodput' in caplog.messages[-1] and caplog.messages[-1].startswith('Step 6, ')
  starts = lines(tmp_path, 'starts.jsonl')
  assert [(s['event'], s['step']) for s in starts] == [
    *(('start', 0), ('saved', 2), ('saved', 4), ('saved', 6), ('ended', 6)),
  ]
  assert starts[0]['devices'] == '2 x cpu'
  assert starts[0]['steps'] == 6 and starts[-1]['how'] == 'finished'
  useful = [s['useful_s'] for s in starts if s['event'] == 'saved']
  assert useful == sorted(useful) and 0 < useful[0]
  # All of it, with one value a step, is in TensorBoard's files as well.
  (events,) = (tmp_path / 'tb').iterdir()
  for name in SPEED:
    # The length of the name stands before it, a byte above those of a text.
    written = bytes([len(name)]) + name.encode()
    assert events.read_bytes().count(written) == 6
  assert traced(tmp_path) == [('train', 3), ('train', 4)]
  assert 'ui.perfetto.dev' in caplog.text


def test_a_batch_of_another_shape_warns_in_the_loop(tmp_path, config, caplog, monkeypatch):
  original = Run.next_batch

  def smaller(run):
    rows = original(run)
    return {k: v[:1] for k, v in rows.items()} if run.done == 4 else rows

  monkeypatch.setattr(Run, 'next_batch', smaller)
  loop.train(config, tmp_path)
  (text,) = [m for m in caplog.messages if 'compiled again' in m]
  assert "phase 'joint'" in text and 'image is uint8[1,40,40,3] and was uint8[2,40,40,3]' in text


class Watch:
  """In the place of `evaluation.watch.Watch`: says what it was asked for."""

  def __init__(self, recipe, config, workdir):
    self.asked = []

  def evaluate(self, step, state, constants):
    self.asked.append(('evaluate', step, int(state.step)))
    return {'psnr': 20.0 + step}

  def samples(self, step, state, constants):
    self.asked.append(('samples', step, int(state.step)))
    return np.zeros((8, 8, 3), np.uint8)

  def final(self, step, result, constants, before=None):
    self.asked.append(('final', step, before))


def test_the_loop_asks_for_evaluations_and_pictures_and_writes_them(tmp_path, config):
  watches = []

  def watch(*arguments):
    watches.append(Watch(*arguments))
    return watches[-1]

  config.training.update(dict(steps=5, evaluate_every=2, sample_every=3))
  config.checkpoint.update(dict(every=100, best='psnr'))
  config.evaluation.at_end = True
  loop.train(config, tmp_path, watch=watch)
  (watch,) = watches
  assert watch.asked == [
    *(('samples', 0, 0), ('evaluate', 2, 2), ('samples', 3, 3), ('evaluate', 4, 4)),
    *(('evaluate', 5, 5), ('samples', 5, 5), ('final', 5, None)),
  ]
  seen = {
    line['step']: line['evaluation/psnr'] for line in lines(tmp_path) if 'evaluation/psnr' in line
  }
  assert seen == {2: 22.0, 4: 24.0, 5: 25.0}
  # What was evaluated is kept.
  saved = [line['step'] for line in lines(tmp_path, 'starts.jsonl') if line['event'] == 'saved']
  assert saved == [2, 4, 5]
  (events,) = (tmp_path / 'tb').iterdir()
  assert b'samples' in events.read_bytes()


def test_an_error_before_the_first_step_is_noted(tmp_path, config):
  class Broken(Watch):
    def samples(self, step, state, constants):
      raise FloatingPointError('no picture')

  config.training.sample_every = 3
  with pytest.raises(FloatingPointError):
    loop.train(config, tmp_path, watch=Broken)
  _, ended = lines(tmp_path, 'starts.jsonl')
  wanted = {'event': 'ended', 'step': 0, 'how': 'FloatingPointError', 'why': 'no picture'}
  assert ended.items() >= wanted.items()


def test_goodput_goes_on_over_a_kill(tmp_path, config):
  loop.train(config, tmp_path)
  # As if it had been killed while the checkpoint of 6 was written.
  shutil.rmtree(tmp_path / 'checkpoints' / '6')
  before = lines(tmp_path, 'starts.jsonl')
  loop.train(config, tmp_path)
  starts = lines(tmp_path, 'starts.jsonl')
  assert starts[: len(before)] == before
  begun, now, ended = starts[len(before) :]
  assert [(s['event'], s['step']) for s in (begun, now, ended)] == [
    *(('start', 4), ('saved', 6), ('ended', 6)),
  ]
  kept = before[2]['useful_s']
  line = lines(tmp_path)[-1]
  wall = line['time'] - before[0]['time']
  assert line['time/goodput'] == pytest.approx((kept + now['useful_s']) / wall, rel=0.05)


def test_a_trace_that_begins_past_the_end_is_refused(tmp_path, config):
  with pytest.raises(faults.ConfigurationError, match='--profile=6:9 begins after the last step'):
    loop.train(config, tmp_path, profile=(6, 9))


def test_a_trace_that_lies_behind_is_left_out_and_said(tmp_path, caplog):
  profiler = Profiler((1, 4), tmp_path, start=4, total=6)
  assert 'goes on at step 4, past these steps' in caplog.text
  assert not any(profiler.due(done) for done in range(4, 7))
  with profiler.step(4):
    pass
  profiler.close()
  assert not list(tmp_path.iterdir())


def test_a_trace_goes_on_where_a_run_does_and_ends_with_it(tmp_path):
  profiler = Profiler((1, 100), tmp_path, start=4, total=6)
  assert profiler.due(4)
  profiler.switch(4)
  with profiler.step(4):
    assert not profiler.due(5)
  profiler.close()
  assert [name for name, _ in traced(tmp_path)] == ['train']
  assert not profiler.due(6)
  # It is over: another one can begin.
  jax.profiler.start_trace(str(tmp_path / 'other'))
  jax.profiler.stop_trace()


def test_other_processes_trace_nothing(tmp_path):
  profiler = Profiler((0, 2), tmp_path, start=0, total=6, active=False)
  assert not profiler.due(0)
  with pytest.raises(ValueError, match='after the last step'):
    Profiler((6, 7), tmp_path, start=0, total=6, active=False)
