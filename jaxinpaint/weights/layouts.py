"""How a published array lies, and how it lies here.

Layouts, PyTorch on the left:
  conv            [out, in, kh, kw] -> [kh, kw, in, out]
  conv_transpose  [in, out, kh, kw] -> [kh, kw, in, out], taps not flipped:
                  layers.conv.ConvTranspose uses it as PyTorch does
  dense           [out, in] -> [in, out]
  tf_conv_transpose  TensorFlow's [kh, kw, out, in] -> [kh, kw, in, out]; its other kernels are
                  'same'
  conv_turned     as 'conv', and the taps are turned by 180 degrees, for codes that correlate where
                  a transposed convolution convolves
  same            unchanged (biases, scales, statistics)
  rows            as 'same'; [C] is repeated to the [n, C] that the network has
  scalar          [] -> [1]
  plane           [h, w] -> [h, w, 1]
In these, axes of length one are dropped:
  modulated_conv  [1, out, in, kh, kw] -> [kh, kw, in, out]
  modulated_conv_turned  the same, turned
  pointwise       [out, in, 1, 1] -> [in, out], a 1x1 convolution of a vector
  picture         [1, channels, h, w] -> [h, w, channels]
  channels        [1, channels, 1, 1] -> [channels]
  column          [n, 1] -> [n]
  row             [1, n] -> [n]
"""

import numpy as np

# layout: (axes that PyTorch's array is transposed by, axes that bring it back)
LAYOUTS = {
  'conv': ((2, 3, 1, 0), (3, 2, 0, 1)),
  'conv_turned': ((2, 3, 1, 0), (3, 2, 0, 1)),
  'conv_transpose': ((2, 3, 0, 1), (2, 3, 0, 1)),
  'dense': ((1, 0), (1, 0)),
  'tf_conv_transpose': ((0, 1, 3, 2), (0, 1, 3, 2)),
  'same': (None, None),
  'modulated_conv': ((2, 3, 1, 0), (3, 2, 0, 1)),
  'modulated_conv_turned': ((2, 3, 1, 0), (3, 2, 0, 1)),
  'pointwise': ((1, 0), (1, 0)),
  'picture': ((1, 2, 0), (2, 0, 1)),
  'channels': ((0,), (0,)),
  'column': ((0,), (0,)),
  'row': ((0,), (0,)),
  'rows': (None, None),
  'scalar': ((), ()),
  'plane': ((0, 1), (0, 1)),
}
# layout: axes of PyTorch's array that have length one and are dropped before `LAYOUTS` applies
UNIT_AXES = {
  'modulated_conv': (0,),
  'modulated_conv_turned': (0,),
  'pointwise': (2, 3),
  'picture': (0,),
  'channels': (0, 2, 3),
  'column': (1,),
  'row': (0,),
}
# layout: axes of length one that the array here has, and PyTorch's lacks
ADDED_AXES = {'scalar': (0,), 'plane': (2,)}


class LayoutError(ValueError):
  """An array that cannot have the layout that it is said to have."""


def to_ours(layout: str, array: np.ndarray) -> np.ndarray:
  """A published array as it lies here.

  Raises:
    LayoutError: it has another rank, or is longer than one where the layout drops an axis.
  """
  axes, units = LAYOUTS[layout][0], UNIT_AXES.get(layout, ())
  if axes is not None and array.ndim != len(axes) + len(units):
    rank = len(axes) + len(units)
    raise LayoutError(f'shape {array.shape}, a {layout} kernel has {rank} axes')
  if any(array.shape[axis] != 1 for axis in units):
    raise LayoutError(f'shape {array.shape}, a {layout} array has 1 on axes {units}')
  array = array.squeeze(units)
  array = _turned(layout, array if axes is None else array.transpose(axes))
  return np.expand_dims(array, ADDED_AXES.get(layout, ()))


def to_theirs(layout: str, array: np.ndarray) -> np.ndarray:
  """The inverse of `to_ours`; contiguous."""
  axes = LAYOUTS[layout][1]
  array = _turned(layout, array).squeeze(ADDED_AXES.get(layout, ()))
  array = array if axes is None else array.transpose(axes)
  return np.array(np.expand_dims(array, UNIT_AXES.get(layout, ())), order='C')


def shape_here(layout: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
  """Shape that `to_ours` gives a published array of this shape; None: its rank does not fit."""
  axes, units = LAYOUTS[layout][0], UNIT_AXES.get(layout, ())
  if axes is None:
    return shape
  if len(shape) != len(axes) + len(units):
    return None
  kept = [n for axis, n in enumerate(shape) if axis not in units]
  here = [kept[axis] for axis in axes]
  for axis in ADDED_AXES.get(layout, ()):
    here.insert(axis, 1)
  return tuple(here)


def _turned(layout: str, kernel: np.ndarray) -> np.ndarray:
  """The kernel [kh,kw,in,out], turned where the layout says so."""
  return kernel[::-1, ::-1] if layout.endswith('_turned') else kernel
