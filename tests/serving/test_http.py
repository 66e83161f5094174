"""The server on a real socket: floods, slow clients, half requests; it stays up and says why."""

import concurrent.futures
import contextlib
import json
import socket
import threading
import time

import httpx2 as httpx
import pytest
import server_cases as cases

from jaxinpaint.serving import app
from jaxinpaint.serving.limits import Limits
from jaxinpaint.web import http


@contextlib.contextmanager
def running(limits=cases.LIMITS, painter=None):
  """The port of a server, which is ended with the block."""
  begun = threading.Event()
  listening = http.listen('127.0.0.1', 0)
  application = app.create(cases.models(limits, painter), limits)
  server = http.make(application, begun.set, 20)
  thread = threading.Thread(target=server.run, args=([listening],))
  thread.start()
  try:
    assert begun.wait(30)
    yield listening.getsockname()[1]
  finally:
    server.should_exit = True
    thread.join(cases.PATIENCE)
    assert not thread.is_alive()


def ask(port, data=b'', wait=20.0):
  """What the server answers to these bytes, until it closes or goes on waiting."""
  with socket.create_connection(('127.0.0.1', port), timeout=wait) as connection:
    connection.sendall(data)
    return until_closed(connection)


def until_closed(connection):
  received = b''
  with contextlib.suppress(ConnectionResetError):
    while piece := connection.recv(65536):
      received += piece
  return received


def head(port, *lines, method='POST', path='/api/v1/inpaint'):
  names = [f'{method} {path} HTTP/1.1', f'Host: 127.0.0.1:{port}', 'Connection: close', *lines]
  return '\r\n'.join(names).encode() + b'\r\n\r\n'


def is_alive(port):
  url = f'http://127.0.0.1:{port}/api/v1/inpaint'
  return httpx.post(url, files=cases.files(), timeout=60).status_code == 200


def test_a_thousand_at_once_are_answered_and_none_that_was_accepted_is_lost():
  limits, gate = Limits(waiting=8), threading.Event()
  painter = cases.Slow(gate)
  request = httpx.Request('POST', 'http://x/api/v1/inpaint', files=cases.files())
  body = request.read()
  kind = request.headers['content-type']
  with running(limits, painter) as port:
    data = head(port, f'Content-Type: {kind}', f'Content-Length: {len(body)}') + body
    with concurrent.futures.ThreadPoolExecutor(1000) as threads:
      asked = [threads.submit(ask, port, data, 2 * cases.PATIENCE) for _ in range(1000)]
      end = time.monotonic() + cases.PATIENCE
      while sum(one.done() for one in asked) < 1000 - 9:  # 8 wait, and 1 runs
        assert time.monotonic() < end
        time.sleep(0.05)
      gate.set()
      answers = [one.result() for one in asked]
    statuses = [int(answer.split(b' ', 2)[1]) for answer in answers]
    assert set(statuses) == {200, 429} and statuses.count(200) == painter.done == 9
    assert is_alive(port)
  bodies = [answer.partition(b'\r\n\r\n')[2] for answer in answers]
  pictures = {body for body, status in zip(bodies, statuses, strict=True) if status == 200}
  assert len(pictures) == 1 and pictures.pop().startswith(b'\x89PNG')
  refused = statuses.index(429)
  assert b'retry-after' in answers[refused].lower()
  assert json.loads(bodies[refused])['title'] == 'The server is busy'


def test_the_states_of_a_job_are_told_while_they_change(monkeypatch):
  monkeypatch.setattr(app, '_LOOK_SECONDS', 0.001)  # many looks find what was told already
  gate = threading.Event()
  with (
    running(painter=cases.Slow(gate)) as port,
    httpx.Client(base_url=f'http://127.0.0.1:{port}/api/v1', timeout=30) as client,
  ):
    first, second = (client.post('/jobs', files=cases.files()).json()['id'] for _ in range(2))
    told = []
    with client.stream('GET', f'/jobs/{second}/events') as stream:
      assert stream.headers['content-type'].startswith('text/event-stream')
      lines = iter(stream.iter_lines())
      for line in lines:
        if line.startswith('data: '):
          told.append(json.loads(line.removeprefix('data: ')))
          gate.set()
        else:
          assert line == ''
    assert told[0]['state'] == 'queued' and told[0]['position'] in (0, 1)
    assert told[-1]['state'] == 'done' and told[-1]['media_type'] == 'image/png'
    assert len({(t['state'], t['position']) for t in told}) == len(told), 'each once'
    assert client.get(f'/jobs/{second}/result').status_code == 200
    client.delete(f'/jobs/{first}')
    assert client.get(f'/jobs/{first}/events').status_code == 404


def test_headers_that_do_not_come_end_the_connection(monkeypatch):
  monkeypatch.setattr(http.Protocol, 'header_seconds', 0.3)
  with running() as port:
    for begun in (b'', b'POST / HT', head(port)[:-2]):
      assert ask(port, begun) == b''
    with socket.create_connection(('127.0.0.1', port), timeout=20) as connection:
      # After a first request, too.
      connection.sendall(head(port, method='GET', path='/').replace(b'close', b'keep-alive'))
      time.sleep(0.1)
      connection.sendall(b'GET / HT')
      assert until_closed(connection).startswith(b'HTTP/1.1 200')
    assert is_alive(port)


def test_bodies_that_do_not_come_are_refused():
  with running(Limits(body_seconds=0.4)) as port:
    lines = ('Content-Type: application/json', 'Content-Length: 1000')
    assert ask(port, head(port, *lines) + b'{').startswith(b'HTTP/1.1 408')
    with socket.create_connection(('127.0.0.1', port), timeout=20) as connection:
      connection.sendall(head(port, 'Content-Type: application/json', 'Transfer-Encoding: chunked'))
      with contextlib.suppress(OSError):  # drop by drop, until it closes
        for _ in range(100):
          connection.sendall(b'1\r\n{\r\n')
          time.sleep(0.02)
      assert until_closed(connection).startswith(b'HTTP/1.1 408')
    assert is_alive(port)


def test_a_client_that_breaks_off_leaves_nothing_behind():
  gate = threading.Event()
  with running(painter=cases.Slow(gate)) as port:
    request = httpx.Request('POST', 'http://x/api/v1/inpaint', files=cases.files())
    body, kind = request.read(), request.headers['content-type']
    lines = (f'Content-Type: {kind}', f'Content-Length: {len(body)}')
    for sent in (body[: len(body) // 2], body):
      with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.sendall(head(port, *lines) + sent)
        time.sleep(0.3)
    gate.set()
    value = lambda name: next(
      float(line.split()[1])
      for line in httpx.get(f'http://127.0.0.1:{port}/metrics').text.splitlines()
      if line.startswith(name)
    )
    end = time.monotonic() + cases.PATIENCE
    while value('jaxinpaint_held_bytes') or value('jaxinpaint_queue_running'):
      assert time.monotonic() < end
      time.sleep(0.05)
    assert is_alive(port)


def test_a_client_that_does_not_take_its_answer_is_cut_off(monkeypatch):
  monkeypatch.setattr(http.Protocol, 'send_seconds', 0.3)
  big = cases.files(cases.encoded(cases.photo(1800, 1800), compress_level=0))
  big['mask'] = ('mask', cases.encoded(cases.toy_system.hole(1800, 1800)))
  request = httpx.Request('POST', 'http://x/api/v1/jobs', files=big)
  with running() as port:
    url = f'http://127.0.0.1:{port}/api/v1/jobs'
    kind = request.headers['content-type']
    answer = httpx.post(url, content=request.read(), headers={'Content-Type': kind}, timeout=60)
    job = answer.headers['location']
    end = time.monotonic() + cases.PATIENCE
    while httpx.get(f'http://127.0.0.1:{port}{job}', timeout=60).json()['state'] != 'done':
      assert time.monotonic() < end
      time.sleep(0.1)
    with socket.socket() as connection:
      connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
      connection.settimeout(20)
      connection.connect(('127.0.0.1', port))
      connection.sendall(head(port, method='GET', path=f'{job}/result'))
      time.sleep(1.5)
      taken = until_closed(connection)
    assert 0 < len(taken) < 6_000_000, 'a part of the answer'
    again = httpx.get(f'http://127.0.0.1:{port}{job}/result', timeout=60)
    assert len(again.content) > 6_000_000, 'what was not taken can be fetched again'


@pytest.mark.parametrize(
  'data',
  [
    b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(500),  # TLS
    b'\r\n' * 5000 + b'GET\r\n\r\n',
    b'GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n',
    b'GET / HTTP/1.1\r\nHost: x\r\nX: ' + b'y' * 300_000 + b'\r\n\r\n',
    b'GET ' + b'/' * 100_000 + b' HTTP/1.1\r\n\r\n',
    b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
  ],
)
def test_what_is_no_http_is_refused(data):
  with running() as port:
    answer = ask(port, data)
    assert answer == b'' or answer.split(b' ', 2)[1] in (b'400', b'421', b'431'), answer[:200]
    assert is_alive(port)


def test_a_refused_client_sees_the_answer_while_it_is_still_sending():
  with running(Limits(held_bytes=1000)) as port:
    size = 3_000_000
    lines = ('Content-Type: application/json', f'Content-Length: {size}')
    with socket.create_connection(('127.0.0.1', port), timeout=20) as connection:
      connection.sendall(head(port, *lines) + b'x' * 100_000)
      for _ in range(29):
        time.sleep(0.02)
        connection.sendall(b'x' * 100_000)  # to a connection that was closed, it would be an error
      assert until_closed(connection).startswith(b'HTTP/1.1 429')
    waits = head(port, *lines, 'Expect: 100-continue')
    with socket.create_connection(('127.0.0.1', port), timeout=20) as connection:
      connection.sendall(waits.replace(str(size).encode(), b'999999999'))
      assert until_closed(connection).startswith(b'HTTP/1.1 413')


def test_an_address_that_is_taken_is_said(capsys):
  from jaxinpaint.cli import serve

  with http.listen('127.0.0.1', 0) as taken:
    port = taken.getsockname()[1]
    assert serve.main(['--port', str(port)]) == 1
  said = capsys.readouterr().err
  assert 'jaxinpaint serve: cannot listen on 127.0.0.1 port' in said and 'Traceback' not in said
