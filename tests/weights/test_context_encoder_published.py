"""The context encoder's published files through the import."""

import numpy as np
import pytest
from torch_bytes import emit, tensor, write_zip

from jaxinpaint import systems
from jaxinpaint.systems.context_encoder import published
from jaxinpaint.weights import importer, mapping, store

MODEL = dict(width=2, bottleneck=4, discriminator_width=2)


def write(path, state):
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[key] = tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  write_zip(path, emit({'epoch': 200, 'state_dict': tensors}), storages)


def states():
  """{network: its state dict in the code's layout}, and the tree that it was made of."""
  config = systems.default_config('context_encoder')
  config.model.update(MODEL)
  shapes = systems.make_recipe(config).shapes()
  rng = np.random.default_rng(0)
  draw = lambda tree: {
    k: draw(v) if isinstance(v, dict) else rng.normal(size=v.shape).astype(np.float32)
    for k, v in tree.items()
  }
  tree = {'params': draw(dict(shapes.params)), 'stats': draw(dict(shapes.stats))}
  made = {
    'generator': published.generator_entries(),
    'discriminator': published.discriminator_entries(),
  }
  return {name: mapping.export(tree, entries) for name, entries in made.items()}, tree


def narrow(monkeypatch):
  """The import, for networks as narrow as `states` writes."""
  format = published.FORMATS['streetview']
  monkeypatch.setitem(
    published.FORMATS, 'streetview', importer.dataclasses.replace(format, model=MODEL)
  )
  return systems.published('context_encoder')


def test_both_files_are_read_each_as_its_network(monkeypatch, tmp_path):
  own, tree = states()
  write(tmp_path / 'netG.pth', own['generator'])
  write(tmp_path / 'netlocalD.pth', own['discriminator'])
  files = [tmp_path / 'netG.pth', tmp_path / 'netlocalD.pth']
  stored = store.load(importer.import_file(narrow(monkeypatch), files, tmp_path / 'out'))
  for kind, found in (('params', stored.params), ('stats', stored.stats)):
    assert not mapping.compare({kind: found}, {kind: tree[kind]})
  got = stored.stats['generator']['batch_stats']['bottleneck_bn']['var']
  np.testing.assert_array_equal(got, own['generator']['main.15.running_var'])
  got = stored.params['generator']['deconv1']['kernel']
  np.testing.assert_array_equal(got, own['generator']['main.17.weight'].transpose(2, 3, 0, 1))


def test_a_file_of_another_system_is_refused_with_its_keys(monkeypatch, tmp_path):
  write(tmp_path / 'other.pth', {'encoder.0.weight': np.zeros((1, 1, 3, 3))})
  with pytest.raises(mapping.MappingError) as error:
    importer.import_file(narrow(monkeypatch), tmp_path / 'other.pth', tmp_path / 'out')
  assert 'encoder.0.weight' in str(error.value) and 'main.' in str(error.value)
  assert not list(tmp_path.glob('out*'))
