"""Fast Fourier convolutions: channels in two parts, of which one is filtered in the spectrum.

Chi, Jiang, Mu: "Fast Fourier Convolution", NeurIPS 2020, as LaMa has it (Suvorov et al., WACV 2022,
https://arxiv.org/abs/2109.07161, section 2.1). A pair (local, global) of feature maps goes through
3x3 convolutions from each part to each, but from global to global through a `SpectralTransform`,
whose every value depends on the whole picture.

Spectra are float32 whatever the dtype: the mean of a picture is in one value beside thousands that
are small. Convolutions mirror their borders and have no biases.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv, Initializer, avg_pool, torch_init
from jaxinpaint.layers.norm import batch_norm

Pair = tuple[jax.Array | None, jax.Array | None]  # (local, global); None: a part without channels


def spectrum(x: jax.Array) -> jax.Array:
  """f32[B,H,W,C] -> f32[B,H,W//2+1,2C]: real and imaginary part of each channel, side by side.

  The transform is orthonormal; half of the last axis' frequencies are enough, since `x` is real.
  """
  z = jnp.fft.rfft2(x, axes=(1, 2), norm='ortho')
  return jnp.stack([z.real, z.imag], -1).reshape(*z.shape[:-1], -1)


def picture(y: jax.Array, height: int, width: int) -> jax.Array:
  """The inverse of `spectrum`, f32[B,height,width,C]; imaginary parts that no picture has are lost.

  These are those of the frequencies 0 and, if the width is even, width / 2 of the last axis.
  """
  y = y.reshape(*y.shape[:-1], -1, 2)
  z = jax.lax.complex(y[..., 0], y[..., 1])
  return jnp.fft.irfft2(z, s=(height, width), axes=(1, 2), norm='ortho')


class FourierUnit(nn.Module):
  """A 1x1 convolution, batch norm and ReLU of the spectrum; all of it in float32.

  Attributes:
    features: output channels.
    kernel_init: of the convolution.
  """

  features: int
  kernel_init: Initializer = torch_init

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,I] -> f32[B,H,W,features]."""
    height, width = x.shape[1:3]
    y = spectrum(x.astype(jnp.float32))
    settings = dict(use_bias=False, kernel_init=self.kernel_init, name='conv')
    y = Conv(2 * self.features, 1, **settings)(y)
    y = nn.relu(batch_norm('bn', train, jnp.float32)(y))
    return picture(y, height, width)


def quarters(x: jax.Array) -> jax.Array:
  """[B,H,W,C] -> [B,H/2,W/2,4 (C//4)]: the quarters of the first C//4 channels, as channels.

  They are in the order top left, bottom left, top right, bottom right.

  Raises:
    ValueError: a side is odd, and has no halves.
  """
  height, width, channels = x.shape[1:]
  if height % 2 or width % 2:
    raise ValueError(f'a feature map of {height} x {width} has no quarters: its sides must be even')
  halves = jnp.split(x[..., : channels // 4], 2, 1)
  return jnp.concatenate(jnp.split(jnp.concatenate(halves, -1), 2, 2), -1)


class SpectralTransform(nn.Module):
  """conv2(y + FourierUnit(y) + the local one, if any), where y = relu(bn1(conv1 x)).

  Attributes:
    features: output channels; y has half as many.
    stride: 1, or 2: means of 2x2 pixels first.
    local: adds a Fourier unit of a quarter of the channels in each quarter of the picture, whose
      result is repeated in all quarters (the paper's LFU; LaMa's published networks have none).
    kernel_init: of all kernels.
    dtype: of the computation; the spectra are float32.
  """

  features: int
  stride: int = 1
  local: bool = False
  kernel_init: Initializer = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,I] -> [B,H/stride,W/stride,features] in `dtype`."""
    settings = dict(use_bias=False, kernel_init=self.kernel_init, dtype=self.dtype)
    unit = lambda name: FourierUnit(self.features // 2, self.kernel_init, name=name)
    if self.stride == 2:
      x = avg_pool(x)
    y = Conv(self.features // 2, 1, name='conv1', **settings)(x)
    y = nn.relu(batch_norm('bn1', train, self.dtype)(y))
    total = y + unit('fourier')(y, train=train).astype(self.dtype)
    if self.local:
      z = unit('local_fourier')(quarters(y), train=train).astype(self.dtype)
      total += jnp.tile(z, (1, 2, 2, 1))
    return Conv(self.features, 1, name='conv2', **settings)(total)


class FFC(nn.Module):
  """The fast Fourier convolution, then batch norm and ReLU of each part.

  Attributes:
    features: output channels of both parts.
    global_out: share of the output channels that are global.
    kernel_size: of the convolutions.
    stride: of the output grid.
    local_fourier: of the spectral transform.
    kernel_init: of all kernels.
    dtype: of the computation; parameters, statistics and spectra are float32.
  """

  features: int
  global_out: float = 0.75
  kernel_size: int = 3
  stride: int = 1
  local_fourier: bool = False
  kernel_init: Initializer = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Pair, *, train: bool = False) -> Pair:
    """([B,H,W,I_l], [B,H,W,I_g]) -> ([B,h,w,O_l], [B,h,w,O_g]) in `dtype`."""
    of_local, of_global = x
    to_global = int(self.features * self.global_out)
    to_local = self.features - to_global
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)

    def conv(part, features, name):
      how = dict(stride=self.stride, padding=self.kernel_size // 2, pad_mode='reflect')
      return Conv(features, self.kernel_size, use_bias=False, name=name, **how, **init)(part)

    made = {}
    if of_local is not None and to_local:
      made['local_local'] = conv(of_local, to_local, 'local_local')
    if of_local is not None and to_global:
      made['local_global'] = conv(of_local, to_global, 'local_global')
    if of_global is not None and to_local:
      made['global_local'] = conv(of_global, to_local, 'global_local')
    if of_global is not None and to_global:
      how = dict(stride=self.stride, local=self.local_fourier, name='global_global')
      made['global_global'] = SpectralTransform(to_global, **how, **init)(of_global, train=train)

    def finished(part):
      added = [y for name, y in made.items() if name.endswith(f'_{part}')]
      if not added:
        return None
      return nn.relu(batch_norm(f'bn_{part}', train, self.dtype)(sum(added)))

    return finished('local'), finished('global')


class FFCResnetBlock(nn.Module):
  """x + ffc2(ffc1(x)) of both parts; there is a ReLU before the sum, and none after it.

  Attributes:
    global_share: of the channels.
    local_fourier: of the spectral transforms.
    kernel_init: of all kernels.
    dtype: of the computation.
  """

  global_share: float = 0.75
  local_fourier: bool = False
  kernel_init: Initializer = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: tuple[jax.Array, jax.Array], *, train: bool = False) -> tuple:
    """([B,H,W,L], [B,H,W,G]) -> the same shapes."""
    features = sum(part.shape[-1] for part in x)
    settings = dict(
      global_out=self.global_share,
      local_fourier=self.local_fourier,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
    )
    y = x
    for name in ('ffc1', 'ffc2'):
      y = FFC(features, name=name, **settings)(y, train=train)
    return tuple(a + b for a, b in zip(x, y, strict=True))
