"""Gated convolutions: a convolution that also decides, at each place, what of it passes.

Yu, Lin, Yang, Shen, Lu, Huang: "Free-Form Image Inpainting with Gated Convolution", ICCV 2019,
section 3.1, https://arxiv.org/abs/1806.03589. Features and gates are the two halves of one
convolution's channels, features first:

  out = activation(features) * sigmoid(gates)
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Initializer
from jaxinpaint.layers.same_conv import Padding, SameConv

# Gates near one half halve the features. Four times the variance keeps the features from vanishing
# over a dozen layers.
gated_init = nn.initializers.variance_scaling(4.0, 'fan_in', 'normal')


class GatedConv(nn.Module):
  """A gated convolution; its parameters are those of the convolution 'conv'.

  Attributes:
    features: output channels; the convolution has twice as many.
    kernel_size: as of `SameConv`, like stride, dilation, padding, kernel_init and dtype.
    stride: of the output grid.
    dilation: distance between taps.
    padding: 'same' or 'symmetric'.
    activation: of the features.
    kernel_init: of the kernel.
    dtype: of the computation.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  dilation: int = 1
  padding: Padding = 'same'
  activation: Callable[[jax.Array], jax.Array] = nn.elu
  kernel_init: Initializer = nn.initializers.glorot_uniform()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,ceil(H/stride),ceil(W/stride),features] in `dtype`."""
    x = SameConv(
      2 * self.features,
      self.kernel_size,
      self.stride,
      self.dilation,
      self.padding,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name='conv',
    )(x)
    features, gates = jnp.split(x, 2, axis=-1)
    return self.activation(features) * nn.sigmoid(gates)
