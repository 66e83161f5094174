"""Files laid out as MI-GAN's published ones, with all their constants, are imported."""

import jax
import numpy as np
import pytest
from torch_bytes import emit, modules, of_arrays, write_script, write_zip

from jaxinpaint import systems
from jaxinpaint.systems.migan import published, recipe
from jaxinpaint.systems.migan.networks import sides
from jaxinpaint.weights import importer, mapping, store

MODEL = dict(size=8, max_channels=2, form='merged')


def narrow():
  config = recipe.default_config()
  config.model.update(MODEL)
  config.loss.distillation = 0.0
  return config


@pytest.fixture(scope='module')
def trees():
  rng = np.random.default_rng(0)
  draw = lambda x: rng.standard_normal(x.shape, np.float32)
  return jax.tree.map(draw, systems.inference(narrow()).shapes())


def state_of(trees):
  """The state dict that a published file has, filters included."""
  state = mapping.export(trees._asdict(), published.entries(narrow().model))
  taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32)
  filters = lambda channels, scale: np.tile(taps / scale, (channels, 1, 1, 1))
  for r in sides(MODEL['size'])[1:]:
    state[f'encoder.b{r}.conv2.downsample.filter.weight'] = filters(2, 64)
    for key, channels in ((f'synthesis.b{r}.conv1', 2), (f'synthesis.b{r}', 3)):
      state[f'{key}.upsample.filter.weight'] = filters(channels, 16)
      grid = np.tile(np.float32([[1, 0], [0, 0]]), (r // 2, r // 2))
      state[f'{key}.upsample.filter_const'] = grid[None, None]
  return state


def write(path, state, script=False):
  tensors, storages = of_arrays(state)
  if not script:
    return write_zip(path, emit(tensors), storages)
  return write_script(path, modules(tensors), storages)


def imported(path, out):
  known = importer.Published('migan', published.FORMATS, narrow, systems.make_recipe)
  return store.load(importer.import_file(known, path, out, 'migan'))


@pytest.mark.parametrize('script', [False, True], ids=['state dict', 'TorchScript'])
def test_a_published_file_is_imported(trees, script, tmp_path):
  stored = imported(write(tmp_path / 'x.pt', state_of(trees), script), tmp_path / 'out')
  assert stored.config.model.form == 'merged'
  for got, want in ((stored.params, trees.params), (stored.stats, trees.stats)):
    jax.tree.map(np.testing.assert_array_equal, got, dict(want))


@pytest.mark.parametrize(
  'key', ['encoder.b8.conv2.downsample.filter.weight', 'synthesis.b8.upsample.filter_const']
)
def test_another_filter_is_refused(trees, key, tmp_path):
  state = state_of(trees)
  state[key] = 1 - state[key]
  with pytest.raises(mapping.MappingError, match=f'(?s)another in the file.*{key}'):
    imported(write(tmp_path / 'x.pt', state), tmp_path / 'out')
  assert not (tmp_path / 'out.safetensors').exists()
