"""IR-SE: the improved residual network with squeeze and excitation, from face recognition.

Deng, Guo, Xue, Zafeiriou: "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR
2019, https://arxiv.org/abs/1801.07698, section 3.1; 50 layers as in TreB1eN/InsightFace_Pytorch,
whose published model the identity loss and pSp's encoder both use.

Differs from the reference code: running variances move towards the biased variance of a batch
(PyTorch takes n / (n - 1) times that).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv, torch_init
from jaxinpaint.layers.parameters import parameter
from jaxinpaint.layers.squeeze_excite import SqueezeExcite, batch_norm

DEPTHS = (3, 4, 14, 3)  # units of the four stages of 50 layers


class PReLU(nn.Module):
  """x where positive, slope * x elsewhere; 'slope' f32[C] starts at 1/4."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[...,C] -> [...,C]."""
    slope = parameter(self, 'slope', nn.initializers.constant(0.25), (x.shape[-1],))
    return jnp.where(x > 0, x, slope.astype(x.dtype) * x)


class ResidualUnit(nn.Module):
  """BN, conv, PReLU, conv (stride), BN, SE; plus the input, subsampled or mapped.

  Attributes:
    features: output channels.
    stride: of the second convolution and of the shortcut.
    dtype: of the computation; parameters and statistics are float32.
  """

  features: int
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,I] -> [B,ceil(H/stride),ceil(W/stride),features]."""
    bare = dict(use_bias=False, kernel_init=torch_init, dtype=self.dtype)
    norm = lambda y, name: batch_norm(name, train, self.dtype)(y)
    y = Conv(self.features, 3, padding=1, name='conv1', **bare)(norm(x, 'bn1'))
    y = PReLU(name='prelu')(y)
    y = Conv(self.features, 3, stride=self.stride, padding=1, name='conv2', **bare)(y)
    y = norm(y, 'bn2')
    y = SqueezeExcite(16, use_bias=False, dtype=self.dtype, name='se')(y)
    if x.shape[-1] == self.features:
      return y + x[:, :: self.stride, :: self.stride]
    x = Conv(self.features, 1, stride=self.stride, name='shortcut_conv', **bare)(x)
    return y + norm(x, 'shortcut_bn')


class IRSEBody(nn.Module):
  """Input layer and four stages of residual units, each halving the resolution at its first.

  The units are called 'unit0', 'unit1', ... through all stages; the parts of the input layer are
  'input_conv', 'input_bn' and 'input_prelu'.

  Attributes:
    width: channels of the first stage, 64 as published; the others have 2, 4 and 8 times as many.
    depths: units of the four stages.
    rgb_only_init: kernels of input channels after the third start at zero, so that the extra
      channels do not change the output of a network trained on RGB pictures.
    dtype: of the computation; parameters and statistics are float32.
  """

  width: int = 64
  depths: tuple[int, ...] = DEPTHS
  rgb_only_init: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> list[jax.Array]:
    """[B,H,W,C] in [-1,1] -> the four stages' outputs, sides /2, /4, /8 and /16 rounded up."""

    def init(rng, shape, dtype=jnp.float32):
      kernel = torch_init(rng, shape, dtype)
      return kernel.at[:, :, 3:].set(0.0) if self.rgb_only_init else kernel

    bare = dict(use_bias=False, kernel_init=init, dtype=self.dtype)
    y = Conv(self.width, 3, padding=1, name='input_conv', **bare)(x)
    y = PReLU(name='input_prelu')(batch_norm('input_bn', train, self.dtype)(y))
    taps, number = [], 0
    for stage, depth in enumerate(self.depths):
      for i in range(depth):
        unit = ResidualUnit(self.width << stage, 1 if i else 2, self.dtype, name=f'unit{number}')
        y = unit(y, train=train)
        number += 1
      taps.append(y)
    return taps
