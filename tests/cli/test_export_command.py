"""`jaxinpaint export`: a system becomes one file, and what is wrong is a sentence."""

import json
import pathlib
import re
import shlex
import sys
import zipfile

import jax
import numpy as np
import pytest

from jaxinpaint import systems, trained
from jaxinpaint.cli import export
from jaxinpaint.exporting import function
from jaxinpaint.weights import store


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A small MISF as a file."""
  config = systems.default_config('misf')
  config.model.update(dict(width=4, blocks=1))
  shapes = systems.inference(config).shapes()
  params, stats = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), shapes)
  about = {'licence': 'CC0', 'notes': ['a note']}
  path, source = tmp_path_factory.mktemp('weights') / 'misf', {'step': 5}
  return store.save(path, 'misf', config, params, stats, source=source, about=about)


def call(capsys, *arguments):
  try:
    status = export.main([str(a) for a in arguments])
  except SystemExit as end:
    status = end.code
  return status, *capsys.readouterr()


def test_a_program_for_one_size_and_platform(weights, tmp_path, capsys):
  path = tmp_path / 'x.stablehlo'
  flags = ('--size', '32x64', '--batch', 2, '--platforms', 'cuda', '--seed', 3)
  arguments = ('--weights', weights, '--to', 'stablehlo', '--output', path, *flags)
  status, out, _ = call(capsys, *arguments)
  assert status == 0
  assert f'wrote {path}' in out and 'image f32[2, 32, 64, 3]' in out and 'licence: CC0' in out
  with zipfile.ZipFile(path) as file:
    card = json.loads(file.read('card.json'))
  assert (card['shape'], card['platforms']) == (['2', '32', '64', '3'], ['cuda'])
  before = path.read_bytes()
  status, _, error = call(capsys, *arguments)
  assert status == 2 and 'exists: choose another name, or add --overwrite' in error
  assert path.read_bytes() == before
  assert call(capsys, *arguments[:-4], '--platforms', 'cpu', '--overwrite')[0] == 0
  with zipfile.ZipFile(path) as file:
    assert json.loads(file.read('card.json'))['platforms'] == ['cpu']


def test_saved_weights_keep_their_card_and_get_the_conventions(weights, tmp_path, capsys):
  path = tmp_path / 'new' / 'y.safetensors'
  arguments = ('--weights', weights, '--to', 'savedweights', '--output', path)
  status, out, _ = call(capsys, *arguments)
  assert status == 0 and 'generator' in out and 'licence: CC0' in out
  old, new = store.load(weights), store.load(path)
  jax.tree.map(np.testing.assert_array_equal, (old.params, old.stats), (new.params, new.stats))
  kept = ('licence', 'notes', 'source', 'config', 'stored_as')
  assert [new.meta[name] for name in kept] == [old.meta[name] for name in kept]
  assert new.meta['conventions']['sizes']['multiple'] == trained.load(path).inference.multiple


def test_without_weights_it_is_the_default_and_keeps_its_type(tmp_path, capsys):
  path = tmp_path / 'box.safetensors'
  assert call(capsys, '--to', 'savedweights', '--output', path)[0] == 0
  card = store.load(path).meta
  assert card['system'] == 'mesff' and card['stored_as'] == 'float16' and card['results']


def test_mistakes_are_sentences_and_write_nothing(weights, tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'jaxinpaint.exporting.onnx', None)
  to = lambda format, name: ('--to', format, '--output', tmp_path / name)
  (tmp_path / 'folder.stablehlo').mkdir()
  (tmp_path / 'there.safetensors').write_bytes(b'mine')
  of = ('--weights', weights)
  for arguments, why in (
    ((), 'give --to, --output'),
    (('--to', 'stablehlo'), 'give --output'),
    (to('tflite', 'x'), 'invalid choice'),
    (to('stablehlo', 'x.onnx'), 'must end in .stablehlo for --to stablehlo: give x.stablehlo'),
    (to('onnx', 'x'), 'must end in .onnx'),
    (to('stablehlo', 'folder.stablehlo'), 'is a folder'),
    (to('savedweights', 'there.safetensors'), 'add --overwrite'),
    (('--weights', tmp_path / 'none', *to('stablehlo', 'x.stablehlo')), 'there are no weights at'),
    (('--weights', 'mesff/bx', *to('savedweights', 'x.safetensors')), 'there are no weights at'),
    ((*of, *to('stablehlo', 'x.stablehlo'), '--size', '30'), 'multiples of 4 and at least'),
    ((*to('stablehlo', 'x.stablehlo'), '--size', '0'), '384x512'),
    ((*to('stablehlo', 'x.stablehlo'), '--size', 'big'), '384x512'),
    ((*to('stablehlo', 'x.stablehlo'), '--batch', '0'), 'at least 1'),
    ((*to('stablehlo', 'x.stablehlo'), '--platforms', 'cpu,gpu'), 'some of cpu,cuda,rocm,tpu'),
    ((*to('onnx', 'x.onnx'), '--platforms', 'cpu'), '--platforms goes with --to stablehlo'),
    ((*to('savedweights', 'x.safetensors'), '--size', '64'), '--size goes with'),
    ((*of, *to('onnx', 'x.onnx')), "pip install 'jaxinpaint[export]'"),
    (
      ('--weights', weights, *to('savedweights', 'there.safetensors/x.safetensors')),
      'there.safetensors: ',
    ),
    (to('stablehlo', 'x.stablehlo'), 'mesff/box cannot be exported for any size'),
  ):
    status, out, error = call(capsys, *arguments)
    assert (status, out) == (2, '') and why in error, arguments
    assert error.startswith('jaxinpaint export: ') and error.count('\n') == 1, arguments
  assert sorted(p.name for p in tmp_path.iterdir()) == ['folder.stablehlo', 'there.safetensors']


def test_examples_say_the_size_that_the_box_needs():
  document = pathlib.Path(__file__).parents[2] / 'docs' / 'export.md'
  box = function.build(trained.load('mesff/box'))
  for text in (document.read_text(), export.__doc__):
    lines = re.findall(r'^ +jaxinpaint export (.*mesff/box --to (?:onnx|stablehlo).*)$', text, re.M)
    assert len(lines) >= 2
    for line in lines:
      flags = dict(zip(*[iter(shlex.split(line))] * 2, strict=True))
      assert '--size' in flags, line
      box.check_size(int(flags['--size']), int(flags['--size']))
