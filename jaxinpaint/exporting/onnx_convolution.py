"""Convolutions of a jax trace as ONNX's Conv and ConvTranspose, whose arrays are [N,C,H,W]."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinpaint.exporting.onnx_graph import Graph, Value
from jaxinpaint.exporting.onnx_operations import cut


def convolution(graph: Graph, p: Mapping[str, Any], x: Value, kernel: Value) -> str:
  """lax.conv_general_dilated.

  Raises:
    NotImplementedError: with `batch_group_count`, or dilated inputs together with strides.
  """
  if p['batch_group_count'] != 1:
    raise NotImplementedError('a convolution whose batch is in groups')
  numbers = p['dimension_numbers']
  groups, spatial = p['feature_group_count'], len(numbers.lhs_spec) - 2
  low, high = ([int(pads[side]) for pads in p['padding']] for side in (0, 1))
  image = graph.add('Transpose', graph.whole(x), perm=list(numbers.lhs_spec))
  settings: dict[str, Any] = dict(group=groups, dilations=list(p['rhs_dilation']))
  if all(d == 1 for d in p['lhs_dilation']):
    image = _cropped(graph, image, low, high)
    pads = [max(n, 0) for n in low + high]
    weights = _arranged(graph, kernel, numbers.rhs_spec)
    strides = list(p['window_strides'])
    result = graph.add('Conv', image, graph.whole(weights), pads=pads, strides=strides, **settings)
  else:
    if any(s != 1 for s in p['window_strides']):
      raise NotImplementedError('a convolution that is transposed and strided')
    weights = _transposed(_arranged(graph, kernel, numbers.rhs_spec), graph, groups, spatial)
    reach = [(weights.shape[2 + i] - 1) * p['rhs_dilation'][i] for i in range(spatial)]
    # ONNX pads what the kernel writes, and jax what it reads.
    low = [r - n for r, n in zip(reach, low, strict=True)]
    high = [r - n for r, n in zip(reach, high, strict=True)]
    if any(n < 0 for n in low):
      raise NotImplementedError('a transposed convolution padded beyond its kernel')
    result = graph.add(
      'ConvTranspose',
      image,
      graph.whole(weights),
      strides=list(p['lhs_dilation']),
      pads=low + [max(n, 0) for n in high],
      output_padding=[max(-n, 0) for n in high],
      **settings,
    )
  order = list(numbers.out_spec)
  return graph.add('Transpose', result, perm=[order.index(i) for i in range(spatial + 2)])


def _cropped(graph: Graph, image: str, low: list[int], high: list[int]) -> str:
  """[N,C,...] without what negative padding takes away."""
  axes = [i for i in range(len(low)) if min(low[i], high[i]) < 0]
  ends = [min(high[i], 0) or np.iinfo(np.int64).max for i in axes]
  return cut(
    graph, image, [i + 2 for i in axes], [max(-low[i], 0) for i in axes], ends, [1] * len(axes)
  )


def _arranged(graph: Graph, kernel: Value, order: tuple[int, ...]) -> Value:
  """[O,I,...], as ONNX has kernels."""
  shape = tuple(kernel.shape[i] for i in order)
  if kernel.constant:
    array = np.broadcast_to(kernel.array, kernel.shape).transpose(order)
    return Value(shape, shape, kernel.dtype, array=array)
  name = graph.add('Transpose', graph.whole(kernel), perm=list(order))
  return Value(shape, shape, kernel.dtype, name)


def _transposed(kernel: Value, graph: Graph, groups: int, spatial: int) -> Value:
  """[O,I/g,...] -> [I,O/g,...], and mirrored: what ConvTranspose writes with."""
  outputs, inputs = kernel.shape[:2]
  taps = kernel.shape[2:]
  parted = (groups, outputs // groups, inputs, *taps)
  shape = (groups * inputs, outputs // groups, *taps)
  order = (0, 2, 1, *range(3, 3 + spatial))
  if kernel.constant:
    array = kernel.array.reshape(parted).transpose(order).reshape(shape)
    array = np.flip(array, tuple(range(2, 2 + spatial)))
    return Value(shape, shape, kernel.dtype, array=array)
  name = graph.add('Reshape', graph.whole(kernel), graph.sizes(parted))
  name = graph.add('Transpose', name, perm=list(order))
  name = graph.add('Reshape', name, graph.sizes(shape))
  least = np.iinfo(np.int64).min
  name = cut(
    graph, name, list(range(2, 2 + spatial)), [-1] * spatial, [least] * spatial, [-1] * spatial
  )
  return Value(shape, shape, kernel.dtype, name)
