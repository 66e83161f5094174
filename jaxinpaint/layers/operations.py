"""How much work a function asks for, counted of its trace, whatever machine runs it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax.extend import core

from jaxinpaint.layers import conv


def useful_flops(function: Callable, *args: Any) -> float:
  """2 x the multiply-adds of all convolutions and matrix products that a call asks for.

  Counted of the plain forms, without the zeros that a transposed convolution inserts; everything
  else (norms, activations, transforms) counts nothing.

  Args:
    function: of jax.
    *args: arrays, or shapes of them.
  """
  with mock.patch.object(conv, 'default_form', lambda: 'plain'):
    # A new function: jax would otherwise remember its trace in the other form.
    return 2.0 * _macs(jax.make_jaxpr(lambda *a: function(*a))(*args).jaxpr)


def flops_of_trace(trace: Any) -> float:
  """2 x the multiply-adds of the convolutions and matrix products of a trace, in the forms it has.

  What no result needs does not count, and what `jax.checkpoint` computes a second time for the
  gradients counts once.

  Args:
    trace: a closed jaxpr, of `jax.make_jaxpr` or `jax.jit(f).trace`.
  """
  return 2.0 * _macs(trace.jaxpr, [True] * len(trace.jaxpr.outvars))


def _macs(jaxpr: Any, used: Sequence[bool] | None = None, again: bool = False) -> float:
  """Multiply-adds.

  Args:
    jaxpr: an open one.
    used: which of its results are needed; only what leads to them is counted. None: everything.
    again: it is the backward pass of `jax.checkpoint`, of whose repeated forward pass only what the
      gradients flow through is counted.
  """
  equations, needed = list(jaxpr.eqns), None
  if used is not None:
    equations, needed = _needed(jaxpr, used)
  if again:
    equations = _after(equations, jaxpr.invars[-1:])
  total = 0.0
  for equation in equations:
    name, params = equation.primitive.name, equation.params
    total += _own_macs(equation)
    repeats = params.get('length', 1) if name == 'scan' else 1
    for value in params.values():
      for inner in value if isinstance(value, tuple | list) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if not hasattr(inner, 'eqns'):
          continue
        inside = None
        if needed is not None:
          # The results of a loop's body are needed by its next round, if not by what comes after.
          alike = name not in ('scan', 'while') and len(inner.outvars) == len(equation.outvars)
          inside = [not alike or v in needed for v in equation.outvars]
          inside = inside if alike else [True] * len(inner.outvars)
        total += repeats * _macs(inner, inside, params.get('differentiated', False))
  return float(total)


def _own_macs(equation: Any) -> float:
  """Of a convolution or a matrix product; 0 for anything else."""
  params = equation.params
  if equation.primitive.name == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    out_features = kernel[params['dimension_numbers'].rhs_spec[0]]
    return (
      np.prod(equation.outvars[0].aval.shape)
      * (np.prod(kernel) / out_features)
      / np.prod(params['lhs_dilation'])
    )
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return np.prod(equation.outvars[0].aval.shape) * np.prod([left[i] for i in contracted])
  return 0.0


def _needed(jaxpr: Any, used: Sequence[bool]) -> tuple[list[Any], set[Any]]:
  """The equations that lead to the results used, and the variables on the way."""
  found = _variables(v for v, use in zip(jaxpr.outvars, used, strict=True) if use)
  equations = []
  for equation in reversed(jaxpr.eqns):
    if found.intersection(equation.outvars):
      found |= _variables(equation.invars)
      equations.append(equation)
  return equations[::-1], found


def _after(equations: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
  """The equations that depend on any of the variables (of a backward pass: its cotangent)."""
  found, kept = set(variables), []
  for equation in equations:
    if found & _variables(equation.invars):
      found.update(equation.outvars)
      kept.append(equation)
  return kept


def _variables(atoms: Iterable[Any]) -> set[Any]:
  return {v for v in atoms if not isinstance(v, core.Literal)}
