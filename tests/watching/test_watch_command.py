"""`jaxinpaint watch`: its flags, its file, and how it goes along with a training."""

import contextlib
import importlib.util
import subprocess
import sys
import threading
import urllib.request

import jax
import pytest
import workdirs

from jaxinpaint.cli import train, watch


@pytest.fixture
def folder(tmp_path):
  return workdirs.workdir(tmp_path / 'run')


def refused(capsys, *flags):
  with pytest.raises(SystemExit) as caught:
    watch.main([str(flag) for flag in flags])
  assert caught.value.code == 2
  return capsys.readouterr().err


def test_mistakes_are_told(folder, tmp_path, capsys, monkeypatch):
  file = folder / 'metrics.jsonl'
  assert 'is a file' in refused(capsys, file)
  assert 'WORKDIR' in refused(capsys)
  assert 'is a folder' in refused(capsys, folder, '--save', tmp_path)
  assert 'does not exist' in refused(capsys, folder, '--save', tmp_path / 'no' / 'x.html')
  assert 'no training run' in refused(capsys, tmp_path / 'none', '--save', tmp_path / 'x.html')
  assert '--save' in refused(capsys, folder, '--sav', 'x')
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, 'find_spec', lambda n: None if n == 'starlette' else find(n))
  assert "pip install 'jaxinpaint[serve]', or write a file" in refused(capsys, folder)
  assert watch.main([str(folder), '--save', str(tmp_path / 'x.html')]) == 0, 'without the extra'


def test_a_port_that_is_taken(folder, capsys):
  from jaxinpaint.web import http

  with http.listen('127.0.0.1', 0) as taken:
    port = taken.getsockname()[1]
    assert watch.main([str(folder), f'--port={port}']) == 1
  assert 'give another --port' in capsys.readouterr().err


def test_the_file_is_written(folder, tmp_path, capsys):
  file = tmp_path / 'run.html'
  assert watch.main([str(folder), '--save', str(file)]) == 0
  assert capsys.readouterr().out.startswith(str(file)) and 'id="saved"' in file.read_text()


def test_the_page_starts_without_jax():
  code = 'import sys; from jaxinpaint.cli import watch; from jaxinpaint.watching import app; '
  code += 'from jaxinpaint.web import http; print("jax" in sys.modules)'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == 'False'


def test_beside_a_training_it_ends_with_it(folder, monkeypatch):
  processes = []
  start = subprocess.Popen
  monkeypatch.setattr(
    subprocess, 'Popen', lambda *a, **k: processes.append(start(*a, **k)) or processes[-1]
  )
  told, addresses = threading.Event(), []
  tell = lambda address: (addresses.append(address), told.set())
  with watch.beside(folder, 0, tell):
    assert told.wait(120)
    with urllib.request.urlopen(addresses[0] + 'api/v1/runs', timeout=60) as answer:
      assert b'"name": "run"' in answer.read()
    assert processes[0].poll() is None
  assert processes[0].wait(60) == 0


def test_a_training_says_how_to_watch_it(monkeypatch, caplog, tmp_path):
  caplog.set_level('INFO')
  with train._watched('my runs/a', None):
    pass
  assert caplog.messages == ["Watch it: jaxinpaint watch 'my runs/a'"]
  asked = []
  monkeypatch.setattr(
    watch, 'beside', lambda *given: asked.append(given) or contextlib.nullcontext()
  )
  with train._watched('a', 8200):
    asked[0][2]('http://127.0.0.1:8200/')
  assert asked[0][:2] == ('a', 8200) and caplog.messages[1:] == ['Watch it: http://127.0.0.1:8200/']
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with train._watched('a', 8200):
    assert len(asked) == 1 and len(caplog.messages) == 2


def test_a_training_with_a_page_needs_the_extra(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(SystemExit):
    train.main(['--config', 'quickstart', '--watch'])
  assert '--watch: starlette, uvicorn is not installed: pip install' in capsys.readouterr().err
