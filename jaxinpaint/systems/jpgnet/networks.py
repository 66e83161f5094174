"""JPGNet: predictive filtering, a generative network, and the fusion of the two.

Guo, Li, Juefei-Xu, Yu, Liu, Wang: "JPGNet: Joint Predictive Filtering and Generative Network for
Image Inpainting", ACM Multimedia 2021, https://arxiv.org/abs/2107.04281. One kernel prediction
network filters the damaged picture, which restores fine structure near the border. A generative
network fills the rest; it can be any (here EdgeConnect's pair, `layers.edge_generators`). A second
kernel prediction network fuses both; it also sees how uncertain the first one's kernels are.

Differs from the reference code:
  - `conv_fusion` of the first network is left out; its checkpoints hold it, but nothing uses it;
  - the uncertainty map is stretched to [0, 1] within each picture. The code stretches it within the
    whole batch, so a picture's completion depends on the other pictures; this is
    `uncertainty_map(..., 'whole_batch')`. A flat map is zero here; the code divides by zero;
  - the map has the picture's size; the code's is always 256 x 256;
  - kernels have one size; the code takes a list but can only use the smallest. Separable kernels
    and a bias beside the kernels, both off in the released configuration, are left out.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, avg_pool, upsample_bilinear
from jaxinpaint.layers.edge_generators import EdgeGenerator, InpaintGenerator
from jaxinpaint.layers.filtering import predicted_kernel_filter
from jaxinpaint.layers.kernel_prediction import Basic
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator

__all__ = [
  'MIN_SIDE',
  'MULTIPLE',
  'EdgeGenerator',
  'FilteringNetwork',
  'InpaintGenerator',
  'PatchDiscriminator',
  'binary_fusion',
  'uncertainty_map',
]

MULTIPLE = MIN_SIDE = 16  # four poolings
UNCERTAINTY = ('per_image', 'whole_batch')


class FilteringNetwork(nn.Module):
  """Predicts a kernel for every pixel and filters a picture by it at several dilations.

  The paper's predictive filtering ('kpn1') and its fusion network ('kpn2', which filters six
  channels) both use this class.

  Attributes:
    width: channels at full resolution; 2, 4, 8 and 8 times as many below.
    kernel_size: side of the kernels.
    rates: dilations at which the same kernels are used.
    channel_attention: in every block, off as published; see `layers.kernel_prediction.Basic`.
    spatial_attention: likewise.
    kernel_init: of the convolutions; biases start at zero.
    dtype: of the computation. Parameters, the filtering and all that comes after it are float32.
  """

  width: int = 64
  kernel_size: int = 3
  rates: tuple[int, ...] = (1, 2, 3, 4)
  channel_attention: bool = False
  spatial_attention: bool = False
  kernel_init: Any = nn.initializers.he_normal()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, data: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
    """Filters `data` by the kernels that it predicts from `x`.

    Args:
      x: f32[B,H,W,I]; H and W multiples of 16.
      data: f32[B,H,W,3] or f32[B,H,W,6]: two pictures side by side, mixed into one by a 1x1
        convolution after the filtering.
      train: changes nothing here.

    Returns:
      'out': f32[B,H,W,3], not in a fixed range; 'kernels': f32[B,H,W,C*size*size] for C
      channels of data.

    Raises:
      ValueError: the network does not accept this image size.
    """
    del train
    arrays.check_multiple(*x.shape[1:3], MULTIPLE, MIN_SIDE)
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    attention = dict(
      channel_attention=self.channel_attention, spatial_attention=self.spatial_attention
    )
    block = lambda features, i: Basic(features, **attention, name=f'conv{i}', **init)
    join = lambda level, below: jnp.concatenate([level, upsample_bilinear(below)], -1)
    channels, w = data.shape[-1], self.width

    levels = [block(w, 1)(x.astype(self.dtype))]
    for i, scale in enumerate((2, 4, 8, 8), start=2):
      levels.append(block(w * scale, i)(avg_pool(levels[-1])))
    y = levels[4]
    for i, scale in ((6, 8), (7, 4)):
      y = block(w * scale, i)(join(levels[9 - i], y))
    y = block(channels * self.kernel_size**2, 8)(join(levels[1], y))
    y = upsample_bilinear(y)  # no skip connection at full resolution
    kernels = Conv(y.shape[-1], 1, name='kernels', **init)(y).astype(jnp.float32)

    filtered = predicted_kernel_filter(data, kernels, self.kernel_size, self.rates)
    if channels > 3:
      b, height, width, _ = filtered.shape
      filtered = filtered.reshape(b, height, width, len(self.rates), channels)
      filtered = Conv(3, 1, kernel_init=self.kernel_init, name='fusion')(
        filtered.reshape(b, height, width * len(self.rates), channels)
      ).reshape(b, height, width, 3 * len(self.rates))
    out = Conv(3, 3, padding=1, kernel_init=self.kernel_init, name='final')(filtered)
    return {'out': out, 'kernels': kernels}


def uncertainty_map(kernels: jax.Array, over: str = 'per_image') -> jax.Array:
  """Mean over the predicted values of each pixel, stretched to [0, 1]; zeros if it is constant.

  Args:
    kernels: f32[B,H,W,K].
    over: 'per_image': stretched by the least and largest value of each picture; 'whole_batch': by
      those of the whole batch.

  Returns:
    f32[B,H,W,1].
  """
  axes = {'per_image': (1, 2, 3), 'whole_batch': None}[over]
  mean = kernels.mean(-1, keepdims=True)
  low, high = (f(mean, axis=axes, keepdims=True) for f in (jnp.min, jnp.max))
  span = high - low
  return jnp.where(span > 0, (mean - low) / jnp.where(span > 0, span, 1.0), 0.0)


def binary_fusion(generated: jax.Array, filtered: jax.Array, uncertainty: jax.Array) -> jax.Array:
  """The paper's baseline: `generated` where the uncertainty is above 0, `filtered` elsewhere.

  Because the map is 0 only at its least value, the result is `generated` almost everywhere.
  """
  return jnp.where(uncertainty > 0, generated, filtered)
