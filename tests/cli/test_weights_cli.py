"""`jaxinpaint weights` on a system of two layers."""

import types

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from safetensors.numpy import save_file
from tensorflow_bytes import write as write_tensorflow
from torch_bytes import call, emit, tensor, write_stream, write_zip

from jaxinpaint import systems
from jaxinpaint.cli import weights as cli
from jaxinpaint.recipe import Inference, Recipe, Variables
from jaxinpaint.runtime import digest
from jaxinpaint.weights import importer, mapping, store

GENERATOR = {'conv.weight': (2, 3, 1, 1), 'conv.bias': (2,)}
DISCRIMINATOR = {'conv.weight_orig': (4, 3, 1, 1), 'conv.weight_u': (4,), 'conv.weight_v': (3,)}


def _init(rng, batch):
  params = {
    'generator': {'conv': {'kernel': jnp.zeros((1, 1, 3, 2)), 'bias': jnp.zeros(2)}},
    'discriminator': {'conv': {'kernel': jnp.zeros((1, 1, 3, 4))}},
  }
  stats = {'discriminator': {'spectral': {'conv': {'u': jnp.zeros(4), 'v': jnp.zeros(3)}}}}
  return Variables(params, stats)


def _entries(model):
  return (
    *mapping.conv('conv', 'generator', ('conv',), bias=model.bias),
    *mapping.sn_conv('conv', 'discriminator', ('conv',), bias=False),
  )


TOY = {
  'published': types.SimpleNamespace(
    FORMATS={
      'old': mapping.Format(lambda model: mapping.conv('gone', 'generator', ('conv',))),
      'new': mapping.Format(
        _entries,
        unwrap=('generator', 'discriminator'),
        ignore=(r'^unused\.',),
        note='two files',
        licence='CC0',
        url='https://example.org/toy',
        model={'bias': True},
      ),
    }
  ),
  'recipe': types.SimpleNamespace(
    default_config=lambda: ml_collections.ConfigDict(
      {'system': 'toy', 'dtype': 'float32', 'model': {'bias': False}, 'loss': {}}
    ).lock(),
    make=lambda config: Recipe(
      Inference(('generator',), _init, lambda *_: None), ('generator', 'discriminator'), _init, ()
    ),
  ),
}


@pytest.fixture
def toy(monkeypatch):
  module = systems.module
  monkeypatch.setattr(systems, 'module', lambda s, p: TOY[p] if s == 'toy' else module(s, p))


def _content(state, network, iteration=7):
  storages, tensors = {}, {}
  for i, (key, shape) in enumerate(state.items()):
    array = np.arange(np.prod(shape), dtype='<f4') + i
    stride = tuple(s // 4 for s in array.reshape(shape).strides)
    tensors[key] = tensor(str(i), array.size, shape, stride)
    storages[str(i)] = array.tobytes()
  return emit({'iteration': iteration, network: tensors} if network else tensors), storages


@pytest.fixture
def files(tmp_path):
  write_zip(tmp_path / 'gen.pth', *_content(GENERATOR | {'unused.w': (1,)}, 'generator'))
  multi_gpu = {f'module.{k}': v for k, v in DISCRIMINATOR.items()}
  write_zip(tmp_path / 'dis.pth', *_content(multi_gpu, 'discriminator'))
  write_zip(tmp_path / 'bare.pth', *_content(GENERATOR, None))
  return tmp_path


def _run(capsys, *arguments):
  status = cli.main([str(a) for a in arguments])
  return status, *capsys.readouterr()


def test_import_of_one_network(toy, files, capsys):
  status, out, _ = _run(capsys, 'import', 'toy', files / 'gen.pth', files / 'toy')
  assert status == 0
  assert 'generator: 8 parameters in 2 arrays' in out and 'CC0' in out
  stored = store.load(files / 'toy')
  assert list(stored.params) == ['generator'] and stored.stats == {}
  want = np.arange(6).reshape(2, 3).T
  np.testing.assert_array_equal(stored.params['generator']['conv']['kernel'][0, 0], want)
  assert stored.config.model.bias is True
  source = stored.meta['source']
  assert source['format'] == 'new' and source['url'] == 'https://example.org/toy'
  assert source['files'] == [{'name': 'gen.pth', 'sha256': digest.of_file(files / 'gen.pth')}]


def test_import_of_both_networks(toy, files, capsys):
  order = (files / 'dis.pth', files / 'gen.pth')
  assert _run(capsys, 'import', 'toy', *order, files / 'x.safetensors')[0] == 0
  stored = store.load(files / 'x')
  assert sorted(stored.params) == ['discriminator', 'generator']
  u = stored.stats['discriminator']['spectral']['conv']['u']
  np.testing.assert_array_equal(u, np.arange(4) + 1)


def test_import_of_a_state_dict_without_its_wrapping(toy, files):
  path = importer.import_file(systems.published('toy'), files / 'bare.pth', files / 'x')
  assert list(store.load(path).params) == ['generator']


def test_import_of_a_tensorflow_checkpoint(toy, tmp_path, capsys, monkeypatch):
  entry = lambda name, leaf: mapping.Entry(f'net/conv/{name}', 'generator', ('conv', leaf))
  entries = (entry('kernel', 'kernel'), entry('biases', 'bias'))
  published = types.SimpleNamespace(
    FORMATS={'tf': mapping.Format(lambda model: entries, ignore=(r'/Adam(_1)?$', '^global_step$'))}
  )
  monkeypatch.setitem(TOY, 'published', published)
  kernel = np.arange(6, dtype=np.float32).reshape(1, 1, 3, 2)  # already as it is here
  arrays = {'net/conv/kernel': kernel, 'net/conv/biases': np.ones(2), 'global_step': np.ones(())}
  arrays['net/conv/kernel/Adam'] = kernel
  prefix = write_tensorflow(tmp_path, arrays, 'snap-0')
  status, out, _ = _run(capsys, 'import', 'toy', prefix, tmp_path / 'x')
  assert status == 0 and 'generator: 8 parameters' in out
  stored = store.load(tmp_path / 'x')
  np.testing.assert_array_equal(stored.params['generator']['conv']['kernel'], kernel)
  names = ['snap-0.index', 'snap-0.data-00000-of-00001']
  want = [{'name': n, 'sha256': digest.of_file(tmp_path / n)} for n in names]
  assert stored.meta['source']['files'] == want
  status, out, _ = _run(capsys, 'inspect', tmp_path)
  assert status == 0 and ['net/conv/kernel', '1x1x3x2', 'float32'] in map(
    str.split, out.split('\n')
  )


@pytest.mark.parametrize(
  ('names', 'why'),
  [
    (['dis.pth'], 'not the generator'),
    (['gen.pth', 'gen2.pth'], 'the generator is in gen.pth and again in gen2.pth'),
    (['foreign.safetensors'], "wanted 'generator' or 'discriminator' at the top of the file"),
    (['wide.pth'], '(1, 1, 5, 2) in the file, (1, 1, 3, 2) in the network'),
    (['other.pth'], 'conv.bias'),
    (['hostile.pth'], 'os.system'),
    (['nowhere.pth'], 'no such file'),
  ],
)
def test_wrong_files_are_refused_and_nothing_is_written(names, why, toy, files, capsys):
  (files / 'gen2.pth').write_bytes((files / 'gen.pth').read_bytes())
  save_file({'a': np.zeros(1, np.float32)}, files / 'foreign.safetensors')
  wide = GENERATOR | {'conv.weight': (2, 5, 1, 1)}
  write_zip(files / 'wide.pth', *_content(wide, 'generator'))
  write_zip(files / 'other.pth', *_content({'enc.weight': (2, 3, 1, 1)}, 'generator'))
  write_stream(files / 'hostile.pth', call('os.system', 'true'))
  status, out, err = _run(capsys, 'import', 'toy', *(files / n for n in names), files / 'x')
  assert (status, out) == (1, '')
  assert why in err and err.startswith('jaxinpaint weights import: ')
  assert not list(files.glob('x*'))


def test_import_keeps_what_exists(toy, files, capsys):
  arguments = ('import', 'toy', files / 'gen.pth', files / 'x')
  assert _run(capsys, *arguments)[0] == 0
  status, _, err = _run(capsys, *arguments)
  assert status == 1 and 'allow overwriting' in err
  # ... and says so before it reads anything
  status, _, err = _run(capsys, 'import', 'toy', files / 'nowhere.pth', files / 'x')
  assert status == 1 and 'allow overwriting' in err
  assert _run(capsys, *arguments, '--overwrite')[0] == 0


@pytest.mark.parametrize(
  ('arguments', 'why'),
  [
    (['toy', 'gen.pth'], 'the last argument is the file to write'),
    (['toy', 'gen.pth', 'dis.pth'], 'the last argument is the file to write'),
    (['toy', 'gen.pth', 'x', '--format', 'newer'], "no format 'newer'; there are: old, new"),
    (['toi', 'gen.pth', 'x'], "unknown system 'toi'; there are: "),
  ],
)
def test_wrong_arguments(arguments, why, toy, files, capsys, monkeypatch):
  monkeypatch.chdir(files)
  status, _, err = _run(capsys, 'import', *arguments)
  assert status == 1 and why in err


def test_inspect(files, capsys):
  status, out, _ = _run(capsys, 'inspect', files / 'gen.pth')
  lines = [line.split() for line in out.splitlines()]
  assert status == 0
  assert ['generator.conv.weight', '2x3x1x1', 'float32'] in lines
  assert ['iteration', 'int'] in lines
  (files / 'x').write_text('no weights')
  status, _, err = _run(capsys, 'inspect', files / 'x')
  assert status == 1 and 'refused' in err


def test_list(toy, capsys, monkeypatch):
  monkeypatch.setattr(systems, 'list_systems', lambda: ['toy'])
  monkeypatch.setattr(systems.importlib.util, 'find_spec', lambda name: name)
  status, out, _ = _run(capsys, 'list')
  assert status == 0
  assert 'toy (new): two files' in out
  assert 'https://example.org/toy' in out and 'CC0' in out
  monkeypatch.setattr(systems.importlib.util, 'find_spec', lambda name: None)
  assert 'toy: no published weights' in _run(capsys, 'list')[1]


def test_a_name_or_a_system_is_listed_alone(capsys):
  def listed(*name, command=('fetch', '--list')):
    assert cli.main([*command, *name]) == 0
    return capsys.readouterr().out.splitlines()

  one = listed('migan/ffhq-256')
  assert [line.split()[0] for line in one[:2]] == ['migan/ffhq-256'] * 2
  assert 'licence' in one[0] and 'published/migan/ffhq-256' in one[1] and 'http' in one[2]
  assert len(one) == 3 and listed('migan/ffhq-256', command=['list']) == one
  names = [line.split()[0] for line in listed('lama')]
  assert names == [f'lama/{name}' for name in systems.published('lama').names]
  assert len(listed('vgg19')) == 2 and listed('vgg19')[0].startswith('vgg19 ')
  assert 'comes with the library' in listed('mesff/box')[0]
  whole = listed()
  assert set(one[:1]) < set(whole) and len(whole) > 20


@pytest.mark.parametrize(
  ('name', 'said'),
  [('lmaa', 'near names: lama'), ('lama/bgi', 'near names: lama/big, '), ('x', 'lists all')],
)
def test_a_name_that_cannot_be_listed_is_told_with_its_neighbours(name, said, capsys):
  assert cli.main(['fetch', '--list', name]) == 1
  printed = capsys.readouterr()
  assert said in printed.err and not printed.out


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('lama/unheard-of', 'near names: lama/big, '),
    ('lama/bgi', "called 'lama/bgi'; near names: lama/big"),
    ('lmaa/big', 'near names: lama/big'),
    ('vgg61', 'near names: vgg19, vgg16'),
    ('nope/nope', "nothing to fetch is called 'nope/nope'; `jaxinpaint weights list` lists all"),
  ],
)
def test_a_name_that_cannot_be_fetched_is_told_with_its_neighbours(name, said, capsys):
  assert cli.main(['fetch', name]) == 1
  error = capsys.readouterr().err
  assert said in error and len(error) < 250


@pytest.mark.parametrize(
  ('words', 'said'),
  [(('--list', 'lama'), 'leave one of them out'), (('mesff/box',), 'leave --from out')],
)
def test_where_nothing_is_fetched_a_file_is_refused(words, said, capsys):
  assert cli.main(['fetch', *words, '--from', 'big-lama.zip']) == 1
  printed = capsys.readouterr()
  assert said in printed.err and not printed.out


def test_errors_of_the_system_are_no_numbers(toy, files, capsys):
  status, _, err = _run(capsys, 'import', 'toy', files / 'gen.pth', files / 'gen.pth' / 'x')
  assert status == 1 and err == f'jaxinpaint weights import: {files / "gen.pth"}: File exists\n'
  status, _, err = _run(capsys, 'import', 'toy', files / 'gen.pth', '')
  assert status == 1 and 'names no file' in err
  status, _, err = _run(capsys, 'show', files / 'nowhere.pth')
  assert status == 1 and 'there are no weights at' in err
