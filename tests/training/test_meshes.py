"""The same training on one device, many, and several processes; what the program exchanges."""

import functools
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest

from benchmarks import scaling
from jaxinpaint import distributed
from jaxinpaint.training import preparation, program, sharding

ROOT = pathlib.Path(__file__).parent.parent.parent
MESHES = (
  dict(data=8),
  dict(data=4, fsdp=2, fsdp_min_size=1024),
  dict(data=2, spatial=4),
)
# Largest difference of a parameter after five steps of SGD at 0.01, and of a loss relative to its
# size. The batch norms of a GLCIC this narrow divide by deviations near zero, which magnifies
# rounding: 2e-4 was measured, where the others had 2e-8.
PARAMETERS = dict(mesff=1e-6, deepfillv1=1e-6, glcic=1e-3)
LOSSES = 1e-3


def check_equal(system, one, many):
  losses, params = one
  assert meshes.largest_difference(params, many[1]) < PARAMETERS[system]
  assert losses.keys() == many[0].keys()
  for name, value in losses.items():
    np.testing.assert_allclose(many[0][name], value, rtol=LOSSES, atol=1e-4, err_msg=name)


def compiled_step(tmp_path, **mesh):
  run = preparation.prepare(meshes.small('mesff', **mesh), tmp_path / 'run')
  batch = sharding.to_devices(next(run.batches), run.mesh)
  lowered = run.train_step.lower(run.state, run.constants, batch, run.rng, run.recipe.plan(0))
  run.batches.close()
  run.checkpoints.close()
  return run, lowered.compile()


def test_a_data_parallel_step_exchanges_its_gradients_once(tmp_path):
  run, compiled = compiled_step(tmp_path, data=8)
  found = program.collectives(compiled)
  # Generator and discriminator are updated from one state, so their gradients travel together.
  assert [c.kind for c in found] == ['all-reduce'], program.summary(found)
  # As docs/scaling.md counts them; beside them travel the terms of the losses, a number each.
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  wanted = scaling.gradient_bytes({n: count(p) for n, p in run.state.params.items()})
  assert abs(found[0].bytes - wanted) < 1000, (found[0].bytes, wanted)
  assert not program.host_transfers(compiled)


def test_a_step_over_image_rows_exchanges_rows_on_the_devices(tmp_path):
  _, compiled = compiled_step(tmp_path, data=2, spatial=4)
  found = program.collectives(compiled)
  assert any(c.kind == 'collective-permute' for c in found), program.summary(found)
  assert not program.host_transfers(compiled)


def test_what_is_not_wanted_is_seen():
  mesh = sharding.make_mesh(data=8)
  split = jax.NamedSharding(mesh, jax.P('data'))
  x = jax.ShapeDtypeStruct((8, 32), jnp.float32, sharding=split)
  whole = functools.partial(jax.lax.with_sharding_constraint, shardings=sharding.replicated(mesh))
  (gather,) = program.collectives(jax.jit(lambda x: whole(x) * 2).lower(x).compile())
  assert gather.kind == 'all-gather' and gather.largest == 8 * 32 and gather.bytes == 1024

  def tells(x):
    jax.debug.callback(lambda y: None, x.sum())
    return x

  assert program.host_transfers(jax.jit(tells).lower(x).compile())


@pytest.mark.slow
@pytest.mark.parametrize('system', ['mesff', 'deepfillv1', 'glcic'])
def test_every_mesh_trains_as_one_device_does(system, tmp_path):
  steps = 6 if system == 'glcic' else 5
  one = meshes.train(meshes.small(system, data=1), tmp_path / 'one', steps)
  for i, mesh in enumerate(MESHES):
    check_equal(system, one, meshes.train(meshes.small(system, **mesh), tmp_path / str(i), steps))


def processes(out, system, mesh, count, devices):
  """Runs meshes.py in `count` processes of `devices` devices each; what the first one saved."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{s.getsockname()[1]}'
  flags = f'--xla_force_host_platform_device_count={devices}'
  environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  environment['PYTHONPATH'] = str(ROOT)
  command = [sys.executable, str(pathlib.Path(__file__).parent / 'meshes.py'), str(out), system]
  running = [
    subprocess.Popen(
      [*command, json.dumps(mesh), address, str(count), str(i)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(count)
  ]
  for process in running:
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text[-3000:]
  with np.load(out) as stored:
    losses = {k[5:]: float(stored[k]) for k in stored if k.startswith('loss:')}
    return losses, {k: stored[k] for k in stored if not k.startswith('loss:')}


@pytest.mark.slow
@pytest.mark.parametrize('system', ['mesff', 'deepfillv1', 'glcic'])
def test_two_processes_train_as_one_device_does(system, tmp_path):
  one = meshes.train(meshes.small(system, data=1), tmp_path / 'one', 5)
  check_equal(system, one, processes(tmp_path / 'two.npz', system, dict(data=4), 2, 2))


@pytest.mark.parametrize(
  'given,want',
  [
    (('host:1', None, None), 'several processes need --num_processes=N and --process_id=I'),
    (('host:1', 2, 2), '--process_id=2 must be from 0 to 1'),
    (('host', 2, 0), '--coordinator=host must be HOST:PORT'),
  ],
)
def test_wrong_flags_get_a_sentence(given, want):
  with pytest.raises(distributed.ClusterError, match=want):
    distributed.initialize(*given)
