"""Convolutions with PyTorch's semantics: explicit padding, transposed kernels that are not flipped.

Kernels are [kh, kw, in, out] (a checkpoint's OIHW, or IOHW when transposed, with axes moved and
nothing else done). Arrays are [B,H,W,C]. Nothing here pads by 'SAME', whose sides differ from
PyTorch's at stride 2.
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint import arrays

Initializer = Any
PadMode = Literal['zeros', 'reflect']
TransposedForm = Literal['subpixel', 'lhs_dilated']
ConvForm = Literal['tapwise', 'lax']
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# The GAN convention of pix2pix and its descendants: N(0, 0.02) kernels, zero biases.
normal_init = nn.initializers.normal(0.02)


def reflect_pad(x: jax.Array, padding: int) -> jax.Array:
  """[B,H,W,C] mirrored about its border pixels; `padding` must be below H and W.

  Raises:
    ValueError: the image is too small to mirror that far.
  """
  if padding == 0:
    return x
  height, width = x.shape[1:3]
  if padding >= min(height, width):
    raise ValueError(
      f'a feature map of {height} x {width} cannot be mirrored by {padding}: give a larger image'
    )
  return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode='reflect')


def conv2d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: int = 0,
  dilation: int = 1,
  pad_mode: PadMode = 'zeros',
  form: ConvForm | None = None,
) -> jax.Array:
  """Cross-correlation of [B,H,W,I] with [k,k,I,O], `padding` on all four sides.

  Args:
    x: [B,H,W,I].
    kernel: [k,k,I,O].
    stride: of the output grid.
    padding: pixels on each side.
    dilation: distance between taps.
    pad_mode: 'zeros' or 'reflect'.
    form: 'lax' (XLA's convolution and its derivatives) or 'tapwise' (the same numbers, in shapes
      that XLA's CPU code is fast at); None: `conv_form()`.
  """
  if pad_mode == 'reflect':
    x, padding = reflect_pad(x, padding), 0
  elif pad_mode != 'zeros':
    raise ValueError(f"pad_mode {pad_mode!r} must be 'zeros' or 'reflect'")
  form = form or conv_form()
  if form == 'tapwise':
    return _tapwise(x, kernel, stride, padding, dilation)
  if form != 'lax':
    raise ValueError(f"form {form!r} must be 'tapwise' or 'lax'")
  return _lax_conv(x, kernel, stride, padding, dilation)


def conv_form() -> ConvForm:
  """The form of convolutions that is fast on the backend in use: 'tapwise' on CPUs.

  XLA's CPU code takes three times as long for a convolution that pads by less than half the kernel
  (every reflect-padded one) as for one that pads by exactly that, and two to three times as long
  for a weight gradient as one matrix product for each tap does (docs/performance.md).
  """
  return 'tapwise' if jax.default_backend() == 'cpu' else 'lax'


def _lax_conv(
  x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int
) -> jax.Array:
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=DIMENSIONS,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _tapwise(
  x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int
) -> jax.Array:
  """The convolution, padded to half the kernel and cropped; its weight gradient tap by tap."""
  reach = (kernel.shape[0] - 1) * dilation
  extra = reach // 2 - padding
  if stride != 1 or reach % 2 or extra <= 0:
    return _lax_conv(x, kernel, stride, padding, dilation)
  whole = _lax_conv(x, kernel, 1, padding + extra, dilation)
  return whole[:, extra:-extra, extra:-extra]


def _tapwise_forward(x, kernel, stride, padding, dilation):
  return _tapwise(x, kernel, stride, padding, dilation), (x, kernel)


def _tapwise_backward(stride, padding, dilation, saved, g):
  x, kernel = saved
  _, pullback = jax.vjp(lambda x: _lax_conv(x, kernel, stride, padding, dilation), x)
  return *pullback(g), _weight_gradient(x, g, kernel, stride, padding, dilation)


_tapwise.defvjp(_tapwise_forward, _tapwise_backward)


def _weight_gradient(
  x: jax.Array, g: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int
) -> jax.Array:
  """d(sum(out * g)) / d(kernel): for each tap the product of a shifted slice with `g`."""
  size, channels = kernel.shape[0], x.shape[-1]
  rows, columns = g.shape[1:3]
  span = lambda n: stride * (n - 1) + 1  # pixels from the first to the last that a tap meets
  need = lambda n, have: max((size - 1) * dilation + span(n) - have - padding, 0)
  below, right = need(rows, x.shape[1]), need(columns, x.shape[2])
  x = jnp.pad(x, ((0, 0), (padding, below), (padding, right), (0, 0)))
  flat = g.reshape(-1, g.shape[-1])
  taps = []
  for i in range(size):
    for j in range(size):
      top, left = i * dilation, j * dilation
      piece = x[:, top : top + span(rows) : stride, left : left + span(columns) : stride]
      piece = piece.reshape(-1, channels)
      taps.append(lax.dot_general(piece, flat, (((0,), (0,)), ((), ()))))
  return jnp.stack(taps).reshape(kernel.shape)


def transposed_form() -> TransposedForm:
  """The form of transposed convolutions that is fast on the backend in use.

  XLA's CPU code for the weight gradient of an input-dilated convolution is some thirty times
  slower than it need be (docs/performance.md), so CPUs take the sub-pixel form; cuDNN and the TPU
  have the transposed convolution itself.
  """
  return 'subpixel' if jax.default_backend() == 'cpu' else 'lhs_dilated'


def conv_transpose2d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 2,
  padding: int = 0,
  output_padding: int = 0,
  form: TransposedForm | None = None,
) -> jax.Array:
  """PyTorch's conv_transpose2d: out[stride * i + t - padding] += x[i] * kernel[t].

  Args:
    x: [B,H,W,I].
    kernel: [kh,kw,I,O], kh == kw.
    stride: of the convolution that this is the transpose of.
    padding: that the other convolution would have put around its input, so cropped here.
    output_padding: rows and columns more at the bottom and right.
    form: 'lhs_dilated' (one input-dilated convolution) or 'subpixel' (one small convolution for
      all residues of the output position, interleaved); None: `transposed_form()`.

  Returns:
    [B, (H-1)*stride - 2*padding + k + output_padding, likewise W, O].
  """
  form = form or transposed_form()
  if form == 'subpixel':
    return _subpixel(x, kernel, stride, padding, output_padding)
  if form != 'lhs_dilated':
    raise ValueError(f"form {form!r} must be 'subpixel' or 'lhs_dilated'")
  low = kernel.shape[0] - 1 - padding
  return lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1],
    (1, 1),
    [(low, low + output_padding)] * 2,
    lhs_dilation=(stride, stride),
    dimension_numbers=DIMENSIONS,
  )


def _subpixel(
  x: jax.Array, kernel: jax.Array, stride: int, padding: int, output_padding: int
) -> jax.Array:
  """Output row stride*m + r - padding reads input rows m, m-1, ... through taps r, r+stride, ...

  All stride**2 residues share one convolution whose output channels are (residue row, residue
  column, O); putting them side by side gives the uncropped result.
  """
  b, height, width, c = x.shape
  k, features = kernel.shape[0], kernel.shape[-1]
  taps = -(-k // stride)
  fill = taps * stride - k
  kernel = jnp.pad(kernel, ((0, fill), (0, fill), (0, 0), (0, 0)))
  kernel = kernel.reshape(taps, stride, taps, stride, c, features)[::-1, :, ::-1]
  kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, c, stride**2 * features)
  y = conv2d(x, kernel, padding=taps - 1)
  rows, columns = y.shape[1:3]
  y = y.reshape(b, rows, columns, stride, stride, features).transpose(0, 1, 3, 2, 4, 5)
  y = y.reshape(b, rows * stride, columns * stride, features)
  size = lambda n: (n - 1) * stride - 2 * padding + k + output_padding
  missing = max(padding + size(height) - rows * stride, padding + size(width) - columns * stride, 0)
  if missing:  # output_padding may reach beyond the last tap
    y = jnp.pad(y, ((0, 0), (0, missing), (0, missing), (0, 0)))
  return y[:, padding : padding + size(height), padding : padding + size(width)]


def upsample_bilinear(x: jax.Array, factor: int = 2) -> jax.Array:
  """[B,H,W,C] -> [B,factor*H,factor*W,C], half-pixel centres (align_corners=False)."""
  return arrays.resize_bilinear(x, x.shape[1] * factor, x.shape[2] * factor)


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
  kernel_init: Initializer = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H',W',features] in `dtype`."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    y = conv2d(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=self.padding,
      dilation=self.dilation,
      pad_mode=self.pad_mode,
    )
    if self.use_bias:
      y += self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
    return y


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
    form: see `conv_transpose2d`; None chooses by backend.
    dtype: of the computation; parameters are float32.
  """

  features: int
  kernel_size: int = 4
  stride: int = 2
  padding: int = 1
  output_padding: int = 0
  use_bias: bool = True
  kernel_init: Initializer = normal_init
  form: TransposedForm | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H',W',features] in `dtype`; H' = 2 H by default."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    y = conv_transpose2d(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=self.padding,
      output_padding=self.output_padding,
      form=self.form,
    )
    if self.use_bias:
      y += self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
    return y
