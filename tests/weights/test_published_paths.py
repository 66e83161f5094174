"""Files of small LaMa, MI-GAN, MAT and Co-Mod-GAN: from a bad server to a completed picture.

The server is slow, breaks off and gives another file; the files are laid out as the published ones.
"""

import dataclasses
import hashlib

import jax
import numpy as np
import pytest
from file_server import Server
from torch_bytes import emit, modules, of_arrays, write_script, write_zip

from jaxinpaint import systems, trained
from jaxinpaint.weights import hub, mapping, names

STYLEGAN = dict(style_dim=4, mlp_layers=1, max_channels=4)
# name: (size of the picture, settings of a small network, what a traced program puts before the
# keys; None: a file of torch.save, what the published files hold besides)
FILES = {
  'lama/big': (32, dict(width=4, blocks=1), 'model.generator.', ()),
  'migan/places2-512': (32, dict(size=32, max_channels=2), 'model.', ()),
  'mat/places2-512': (
    32,
    dict(size=32, tokens=16, features=4, heads=2, depths=(1, 1, 1, 1, 1)) | STYLEGAN,
    None,
    ('synthesis.first_stage.tran.0.blocks.0.attn_mask', 'synthesis.dec.resample_filter'),
  ),
  'comodgan/places2-512': (8, dict(size=8) | STYLEGAN, None, ('synthesis.b8.resample_filter',)),
}


@pytest.mark.parametrize('name', FILES)
def test_a_file_is_fetched_from_a_bad_server_converted_and_run(name, tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path / 'cache'))
  monkeypatch.delenv('JAXINPAINT_OFFLINE', raising=False)
  monkeypatch.setenv('no_proxy', '*')
  side, model, prefix, others = FILES[name]
  system, short = systems.named(name)
  published = systems.module(system.name, 'published')
  known = published.FORMATS[system.names[short].format]
  known = dataclasses.replace(known, model=dict(known.model) | model)
  monkeypatch.setitem(published.FORMATS, 'small', known)

  config = systems.default_config(system.name).unlock()
  config.model.update(known.model)
  rng = np.random.default_rng(0)
  shapes = systems.inference(config).shapes()
  draw = lambda make: lambda x: make(size=x.shape).astype(np.float32)
  variables = shapes._replace(
    params=jax.tree.map(draw(rng.normal), shapes.params),
    stats=jax.tree.map(draw(lambda size: rng.uniform(0.5, 1.5, size)), shapes.stats),
  )
  entries = (e for e in known.entries(config.model) if e.network in shapes.params)
  state = mapping.export(variables._asdict(), entries)
  state |= {key: np.ones((2, 2), np.float32) for key in others}
  if prefix is None:
    tensors, storages = of_arrays(state)
    file = write_zip(tmp_path / 'w.pt', emit(tensors), storages)
  else:
    tensors, storages = of_arrays({f'{prefix}{key}': value for key, value in state.items()})
    file = write_script(tmp_path / 'w.pt', modules(tensors), storages)
  content = file.read_bytes()

  with Server({'/w.pt': content}) as server:

    def publish(md5):
      files = (hub.File('the generator', f'{server.address}/w.pt', md5=md5),)
      monkeypatch.setitem(published.NAMES, short, hub.Named('small', files))

    def refused(match):
      with pytest.raises(trained.MissingWeights, match=match):
        trained.load(name)
      assert not names.converted(system.name, short).exists()

    publish('0' * 32)
    refused('not 0000.*removed')
    publish(hashlib.md5(content).hexdigest())
    server.delay = 0.4
    with monkeypatch.context() as hasty:
      hasty.setattr(hub, '_TIMEOUT_SECONDS', 0.1)
      refused('timed out')
    server.delay, server.asked[:] = 0.0, []
    server.stops = [len(content) // 3]
    refused('continued next time')
    loaded = trained.load(name)
    assert server.asked == [None, f'bytes={len(content) // 3}-']

  image, mask = rng.random((1, side, side, 3), np.float32), np.zeros((1, side, side, 1), np.float32)
  mask[:, side // 4 : -side // 4, side // 4 : -side // 4] = 1
  run = jax.jit(loaded.inference.output)
  out, want = (
    run(v, loaded.constants, image, mask, jax.random.key(0)) for v in (loaded.variables, variables)
  )
  assert np.isfinite(want).all() and np.std(want) > 0.01
  np.testing.assert_array_equal(out, want)
