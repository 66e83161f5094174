"""Archives as people have them, of true layout and full size: from their address to a known answer.

Values are the goldens' fill, so that what comes out is what the authors' code gave.
"""

import hashlib

import goldens
import jax
import numpy as np
import pytest
from file_server import Server
from torch_bytes import modules, of_arrays, write_script

from jaxinpaint import systems, trained
from jaxinpaint.weights import hub


def _lama(x):
  return x[..., :3], x[..., 3:]


def _migan(x):
  return (x[..., 1:] + 1) / 2, 0.5 - x[..., :1]


def _constants(case):
  """Filters that the archive holds beside the weights; the manifest says their formulas."""
  taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1])
  made = {}
  for key, shape, formula in case.manifest().get('constants', ()):
    if formula.startswith('outer'):
      array = taps / (64 if '/64' in formula else 16)
    else:
      array = np.tile([[1.0, 0.0], [0.0, 0.0]], (shape[2] // 2, shape[3] // 2))
    made[key] = np.broadcast_to(array, shape).astype(np.float32)
  return made


# golden: (name, what a wrapper puts before the keys, network's input -> image and mask, reference's
# output -> in [0, 1])
ARCHIVES = {
  'lama_big_generator': ('lama/big', 'model.generator.', _lama, lambda y: y),
  'migan_generator_512': ('migan/places2-512', 'model.', _migan, lambda y: (y + 1) / 2),
}


@pytest.mark.slow
@goldens.cases(*ARCHIVES)
def test_an_archive_is_fetched_converted_and_run(case, tmp_path, monkeypatch, capsys):
  name, prefix, split, unit = ARCHIVES[case.name]
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('no_proxy', '*')
  state = {f'{prefix}{key}': value for key, value in (case.state() | _constants(case)).items()}
  tensors, storages = of_arrays(state)
  content = write_script(tmp_path / 'w.pt', modules(tensors), storages).read_bytes()
  system, short = systems.named(name)
  named = system.names[short]
  with Server({'/w.pt': content}) as server:
    file = hub.File('archive', f'{server.address}/w.pt', md5=hashlib.md5(content).hexdigest())
    names = systems.module(system.name, 'published').NAMES
    monkeypatch.setitem(names, short, hub.Named(named.format, (file,)))
    server.stops = [len(content) // 3]
    with pytest.raises(trained.MissingWeights, match='continued next time'):
      trained.load(name)
    loaded = trained.load(name)
  assert f'its keys begin with {prefix}, removed' in capsys.readouterr().err
  data = case.data()
  image, mask = split(goldens.nhwc(data['x']))
  run = jax.jit(loaded.inference.output)
  out = np.asarray(run(loaded.variables, loaded.constants, image, mask, jax.random.key(0)))
  step = out.shape[1] // data['y'].shape[-2]
  want = np.clip(unit(goldens.nhwc(data['y'])), 0, 1)
  goldens.assert_close(np.clip(out, 0, 1)[:, ::step, ::step], want)
