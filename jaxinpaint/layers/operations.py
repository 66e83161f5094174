"""How much work a function needs, counted in its trace; independent of the machine."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from jaxinpaint.layers import placement

# What stands between a layer and its convolution, in the frames of a call.
_BELOW = ('layers/conv', 'layers/placement', 'layers/same_conv', 'layers/operations')
_BELOW += ('layers/products',)


def useful_flops(function: Callable, *args: Any) -> float:
  """2 x the multiply-adds of all convolutions and matrix products in a call.

  Counted in the plain forms, and only for operations on which the results depend, without the zeros
  that a transposed convolution inserts. Everything else (norms, activations, transforms) is not
  counted. What `jax.checkpoint` computes a second time for the gradients counts once.

  Args:
    function: of jax.
    *args: arrays, or shapes of them.
  """
  return flops_of_trace(plain_trace(function, *args))


def plain_trace(function: Callable, *args: Any) -> Any:
  """The closed jaxpr of a call, in the plain forms of its operations; arguments as above."""
  with placement.use(placement.Placement(form='plain')):
    # A new function: jax would otherwise remember its trace in the other form.
    return jax.make_jaxpr(lambda *a: function(*a))(*args)


def flops_of_trace(trace: Any) -> float:
  """As `useful_flops`, for a function that is already traced, in the forms of its trace.

  Args:
    trace: a closed jaxpr, of `jax.make_jaxpr` or `jax.jit(f).trace`.
  """
  return sum(product.flops for product in products(trace))


@dataclasses.dataclass(frozen=True)
class Product:
  """A convolution or a matrix product of a trace.

  Attributes:
    flops: 2 x its multiply-adds, all turns of the loops around it together.
    dtypes: of its operands.
    place: the line of this library that asks for it, 'losses/perceptual.py:32'; for a convolution
      the line that asks `layers.conv` for it.
  """

  flops: float
  dtypes: tuple[str, str]
  place: str


def products(trace: Any) -> Iterator[Product]:
  """Those on which the results of a trace depend; see `flops_of_trace`."""
  # A train step pulls every update's gradient back through the forward pass it shares, also to
  # parameters that the update does not train; a compiler drops that, and so does this.
  alive, _ = partial_eval.dce_jaxpr(trace.jaxpr, [True] * len(trace.jaxpr.outvars))
  yield from _products(alive)


def _products(jaxpr: Any, turns: int = 1, again: bool = False) -> Iterator[Product]:
  """Of an open jaxpr.

  Args:
    jaxpr: an open one.
    turns: of the loops around it.
    again: it is the backward pass of `jax.checkpoint`, which computes the forward pass once more:
      only what depends on its last input, a cotangent, is counted.
  """
  gradient = set(jaxpr.invars[-1:])
  for equation in jaxpr.eqns:
    if again:
      if not gradient & {v for v in equation.invars if not isinstance(v, core.Literal)}:
        continue
      gradient.update(equation.outvars)
    if macs := _macs(equation):
      dtypes = tuple(str(v.aval.dtype) for v in equation.invars[:2])
      yield Product(2.0 * turns * macs, dtypes, _place(equation))
    inside = turns * (equation.params['length'] if equation.primitive.name == 'scan' else 1)
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from _products(inner, inside, equation.params.get('differentiated', False))


def _macs(equation: Any) -> float:
  """Multiply-adds of an equation, without what is inside of it."""
  if equation.primitive.name not in ('conv_general_dilated', 'dot_general'):
    return 0.0
  out, left = equation.outvars[0].aval.shape, equation.invars[0].aval.shape
  if equation.primitive.name == 'conv_general_dilated':
    p, kernel = equation.params, equation.invars[1].aval.shape
    out_features = kernel[p['dimension_numbers'].rhs_spec[0]]
    return float(np.prod(out) * (np.prod(kernel) / out_features) / np.prod(p['lhs_dilation']))
  (contracted, _), _ = equation.params['dimension_numbers']
  return float(np.prod(out) * np.prod([left[i] for i in contracted]))


def _place(equation: Any) -> str:
  """See `Product`; 'unknown' where no line of this library asked."""
  traceback = equation.source_info.traceback
  files = [(f.file_name.rpartition('jaxinpaint/'), f.line_num) for f in traceback.frames]
  lines = [f'{file}:{line}' for (_, inside, file), line in files if inside]
  return next((x for x in lines if not x.startswith(_BELOW)), 'unknown')
