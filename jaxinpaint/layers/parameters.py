"""Parameters of a module, as Flax makes and checks them, without tracing how they are drawn."""

from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp


def parameter(
  module: nn.Module, name: str, init: Any, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
  """`module.param(name, init, shape, dtype)`, sooner where the parameter is there already.

  Flax checks the shape of a parameter that it was given by tracing `init`, which is two fifths of
  the time that a network of many small layers takes to trace; here `shape` is what it is checked
  against.

  Args:
    module: being set up or called.
    name: of the parameter in it.
    init: (key, shape, dtype) -> its first value.
    shape: of the parameter.
    dtype: of the first value; one that is given keeps its own.

  Raises:
    flax.errors.ScopeParamShapeError: the parameter has another shape.
  """
  if not module.has_variable('params', name):
    return module.param(name, init, shape, dtype)
  value = module.get_variable('params', name)
  if jnp.shape(value) != tuple(shape):
    path = '/' + '/'.join(module.path)
    raise flax.errors.ScopeParamShapeError(name, path, jnp.shape(value), tuple(shape))
  return value
