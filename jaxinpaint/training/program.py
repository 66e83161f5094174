"""What a config computes on a mesh: shapes, placements and the train step, without data or disk."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.data import inputs
from jaxinpaint.masks import spec
from jaxinpaint.recipe import Inference, Plan, Recipe
from jaxinpaint.training import averages, optimizers, sharding, state, step
from jaxinpaint.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Program:
  """What a config computes on a mesh, before there are numbers.

  Attributes:
    recipe: of the config's system.
    mesh: the devices.
    create: (key) -> the first `TrainState`; to be jitted with `state_sharding` as its result's.
    state: ShapeDtypeStructs of a `TrainState` with the shardings of `state_sharding`.
    batch: ShapeDtypeStructs of a global batch as the pipeline makes it, with its shardings.
    train_step: of `step.make_train_step`.
  """

  recipe: Recipe
  mesh: jax.sharding.Mesh
  create: Callable[[jax.Array], TrainState]
  state: TrainState
  batch: Mapping[str, jax.ShapeDtypeStruct]
  train_step: jax.stages.Wrapped

  @functools.cached_property
  def constants(self) -> Any:
    """ShapeDtypeStructs of the frozen networks that training reads; their files are not needed."""
    shapes = self.recipe.load_constants(shapes_only=True)
    return _placed(shapes, sharding.replicated(self.mesh))

  @property
  def rng(self) -> jax.ShapeDtypeStruct:
    """The shape of the run's key."""
    return _placed(jax.eval_shape(jax.random.key, 0), sharding.replicated(self.mesh))

  def lower(self, plan: Plan) -> jax.stages.Lowered:
    """The step of a plan, traced; its `.compile()` also works for devices that are not here."""
    return self.train_step.lower(self.state, self.constants, self.batch, self.rng, plan)

  def random_state(self, seed: int) -> TrainState:
    """The state that follows from config.seed alone, created in its places."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    # Run once, so it need not be fast. Of a hundred random draws, LLVM takes three times as long at
    # its usual level; the numbers are the same.
    cpu = self.mesh.devices.flat[0].platform == 'cpu'
    options = {'xla_backend_optimization_level': 1} if cpu else {}
    create = jax.jit(self.create, out_shardings=self.state_sharding, compiler_options=options)
    return create(key)

  @property
  def state_sharding(self) -> TrainState:
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
    _check_size(config.data.size, recipe.inference)
    txs = optimizers.make_optimizers(
      config.optimizers, recipe.optimizers, accumulate=config.training.accumulate
    )
    ema = averages.networks(config.training)
    absent = [n for n in ema if n not in recipe.networks]
    if absent:
      raise ValueError(f'config.training.ema_networks {absent} are not among {recipe.networks}')

    def create(key: jax.Array) -> TrainState:
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
      ema_decay=averages.decay(config.training, config.data.batch_size),
      accumulate=config.training.accumulate,
      state_sharding=placed,
      constants_sharding=replicated,
      replicated=replicated,
      draw_masks=spec.drawer(config.data),
    )
    batch = {
      k: _placed(s, sharding.batch_sharding(mesh, s.ndim))
      for k, s in batch_shapes(config.data, recipe.inference.inputs).items()
    }
    return cls(recipe, mesh, create, _placed(abstract, placed), batch, train_step)


def _check_size(size: int, inference: Inference) -> None:
  """Raises ValueError unless the networks take images of this side."""
  multiple, least = inference.multiple, inference.min_side
  nearest, _ = inference.seen_size(size, size)
  if size != nearest:
    if inference.side:
      raise ValueError(f'config.data.size {size} must be {nearest}, the side of these networks')
    at_least = f' and at least {least}' if least > multiple else ''
    raise ValueError(
      f'config.data.size {size} must be a multiple of {multiple}{at_least}, for these networks: '
      f'take {nearest}'
    )


def _placed(tree: Any, places: Any) -> Any:
  """Shapes with shardings: one for all, or a tree of them."""
  if isinstance(places, jax.sharding.Sharding):
    return jax.tree.map(lambda s: _placed_one(s, places), tree)
  return jax.tree.map(_placed_one, tree, places)


def _placed_one(s: jax.ShapeDtypeStruct, at: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at)


def batch_shapes(data: ConfigDict, extra_inputs: Sequence[str]) -> dict[str, jax.ShapeDtypeStruct]:
  """The ShapeDtypeStruct of each array in a batch of `pipeline.make`.

  Args:
    data: config.data.
    extra_inputs: `Inference.inputs` of the recipe.
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
  extra = inputs.shapes(extra_inputs, (b, size, size))
  return made | {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in extra.items()}
