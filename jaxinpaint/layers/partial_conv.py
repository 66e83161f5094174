"""Partial convolution: unknown pixels take no part.

Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018, eq. 1
and 2, https://arxiv.org/abs/1804.07723.

`renorm` says how missing values are made up for: 'ratio' (the paper and NVIDIA's code) multiplies
by values / known values of a window; 'mean' (naoto0804's released code and weights) divides by the
known values alone.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers.conv import Initializer, conv2d, normal_init
from jaxinpaint.layers.norm import batch_norm
from jaxinpaint.layers.parameters import parameter

Renorm = Literal['ratio', 'mean']

_TINY = 1e-8  # added to the number of known values, as in the released code


def known_share(
  valid: jax.Array,
  channels: int,
  kernel_size: int,
  stride: int,
  padding: int,
  renorm: Renorm = 'ratio',
) -> tuple[jax.Array, jax.Array]:
  """How much of every window is known.

  Args:
    valid: f32[B,H,W,1 or channels], 1 = known; one channel stands for all.
    channels: of the features that the mask belongs to.
    kernel_size: of the window. Padding counts as unknown.
    stride: of the windows.
    padding: on all four sides.
    renorm: 'ratio' or 'mean', as above.

  Returns:
    The factor that makes up for what is missing, f32[B,H',W',1]: values in a window ('mean': 1) by
    known ones, 0 where none is known; and the new mask, f32[B,H',W',1]: 1 where any is known.
    Neither has a gradient.

  Raises:
    ValueError: an unknown `renorm`.
  """
  if renorm not in ('ratio', 'mean'):
    raise ValueError(f"renorm {renorm!r} must be 'ratio' or 'mean'")
  valid = lax.stop_gradient(valid.astype(jnp.float32))
  per_pixel = valid.sum(-1, keepdims=True) * (channels // valid.shape[-1])
  count = lax.reduce_window(
    per_pixel,
    0.0,
    lax.add,
    (1, kernel_size, kernel_size, 1),
    (1, stride, stride, 1),
    ((0, 0), (padding, padding), (padding, padding), (0, 0)),
  )
  # Sums of ones are exact in float32; a mask of fractions counts as known from 1 on.
  new = jnp.clip(count, 0, 1)
  values = channels * kernel_size**2 if renorm == 'ratio' else 1
  return values / (count + _TINY) * new, new


class PartialConv(nn.Module):
  """Conv(x * mask) * values / known values + bias; parameters as `layers.conv.Conv`.

  Attributes: as `layers.conv.Conv`, and
    renorm: 'ratio' or 'mean', as above.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  padding: int = 0
  use_bias: bool = True
  renorm: Renorm = 'ratio'
  kernel_init: Initializer = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B,H,W,I] and its mask [B,H,W,1 or I], 1 = known -> [B,H',W',features], f32[B,H',W',1]."""
    channels = x.shape[-1]
    if valid.shape[-1] not in (1, channels):
      raise ValueError(f'mask of {valid.shape[-1]} channels must have 1 or {channels}')
    window = (self.kernel_size, self.stride, self.padding)
    factor, new = known_share(valid, channels, *window, self.renorm)
    shape = (self.kernel_size, self.kernel_size, channels, self.features)
    kernel = parameter(self, 'kernel', self.kernel_init, shape, jnp.float32)
    y = conv2d(
      (x * valid).astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=self.padding,
    )
    y *= factor.astype(self.dtype)
    if self.use_bias:
      bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
      y = (y + bias.astype(self.dtype)) * new.astype(self.dtype)
    return y, new


class PartialConvNorm(nn.Module):
  """Partial convolution without bias, batch norm, activation; also updates the mask.

  Attributes: as `PartialConv`, and
    norm: whether there is a batch norm.
    scale_init: of its scales.
    slope: of the leaky ReLU; 0: ReLU.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  norm: bool = True
  slope: float = 0.0
  renorm: Renorm = 'ratio'
  kernel_init: Initializer = normal_init
  scale_init: Initializer = nn.initializers.ones
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, valid: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """[B,H,W,C], mask 1 = known -> [B,H',W',features], f32[B,H',W',1]."""
    x, valid = PartialConv(
      self.features,
      self.kernel_size,
      stride=self.stride,
      padding=self.kernel_size // 2,
      use_bias=False,
      renorm=self.renorm,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name='conv',
    )(x, valid)
    if self.norm:
      x = batch_norm('bn', train, self.dtype, self.scale_init)(x)
    return nn.leaky_relu(x, self.slope), valid


def join(*parts: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
  """Features [B,H,W,C_i] with masks [B,H,W,1] -> both concatenated, [B,H,W,sum of C_i] each.

  Each channel keeps its own mask, as at a U-Net's skip connection: a pixel that the decoder already
  knows may still be unknown in the skip.
  """
  masks = [jnp.broadcast_to(valid, (*valid.shape[:3], x.shape[-1])) for x, valid in parts]
  return jnp.concatenate([x for x, _ in parts], -1), jnp.concatenate(masks, -1)
