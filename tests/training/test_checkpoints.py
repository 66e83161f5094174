import functools

import jax
import numpy as np
import optax
import pytest
import toy
from ml_collections import ConfigDict

from jaxinpaint import migrations, systems
from jaxinpaint.training import checkpoints, optimizers, sharding, state, step
from jaxinpaint.weights import checkpoints as reading
from jaxinpaint.weights.store import MissingWeights

TXS = {'generator': optax.adam(1e-2), 'critic': optax.adam(1e-2)}
CONFIG = ConfigDict(
  dict(
    system='toy',
    model=dict(width=8),
    training=dict(ema_decay=0.5, ema_networks=('generator',), accumulate=1),
    optimizers=dict(generator=dict(name='adam', learning_rate=1e-2)),
  )
)


@pytest.fixture(autouse=True)
def toy_fields(monkeypatch):
  """What `training.config.base` starts from."""
  fields = ConfigDict(dict(version=migrations.VERSION, system='toy', model=dict(width=8)))
  monkeypatch.setattr(
    systems, 'default_config', lambda system: fields.copy_and_resolve_references()
  )


def create(key, txs=TXS):
  return state.create(toy.recipe(), txs, ('generator',), key, toy.batch())


def abstract(mesh=None, txs=TXS):
  mesh = mesh or sharding.make_mesh(data=1)
  shapes = jax.eval_shape(lambda key: create(key, txs), jax.random.key(0))
  placed = sharding.state_sharding(shapes, mesh)
  return jax.tree.map(
    lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), shapes, placed
  )


@functools.cache
def program():
  recipe = toy.recipe()
  return recipe, step.make_train_step(recipe, TXS, ema_decay=0.5)


def trained(steps, current=None):
  recipe, train_step = program()
  current = create(jax.random.key(0)) if current is None else current
  for i in range(int(current.step), steps):
    current, _ = train_step(current, {}, toy.batch(seed=i), jax.random.key(1), recipe.plan(i))
  return current


def saved(folder, steps, **kwargs):
  store = checkpoints.Checkpoints(folder, **kwargs)
  for s in steps:
    store.save(trained(s), CONFIG, {'next_batch': s})
    store.wait()
  store.close()


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_restored_state_continues_to_the_bit(tmp_path):
  saved(tmp_path, [3])
  back, meta = checkpoints.Checkpoints(tmp_path).restore(abstract(), CONFIG)
  assert meta['step'] == 3 and meta['data'] == {'next_batch': 3}
  assert_equal(trained(3), back)
  assert_equal(trained(6), trained(6, back))


def test_a_state_saved_on_eight_devices_restores_on_one_and_split(tmp_path):
  many = sharding.make_mesh(data=4, fsdp=2)
  whole = trained(2)
  placed = jax.device_put(whole, sharding.state_sharding(whole, many))
  store = checkpoints.Checkpoints(tmp_path)
  store.save(placed, CONFIG, {})
  store.close()
  for mesh in (None, many):
    back, _ = checkpoints.Checkpoints(tmp_path).restore(abstract(mesh), CONFIG)
    assert_equal(whole, back)


def test_retention_keeps_the_newest_every_kth_and_those_that_are_named(tmp_path):
  for steps in (range(1, 6), range(6, 8)):  # the second time in another process
    store = checkpoints.Checkpoints(tmp_path, keep=2, keep_every=4)
    for s in steps:
      store.save(trained(s), CONFIG, {}, kept=[2])
      store.wait()
    store.close()
  assert checkpoints.list_steps(tmp_path / 'checkpoints') == [2, 4, 6, 7]


@pytest.mark.parametrize('damage', ['truncate', 'meta', 'params'])
def test_a_broken_newest_checkpoint_is_reported_and_the_one_before_is_used(
  tmp_path, damage, caplog
):
  saved(tmp_path, [1, 2])
  newest = tmp_path / 'checkpoints' / '2'
  if damage == 'truncate':
    for path in (newest / 'opt').rglob('*'):
      if path.is_file():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  elif damage == 'meta':
    next(p for p in (newest / 'meta').iterdir() if p.is_file()).write_text('{')
  else:
    for path in (newest / 'params').rglob('d/*'):
      path.unlink()
  store = checkpoints.Checkpoints(tmp_path)
  back, meta = store.restore(abstract(), CONFIG)
  assert meta['step'] == 1
  assert 'is broken and is set aside' in caplog.text
  assert (tmp_path / 'checkpoints' / 'broken-2').is_dir()
  store.save(trained(2, back), CONFIG, {})
  store.close()
  assert checkpoints.list_steps(tmp_path / 'checkpoints') == [1, 2]


def test_when_all_are_broken_nothing_is_touched_and_nothing_restarts(tmp_path):
  saved(tmp_path, [1, 2])
  for path in (tmp_path / 'checkpoints').glob('*/meta/*'):
    path.write_text('nonsense')
  before = sorted(p.name for p in (tmp_path / 'checkpoints').iterdir())
  with pytest.raises(checkpoints.CheckpointError, match='none of the 2 checkpoints can be read'):
    checkpoints.Checkpoints(tmp_path).restore(abstract(), CONFIG)
  assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == before


def test_a_run_of_other_networks_is_refused(tmp_path):
  saved(tmp_path, [1])
  other = CONFIG.copy_and_resolve_references()
  other.model.width = 16
  with pytest.raises(checkpoints.CheckpointError, match=r'model.width: 8 -> 16'):
    checkpoints.Checkpoints(tmp_path).restore(abstract(), other)
  faster = CONFIG.copy_and_resolve_references()
  faster.optimizers.generator.learning_rate = 1.0
  assert checkpoints.Checkpoints(tmp_path).restore(abstract(), faster) is not None


@pytest.mark.parametrize(
  ('name', 'field', 'value', 'line'),
  [
    ('adam', 'clip_norm', 1.0, r'optimizers\.generator\.clip_norm: 0\.0 -> 1\.0'),
    (
      'adam',
      'schedule',
      'cosine_decay',
      r"optimizers\.generator\.schedule: 'constant' -> 'cosine_decay'",
    ),
    ('sgd', 'momentum', 0.9, r'optimizers\.generator\.momentum: \(none\) -> 0\.9'),
  ],
)
def test_an_optimizer_of_another_structure_is_refused_before_anything_is_read(
  tmp_path, monkeypatch, name, field, value, line
):
  def config_and_optimizers(**changed):
    config = CONFIG.copy_and_resolve_references()
    entry = dict(
      name=name, learning_rate=1e-2, schedule='constant', schedule_args={}, clip_norm=0.0
    )
    config.optimizers = dict(generator={**entry, **changed}, critic=entry)
    return config, optimizers.make_optimizers(config.optimizers, ('generator', 'critic'))

  config, txs = config_and_optimizers()
  store = checkpoints.Checkpoints(tmp_path)
  store.save(create(jax.random.key(0), txs).replace(step=jax.numpy.int32(1)), config, {})
  store.close()
  changed = {field: value, 'learning_rate': 1.0}
  if field == 'schedule':
    changed['schedule_args'] = dict(decay_steps=10)
  new, new_txs = config_and_optimizers(**changed)
  monkeypatch.setattr(checkpoints, '_read_state', None)
  with pytest.raises(checkpoints.CheckpointError, match=line) as error:
    checkpoints.Checkpoints(tmp_path).restore(abstract(txs=new_txs), new)
  assert error.value.exit_code == 78
  message = str(error.value)
  assert 'learning_rate' not in message, 'that alone would have been fine'
  assert 'other optimizers (generator)' in message and 'Put these fields back' in message
  assert f'--config.init_from={tmp_path}' in message
  assert checkpoints.list_steps(tmp_path / 'checkpoints') == [1], 'nothing is set aside'


def test_a_state_of_another_structure_without_a_reason_names_the_versions(tmp_path):
  saved(tmp_path, [1])
  txs = {**TXS, 'critic': optax.adamw(1e-2, nesterov=True, mask=None), 'generator': optax.sgd(1.0)}
  with pytest.raises(
    checkpoints.CheckpointError, match=r'no field of the config says why'
  ) as error:
    checkpoints.Checkpoints(tmp_path).restore(abstract(txs=txs), CONFIG)
  assert f'with jax {jax.__version__} wrote it' in str(error.value)


def test_a_checkpoint_from_before_a_field_is_resumed_and_one_of_a_newer_version_is_not(
  tmp_path, monkeypatch
):
  saved(tmp_path, [1])
  fields = ConfigDict(
    dict(
      version=migrations.VERSION, system='toy', model=dict(width=8, twist=0.0), loss=dict(l3=0.0)
    )
  )
  monkeypatch.setattr(
    systems, 'default_config', lambda system: fields.copy_and_resolve_references()
  )
  new = CONFIG.copy_and_resolve_references()
  with new.unlocked():
    new.model.twist = 0.0
  _, meta = checkpoints.Checkpoints(tmp_path).restore(abstract(), new)
  assert meta['config']['version'] == migrations.VERSION and meta['config']['loss'] == {'l3': 0.0}
  new.model.twist = 1.0
  with pytest.raises(checkpoints.CheckpointError, match=r'model\.twist: 0\.0 -> 1\.0'):
    checkpoints.Checkpoints(tmp_path).restore(abstract(), new)
  monkeypatch.setattr(migrations, 'VERSION', -1)
  with pytest.raises(checkpoints.CheckpointError, match=r'is of version 0.*update jaxinpaint'):
    checkpoints.Checkpoints(tmp_path).restore(abstract(), new)
  assert checkpoints.list_steps(tmp_path / 'checkpoints') == [1]


def test_an_empty_workdir_has_nothing_to_restore(tmp_path):
  assert checkpoints.Checkpoints(tmp_path).restore(abstract(), CONFIG) is None
  with pytest.raises(MissingWeights, match='holds no checkpoint'):
    reading.find(tmp_path)


def test_weights_for_a_new_run_are_the_averages(tmp_path):
  saved(tmp_path, [2])
  params, stats = reading.read(reading.find(tmp_path))
  want = trained(2)
  assert_equal(params, {**want.params, **want.ema})
  assert_equal(stats, want.stats)
  assert sorted(params) == ['critic', 'generator']
