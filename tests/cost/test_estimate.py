"""What `train --estimate` says, of programs that are compiled and of ones that do not fit."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from benchmarks import scaling
from jaxinpaint import systems
from jaxinpaint.cost import estimate
from jaxinpaint.data import pipeline
from jaxinpaint.features import arcface, lpips, vgg
from jaxinpaint.layers import conv, operations
from jaxinpaint.runtime import chips, faults
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import (
  optimizers,
  program,
  sharding,
  state,
  step,
)
from jaxinpaint.weights import hub


def small(**data):
  config = config_lib.base('mesff')
  with config.unlocked():
    config.optimizers.generator = dict(name='sgd', learning_rate=1e-2)
    config.optimizers.critic = dict(name='adam', learning_rate=1e-3)
    config.data.update(dict(size=16, batch_size=8) | data)
    config.training.update(dict(steps=10))
  return config


@pytest.fixture
def toys(monkeypatch):
  """Configs describe the toy recipe of these tests, which compiles in no time."""
  monkeypatch.setattr(systems, 'make_recipe', lambda config: toy.recipe())


def test_state_exchange_and_work_of_a_split_program(toys):
  config = small()
  config.training.mesh.update(dict(data=4, fsdp=2, fsdp_min_size=8))
  mesh = sharding.make_mesh(**config.training.mesh)
  found = estimate.of(config, program.Program.of(config, mesh))
  assert found.networks == {'generator': 15, 'critic': 32}
  # Every array of 8 numbers or more is halved: 4x3 and 3x8 and 8, not the bias of 3.
  assert found.state['parameters'] == (4 * 47, 4 * (6 + 3 + 12 + 4))
  adam = 2 * 4 * 32 + 4
  assert found.state['optimizers'] == (adam, 2 * 4 * 16 + 4)
  (cost,) = found.steps
  assert cost.steps == 10 and cost.updates == ('generator', 'critic')
  kinds = {c.kind for c in cost.collectives}
  assert 'all-reduce' in kinds and cost.flops > 0 and cost.temporaries > 0
  # The generator's 4 x 3 product forward, and to its weight; no derivative to the image.
  # The critic's 3 x 8 and 8 products thrice forward, twice to its weights, once to its input.
  assert cost.useful_flops == 2 * 8 * 16 * 16 * (12 * 2 + 24 * (3 + 2 + 1) + 8 * (3 + 2 + 3))
  shown = estimate.text(found)
  assert max(map(len, shown.splitlines())) <= 100
  for want in ('generator', 'on each device', 'all-reduce', "These are a CPU's programs"):
    assert want in shown


def test_dead_work_is_not_asked_for():
  w = jnp.ones((8, 8))

  def wasteful(x):
    unused = x @ w @ w
    del unused
    return x @ w

  assert operations.useful_flops(wasteful, jnp.ones((4, 8))) == 2 * 4 * 8 * 8


def test_a_batch_has_the_shapes_of_the_pipeline():
  for changes in (
    dict(),
    dict(masks='brush:0.1-0.4', masks_on_device=True),
  ):
    config = small(size=64, batch_size=2, **changes)
    mesh = sharding.make_mesh(data=1)
    inputs = ('canny', 'gray')
    batches = pipeline.make(config.data, 0, inputs=inputs)
    real = next(batches)
    batches.close()
    made = program.batch_shapes(config.data, inputs)
    del mesh
    assert {k: (v.shape, v.dtype) for k, v in real.items()} == {
      k: (v.shape, v.dtype) for k, v in made.items()
    }


def test_frozen_networks_need_no_files(monkeypatch):
  def absent(*_):
    raise AssertionError('a file was asked for')

  monkeypatch.setattr(hub, 'download', absent)
  monkeypatch.setattr(hub, 'cache_folder', absent)
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  # The convolutions of Simonyan and Zisserman's D, and of AlexNet.
  assert count(vgg.load(16, shapes_only=True)) == 14_714_688
  alex = lpips.load('alex', shapes_only=True)
  assert count(alex['trunk']) == 2_469_696
  assert count(alex['heads']) == 64 + 192 + 384 + 256 + 256
  face = arcface.load(shapes_only=True)
  assert face['params']['out_dense']['kernel'].shape == (7 * 7 * 512, 512)
  for name, networks in (('mesff', {'vgg'}), ('ctsdg', {'vgg'}), ('seresnet_cx', {'vgg'})):
    recipe = systems.make_recipe(config_lib.base(name))
    assert set(recipe.load_constants(shapes_only=True)) == networks
  with pytest.raises(AssertionError, match='asked for'):
    vgg.load(16)


@pytest.mark.parametrize('platform,form', [('tpu', 'plain'), ('gpu', 'plain'), ('cpu', 'cpu')])
def test_forms_are_those_of_the_devices_that_are_compiled_for(platform, form):
  devices = np.array([types.SimpleNamespace(platform=platform)])
  mesh = types.SimpleNamespace(size=1, devices=devices)
  seen = []

  def forward(*args):
    seen.append(conv.default_form())
    return toy.forward(*args)

  recipe = toy.recipe(toy.Phase('joint', -1, forward, (toy.GENERATOR,)))
  txs = optimizers.make_optimizers(
    {'generator': dict(name='sgd', learning_rate=0.1)}, recipe.optimizers
  )
  begun = state.create(recipe, txs, (), jax.random.key(0), toy.batch())
  train_step = step.make_train_step(recipe, txs, replicated=types.SimpleNamespace(mesh=mesh))
  jax.eval_shape(
    lambda *a: train_step(*a, recipe.plan(0)), begun, {}, toy.batch(), jax.random.key(0)
  )
  assert seen == [form]


@pytest.mark.parametrize(
  'words',
  [
    # Of jaxlib 0.10.2 with libtpu 0.0.42.1, and of others.
    'Ran out of memory on HBM, the total memory required for HLO temporaries (31.20G) exceeds '
    'available HBM (15.75G).',
    'XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 31.20G of 15.75G '
    'hbm. Exceeded hbm capacity by 15.45G.',
  ],
)
def test_a_program_that_does_not_fit_is_said_so(words, toys, monkeypatch):
  class TooLarge:
    def compile(self):
      raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {words}')

  monkeypatch.setattr(program.Program, 'lower', lambda self, plan: TooLarge())
  config = small()
  found = estimate.of(config, program.Program.of(config, sharding.make_mesh()), here=False)
  shown = estimate.text(found)
  assert '31.200 GiB or more: DOES NOT FIT into 15.8' in shown and 'data.batch_size' in shown


def test_a_probe_takes_steps_and_leaves_nothing(toys, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  config = small()
  estimate.run(config, probe=2)
  shown = capsys.readouterr().out
  assert 'img/s a device' in shown and 'hours for 10 steps' in shown
  assert list(pathlib.Path().iterdir()) == []


@pytest.mark.parametrize('devices', ['many', '0', 'v5e', '4x4', '-8'])
def test_devices_that_are_none_get_a_sentence(devices):
  with pytest.raises(faults.ConfigurationError, match='a number of CPU devices'):
    estimate.run(small(), devices)


def test_a_batch_that_does_not_divide_gets_the_loop_s_sentence():
  with pytest.raises(faults.ConfigurationError, match=r'config.data.batch_size 6 .* multiple of 8'):
    estimate.run(small(batch_size=6))


def test_the_arithmetic_of_a_ring():
  # Two devices: each sends half, twice. Many: nearly everything, twice.
  assert scaling.ring_seconds(100.0, 2, 50.0) == 2.0
  assert scaling.ring_seconds(100.0, 1, 50.0) == 0.0
  chip = chips.Chip('', bfloat16=1e12, float32=1e12, memory=0, bandwidth=0, interconnect=1e9)
  row = scaling.row(4, 0.5, 1e12, 1e9, chip, 'bfloat16', per_chip=2)
  assert (row.compute, row.exchange, row.batch) == (4.0, 1.5, 8)
  assert row.apart == 4 / 5.5 and row.overlapped == 1.0
  assert scaling.gradient_bytes({'generator': 10, 'discriminator': 3}, 'bfloat16') == 32
