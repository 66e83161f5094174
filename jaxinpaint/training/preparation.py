"""Everything before the first step: the program of a config, and a run that is ready to take steps.

`Program.of` looks at the config and the mesh alone: it holds shapes, placements and the compiled-
on-use train step, and touches neither data nor disk. `prepare` adds those.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint import systems
from jaxinpaint.data import inputs, pipeline
from jaxinpaint.evaluation import watch as evaluation
from jaxinpaint.masks import spec
from jaxinpaint.recipe import Plan, Recipe
from jaxinpaint.runtime import atomic, distributed, faults, locks
from jaxinpaint.runtime.environment import commit
from jaxinpaint.training import checkpoints as checkpoints_lib
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import (
  initial,
  numerics,
  optimizers,
  sharding,
  state,
  step,
)
from jaxinpaint.weights import shapes

# Seconds that a start waits for another run to leave its workdir: a scheduler may start a job again
# before the file system knows that its machine is gone.
_PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class Program:
  """What a config computes on a mesh, before there are numbers.

  Attributes:
    recipe: of the config's system.
    mesh: the devices.
    create: (key) -> the first `TrainState`; to be jitted with `state_sharding` as its result's.
    state: ShapeDtypeStructs of a `TrainState` with the shardings of `state_sharding`.
    batch: ShapeDtypeStructs of a global batch as the pipeline makes it, in its places.
    train_step: of `step.make_train_step`.
  """

  recipe: Recipe
  mesh: jax.sharding.Mesh
  create: Callable[[jax.Array], state.TrainState]
  state: state.TrainState
  batch: Mapping[str, jax.ShapeDtypeStruct]
  train_step: Callable

  @functools.cached_property
  def constants(self) -> Any:
    """ShapeDtypeStructs of the frozen networks that training reads; their files are not needed."""
    with shapes.only():
      found = self.recipe.load_constants(True)
    return _placed(found, sharding.replicated(self.mesh))

  @property
  def rng(self) -> jax.ShapeDtypeStruct:
    """The shape of the run's key."""
    return _placed(jax.eval_shape(jax.random.key, 0), sharding.replicated(self.mesh))

  def lower(self, plan: Plan) -> jax.stages.Lowered:
    """The step of a plan, traced; `.compile()` needs no device that is here."""
    return self.train_step.lower(self.state, self.constants, self.batch, self.rng, plan)

  @property
  def state_sharding(self) -> state.TrainState:
    """A tree of shardings for the state."""
    return jax.tree.map(lambda s: s.sharding, self.state)

  @classmethod
  def of(cls, config: ConfigDict, mesh: jax.sharding.Mesh) -> 'Program':
    """The program of a valid config.

    Raises:
      ValueError: naming the field, and the fix.
    """
    recipe = systems.make_recipe(config)
    sharding.check_batch(config.data.batch_size, config.data.size, mesh)
    txs = optimizers.make_optimizers(
      config.optimizers, recipe.optimizers, accumulate=config.training.accumulate
    )
    ema = tuple(config.training.ema_networks) if config.training.ema_decay else ()
    absent = [n for n in ema if n not in recipe.networks]
    if absent:
      raise ValueError(f'config.training.ema_networks {absent} are not among {recipe.networks}')

    def create(key: jax.Array) -> state.TrainState:
      # The parameters depend on the shapes of a batch, not on what is in it.
      size = config.data.size
      batch = {
        'image': jax.numpy.zeros((1, size, size, 3), np.float32),
        'mask': jax.numpy.zeros((1, size, size, 1), np.float32),
        'id': jax.numpy.zeros((1,), np.int32),
      }
      return state.create(recipe, txs, ema, key, batch)

    abstract = jax.eval_shape(create, jax.random.key(0))
    min_size = config.training.mesh.get('fsdp_min_size', sharding.FSDP_MIN_SIZE)
    placed = sharding.state_sharding(abstract, mesh, min_size)
    replicated = sharding.replicated(mesh)
    train_step = step.make_train_step(
      recipe,
      txs,
      ema_decay=config.training.ema_decay,
      accumulate=config.training.accumulate,
      state_sharding=placed,
      constants_sharding=replicated,
      replicated=replicated,
      draw_masks=spec.drawer(config.data),
    )
    batch = {
      k: _placed(s, sharding.batch_sharding(mesh, s.ndim))
      for k, s in batch_shapes(config.data, recipe.inputs).items()
    }
    return cls(recipe, mesh, create, _placed(abstract, placed), batch, train_step)


def _placed(tree: Any, places: Any) -> Any:
  """Shapes with shardings: one for all, or a tree of them."""
  if isinstance(places, jax.sharding.Sharding):
    return jax.tree.map(lambda s: _placed_one(s, places), tree)
  return jax.tree.map(_placed_one, tree, places)


def _placed_one(s: jax.ShapeDtypeStruct, at: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at)


def batch_shapes(data: ConfigDict, further: Sequence[str]) -> dict[str, jax.ShapeDtypeStruct]:
  """ShapeDtypeStructs of what `pipeline.make` gives.

  Args:
    data: config.data.
    further: the recipe's inputs.
  """
  b, size = data.batch_size, data.size
  made = {
    'image': jax.ShapeDtypeStruct((b, size, size, 3), np.uint8),
    'id': jax.ShapeDtypeStruct((b,), np.int32),
  }
  if data.masks_on_device:
    made['mask_key'] = jax.ShapeDtypeStruct((b, 2), np.uint32)
  else:
    made['mask'] = jax.ShapeDtypeStruct((b, size, size, 1), np.uint8)
  extra = inputs.shapes(further, (b, size, size))
  return made | {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in extra.items()}


@dataclasses.dataclass
class Run:
  """A run that is ready to take steps."""

  config: ConfigDict
  workdir: pathlib.Path
  recipe: Recipe
  mesh: jax.sharding.Mesh
  constants: Any
  state: state.TrainState
  train_step: Callable
  checkpoints: checkpoints_lib.Checkpoints
  batches: Iterator[dict[str, np.ndarray]]
  rng: jax.Array
  record: dict[str, int]  # of `numerics.Guard`


def total_steps(config: ConfigDict, recipe: Recipe) -> int:
  """config.training.steps, or the length of the recipe's phases where they all have an end."""
  if recipe.steps is None:
    return config.training.steps
  return min(config.training.steps, recipe.steps)


def prepare(
  config: ConfigDict, workdir: pathlib.Path, alone: contextlib.ExitStack | None = None
) -> Run:
  """Everything before the first step; whatever the user can get wrong fails here.

  Args:
    config: see `training.config.base`.
    workdir: of the run.
    alone: gets the lock that keeps other runs out of the workdir, by process 0; None: no lock.

  Raises:
    ValueError, OSError: naming the field or path, and the fix.
    exclusive.InUse: another run is in the workdir.
  """
  config_lib.validate(config)
  mesh = sharding.make_mesh(**config.training.mesh)
  program = Program.of(config, mesh)
  recipe = program.recipe
  distributed.announce(mesh)
  evaluation.check(config)
  own_rows = sharding.local_rows(config.data.batch_size, mesh)
  pipeline.check(config.data, config.seed, inputs=recipe.inputs, rows=own_rows)
  constants = recipe.load_constants(True)

  _check_workdir(workdir)
  checkpoints = checkpoints_lib.Checkpoints(
    workdir,
    keep=config.checkpoint.keep,
    keep_every=config.checkpoint.keep_every,
    best=config.checkpoint.best if config.training.evaluate_every else '',
  )
  checkpoints.check_writable()
  if alone is not None and jax.process_index() == 0:
    alone.enter_context(locks.hold(workdir / '.lock', f'--workdir {workdir}', _PATIENCE))
  restored = checkpoints.restore(program.state, config)
  record: dict[str, int] = {}
  if restored is None:
    current = _first_state(program, config)
  else:
    current, meta = restored
    record = meta['data'].get('sick', {})
    logging.info('Resumed %s at step %d.', workdir, int(current.step))
    _report_changes(meta, config)
  _write_workdir(workdir, config)

  rollbacks = record.get('rollbacks', 0)
  return Run(
    config=config,
    workdir=workdir,
    recipe=recipe,
    mesh=mesh,
    constants=jax.device_put(constants, sharding.replicated(mesh)),
    state=current,
    train_step=program.train_step,
    checkpoints=checkpoints,
    batches=batches(config, recipe, mesh, int(current.step), rollbacks),
    rng=key(config, mesh, rollbacks),
    record=record,
  )


def random_state(program: Program, config: ConfigDict) -> state.TrainState:
  """The state that follows from config.seed alone, created in its places."""
  init_key = jax.random.fold_in(jax.random.key(config.seed), 0)
  return jax.jit(program.create, out_shardings=program.state_sharding)(init_key)


def _first_state(program: Program, config: ConfigDict) -> state.TrainState:
  """The state before the first step; with what config.init_from brings."""
  recipe = program.recipe
  if recipe.pretrained and not config.init_from:
    raise ValueError(
      f'this config wants config.init_from to bring the {", ".join(recipe.pretrained)}: a file '
      f'of `python -m jaxinpaint.weights import {config.system} FILE OUT`'
    )
  current = random_state(program, config)
  current = initial.merge(recipe.start(), current)
  if config.init_from:
    current = initial.load(config.init_from, current, recipe)
  return current


def batches(
  config: ConfigDict, recipe: Recipe, mesh: jax.sharding.Mesh, start: int, rollbacks: int
) -> pipeline.Batches:
  """The stream from step `start` on, after so many returns of a run whose numbers were sick."""
  return pipeline.make(
    config.data,
    numerics.seed_after(config.seed, rollbacks),
    start_step=start,
    inputs=recipe.inputs,
    rows=sharding.local_rows(config.data.batch_size, mesh),
  )


def key(config: ConfigDict, mesh: jax.sharding.Mesh, rollbacks: int) -> jax.Array:
  """The key of all steps, on every device; made there: keys cannot be put on other processes'."""

  def make() -> jax.Array:
    return numerics.key_after(jax.random.fold_in(jax.random.key(config.seed), 1), rollbacks)

  return jax.jit(make, out_shardings=sharding.replicated(mesh))()


def _report_changes(meta: Mapping[str, Any], config: ConfigDict) -> None:
  """Logs what differs between the checkpoint's run and this one."""
  new = json.loads(config.to_json_best_effort())
  for line in config_lib.differences(meta['config'], new):
    logging.warning('Changed since the checkpoint: %s', line)
  was, now = meta['data'].get('length'), pipeline.source_length(config.data)
  if was != now:
    logging.warning(
      'The data had %s images when the checkpoint was saved and has %s now: the order of images '
      'and masks from here on is not that of an uninterrupted run.',
      was,
      now,
    )


def _check_workdir(workdir: pathlib.Path) -> None:
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'--workdir {workdir} is a file: give a folder')
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise faults.StorageError(
      f'--workdir {workdir} cannot be made ({error.strerror}): give another one'
    ) from error


def _write_workdir(workdir: pathlib.Path, config: ConfigDict) -> None:
  """config.json and environment.json; an earlier config that differs is kept beside it."""
  if jax.process_index() != 0:
    return
  path, text = workdir / 'config.json', config.to_json_best_effort(indent=2)
  if path.exists() and path.read_text() != text:
    count = len(list(workdir.glob('config.*.json')))
    path.rename(workdir / f'config.{count}.json')
  atomic.write(path, text)
  devices = jax.devices()
  environment = {
    'jaxinpaint': jaxinpaint.__version__,
    'commit': commit() or '',
    'jax': jax.__version__,
    'python': platform.python_version(),
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'processes': jax.process_count(),
    'arguments': sys.argv[1:],
  }
  atomic.write(workdir / 'environment.json', json.dumps(environment, indent=2))
