"""The train loop with a toy whose state remembers what it was given; a module, and a program.

python topologies.py WORKDIR IMAGES STEPS '{"mesh": {"data": 4}, "data": {}}' [COORDINATOR COUNT ID]
"""

import json
import pathlib
import sys
from unittest import mock

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import toy

from jaxinpaint import systems
from jaxinpaint.data import sources
from jaxinpaint.runtime import distributed
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import loop
from jaxinpaint.weights import checkpoints as stored_runs

BATCH, STEPS, SIZE = 8, 6, 16


def init(rng, batch):
  variables = toy.init(rng, batch)
  rows = {name: jnp.zeros((STEPS, BATCH), jnp.int32) for name in ('id', 'image', 'mask')}
  variables.stats['generator'] |= {'seen': rows | {'steps': jnp.zeros((), jnp.int32)}}
  return variables


def _sum(x, scale):
  """i32[B] of f32[B,H,W,C]: whole numbers, so that no order of summation can change them."""
  x = jnp.round(x * scale).astype(jnp.int32)
  places = np.random.default_rng(7).integers(1, 1 << 15, x.shape[1:], np.int32)
  return (x * places).sum((1, 2, 3))


def forward(variables, constants, batch, rng):
  outputs, new = toy.forward(variables, constants, batch, rng)
  seen = variables.stats['generator']['seen']
  step = seen['steps']
  given = dict(id=batch['id'], image=_sum(batch['image'], 255), mask=_sum(batch['mask'], 1))
  rows = {name: seen[name].at[step].set(value) for name, value in given.items()}
  new['generator'] |= {'seen': rows | {'steps': step + 1}}
  return outputs, new


def recipe():
  from jaxinpaint.recipe import Inference, Phase, Recipe

  joint = Phase('joint', -1, forward, (toy.GENERATOR, toy.CRITIC))
  inference = Inference(
    ('generator',), init, lambda variables, constants, image, *rest, **kw: image
  )
  return Recipe(inference, ('generator', 'critic'), init, (joint,))


def folder(path, count=11):
  """So many small pictures; the length is no multiple of the batch's, so that epochs end in it."""
  rng = np.random.default_rng(0)
  path.mkdir(parents=True)
  for i in range(count):
    image = rng.integers(0, 255, (SIZE + 4, SIZE + 8, 3), np.uint8)
    cv2.imwrite(str(path / f'{i:04}.png'), image)
  return path


def config(images, steps, mesh, data=None):
  c = config_lib.quicktest(config_lib.base('mesff'))
  with c.unlocked():
    c.optimizers.generator = dict(name='adam', learning_rate=1e-2)
    c.optimizers.critic = dict(name='sgd', learning_rate=1e-2)
  c.data.update(dict(source=f'folder:{images}', size=SIZE, batch_size=BATCH) | (data or {}))
  c.training.update(dict(steps=steps, ema_decay=0.5, sample_every=0, evaluate_every=0, log_every=1))
  c.training.mesh.update(dict(fsdp_min_size=1) | mesh)
  c.checkpoint.update(dict(every=1000, keep=9, best=''))
  return c


def train(workdir, images, steps, mesh, data=None):
  """`loop.train` up to step `steps`, from the newest checkpoint of the workdir."""
  with mock.patch.object(systems, 'make_recipe', lambda config: recipe()):
    return loop.train(config(images, steps, mesh, data), workdir)


def stored(workdir, step):
  """({name: i32[step, BATCH]} of what was seen, {path: array} of all else)."""
  path = pathlib.Path(workdir).absolute() / 'checkpoints' / str(step)
  items = {n: stored_runs.read_item(path / n, None) for n in ('params', 'stats', 'opt', 'ema')}
  seen = items['stats']['generator'].pop('seen')
  assert int(seen.pop('steps')) == step
  rest = jax.tree_util.tree_leaves_with_path(items)
  return (
    {name: np.asarray(rows)[:step] for name, rows in seen.items()},
    {jax.tree_util.keystr(p): np.asarray(x) for p, x in rest},
  )


if __name__ == '__main__':
  workdir, images, steps, settings, *cluster = sys.argv[1:]
  settings, reads, index = json.loads(settings), [], '0'
  if cluster:
    coordinator, count, index = cluster
    distributed.initialize(coordinator, int(count), int(index))
  read = sources.FileSource.__getitem__
  sources.FileSource.__getitem__ = lambda self, i: reads.append(int(i)) or read(self, i)
  train(workdir, images, int(steps), settings['mesh'], settings.get('data'))
  pathlib.Path(f'{workdir}.reads.{index}').write_text(json.dumps(reads))
