"""The U-shaped branch that predicts filter kernels, common to JPGNet's descendants.

Mildenhall et al., "Burst Denoising with Kernel Prediction Networks", CVPR 2018, as Li et al.
("MISF", CVPR 2022) shortened it for inpainting: three levels, no normalisation, and the other
branch's feature joined at half resolution.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv, avg_pool, normal_init, upsample_bilinear


class Basic(nn.Module):
  """Three times (3x3 convolution, ReLU); JPGNet and MISF call it Basic.

  Attributes:
    features: of every convolution.
    channel_attention: weight the channels by their mean and maximum (in JPGNet's code, off there).
    spatial_attention: then weight the pixels by the channels' mean and maximum (likewise).
    reduction: channels per hidden unit of the channel attention.
    kernel_init: of all kernels.
    dtype: of the computation.
  """

  features: int
  channel_attention: bool = False
  spatial_attention: bool = False
  reduction: int = 16
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H,W,features]."""
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    for i in (1, 2, 3):
      x = nn.relu(Conv(self.features, 3, padding=1, name=f'conv{i}', **init)(x))
    if self.channel_attention:
      pooled = [pool(x, (1, 2), keepdims=True) for pool in (jnp.mean, jnp.max)]
      hidden = Conv(max(self.features // self.reduction, 1), 1, name='channel1', **init)
      y = nn.relu(hidden(jnp.concatenate(pooled, -1)))
      x *= nn.sigmoid(Conv(self.features, 1, name='channel2', **init)(y))
    if self.spatial_attention:
      pooled = [pool(x, -1, keepdims=True) for pool in (jnp.mean, jnp.max)]
      x *= nn.sigmoid(Conv(1, 7, padding=3, name='spatial', **init)(jnp.concatenate(pooled, -1)))
    return x


class KernelPrediction(nn.Module):
  """Predicts one kernel for each pixel and channel of the image, and of a feature map if asked.

  Attributes:
    width: channels at full resolution; 2, 4 and 8 times as many at lower resolutions.
    image_kernels: channels of the image kernels, colours * taps.
    taps: of an image kernel: its channels are stored as [image_kernels / taps, taps] and given as
      [taps, image_kernels / taps] (`Conv`).
    feature_kernels: channels of the kernels for a feature map at a quarter of the resolution;
      0: none.
    kernel_init: of all kernels.
    last_init: of the layer that predicts the image kernels; None: as all others.
    dtype: of the computation.
  """

  width: int = 64
  image_kernels: int = 27
  taps: int = 1
  feature_kernels: int = 0
  kernel_init: Any = normal_init
  last_init: Any = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, feature: jax.Array) -> dict[str, jax.Array]:
    """Predicts the kernels.

    Args:
      x: [B,H,W,4], the damaged image and its mask.
      feature: [B,H/2,W/2,C] of the other branch, joined at that level.

    Returns:
      'image': [B,H,W,image_kernels]; 'dec2': [B,H/2,W/2,2*width], the second decoder layer;
      'feature': [B,H/4,W/4,feature_kernels] if there are any.
    """
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    basic = lambda scale, name: Basic(self.width * scale, name=name, **init)
    enc1 = basic(1, 'enc1')(x)
    enc2 = basic(2, 'enc2')(avg_pool(enc1))
    enc2 = jnp.concatenate([enc2, feature.astype(enc2.dtype)], -1)
    enc3 = basic(4, 'enc3')(avg_pool(enc2))
    outputs = {}
    if self.feature_kernels:
      outputs['feature'] = Conv(self.feature_kernels, 1, name='feature_kernels', **init)(enc3)
    mid = basic(8, 'mid')(enc3)  # at the same resolution: the published code does not pool here
    dec1 = basic(4, 'dec1')(jnp.concatenate([enc3, mid], -1))
    dec2 = basic(2, 'dec2')(jnp.concatenate([enc2, upsample_bilinear(dec1)], -1))
    dec3 = basic(1, 'dec3')(jnp.concatenate([enc1, upsample_bilinear(dec2)], -1))
    outputs['dec2'] = dec2
    init['kernel_init'] = self.last_init or self.kernel_init
    outputs['image'] = Conv(self.image_kernels, 1, taps=self.taps, name='kernels', **init)(dec3)
    return outputs
