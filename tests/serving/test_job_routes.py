"""Jobs by their addresses: from the queue to the picture, cancelled, given up, failed."""

import threading

import numpy as np
import pytest
import server_cases as cases

from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.serving.limits import Limits


@pytest.fixture
def gate():
  event = threading.Event()
  yield event
  event.set()


def test_a_job_from_its_beginning_to_its_end(gate):
  painter = cases.Slow(gate)
  with cases.client(painter=painter) as own:
    first = own.post('/api/v1/jobs', files=cases.files())
    assert first.status_code == 202
    place = first.headers['location']
    assert place == f'/api/v1/jobs/{first.json()["id"]}'
    cases.until(lambda: own.get(place).json()['state'] == 'compiling')
    status = own.get(place).json()
    assert status['estimate'] > 0 and status['position'] is None and status['problem'] is None
    second = own.post('/api/v1/jobs', files=cases.files()).json()
    assert (second['state'], second['position']) == ('queued', 0)
    assert 'compiling' in cases.problem(own.get(place + '/result'), 409, 'not-done')
    gate.set()
    cases.until(lambda: own.get(place).json()['state'] == 'done')
    assert own.get(place).json()['media_type'] == 'image/png'
    answer = own.get(place + '/result')
    assert (cases.decoded(answer.content)[-1, -1] == [51, 153, 204]).all()
    cases.problem(own.get(place + '/result'), 404, 'not-found')
    cases.problem(own.get(place), 404, 'not-found')
    cases.until(lambda: own.get(f'/api/v1/jobs/{second["id"]}').json()['state'] == 'done')


def test_a_job_that_fails_says_why():
  bad = cases.encoded(np.zeros((9, 30), np.uint8))
  with cases.client() as own:
    place = own.post('/api/v1/jobs', files=cases.files(mask=bad)).headers['location']
    cases.until(lambda: own.get(place).json()['state'] == 'failed')
    assert 'their shapes differ' in own.get(place).json()['problem']['detail']
    assert 'their shapes differ' in cases.problem(own.get(place + '/result'), 400, 'bad-picture')


def test_a_job_can_be_cancelled(gate):
  painter = cases.Slow(gate)
  with cases.client(painter=painter) as own:
    running = own.post('/api/v1/jobs', files=cases.files()).headers['location']
    cases.until(lambda: own.get(running).json()['state'] == 'compiling')
    waiting = own.post('/api/v1/jobs', files=cases.files()).headers['location']
    for place in (waiting, running):
      assert own.delete(place).status_code == 204
      cases.problem(own.get(place), 404)
    gate.set()
    assert own.post(cases.URL, files=cases.files()).status_code == 200
    assert painter.done == 2, 'the one that waited was never begun'
    cases.problem(own.delete('/api/v1/jobs/unknown'), 404)


def test_a_job_beyond_its_time_is_given_up(gate):
  with cases.client(Limits(job_seconds=0.3), cases.Slow(gate)) as own:
    answer = own.post(cases.URL, files=cases.files())
    assert 'longer than the limit' in cases.problem(answer, 504, 'time-limit')
    cases.until(lambda: own.get('/api/v1/health').json()['status'] == 'stuck')
    assert own.get('/api/v1/health').status_code == 503
    gate.set()
    cases.until(lambda: own.get('/api/v1/health').json()['status'] == 'ok')
    assert own.post(cases.URL, files=cases.files()).status_code == 200


@pytest.mark.parametrize(
  'error, status, words',
  [
    (InpaintError('memory does not suffice for 1 x 9 x 9 pixels'), 400, '9 x 9'),
    (MemoryError(), 400, 'memory does not suffice'),
    (RuntimeError('secret /srv/path'), 500, 'log says more'),
  ],
)
def test_errors_of_the_worker_end_one_request_only(error, status, words):
  errors = [error]

  def fail():
    if errors:
      raise errors.pop()

  with cases.client(painter=cases.Slow(before=fail)) as own:
    detail = cases.problem(own.post(cases.URL, files=cases.files()), status)
    assert words in detail and 'secret' not in detail
    assert own.post(cases.URL, files=cases.files()).status_code == 200


def test_a_bug_is_logged_once_however_often_the_job_is_asked_for(caplog):
  def fail():
    raise RuntimeError('a bug')

  with cases.client(painter=cases.Slow(before=fail)) as own:
    place = own.post('/api/v1/jobs', files=cases.files()).headers['location']
    cases.until(lambda: own.get(place).json()['state'] == 'failed')
    for _ in range(3):
      assert own.get(place).json()['problem']['status'] == 500
    cases.problem(own.get(place + '/result'), 500, 'failure')
  assert len([r for r in caplog.records if 'a request failed' in r.message]) == 1
