"""Traced programs that are kept between starts."""

import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.runtime import traces

ARGUMENTS = {'w': np.float32([[2, 0], [0, 3]])}, np.float32([[1, 4], [5, 6]])
WANTED = np.float32([[5, 12], [10, 21]])
BESIDE = traces.beside  # for each test another one stands in its place


@pytest.fixture
def start(tmp_path):
  """(identity, factor, folder) -> a function as a process finds it; `start.traced` counts."""

  def start(identity='a', factor=1, folder=tmp_path):
    def function(tree, x):
      start.traced += 1
      return {'y': factor * (x @ tree['w'] + 3 * jnp.eye(2))}

    return traces.Kept(jax.jit(function), folder, identity)

  start.traced = 0
  return start


def y(function, arguments=ARGUMENTS):
  return np.asarray(function(*arguments)['y'])


def test_a_second_start_traces_nothing(start):
  first, second = start(), start(factor=7)
  np.testing.assert_array_equal(y(first), WANTED)
  np.testing.assert_array_equal(y(first), WANTED)
  np.testing.assert_array_equal(y(second), WANTED)  # the stored program, not its own
  assert start.traced == 1


def test_what_a_trace_is_made_of_makes_another(start, monkeypatch):
  y(start())
  np.testing.assert_array_equal(y(start(identity='b', factor=2)), 2 * WANTED)
  np.testing.assert_array_equal(y(start(), (ARGUMENTS[0], ARGUMENTS[1].astype(np.int8))), WANTED)
  monkeypatch.setattr(traces, '_surroundings', lambda: 'another version')
  np.testing.assert_array_equal(y(start(factor=3)), 3 * WANTED)
  assert start.traced == 4


def test_the_surroundings_hold_versions_settings_and_the_library(monkeypatch):
  found = traces._surroundings()
  assert jax.__version__ in found and traces._source() in found
  monkeypatch.setattr(traces, '_source', lambda: 'changed')
  changed = traces._surroundings()
  with jax.default_matmul_precision('float32'):
    assert len({found, changed, traces._surroundings()}) == 3


def test_a_changed_source_file_is_seen(tmp_path, monkeypatch):
  monkeypatch.setattr(traces, '_PACKAGE', tmp_path)
  file = tmp_path / 'room' / 'module.py'
  file.parent.mkdir()
  file.write_text('a = 1')
  first = traces._source.__wrapped__()
  os.utime(file, ns=(1, 1))
  second = traces._source.__wrapped__()
  file.write_text('a = 11')
  os.utime(file, ns=(1, 1))
  assert len({first, second, traces._source.__wrapped__()}) == 3


def test_a_damaged_program_is_made_again(start, tmp_path, caplog):
  y(start())
  [path] = tmp_path.iterdir()
  for content in (path.read_bytes()[:-1], b'', b'\0' + path.read_bytes()[1:]):
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
      np.testing.assert_array_equal(y(start()), WANTED)
    assert 'is damaged, and is made again' in caplog.text
    caplog.clear()
    y(start())
  assert start.traced == 4 and not caplog.text


def test_a_folder_that_cannot_be_written_or_read_gets_a_warning(start, tmp_path, caplog):
  (tmp_path / 'file').write_text('no folder')
  with caplog.at_level(logging.WARNING):
    np.testing.assert_array_equal(y(start(folder=tmp_path / 'file' / 'in')), WANTED)
  assert 'cannot be read' in caplog.text and 'is not kept' in caplog.text


def test_arguments_on_several_devices_keep_nothing(start, tmp_path):
  mesh = jax.make_mesh((2,), ('batch',), axis_types=(jax.sharding.AxisType.Auto,))
  split = jax.sharding.NamedSharding(mesh, jax.P('batch'))
  np.testing.assert_array_equal(y(start(), jax.device_put(ARGUMENTS, split)), WANTED)
  assert not list(tmp_path.iterdir())
  one = jax.device_put(ARGUMENTS, jax.devices()[1])
  found = start()(*one)['y']
  assert found.devices() == {jax.devices()[1]} and list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('programs', 'want'), [('/a/b', '/a/b'), (None, None), ('gs://bucket/a', None)]
)
def test_traces_lie_on_a_disk(programs, want):
  assert BESIDE(programs) == want
