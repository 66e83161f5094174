"""The whole loop on the embedded photographs: exact resume, signals, sick numbers, bad input.

Where no system is asked about, the toy's networks take its place: they compile in no time.
"""

import faulthandler
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import toy

from jaxinpaint import systems
from jaxinpaint.cli import train
from jaxinpaint.evaluation.watch import Watch
from jaxinpaint.runtime import faults, locks
from jaxinpaint.training import (
  checkpoints,
  loop,
  optimizers,
  preparation,
)
from jaxinpaint.training import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent.parent


def small(**training):
  config = config_lib.quicktest(config_lib.base('aotgan'))
  with config.unlocked():
    config.optimizers.generator = dict(name='adam', learning_rate=1e-3)
    config.optimizers.discriminator = dict(name='adam', learning_rate=1e-4)
  config.model.update(dict(width=4, blocks=1, rates=(1,)))
  config.loss.update(dict(adversarial=0.1, perceptual=0.0, style=0.0, discriminator_width=4))
  config.data.update(dict(size=40, batch_size=2))
  config.training.mesh.data = 1  # compiles in half the time of the eight devices of the suite
  config.training.update(
    dict(steps=4, ema_decay=0.5, sample_every=0, evaluate_every=0, log_every=1) | training
  )
  config.checkpoint.update(dict(every=2, keep=9, best=''))
  return config


@pytest.fixture
def toys(monkeypatch):
  """Settings of the toy, which is as wide as config.model.width."""
  make = lambda config: toy.recipe(hidden=config.model.width)
  monkeypatch.setattr(systems, 'make_recipe', make)

  def settings(**training):
    config = small(**training)
    with config.unlocked():
      config.optimizers.critic = config.optimizers.discriminator
      del config.optimizers.discriminator
    return config

  return settings


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def losses(workdir):
  lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [
    {k: v for k, v in r.items() if '/' in k and not k.startswith(('speed', 'memory', 'time'))}
    for r in rows
  ]


def test_a_resumed_run_equals_a_straight_one_to_the_bit(tmp_path):
  straight = loop.train(small(), tmp_path / 'straight')
  loop.train(small(steps=2), tmp_path / 'parts')
  resumed = loop.train(small(), tmp_path / 'parts')
  assert int(resumed.step) == 4
  assert_equal(straight, resumed)
  # The losses of every step too: the same images and masks came in the same order.
  assert losses(tmp_path / 'straight') == losses(tmp_path / 'parts')
  assert (tmp_path / 'parts' / 'config.0.json').exists()


def test_nothing_is_left_to_train(tmp_path, toys):
  done = loop.train(toys(steps=2), tmp_path)
  again = loop.train(toys(steps=2), tmp_path)
  assert_equal(done, again)


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
  """The real entry point, killed politely in the middle and started again."""
  command = [
    sys.executable, str(ROOT / 'train.py'),
    '--config', str(ROOT / 'configs/places2_aotgan_256.py:quicktest'),
    '--workdir', str(tmp_path / 'run'), '--config.training.steps=100000',
    '--config.data.source=sample', '--config.data.split=train', '--config.data.eval_split=test',
    '--config.data.size=40', '--config.data.batch_size=2', '--config.model.width=4',
    '--config.model.blocks=1', '--config.model.rates=(1,)', '--config.loss.adversarial=0.0',
    '--config.loss.perceptual=0.0', '--config.loss.style=0.0', '--config.checkpoint.every=100000',
    '--config.training.log_every=1', '--config.training.evaluate_every=0',
    '--config.training.sample_every=0', '--config.training.ema_decay=0.0',
    '--config.training.mesh.data=1', '--config.evaluation.at_end=false',
  ]  # fmt: skip
  log = open(tmp_path / 'log', 'w')
  process = subprocess.Popen(command, stderr=log, stdout=log, cwd=tmp_path, env=dict(os.environ))
  metrics = tmp_path / 'run' / 'metrics.jsonl'
  deadline = time.monotonic() + 240
  while time.monotonic() < deadline and process.poll() is None:
    if metrics.exists() and len(metrics.read_text().splitlines()) >= 3:
      break
    time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=120) == 75, (tmp_path / 'log').read_text()
  steps = checkpoints.list_steps(tmp_path / 'run' / 'checkpoints')
  assert len(steps) == 1 and steps[0] >= 3
  done = subprocess.run(
    [*command, f'--config.training.steps={steps[0] + 2}'],
    cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ),
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert f'at step {steps[0]}' in done.stderr
  assert checkpoints.list_steps(tmp_path / 'run' / 'checkpoints')[-1] == steps[0] + 2


def poisoned(monkeypatch, at):
  """Makes the generator's optimizer return NaN at one step."""
  import optax

  def factory(name, learning_rate, accumulate=1, **arguments):
    rate = lambda count: jax.numpy.where(count == at, jax.numpy.nan, learning_rate)
    return optax.sgd(rate)

  monkeypatch.setattr(optimizers, 'make_optimizer', factory)


def test_nan_stops_and_names_update_term_and_step(tmp_path, monkeypatch, toys):
  poisoned(monkeypatch, at=2)
  with pytest.raises(faults.Diverged, match=r'step 2: .*generator/update_norm = nan'):
    loop.train(toys(steps=6), tmp_path)
  # What is on disk is from before the sick step.
  assert checkpoints.list_steps(tmp_path / 'checkpoints') == [2]


def test_nan_can_be_skipped_with_a_limit(tmp_path, monkeypatch, toys, caplog):
  poisoned(monkeypatch, at=2)
  with pytest.raises(faults.Diverged, match='number 3 in a row'):
    loop.train(toys(steps=9, nan='skip', nan_limit=3), tmp_path)
  assert 'its changes were dropped' in caplog.text


def test_init_from_takes_weights_only(tmp_path, toys):
  first = loop.train(toys(steps=2), tmp_path / 'first')
  config = toys(steps=2)
  config.init_from = str(tmp_path / 'first')
  config.optimizers.generator.learning_rate = 0.0
  config.optimizers.critic.learning_rate = 0.0
  second = loop.train(config, tmp_path / 'second')
  assert int(second.step) == 2
  assert_equal(first.ema['generator'], second.params['generator'])
  wider = toys()
  wider.model.width = 8
  wider.init_from = str(tmp_path / 'first')
  with pytest.raises(faults.ConfigurationError, match=r'critic/.* in the file'):
    loop.train(wider, tmp_path / 'third')


def changed(**fields):
  config = small()
  with config.unlocked():
    for path, value in fields.items():
      section, _, key = path.partition('__')
      if key:
        config[section][key] = value
      else:
        config[section] = value
  return config


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(training__steps=0), r'config\.training\.steps 0'),
    (dict(training__stepz=1), 'unknown: stepz'),
    (dict(training__nan='ignore'), 'stop, skip, rollback'),
    (dict(dtype='float16'), "'float32' or 'bfloat16'"),
    (dict(data__batch_size=7, training__mesh=dict(data=8, fsdp=1)), 'batch_size 7'),
    (dict(data__source='/no/such/folder'), '/no/such/folder'),
    (dict(data__masks='doughnuts'), 'doughnuts'),
    (dict(data__size=42), r'data\.size 42 must be a multiple of 4 and at least 8.* take 44'),
    (dict(model__widht=8), 'widht'),
    (dict(loss__l1=-1.0), 'l1'),
    (dict(init_from='/no/such/file'), '/no/such/file'),
    (dict(evaluation__protocol='mine'), 'mine'),
  ],
)
def test_bad_input_is_named_before_any_training(tmp_path, fields, message):
  with pytest.raises(faults.ConfigurationError, match=message):
    loop.train(changed(**fields), tmp_path / 'run', watch=Watch)
  assert not (tmp_path / 'run' / 'checkpoints').exists()


def test_another_system_in_the_workdir_is_refused_and_left_alone(tmp_path, toys):
  loop.train(toys(steps=2), tmp_path)
  before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  config = toys()
  config.model.width = 8
  with pytest.raises(checkpoints.CheckpointError, match=r'model\.width: 4 -> 8'):
    loop.train(config, tmp_path)
  assert before == {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}


def test_a_workdir_takes_one_run_at_a_time(tmp_path, monkeypatch):
  monkeypatch.setattr(preparation, '_PATIENCE', 0.0)
  with locks.hold(tmp_path / '.lock', 'it'):
    with pytest.raises(faults.ConfigurationError, match=r'--workdir .* is in use by process'):
      loop.train(small(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['.lock']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config', 'configs/quickstart.py', '--config.data.sise=3'], 'sise'),
    (['--config', 'configs/quickstart.py:fast'], "unknown config variant 'fast'"),
    (['--config', 'configs/absent.py'], 'configs/absent.py'),
  ],
)
def test_a_mistaken_command_ends_in_a_sentence(tmp_path, arguments, message, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(faulthandler, 'enable', lambda: None)  # wants a file, which capsys has not
  with pytest.raises(SystemExit) as end:
    train.main([*arguments, '--workdir', str(tmp_path / 'run')])
  assert end.value.code == 2 and message in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_a_program_on_data_that_are_not_there_ends_in_a_sentence(tmp_path):
  flags = ['--config', 'configs/quickstart.py', '--config.data.source=/absent']
  done = subprocess.run(
    [sys.executable, 'train.py', *flags, '--workdir', str(tmp_path / 'run')],
    cwd=ROOT,
    env={k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'},
    capture_output=True,
    text=True,
  )
  assert done.returncode != 0 and '/absent' in done.stderr
  assert 'Traceback' not in done.stderr
  assert not list(tmp_path.iterdir())  # the cache of compiled programs would be there, too
