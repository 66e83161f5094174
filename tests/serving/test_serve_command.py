"""`jaxinpaint serve`: its flags, and who is let in."""

import pytest

from jaxinpaint.cli import serve
from jaxinpaint.pictures import decode
from jaxinpaint.runtime import compilation_cache
from jaxinpaint.serving import app
from jaxinpaint.web import http


def test_weights_get_their_names(tmp_path):
  run = tmp_path / 'runs' / 'mine'
  run.mkdir(parents=True)
  places = serve._places(['mesff/box', str(run), f'other={run}'])
  assert places == {'mesff/box': 'mesff/box', 'mine': str(run), 'other': str(run)}
  for wrong in (['a=x', 'a=y'], ['=x'], ['a=']):
    with pytest.raises(ValueError, match='its own name'):
      serve._places(wrong)


@pytest.fixture
def begun(monkeypatch):
  """What the command would have served."""
  seen = {}

  class Server:
    def run(self, sockets):
      sockets[0].close()
      seen['say']()

  def create(models, limits, **options):
    seen.update(options, limits=limits, models=models)

  def make(application, say, patience):
    seen.update(say=say, patience=patience)
    return Server()

  monkeypatch.setattr(compilation_cache, 'use', lambda folder: None)
  monkeypatch.setattr(app, 'create', create)
  monkeypatch.setattr(http, 'make', make)
  monkeypatch.delenv('JAXINPAINT_TOKEN', raising=False)
  monkeypatch.setenv(decode.LIMIT_VARIABLE, '')
  return seen


def test_this_machine_alone_needs_no_token(begun, capsys):
  flags = ['--port', '0', '--max_megabytes', '5', '--max_side', '0', '--time_limit', '9']
  flags += ['--max_megapixels', '300']
  assert serve.main(flags) == 0
  assert begun['token'] == '' and 'localhost' in begun['hosts']
  limits = begun['limits']
  assert (limits.bytes, limits.max_side, limits.job_seconds) == (5 << 20, None, 9)
  assert limits.megapixels == decode.megapixel_limit() == 300, 'both let such a picture in'
  assert capsys.readouterr().out.startswith('http://127.0.0.1:')


def test_the_default_weights_are_the_librarys_and_missing_ones_are_told(begun, capsys, tmp_path):
  assert serve.main(['--port', '0']) == 0
  assert begun['models'].names == ('mesff/box',)
  assert serve.main(['--port', '0', '--weights', 'no/such.safetensors']) == 2
  said = capsys.readouterr().err
  assert 'jaxinpaint serve: there are no weights at no/such.safetensors' in said
  assert serve.main(['--port', '0', '--weights', f'mine={tmp_path}']) == 2
  assert f'jaxinpaint serve: {tmp_path} is no workdir' in capsys.readouterr().err


def test_other_machines_need_one(begun, capsys, monkeypatch):
  assert serve.main(['--host', '0.0.0.0', '--port', '0']) == 0
  token = begun['token']
  assert len(token) >= 30
  assert capsys.readouterr().out.strip().endswith(f'/#token={token}')
  serve.main(['--host', '0.0.0.0', '--port', '0'])
  assert begun['token'] != token
  monkeypatch.setenv('JAXINPAINT_TOKEN', 'mine')
  serve.main(['--host', '0.0.0.0', '--port', '0', '--allow_host', 'pictures.example'])
  assert begun['token'] == 'mine' and 'pictures.example' in begun['hosts']


@pytest.mark.parametrize(
  'flags',
  [
    ['--port', 'x'],
    ['--port', '65536'],
    ['--pad_to', '4097'],
    ['--max_side', '63'],
    ['--weights', 'a='],
    ['--queue', '0'],
  ],
)
def test_a_mistaken_flag_ends_in_a_sentence(flags, capsys):
  with pytest.raises(SystemExit) as ended:
    serve.main(flags)
  assert ended.value.code == 2 and 'jaxinpaint serve: ' in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys):
  monkeypatch.setattr(serve, '_NEEDED', ('starlette', 'no_such_package'))
  with pytest.raises(SystemExit):
    serve.main([])
  said = capsys.readouterr().err
  assert "no_such_package is not installed: pip install 'jaxinpaint[serve]'" in said
