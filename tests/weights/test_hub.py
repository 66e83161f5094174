"""Fetching files, against a server on this machine that can break off."""

import concurrent.futures
import hashlib
import http.server
import threading

import pytest

from jaxinpaint.weights import hub
from jaxinpaint.weights.hub import DownloadError

CONTENT = bytes(range(256)) * 40
SHA = hashlib.sha256(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    server = self.server
    asked = self.headers.get('Range')
    server.asked.append(asked)
    start = int(asked.removeprefix('bytes=').removesuffix('-')) if asked and server.ranges else 0
    if self.path != '/models/w.pth':
      self.send_error(404)
      return
    if start >= len(CONTENT):
      self.send_error(416)
      return
    self.send_response(206 if start else 200)
    self.send_header('Content-Length', str(len(CONTENT) - start))
    self.end_headers()
    stop = server.stops.pop(0) if server.stops else len(CONTENT)
    self.wfile.write(CONTENT[start:stop])

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.asked, server.stops, server.ranges = [], [], True
  server.url = f'http://127.0.0.1:{server.server_port}/models/w.pth'
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield server
  server.shutdown()
  server.server_close()


def test_fetched_once(server, tmp_path):
  folder = tmp_path / 'a' / 'b'
  path = hub.download(server.url, SHA, folder=folder)
  assert path == folder / 'w.pth'
  assert path.read_bytes() == CONTENT
  assert hub.download(server.url, SHA[:8].upper(), folder=folder) == path
  assert server.asked == [None]
  assert [p.name for p in folder.iterdir()] == ['w.pth']


def test_an_interrupted_transfer_goes_on(server, tmp_path):
  server.stops = [3000, 7000]
  for have in (3000, 7000):
    with pytest.raises(DownloadError, match='continued next time'):
      hub.download(server.url, SHA, folder=tmp_path)
    assert (tmp_path / 'w.pth.part').stat().st_size == have
    assert not (tmp_path / 'w.pth').exists()
  path = hub.download(server.url, SHA, folder=tmp_path)
  assert path.read_bytes() == CONTENT
  assert server.asked == [None, 'bytes=3000-', 'bytes=7000-']
  assert not (tmp_path / 'w.pth.part').exists()


def test_a_server_without_ranges_starts_over(server, tmp_path):
  server.ranges = False
  (tmp_path / 'w.pth.part').write_bytes(b'x' * 100)
  assert hub.download(server.url, SHA, folder=tmp_path).read_bytes() == CONTENT


def test_a_whole_part_is_only_checked(server, tmp_path):
  (tmp_path / 'w.pth.part').write_bytes(CONTENT)
  assert hub.download(server.url, SHA, folder=tmp_path).read_bytes() == CONTENT


def test_several_at_once_fetch_it_once(server, tmp_path):
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    calls = [pool.submit(hub.download, server.url, SHA, folder=tmp_path) for _ in range(4)]
    paths = {call.result() for call in calls}
  assert paths == {tmp_path / 'w.pth'}
  assert server.asked == [None]
  assert [p.name for p in tmp_path.iterdir()] == ['w.pth']


def test_another_digest_is_refused_and_removed(server, tmp_path):
  with pytest.raises(DownloadError, match=f'SHA-256 {SHA}, not {"0" * 64}.*removed'):
    hub.download(server.url, '0' * 64, folder=tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_damaged_file_in_the_cache_is_not_used_and_not_touched(server, tmp_path):
  (tmp_path / 'w.pth').write_bytes(b'other')
  with pytest.raises(DownloadError, match='damaged or another file'):
    hub.download(server.url, SHA, folder=tmp_path)
  assert (tmp_path / 'w.pth').read_bytes() == b'other'
  assert server.asked == []


@pytest.mark.parametrize('path', ['/models/w.pth', '/gone.pth'])
def test_offline_says_the_address_and_the_folder(path, server, tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path / 'cache'))
  url = server.url.replace('/models/w.pth', path)
  if path == '/models/w.pth':  # nobody listens there any more
    server.shutdown()
    server.server_close()
  with pytest.raises(DownloadError) as error:
    hub.download(url, SHA)
  assert url in str(error.value)
  assert str(tmp_path / 'cache' / path.split('/')[-1]) in str(error.value)
  assert not list((tmp_path / 'cache').iterdir())


def test_the_cache_folder(monkeypatch, tmp_path):
  monkeypatch.delenv('JAXINPAINT_CACHE', raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert hub.cache_folder() == tmp_path / 'jaxinpaint'
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path / 'mine'))
  assert hub.cache_folder() == tmp_path / 'mine'
  monkeypatch.delenv('JAXINPAINT_CACHE')
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert hub.cache_folder() == tmp_path / '.cache' / 'jaxinpaint'


def test_too_short_a_digest():
  with pytest.raises(ValueError, match='8 digits'):
    hub.download('http://127.0.0.1/x', 'abc')
