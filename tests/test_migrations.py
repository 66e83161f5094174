"""Stored configs are brought to today's fields."""

import json

import pytest
from ml_collections import ConfigDict

from jaxinpaint import migrations, systems
from jaxinpaint.migrations import Migration, migrate
from jaxinpaint.training import config as config_lib

TODAY = dict(
  version=3,
  system='toy',
  dtype='float32',
  model=dict(width=8, rates=(1, 2), mesh=dict(data=1, fsdp=1)),
  loss=dict(l1=1.0),
)


@pytest.fixture
def history(monkeypatch):
  """Sets the migrations; the last version is that of TODAY."""

  def set_to(*changes):
    monkeypatch.setattr(migrations, 'MIGRATIONS', changes)
    monkeypatch.setattr(migrations, 'VERSION', TODAY['version'])

  set_to()
  return set_to


def defaults(system):
  return ConfigDict(TODAY)


def stored(**sections):
  return {'system': 'toy', 'dtype': 'float32', 'model': {'width': 4}, 'loss': {}, **sections}


def test_a_field_that_is_missing_takes_its_default(history):
  found = migrate(stored(model={'width': 4, 'mesh': {'data': 2}}), defaults)
  assert found.to_dict() == {
    **TODAY,
    'model': dict(width=4, rates=(1, 2), mesh=dict(data=2, fsdp=1)),
  }


def test_a_missing_section_is_the_default_one_and_a_foreign_section_is_left_alone(history):
  config = stored(data={'size': 64}, optimizers={'generator': {'name': 'adam'}})
  del config['loss']
  found = migrate(config, defaults)
  assert found.loss == ConfigDict(TODAY['loss'])
  assert found.data.size == 64 and found.optimizers.generator.name == 'adam'


def test_the_stored_config_itself_does_not_change(history):
  history(Migration(1, migrations.rename('model.width', 'model.rates')))
  config = stored()
  before = json.dumps(config)
  migrate(config, defaults)
  assert json.dumps(config) == before


def test_lists_become_tuples(history):
  found = migrate(json.loads(json.dumps(TODAY)), defaults)
  assert found.model.rates == (1, 2) and found.to_dict() == TODAY


def test_only_later_migrations_run_in_order_and_for_their_system(history):
  log = []
  history(
    *(Migration(v, lambda c, v=v: log.append(v)) for v in (1, 2, 3)),
    Migration(3, lambda c: log.append('toy'), system='toy'),
    Migration(3, lambda c: log.append('other'), system='other'),
  )
  migrate(stored(version=1), defaults)
  assert log == [2, 3, 'toy']
  migrate(stored(), defaults)
  assert log[3:] == [1, 2, 3, 'toy'], 'a config without a version is of version 0'


def test_a_field_whose_default_changes_older_runs_gets_the_value_that_means_as_it_was(history):
  change = migrations.set_default('model.rates', lambda config: (config['model']['width'],))
  history(Migration(2, change))
  assert migrate(stored(), defaults).model.rates == (4,)
  assert migrate(stored(version=2), defaults).model.rates == (1, 2)
  assert migrate(stored(model={'width': 4, 'rates': [7]}), defaults).model.rates == (7,)


def test_a_renamed_field_keeps_its_value(history):
  history(Migration(3, migrations.rename('model.channels', 'model.width')))
  assert migrate(stored(model={'channels': 4}), defaults).model.width == 4
  history(Migration(3, migrations.rename('old.l1', 'loss.l1')))
  found = migrate(stored(old={'l1': 0.5}), defaults)
  assert found.loss.l1 == 0.5


def test_a_removed_field_is_dropped_where_unused_and_refused_where_used(history):
  history(Migration(3, migrations.remove('loss.twist', 0.0, 'use jaxinpaint 0.2 for such runs')))
  assert migrate(stored(loss={'twist': 0.0}), defaults).loss == ConfigDict(TODAY['loss'])
  assert migrate(stored(), defaults).loss == ConfigDict(TODAY['loss'])
  with pytest.raises(migrations.ConfigVersionError, match=r'loss\.twist=0\.5.*0\.2 for such runs'):
    migrate(stored(loss={'twist': 0.5}), defaults)


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (stored(version=4), r'version 4; .* versions up to 3: update jaxinpaint'),
    (stored(version='1'), r"config.version '1' must be an integer"),
    (stored(loss={'l9': 2.0}), r'loss\.l9=2\.0, which .* does not know \(config\.loss has: l1\)'),
    (stored(model={'mesh': {'x': 1}}), r'model\.mesh\.x=1, which'),
    (stored(loss=3), r'loss=3, which must be a section'),
  ],
)
def test_what_cannot_be_brought_to_today_is_refused_in_a_sentence(history, config, message):
  with pytest.raises(migrations.ConfigVersionError, match=message):
    migrate(config, defaults)


def test_versions_only_grow():
  versions = [m.version for m in migrations.MIGRATIONS]
  assert versions == sorted(versions) and max(versions) <= migrations.VERSION
  known = {'', *systems.list_systems()}
  assert all(m.system in known for m in migrations.MIGRATIONS)


@pytest.mark.parametrize('system', systems.list_systems())
def test_a_config_of_today_stays_as_it_is(system):
  config = config_lib.base(system)
  assert config.version == migrations.VERSION
  found = migrate(json.loads(config.to_json_best_effort()), config_lib.base)
  assert found.to_dict() == config.to_dict()


def test_critics_from_before_their_own_size_were_of_the_structures_size():
  config = systems.default_config('lfr')
  del config.version, config.model.critic_size
  config.model.size = 128
  assert migrate(config, systems.default_config).model.critic_size == 128


def test_lfr_of_before_keeps_its_attention_keys_and_its_stand_in():
  config = systems.default_config('lfr')
  assert (config.model.attention_keys, config.model.stand_in) == ('known', False)
  for file, stand_in in (('', True), ('stylegan2.pt', False)):
    old = config.copy_and_resolve_references()
    del old.model.attention_keys, old.model.stand_in
    old.version, old.model.stylegan_file = 1, file
    model = migrate(old, systems.default_config).model
    assert (model.attention_keys, model.stand_in) == ('clear', stand_in)


def test_a_config_of_another_version_does_not_train():
  config = config_lib.base('mesff')
  config.version = 0
  with pytest.raises(ValueError, match=r'config.version 0 must be'):
    config_lib.validate(config)
