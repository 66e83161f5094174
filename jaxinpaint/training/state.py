"""Everything that training changes, as one pytree."""

from collections.abc import Mapping

import flax
import jax
import jax.numpy as jnp
import optax

from jaxinpaint.recipe import Batch, Params, Recipe, Stats, Variables


class TrainState(flax.struct.PyTreeNode):
  """The explicit state of a run; two equal states continue equally.

  Attributes:
    step: i32[], the only clock: phases, lazy updates, random numbers and data depend on it.
    params: {network: parameters}.
    stats: {network: its other collections (batch statistics, spectral-norm vectors)}.
    opt: {optimizer: optax state}.
    ema: {network: exponential moving average of its parameters}.
  """

  step: jax.Array
  params: Params
  stats: Stats
  opt: Mapping[str, optax.OptState]
  ema: Params

  @property
  def variables(self) -> Variables:
    """The parameters that are trained, and the statistics."""
    return Variables(self.params, self.stats)

  @property
  def averaged(self) -> Variables:
    """The same with averaged parameters where averages are kept: what is evaluated."""
    return self.variables.with_params(self.ema)


def create(
  recipe: Recipe,
  optimizers: Mapping[str, optax.GradientTransformation],
  ema_networks: tuple[str, ...],
  rng: jax.Array,
  batch: Batch,
) -> TrainState:
  """The state before the first step; can be traced, to create it sharded or as shapes only.

  Args:
    recipe: its `init` makes the parameters.
    optimizers: {name: optax transformation}, one for each of `recipe.optimizers`.
    ema_networks: networks whose average is kept.
    rng: key.
    batch: a batch, or arrays of its shapes.
  """
  params, stats = recipe.init(rng, batch)
  opt = {
    name: optimizers[name].init({n: params[n] for n in networks})
    for name, networks in recipe.optimizers.items()
  }
  ema = {n: jax.tree.map(jnp.copy, params[n]) for n in ema_networks}
  return TrainState(jnp.zeros((), jnp.int32), params, stats, opt, ema)
