"""One way in for weights: what is found, and the sentence for what is not."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems, trained
from jaxinpaint.training import config as config_lib
from jaxinpaint.training.checkpoints import Checkpoints
from jaxinpaint.training.state import TrainState
from jaxinpaint.weights import store
from jaxinpaint.weights.store import MissingWeights, StoreError


def narrow():
  """The config of a system small enough to be written in no time."""
  config = config_lib.base('misf').unlock()
  config.model.update(dict(width=4, blocks=1))
  return config


def numbers(tree, value):
  if hasattr(tree, 'items'):
    return {k: numbers(v, value) for k, v in tree.items()}
  return np.full(tree.shape, value, tree.dtype)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with a run of two checkpoints, the second with averages, and a weights file."""
  folder = tmp_path_factory.mktemp('weights')
  config = narrow()
  params, stats = systems.make_recipe(config).shapes()
  saver = Checkpoints(folder / 'run')
  for step, ema in ((3, {}), (5, {'generator': numbers(params['generator'], 0.5)})):
    state = TrainState(jnp.int32(step), numbers(params, step), numbers(stats, 0), {}, ema)
    saver.save(state, config, {})
  saver.close()
  pick = lambda tree: {n: numbers(t, 2) for n, t in tree.items() if n == 'generator'}
  store.save(folder / 'file.safetensors', 'misf', config, pick(params), pick(stats))
  return folder


def value(found):
  """The number that fills all parameters."""
  leaf = found.variables.params['generator']
  while hasattr(leaf, 'items'):
    leaf = next(iter(leaf.values()))
  return float(np.ravel(leaf)[0])


@pytest.mark.parametrize(
  ('path', 'step', 'number', 'origin'),
  [
    ('run', None, 0.5, 'run, step 5'),
    ('run', 3, 3, 'run, step 3'),
    ('run@3', None, 3, 'run, step 3'),
    ('run@5', None, 0.5, 'run, step 5'),
    ('file.safetensors', None, 2, 'file.safetensors'),
    ('file', None, 2, 'file'),
  ],
)
def test_runs_steps_and_files(place, monkeypatch, path, step, number, origin):
  monkeypatch.setenv('HOME', str(place))
  found = trained.load(f'~/{path}', step)
  assert value(found) == number and set(found.variables.params) == {'generator'}
  assert found.origin == f'{place}/{origin}' and found.config.model.width == 4
  assert found.name == f'misf ({origin})' and found.constants == {}


def stored_with(system='misf', **fields):
  """A copy of the weights file with another system or other fields in its config's model."""

  def make(place, tmp_path):
    stored = store.load(place / 'file')
    config = stored.config.unlock()
    config.model.update(fields)
    return store.save(tmp_path / 'x', system, config, stored.params, stored.stats)

  return make


def damaged_file(place, tmp_path):
  (tmp_path / 'x.safetensors').write_bytes((place / 'file.safetensors').read_bytes()[:-1] + b'x')
  return tmp_path / 'x'


def written(name, data=b'x'):
  def make(place, tmp_path):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name

  return make


def broken_run(place, tmp_path):
  import shutil

  shutil.copytree(place / 'run', tmp_path / 'run')
  file = next(p for p in (tmp_path / 'run/checkpoints/5/params').rglob('d/*'))
  file.write_bytes(file.read_bytes()[:9])
  return tmp_path / 'run'


def another_network(place, tmp_path):
  stored = store.load(place / 'file')
  return store.save(tmp_path / 'y', 'misf', stored.config, {'critic': stored.params['generator']})


MISTAKES = {
  'nothing': (lambda p, t: p / 'none', MissingWeights, r'no weights at .*none.*file\.safetensors'),
  'no folder': (lambda p, t: t / 'a/b', MissingWeights, 'the path exists up to'),
  'no run at step': (lambda p, t: f'{t}/none@7', MissingWeights, 'no weights at .*none'),
  'no such step': (lambda p, t: f'{p}/run@4', MissingWeights, r'no checkpoint of step 4.*\[3, 5\]'),
  'no step': (lambda p, t: f'{p}/run@new', StoreError, "must be the step .* not 'new'"),
  'two steps': (lambda p, t: (f'{p}/run@3', 5), StoreError, 'names step 3, but step 5'),
  'step of a file': (lambda p, t: (p / 'file', 3), StoreError, 'step 3 was given'),
  'no run': (lambda p, t: p, StoreError, r'no workdir .*file\.safetensors'),
  'a checkpoint': (lambda p, t: p / 'run/checkpoints/3', StoreError, r'is called .*run@3'),
  'foreign': (written('net.pth'), StoreError, r'jaxinpaint weights import SYSTEM .*pth'),
  'unknown ending': (written('net.txt'), StoreError, 'not a weights file .* and no workdir'),
  'no json': (written('net.safetensors'), StoreError, r'no net\.json beside it'),
  'damaged run': (broken_run, StoreError, r'damaged.*other steps here: \[3\]'),
  'damaged file': (damaged_file, StoreError, 'damaged'),
  'system': (
    stored_with('nothing'),
    StoreError,
    r"x\.safetensors is not one that this version knows: unknown system 'nothing'.*mesff",
  ),
  'field': (
    stored_with(depth=3),
    StoreError,
    r'x\.safetensors is not one that this version knows: .*depth',
  ),
  'other networks': (stored_with(width=8), StoreError, r'(?s)x.*do not fit.*in the network'),
  'no network': (another_network, StoreError, 'lacks the networks generator'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_one_kind_of_error_says_what_is_wrong(place, tmp_path, mistake):
  make, error, words = MISTAKES[mistake]
  given = make(place, tmp_path)
  with pytest.raises(error, match=words):
    trained.load(*(given if isinstance(given, tuple) else (given,)))


def test_a_weights_file_is_loaded_without_the_libraries_of_training(place):
  code = (
    'import sys, jaxinpaint; jaxinpaint.load(sys.argv[1]); '
    "heavy = {'orbax', 'optax', 'grain', 'tensorflow_datasets', 'tensorflow', 'clu', 'skimage'}; "
    'assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(place / 'file')], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
