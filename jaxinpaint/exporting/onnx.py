"""A system with its weights as one ONNX file, for onnxruntime and other programs, and browsers.

  onnx.write(function.build(trained.load('mesff/box')), 'box.onnx', size=(512, 512))

The graph is translated from the trace of `function.Exportable.fill` (`onnx_trace`), in the plain
forms of its operations; it blanks the hole and pastes the known pixels itself. Arrays are as in
jax: [batch, height, width, channels]. The file's metadata hold the card of the function.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import onnx
from jax import export
from onnx import checker, helper

from jaxinpaint.exporting.function import Exportable, ExportError
from jaxinpaint.exporting.onnx_graph import OPSET, Graph, Value
from jaxinpaint.exporting.onnx_trace import Untranslatable, translate
from jaxinpaint.predictor import Size
from jaxinpaint.runtime import atomic

IR_VERSION = 8  # the oldest that has the operations of OPSET, so that older runtimes read it, too
_INPUTS = {'image': 3, 'mask': 1}  # {name: channels}
_OUTPUT = 'filled'


def write(
  exportable: Exportable,
  path: pathlib.Path,
  *,
  size: Size | None = None,
  batch: int | None = None,
) -> dict[str, Any]:
  """Writes the file; one that is there is replaced.

  Args:
    exportable: of `function.build`.
    path: of the file; missing folders are made.
    size: as `model`.
    batch: as `model`.

  Returns:
    The card in the file.

  Raises:
    ExportError: as `model`.
    OSError: the file cannot be written.
  """
  made = model(exportable, size=size, batch=batch)
  path.parent.mkdir(parents=True, exist_ok=True)
  atomic.write(path, made.SerializeToString())
  return read_card(made)


def read_card(made: onnx.ModelProto) -> dict[str, Any]:
  """The card in the metadata of a model; everything in it but plain text is JSON there."""
  return {entry.key: json.loads(entry.value) for entry in made.metadata_props}


def model(
  exportable: Exportable, *, size: Size | None = None, batch: int | None = None
) -> onnx.ModelProto:
  """The function as a model of ONNX, checked.

  Args:
    exportable: of `function.build`.
    size: (height, width) of the images; None: any that the system takes, or its own
      (`Inference.side`).
    batch: number of images; None: any, but one of a system that draws random numbers, which become
      constants of the file.

  Returns:
    A model with the inputs 'image' f32[B,H,W,3] and 'mask' f32[B,H,W,1], and the output 'filled'
    f32[B,H,W,3], as `Exportable.fill` has them.

  Raises:
    ExportError: the system is not one of a free size, or holds an operation that is not translated.
  """
  name, inference = exportable.name, exportable.inference
  if exportable.card['config'].get('dtype', 'float32') != 'float32':
    raise ExportError(
      f'{name} computes in {exportable.card["config"]["dtype"]}, which onnxruntime cannot on a '
      'CPU: export it to StableHLO'
    )
  if inference.side:
    size = size or (inference.side, inference.side)
  if size is not None:
    exportable.check_size(*size)
  batch = 1 if batch is None and inference.samples else batch
  shapes = _shapes(inference.multiple, inference.min_side, batch, size)
  arguments = [jax.ShapeDtypeStruct((*shapes, n), np.float32) for n in _INPUTS.values()]
  try:
    trace = jax.make_jaxpr(lambda *x: exportable.fill(exportable.weights, *x))(*arguments)
  except Exception as error:
    if size is not None:
      raise
    raise ExportError(
      f'{name} cannot be exported for pictures of any size: its networks do other things for other '
      'sizes; give one size'
    ) from error
  graph = Graph()
  _bind_sizes(graph, shapes, inference.multiple)
  inputs = [Value(x.shape, x.shape, x.dtype, n) for n, x in zip(_INPUTS, arguments, strict=True)]
  try:
    (result,) = translate(graph, trace, inputs)
  except Untranslatable as error:
    raise ExportError(
      f'{name} cannot be written as ONNX: {error} has no translation; export it to StableHLO'
    ) from error
  graph.give(result, _OUTPUT)
  described = [_described(n, c, shapes) for n, c in (*_INPUTS.items(), (_OUTPUT, 3))]
  proto = graph.proto('fill', described[:-1], described[-1:])
  proto.initializer.extend(graph.initializers.values())
  opsets = [helper.make_opsetid('', OPSET)]
  made = helper.make_model(
    proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name='jaxinpaint'
  )
  helper.set_model_props(made, _properties(exportable.card, shapes))
  checker.check_model(made, full_check=True)
  return made


def _shapes(
  multiple: int, min_side: int, batch: int | None, size: tuple[int, int] | None
) -> tuple[Any, ...]:
  """(batch, height, width): numbers, or symbolic sizes; sides are multiples of a symbol."""
  least = -(-min_side // multiple)
  text = [str(batch or 'b')]
  text += map(str, size) if size else (f'{multiple}*h', f'{multiple}*w')
  limits = [] if size else [f'h >= {least}', f'w >= {least}']
  return export.symbolic_shape(', '.join(text), constraints=limits)


def _bind_sizes(graph: Graph, shapes: tuple[Any, ...], multiple: int) -> None:
  """The symbols of `_shapes`, read from the shape of the image."""
  if all(isinstance(n, int) for n in shapes):
    return
  sizes = graph.add('Shape', 'image')
  for i, (symbol, factor) in enumerate((('b', 1), ('h', multiple), ('w', multiple))):
    if not isinstance(shapes[i], int):
      size = graph.add('Slice', sizes, graph.sizes([i]), graph.sizes([i + 1]))
      graph.bind_size(symbol, graph.add('Div', size, graph.sizes([factor])))


def _described(name: str, channels: int, shapes: tuple[Any, ...]) -> onnx.ValueInfoProto:
  """Of an input or output of the model; free sizes have names."""
  free = ('batch', 'height', 'width')
  shape = [n if isinstance(n, int) else word for n, word in zip(shapes, free, strict=True)]
  return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [*shape, channels])


def _properties(card: Mapping[str, Any], shapes: tuple[Any, ...]) -> dict[str, str]:
  """The card, for readers that know text alone: what is no text is JSON."""
  free = ('batch', 'height', 'width')
  fixed = {w: n for w, n in zip(free, shapes, strict=True) if isinstance(n, int)}
  whole = {**card, 'fixed_sizes': fixed}
  return {k: v if isinstance(v, str) else json.dumps(v) for k, v in whole.items()}
