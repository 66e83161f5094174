"""The train step as compiled programs, one for each plan, which know their work.

The loop does not call the jitted step. It compiles the step of each plan when the plan first comes
up. So the seconds are measured, the compiler's own count of operations is known without compiling
twice, and nothing is compiled in silence: a batch of other shapes than before is reported.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging

from jaxinpaint.layers import operations
from jaxinpaint.recipe import Plan, Recipe


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A step of one plan.

  Attributes:
    run: (state, constants, batch, rng) -> (state, metrics); the state is donated.
    seconds: that tracing and compiling took.
    flops: of a step, on all devices together, as the compiler counts its own program: what is
      recomputed, or done on every device alike, counts. 0 where it does not say.
    useful_flops: 2 x the multiply-adds of the convolutions and matrix products that the step asks
      for (`layers.operations`), whatever the devices do.
  """

  run: Callable
  seconds: float
  flops: float
  useful_flops: float


class Programs:
  """The compiled train steps of a run: one for each plan and shape of a batch.

  Args:
    train_step: of `step.make_train_step`.
    recipe: whose plans it takes.
    devices: in the mesh.
    clock: of seconds.
  """

  def __init__(
    self,
    train_step: jax.stages.Wrapped,
    recipe: Recipe,
    devices: int = 1,
    clock: Callable[[], float] = time.monotonic,
  ):
    """See the class."""
    self._train_step, self._recipe, self._devices = train_step, recipe, devices
    self._clock = clock
    self._known: dict[tuple, Compiled] = {}
    self._shapes: dict[Plan, dict[str, str]] = {}
    self.seconds = 0.0  # of all compilations

  def find(self, batch: Mapping[str, jax.Array], plan: Plan) -> Compiled | None:
    """The program of a plan for such a batch; None where it is not compiled yet."""
    return self._known.get((plan, *_shapes(batch).items()))

  def compile(self, state: Any, constants: Any, batch: Any, rng: Any, plan: Plan) -> Compiled:
    """Compiles the program of a plan for such a batch."""
    shapes = _shapes(batch)
    begun = self._clock()
    traced = self._train_step.trace(state, constants, batch, rng, plan)
    useful = operations.flops_of_trace(traced.jaxpr)
    run = traced.lower().compile()
    seconds = self._clock() - begun
    self.seconds += seconds
    if plan in self._shapes:
      self._report(plan, self._shapes[plan], shapes, seconds)
    self._shapes[plan] = shapes
    program = Compiled(run, seconds, _flops(run) * self._devices, useful)
    self._known[plan, *shapes.items()] = program
    return program

  def _report(
    self, plan: Plan, before: Mapping[str, str], now: Mapping[str, str], seconds: float
  ) -> None:
    changed = ', '.join(
      f'{k} is {now.get(k, "gone")} and was {before.get(k, "absent")}'
      for k in {**before, **now}
      if now.get(k) != before.get(k)
    )
    logging.warning(
      'The train step was compiled again after warm-up, which took %.1f s: in phase %r (updates '
      '%s) %s. A step is compiled once for each shape that it gets: give all batches the same.',
      seconds,
      self._recipe.phases[plan.phase].name,
      ', '.join(plan.updates) or 'none',
      changed,
    )


def _shapes(batch: Mapping[str, jax.Array]) -> dict[str, str]:
  """{name: 'uint8[8,64,64,3]'}."""
  return {k: f'{v.dtype}[{",".join(map(str, v.shape))}]' for k, v in sorted(batch.items())}


def _flops(run: Any) -> float:
  """Of one device; backends give a dict, a list of one, nothing, or -1 for what is unknown."""
  costs = run.cost_analysis() or {}
  costs = costs[0] if isinstance(costs, list) and costs else costs
  return max(float(dict(costs).get('flops', 0.0)), 0.0)
