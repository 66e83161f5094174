"""Convolutions padded like TensorFlow's SAME, or symmetrically as in ports of such networks.

The two agree at stride 1. At stride 2 and even sides SAME pads one row and column less above and
to the left, so its samples lie one pixel further down and right: with the same weights the networks
are different functions.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Initializer, conv2d
from jaxinpaint.layers.parameters import parameter

Padding = Literal['same', 'symmetric']


def pad_same(x: jax.Array, kernel_size: int, stride: int = 1, dilation: int = 1) -> jax.Array:
  """[B,H,W,C] padded with the zeros of SAME: half of them above and left, rounded down.

  A convolution without padding then gives ceil(H / stride) rows.
  """
  widths = []
  for n in x.shape[1:3]:
    total = max((-(-n // stride) - 1) * stride + (kernel_size - 1) * dilation + 1 - n, 0)
    widths.append((total // 2, total - total // 2))
  return jnp.pad(x, ((0, 0), *widths, (0, 0))) if any(map(any, widths)) else x


class SameConv(nn.Module):
  """A convolution that keeps the size, or divides it by its stride; 'kernel' and 'bias'.

  Attributes:
    features: output channels.
    kernel_size: side of the kernel, odd.
    stride: of the output grid.
    dilation: distance between taps.
    padding: 'same' as TensorFlow, or 'symmetric': kernel_size // 2 * dilation on all sides.
    kernel_init: of the kernel; the bias starts at zero.
    dtype: of the computation; parameters are float32.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  dilation: int = 1
  padding: Padding = 'same'
  kernel_init: Initializer = nn.initializers.glorot_uniform()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,ceil(H/stride),ceil(W/stride),features] in `dtype`."""
    if self.padding not in ('same', 'symmetric'):
      raise ValueError(f"padding {self.padding!r} must be 'same' or 'symmetric'")
    k = self.kernel_size
    shape = (k, k, x.shape[-1], self.features)
    kernel = parameter(self, 'kernel', self.kernel_init, shape, jnp.float32)
    x, padding = x.astype(self.dtype), k // 2 * self.dilation
    if self.padding == 'same' and self.stride > 1:
      x, padding = pad_same(x, k, self.stride, self.dilation), 0
    y = conv2d(
      x, kernel.astype(self.dtype), stride=self.stride, padding=padding, dilation=self.dilation
    )
    return y + parameter(self, 'bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
