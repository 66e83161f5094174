"""The residual block of EdgeConnect, after Johnson et al., ECCV 2016."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv, normal_init
from jaxinpaint.layers.norm import instance_norm
from jaxinpaint.layers.spectral_norm import SNConv


class ResnetBlock(nn.Module):
  """x + IN(conv(ReLU(IN(conv_dilated(x))))), both convolutions 3x3 with mirrored borders.

  Nazeri et al., "EdgeConnect", 2019; no activation after the sum.

  Attributes:
    dilation: of the first convolution.
    spectral_norm: of both kernels; the convolutions then have no biases.
    kernel_init: of both kernels.
    dtype: of the convolutions.
  """

  dilation: int = 2
  spectral_norm: bool = False
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C]; H and W above `dilation`.

    With spectral norm, `train` does one power iteration and needs mutable=['spectral']. (It may be
    positional, because nn.remat takes static arguments by position only.)
    """
    settings = dict(pad_mode='reflect', kernel_init=self.kernel_init, dtype=self.dtype)
    conv, how = Conv, {}
    if self.spectral_norm:
      conv, how = SNConv, {'train': train}
      settings['use_bias'] = False
    features, d = x.shape[-1], self.dilation
    y = conv(features, 3, padding=d, dilation=d, name='conv1', **settings)(x, **how)
    y = nn.relu(instance_norm(y))
    y = conv(features, 3, padding=1, name='conv2', **settings)(y, **how)
    return x.astype(self.dtype) + instance_norm(y)
