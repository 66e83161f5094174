"""Weights by name: the one resolver, and the files that come with the library."""

import csv
import pathlib
import shutil

import pytest

from jaxinpaint import systems, trained
from jaxinpaint.training import config as config_lib
from jaxinpaint.weights import names, store

LARGEST_MB = 12  # of all that ships, so that installing stays quick


@pytest.fixture
def package(tmp_path, monkeypatch):
  """A package that ships weights of a narrow MISF as its default; (folder, number in them)."""
  config = systems.default_config('misf').unlock()
  config.model.update(dict(width=4, blocks=1))
  import jax
  import numpy as np

  shapes = systems.inference(config).shapes()
  params, stats = jax.tree.map(lambda x: np.full(x.shape, 0.25, x.dtype), shapes)
  folder = tmp_path / 'package'
  store.save(folder / 'misf_small', 'misf', config, params, stats)
  monkeypatch.setattr(names, 'FOLDER', folder)
  monkeypatch.setattr(names, 'FILES', {'misf/small': 'misf_small.safetensors', 'misf/big': 'b.st'})
  monkeypatch.setattr(names, 'DEFAULT', 'misf/small')
  monkeypatch.chdir(tmp_path)
  return folder


def test_a_name_is_a_file_of_the_package(package):
  for given in ('misf/small', pathlib.Path('misf/small'), None):
    found = trained.load(given)
    assert found.path == package / 'misf_small.safetensors'
    assert found.name == found.origin == 'misf/small'
  assert names.name_of(pathlib.Path('x')) == ''


def test_a_path_comes_before_a_name_but_not_before_the_default(package, tmp_path):
  (tmp_path / 'misf' / 'small').mkdir(parents=True)
  assert names.find('misf/small') == pathlib.Path('misf/small')
  assert names.find(None) == package / 'misf_small.safetensors'


def test_any_other_path_stays_as_it_is(package, monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  assert names.find('~/x@3') == pathlib.Path('/home/me/x@3')


@pytest.mark.parametrize(
  ('path', 'why'),
  [
    ('misf/smal', r'no weights at misf/smal .*come with the library: misf/small, misf/big$'),
    ('misf/big', r'misf/big are not in this installation .*install jaxinpaint again, or give'),
    ('misf/small@3', 'step 3 was given, but .* is a weights file'),
  ],
)
def test_a_name_that_cannot_be_loaded(package, path, why):
  with pytest.raises(store.StoreError, match=why):
    trained.load(path)


def test_a_run_may_start_from_a_name(package):
  import jax

  from jaxinpaint.training import initial
  from jaxinpaint.training.state import TrainState

  config = config_lib.base('misf').unlock()
  config.model.update(dict(width=4, blocks=1))
  config.init_from = 'misf/small'
  config_lib.validate(config)
  recipe = systems.make_recipe(config)
  zeros = lambda tree: jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), tree)
  shapes = recipe.shapes()
  state = TrainState(jax.numpy.int32(0), zeros(shapes.params), zeros(shapes.stats), {}, {})
  started = initial.load(config.init_from, state, recipe).params
  assert {float(x.max()) for x in jax.tree.leaves(started['generator'])} == {0.25}
  assert {float(x.max()) for x in jax.tree.leaves(started['discriminator'])} == {0.0}
  config.init_from = 'misf/none'
  with pytest.raises(ValueError, match=r'init_from .*does not exist.*misf/small, misf/big'):
    config_lib.validate(config)
  config.init_from = 'misf/big'
  with pytest.raises(ValueError, match='misf/big are not in this installation'):
    config_lib.validate(config)


def test_what_ships_is_small_and_says_where_it_comes_from():
  files = list(names.FOLDER.iterdir())
  assert sum(f.stat().st_size for f in files) <= LARGEST_MB * 1e6
  assert {f.name for f in files if f.suffix == '.safetensors'} <= set(names.FILES.values())
  assert 'CC BY-SA 4.0' in (names.FOLDER / 'LICENCE.md').read_text()
  with open(names.FOLDER / 'SOURCES.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 515 and all(row['licence'] and row['path'] for row in rows)


@pytest.mark.parametrize('name', names.FILES)
def test_what_ships_loads_with_todays_code(name, tmp_path):
  file = names.FOLDER / names.FILES[name]
  assert trained.load(name).config.system == name.split('/')[0]
  trained.load(shutil.copy(file, tmp_path))  # another path: here it is checked against the networks
  meta = store.load(file).meta
  assert meta['licence'] and meta['notes'] and meta['results']['means']
