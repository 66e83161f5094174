"""The library's own weight files."""

import json
import os

import jax
import ml_collections
import numpy as np
import pytest

import jaxinpaint
from jaxinpaint.weights import store
from jaxinpaint.weights.store import StoreError

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
  for given in (tmp_path / name, path, str(path), path.with_suffix('.json')):
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


def test_existing_files_are_kept_unless_told(tmp_path):
  path = _save(tmp_path / 'x')
  before = path.read_bytes()
  with pytest.raises(FileExistsError, match='overwriting'):
    store.save(tmp_path / 'x', 'toy', CONFIG, {'g': {'a': np.zeros(1)}})
  assert path.read_bytes() == before
  path.unlink()
  with pytest.raises(FileExistsError, match=r'x\.json'):  # the JSON alone is kept, too
    store.save(tmp_path / 'x', 'toy', CONFIG, {'g': {'a': np.zeros(1)}})
  assert not path.exists()
  store.save(tmp_path / 'x', 'toy', CONFIG, {'g': {'a': np.zeros(1)}}, overwrite=True)
  assert list(store.load(path).params) == ['g']


def test_a_failed_write_leaves_the_old_files_and_no_rubbish(tmp_path, monkeypatch):
  path = _save(tmp_path / 'x')

  def fail(*_):
    raise OSError('no space left')

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='no space'):
      store.save(path, 'toy', CONFIG, {'g': {'a': np.zeros(1)}}, overwrite=True)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['x.json', 'x.safetensors']
  assert sorted(store.load(path).params) == ['discriminator', 'generator']


def test_missing_files(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'x\.safetensors: no such file'):
    store.load(tmp_path / 'x')
  path = _save(tmp_path / 'x')
  path.with_suffix('.json').unlink()
  with pytest.raises(StoreError, match=r'no x\.json beside it.*jaxinpaint\.weights import'):
    store.load(path)


@pytest.mark.parametrize(
  ('change', 'why'),
  [
    ({'format_version': 2}, r'version 2.*reads version 1: update'),
    ({'system': None}, r"lacks \['system'\]"),
    ({'format_version': None}, 'not a description'),
  ],
)
def test_other_descriptions_are_refused(change, why, tmp_path):
  path = _save(tmp_path / 'x')
  sidecar = path.with_suffix('.json')
  meta = json.loads(sidecar.read_text()) | change
  sidecar.write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))
  with pytest.raises(StoreError, match=why):
    store.load(path)


@pytest.mark.parametrize('text', ['', '{', '[]', '3'])
def test_a_damaged_description_is_refused(text, tmp_path):
  path = _save(tmp_path / 'x')
  path.with_suffix('.json').write_text(text)
  with pytest.raises(StoreError, match='not a description'):
    store.load(path)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
  path = _save(tmp_path / 'x')
  other = store.save(tmp_path / 'y', 'toy', CONFIG, {'g': {'a': np.zeros(1)}})
  path.write_bytes(other.read_bytes())
  with pytest.raises(StoreError, match=r'is not the file that x\.json describes'):
    store.load(path)
  data = other.read_bytes()
  other.write_bytes(data[:-1] + b'\x01')
  with pytest.raises(StoreError, match='damaged'):
    store.load(other)


def test_names_and_nothing(tmp_path):
  with pytest.raises(StoreError, match="'a/b' below params/g holds a '/'"):
    store.save(tmp_path / 'x', 'toy', CONFIG, {'g': {'a/b': np.zeros(1)}})
  with pytest.raises(StoreError, match='no parameters'):
    store.save(tmp_path / 'x', 'toy', CONFIG, {})
  assert not list(tmp_path.iterdir())
