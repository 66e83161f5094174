"""`jaxinpaint new-system`: what it writes is clean, runs, and says what is left to do."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from jaxinpaint.cli import new_system

ROOT = pathlib.Path(__file__).parents[2]


def test_what_it_writes_runs_and_fails_until_it_is_filled_in(tmp_path):
  keep = shutil.ignore_patterns('__pycache__')
  for folder in ('jaxinpaint', 'configs'):
    shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=keep)
  (tmp_path / 'tests' / 'systems').mkdir(parents=True)
  shutil.copy(ROOT / 'pyproject.toml', tmp_path)
  written = new_system.write('toynet', tmp_path)
  assert {p.name for p in written} == {
    '__init__.py', 'networks.py', 'recipe.py', 'published.py', 'places2_toynet.py',
    'test_toynet_networks.py',
  }  # fmt: skip
  run = lambda *words: subprocess.run(
    [sys.executable, *words],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
  )
  files = [str(p) for p in written]
  for check in (['check', '--no-cache'], ['format', '--check', '--no-cache']):
    done = run('-m', 'ruff', *check, *files)
    assert done.returncode == 0, done.stdout
  quicktest = """
from jaxinpaint import systems
from jaxinpaint.configs import places2_toynet
from jaxinpaint.training import config
config.validate(places2_toynet.get_config('quicktest'))
assert 'toynet' in systems.list_systems()
"""
  done = run('-c', quicktest)
  assert done.returncode == 0, done.stderr
  tests = [p for p in files if p.startswith('tests')]
  done = run('-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-o', 'addopts=', *tests)
  assert done.returncode == 1, done.stdout + done.stderr
  failed = set(re.findall(r'^FAILED \S+::(\S+)', done.stdout, re.M))
  unfilled = {f'test_nothing_is_left_to_fill_in[{p.name}]' for p in written if p.suffix == '.py'}
  unfilled -= {
    f'test_nothing_is_left_to_fill_in[{n}]' for n in ('test_toynet_networks.py', '__init__.py')
  }
  assert failed == unfilled | {'test_parameter_counts_are_the_published_ones'}, done.stdout
  assert 'networks.py: fill in what says TODO in the lines' in done.stdout


@pytest.mark.parametrize('name', ['Net', '2net', 'a-b', 'class', '', '../net'])
def test_a_name_that_cannot_be_one_is_refused(name):
  with pytest.raises(ValueError, match='must be a name in small letters'):
    new_system.write(name, ROOT)


def test_nothing_is_overwritten(capsys, monkeypatch):
  monkeypatch.chdir(ROOT / 'tests')
  assert new_system.main(['misf']) == 1
  error = capsys.readouterr().err
  assert error.startswith('jaxinpaint new-system: ')
  assert 'misf/__init__.py is there already' in error


def test_it_writes_into_the_clone_that_one_is_in(tmp_path, monkeypatch, capsys):
  for folder in ('jaxinpaint/systems', 'configs', 'tests/systems', 'docs'):
    (tmp_path / folder).mkdir(parents=True)
  monkeypatch.chdir(tmp_path / 'docs')
  assert new_system.main(['toynet']) == 0
  there = [p.relative_to(tmp_path) for p in tmp_path.rglob('*') if p.is_file()]
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == f'in {tmp_path}'
  assert sorted(lines[1:-1]) == sorted(f'written: {path}' for path in there)


def test_outside_of_a_clone_nothing_is_written(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert new_system.main(['toynet']) == 1
  error = capsys.readouterr().err
  assert f'{tmp_path} is in no clone' in error and 'cd into your clone' in error
  assert not list(tmp_path.iterdir())
  assert not (ROOT / 'jaxinpaint' / 'systems' / 'toynet').exists()
