"""Locks between programs: another process holds, dies, or is in the way."""

import fcntl
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from jaxinpaint.runtime import locks

HOLDER = """
import pathlib, sys, time
from jaxinpaint.runtime import locks
with locks.hold(pathlib.Path(sys.argv[1]), '--workdir w'):
  print('held', flush=True)
  sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
  process = subprocess.Popen(
    [sys.executable, '-c', HOLDER, str(tmp_path / '.lock')],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(locks.__file__).parents[2],
  )
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()


def test_a_folder_in_use_is_said_with_who_uses_it(tmp_path, holder):
  with pytest.raises(locks.InUse, match=f'--output o is in use by process {holder.pid} on'):
    with locks.hold(tmp_path / '.lock', '--output o'):
      raise AssertionError('two held it')
  holder.communicate('\n')
  with locks.hold(tmp_path / '.lock', '--output o'):
    assert (tmp_path / '.lock').exists()
  assert list(tmp_path.iterdir()) == []


def test_a_patient_one_waits(tmp_path, holder, caplog):
  threading.Timer(1.5, holder.communicate, ['\n']).start()
  with locks.hold(tmp_path / '.lock', '--workdir w', patience=60):
    assert f'in use by process {holder.pid}' in caplog.text
  assert holder.wait() == 0


def test_a_lock_ends_with_its_process_even_if_killed(tmp_path, holder):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (tmp_path / '.lock').exists()
  with locks.hold(tmp_path / '.lock', '--output o'):
    pass
  assert list(tmp_path.iterdir()) == []


def test_an_error_inside_gives_the_lock_back(tmp_path):
  with pytest.raises(KeyError):
    with locks.hold(tmp_path / '.lock', 'it'):
      raise KeyError
  with locks.hold(tmp_path / '.lock', 'it'):
    pass


def test_file_systems_without_locks_are_said(tmp_path, monkeypatch, caplog):
  def refuse(file, flags):
    raise OSError(37, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', refuse)
  with locks.hold(tmp_path / '.lock', '--workdir w'):
    assert 'No locks available' in caplog.text and 'nothing else' in caplog.text
