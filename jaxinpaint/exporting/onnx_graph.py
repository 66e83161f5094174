"""A graph of ONNX while it is built: nodes, constants, and sizes known only at run time."""

import ast
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper

Dim = Any  # int, or a symbolic dimension of jax.export
OPSET = 18
_LARGE = 2**14  # elements; a constant that is repeated to more of them is stored once


@dataclasses.dataclass(frozen=True)
class Value:
  """An array of the trace, as the graph holds it.

  ONNX repeats axes of length 1 by itself in elementwise operations, so a broadcast array is held
  unrepeated until an operation needs all of it (`Graph.whole`).

  Attributes:
    shape: in the trace.
    held: shape in the graph: that in the trace, or 1 for an axis that is to be repeated.
    dtype: of jax; also that of random keys, which are constants.
    name: of the tensor; '' for a constant that is not in the graph yet.
    array: of a constant, in the shape `held`; else None.
    imaginary: the imaginary part of a complex array, whose real part has the name or array here;
      None for a complex constant.
  """

  shape: tuple[Dim, ...]
  held: tuple[Dim, ...]
  dtype: Any
  name: str = ''
  array: Any = None
  imaginary: 'Value | None' = None

  @property
  def constant(self) -> bool:
    """Whether its numbers are known while the graph is built."""
    return self.array is not None and self.imaginary is None


def constant(array: Any) -> Value:
  """The value of an array that is known."""
  if not jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended):
    array = np.asarray(array)
  return Value(array.shape, array.shape, array.dtype, array=array)


def element_type(dtype: Any) -> int:
  """ONNX's number of a dtype."""
  return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class Graph:
  """Nodes in the order in which they run. The body of a loop is a graph inside of another one.

  Attributes:
    nodes: so far.
    initializers: constants by name; bodies share those of the outermost graph.
  """

  def __init__(self, outer: 'Graph | None' = None):
    """Of a body: `outer`, whose tensors it may read."""
    self.nodes: list[onnx.NodeProto] = []
    self.initializers: dict[str, onnx.TensorProto] = outer.initializers if outer else {}
    self._constants: dict[Any, str] = outer._constants if outer else {}
    self._counter: list[int] = outer._counter if outer else [0]
    self._sizes: dict[str, str] = dict(outer._sizes) if outer else {}

  def fresh(self, kind: str = 't') -> str:
    """A name that no tensor has."""
    self._counter[0] += 1
    return f'{kind}_{self._counter[0]}'

  def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
    """Appends a node with one output; returns that tensor's name."""
    return self.add_many(operation, *inputs, outputs=1, **attributes)[0]

  def add_many(self, operation: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
    """Appends a node; returns the names of its outputs."""
    names = [self.fresh(operation) for _ in range(outputs)]
    self.nodes.append(helper.make_node(operation, inputs, names, name=names[0], **attributes))
    return names

  def stored(self, array: Any) -> str:
    """The name of a constant; equal ones are stored once."""
    array = np.asarray(array, order='C')  # ascontiguousarray would add an axis to scalars
    key = (array.dtype.str, array.shape, hashlib.sha256(array.data).digest())
    if key not in self._constants:
      name = self._constants[key] = self.fresh('constant')
      self.initializers[name] = numpy_helper.from_array(array, name)
    return self._constants[key]

  def held(self, value: Value) -> str:
    """The name of a value as the graph holds it, repeated axes unrepeated."""
    return value.name or self.stored(value.array)

  def whole(self, value: Value) -> str:
    """The name of a value with all that is repeated."""
    if value.held == value.shape:
      return self.held(value)
    static = all(isinstance(n, int) for n in value.shape)
    if value.constant and static and np.prod(value.shape) <= _LARGE:
      return self.stored(np.broadcast_to(value.array, value.shape))
    return self.add('Expand', self.held(value), self.sizes(value.shape))

  def sizes(self, dims: Sequence[Dim]) -> str:
    """i64[n]: a constant where all are numbers."""
    if all(isinstance(d, int | np.integer) for d in dims):
      return self.stored(np.array(dims, np.int64).reshape(-1))
    return self.add('Concat', *[self.size(d) for d in dims], axis=0)

  def size(self, dim: Dim) -> str:
    """i64[1]: a number, or what an expression of symbolic sizes comes to at run time."""
    if isinstance(dim, int | np.integer):
      return self.stored(np.array([dim], np.int64))
    text = str(dim)
    if text not in self._sizes:
      self._sizes[text] = self._expression(ast.parse(text, mode='eval').body)
    return self._sizes[text]

  def bind_size(self, symbol: str, name: str) -> None:
    """Says that the tensor `name`, i64[1], holds the size `symbol`."""
    self._sizes[symbol] = name

  def _expression(self, node: ast.expr) -> str:
    binary = {ast.Add: 'Add', ast.Sub: 'Sub', ast.Mult: 'Mul', ast.FloorDiv: 'Div'}
    called = {'floordiv': 'Div', 'mod': 'Mod', 'max': 'Max', 'min': 'Min'}
    match node:
      case ast.Constant(value=int(n)):
        return self.size(n)
      case ast.Name(id=symbol):
        return self._sizes[symbol]
      case ast.UnaryOp(op=ast.USub(), operand=operand):
        return self.add('Neg', self._expression(operand))
      case ast.BinOp(left=left, op=op, right=right) if type(op) in binary:
        return self.add(binary[type(op)], self._expression(left), self._expression(right))
      case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(n))):
        return self.add('Pow', self._expression(left), self.size(n))
      case ast.Call(func=ast.Name(id=name), args=[a, b]) if name in called:
        return self.add(called[name], self._expression(a), self._expression(b))
    raise ValueError(f'the size {ast.unparse(node)} has no form in ONNX here')

  def give(self, value: Value, name: str) -> None:
    """Gives all of a value as an output of the graph, under this name."""
    self.nodes.append(helper.make_node('Identity', [self.whole(value)], [name], name=name))

  def proto(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.GraphProto:
    """The finished graph, or body, whose constants are those of the outermost graph.

    Args:
      name: of it.
      inputs: ValueInfoProtos, of `described`.
      outputs: likewise.
    """
    return helper.make_graph(self.nodes, name, inputs, outputs)

  def described(self, name: str, value: Value) -> onnx.ValueInfoProto:
    """What an input or output says of itself; sizes that are not numbers are left open."""
    shape = [n if isinstance(n, int) else None for n in value.shape]
    return helper.make_tensor_value_info(name, element_type(value.dtype), shape)
