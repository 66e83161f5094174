"""Published weights by name: from a server on this machine to a completed picture."""

import concurrent.futures
import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest
from file_server import Server
from safetensors.numpy import save
from tensorflow_bytes import write as write_tensorflow
from torch_bytes import emit, modules, of_arrays, write_script, write_stream, write_zip

import jaxinpaint
from jaxinpaint import systems, trained
from jaxinpaint.cli import weights as cli
from jaxinpaint.training import config as config_lib
from jaxinpaint.weights import fetching, hub, importer, mapping, names, store

NARROW = dict(width=4, blocks=1)
MISF = systems.module('misf', 'published')
FORMAT = dataclasses.replace(MISF.FORMATS['misf'], model=NARROW)


def _state():
  """The state dict of a narrow MISF, random."""
  config = systems.default_config('misf').unlock()
  config.model.update(NARROW)
  rng = np.random.default_rng(0)
  params, stats = jax.tree.map(
    lambda x: rng.normal(0, 0.1, x.shape).astype('f4'), systems.inference(config).shapes()
  )
  return mapping.export({'params': params, 'stats': stats}, MISF.generator_entries(config.model))


def _written(kind, path):
  """The bytes of the state dict as a file of this kind."""
  state = _state()
  if kind == 'safetensors':
    return save({f'generator.{key}': value for key, value in state.items()})
  if kind == 'torchscript':
    return write_script(path, *_script(state)).read_bytes()
  tensors, storages = of_arrays(state)
  write = {'zip': write_zip, 'stream': write_stream}[kind]
  return write(path, emit({'iteration': 3, 'generator': tensors}), storages).read_bytes()


def _script(state):
  """What `write_script` takes, of a program with the generator in it."""
  tensors, storages = of_arrays(state)
  return modules({f'model.generator.{key}': value for key, value in tensors.items()}), storages


KINDS = ('zip', 'stream', 'torchscript', 'safetensors')


@pytest.fixture(scope='module')
def contents(tmp_path_factory):
  folder = tmp_path_factory.mktemp('published')
  return {kind: _written(kind, folder / kind) for kind in KINDS}


@pytest.fixture
def server(tmp_path, monkeypatch, contents):
  """Gives the files of `contents`; 'misf/KIND' are their names, pinned by MD5."""
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path / 'cache'))
  monkeypatch.delenv('JAXINPAINT_OFFLINE', raising=False)
  monkeypatch.setenv('no_proxy', '*')
  monkeypatch.chdir(tmp_path)
  with Server({f'/{kind}.pth': content for kind, content in contents.items()}) as server:
    monkeypatch.setitem(MISF.FORMATS, 'narrow', FORMAT)
    for kind, content in contents.items():
      publish(monkeypatch, server, kind, md5=hashlib.md5(content).hexdigest())
    yield server


def publish(monkeypatch, server, name, **pin):
  file = hub.File('generator', f'{server.address}/{name}.pth', **pin)
  monkeypatch.setitem(MISF.NAMES, name, hub.Named('narrow', (file,)))


def _same(a, b):
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize('kind', KINDS)
def test_fetched_converted_and_loaded(kind, server, contents, tmp_path, capsys):
  loaded = trained.load(f'misf/{kind}')
  shown = capsys.readouterr().err
  assert shown.startswith(f'{kind}.pth: {server.address}/{kind}.pth, ')
  assert f'licence: {FORMAT.licence}' in shown
  assert f'SHA-256 {hashlib.sha256(contents[kind]).hexdigest()}' in shown
  assert ('begin with model.generator., removed' in shown) == (kind == 'torchscript')
  assert loaded.name == loaded.origin == f'misf/{kind}'
  # The same as the file imported by hand
  (tmp_path / 'own.pth').write_bytes(contents[kind])
  direct = importer.import_file(systems.published('misf'), 'own.pth', 'own', 'narrow')
  assert _same(loaded.variables, trained.load(direct).variables)
  # From now on neither the server nor the published file is asked.
  (hub.cache_folder() / 'published' / 'misf' / kind / f'{kind}.pth').unlink()
  server.files.clear()
  assert _same(trained.load(f'misf/{kind}').variables, loaded.variables)
  assert server.asked == [None] and capsys.readouterr().err == ''


def test_a_picture_is_completed_as_by_the_import_by_hand(server, contents, tmp_path):
  (tmp_path / 'own.pth').write_bytes(contents['torchscript'])
  importer.import_file(systems.published('misf'), 'own.pth', 'own', 'narrow')
  image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
  mask = np.zeros((32, 32), bool)
  mask[8:20, 9:25] = True
  got = jaxinpaint.load('misf/torchscript')(image, mask)
  np.testing.assert_array_equal(got, jaxinpaint.load('own.safetensors')(image, mask))
  np.testing.assert_array_equal(got[~mask], image[~mask])
  assert not np.array_equal(got, image)


def _nothing_converted():
  return not (hub.cache_folder() / 'weights').exists()


def test_another_digest_is_refused_before_it_is_read(server, monkeypatch):
  publish(monkeypatch, server, 'zip', md5='0' * 32)
  monkeypatch.setattr(importer.reader, 'read', None)
  with pytest.raises(store.MissingWeights, match=r'MD5 .*, not 0000.*removed'):
    trained.load('misf/zip')
  assert _nothing_converted()


@pytest.mark.parametrize('kind', KINDS)
def test_a_broken_transfer_goes_on(kind, server, contents):
  server.stops = [5000]
  with pytest.raises(store.MissingWeights, match='continued next time'):
    trained.load(f'misf/{kind}')
  assert _nothing_converted()
  trained.load(f'misf/{kind}')
  assert server.asked == [None, 'bytes=5000-']


@pytest.mark.parametrize(
  ('content', 'why'),
  [
    (b'<!DOCTYPE html><html>sign in</html>', 'web page'),
    (save({'generator.other.weight': np.zeros((2, 2), np.float32)}), "wanted 'generator' or"),
    ('half', 'damaged'),
    ('hostile', 'os.system'),
  ],
  ids=['page', 'other', 'half', 'hostile'],
)
def test_without_a_digest_the_content_decides(
  content, why, server, contents, monkeypatch, tmp_path
):
  if content == 'half':
    content = contents['torchscript'][:9000]
  if content == 'hostile':
    content = write_script(tmp_path / 'x', b'cos\nsystem\n(X\x01\x00\x00\x00atR').read_bytes()
  publish(monkeypatch, server, 'zip')
  good = server.files['/zip.pth']
  server.files['/zip.pth'] = content
  with pytest.raises(store.StoreError, match=rf'misf/zip: [\s\S]*{why}[\s\S]*remove it'):
    trained.load('misf/zip')
  folder = hub.cache_folder()
  assert [p.name for p in folder.rglob('*') if p.is_file()] == ['zip.pth']
  (folder / 'published' / 'misf' / 'zip' / 'zip.pth').unlink()
  server.files['/zip.pth'] = good
  assert trained.load('misf/zip').name == 'misf/zip'


def test_a_conversion_that_fails_leaves_nothing(server, monkeypatch):
  save_file = store.save

  def full(*_, **__):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(store, 'save', full)
  with pytest.raises(store.MissingWeights, match=r'the cache, cannot be used: .*No space'):
    trained.load('misf/zip')
  assert not names.converted('misf', 'zip').exists()
  monkeypatch.setattr(store, 'save', save_file)
  trained.load('misf/zip')
  assert server.asked == [None]
  assert [p.name for p in names.converted('misf', 'zip').parent.iterdir()] == [
    'misf_zip.safetensors'
  ]


def test_several_at_once_fetch_and_convert_once(server, monkeypatch):
  calls, convert = [], importer.import_file

  def counted(*given, **options):
    calls.append(given)
    return convert(*given, **options)

  monkeypatch.setattr(importer, 'import_file', counted)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    done = [pool.submit(fetching.require, systems.published('misf'), 'zip') for _ in range(4)]
    assert {d.result() for d in done} == {names.converted('misf', 'zip')}
  assert len(calls) == 1 and server.asked == [None]


def test_offline_a_sentence(server, monkeypatch, capsys):
  monkeypatch.setenv('JAXINPAINT_OFFLINE', '1')
  with pytest.raises(store.MissingWeights, match='JAXINPAINT_OFFLINE is set') as error:
    trained.load('misf/zip')
  assert f'{server.address}/zip.pth by hand' in str(error.value) and not server.asked
  assert cli.main(['fetch', 'misf/zip']) == 1
  assert 'weights fetch misf/zip --from FILE' in capsys.readouterr().err


def test_a_name_stands_for_weights_everywhere(server, tmp_path, capsys):
  config = config_lib.base('misf').unlock()
  config.model.update(NARROW)
  config.init_from = 'misf/zip'
  config_lib.validate(config)
  assert cli.main(['show', 'misf/zip']) == 0
  shown = capsys.readouterr().out
  assert shown.startswith('misf/zip\n') and 'SHA-256' in shown
  assert cli.main(['inspect', 'misf/stream']) == 0
  assert 'params/generator/encoder0/kernel' in capsys.readouterr().out
  assert cli.main(['fetch', 'misf/torchscript']) == 0
  place = names.converted('misf', 'torchscript')
  assert capsys.readouterr().out == f'misf/torchscript: {place}\n'
  assert cli.main(['list']) == 0
  rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
  for name, state in (
    ('misf/zip', ' here '),
    ('misf/safetensors', ' fetched at first use '),
    ('misf/celeba', ' by hand '),
  ):
    assert state in rows[name] and FORMAT.licence in rows[name]
  assert 'vgg16' in rows and 'mesff/box:' in rows
  (tmp_path / 'misf').mkdir()
  (tmp_path / 'misf' / 'zip').mkdir()
  assert trained.find('misf/zip') == (tmp_path / 'misf' / 'zip').relative_to(tmp_path)


def test_files_that_must_be_fetched_by_hand(server, contents, monkeypatch, tmp_path, capsys):
  files = (hub.by_hand('the generator', 'G.pth'), hub.by_hand('settings', 'S.json', read=_json))
  settings = dataclasses.replace(FORMAT, settings=lambda content: content)
  monkeypatch.setitem(MISF.FORMATS, 'narrow', settings)
  monkeypatch.setitem(MISF.NAMES, 'hand', hub.Named('narrow', files))
  with pytest.raises(store.MissingWeights) as error:
    trained.load('misf/hand')
  folder = hub.cache_folder() / 'published' / 'misf' / 'hand'
  for word in (FORMAT.url, f'the generator, to be {folder / "G.pth"}', f'{folder / "S.json"}'):
    assert word in str(error.value)
  assert not server.asked
  (tmp_path / 'G.pth').write_bytes(contents['zip'])
  (tmp_path / 'S.json').write_text('{}')
  (tmp_path / 'epoch9.pth').write_bytes(contents['zip'])
  assert cli.main(['fetch', 'misf/hand', '--from', 'epoch9.pth']) == 1
  assert 'G.pth (call it so)' in capsys.readouterr().err
  assert cli.main(['fetch', 'misf/hand', '--from', 'G.pth']) == 1
  error = capsys.readouterr().err
  assert f'settings, to be {folder / "S.json"}' in error and '--from for each of the' in error
  assert not hub.cache_folder().exists()
  assert cli.main(['fetch', 'misf/hand', '--from', 'G.pth', '--from', 'S.json']) == 0
  assert trained.load('misf/hand').name == 'misf/hand'


def _files():
  """{file in the cache: its bytes}."""
  folder = hub.cache_folder()
  return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_a_wrong_file_replaces_no_right_one(server, contents, monkeypatch, tmp_path, capsys):
  publish(monkeypatch, server, 'zip')  # by its keys only
  (tmp_path / 'right.pth').write_bytes(contents['zip'])
  (tmp_path / 'wrong.pth').write_bytes(save({'generator.other': np.zeros((2, 2), np.float32)}))
  assert cli.main(['fetch', 'misf/zip', '--from', 'wrong.pth']) == 1
  assert not hub.cache_folder().exists()
  assert cli.main(['fetch', 'misf/zip', '--from', 'right.pth']) == 0
  before = _files()
  assert [path.name for path in before] == ['zip.pth', 'misf_zip.safetensors']
  capsys.readouterr()
  assert cli.main(['fetch', 'misf/zip', '--from', 'wrong.pth']) == 1
  error = capsys.readouterr().err
  assert (
    'wrong.pth: this does not' in error and 'nothing was replaced' in error and '/.' not in error
  )
  assert _files() == before
  # Another right one does, in both forms
  write_script(tmp_path / 'same.pth', *_script(_state()))
  assert cli.main(['fetch', 'misf/zip', '--from', 'same.pth']) == 0
  assert _files().keys() == before.keys()
  assert not any(_files()[path] == content for path, content in before.items())
  assert _same(trained.load('misf/zip').variables, trained.load('misf/stream').variables)
  assert not server.asked[1:]


def _json(path):
  json.loads(path.read_text())


def test_a_folder_by_hand(server, monkeypatch, tmp_path):
  """TensorFlow's checkpoints are folders."""
  entries = lambda model: [
    dataclasses.replace(e, layout='same', key=f'net/{"/".join(e.path)}')
    for e in MISF.generator_entries(model)
  ]
  monkeypatch.setitem(MISF.FORMATS, 'tf', mapping.Format(entries, model=NARROW, url='http://page'))
  monkeypatch.setitem(
    MISF.NAMES, 'tf', hub.Named('tf', (hub.by_hand('the folder release', 'release'),))
  )
  tree = importer.store.load(fetching.require(systems.published('misf'), 'zip')).params
  flat = mapping.flatten(tree['generator'], separator='/')
  (tmp_path / 'theirs').mkdir()
  write_tensorflow(tmp_path / 'theirs', {f'net/{k}': v for k, v in flat.items()}, 'snap-7')
  (tmp_path / 'theirs' / 'checkpoint').write_text('model_checkpoint_path: "snap-7"\n')
  for _ in range(2):  # the second one takes the place of the first
    assert cli.main(['fetch', 'misf/tf', '--from', str(tmp_path / 'theirs')]) == 0
  assert _same(trained.load('misf/tf').variables.params, trained.load('misf/zip').variables.params)
  before = _files()
  write_tensorflow(tmp_path / 'theirs', {'net/other': np.zeros(2, np.float32)}, 'snap-7')
  assert cli.main(['fetch', 'misf/tf', '--from', str(tmp_path / 'theirs')]) == 1
  assert _files() == before


@pytest.mark.parametrize('system', systems.list_systems())
def test_the_names_of_a_system_are_complete(system):
  known = systems.published(system)
  for name in known.names:
    assert '/' not in name and '@' not in name
    found = fetching.files(known, name)
    assert found and len({f.path for f in found}) == len(found)
    for file in found:
      assert file.what and file.licence and file.url.startswith('https://')
      assert file.by_hand or file.url.rpartition('/')[2] == file.path.name
    assert systems.named(f'{system}/{name}')[1] == name
    assert names.name_of(names.converted(system, name)) == f'{system}/{name}'
