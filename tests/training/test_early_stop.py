"""The early stop: which step is the result, and that a killed run stops where a whole one does.

Evaluations are played from a list, and a toy recipe takes the place of a system.
"""

import json

import jax
import numpy as np
import pytest
import toy

from jaxinpaint import systems
from jaxinpaint.runtime import faults
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import loop
from jaxinpaint.weights import checkpoints

# At steps 0, 1, ...: the best is of step 1; step 3 only equals it.
VALUES = (10.0, 12.0, 11.0, 12.0, 11.0, 11.5)


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setattr(systems, 'make_recipe', lambda config: toy.recipe())
  config = config_lib.quicktest(config_lib.base('mesff'))
  with config.unlocked():
    config.optimizers.generator = dict(name='sgd', learning_rate=0.1)
    config.optimizers.critic = dict(name='sgd', learning_rate=0.1)
  config.data.update(dict(size=40, batch_size=2))
  config.training.mesh.data = 1
  config.training.update(dict(steps=5, ema_decay=0.5, log_every=1, sample_every=0))
  config.training.update(dict(evaluate_every=1, patience=3))
  config.checkpoint.update(dict(every=100, keep=1, best='hole_psnr'))
  config.evaluation.at_end = True
  return config


class Watch:
  """Plays `values`; keeps what `final` is called with; ends the run at the evaluation of `dies`."""

  def __init__(self, values, dies=None):
    self.values, self.dies, self.asked, self.ends = values, dies, [], []

  def __call__(self, inference, config, workdir):
    return self

  def evaluate(self, step, state, constants):
    if step == self.dies:
      raise KeyboardInterrupt
    self.asked.append(step)
    return {'hole_psnr': self.values[step]}

  def final(self, step, result, constants, before=None):
    self.ends.append((step, result, before))


def steps_of(workdir):
  return checkpoints.list_steps(workdir / 'checkpoints')


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_ends_after_evaluations_without_a_better_one(tmp_path, config):
  watch = Watch(VALUES)
  state = loop.train(config, tmp_path, watch=watch)
  assert int(state.step) == 4 and watch.asked == [0, 1, 2, 3, 4]
  last = json.loads((tmp_path / 'starts.jsonl').read_text().splitlines()[-1])
  assert (last['event'], last['step'], last['how']) == ('ended', 4, 'early stop')
  # The newest is what goes on; the best is the result.
  assert steps_of(tmp_path) == [1, 4]
  assert checkpoints.find(tmp_path).name == '1' and checkpoints.find(tmp_path, 4).name == '4'
  ((step, result, before),) = watch.ends
  assert step == 1 and before is None
  assert_equal(
    result.params['generator'], checkpoints.read(checkpoints.find(tmp_path)).params['generator']
  )
  assert np.any(result.params['generator']['w'] != state.averaged.params['generator']['w'])

  (tmp_path / 'evaluation' / '1').mkdir(parents=True)
  again = Watch(VALUES)
  assert_equal(loop.train(config, tmp_path, watch=again), state)
  assert again.asked == again.ends == []
  # More patience goes on, and still has the best.
  config.training.patience = 9
  assert int(loop.train(config, tmp_path, watch=again).step) == 5 and again.asked == [5]
  assert steps_of(tmp_path) == [1, 5]


@pytest.mark.parametrize('dies', [1, 3])
def test_a_killed_run_stops_where_a_whole_one_does(tmp_path, config, dies):
  whole = loop.train(config, tmp_path / 'whole', watch=Watch(VALUES))
  with pytest.raises(KeyboardInterrupt):
    loop.train(config, tmp_path / 'killed', watch=Watch(VALUES, dies))
  watch = Watch(VALUES)
  assert_equal(loop.train(config, tmp_path / 'killed', watch=watch), whole)
  assert watch.asked == list(range(dies, 5)) and watch.ends[0][0] == 1
  assert steps_of(tmp_path / 'killed') == steps_of(tmp_path / 'whole')


def test_a_start_that_is_never_bettered_is_the_result(tmp_path, config):
  first = loop.train(config, tmp_path / 'first', watch=Watch(VALUES))
  config.init_from = str(tmp_path / 'first')
  config.training.patience = 2
  watch = Watch((5.0, 4.0, 3.0))
  state = loop.train(config, tmp_path / 'second', watch=watch)
  ((step, result, before),) = watch.ends
  assert int(state.step) == 2 and step == 0
  # It began with the first run's result, not with its newest step.
  assert_equal(result, before)
  assert_equal(before.params, checkpoints.read(checkpoints.find(tmp_path / 'first', 1)).params)
  assert np.any(before.params['generator']['w'] != first.averaged.params['generator']['w'])


def test_the_start_is_kept_for_the_comparison_without_an_early_stop_too(tmp_path, config):
  config.training.patience = 0
  loop.train(config, tmp_path / 'first', watch=Watch(VALUES))
  config.init_from = str(tmp_path / 'first')
  watch = Watch(VALUES)
  loop.train(config, tmp_path / 'second', watch=watch)
  assert watch.asked == [1, 2, 3, 4, 5] and steps_of(tmp_path / 'second') == [0, 1, 5]
  ((step, _, before),) = watch.ends
  start = checkpoints.read(checkpoints.find(tmp_path / 'first'))
  assert step == 5 and checkpoints.find(tmp_path / 'second').name == '5'
  assert_equal(before.params['generator'], start.params['generator'])


def test_an_evaluation_that_is_not_a_number_is_never_the_best(tmp_path, config):
  watch = Watch((np.nan, np.nan, 5.0, np.nan, np.nan, np.nan))
  loop.train(config, tmp_path, watch=watch)
  assert watch.ends[0][0] == 2 and steps_of(tmp_path) == [2, 5]


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('training.evaluate_every', 0, r'patience 3 waits .* config\.training\.evaluate_every is 0'),
    ('checkpoint.best', '', r"config\.checkpoint\.best is ''"),
    ('training.patience', -1, r'config\.training\.patience -1 must be a number of evaluations'),
  ],
)
def test_an_early_stop_that_cannot_be_is_named(tmp_path, config, field, value, message):
  config.update_from_flattened_dict({field: value})
  with pytest.raises(faults.ConfigurationError, match=message):
    loop.train(config, tmp_path, watch=Watch(VALUES))
  assert not (tmp_path / 'checkpoints').exists()


def test_an_early_stop_needs_a_watch_and_its_metric(tmp_path, config):
  with pytest.raises(faults.ConfigurationError, match='patience 3 needs evaluations'):
    loop.train(config, tmp_path)
  config.checkpoint.best = 'fid'
  with pytest.raises(ValueError, match="'fid' is not measured; there are: hole_psnr"):
    loop.train(config, tmp_path, watch=Watch(VALUES))
