"""Variables and states of a recipe without its `init`, which takes long to compile."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinpaint.recipe import Variables
from jaxinpaint.training import step as step_lib
from jaxinpaint.training.state import TrainState


def variables(recipe, batch, seed=0):
  """He's random kernels, biases of 0, scales of 1; statistics of 0.5, spectral vectors of length 1.

  With He's deviation gradients reach every layer of a deep narrow network.
  """
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(recipe.init, jax.random.key(0), batch)

  def draw(path, x):
    if x.ndim < 2:
      return np.full(x.shape, path[-1].key != 'bias', x.dtype)
    value = rng.standard_normal(x.shape) * np.sqrt(2 / np.prod(x.shape[:-1]))
    return value.astype(x.dtype)

  def rest(path, x):
    if path[-1].key in ('u', 'v'):
      value = rng.standard_normal(x.shape)
      return (value / np.linalg.norm(value)).astype(x.dtype)
    return np.full(x.shape, 0.5, x.dtype)

  each = jax.tree_util.tree_map_with_path
  drawn = Variables(each(draw, shapes.params), each(rest, shapes.stats))
  return jax.tree.map(jnp.asarray, drawn)


def state(recipe, optimizers, variables):
  """The state before the first step, with these variables; each array is its own."""
  params, stats = jax.tree.map(lambda x: jnp.array(np.asarray(x)), variables)
  opt = {
    name: optimizers[name].init({n: params[n] for n in networks})
    for name, networks in recipe.optimizers.items()
  }
  return TrainState(jnp.zeros((), jnp.int32), params, stats, opt, {})


def stepping(recipe, batch, learning_rate=0.01):
  """A function: batch -> (state before, state after, metrics) of one step by SGD; compiled once."""
  optimizers = {name: optax.sgd(learning_rate) for name in recipe.optimizers}
  begin = variables(recipe, batch)
  step = step_lib.make_train_step(recipe, optimizers)

  def run(batch):
    current = state(recipe, optimizers, begin)
    before = jax.tree.map(np.array, current)
    current, metrics = step(current, {}, batch, jax.random.key(2), recipe.plan(0))
    return before, jax.tree.map(np.array, current), metrics

  return run
