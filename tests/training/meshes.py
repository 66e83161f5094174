"""Trains the same few steps on whatever devices there are; a module of the tests, and a program.

python meshes.py OUT.npz SYSTEM '{"data": 2}' COORDINATOR NUM_PROCESSES PROCESS_ID
"""

import json
import pathlib
import sys

import jax
import numpy as np

from jaxinpaint import distributed, systems
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import preparation, sharding


def small(system, **mesh):
  """A narrow system at 64 px, batch 8, by plain gradient descent.

  Adam divides gradients by their size and so makes of a rounding difference of a gradient near zero
  one of a whole step; with SGD a difference stays what it is.
  """
  config = config_lib.quicktest(config_lib.base(system))
  with config.unlocked():
    for name in systems.make_recipe(config).optimizers:
      config.optimizers[name] = dict(name='sgd', learning_rate=1e-2)
  if system == 'mesff':
    config.model.update(dict(width=4, blocks=1, attention_size=16, attention_hidden=4))
    config.loss.update(dict(adversarial=0.1, perceptual=0.0, style=0.0, discriminator_width=4))
    config.training.steps = 5
  config.training.update(dict(ema_decay=0.5, sample_every=0, evaluate_every=0, log_every=1))
  config.training.mesh.update(mesh)
  config.checkpoint.update(dict(every=1000, best=''))
  return config


def train(config, workdir, steps=5):
  """({'STEP/TERM': number}, {path: array}) of a few steps."""
  run = preparation.prepare(config, pathlib.Path(workdir))
  losses = {}
  for i in range(steps):
    batch = sharding.to_devices(next(run.batches), run.mesh)
    run.state, metrics = run.train_step(
      run.state, run.constants, batch, run.rng, run.recipe.plan(i)
    )
    losses |= {f'{i}/{k}': float(v) for k, v in metrics.items()}
  run.batches.close()
  run.checkpoints.close()
  return losses, arrays_of(run.state.params)


def arrays_of(tree):
  def whole(x):
    if not x.is_fully_addressable:
      from jax.experimental import multihost_utils

      return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)

  return {jax.tree_util.keystr(p): whole(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def largest_difference(a, b):
  return max(float(np.abs(a[k] - b[k]).max()) for k in a.keys() | b.keys())


if __name__ == '__main__':
  out, system, mesh, coordinator, count, index = sys.argv[1:]
  distributed.initialize(coordinator, int(count), int(index))
  losses, params = train(small(system, **json.loads(mesh)), f'{out}.run')
  if index == '0':
    np.savez(out, **{f'loss:{k}': v for k, v in losses.items()}, **params)
