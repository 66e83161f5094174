"""How much work a function needs, counted in its trace; independent of the machine."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from jaxinpaint.layers import placement


def useful_flops(function: Callable, *args: Any) -> float:
  """2 x the multiply-adds of all convolutions and matrix products in a call.

  Counted in the plain forms, and only for operations on which the results depend, without the zeros
  that a transposed convolution inserts. Everything else (norms, activations, transforms) is not
  counted. What `jax.checkpoint` computes a second time for the gradients counts once.

  Args:
    function: of jax.
    *args: arrays, or shapes of them.
  """
  with placement.use(placement.Placement(plain=True)):
    # A new function: jax would otherwise remember its trace in the other form.
    return flops_of_trace(jax.make_jaxpr(lambda *a: function(*a))(*args))


def flops_of_trace(trace: Any) -> float:
  """As `useful_flops`, for a function that is already traced, in the forms of its trace.

  Args:
    trace: a closed jaxpr, of `jax.make_jaxpr` or `jax.jit(f).trace`.
  """
  # A train step pulls every update's gradient back through the forward pass it shares, also to
  # parameters that the update does not train; a compiler drops that, and so does this.
  alive, _ = partial_eval.dce_jaxpr(trace.jaxpr, [True] * len(trace.jaxpr.outvars))
  return 2.0 * _macs(alive)


def _macs(jaxpr: Any, again: bool = False) -> float:
  """Multiply-adds.

  Args:
    jaxpr: an open one.
    again: it is the backward pass of `jax.checkpoint`, which computes the forward pass once more:
      only what depends on its last input, a cotangent, is counted.
  """
  total = 0.0
  gradient = set(jaxpr.invars[-1:])
  for equation in jaxpr.eqns:
    if again:
      if not gradient & {v for v in equation.invars if not isinstance(v, core.Literal)}:
        continue
      gradient.update(equation.outvars)
    if equation.primitive.name == 'conv_general_dilated':
      p = equation.params
      kernel = equation.invars[1].aval.shape
      out_features = kernel[p['dimension_numbers'].rhs_spec[0]]
      total += (
        np.prod(equation.outvars[0].aval.shape)
        * (np.prod(kernel) / out_features)
        / np.prod(p['lhs_dilation'])
      )
    elif equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      left = equation.invars[0].aval.shape
      total += np.prod(equation.outvars[0].aval.shape) * np.prod([left[i] for i in contracted])
    repeats = equation.params.get('length', 1) if equation.primitive.name == 'scan' else 1
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          total += repeats * _macs(inner, equation.params.get('differentiated', False))
  return float(total)
