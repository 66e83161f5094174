"""The command `jaxinpaint`: one voice, configs by name or path, `~` everywhere, quick help."""

import argparse
import os
import pathlib
import subprocess
import sys

import pytest

import jaxinpaint
from jaxinpaint.cli import command_line, evaluate, experiments, inpaint, main, train
from jaxinpaint.pictures import decode

FILES = ('--image=a', '--mask=b', '--output=c')
ROOT = pathlib.Path(__file__).parents[2]


def parser():
  made = command_line.Parser('jaxinpaint test', 'Tests.')
  made.switch('resume', True)
  made.add_argument('--seed', type=command_line.whole(0), default=0)
  made.add_argument('--workdir', type=command_line.path)
  made.config('the experiment.')
  return made


def outcome(capsys, function, *arguments):
  """(exit code, what is on stderr)."""
  try:
    code = function(*arguments)
  except SystemExit as error:
    code = error.code
  return code, capsys.readouterr().err


@pytest.mark.parametrize(
  ('flags', 'resume'),
  [
    ([], True), (['--resume'], True), (['--noresume'], False), (['--resume=false'], False),
    (['--resume=0'], False), (['--resume=True'], True), (['--noresume', '--resume'], True),
  ],
)  # fmt: skip
def test_a_switch_is_written_as_absl_writes_it(flags, resume):
  assert parser().parse_args(flags).resume is resume


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--sed=1'], 'there is no flag --sed; is --seed meant?'),
    (['--resume=maybe'], '--resume: ignored explicit argument'),
    (['--seed', 'x'], "--seed: 'x' must be a whole number"),
    (['--seed=-1'], '--seed: -1 must be at least 0'),
    (['stray'], "unexpected argument 'stray'"),
  ],
)
def test_a_mistaken_flag_is_one_line(flags, message, capsys):
  code, error = outcome(capsys, parser().parse_args, flags)
  assert code == 2 and error.count('\n') == 1
  assert error.startswith('jaxinpaint test: ') and message in error


def test_the_fields_of_a_config_are_flags(capsys):
  flags = ['--config=quickstart:quicktest', '--config.data.batch_size', '3', '--seed=4']
  flags += ['--noconfig.data.flip', "--config.training.ema_networks=('a', 'b')"]
  made = parser()
  given = made.parse_args(flags)
  config = experiments.load(made, given)
  assert given.seed == 4 and config.data.batch_size == 3 and config.data.flip is False
  assert config.training.ema_networks == ('a', 'b') and config.is_locked
  assert config.training.steps < 100  # the quicktest's
  assert experiments.load(made, made.parse_args([])) is None


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--config.seed=1'], 'is a field of a config: give --config, too'),
    (['--config=quickstrat'], 'by name there are quickstart'),
    (['--config=configs/places2_mesf.py'], 'places2_mesff'),
    (['--config=quickstart:fast'], "--config quickstart:fast: unknown config variant 'fast'"),
    (['--config=survey_study'], 'is of another command: it has no field system'),
    (['--config=survey_study:fast'], 'this config has no variants'),
    ([f'--config={command_line.__file__}'], 'is no config: it has no function get_config'),
    (['--config=quickstart', '--config.data.sise=3'], 'has no field sise; is size meant?'),
    (['--config=quickstart', '--config.data.zzz=3'], '--config quickstart has no field zzz'),
    (['--config=quickstart', '--config.data.size=abc'], "size=abc: 'abc' must be a whole number"),
    (['--config=quickstart', '--config.data.size=x'], 'x'),
    (['--config=quickstart', '--config.data.flip', 'x'], "unexpected argument 'x'"),
  ],
)
def test_a_mistaken_config_is_one_line(flags, message, capsys, monkeypatch):
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)  # an earlier test's config
  made = parser()
  code, error = outcome(capsys, lambda: experiments.load(made, made.parse_args(flags)))
  assert code == 2 and error.count('\n') == 1 and message in error


@pytest.mark.parametrize(
  'text', ['{"flip": true}', 'import nosuch', 'def get_config(:', 'a = 1 / 0']
)
def test_a_config_that_python_cannot_run_is_one_line(text, capsys, tmp_path):
  (tmp_path / 'mine').write_text(text)
  made = parser()
  given = made.parse_args([f'--config={tmp_path}/mine'])
  code, error = outcome(capsys, lambda: experiments.load(made, given))
  assert code == 2 and error.count('\n') == 1 and 'cannot be run as Python: ' in error


def test_a_config_is_a_name_or_a_path(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  own = tmp_path / 'mine.py'
  # As people wrote them for a clone of version 0.1.
  own.write_text('from configs import _base\n\ndef get_config():\n  return _base.base("misf")\n')
  monkeypatch.setattr(sys, 'path', [p for p in sys.path if p not in ('', str(ROOT))])
  for name in [n for n in sys.modules if n.split('.')[0] == 'configs']:
    monkeypatch.delitem(sys.modules, name)
  for text in ('~/mine.py', 'mine.py', str(own)):
    made = parser()
    assert experiments.load(made, made.parse_args(['--config', text])).system == 'misf'
  assert (
    experiments.find('quickstart:quicktest') == f'{ROOT}/jaxinpaint/configs/quickstart.py:quicktest'
  )
  assert experiments.name('~/mine.py:quicktest') == 'mine-quicktest'
  assert experiments.name('finetune:~/a/b.safetensors') == 'finetune-b'
  assert '_base' not in experiments.names() and 'places2_mesff' in experiments.names()


def test_the_home_folder_is_expanded_everywhere():
  home = os.path.expanduser('~')
  assert command_line.path('~/run') == f'{home}/run'
  assert command_line.path('folder:~/photos') == f'folder:{home}/photos'
  assert command_line.path('mine=~/run@100') == f'mine={home}/run@100'
  assert command_line.path('a~b/c~') == 'a~b/c~'


@pytest.mark.parametrize('text', ['inception', 'inceptoin=x.pth'])
def test_a_network_that_no_metric_has_is_refused(text):
  from jaxinpaint.cli import evaluation
  from jaxinpaint.metrics import protocols

  with pytest.raises(ValueError, match=f'--network .{text}. must be NAME=FILE, NAME of: incep'):
    evaluation.load_networks(protocols.get('seed000'), [text], (64, 64))


@pytest.mark.parametrize(
  ('protocol', 'file'), [('seed000', 'inception'), ('lama', 'lpips_alex_trunk')]
)
def test_a_network_that_the_protocol_does_not_read_is_refused(protocol, file):
  from jaxinpaint.cli import evaluation
  from jaxinpaint.metrics import protocols

  message = f'--network {file}=x.pth is read by no metric of the protocol {protocol}: leave it out'
  with pytest.raises(ValueError, match=message):
    evaluation.load_networks(protocols.get(protocol), [f'{file}=x.pth'], (256, 256))


def test_steps_to_trace():
  assert command_line.span('100:110') == (100, 110)
  for text in ('100', '5:5', '7:3', 'a:b', ':', '-1:4', '1:2:3', ''):
    with pytest.raises(argparse.ArgumentTypeError, match='START:STOP'):
      command_line.span(text)


@pytest.mark.parametrize(
  ('command', 'flags', 'message'),
  [
    (train, [], 'give --config, or the --workdir of a run'),
    (train, ['--config=quickstart', '--probe=2'], '--devices and --probe belong to --estimate'),
    (train, ['--config=quickstart', '--profile=5'], '--profile: '),
    (train, ['--config=quickstart', '--workdir=r\udce9'], r'--workdir r\udce9 must be UTF-8'),
    (inpaint, ['--weights=a'], 'give --image, --mask, --output'),
    (inpaint, [*FILES, f'--seed={2**63}'], f'--seed: {2**63} must be at most {2**63 - 1}'),
    (inpaint, [*FILES, '--weights=a', '--workdir=b'], 'give either --weights or --workdir'),
    (evaluate, ['--on_unreadable=stop'], '--on_unreadable: invalid choice'),
  ],
)
def test_flags_that_do_not_fit_together(command, flags, message, capsys):
  code, error = outcome(capsys, command.main, flags)
  assert code == 2 and message in error and error.count('\n') == 1


@pytest.mark.parametrize('words', [[], ['trian'], ['masks'], ['weights', 'fetsch']])
def test_an_unknown_command_lists_those_there_are(words, capsys):
  code, error = outcome(capsys, main.main, words)
  assert code == 2 and error.count('\n') == 1 and 'commands: ' in error


def test_help_and_version_are_there_without_jax():
  """Of every command; --help must not wait for an import of seconds."""
  code = """
import contextlib, io, sys
from jaxinpaint.cli import main
for words in (['--help'], ['--version'], *([c, '--help'] for c in main.COMMANDS)):
  out = io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
    main.main(words)
  assert 'jaxinpaint' in out.getvalue(), words
  assert not {'jax', 'absl', 'grain'} & set(sys.modules), words
  print(out.getvalue())
"""
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert f'jaxinpaint {jaxinpaint.__version__}' in done.stdout
  assert '--workdir' in done.stdout and 'freeze' in done.stdout


@pytest.mark.parametrize('command', [train, evaluate, inpaint])
def test_the_limit_of_megapixels_is_a_flag(command, monkeypatch):
  monkeypatch.setenv(decode.LIMIT_VARIABLE, '')
  assert decode.megapixel_limit() == 200
  given = command._parser().parse_args(['--max_megapixels=1234'])
  assert decode.megapixel_limit() == 1234 and not hasattr(given, 'max_megapixels')
