"""`weights fetch`: by name into the cache, and nothing that is another file."""

import dataclasses
import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinpaint.cli import weights as cli
from jaxinpaint.features import lpips, published
from jaxinpaint.weights import hub


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('no_proxy', '*')
  return tmp_path / 'cache'


def _digest(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def small(tmp_path, monkeypatch):
  """(trunk, heads) of a name 'small', whose content must have a key 'a'; nobody serves them."""
  found = []
  for name in ('trunk.pth', 'heads.pth'):
    save_file({'a': np.full(2, len(found), np.float32)}, tmp_path / name)
    found.append(tmp_path / name)

  def file(path, folder):
    url = f'http://127.0.0.1:9/{path.name}'  # the discard port
    return hub.File(path.stem, url, _digest(path), _read, folder)

  def _read(path):
    if b'"a"' not in path.read_bytes():
      raise ValueError(f'{path} has no a')

  monkeypatch.setitem(published.FILES, 'small', (file(found[0], ''), file(found[1], 'below')))
  return found


def test_files_that_are_here_are_copied_and_found(small, cache, capsys):
  assert hub.find('small', published.FILES) is None
  first, second = (str(path) for path in small)
  assert cli.main(['fetch', 'small', '--from', second, '--from', first]) == 0
  paths = (cache / 'trunk.pth', cache / 'below' / 'heads.pth')
  assert capsys.readouterr().out == ''.join(f'small: {path}\n' for path in paths)
  assert hub.find('small', published.FILES) == paths
  assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in small]
  assert cli.main(['fetch', 'small']) == 0  # they are here: nothing is asked of the network
  assert cli.main(['fetch', 'small', '--from', str(paths[0])]) == 0  # onto itself
  assert sorted(p.name for p in cache.rglob('*') if p.is_file()) == ['heads.pth', 'trunk.pth']


def test_half_of_the_files_is_not_all(small, cache, capsys):
  assert cli.main(['fetch', 'small', '--from', str(small[0])]) == 1
  error = capsys.readouterr().err
  assert 'http://127.0.0.1:9/heads.pth by hand' in error and str(cache / 'below') in error
  assert (cache / 'trunk.pth').is_file() and hub.find('small', published.FILES) is None
  assert hub.find('small', published.FILES, need=[True, False])[0] == cache / 'trunk.pth'


def test_other_files_are_refused(small, tmp_path, cache, monkeypatch, capsys):
  save_file({'b': np.zeros(2)}, tmp_path / 'other')
  assert cli.main(['fetch', 'small', '--from', str(tmp_path / 'other')]) == 1
  assert 'none of the published files of small' in capsys.readouterr().err
  named = published.FILES['small'][0]
  monkeypatch.setitem(
    published.FILES, 'by_md5', (dataclasses.replace(named, sha256='', md5='0' * 32),)
  )
  assert cli.main(['fetch', 'by_md5', '--from', str(tmp_path / 'other')]) == 1
  md5 = hashlib.md5((tmp_path / 'other').read_bytes()).hexdigest()
  assert f'its MD5 is {md5}, wanted' in capsys.readouterr().err  # the kind that it is compared by
  assert cli.main(['fetch', 'small/big']) == 1
  assert 'near names: small, lama/big; `jaxinpaint weights list`' in capsys.readouterr().err
  digest = _digest(tmp_path / 'other')
  monkeypatch.setitem(
    published.FILES, 'small', (hub.File(named.what, named.url, digest, named.read),)
  )
  assert cli.main(['fetch', 'small', '--from', str(tmp_path / 'other')]) == 1
  assert 'has no a' in capsys.readouterr().err
  assert cli.main(['fetch', 'small', '--from', str(tmp_path / 'nowhere')]) == 1
  assert 'no such file' in capsys.readouterr().err
  assert not cache.exists()
  cache.mkdir()
  (cache / 'trunk.pth').write_text('damaged')
  with pytest.raises(hub.DownloadError, match='it is damaged or another file'):
    hub.find('small', published.FILES)


def test_names_are_listed(capsys):
  assert cli.main(['fetch', '--list']) == 0
  shown = capsys.readouterr().out
  for name in ('fid-inception', 'lpips-alex', 'lpips-vgg', 'lpips-squeeze', 'vgg16', 'vgg19'):
    assert f'{name} ' in shown
  assert 'not here' in shown and lpips.HEADS['vgg'][0] in shown
  assert cli.main(['fetch', 'vgg17']) == 1
  assert "called 'vgg17'; near names: vgg19, vgg16; " in capsys.readouterr().err
  assert cli.main(['fetch', 'misf/places9']) == 1
  assert "called 'misf/places9'; near names: misf/places2, " in capsys.readouterr().err
  assert cli.main(['fetch', 'mesff/box']) == 0
  assert 'mesff_box.safetensors, which comes with the library' in capsys.readouterr().out
  assert cli.main(['fetch']) == 1
  assert 'give a name, or --list' in capsys.readouterr().err


def test_a_cache_that_cannot_be_written(small, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(small[0]))  # a file
  before = small[0].read_bytes()
  for arguments in (['small', '--from', str(small[1])], ['small'], ['misf/places2']):
    assert cli.main(['fetch', *arguments]) == 1
    error = capsys.readouterr().err
    assert f'{small[0]}, the cache, cannot be used' in error and 'JAXINPAINT_CACHE' in error
  assert small[0].read_bytes() == before


def test_an_interrupted_command_says_so(small, monkeypatch, capsys):
  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(hub, 'fetch', interrupted)
  assert cli.main(['fetch', 'small']) == 130
  assert 'interrupted' in capsys.readouterr().err


def test_what_has_no_checksum_is_not_fetched(capsys, cache):
  assert cli.main(['fetch', 'arcface']) == 1
  error = capsys.readouterr().err
  assert 'offers no checksum' in error and '--from FILE' in error and str(cache) in error
  save = cache.parent / 'wrong'
  save_file({'a': np.zeros(1)}, save)
  assert cli.main(['fetch', 'arcface', '--from', str(save)]) == 1
  assert 'does not hold the weights of IR-SE50' in capsys.readouterr().err


def test_every_file_knows_its_network(tmp_path):
  """A foreign file is refused by the loader of each, by its keys."""
  save_file({'foreign.weight': np.zeros((2, 2), np.float32)}, tmp_path / 'foreign')
  for files in published.FILES.values():
    for file in files:
      with pytest.raises(ValueError, match='foreign does not hold'):
        file.read(tmp_path / 'foreign')
