"""Where compiled programs are kept, and what becomes of half-written ones."""

import os
import pathlib
import zlib

import jax
import pytest

from jaxinpaint.runtime import compilation_cache

NAME = 'JAX_COMPILATION_CACHE_DIR'


def test_it_is_on_beside_the_workdir_unless_the_environment_says_otherwise():
  choose = lambda *arguments: compilation_cache.choose(pathlib.Path('/runs/a'), *arguments)[0]
  assert choose({}, None, 'cpu', 1) == '/runs/compilation_cache'
  assert choose({NAME: '/fast'}, '/fast', 'cpu', 1) == '/fast'
  assert choose({NAME: ''}, '', 'gpu', 1) is None
  # Set in the program, as the tests do.
  assert choose({}, '/mine', 'gpu', 1) == '/mine'


def test_several_processes_share_it_on_accelerators_only():
  choose = lambda *arguments: compilation_cache.choose(pathlib.Path('/runs/a'), *arguments)[0]
  assert choose({}, None, 'tpu', 4) == choose({}, None, 'gpu', 2)
  assert choose({}, None, 'gpu', 2) == '/runs/compilation_cache'
  assert choose({}, None, 'cpu', 2) is None
  assert choose({NAME: '/fast'}, '/fast', 'cpu', 2) == '/fast'


@pytest.fixture
def settings(monkeypatch):
  """jax as a user has it, without a cache; the suite's again afterwards."""
  before = jax.config.jax_compilation_cache_dir
  monkeypatch.delenv(NAME, raising=False)
  jax.config.update('jax_compilation_cache_dir', None)
  yield
  jax.config.update('jax_compilation_cache_dir', before)
  compilation_cache.compilation_cache.reset_cache()


def test_a_program_is_found_by_the_next_start(tmp_path, settings, monkeypatch):
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  hits = []
  listen = lambda name, **_: hits.append(name) if 'cache_hits' in name else None
  jax.monitoring.register_event_listener(listen)
  try:
    folder = compilation_cache.use(tmp_path / 'run')
    assert folder == str(tmp_path / 'compilation_cache')
    make = lambda: jax.jit(lambda x: (x * 3.25).sum())
    make()(jax.numpy.ones(7)).block_until_ready()
    written = list((tmp_path / 'compilation_cache').glob('*-cache'))
    assert written and not hits
    compilation_cache.use(tmp_path / 'run')
    jax.clear_caches()
    make()(jax.numpy.ones(7)).block_until_ready()
    assert hits and list((tmp_path / 'compilation_cache').glob('*-cache')) == written
  finally:
    jax.monitoring.unregister_event_listener(listen)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', seconds)


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, settings, monkeypatch, caplog):
  (tmp_path / 'compilation_cache').write_text('a file')
  assert compilation_cache.use(tmp_path / 'run') is None
  assert jax.config.jax_compilation_cache_dir is None
  assert 'cannot be written' in caplog.text
  monkeypatch.setattr(os, 'access', lambda *_: False)  # root may write anywhere
  assert compilation_cache.use(tmp_path / 'elsewhere' / 'run') is None
  assert not (tmp_path / 'elsewhere').exists()


def test_a_folder_that_others_can_fill_is_not_trusted(tmp_path, settings, monkeypatch, caplog):
  folder = tmp_path / 'compilation_cache'
  folder.mkdir()
  folder.chmod(0o777)
  assert compilation_cache.use(tmp_path / 'run') is None
  folder.chmod(0o755)
  monkeypatch.setattr(os, 'getuid', lambda: 4321)
  assert compilation_cache.use(tmp_path / 'run') is None
  assert caplog.text.count('belongs to another user') == 2
  monkeypatch.undo()
  jax.config.update('jax_compilation_cache_dir', None)
  monkeypatch.delenv(NAME, raising=False)
  assert compilation_cache.use(tmp_path / 'run') == str(folder)
  monkeypatch.setattr(os, 'getuid', lambda: 4321)
  monkeypatch.setenv(NAME, str(folder))  # by name it is
  assert compilation_cache.use(tmp_path / 'run') == str(folder)


def test_half_written_programs_are_deleted(tmp_path):
  whole = zlib.compress(bytes(range(256)) * 64)
  (tmp_path / 'a-cache').write_bytes(whole)
  (tmp_path / 'b-cache').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'c-cache').write_bytes(b'')
  (tmp_path / 'other').write_bytes(b'')
  assert sorted(compilation_cache.drop_damaged(tmp_path)) == ['b-cache', 'c-cache']
  assert sorted(p.name for p in tmp_path.iterdir()) == ['.checked', 'a-cache', 'other']


def test_programs_that_were_looked_at_are_not_read_again(tmp_path):
  entry = tmp_path / 'a-cache'
  entry.write_bytes(zlib.compress(b'program'))
  os.utime(entry, (1000, 1000))
  compilation_cache.drop_damaged(tmp_path)
  entry.write_bytes(b'')
  os.utime(entry, (1000, 1000))
  assert compilation_cache.drop_damaged(tmp_path) == []
  entry.touch()
  assert compilation_cache.drop_damaged(tmp_path) == ['a-cache']
