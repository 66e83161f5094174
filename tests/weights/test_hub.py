"""Fetching files, against a server on this machine that can break off."""

import concurrent.futures
import errno
import hashlib

import pytest
from file_server import Server

from jaxinpaint.weights import hub
from jaxinpaint.weights.hub import DownloadError

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  with Server({'/models/w.pth': CONTENT}) as server:
    server.url = f'{server.address}/models/w.pth'
    yield server


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


def _file(server, **facts):
  return hub.File('weights', server.url, licence='CC0', **facts)


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  return tmp_path


@pytest.mark.parametrize('pin', [{'sha256': SHA.upper()}, {'md5': MD5}, {}])
def test_address_size_and_licence_are_shown_first(pin, server, cache, capsys):
  assert hub.get(_file(server, **pin)).read_bytes() == CONTENT
  shown = capsys.readouterr().err
  assert shown.startswith(f'w.pth: {server.url}, 0.0 MB, licence: CC0\n') and '100%' in shown
  hub.get(_file(server, **pin))
  assert capsys.readouterr().err == '' and server.asked == [None]


def test_another_md5_is_refused_and_removed(server, cache):
  with pytest.raises(DownloadError, match=f'MD5 {MD5}, not {"0" * 32}.*MD5 begins with 00000000'):
    hub.get(_file(server, md5='0' * 32))
  assert not list(cache.iterdir())
  (cache / 'w.pth').write_bytes(b'other')
  with pytest.raises(DownloadError, match='it is damaged or another file'):
    hub.get(_file(server, md5=MD5))


def test_without_a_digest_a_transfer_is_not_continued(server, cache):
  server.stops = [3000]
  with pytest.raises(DownloadError, match='broke off after 3000') as error:
    hub.get(_file(server))
  assert 'continued' not in str(error.value) and not list(cache.iterdir())
  (cache / 'w.pth.part').write_bytes(b'x' * 100)
  assert hub.get(_file(server)).read_bytes() == CONTENT
  assert server.asked == [None, None]


def test_redirects_are_followed_and_continued(server, cache):
  server.redirects = {'/moved/w.pth': '/models/w.pth'}
  file = hub.File('weights', f'{server.address}/moved/w.pth', md5=MD5)
  server.stops = [3000]
  with pytest.raises(DownloadError, match='continued next time'):
    hub.get(file)
  assert hub.get(file).read_bytes() == CONTENT
  assert server.asked == [None, None, 'bytes=3000-', 'bytes=3000-']


def test_a_full_disk_is_not_the_servers_fault(server, cache, monkeypatch):
  def full(source, part, progress):
    part.write_bytes(CONTENT[:500])
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as patched:
    patched.setattr(hub, '_transfer', full)
    with pytest.raises(DownloadError, match=f'{cache}, the cache, cannot be used: w.pth cannot be'):
      hub.get(_file(server, md5=MD5))
  assert hub.get(_file(server, md5=MD5)).read_bytes() == CONTENT
  assert server.asked == ['bytes=500-']  # what came was kept


@pytest.mark.parametrize(('status', 'why'), [(500, 'Internal Server Error'), (403, 'Forbidden')])
def test_a_server_that_fails(status, why, server, cache):
  server.status = status
  (cache / 'w.pth.part').write_bytes(CONTENT[:500])
  with pytest.raises(DownloadError, match=f'could not be fetched: {why}.*continued next time'):
    hub.get(_file(server, md5=MD5))
  server.status = 0
  assert hub.get(_file(server, md5=MD5)).read_bytes() == CONTENT
  assert server.asked == ['bytes=500-'] * 2


def test_a_server_that_starts_slowly(server, cache, monkeypatch):
  server.delay = 0.4
  monkeypatch.setattr(hub, '_TIMEOUT_SECONDS', 0.1)
  with pytest.raises(DownloadError, match='timed out'):
    hub.get(_file(server, md5=MD5))
  monkeypatch.setattr(hub, '_TIMEOUT_SECONDS', 30)
  assert hub.get(_file(server, md5=MD5)).read_bytes() == CONTENT


@pytest.mark.parametrize(('value', 'offline'), [('1', True), ('0', False), ('', False)])
def test_offline_nothing_is_asked(value, offline, server, cache, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_OFFLINE', value)
  if offline:
    with pytest.raises(DownloadError, match=f'JAXINPAINT_OFFLINE is set.*{server.url} by hand'):
      hub.get(_file(server, md5=MD5))
    assert not server.asked and not list(cache.iterdir())
    (cache / 'w.pth').write_bytes(CONTENT)
  assert hub.get(_file(server, md5=MD5)).read_bytes() == CONTENT


def test_too_short_a_digest():
  with pytest.raises(ValueError, match='8 digits'):
    hub.download('http://127.0.0.1/x', 'abc')
