"""Short runs of real systems on any mesh, for the tests that compare them.

  python tests/training/meshes.py SYSTEM MESH STEPS OUT.npz [WORKDIR [EVERY]]

is one process of such a run (see `jaxinpaint.distributed` for how processes find each other); the
first writes what all of them hold.
"""

import importlib
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent.parent


SYSTEMS = ('mesff', 'deepfillv1', 'glcic')


def config_of(system, mesh=None, steps=5, **training):
  """A narrow run of the published experiment: every phase and loss that needs no other weights."""
  sys.path.insert(0, str(ROOT)) if str(ROOT) not in sys.path else None
  name = dict(mesff='folder_mesff', deepfillv1='places2_deepfillv1', glcic='celeba_glcic')[system]
  config = importlib.import_module(f'configs.{name}').get_config('quicktest')
  if system == 'mesff':
    config.model.update(dict(width=4, attention_size=16, attention_hidden=4))
    config.loss.discriminator_width = 4
    config.data.size = 40
  if system == 'glcic':
    config.model.update(dict(width=4, discriminator_features=8, image_size=64))
    config.phases.update(dict(completion=2, discriminator=1, joint=steps - 3))
  if system == 'deepfillv1':
    config.model.update(dict(width=4, critic_width=4))
    config.phases.update(dict(coarse=1, joint=steps - 1))
  config.data.batch_size = 8
  config.training.update(dict(steps=steps, log_every=1, sample_every=0, evaluate_every=0))
  config.training.update(training)
  config.training.mesh.update(mesh or dict(data=1))
  config.checkpoint.update(dict(every=10**6, keep=9, keep_every=0, best=''))
  config.evaluation.at_end = False
  return config


def steps_of(run, count):
  """Takes `count` steps; returns (state, the metrics of every step, the batches), on the device."""
  from jaxinpaint.training import sharding

  metrics, batches = [], []
  for step in range(int(run.state.step), int(run.state.step) + count):
    batch = sharding.to_devices(next(run.batches), run.mesh)
    batches.append(batch)
    plan = run.recipe.plan(step)
    run.state, values = run.train_step(run.state, run.constants, batch, run.rng, plan)
    metrics.append(values)
  return run.state, metrics, batches


def everything(state, metrics, batches):
  """{path: array} of what a run made, whole on this host; all processes call it."""
  import jax
  import numpy as np
  from jax.experimental import multihost_utils

  def whole(x):
    if x.is_fully_addressable or x.is_fully_replicated:
      return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))

  tree = {'state': state, 'metrics': metrics, 'batches': batches}
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): whole(leaf) for path, leaf in flat}


def run(system, mesh, steps=5, workdir=None, **training):
  """`everything` of a run that is stepped by hand."""
  from jaxinpaint.training import loop

  with tempfile.TemporaryDirectory() as folder:
    prepared = loop.prepare(
      config_of(system, mesh, steps, **training), pathlib.Path(workdir or folder)
    )
    try:
      return everything(*steps_of(prepared, steps))
    finally:
      prepared.batches.close()
      prepared.checkpoints.close()
