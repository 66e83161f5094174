"""The residual block of EdgeConnect, after Johnson et al., ECCV 2016."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv, normal_init
from jaxinpaint.layers.norm import instance_norm


class ResnetBlock(nn.Module):
  """x + IN(conv(ReLU(IN(conv_dilated(x))))), both convolutions 3x3 with mirrored borders.

  Nazeri et al., "EdgeConnect", 2019; no activation after the sum.

  Attributes:
    dilation: of the first convolution.
    kernel_init: of both kernels.
    dtype: of the convolutions.
  """

  dilation: int = 2
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C]; H and W above `dilation`."""
    settings = dict(pad_mode='reflect', kernel_init=self.kernel_init, dtype=self.dtype)
    features, d = x.shape[-1], self.dilation
    y = Conv(features, 3, padding=d, dilation=d, name='conv1', **settings)(x)
    y = nn.relu(instance_norm(y))
    y = Conv(features, 3, padding=1, name='conv2', **settings)(y)
    return x.astype(self.dtype) + instance_norm(y)
