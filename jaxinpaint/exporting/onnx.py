"""A system with its weights as one ONNX file, for onnxruntime and other programs, and browsers.

  onnx.write(function.build(trained.load('mesff/box')), 'box.onnx', size=(512, 512))

The graph is translated from the trace of `function.Exportable.fill` (`onnx_trace`), in the plain
forms of its operations; it blanks the hole and pastes the known pixels itself. Arrays are as in
jax: [batch, height, width, channels]. The file's metadata hold the card of the function.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import onnx
from onnx import checker, helper

from jaxinpaint.exporting.function import INPUTS, OUTPUTS, Exportable, ExportError, numbers_needed
from jaxinpaint.exporting.onnx_graph import OPSET, Graph, Value
from jaxinpaint.exporting.onnx_trace import Untranslatable, translate
from jaxinpaint.predictor import Size
from jaxinpaint.runtime import atomic

IR_VERSION = 8  # the oldest that has the operations of OPSET, so that older runtimes read it, too


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
  """The card in the metadata of a model."""
  return json.loads({entry.key: entry.value for entry in made.metadata_props}['card'])


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
    ExportError: the system does not take this size; or it chooses its operations by the size or the
      number of the images, so that these have to be given; or one of them is not translated.
  """
  name, dtype = exportable.name, exportable.card['config'].get('dtype', 'float32')
  if dtype != 'float32':
    raise ExportError(
      f'{name} computes in {dtype}, which onnxruntime cannot on a CPU: export it to StableHLO'
    )
  if batch is None and exportable.inference.samples:
    batch = 1
  shape = exportable.shape(size, batch)
  graph = Graph()
  inputs = [_input(word, shape) for word in INPUTS]
  _bind_sizes(graph, shape, exportable.inference.multiple)
  arguments = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
  with numbers_needed(exportable, shape):
    trace = jax.make_jaxpr(lambda *x: exportable.fill(exportable.weights, *x))(*arguments)
  try:
    (filled,) = translate(graph, trace, inputs)
  except Untranslatable as error:
    raise ExportError(
      f'{name} cannot be written as ONNX: {error} has no translation; export it to StableHLO'
    ) from error
  (result,) = OUTPUTS
  graph.give(filled, result)
  described = [_described(word, shape, of) for of in (INPUTS, OUTPUTS) for word in of]
  proto = graph.proto('fill', described[:-1], described[-1:])
  proto.initializer.extend(graph.initializers.values())
  made = helper.make_model(
    proto,
    opset_imports=[helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='jaxinpaint',
  )
  card = {
    'format': 'jaxinpaint ONNX',
    'opset': OPSET,
    'shape': [str(n) for n in shape],  # as '16*h': any multiple of 16
    **exportable.card,
  }
  texts = {word: card[word] for word in ('system', 'weights', 'licence') if word in card}
  helper.set_model_props(made, {'card': json.dumps(card), **texts})
  checker.check_model(made, full_check=True)
  return made


def _input(name: str, shape: tuple[Any, ...]) -> Value:
  whole = (*shape, INPUTS[name]['shape'][-1])
  return Value(whole, whole, np.dtype(np.float32), name)


def _bind_sizes(graph: Graph, shape: tuple[Any, ...], multiple: int) -> None:
  """The symbols of `Exportable.shape`, read from the shape of the image."""
  if all(isinstance(n, int) for n in shape):
    return
  sizes = graph.add('Shape', 'image')
  for axis, (symbol, factor) in enumerate((('b', 1), ('h', multiple), ('w', multiple))):
    if not isinstance(shape[axis], int):
      size = graph.add('Slice', sizes, graph.sizes([axis]), graph.sizes([axis + 1]))
      graph.bind_size(symbol, graph.add('Div', size, graph.sizes([factor])))


def _described(name: str, shape: tuple[Any, ...], conventions: Any) -> onnx.ValueInfoProto:
  """An input or output of the model with its convention; free sizes have names."""
  *words, channels = conventions[name]['shape']
  sizes = [n if isinstance(n, int) else word for n, word in zip(shape, words, strict=True)]
  low, high = conventions[name]['range']
  text = f'in [{low}, {high}]: {conventions[name]["holds"]}'
  return helper.make_tensor_value_info(
    name, onnx.TensorProto.FLOAT, [*sizes, channels], doc_string=text
  )
