"""config.training.nan: what is done about a step whose numbers are not finite."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_loop as runs
import toy
from PIL import Image

from jaxinpaint import systems
from jaxinpaint.data import pipeline
from jaxinpaint.runtime import faults
from jaxinpaint.training import (
  checkpoints,
  loop,
  numerics,
  state,
  step,
)
from jaxinpaint.weights import checkpoints as reading


def small(**training):
  """Settings of the loop for the toy networks, which compile in no time."""
  config = runs.small(**training)
  with config.unlocked():
    config.optimizers.critic = config.optimizers.discriminator
  return config


@pytest.fixture(autouse=True)
def toy_networks(monkeypatch):
  monkeypatch.setattr(systems, 'make_recipe', lambda config: toy.recipe())


def sick_at(monkeypatch, *steps, data_seed=None):
  """Makes the first pixel of batches NaN at these steps, for the data of one seed only."""
  make = pipeline.make

  def poisoned(config, seed, *, start_step=0, **kwargs):
    for number, batch in enumerate(make(config, seed, start_step=start_step, **kwargs), start_step):
      image = np.float32(batch['image']) / np.float32(255)
      if number in steps and data_seed in (None, seed):
        image[0, 0, 0, 0] = np.nan
      yield {**batch, 'image': image}

  class Batches:
    def __init__(self, *args, **kwargs):
      self._iterator = poisoned(*args, **kwargs)
      self.close = self._iterator.close

    def __next__(self):
      return next(self._iterator)

  monkeypatch.setattr(pipeline, 'make', Batches)


def test_stop_names_everything_writes_the_batch_and_saves_nothing(tmp_path, monkeypatch):
  sick_at(monkeypatch, 2)
  with pytest.raises(faults.Diverged) as caught:
    loop.train(small(steps=6), tmp_path)
  folder = tmp_path / 'sick' / '2'
  report = json.loads((folder / 'report.json').read_text())
  batch = np.load(folder / 'batch.npz')
  for word in ('step 2: ', 'generator/', ' = nan', str(folder), str(report['ids'][0])):
    assert word in str(caught.value)
  assert report['step'] == 2 and report['ids'] == batch['id'].tolist()
  assert report['sick_inputs'] == ['image'] and np.isnan(batch['image'][0, 0, 0, 0])
  assert 'generator/total' in report['sick'] and batch['mask'].shape == (2, 40, 40, 1)
  assert Image.open(folder / 'batch.png').width > 3 * 192
  assert checkpoints.list_steps(tmp_path / 'checkpoints') == [2]
  assert faults.Diverged.exit_code == 65
  last = json.loads((tmp_path / 'starts.jsonl').read_text().splitlines()[-1])
  assert (last['event'], last['how'], last['why']) == ('ended', 'Diverged', str(caught.value))


def test_skip_equals_a_run_without_that_batch():
  """The sick step changes nothing: optimizers, averages and statistics included."""
  recipe = toy.recipe()
  txs = {'generator': optax.adam(1e-2), 'critic': optax.adam(1e-2)}
  take = step.make_train_step(recipe, txs, ema_decay=0.5)
  begin = lambda: state.create(recipe, txs, ('generator',), jax.random.key(0), toy.batch())
  key = jax.random.key(1)

  def run(sick):
    current = begin()
    for i in range(4):
      batch = toy.batch(seed=i)
      if i == 1 and sick:
        batch['image'] = batch['image'].at[0].set(jnp.nan)
      if i == 1 and not sick:
        current = current.replace(step=current.step + 1)
        continue
      current, _ = take(current, {}, batch, key, recipe.plan(i))
    return current

  jax.tree.map(np.testing.assert_array_equal, run(True), run(False))


def test_skip_goes_on_and_resumes_to_the_bit(tmp_path, monkeypatch, caplog):
  sick_at(monkeypatch, 1)
  straight = loop.train(small(nan='skip'), tmp_path / 'straight')
  assert 'step 1: ' in caplog.text and '(1 in a row)' in caplog.text
  loop.train(small(nan='skip', steps=2), tmp_path / 'parts')
  resumed = loop.train(small(nan='skip'), tmp_path / 'parts')
  runs.assert_equal(straight, resumed)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(straight)))
  lines = [json.loads(x) for x in (tmp_path / 'straight' / 'metrics.jsonl').open()]
  assert [x.get('sick_steps', 0) for x in lines] == [0, 1, 0, 0]


def test_a_new_statistic_that_is_not_finite_makes_a_step_sick():
  def forward(variables, constants, batch, rng):
    outputs, _ = toy.forward(variables, constants, batch, rng)
    return outputs, {'generator': {'batch_stats': {'mean': jnp.full((3,), jnp.nan)}}}

  recipe = toy.recipe(toy.Phase('joint', -1, forward, (toy.GENERATOR,)))
  txs = {'generator': optax.sgd(1e-2)}
  begin = state.create(recipe, txs, (), jax.random.key(0), toy.batch())
  after, metrics = step.make_train_step(recipe, txs)(
    begin, {}, toy.batch(), jax.random.key(0), recipe.plan(0)
  )
  assert not metrics['finite'] and step.nonfinite_terms(metrics) == []
  assert np.isfinite(after.stats['generator']['batch_stats']['mean']).all()


def test_rollback_goes_back_takes_other_data_and_resumes_to_the_bit(tmp_path, monkeypatch, caplog):
  config = lambda **k: small(nan='rollback', **k)
  sick_at(monkeypatch, 3, data_seed=config().seed)
  straight = loop.train(config(steps=6), tmp_path / 'straight')
  assert int(straight.step) == 6 and 'Back at step 2' in caplog.text
  # Stopped between the return and the end, the record of returns comes from the checkpoint.
  loop.train(config(steps=4), tmp_path / 'parts')
  meta = checkpoints.read_meta(tmp_path.absolute() / 'parts' / 'checkpoints' / '4')
  assert meta['data']['sick'] == {'in_a_row': 0, 'rollbacks': 1}
  resumed = loop.train(config(steps=6), tmp_path / 'parts')
  runs.assert_equal(straight, resumed)
  lines = [json.loads(x)['step'] for x in (tmp_path / 'straight' / 'metrics.jsonl').open()]
  assert lines == [1, 2, 3, 4, 5, 6]
  assert (tmp_path / 'straight' / 'sick' / '3').is_dir()
  # A run that never was sick has other numbers from the checkpoint on, and the same before.
  monkeypatch.undo()
  monkeypatch.setattr(systems, 'make_recipe', lambda config: toy.recipe())
  healthy = loop.train(config(steps=6), tmp_path / 'healthy')
  leaves = lambda s: jax.tree.leaves(jax.device_get(s.params))
  assert any((a != b).any() for a, b in zip(leaves(straight), leaves(healthy), strict=True))
  losses = [runs.losses(tmp_path / n) for n in ('straight', 'healthy')]
  # Images are uint8 here and were float there: the last bit may differ.
  assert losses[1][0] == pytest.approx(losses[0][0], abs=1e-6) and losses[1][1] == pytest.approx(
    losses[0][1], abs=1e-6
  )
  assert losses[1][2] != pytest.approx(losses[0][2])


def test_rollback_has_a_limit(tmp_path, monkeypatch):
  sick_at(monkeypatch, 0)
  with pytest.raises(faults.Diverged, match='2 returns to the checkpoint before did not help'):
    loop.train(small(nan='rollback', nan_limit=2), tmp_path)
  assert checkpoints.list_steps(tmp_path / 'checkpoints') == [0]
  assert sorted(p.name for p in (tmp_path / 'sick').iterdir()) == ['0', '0-1', '0-2']


def test_the_data_after_a_return_follows_from_seed_and_count():
  seeds = [numerics.seed_after(5, n) for n in range(4)]
  assert seeds[0] == 5 and len(set(seeds)) == 4 and numerics.seed_after(6, 1) not in seeds
  assert numerics.seed_after(5, 2) == seeds[2]


def test_not_more_than_some_sick_batches_are_written(tmp_path, monkeypatch):
  monkeypatch.setattr(numerics, '_KEEP', 2)
  batch = jax.device_get(toy.batch(rows=2))
  written = [numerics.write(tmp_path, str(i), batch, {}) for i in (1, 2, 3, 2)]
  assert [w is not None for w in written] == [True, True, False, True]


def test_a_checkpoint_of_before_is_still_read(tmp_path):
  """One without the list of sick steps and without checksums goes on and is loaded."""
  loop.train(small(steps=2), tmp_path)
  path = next((tmp_path / 'checkpoints' / '2' / 'meta').glob('metadata'))
  meta = json.loads(path.read_text())
  del meta['data']['sick']
  path.write_text(json.dumps(meta))
  (tmp_path / 'checkpoints' / '2' / 'checksums.sha256').unlink()
  reading.read(reading.find(tmp_path))
  assert int(loop.train(small(steps=4), tmp_path).step) == 4
