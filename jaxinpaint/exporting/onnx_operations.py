"""What operations of a jax trace are in ONNX, but for loops, convolutions, Fourier transforms.

A translation takes the graph, the operation and the names of its inputs, and returns the name of
its result. It is not asked where all inputs are constants (`onnx_trace`).
"""

import dataclasses
import string
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxinpaint.exporting.onnx_graph import Graph, Value, element_type


@dataclasses.dataclass(frozen=True)
class Operation:
  """One operation of a trace.

  Attributes:
    name: of jax.
    params: of jax.
    out: its result, or the first one: shape and dtype.
    shapes: of its inputs.
  """

  name: str
  params: Mapping[str, Any]
  out: Value
  shapes: tuple[tuple[Any, ...], ...]


Translation = Callable[..., str]

# Of arrays of one shape; ONNX repeats axes of length 1 in them.
ELEMENTWISE: dict[str, Translation] = {}
# Of whole arrays.
WHOLE: dict[str, Translation] = {}
# Those that move numbers and do not change them: they act on each part of a complex array.
MOVING = {'transpose', 'reshape', 'slice', 'squeeze', 'concatenate', 'split', 'rev'}
MOVING |= {'broadcast_in_dim', 'gather', 'stack', 'tile', 'expand_dims', 'pad'}
# Those that do nothing in a program that runs once, on one device.
NOTHING = {'stop_gradient', 'copy', 'copy_p', 'reduce_precision', 'optimization_barrier'}
NOTHING |= {'sharding_constraint'}

_SAME_IN_ONNX = dict(
  add='Add',
  add_any='Add',
  sub='Sub',
  mul='Mul',
  div='Div',
  max='Max',
  min='Min',
  pow='Pow',
  exp='Exp',
  log='Log',
  tanh='Tanh',
  sin='Sin',
  cos='Cos',
  erf='Erf',
  logistic='Sigmoid',
  sqrt='Sqrt',
  abs='Abs',
  neg='Neg',
  sign='Sign',
  floor='Floor',
  ceil='Ceil',
  eq='Equal',
  lt='Less',
  le='LessOrEqual',
  gt='Greater',
  ge='GreaterOrEqual',
)


def elementwise(*names: str) -> Callable[[Translation], Translation]:
  """Registers the translation of operations that act on each element alone."""

  def register(translation: Translation) -> Translation:
    ELEMENTWISE.update(dict.fromkeys(names, translation))
    return translation

  return register


def whole(*names: str) -> Callable[[Translation], Translation]:
  """Registers the translation of operations that need all of their inputs."""

  def register(translation: Translation) -> Translation:
    WHOLE.update(dict.fromkeys(names, translation))
    return translation

  return register


def _same(operation: str) -> Translation:
  return lambda graph, op, *inputs: graph.add(operation, *inputs)


ELEMENTWISE.update({name: _same(operation) for name, operation in _SAME_IN_ONNX.items()})


def scalar(graph: Graph, number: float, dtype: Any) -> str:
  """The name of a constant of rank 0."""
  return graph.stored(np.array(number, dtype))


@elementwise('ne')
def _ne(graph: Graph, op: Operation, a: str, b: str) -> str:
  return graph.add('Not', graph.add('Equal', a, b))


@elementwise('square')
def _square(graph: Graph, op: Operation, x: str) -> str:
  return graph.add('Mul', x, x)


@elementwise('integer_pow')
def _integer_pow(graph: Graph, op: Operation, x: str) -> str:
  if op.params['y'] == 2:
    return graph.add('Mul', x, x)
  return graph.add('Pow', x, scalar(graph, op.params['y'], op.out.dtype))


@elementwise('rsqrt')
def _rsqrt(graph: Graph, op: Operation, x: str) -> str:
  return graph.add('Reciprocal', graph.add('Sqrt', x))


@elementwise('log1p')
def _log1p(graph: Graph, op: Operation, x: str) -> str:
  return graph.add('Log', graph.add('Add', x, scalar(graph, 1, op.out.dtype)))


@elementwise('expm1')
def _expm1(graph: Graph, op: Operation, x: str) -> str:
  return graph.add('Sub', graph.add('Exp', x), scalar(graph, 1, op.out.dtype))


@elementwise('rem')
def _rem(graph: Graph, op: Operation, a: str, b: str) -> str:
  return graph.add('Mod', a, b, fmod=1)  # the sign of the dividend


@elementwise('and', 'or', 'xor', 'not')
def _logic(graph: Graph, op: Operation, *inputs: str) -> str:
  kind = '' if np.dtype(op.out.dtype) == bool else 'Bitwise'
  return graph.add(kind + op.name.capitalize(), *inputs)


@elementwise('select_n')
def _select(graph: Graph, op: Operation, which: str, *cases: str) -> str:
  if len(cases) != 2:
    raise NotImplementedError(f'a choice among {len(cases)}')
  return graph.add('Where', which, cases[1], cases[0])


@elementwise('clamp')
def _clamp(graph: Graph, op: Operation, low: str, x: str, high: str) -> str:
  return graph.add('Min', graph.add('Max', x, low), high)


@elementwise('convert_element_type')
def _convert(graph: Graph, op: Operation, x: str) -> str:
  return graph.add('Cast', x, to=element_type(op.out.dtype))


@elementwise('is_finite')
def _is_finite(graph: Graph, op: Operation, x: str) -> str:
  return graph.add('Not', graph.add('Or', graph.add('IsInf', x), graph.add('IsNaN', x)))


@elementwise('round')
def _round(graph: Graph, op: Operation, x: str) -> str:
  if op.params['rounding_method'].name != 'TO_NEAREST_EVEN':
    raise NotImplementedError('rounding of halves away from zero')
  return graph.add('Round', x)


@whole('reshape', 'squeeze', 'expand_dims')
def _reshape(graph: Graph, op: Operation, x: str) -> str:
  if op.params.get('dimensions') is not None and 'new_sizes' in op.params:
    raise NotImplementedError('a reshape that transposes')
  return graph.add('Reshape', x, graph.sizes(op.out.shape))


@whole('concatenate')
def _concatenate(graph: Graph, op: Operation, *inputs: str) -> str:
  return graph.add('Concat', *inputs, axis=op.params['dimension'])


@whole('stack')
def _stack(graph: Graph, op: Operation, *inputs: str) -> str:
  axis = op.params['axis']
  rows = [graph.add('Unsqueeze', x, graph.sizes([axis])) for x in inputs]
  return graph.add('Concat', *rows, axis=axis)


@whole('tile')
def _tile(graph: Graph, op: Operation, x: str) -> str:
  return graph.add('Tile', x, graph.sizes(op.params['reps']))


def cut(graph: Graph, x: str, axes: list[int], starts: Any, ends: Any, steps: Any) -> str:
  """Slice along some axes; all of x where there are none."""
  if not axes:
    return x
  return graph.add('Slice', x, *[graph.sizes(n) for n in (starts, ends, axes, steps)])


@whole('pad')
def _pad(graph: Graph, op: Operation, x: str, value: str) -> str:
  between = [n for _, _, n in op.params['padding_config']]
  rank = len(between)
  if any(between):
    # A new axis behind each one, of the element and the values between it and the next ...
    axes = [i for i, n in enumerate(between) if n]
    for axis in axes:
      x = graph.add('Unsqueeze', x, graph.sizes([axis + 1]))
      widths = [0] * (rank + 1)
      after = list(widths)
      after[axis + 1] = between[axis]
      x = graph.add('Pad', x, graph.sizes(widths + after), value)
      # ... which is merged; what follows the last element is cut off below.
      shape = graph.add('Shape', x)
      whole_sizes = [
        cut(graph, shape, [0], [0], [axis], [1]),
        graph.sizes([-1]),
        cut(graph, shape, [0], [axis + 2], [rank + 1], [1]),
      ]
      x = graph.add('Reshape', x, graph.add('Concat', *whole_sizes, axis=0))
      x = cut(graph, x, [axis], [0], [-between[axis]], [1])
  low, high = ([c[i] for c in op.params['padding_config']] for i in (0, 1))
  if any(low) or any(high):
    x = graph.add('Pad', x, graph.sizes(low + high), value)  # negative numbers crop
  return x


@whole('dynamic_slice')
def _dynamic_slice(graph: Graph, op: Operation, x: str, *starts: str) -> str:
  one, sizes = graph.sizes([1]), op.params['slice_sizes']
  start = graph.add('Concat', *[graph.add('Reshape', s, one) for s in starts], axis=0)
  last = [n - size for n, size in zip(op.shapes[0], sizes, strict=True)]
  return _window(graph, x, start, list(range(len(sizes))), sizes, last)


def _window(graph: Graph, x: str, start: str, axes: list[int], sizes: Any, last: Any) -> str:
  """A slice at a place that is computed, moved into the array as jax does it.

  Args:
    graph: that gets the nodes.
    x: the array.
    start: int[n].
    axes: n of them.
    sizes: of the slice, along each.
    last: the largest start, along each.
  """
  start = graph.add('Cast', start, to=element_type(np.int64))
  start = graph.add('Min', graph.add('Max', start, graph.sizes([0])), graph.sizes(last))
  end = graph.add('Add', start, graph.sizes(sizes))
  return graph.add('Slice', x, start, end, graph.sizes(axes))


@whole('reduce_sum', 'reduce_max', 'reduce_min', 'reduce_prod')
def _reduce(graph: Graph, op: Operation, x: str) -> str:
  if not op.params['axes']:
    return x
  kind = {'sum': 'Sum', 'max': 'Max', 'min': 'Min', 'prod': 'Prod'}[op.name.removeprefix('reduce_')]
  return graph.add(f'Reduce{kind}', x, graph.sizes(op.params['axes']), keepdims=0)


@whole('reduce_and', 'reduce_or')
def _reduce_logic(graph: Graph, op: Operation, x: str) -> str:
  numbers = graph.add('Cast', x, to=element_type(np.int32))
  kind = 'ReduceMin' if op.name == 'reduce_and' else 'ReduceMax'
  reduced = graph.add(kind, numbers, graph.sizes(op.params['axes']), keepdims=0)
  return graph.add('Cast', reduced, to=element_type(bool))


@whole('argmax', 'argmin')
def _arg(graph: Graph, op: Operation, x: str) -> str:
  kind = 'ArgMax' if op.name == 'argmax' else 'ArgMin'
  index = graph.add(kind, x, axis=op.params['axes'][0], keepdims=0)
  return graph.add('Cast', index, to=element_type(op.out.dtype))


@whole('cumsum')
def _cumsum(graph: Graph, op: Operation, x: str) -> str:
  axis = scalar(graph, op.params['axis'], np.int64)
  return graph.add('CumSum', x, axis, reverse=int(op.params['reverse']))


@whole('reduce_window_sum', 'reduce_window_max', 'reduce_window')
def _pool(graph: Graph, op: Operation, x: str, *inputs: str) -> str:
  """Over the axes whose windows are longer than 1, which become the last ones of [N,1,...]."""
  window, rank = op.params['window_dimensions'], len(op.out.shape)
  if op.name == 'reduce_window' or any(d != 1 for d in op.params['base_dilation']):
    raise NotImplementedError('windows of this kind')
  inside = [i for i in range(rank) if window[i] > 1 or op.params['window_strides'][i] > 1]
  if not inside and not any(map(any, op.params['padding'])):
    return x
  outside = [i for i in range(rank) if i not in inside]
  order = outside + inside
  of = lambda values: [int(values[i]) for i in inside]
  pads = [int(op.params['padding'][i][side]) for side in (0, 1) for i in inside]
  if op.name == 'reduce_window_sum' and any(d != 1 for d in op.params['window_dilation']):
    raise NotImplementedError('sums over dilated windows')
  settings = dict(kernel_shape=of(window), strides=of(op.params['window_strides']), pads=pads)
  x = graph.add('Transpose', x, perm=order)
  x = graph.add('Reshape', x, graph.sizes([-1, 1, *(op.shapes[0][i] for i in inside)]))
  if op.name == 'reduce_window_max':
    x = graph.add('MaxPool', x, dilations=of(op.params['window_dilation']), **settings)
  else:
    x = graph.add('AveragePool', x, count_include_pad=1, **settings)
    x = graph.add('Mul', x, scalar(graph, np.prod(of(window)), op.out.dtype))
  x = graph.add('Reshape', x, graph.sizes([op.out.shape[i] for i in order]))
  return graph.add('Transpose', x, perm=[order.index(i) for i in range(rank)])


@whole('dot_general')
def _dot(graph: Graph, op: Operation, a: str, b: str) -> str:
  (a_summed, b_summed), (a_batch, b_batch) = op.params['dimension_numbers']
  letters = iter(string.ascii_lowercase)
  of_a = [next(letters) for _ in range(len(op.shapes[0]))]
  of_b = [next(letters) for _ in range(len(op.shapes[1]))]
  for i, j in zip((*a_batch, *a_summed), (*b_batch, *b_summed), strict=True):
    of_b[j] = of_a[i]
  free = lambda names, *taken: [n for i, n in enumerate(names) if i not in sum(taken, ())]
  result = [of_a[i] for i in a_batch]
  result += free(of_a, tuple(a_batch), tuple(a_summed)) + free(
    of_b, tuple(b_batch), tuple(b_summed)
  )
  equation = f'{"".join(of_a)},{"".join(of_b)}->{"".join(result)}'
  return graph.add('Einsum', a, b, equation=equation)


@whole('gather')
def _gather(graph: Graph, op: Operation, x: str, indices: str) -> str:
  """Where whole axes and single indices are taken, which is what indexing with arrays does."""
  d, sizes, shape = op.params['dimension_numbers'], op.params['slice_sizes'], op.shapes[0]
  batch, taken = list(d.operand_batching_dims), list(d.start_index_map)
  if len(op.shapes[1]) == 1 and all(sizes[i] == n or i in taken for i, n in enumerate(shape)):
    window = [sizes[i] for i in taken]
    last = [shape[i] - sizes[i] for i in taken]
    return graph.add(
      'Reshape', _window(graph, x, indices, taken, window, last), graph.sizes(op.out.shape)
    )
  rest = [i for i in range(len(shape)) if i not in batch and i not in taken]
  if any(sizes[i] != shape[i] for i in rest) or any(sizes[i] != 1 for i in taken):
    raise NotImplementedError('slices at computed places')
  if set(d.collapsed_slice_dims) != set(taken):
    raise NotImplementedError('slices of length 1 at computed places')
  rank = len(op.shapes[1]) - 1
  other = [i for i in range(rank) if i not in d.start_indices_batching_dims]
  x = graph.add('Transpose', x, perm=batch + taken + rest)
  order = [*d.start_indices_batching_dims, *other, rank]
  indices = graph.add('Transpose', indices, perm=order)
  indices = graph.add('Cast', indices, to=element_type(np.int64))
  if op.params['mode'] is not None and op.params['mode'].name == 'CLIP':
    last = graph.sizes([shape[i] - 1 for i in taken])
    indices = graph.add('Min', graph.add('Max', indices, graph.sizes([0])), last)
  gathered = graph.add('GatherND', x, indices, batch_dims=len(batch))
  # From [indices in `order`..., rest...] to what jax wants.
  places = [i for i in range(len(op.out.shape)) if i not in d.offset_dims]
  now = {places[axis]: i for i, axis in enumerate(order[:-1])}
  now |= {axis: rank + i for i, axis in enumerate(d.offset_dims)}
  return graph.add('Transpose', gathered, perm=[now[i] for i in range(len(op.out.shape))])


@whole('sort')
def _sort(graph: Graph, op: Operation, x: str, *others: str) -> str:
  if others:
    raise NotImplementedError('sorting several arrays together')
  length = graph.size(op.out.shape[op.params['dimension']])
  return graph.add_many('TopK', x, length, outputs=2, axis=op.params['dimension'], largest=0)[0]
