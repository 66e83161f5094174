"""pSp's encoder: one picture to one latent for each layer of StyleGAN2.

Richardson, Alaluf, Patashnik, Nitzan, Azar, Shapiro, Cohen-Or: "Encoding in Style: a StyleGAN
Encoder for Image-to-Image Translation", CVPR 2021, https://arxiv.org/abs/2008.00951. It has an
IR-SE50 network, a feature pyramid on its last three stages, and for each latent a stack of strided
convolutions down to one pixel: latents 0-2 from the coarsest level, 3-6 from the middle one, the
others from the finest. LFR's structure reconstructor is this network.

Differs from the reference code:
  - the side may be 16 times any power of two; the reference accepts only 256;
  - biases start at zero;
  - running variances are biased (see layers.irse).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv, torch_init, upsample_bilinear
from jaxinpaint.layers.irse import DEPTHS, IRSEBody
from jaxinpaint.layers.stylegan2 import EqualDense

COARSE, MIDDLE = 3, 7  # the first latent of the middle level, and of the finest


def level(style: int) -> int:
  """Pyramid level of a latent: 0 (coarsest), 1 or 2 (finest)."""
  return (style >= COARSE) + (style >= MIDDLE)


class MapToStyle(nn.Module):
  """Strided 3x3 convolutions to one pixel, each with LeakyReLU(0.01), then a dense layer.

  Attributes:
    features: of the convolutions and the latent.
    dtype: of the convolutions; the latent is float32.
  """

  features: int = 512
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,n,n,C], n a power of two -> f32[B,features]; log2(n) convolutions, at least one."""
    for i in range(max(1, int(math.log2(x.shape[1])))):
      conv = dict(stride=2, padding=1, kernel_init=torch_init, dtype=self.dtype)
      x = nn.leaky_relu(Conv(self.features, 3, name=f'conv{i}', **conv)(x), 0.01)
    return EqualDense(self.features, name='linear')(x[:, 0, 0].astype(jnp.float32))


class Encoder(nn.Module):
  """The encoder ('body', 'lateral1', 'lateral2', 'style0' ...).

  Attributes:
    styles: number of latents: 18 for a generator of 1024 pixels, 14 for 256.
    size: side of the picture, 16 times a power of two.
    in_channels: 3, or more (a mask). Channels after the third start with zero kernels, so that
      weights for three channels give the same result.
    width: channels of the body's first stage; 64 as published.
    depths: number of units in each of the body's stages; 50 layers as published.
    style_dim: of a latent.
    dtype: of the computation; parameters, statistics and latents are float32.
  """

  styles: int = 18
  size: int = 256
  in_channels: int = 3
  width: int = 64
  depths: tuple[int, ...] = DEPTHS
  style_dim: int = 512
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """The latents' offsets from the average latent, which the caller adds.

    Args:
      x: f32[B,size,size,in_channels] in [-1,1].
      train: norms use and update the statistics of the batch.

    Returns:
      f32[B,styles,style_dim].

    Raises:
      ValueError: `size` is not possible, or the pictures have another shape.
    """
    coarsest = self.size // 16
    if self.size % 16 or coarsest < 1 or coarsest & (coarsest - 1):
      raise ValueError(f'size {self.size} of the encoder is not 16 times a power of two')
    if x.shape[1:] != (self.size, self.size, self.in_channels):
      raise ValueError(
        f'pictures of shape {x.shape[1:]} for an encoder of '
        f'{(self.size, self.size, self.in_channels)}'
      )
    body = IRSEBody(self.width, tuple(self.depths), dtype=self.dtype, name='body')
    _, c1, c2, c3 = body(x.astype(self.dtype), train=train)
    lateral = dict(kernel_init=torch_init, dtype=self.dtype)
    double = lambda y: upsample_bilinear(y, align_corners=True)
    p2 = double(c3) + Conv(c3.shape[-1], 1, name='lateral1', **lateral)(c2)
    p1 = double(p2) + Conv(c3.shape[-1], 1, name='lateral2', **lateral)(c1)
    levels = (c3, p2, p1)
    codes = [
      MapToStyle(self.style_dim, self.dtype, name=f'style{i}')(levels[level(i)])
      for i in range(self.styles)
    ]
    return jnp.stack(codes, 1)
