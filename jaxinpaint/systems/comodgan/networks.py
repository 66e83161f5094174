"""Co-Mod-GAN's generator: StyleGAN2 whose layers are modulated by the image and by chance.

Zhao, Cui, Sheng, Dong, Liang, Chang, Xu: "Large Scale Image Completion via Co-Modulated Generative
Adversarial Networks", ICLR 2021, https://arxiv.org/abs/2103.10428, section 3. An encoder makes one
vector of the damaged image, and a feature map for each side. Every layer of the synthesis is
modulated by [w, that vector] (eq. 4), w made of a random z; the feature maps are added to its own.
The critic is StyleGAN2's, of [mask, image] (layers/stylegan2_networks.py).

Differs from the reference code: see layers.stylegan2. Known pixels are not pasted here.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.stylegan2 import EqualConv, EqualDense, StyledConv, ToRGB
from jaxinpaint.layers.stylegan2_networks import (
  MappingNetwork,
  Noise,
  channel_count,
  choose_noises,
  latent_count,
  stored_noises,
  truncate,
)

AVERAGE_DECAY = 0.995  # of the average w, for each batch: StyleGAN's


def seen(image: jax.Array, mask: jax.Array) -> jax.Array:
  """f32[B,H,W,4], what the encoder sees: 1/2 where a pixel is known, -1/2 in the hole; the image.

  Args:
    image: f32[B,H,W,3] in [0,1].
    mask: f32[B,H,W,1], 1 = hole; there the image is 0, the grey of [-1,1].
  """
  return judged(jnp.where(mask > 0, 0.0, 2 * image - 1), mask)


def judged(image: jax.Array, mask: jax.Array) -> jax.Array:
  """f32[B,H,W,4], what the critic sees: as `seen`, with a whole image in [-1,1]."""
  return jnp.concatenate([0.5 - mask.astype(jnp.float32), image], -1)


def sides(size: int) -> list[int]:
  """4, 8, ... size."""
  return [4 << i for i in range(latent_count(size) // 2)]


class Encoder(nn.Module):
  """The damaged image to one vector, and to a feature map of each side.

  Attributes:
    size: of the image, a power of two.
    features: of the vector.
    max_channels: cap of all channels.
    dropout: share of the vector that is dropped, where `drop` says so.
    dtype: of the convolutions; the vector is float32.
  """

  size: int = 512
  features: int = 1024
  max_channels: int = 512
  dropout: float = 0.5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, drop: bool = False
  ) -> tuple[jax.Array, Mapping[int, jax.Array]]:
    """f32[B,size,size,4] -> (f32[B,features], {side: [B,side,side,C]}).

    `drop` needs an rng called 'dropout'; each sample drops its own.
    """
    channels = lambda r: channel_count(r, max_channels=self.max_channels)
    options = dict(dtype=self.dtype)
    maps = {}
    y = EqualConv(channels(self.size), 1, name='from_rgb', **options)(x)
    for r in reversed(sides(self.size)[1:]):
      maps[r] = EqualConv(channels(r), name=f'conv{r}', **options)(y)
      y = EqualConv(channels(r // 2), down=True, name=f'conv{r}_down', **options)(maps[r])
    maps[4] = EqualConv(channels(4), name='conv4', **options)(y)
    flat = jnp.moveaxis(maps[4], -1, 1).reshape(x.shape[0], -1)  # PyTorch's order
    vector = EqualDense(self.features, activate=True, name='dense')(flat.astype(jnp.float32))
    return nn.Dropout(self.dropout)(vector, deterministic=not drop), maps


class Synthesis(nn.Module):
  """Latents, the encoder's vector and its maps to an image.

  Attributes:
    size: of the image.
    max_channels: cap of all channels.
    dtype: of the convolutions; modulation and images are float32.
  """

  size: int = 512
  max_channels: int = 512
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    w: jax.Array,
    vector: jax.Array,
    maps: Mapping[int, jax.Array],
    noises: list[jax.Array | None],
  ) -> dict[int, jax.Array]:
    """f32[B,n,D], f32[B,F], the encoder's maps and 2 * log2(size) - 3 noises -> images by side.

    Returns:
      {side: f32[B,side,side,3]}, about [-1,1] and not clipped: each is the one before, upsampled,
      and what this side's ToRGB adds. The last one is the output.
    """
    channels = lambda r: channel_count(r, max_channels=self.max_channels)
    options = dict(dtype=self.dtype)
    style = lambda i: jnp.concatenate([w[:, i], vector], -1)
    x = EqualDense(16 * channels(4), activate=True, name='dense')(vector)
    x = jnp.moveaxis(x.reshape(-1, channels(4), 4, 4), 1, -1).astype(self.dtype) + maps[4]
    x = StyledConv(channels(4), name='conv4', **options)(x, style(0), noises[0])
    images = {4: ToRGB(name='rgb4', **options)(x, style(1))}
    for r in sides(self.size)[1:]:
      at = 2 * int(math.log2(r)) - 5  # the last block's to_rgb used latent number `at` too
      up = StyledConv(channels(r), up=True, name=f'conv{r}_up', **options)
      x = up(x, style(at), noises[at]) + maps[r]
      x = StyledConv(channels(r), name=f'conv{r}', **options)(x, style(at + 1), noises[at + 1])
      images[r] = ToRGB(name=f'rgb{r}', **options)(x, style(at + 2), images[r // 2])
    return images


class Generator(nn.Module):
  """Mapping ('style'), encoder and synthesis, and the buffers beside parameters.

  The collection 'buffers', which no optimizer touches, holds the fixed noise pictures 'noise0' ...
  f32[r,r,1] and 'latent_avg' f32[style_dim], the average of w.

  Attributes:
    size: of the image, a power of two.
    style_dim: of z and w.
    mlp_layers: of the mapping.
    features: of the encoder's vector.
    max_channels: cap of all channels, 512 as published; small values give a toy generator.
    dropout: share of the encoder's vector that is dropped, where `drop` says so.
    dtype: of the convolutions; latents, modulation and the image are float32.
  """

  size: int = 512
  style_dim: int = 512
  mlp_layers: int = 8
  features: int = 1024
  max_channels: int = 512
  dropout: float = 0.5
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Builds the three parts and the buffers."""
    self.style = MappingNetwork(self.style_dim, self.mlp_layers)
    self.encoder = Encoder(self.size, self.features, self.max_channels, self.dropout, self.dtype)
    self.synthesis = Synthesis(self.size, self.max_channels, self.dtype)
    self.stored = stored_noises(self, self.size)
    self.latent_avg = self.variable('buffers', 'latent_avg', jnp.zeros, (self.style_dim,))

  def mapping(self, z: jax.Array, *, psi: float = 1.0, train: bool = False) -> jax.Array:
    """f32[B,style_dim], normal -> w f32[B,n,style_dim], the same for all n layers.

    Args:
      z: the random latents.
      psi: w is drawn towards its average, by `truncate`.
      train: the average follows w.
    """
    w = self.style(z)
    if train:
      mean = jax.lax.stop_gradient(w).mean(0)
      self.latent_avg.value = truncate(self.latent_avg.value, mean, AVERAGE_DECAY)
    if psi != 1:
      w = truncate(w, self.latent_avg.value, psi)
    return jnp.repeat(w[:, None], latent_count(self.size), axis=1)

  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    z: jax.Array,
    *,
    other: tuple[jax.Array, jax.Array] | None = None,
    noise: Noise = 'stored',
    psi: float = 1.0,
    drop: bool = False,
    train: bool = False,
  ) -> dict[str, Any]:
    """Completes images.

    Args:
      image: f32[B,size,size,3] in [0,1]; its hole is not read.
      mask: f32[B,size,size,1], 1 = hole.
      z: f32[B,style_dim], normal.
      other: (z f32[B,style_dim], i32[B]) of style mixing: from this layer on another w is used.
      noise: of `choose_noises`; 'random' needs an rng called 'noise'.
      psi: of the truncation.
      drop: drop a part of the encoder's vector; needs an rng called 'dropout'.
      train: the average of w follows.

    Returns:
      'out' f32[B,size,size,3] in [0,1]; 'raw', the same in about [-1,1], not clipped; 'images', of
      `Synthesis`.

    Raises:
      ValueError: images of another size.
    """
    if image.shape[1:3] != (self.size, self.size):
      raise ValueError(
        f'images of {image.shape[1]} x {image.shape[2]} for a generator of {self.size} pixels: '
        'resize them'
      )
    w = self.mapping(z, psi=psi, train=train)
    if other is not None:
      layers = jnp.arange(w.shape[1])
      later = layers >= other[1][:, None]
      w = jnp.where(later[..., None], self.mapping(other[0], psi=psi), w)
    return self.complete(image, mask, w, noise=noise, drop=drop)

  def complete(
    self,
    image: jax.Array,
    mask: jax.Array,
    w: jax.Array,
    *,
    noise: Noise = 'stored',
    drop: bool = False,
  ) -> dict[str, Any]:
    """As a call, from latents w f32[B,n,style_dim]."""
    vector, maps = self.encoder(seen(image, mask), drop=drop)
    noises = choose_noises(self, noise, self.stored, len(image))
    images = self.synthesis(w, vector, maps, noises)
    raw = images[self.size]
    return {'out': jnp.clip((raw + 1) / 2, 0.0, 1.0), 'raw': raw, 'images': images}
