"""What the benchmarks run of a system: filling a hole, its gradient, and the whole train step.

  workload = Workload(config_of('mesff', dtype='bfloat16', size=256, batch=8))
  task = workload.task('step')
  compiled = task.trace().lower().compile()
  state, metrics = compiled(*task.arguments())

A task is traced from shapes alone, so it can also be compiled for devices that are not here. Only
`arguments` makes arrays: random weights, random pictures.
"""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.configs import _base
from jaxinpaint.cost import costs
from jaxinpaint.data import inputs
from jaxinpaint.layers import operations, placement
from jaxinpaint.recipe import Constants, Plan, Recipe, Variables
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import run, sharding
from jaxinpaint.training.program import Program

WHATS = ('forward', 'grad', 'step')


def flags(doc: str, whats: Sequence[str]) -> argparse.ArgumentParser:
  """What the commands that go through systems have in common; `whats`: of `WHATS`, by default."""
  parser = argparse.ArgumentParser(description=doc.splitlines()[0])
  listed = lambda text: text.split(',')
  add = parser.add_argument
  add('--systems', type=listed, default=systems.list_systems(), help='default: all')
  add('--what', type=listed, default=list(whats), help=f'default: {",".join(whats)}')
  add('--dtype', choices=['float32', 'bfloat16'], default='float32')
  add('--size', type=int, default=256, help='side of the images')
  add('--json', type=pathlib.Path, help='rows go here, after each of them')
  return parser


def same_again(arguments: tuple, results: Any) -> tuple:
  """The next call's arguments of a function that keeps nothing."""
  del results
  return arguments


def state_goes_on(arguments: tuple, results: tuple) -> tuple:
  """The next call's arguments of a train step, which has donated its state."""
  return results[0], *arguments[1:]


@dataclasses.dataclass(frozen=True)
class Task:
  """One function of a system.

  Attributes:
    trace: traces it for its devices; `.lower().compile()` of the result compiles it.
    plain: traces it in the plain forms of its operations, in which useful work is counted.
    arguments: makes the arguments of the compiled function.
    follow: (arguments, results) -> the arguments of the next call.
    times: how often the work of `plain` is counted.
  """

  trace: Callable[[], Any]
  plain: Callable[[], Any]
  arguments: Callable[[], tuple]
  follow: Callable[[tuple, Any], tuple] = same_again
  times: int = 1

  def useful(self) -> float:
    """FLOPs of its convolutions and matrix products, see `operations.useful_flops`."""
    return self.times * operations.flops_of_trace(self.plain())


def of_function(function: Callable, make: Callable[[], tuple]) -> Task:
  """The task of a function on this machine's first device.

  Args:
    function: of jax.
    make: makes its arguments.
  """
  shapes = jax.eval_shape(make)
  trace = functools.partial(jax.jit(function).trace, *shapes)
  return Task(trace, functools.partial(operations.plain_trace, function, *shapes), make)


def config_of(
  system: str, *, dtype: str, size: int, batch: int, width: int = 0, quick: bool = False
) -> ConfigDict:
  """The published configuration of a system, for random pictures; every optimizer is Adam.

  Args:
    system: of `systems.list_systems()`.
    dtype: of the computation.
    size: side of the images; 0: as the configuration has it. Networks that
      scale every image to one size keep their own: read config.data.size.
    batch: images of a step.
    width: of the generator; 0: as published.
    quick: the small networks of the variant `quicktest`.
  """
  config = config_lib.base(system)
  if quick:
    config_lib.quicktest(config)
  config.dtype = dtype
  config.data.batch_size = batch
  _fit(config, size or config.data.size)
  if width:
    config.model.width = width
  with config.unlocked():
    for name in systems.make_recipe(config).optimizers:
      config.optimizers[name] = _base.adam(1e-4, b1=0.0, b2=0.9)
  return config


def _fit(config: ConfigDict, size: int) -> None:
  """Sets config.data.size, and makes networks that are built for one size fit, in place.

  Discriminators with a local branch are built for `size`, and their window keeps its share of the
  image, down to a multiple of 32, which all of them take. Networks that scale every image to one
  size are trained on images of that size. Networks of one side alone (`Inference.side`), or of
  larger ones than `size`, are built for `size`, their config.model.size.
  """
  config.data.size = size
  model = config.model
  for field in ('global_size', 'image_size'):
    built_for = model.get(field, size)
    if built_for == size:
      continue
    if 'local_size' in model:
      model.local_size = model.local_size * size // built_for // 32 * 32
      model[field] = size
    else:
      config.data.size = built_for
  ready = systems.inference(config)
  if ready.side or (ready.min_side > size and 'size' in model):
    model.size = size


def last_plan(recipe: Recipe) -> Plan:
  """That of the last phase's first step, at which all of the phase's updates are due."""
  return recipe.plan(sum(phase.steps for phase in recipe.phases[:-1]))


class Workload:
  """The tasks of one config on some devices.

  Args:
    config: of `config_of`.
    devices: that share the batch; by default the first of this machine.
    frozen: frozen networks of the training are read from the files that the config names; else
      they get random weights.

  Raises:
    ValueError: of a config that cannot be trained; names the field.
  """

  def __init__(
    self, config: ConfigDict, devices: Sequence[Any] | None = None, *, frozen: bool = False
  ):
    """See the class."""
    self.config, self._frozen = config, frozen
    self._mesh = sharding.make_mesh(devices=devices or jax.devices()[:1])
    self.program = Program.of(config, self._mesh)

  def task(self, what: str) -> Task:
    """The task of a name in `WHATS`.

    'forward' is what fills a hole, 'grad' the gradient of its L1 loss with respect to all
    parameters that it reads, with norms as in inference. 'step' is the train loop's own: the first
    of the last phase, in which all losses and optimizers have their turn.
    """
    return {'forward': self._forward, 'grad': self._gradient, 'step': self._step}[what]()

  def _forward(self) -> Task:
    return self._inferring(self._output)

  def _gradient(self) -> Task:
    def loss(params: Any, variables: Variables, constants: Constants, batch: Any) -> jax.Array:
      out = self._output(variables.with_params(params), constants, batch)
      return jnp.abs(out - batch['image']).mean()

    def gradient(variables: Variables, constants: Constants, batch: Any) -> Any:
      return jax.grad(loss)(variables.params, variables, constants, batch)

    # By the usual convention a backward pass is twice its forward pass.
    return dataclasses.replace(self._inferring(gradient), plain=self._forward().plain, times=3)

  def _output(self, variables: Variables, constants: Constants, batch: Any) -> jax.Array:
    extra = {name: x for name, x in batch.items() if name not in ('image', 'mask')}
    seen = batch['image'], batch['mask']
    output = self.program.recipe.inference.output
    return output(variables, constants, *seen, jax.random.key(0), **extra)

  def _inferring(self, function: Callable) -> Task:
    """A task of (variables, constants, batch)."""
    inference = self.program.recipe.inference
    batch, size = self.config.data.batch_size, self.config.data.size
    sides = (batch, size, size)
    dims = {'image': (*sides, 3), 'mask': (*sides, 1), **inputs.shapes(inference.inputs, sides)}
    split = sharding.batch_sharding(self._mesh, 4)
    pictures = {k: jax.ShapeDtypeStruct(s, jnp.float32, sharding=split) for k, s in dims.items()}
    whole = sharding.replicated(self._mesh)
    networks = (inference.shapes(), inference.load_constants(shapes_only=True))
    place = lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole)
    shapes = *jax.tree.map(place, networks), pictures
    jitted = jax.jit(function)

    def trace() -> Any:
      with placement.use(placement.Placement.on(self._mesh)):
        return jitted.trace(*shapes)

    def arguments() -> tuple:
      return inference.random(), costs.random_weights(shapes[1]), _random_pictures(dims)

    return Task(trace, functools.partial(operations.plain_trace, function, *shapes), arguments)

  def _step(self) -> Task:
    program, plan = self.program, last_plan(self.program.recipe)
    shapes = program.state, program.constants, program.batch, program.rng

    def arguments() -> tuple:
      batch = sharding.to_devices(costs.random_rows(self.config, program), program.mesh)
      read = program.recipe.load_constants
      constants = read() if self._frozen else costs.random_weights(program.constants)
      key = run.step_key(self.config, program.mesh, 0)
      return program.random_state(self.config.seed), constants, batch, key

    # A jitted function would remember the plain trace.
    step = cast(Any, program.train_step).__wrapped__
    plain = lambda: operations.plain_trace(lambda *a: step(*a, plan), *shapes)
    return Task(lambda: program.train_step.trace(*shapes, plan), plain, arguments, state_goes_on)


def _random_pictures(dims: dict[str, tuple[int, ...]]) -> dict[str, jax.Array]:
  """Pictures in [0, 1], of which a third of the pixels is hole, without edges."""
  keys = jax.random.split(jax.random.key(0), 2)
  batch = {name: jnp.zeros(shape) for name, shape in dims.items()}
  batch['image'] = jax.random.uniform(keys[0], dims['image'])
  batch['mask'] = (jax.random.uniform(keys[1], dims['mask']) < 0.3).astype(jnp.float32)
  return batch
