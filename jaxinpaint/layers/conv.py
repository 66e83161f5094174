"""Convolutions with PyTorch's semantics: explicit padding, transposed kernels that are not flipped.

Kernels are [kh, kw, in, out] (a checkpoint's OIHW, or IOHW when transposed, with axes moved and
nothing else done). Arrays are [B,H,W,C]. Nothing here pads by 'SAME', whose sides differ from
PyTorch's at stride 2.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinpaint import arrays
from jaxinpaint.layers import conv_cpu, placement
from jaxinpaint.layers.parameters import parameter

Initializer = Any
PadMode = Literal['zeros', 'reflect']
Form = placement.Form
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# The GAN convention of pix2pix and its descendants: N(0, 0.02) kernels, zero biases.
normal_init = nn.initializers.normal(0.02)
# PyTorch's own start of convolutions and dense layers; biases start at 0 here.
torch_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def reflect_pad(x: jax.Array, padding: int, form: Form | None = None) -> jax.Array:
  """[B,H,W,C] mirrored about its border pixels; `padding` must be below H and W.

  `form` is as in `conv2d`.

  Raises:
    ValueError: the image is too small to mirror that far.
  """
  if padding == 0:
    return x
  height, width = x.shape[1:3]
  if padding >= height or padding >= width:  # `min` cannot compare symbolic sizes
    raise ValueError(
      f'a feature map of {height} x {width} cannot be mirrored by {padding}: give a larger image'
    )
  if _checked(form) == 'cpu':
    return conv_cpu.reflect_pad(x, padding)
  return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode='reflect')


def default_form() -> Form:
  """That of the placement, or 'cpu' on a CPU backend, else 'plain'; the one switch between the two.

  Both give the same numbers. Some plain convolutions are very slow in XLA's CPU code, and
  layers.conv_cpu avoids them. GPUs, TPUs and programs over several CPU devices use the plain
  operations (`placement.Placement`).
  """
  return placement.current().form or ('cpu' if jax.default_backend() == 'cpu' else 'plain')


def _checked(form: Form | None) -> Form:
  form = form or default_form()
  if form not in ('plain', 'cpu'):
    raise ValueError(f"form {form!r} must be 'plain' or 'cpu'")
  return form


def conv2d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: int = 0,
  dilation: int = 1,
  pad_mode: PadMode = 'zeros',
  form: Form | None = None,
) -> jax.Array:
  """Cross-correlation of [B,H,W,I] with [k,k,I,O], `padding` on all four sides.

  Args:
    x: the input.
    kernel: square.
    stride: of the output grid.
    padding: pixels on each side.
    dilation: distance between taps.
    pad_mode: 'zeros' or 'reflect'.
    form: 'plain' or 'cpu'; None: `default_form()`.
  """
  if pad_mode == 'reflect':
    x, padding = reflect_pad(x, padding, form), 0
  elif pad_mode != 'zeros':
    raise ValueError(f"pad_mode {pad_mode!r} must be 'zeros' or 'reflect'")
  form = _checked(form)
  if form == 'cpu' and kernel.shape[0] == stride == 1 and padding == 0:
    return jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:-1], -1)
  if form == 'cpu' and (stride == 1 or dilation == 1):
    return conv_cpu.conv(x, kernel, stride, padding, dilation)
  plain = lambda x: lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=DIMENSIONS,
  )
  return placement.pinned(plain, x, reach=dilation * (kernel.shape[0] - 1) + 1)


def depthwise_conv2d(x: jax.Array, kernel: jax.Array, *, form: Form | None = None) -> jax.Array:
  """Cross-correlation of each channel of [B,H,W,C] with its own kernel of [k,k,1,C].

  k is odd, and zeros around the input keep its size. `form` is as in `conv2d`.
  """
  k = kernel.shape[0]
  if _checked(form) == 'cpu':
    return conv_cpu.depthwise(x, kernel[:, :, 0])
  if placement.current().rows:
    # Even of pinned arrays XLA's partitioner (of jax 0.10.2) sums the gradient of a grouped
    # kernel over the repetitions of whole maps, too.
    function = lambda x: conv_cpu.shifted_sum(x, kernel[:, :, 0])
  else:
    function = lambda x: lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      [(k // 2, k // 2)] * 2,
      dimension_numbers=DIMENSIONS,
      feature_group_count=x.shape[-1],
    )
  return placement.pinned(function, x, reach=k)


def conv_transpose2d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 2,
  padding: int = 0,
  output_padding: int = 0,
  form: Form | None = None,
) -> jax.Array:
  """PyTorch's conv_transpose2d: out[stride * i + t - padding] += x[i] * kernel[t].

  Args:
    x: [B,H,W,I].
    kernel: [k,k,I,O].
    stride: of the convolution that this is the transpose of.
    padding: that the other convolution would have put around its input, so cropped here.
    output_padding: rows and columns more at the bottom and right.
    form: 'plain' (one input-dilated convolution) or 'cpu' (one small convolution for all residues
      of the output position, interleaved); None: `default_form()`.

  Returns:
    [B, (H-1)*stride - 2*padding + k + output_padding, likewise W, O].
  """
  k = kernel.shape[0]
  if _checked(form) == 'cpu':
    size = tuple((n - 1) * stride - 2 * padding + k + output_padding for n in x.shape[1:3])
    return conv_cpu.conv_transpose(x, kernel, stride, padding, size)
  low = k - 1 - padding
  plain = lambda x: lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1],
    (1, 1),
    [(low, low + output_padding)] * 2,
    lhs_dilation=(stride, stride),
    dimension_numbers=DIMENSIONS,
  )
  return placement.pinned(plain, x, reach=k)


def resize_bilinear(x: jax.Array, height: int, width: int) -> jax.Array:
  """`arrays.resize_bilinear` (half-pixel centres, no antialias), faster for factors 2 and 1/2."""
  h, w = x.shape[1:3]
  if (height, width) == (2 * h, 2 * w):
    return upsample_bilinear(x)
  if (2 * height, 2 * width) == (h, w):
    return avg_pool(x)
  return arrays.resize_bilinear(x, height, width)


def upsample_bilinear(x: jax.Array, *, align_corners: bool = False) -> jax.Array:
  """[B,H,W,C] -> [B,2H,2W,C], what `arrays.resize_bilinear` gives, from shifted copies.

  Args:
    x: [B,H,W,C].
    align_corners: PyTorch's flag of that name. False: half-pixel centres, weights 1/4 and 3/4,
      borders repeated. True: the corners stay where they are, and the weights change along a side.
  """
  return _double(_double(x, 1, align_corners), 2, align_corners)


def _double(x: jax.Array, axis: int, align_corners: bool) -> jax.Array:
  n = x.shape[axis]
  if align_corners:
    # Sample i of the result lies at i * (n - 1) / (2n - 1): sample 2k by k / (2n - 1) before k,
    # sample 2k + 1 by (n - 1 - k) / (2n - 1) behind it.
    shape = [n if i == axis else 1 for i in range(x.ndim)]
    xp = arrays.numpy_of(n)
    near = (xp.arange(n, dtype=np.float32) / (2 * n - 1)).reshape(shape)
    shares = jnp.asarray(near, x.dtype), jnp.asarray(xp.flip(near), x.dtype)
  else:
    shares = 0.25, 0.25
  double = conv_cpu.double if default_form() == 'cpu' else conv_cpu.interleaved
  return double(x, *shares, axis)


def upsample_nearest(x: jax.Array) -> jax.Array:
  """[B,H,W,C] -> [B,2H,2W,C], every pixel as a square of four."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def avg_pool(x: jax.Array, size: int = 2) -> jax.Array:
  """[B,H,W,C] -> [B,H/size,W/size,C], means of disjoint squares."""
  return nn.avg_pool(x, (size, size), strides=(size, size))


class Conv(nn.Module):
  """PyTorch's Conv2d; parameters 'kernel' [k,k,in,out] and 'bias' [out].

  Attributes:
    features: output channels.
    kernel_size: side of the kernel.
    stride: of the output grid.
    padding: pixels on each side.
    dilation: distance between taps.
    pad_mode: 'zeros' or 'reflect'.
    use_bias: adds a bias.
    taps: the output channels are stored as [features / taps, taps] and given as
      [taps, features / taps], so that those of one tap lie side by side.
    kernel_init: of the kernel; the bias starts at zero.
    dtype: of the computation; parameters are float32.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  padding: int = 0
  dilation: int = 1
  pad_mode: PadMode = 'zeros'
  use_bias: bool = True
  taps: int = 1
  kernel_init: Initializer = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H',W',features] in `dtype`."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = parameter(self, 'kernel', self.kernel_init, shape, jnp.float32)
    y = conv2d(
      x.astype(self.dtype),
      self._ordered(kernel.astype(self.dtype)),
      stride=self.stride,
      padding=self.padding,
      dilation=self.dilation,
      pad_mode=self.pad_mode,
    )
    if self.use_bias:
      bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
      y += self._ordered(bias.astype(self.dtype))
    return y

  def _ordered(self, parameter: jax.Array) -> jax.Array:
    if self.taps == 1:
      return parameter
    grouped = parameter.reshape(*parameter.shape[:-1], -1, self.taps)
    return jnp.swapaxes(grouped, -1, -2).reshape(parameter.shape)


class ConvTranspose(nn.Module):
  """PyTorch's ConvTranspose2d; parameters 'kernel' [k,k,in,out], taps in PyTorch's order, 'bias'.

  Attributes:
    features: output channels.
    kernel_size: side of the kernel.
    stride: factor by which the grid grows.
    padding: as PyTorch's: pixels cropped on each side.
    output_padding: as PyTorch's.
    use_bias: adds a bias.
    kernel_init: of the kernel; the bias starts at zero.
    form: 'plain', 'cpu'; None: `default_form()`.
    dtype: of the computation; parameters are float32.
  """

  features: int
  kernel_size: int = 4
  stride: int = 2
  padding: int = 1
  output_padding: int = 0
  use_bias: bool = True
  kernel_init: Initializer = normal_init
  form: Form | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H',W',features] in `dtype`; H' = 2 H by default."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = parameter(self, 'kernel', self.kernel_init, shape, jnp.float32)
    y = conv_transpose2d(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=self.padding,
      output_padding=self.output_padding,
      form=self.form,
    )
    if self.use_bias:
      y += parameter(self, 'bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
    return y
