"""From a jax trace to a graph of ONNX: the walk over the operations, loops, and constants.

What depends on constants alone is computed here, by jax: arranged kernels, the matrices of
resizing, random numbers of a fixed key. So the graph holds what depends on the picture.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxinpaint.exporting import onnx_convolution, onnx_fourier
from jaxinpaint.exporting.onnx_graph import Graph, Value, constant, element_type
from jaxinpaint.exporting.onnx_operations import (
  ELEMENTWISE,
  MOVING,
  NOTHING,
  WHOLE,
  Operation,
  cut,
  scalar,
)

# A constant may become so many elements at once, or twice as many as what it is made of.
_SMALL = 2**16
# Calls of another trace, and the parameter that holds it.
_CALLS = dict(
  jit='jaxpr',
  pjit='jaxpr',
  closed_call='call_jaxpr',
  core_call='call_jaxpr',
  custom_jvp_call='call_jaxpr',
  custom_vjp_call='call_jaxpr',
  custom_vjp_call_jaxpr='fun_jaxpr',
  checkpoint='jaxpr',
  remat2='jaxpr',
)


class Untranslatable(NotImplementedError):
  """An operation that has no translation to ONNX here."""


def translate(graph: Graph, trace: Any, inputs: Sequence[Value]) -> list[Value]:
  """Appends the nodes of a trace; returns its results.

  Args:
    graph: that gets the nodes.
    trace: a closed jaxpr, or an open one without constants.
    inputs: one for each of its inputs.

  Raises:
    Untranslatable: it holds an operation that is not known here.
  """
  jaxpr, constants = getattr(trace, 'jaxpr', trace), getattr(trace, 'consts', ())
  known: dict[Any, Value] = dict(zip(jaxpr.constvars, map(constant, constants), strict=True))
  known.update(zip(jaxpr.invars, inputs, strict=True))

  def read(atom: Any) -> Value:
    if isinstance(atom, core.Literal):
      return constant(np.asarray(atom.val, atom.aval.dtype))
    return known[atom]

  for equation in _needed(jaxpr):
    name = equation.primitive.name
    operands = [read(v) for v in equation.invars]
    try:
      results = _operation(graph, equation, operands)
    except (NotImplementedError, KeyError) as error:
      if isinstance(error, Untranslatable):
        raise
      why = f': {error}' if isinstance(error, NotImplementedError) and str(error) else ''
      raise Untranslatable(f'the operation {name}{why}') from error
    known.update(zip(equation.outvars, results, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
  """The operations on which its results depend."""
  needed, found = set(map(id, jaxpr.outvars)), []
  for equation in reversed(jaxpr.eqns):
    if needed & set(map(id, equation.outvars)):
      needed.update(map(id, equation.invars))
      found.append(equation)
  return found[::-1]


def _operation(graph: Graph, equation: Any, operands: list[Value]) -> list[Value]:
  name, p = equation.primitive.name, equation.params
  if name in _CALLS:
    if p.get('name') == 'leaky_relu' and _is_leaky_relu(*operands):
      return [_leaky_relu(graph, *operands)]
    return translate(graph, p[_CALLS[name]], operands)
  if name == 'reduce_precision' and p['mantissa_bits'] < np.finfo(np.float32).nmant:
    raise NotImplementedError(f'to {p["mantissa_bits"]} bits')
  if name in NOTHING:
    return operands
  outs = [Value(v.aval.shape, v.aval.shape, v.aval.dtype) for v in equation.outvars]
  if all(_empty(o) for o in outs):  # borders of no width: nothing reads them but `concatenate`
    return [Value(o.shape, o.shape, o.dtype, array=np.zeros(0, o.dtype)) for o in outs]
  if name == 'concatenate':
    operands = [x for x in operands if not _empty(x)]
    if len(operands) == 1:
      return operands
  if name == 'broadcast_in_dim':
    return [_broadcast(graph, p, outs[0], operands[0])]
  if all(x.constant for x in operands):
    computed = _compute(equation, operands, outs)
    if computed is not None:
      return computed
  if name == 'iota':
    return [_iota(graph, p, outs[0])]
  if name in _LOOPS:
    return _LOOPS[name](graph, p, outs, operands)
  if any(map(_is_complex, (*operands, *outs))):
    return _complex(graph, equation, operands, outs)
  if name in ELEMENTWISE:
    held = _together(*(x.held for x in operands))
    operation = Operation(name, p, outs[0], tuple(x.shape for x in operands))
    made = ELEMENTWISE[name](graph, operation, *map(graph.held, operands))
    return [Value(outs[0].shape, held, outs[0].dtype, made)]
  return _structural(graph, name, p, outs, operands)


def _is_leaky_relu(x: Value, *slope: Value) -> bool:
  """Whether the slope is one known number; where it is left out, the trace holds none."""
  return not x.constant and [s.shape for s in slope if s.constant] == [()]


def _leaky_relu(graph: Graph, x: Value, slope: Value) -> Value:
  """jax.nn.leaky_relu: its comparison, product and choice are one operation of ONNX."""
  made = graph.add('LeakyRelu', graph.held(x), alpha=float(slope.array))
  return dataclasses.replace(x, name=made)


def _empty(x: Value) -> bool:
  return any(isinstance(n, int) and n == 0 for n in x.shape)


def _together(*shapes: tuple[Any, ...]) -> tuple[Any, ...]:
  """The shape of an elementwise operation; sizes may be symbolic, scalars beside arrays."""
  longest = max(shapes, key=len)
  axes = zip(*(s for s in shapes if len(s) == len(longest)), strict=True)
  return tuple(next((n for n in sizes if not (isinstance(n, int) and n == 1)), 1) for sizes in axes)


def _structural(
  graph: Graph, name: str, p: Any, outs: list[Value], operands: list[Value]
) -> list[Value]:
  """Operations that need more of their operands than a name."""
  out, x = outs[0], operands[0]
  result = lambda made, held=out.shape: [Value(out.shape, tuple(held), out.dtype, made)]
  match name:
    case 'conv_general_dilated':
      return result(onnx_convolution.convolution(graph, p, *operands))
    case 'transpose':
      order = p['permutation']
      made = graph.add('Transpose', graph.held(x), perm=list(order))
      return result(made, [x.held[i] for i in order])
    case 'slice' | 'rev':
      return result(*_slice(graph, name, p, out, x))
    case 'split':
      sizes = graph.sizes(p['sizes'])
      made = graph.add_many('Split', graph.whole(x), sizes, outputs=len(outs), axis=p['axis'])
      return [Value(o.shape, o.shape, o.dtype, n) for o, n in zip(outs, made, strict=True)]
    case 'scatter':
      return result(_scatter(graph, p, *operands))
  operation = Operation(name, p, out, tuple(x.shape for x in operands))
  return result(WHOLE[name](graph, operation, *map(graph.whole, operands)))


def _broadcast(graph: Graph, p: Any, out: Value, x: Value) -> Value:
  """Axes of length 1 for the new ones; nothing is repeated."""
  if x.imaginary:
    real, imaginary = (_broadcast(graph, p, out, part) for part in _parts(x))
    return _joined(real, imaginary)
  places = p['broadcast_dimensions']
  held = [1] * len(out.shape)
  for place, n in zip(places, x.held, strict=True):
    held[place] = n
  if x.constant:
    return Value(out.shape, tuple(held), out.dtype, array=x.array.reshape(held))
  new = [i for i in range(len(held)) if i not in places]
  made = graph.add('Unsqueeze', graph.held(x), graph.sizes(new)) if new else graph.held(x)
  return Value(out.shape, tuple(held), out.dtype, made)


def _slice(graph: Graph, name: str, p: Any, out: Value, x: Value) -> tuple[str, list[Any]]:
  """Slices and reversals; an axis that is to be repeated stays as it is."""
  rank = len(x.shape)
  repeated = [i for i in range(rank) if x.held[i] != x.shape[i]]
  held = [1 if i in repeated else n for i, n in enumerate(out.shape)]
  if name == 'rev':
    axes = [i for i in p['dimensions'] if i not in repeated]
    n, least = len(axes), np.iinfo(np.int64).min
    return cut(graph, graph.held(x), axes, [-1] * n, [least] * n, [-1] * n), held
  starts, limits, steps = p['start_indices'], p['limit_indices'], p['strides'] or (1,) * rank
  axes = [
    i
    for i in range(rank)
    if i not in repeated and (starts[i], limits[i], steps[i]) != (0, x.shape[i], 1)
  ]
  bounds = ([values[i] for i in axes] for values in (starts, limits, steps))
  return cut(graph, graph.held(x), axes, *bounds), held


def _iota(graph: Graph, p: Any, out: Value) -> Value:
  """Only of sizes that are symbolic; all others are constants."""
  axis, long = p['dimension'], np.int64
  length = graph.add('Squeeze', graph.size(out.shape[axis]))
  held = [n if i == axis else 1 for i, n in enumerate(out.shape)]
  numbers = graph.add('Range', scalar(graph, 0, long), length, scalar(graph, 1, long))
  numbers = graph.add('Cast', numbers, to=element_type(out.dtype))
  rest = [i for i in range(len(out.shape)) if i != axis]
  if rest:
    numbers = graph.add('Unsqueeze', numbers, graph.sizes(rest))
  return dataclasses.replace(out, held=tuple(held), name=numbers)


def _scatter(graph: Graph, p: Any, x: Value, place: Value, new: Value) -> str:
  """x.at[a:b, c:d].set(new): one window at a place that is known."""
  d = p['dimension_numbers']
  if not place.constant or len(place.shape) != 1 or d.operand_batching_dims:
    raise NotImplementedError('at several places, or at computed ones')
  window = [1 if i in d.inserted_window_dims else None for i in range(len(x.shape))]
  sizes = iter(new.shape)
  window = [n or next(sizes) for n in window]
  starts = [0] * len(window)
  for axis, start in zip(d.scatter_dims_to_operand_dims, place.array.tolist(), strict=True):
    starts[axis] = start
  ends = [start + n for start, n in zip(starts, window, strict=True)]
  axes = [i for i, n in enumerate(window) if n is not x.shape[i] and n != x.shape[i]]
  inside = np.ones([x.shape[i] if i in axes else 1 for i in range(len(window))], bool)
  for axis in axes:
    where = np.arange(x.shape[axis])
    where = (where >= starts[axis]) & (where < ends[axis])
    inside &= where.reshape([-1 if i == axis else 1 for i in range(len(window))])
  left = [n - end if i in axes else 0 for i, (n, end) in enumerate(zip(x.shape, ends, strict=True))]
  wide = graph.add('Reshape', graph.whole(new), graph.sizes(window))
  wide = graph.add('Pad', wide, graph.sizes(starts + left))
  return graph.add('Where', graph.stored(inside), wide, graph.whole(x))


def _compute(equation: Any, operands: list[Value], outs: list[Value]) -> list[Value] | None:
  """The results of an operation on constants; None: they would be too large, or of unknown size."""
  arrays = [x.array for x in operands]
  if equation.primitive.name in ELEMENTWISE:
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    made = equation.primitive.bind(*(np.broadcast_to(a, shape) for a in arrays), **equation.params)
    return [Value(outs[0].shape, shape, outs[0].dtype, array=np.asarray(made))]
  if not all(isinstance(n, int) for x in (*operands, *outs) for n in x.shape):
    return None
  allowed = max(_SMALL, 2 * sum(a.size for a in arrays))
  if sum(int(np.prod(o.shape)) for o in outs) > allowed:
    return None
  key = lambda a: jax.dtypes.issubdtype(a.dtype, jax.dtypes.extended)
  repeated = lambda a, x: a if key(a) else np.broadcast_to(a, x.shape)
  whole = [repeated(a, x) for a, x in zip(arrays, operands, strict=True)]
  made = equation.primitive.bind(*whole, **equation.params)
  return [constant(a) for a in (made if equation.primitive.multiple_results else [made])]


def _parts(x: Value) -> tuple[Value, Value]:
  """The real and the imaginary part; zeros for that of a real array."""
  if x.imaginary:
    return dataclasses.replace(x, dtype=np.dtype(np.float32), imaginary=None), x.imaginary
  if x.constant and _is_complex(x):
    array = np.broadcast_to(x.array, x.shape)
    return constant(array.real), constant(array.imag)
  zero = np.zeros((1,) * len(x.shape), np.float32)
  return x, Value(x.shape, zero.shape, zero.dtype, array=zero)


def _joined(real: Value, imaginary: Value) -> Value:
  return dataclasses.replace(real, dtype=np.dtype(np.complex64), imaginary=imaginary)


def _is_complex(x: Value) -> bool:
  return jax.dtypes.issubdtype(x.dtype, np.complexfloating)


def _complex(graph: Graph, equation: Any, operands: list[Value], outs: list[Value]) -> list[Value]:
  """Operations on pairs of a real and an imaginary part."""
  name, p, out = equation.primitive.name, equation.params, outs[0]
  part = lambda made: Value(out.shape, out.shape, np.dtype(np.float32), made)
  if name == 'fft':
    made = onnx_fourier.transform(graph, p, operands[0])
    return [part(made)] if isinstance(made, str) else [_joined(*map(part, made))]
  if name == 'complex':
    return [_joined(*operands)]
  if name in ('real', 'imag'):
    return [_parts(operands[0])[name == 'imag']]
  parts = [_parts(x) for x in operands]
  if name == 'convert_element_type':
    return [_joined(*parts[0])]

  def arithmetic(operation: str, a: Value, b: Value) -> Value:
    held = _together(a.held, b.held)
    made = graph.add(operation, graph.held(a), graph.held(b))
    return Value(out.shape, held, np.dtype(np.float32), made)

  if name in ('add', 'sub'):
    (a, b), (c, d) = parts
    kind = name.capitalize()
    return [_joined(arithmetic(kind, a, c), arithmetic(kind, b, d))]
  if name in ('mul', 'div') and not _is_complex(operands[1]):
    (a, b), (c, _) = parts
    kind = name.capitalize()
    return [_joined(arithmetic(kind, a, c), arithmetic(kind, b, c))]
  if name == 'mul':
    (a, b), (c, d) = parts
    times = lambda x, y: arithmetic('Mul', x, y)
    real = arithmetic('Sub', times(a, c), times(b, d))
    return [_joined(real, arithmetic('Add', times(a, d), times(b, c)))]
  if name not in MOVING:
    raise NotImplementedError('on complex numbers')
  real_outs = [Value(o.shape, o.held, np.dtype(np.float32)) for o in outs]
  of = lambda index: _structural(graph, name, p, real_outs, [pair[index] for pair in parts])
  return [_joined(a, b) for a, b in zip(of(0), of(1), strict=True)]


def _scan(graph: Graph, p: Any, outs: list[Value], operands: list[Value]) -> list[Value]:
  """A loop of a known number of turns; it reads constants and whatever does not change outside."""
  first, last = p['num_consts'], p['num_consts'] + p['num_carry']
  fixed, carried, rows = operands[:first], operands[first:last], operands[last:]
  length = graph.add('Squeeze', graph.size(p['length']))

  def turn(body: Graph, number: str, values: list[Value]) -> list[Value]:
    if p['reverse']:
      one = scalar(body, 1, np.int64)
      number = body.add('Sub', body.add('Sub', length, one), number)
    row = lambda x, name: _new(x.shape[1:], x.dtype, body.add('Gather', name, number, axis=0))
    taken = [row(x, name) for x, name in zip(rows, names, strict=True)]
    return translate(body, p['jaxpr'], [*fixed, *values, *taken])

  names = [graph.whole(x) for x in rows]
  made = _loop(graph, length, '', carried, outs, turn)
  if not p['reverse']:
    return made
  first = [[0], [-1], [np.iinfo(np.int64).min], [-1]]  # of the rows, which came last first
  flipped = [dataclasses.replace(x, name=cut(graph, x.name, *first)) for x in made[len(carried) :]]
  return [*made[: len(carried)], *flipped]


def _while(graph: Graph, p: Any, outs: list[Value], operands: list[Value]) -> list[Value]:
  tests, fixed = p['cond_nconsts'], p['cond_nconsts'] + p['body_nconsts']
  of_test, of_body, carried = operands[:tests], operands[tests:fixed], operands[fixed:]
  holds = lambda g, values: g.whole(translate(g, p['cond_jaxpr'], [*of_test, *values])[0])
  turn = lambda body, _, values: translate(body, p['body_jaxpr'], [*of_body, *values])
  return _loop(graph, '', holds(graph, carried), carried, outs, turn, holds)


def _loop(graph, length, begins, carried, outs, turn, holds=None) -> list[Value]:
  """ONNX's Loop.

  Args:
    graph: that gets the node.
    length: the name of the number of turns; '': until `holds` does not.
    begins: the name of what `holds` says of the values at first; '': true.
    carried: values that change with every turn, at first.
    outs: those values and what every turn adds a row to, as the trace has them.
    turn: (body, name of the turn's number, values) -> the next values, then the rows.
    holds: (body, values) -> name of the condition for another turn.
  """
  body = Graph(graph)
  number, condition = body.fresh('turn'), body.fresh('condition')
  values = [_new(x.shape, x.dtype, body.fresh('carried')) for x in carried]
  results = turn(body, number, values)
  more = holds(body, results[: len(carried)]) if holds else condition
  kept = [body.add('Identity', body.whole(x)) for x in results]
  more = body.add('Identity', more)
  flag, count = _new((), np.dtype(bool), ''), _new((), np.dtype(np.int64), '')
  described = [body.described(number, count), body.described(condition, flag)]
  described += [body.described(x.name, x) for x in values]
  given = [body.described(more, flag)]
  given += [body.described(name, x) for name, x in zip(kept, results, strict=True)]
  inputs = [length, begins, *map(graph.whole, carried)]
  made = graph.add_many(
    'Loop', *inputs, outputs=len(outs), body=body.proto('turn', described, given)
  )
  return [_new(o.shape, o.dtype, name) for o, name in zip(outs, made, strict=True)]


def _cond(graph: Graph, p: Any, outs: list[Value], operands: list[Value]) -> list[Value]:
  if len(p['branches']) != 2:
    raise NotImplementedError(f'one of {len(p["branches"])} branches')

  def branch(trace: Any) -> Any:
    body = Graph(graph)
    results = translate(body, trace, operands[1:])
    kept = [body.add('Identity', body.whole(x)) for x in results]
    given = [body.described(name, x) for name, x in zip(kept, results, strict=True)]
    return body.proto('branch', [], given)

  no, yes = map(branch, p['branches'])
  which = graph.add('Cast', graph.whole(operands[0]), to=element_type(bool))
  made = graph.add_many('If', which, outputs=len(outs), then_branch=yes, else_branch=no)
  return [_new(o.shape, o.dtype, name) for o, name in zip(outs, made, strict=True)]


def _new(shape: tuple, dtype: Any, name: str) -> Value:
  return Value(tuple(shape), tuple(shape), dtype, name)


_LOOPS = {'scan': _scan, 'while': _while, 'cond': _cond}
