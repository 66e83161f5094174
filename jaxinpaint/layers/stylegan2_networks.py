"""StyleGAN2's generator and discriminator, configuration F (skip generator, residual critic).

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila: "Analyzing and Improving the Image Quality of
StyleGAN", CVPR 2020, https://arxiv.org/abs/1912.04958.

Differs from the reference code: see layers.stylegan2. The generator takes latents of W+, one for
each layer; for style mixing the caller combines rows.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.parameters import parameter
from jaxinpaint.layers.stylegan2 import (
  EqualConv,
  EqualDense,
  StyledConv,
  ToRGB,
  minibatch_stddev,
  pixel_norm,
)

Noise = str | Sequence[jax.Array]
NOISES = ('stored', 'random', 'none')


def latent_count(size: int) -> int:
  """How many latents a generator of `size` pixels takes: 14 for 256, 18 for 1024.

  Raises:
    ValueError: `size` is not a power of two of at least 8.
  """
  if size < 8 or size & (size - 1):
    raise ValueError(f'StyleGAN2 draws images of 8, 16, 32, ... 1024 pixels, not {size}')
  return 2 * int(math.log2(size)) - 2


def sides(size: int) -> list[int]:
  """4, 8, ... size."""
  return [4 << i for i in range(latent_count(size) // 2)]


def seen(image: jax.Array, mask: jax.Array) -> jax.Array:
  """f32[B,H,W,4], what generators that inpaint see: 1/2 where known, -1/2 in the hole; the image.

  Args:
    image: f32[B,H,W,3] in [0,1].
    mask: f32[B,H,W,1], 1 = hole; there the image is 0, the grey of [-1,1].
  """
  return judged(jnp.where(mask > 0, 0.0, 2 * image - 1), mask)


def judged(image: jax.Array, mask: jax.Array) -> jax.Array:
  """f32[B,H,W,4], what their critics see: as `seen`, with a whole image in [-1,1]."""
  return jnp.concatenate([0.5 - mask.astype(jnp.float32), image], -1)


def channel_count(resolution: int, multiplier: int = 2, max_channels: int = 512) -> int:
  """Channels at a resolution: 512 up to 32 pixels, then 16384 * multiplier / resolution."""
  if resolution <= 32:
    return max_channels
  return min(16384 * multiplier // resolution, max_channels)


def truncate(latents: jax.Array, average: jax.Array, psi: float) -> jax.Array:
  """average + psi * (latents - average): closer to the mean face, less varied."""
  return average + psi * (latents - average)


def stored_noises(module: nn.Module, size: int) -> list[jax.Array]:
  """The fixed noise pictures 'noise0' ... f32[r,r,1] of `module`, in the collection 'buffers'.

  There is one for the layer of 4 pixels and two for each side above it, up to `size`.
  """
  sides = [4] + [4 << i for i in range(1, latent_count(size) // 2) for _ in range(2)]
  draw = lambda shape: jax.random.normal(module.make_rng('params'), shape)
  return [
    module.variable('buffers', f'noise{i}', draw, (side, side, 1)).value
    for i, side in enumerate(sides)
  ]


def choose_noises(
  module: nn.Module, noise: Noise, stored: Sequence[jax.Array], count: int
) -> list[jax.Array | None]:
  """What each layer adds, f32[B or 1,r,r,1].

  Args:
    module: its rng 'noise' is drawn from.
    noise: 'stored', 'random' (each of `count` samples its own), 'none', or a list.
    stored: of `stored_noises`.
    count: of the samples.

  Raises:
    ValueError: an unknown noise, or a list of another length.
  """
  if not isinstance(noise, str):
    noises = list(noise)
  elif noise == 'stored':
    noises = [x[None] for x in stored]
  elif noise == 'random':
    draw = lambda shape: arrays.drawn(jax.random.normal, module.make_rng('noise'), shape)
    noises = [draw((count, *x.shape)) for x in stored]
  elif noise == 'none':
    noises = [None] * len(stored)
  else:
    raise ValueError(f'noise {noise!r} is not one of {", ".join(NOISES)}')
  if len(noises) != len(stored):
    raise ValueError(f'{len(noises)} noise pictures given, {len(stored)} wanted')
  return noises


class MappingNetwork(nn.Module):
  """z to w: pixel norm, then dense layers whose learning rate is a hundredth.

  Attributes:
    features: of z, w and all layers between.
    layers: number of dense layers.
    lr_multiplier: of these layers.
  """

  features: int = 512
  layers: int = 8
  lr_multiplier: float = 0.01

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    """f32[B,features] -> f32[B,features]."""
    w = pixel_norm(z)
    for i in range(1, self.layers + 1):
      w = EqualDense(self.features, self.lr_multiplier, activate=True, name=f'dense{i}')(w)
    return w


class Synthesis(nn.Module):
  """Latents to an image, from a learnt 4x4 map; attributes as `Generator`."""

  size: int = 256
  channel_multiplier: int = 2
  max_channels: int = 512
  out_channels: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, w: jax.Array, noises: Sequence[jax.Array | None]) -> jax.Array:
    """f32[B,n,D] and 2 * log2(size) - 3 noises -> f32[B,size,size,out_channels]."""
    channels = lambda r: channel_count(r, self.channel_multiplier, self.max_channels)
    options = dict(dtype=self.dtype)
    start = parameter(self, 'const', nn.initializers.normal(1.0), (4, 4, channels(4)), jnp.float32)
    x = jnp.broadcast_to(start, (w.shape[0], *start.shape)).astype(self.dtype)
    x = StyledConv(channels(4), name='conv4', **options)(x, w[:, 0], noises[0])
    image = ToRGB(self.out_channels, name='rgb4', **options)(x, w[:, 1])
    for i in range(1, int(math.log2(self.size)) - 1):
      r, at = 4 << i, 2 * i - 1  # the last block's to_rgb used latent number `at` too
      up = StyledConv(channels(r), up=True, name=f'conv{r}_up', **options)
      x = up(x, w[:, at], noises[at])
      x = StyledConv(channels(r), name=f'conv{r}', **options)(x, w[:, at + 1], noises[at + 1])
      image = ToRGB(self.out_channels, name=f'rgb{r}', **options)(x, w[:, at + 2], image)
    return image


class Generator(nn.Module):
  """Mapping ('style') and synthesis, and the buffers that a checkpoint keeps beside parameters.

  The collection 'buffers', which no optimiser touches, holds the fixed noise pictures
  'noise0' ... f32[r,r,1] and 'latent_avg' f32[n,style_dim], the mean of w repeated for every layer
  (zero until weights are loaded).

  Attributes:
    size: of the image, a power of two.
    style_dim: of z and w.
    mlp_layers: of the mapping.
    channel_multiplier: 2 as published; 1 has half of the channels above 32 pixels.
    max_channels: cap of all channels, 512 as published; small values give a toy generator.
    out_channels: of the image.
    dtype: of the convolutions; modulation, latents and the image are float32.
  """

  size: int = 256
  style_dim: int = 512
  mlp_layers: int = 8
  channel_multiplier: int = 2
  max_channels: int = 512
  out_channels: int = 3
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Builds both halves and the buffers."""
    count = latent_count(self.size)
    self.style = MappingNetwork(self.style_dim, self.mlp_layers)
    self.synthesis = Synthesis(
      self.size, self.channel_multiplier, self.max_channels, self.out_channels, self.dtype
    )
    self.stored = stored_noises(self, self.size)
    self.latent_avg = self.variable('buffers', 'latent_avg', jnp.zeros, (count, self.style_dim))

  def mapping(self, z: jax.Array) -> jax.Array:
    """f32[B,style_dim], normal -> w f32[B,style_dim]."""
    return self.style(z)

  def __call__(self, w: jax.Array, noise: Noise = 'stored') -> jax.Array:
    """Draws images from latents of W or W+.

    Args:
      w: f32[B,n,style_dim], n = `latent_count(size)`; or f32[B,style_dim], used for all layers.
      noise: 'stored' (the buffers), 'random' (needs an rng called 'noise'; each sample its own),
        'none', or a list of f32[B or 1,r,r,1].

    Returns:
      f32[B,size,size,3], about [-1,1] and not clipped.

    Raises:
      ValueError: a wrong number of latents or noise pictures, or an unknown noise.
    """
    count, b = latent_count(self.size), w.shape[0]
    if w.ndim == 2:
      w = jnp.repeat(w[:, None], count, axis=1)
    if w.shape[1:] != (count, self.style_dim):
      raise ValueError(
        f'latents of shape {w.shape} for a generator of {self.size} pixels, which takes '
        f'({b}, {count}, {self.style_dim})'
      )
    noises = choose_noises(self, noise, self.stored, b)
    if self.is_initializing():
      self.style(jnp.zeros((1, self.style_dim)))
    return self.synthesis(w, noises)


class ResidualDown(nn.Module):
  """Two 3x3 convolutions, the second halving the resolution, and a 1x1 shortcut; over sqrt(2)."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H/2,W/2,features]."""
    y = EqualConv(x.shape[-1], 3, dtype=self.dtype, name='conv1')(x)
    y = EqualConv(self.features, 3, down=True, dtype=self.dtype, name='conv2')(y)
    bare = dict(down=True, use_bias=False, activate=False, dtype=self.dtype)
    return (y + EqualConv(self.features, 1, name='skip', **bare)(x)) / math.sqrt(2.0)


class Discriminator(nn.Module):
  """Residual critic of one image size; logits.

  Attributes:
    size: of the image, a power of two.
    channel_multiplier: as the generator's.
    max_channels: as the generator's.
    group: samples whose deviation is appended as a channel; see `minibatch_stddev`.
    dtype: of the convolutions; the dense layers and logits are float32.
  """

  size: int = 256
  channel_multiplier: int = 2
  max_channels: int = 512
  group: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,size,size,C] in [-1,1] -> f32[B,1]; any number of channels C."""
    latent_count(self.size)
    if x.shape[1:3] != (self.size, self.size):
      raise ValueError(f'images of {x.shape[1]} x {x.shape[2]} for a critic of {self.size} pixels')
    channels = lambda r: channel_count(r, self.channel_multiplier, self.max_channels)
    y = EqualConv(channels(self.size), 1, dtype=self.dtype, name='from_rgb')(x)
    side = self.size
    while side > 4:
      y = ResidualDown(channels(side // 2), dtype=self.dtype, name=f'block{side}')(y)
      side //= 2
    y = EqualConv(channels(4), 3, dtype=self.dtype, name='conv4')(minibatch_stddev(y, self.group))
    y = jnp.moveaxis(y, -1, 1).reshape(y.shape[0], -1).astype(jnp.float32)  # PyTorch's order
    y = EqualDense(channels(4), activate=True, name='dense1')(y)
    return EqualDense(1, name='dense2')(y)
