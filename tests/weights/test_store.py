"""The library's own weight files."""

import json
import os
import pathlib
import shutil

import jax
import ml_collections
import numpy as np
import pytest

import jaxinpaint
from jaxinpaint.weights import store
from jaxinpaint.weights.store import StoreError

STORED = pathlib.Path(__file__).parent.parent / 'stored' / '0.1.0'
CONFIG = ml_collections.ConfigDict(
  {
    'system': 'toy',
    'dtype': 'float32',
    'model': {'widths': (4, 8), 'use_sfi': True},
    'loss': {'l1': 1.0},
    'data': {'source': 'not kept'},
  }
)


def _trees():
  rng = np.random.default_rng(0)
  params = {
    'generator': {'conv': {'kernel': rng.standard_normal((3, 3, 2, 4)).astype(np.float32)}},
    'discriminator': {'conv': {'bias': np.arange(4, dtype=np.float32)}},
  }
  stats = {'discriminator': {'spectral': {'conv': {'u': np.ones(4, np.float32)}}}}
  return params, stats


def _save(path, **options):
  return store.save(path, 'toy', CONFIG, *_trees(), **options)


@pytest.mark.parametrize('name', ['toy', 'toy.safetensors', 'deep/er/toy', 'v1.2'])
def test_round_trip(name, tmp_path):
  path = _save(tmp_path / name, source={'format': 'f'})
  assert path.suffix == '.safetensors'
  assert [p.name for p in path.parent.iterdir()] == [path.name]
  for given in (tmp_path / name, path, str(path)):
    stored = store.load(given)
  params, stats = _trees()
  assert jax.tree.structure(stored.params) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, stored.params, params)
  jax.tree.map(np.testing.assert_array_equal, stored.stats, stats)
  assert stored.system == stored.config.system == 'toy'
  assert stored.config.model.widths == (4, 8)
  assert isinstance(stored.config.model.widths, tuple)
  assert 'data' not in stored.config
  assert stored.meta['created_by'] == f'jaxinpaint {jaxinpaint.__version__}'
  assert stored.meta['source'] == {'format': 'f'}
  assert stored.meta['networks'] == {
    'generator': {'arrays': 1, 'parameters': 72},
    'discriminator': {'arrays': 2, 'parameters': 4},
  }


def test_non_contiguous_and_jax_arrays_are_saved(tmp_path):
  kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
  params = {'g': {'a': kernel, 'b': jax.numpy.ones(3)}}
  got = store.load(store.save(tmp_path / 'x', 'toy', CONFIG, params)).params['g']
  np.testing.assert_array_equal(got['a'], kernel)
  np.testing.assert_array_equal(got['b'], np.ones(3))


def test_float16_halves_the_file_and_comes_back_as_float32(tmp_path):
  params = {'g': {'a': np.linspace(-1, 1, 5000, dtype=np.float32), 'n': np.arange(3)}}
  whole = store.save(tmp_path / 'x', 'toy', CONFIG, params)
  half = store.save(tmp_path / 'y', 'toy', CONFIG, params, dtype='float16')
  assert half.stat().st_size < 0.6 * whole.stat().st_size
  got = store.load(half)
  assert got.params['g']['a'].dtype == np.float32 and got.params['g']['n'].dtype == np.int64
  # 11 significant bits, rounded to nearest
  np.testing.assert_allclose(got.params['g']['a'], params['g']['a'], rtol=2**-11, atol=1e-7)
  assert got.meta['stored_as'] == 'float16'


@pytest.mark.parametrize(
  ('dtype', 'value', 'why'),
  [
    ('float16', 1e6, 'params/g/a holds 1e.06, which float16 cannot: store float32'),
    ('float16', np.nan, 'params/g/a holds nan'),
    ('int8', 1.0, "dtype 'int8' must be one of: float32, float16"),
  ],
)
def test_what_a_type_cannot_hold_is_refused(dtype, value, why, tmp_path):
  with pytest.raises(StoreError, match=why):
    store.save(tmp_path / 'x', 'toy', CONFIG, {'g': {'a': np.full(2, value)}}, dtype=dtype)
  assert not list(tmp_path.iterdir())


def test_the_card_holds_what_is_known(tmp_path):
  path = _save(tmp_path / 'x', about={'licence': 'CC0', 'notes': ['a "ä"'], 'system': 'other'})
  meta = store.load(path).meta
  assert meta['licence'] == 'CC0' and meta['notes'] == ['a "ä"'] and meta['system'] == 'toy'


def test_existing_files_are_kept_unless_told(tmp_path):
  path = _save(tmp_path / 'x')
  before = path.read_bytes()
  with pytest.raises(FileExistsError, match='overwriting'):
    store.save(tmp_path / 'x', 'toy', CONFIG, {'g': {'a': np.zeros(1)}})
  assert path.read_bytes() == before
  (tmp_path / 'x.json').write_text('a file of the user')
  store.save(tmp_path / 'x', 'toy', CONFIG, {'g': {'a': np.zeros(1)}}, overwrite=True)
  assert list(store.load(path).params) == ['g'] and (tmp_path / 'x.json').exists()


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
  path = _save(tmp_path / 'x')

  def fail(*_):
    raise OSError('no space left')

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='no space'):
      store.save(path, 'toy', CONFIG, {'g': {'a': np.zeros(1)}}, overwrite=True)
  assert [p.name for p in tmp_path.iterdir()] == ['x.safetensors']
  assert sorted(store.load(path).params) == ['discriminator', 'generator']


def test_a_damaged_file_is_refused(tmp_path):
  path = _save(tmp_path / 'x', about={'licence': 'CC0'})
  data = path.read_bytes()
  for damaged in (data[:-1] + b'\x01', data[:-1], data.replace(b'CC0', b'CC1')):
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match=r'x\.safetensors is damaged: copy it'):
      store.load(path)


def test_a_file_of_a_later_version_is_refused(tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(store, 'FORMAT_VERSION', 3)
    path = _save(tmp_path / 'x')
  with pytest.raises(StoreError, match=r'version 3.*reads version 2: update'):
    store.load(path)


def test_missing_files(tmp_path, pair):
  with pytest.raises(FileNotFoundError, match=r'y\.safetensors: no such file'):
    store.load(tmp_path / 'y')
  pair.with_suffix('.json').unlink()
  with pytest.raises(StoreError, match=r'no x\.json beside it.*jaxinpaint weights import'):
    store.load(pair)


@pytest.fixture
def pair(tmp_path):
  """Weights of format version 1: two files."""
  for ending in ('.safetensors', '.json'):
    shutil.copy(STORED / f'weights{ending}', tmp_path / f'x{ending}')
  return tmp_path / 'x.safetensors'


def test_a_pair_of_version_1_is_read_and_replaced_as_one(pair):
  for given in (pair, pair.with_suffix('.json'), pair.with_suffix('')):
    stored = store.load(given)
  assert stored.system == 'aotgan' and stored.meta['format_version'] == 1
  with pytest.raises(FileExistsError):
    _save(pair)
  _save(pair, overwrite=True)
  assert [p.name for p in pair.parent.iterdir()] == ['x.safetensors']
  assert store.load(pair).system == 'toy'


@pytest.mark.parametrize(
  ('change', 'why'),
  [
    ({'format_version': 2}, r'x\.json is of format version 2.*reads version 2: update'),
    ({'system': None}, r"lacks \['system'\]"),
    ({'weights': None}, r"lacks \['weights'\]"),
    ({'format_version': None}, 'not a description'),
  ],
)
def test_other_descriptions_are_refused(change, why, pair):
  sidecar = pair.with_suffix('.json')
  meta = json.loads(sidecar.read_text()) | change
  sidecar.write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))
  with pytest.raises(StoreError, match=why):
    store.load(pair)


@pytest.mark.parametrize('text', ['', '{', '[]', '3'])
def test_a_damaged_description_is_refused(text, pair):
  pair.with_suffix('.json').write_text(text)
  with pytest.raises(StoreError, match='not a description'):
    store.load(pair)


def test_files_that_do_not_belong_together_are_refused(pair):
  pair.write_bytes(pair.read_bytes()[:-1] + b'\x01')
  with pytest.raises(StoreError, match=r'is not the file that x\.json describes.*damaged'):
    store.load(pair)


def test_names_and_nothing(tmp_path):
  with pytest.raises(StoreError, match="'a/b' below params/g holds a '/'"):
    store.save(tmp_path / 'x', 'toy', CONFIG, {'g': {'a/b': np.zeros(1)}})
  with pytest.raises(StoreError, match='no parameters'):
    store.save(tmp_path / 'x', 'toy', CONFIG, {})
  assert not list(tmp_path.iterdir())
