"""The routes: what is told, to whom, and that no request reaches another file."""

import json

import pytest
import workdirs
from starlette.testclient import TestClient

from jaxinpaint.watching import app
from jaxinpaint.watching.run import Run
from jaxinpaint.watching.runs import Runs


@pytest.fixture
def folders(tmp_path):
  return [workdirs.workdir(tmp_path / name) for name in ('a', 'b')]


def client(folders, host='http://127.0.0.1', **options):
  return TestClient(app.create(Runs(folders), **options), host, raise_server_exceptions=False)


def problem(answer, status):
  assert answer.status_code == status, answer.text
  assert answer.headers['content-type'].startswith('application/problem+json')
  return answer.json()['detail']


def test_the_runs_and_then_only_what_is_new(folders, monkeypatch):
  monkeypatch.setattr('jaxinpaint.watching.run._LOOK_SECONDS', 0.0)
  own = client(folders)
  first = own.get('/api/v1/runs').json()
  assert [run['name'] for run in first['runs']] == ['a', 'b'] and first['left_out'] == 0
  assert first['runs'][1]['series']['generator/total']['steps'] == [1, 2, 3]
  known = ','.join(f'{run["id"]}:{run["version"]}' for run in first['runs'])
  workdirs.metrics(folders[1], [4])
  a, b = own.get('/api/v1/runs', params={'known': known}).json()['runs']
  assert set(a) == {'id', 'version', 'state', 'seen', 'left'}
  assert b['series']['generator/total']['steps'] == [1, 2, 3, 4]


@pytest.mark.parametrize('known', ['x', '0', '0:zz', '0:12345678,', '0:12345678 ', '0' * 5000])
def test_what_is_no_list_of_versions_is_refused(folders, known):
  detail = problem(client(folders).get('/api/v1/runs', params={'known': known}), 400)
  assert 'RUN:VERSION' in detail


def test_pictures_by_their_numbers_and_no_other_file(folders):
  own = client(folders)
  assert own.get('/api/v1/runs').status_code == 200  # from here on the runs have numbers
  answer = own.get('/api/v1/runs/1/samples/0')
  assert answer.content == workdirs.png() and answer.headers['content-type'] == 'image/png'
  (folders[0] / 'samples' / 'secret.png').write_bytes(workdirs.png())
  for path in (
    '/api/v1/runs/1/samples/7',
    '/api/v1/runs/7/samples/0',
    '/api/v1/runs/0/samples/secret',
    '/api/v1/runs/0/samples/..%2f..%2fconfig.json',
    '/api/v1/runs/0/config.json',
    '/api/v1/runs/0/samples/' + '9' * 40,
    '/config.json',
  ):
    problem(own.get(path), 404)


def test_nothing_can_be_changed(folders):
  own = client(folders)
  for method in ('POST', 'PUT', 'DELETE'):
    assert 'GET' in problem(own.request(method, '/api/v1/runs'), 405)


def test_a_foreign_name_and_a_foreign_page_are_refused(folders):
  problem(client(folders, 'http://evil.example').get('/api/v1/runs'), 421)
  answer = client(folders).get('/api/v1/runs', headers={'Origin': 'http://evil.example'})
  problem(answer, 403)


def test_with_a_token_only_the_page_is_free(folders):
  own = client(folders, token='sesame')
  assert own.get('/').status_code == 200 and own.get('/watch.js').status_code == 200
  problem(own.get('/api/v1/runs'), 401)
  problem(own.get('/api/v1/runs/0/samples/0'), 401)
  assert own.get('/api/v1/runs', headers={'Authorization': 'Bearer sesame'}).status_code == 200


def test_the_page_runs_no_script_but_its_own(folders):
  answer = client(folders).get('/')
  assert "script-src 'self'" in answer.headers['content-security-policy']
  assert '<script>' not in answer.text and 'style=' not in answer.text


def test_a_fault_of_the_server_is_told_without_its_details(folders, monkeypatch):
  def fail(self, whole=False):
    raise RuntimeError('secret')

  monkeypatch.setattr(Run, 'read', fail)
  assert 'secret' not in problem(client(folders).get('/api/v1/runs'), 500)


def test_answers_are_json_without_nan(folders):
  workdirs.metrics(folders[0], [5], x='nan', y='inf')
  text = client(folders).get('/api/v1/runs').text

  def refuse(name):
    raise AssertionError(name)

  json.loads(text, parse_constant=refuse)
