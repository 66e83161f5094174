"""MI-GAN's generator and critic: StyleGAN2's blocks of depthwise separable convolutions.

Sargsyan, Navasardyan, Xu, Shi: "MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices",
ICCV 2023, https://github.com/Picsart-AI-Research/MI-GAN. A U-Net without latents, each convolution
split into one of 3 x 3 pixels within every channel and one of 1 x 1 across the channels. In
training a kernel is a sum of nine, divided by the 2-norm of each output channel; `merge` makes the
one kernel of each that is used afterwards.

Differs from the reference code: not in numbers. Both forms of the generator are one module;
the nine tensors are one array; resampling filters are constants here and arrays of the checkpoint
there.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import conv2d, depthwise_conv2d
from jaxinpaint.layers.parameters import parameter
from jaxinpaint.layers.stylegan2 import (
  EPSILON,
  EqualDense,
  fir_taps,
  minibatch_stddev,
  scaled_leaky_relu,
  upfirdn2d,
  upsample2,
)
from jaxinpaint.layers.stylegan2_networks import NOISES, channel_count, judged, seen, sides

__all__ = ['NOISES', 'Discriminator', 'Generator', 'judged', 'merge', 'seen', 'sides']

CLAMP = 256.0  # of activations, for half precision
TENSORS = 9  # that a kernel is the sum of, in training


def unit_kernel(kernels: jax.Array) -> jax.Array:
  """[n,k,k,I,O] -> [k,k,I,O]: the sum over sqrt(n), each output channel divided by its 2-norm."""
  kernel = kernels.sum(0) / math.sqrt(len(kernels))
  return kernel * jax.lax.rsqrt(jnp.square(kernel).sum((0, 1, 2), keepdims=True) + EPSILON)


def merge(params: Mapping[str, Any]) -> dict[str, Any]:
  """The parameters of a generator's training form -> those of the merged one, which draws as it."""
  merged: dict[str, Any] = {}
  for name, value in params.items():
    if name == 'kernels':
      merged['kernel'] = unit_kernel(value)
    else:
      merged[name] = merge(value) if isinstance(value, Mapping) else value
  return merged


def activate(x: jax.Array, gain: float = 1.0) -> jax.Array:
  """`scaled_leaky_relu` times `gain`, between -256 * gain and 256 * gain."""
  return jnp.clip(scaled_leaky_relu(x) * gain, -CLAMP * gain, CLAMP * gain)


def halve(x: jax.Array) -> jax.Array:
  """[B,H,W,C] -> [B,H/2,W/2,C] with the filter 1, 3, 3, 1."""
  return upfirdn2d(x, fir_taps(), down=2, pad=(1, 1))


def kernel_of(module: nn.Module, shape: tuple[int, ...], tensors: int) -> jax.Array:
  """f32[shape]: `unit_kernel` of the parameter 'kernels' f32[tensors,*shape]; for 0, 'kernel'.

  The former is drawn from N(0, 1). The latter has the deviation that it gives.
  """
  if tensors:
    draw = nn.initializers.normal(1.0)
    return unit_kernel(parameter(module, 'kernels', draw, (tensors, *shape)))
  draw = nn.initializers.normal(1 / math.sqrt(math.prod(shape[:3])))
  return parameter(module, 'kernel', draw, shape)


class PointConv(nn.Module):
  """A 1x1 convolution.

  Attributes:
    features: output channels.
    tensors: of the kernel, see `kernel_of`.
    use_bias: adds a bias.
  """

  features: int
  tensors: int = TENSORS
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H,W,features] in the type of x."""
    kernel = kernel_of(self, (1, 1, x.shape[-1], self.features), self.tensors)
    y = conv2d(x, kernel.astype(x.dtype))
    if self.use_bias:
      y += parameter(self, 'bias', nn.initializers.zeros, (self.features,)).astype(y.dtype)
    return y


class DepthwiseConv(nn.Module):
  """A 3x3 convolution of each channel alone, with a bias.

  Attributes:
    tensors: of the kernel, see `kernel_of`.
  """

  tensors: int = TENSORS

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C] in the type of x."""
    c = x.shape[-1]
    y = depthwise_conv2d(x, kernel_of(self, (3, 3, 1, c), self.tensors).astype(x.dtype))
    return y + parameter(self, 'bias', nn.initializers.zeros, (c,)).astype(y.dtype)


class SeparableConv(nn.Module):
  """Depthwise convolution, activation, pointwise convolution without bias, noise, activation.

  Where it has noise, there are the parameter 'noise_weight' f32[1], zero at the start, and in the
  collection 'buffers' the picture 'noise' f32[side,side,1].

  Attributes:
    features: output channels.
    up: double the resolution, after the pointwise convolution.
    down: halve it, before that.
    noise_side: of the noise; 0: there is none.
    gain: of both activations.
    tensors: of the kernels, see `kernel_of`.
    dtype: of the computation.
  """

  features: int
  up: bool = False
  down: bool = False
  noise_side: int = 0
  gain: float = 1.0
  tensors: int = TENSORS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, noise: str = 'stored') -> jax.Array:
    """[B,H,W,I] -> [B,H',W',features].

    `noise` is one of `NOISES`; 'random' needs an rng called 'noise', and each sample has its own.
    """
    y = DepthwiseConv(self.tensors, name='depthwise')(x.astype(self.dtype))
    y = activate(y, self.gain)
    if self.down:
      y = halve(y)
    y = PointConv(self.features, self.tensors, use_bias=False, name='pointwise')(y)
    if self.up:
      y = upsample2(y)
    if self.noise_side:
      y += self._noise(noise, y.shape[0]).astype(y.dtype)
    return activate(y, self.gain)

  def _noise(self, noise: str, count: int) -> jax.Array:
    """f32[B or 1,side,side,1]."""
    shape = (self.noise_side, self.noise_side, 1)
    draw = lambda: jax.random.normal(self.make_rng('params'), shape)
    stored = self.variable('buffers', 'noise', draw).value
    weight = parameter(self, 'noise_weight', nn.initializers.zeros, (1,))
    if noise == 'random':
      key = self.make_rng('noise')
      return weight * arrays.drawn(jax.random.normal, key, (count, *shape))
    return weight * stored[None] if noise == 'stored' else jnp.zeros((1, 1, 1, 1))


class Encoder(nn.Module):
  """The damaged image to a feature map of each side; attributes as `Generator`."""

  size: int = 512
  max_channels: int = 512
  tensors: int = TENSORS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[int, jax.Array]]:
    """f32[B,size,size,4] -> ([B,4,4,C], {side: [B,side,side,C]})."""
    channels = lambda r: channel_count(r, max_channels=self.max_channels)
    options: dict[str, Any] = dict(tensors=self.tensors, dtype=self.dtype)
    # Its kernel is never a sum, but it is normalised.
    first = PointConv(channels(self.size), min(self.tensors, 1), name='from_rgb')
    y, maps = activate(first(x.astype(self.dtype))), {}
    for r in reversed(sides(self.size)):
      maps[r] = SeparableConv(channels(r), name=f'conv{r}_1', **options)(y)
      second = SeparableConv(channels(max(r // 2, 4)), down=r > 4, name=f'conv{r}_2', **options)
      y = second(maps[r])
    return y, maps


class Synthesis(nn.Module):
  """The encoder's maps to an image; attributes as `Generator`."""

  size: int = 512
  max_channels: int = 512
  tensors: int = TENSORS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, maps: Mapping[int, jax.Array], noise: str = 'stored'
  ) -> tuple[jax.Array, dict[int, jax.Array]]:
    """(the image f32[B,size,size,3], about [-1,1]; {side: what its ToRGB adds f32[B,side,side,3]}).

    Arguments are of `Encoder` and `SeparableConv`.
    """
    channels = lambda r: channel_count(r, max_channels=self.max_channels)
    options: dict[str, Any] = dict(tensors=self.tensors, dtype=self.dtype)
    rgb: dict[int, jax.Array] = {}
    image = jnp.zeros(())
    for r in sides(self.size):
      noisy: dict[str, Any] = dict(noise_side=r if r > 4 else 0, **options)
      first = SeparableConv(channels(r), up=r > 4, name=f'conv{r}_1', **noisy)
      x = first(x, noise) + maps[r]
      x = SeparableConv(channels(r), name=f'conv{r}_2', **noisy)(x, noise)
      rgb[r] = PointConv(3, self.tensors, name=f'rgb{r}')(x).astype(jnp.float32)
      image = rgb[r] if r == 4 else upsample2(image) + rgb[r]
    return image, rgb


class Generator(nn.Module):
  """Encoder and synthesis.

  Attributes:
    size: of the image, a power of two; noise pictures bind the network to it.
    max_channels: cap of all channels, 512 as published; small values give a toy generator.
    tensors: that each kernel is the sum of; 0: kernels are merged.
    dtype: of the convolutions; images are float32.
  """

  size: int = 512
  max_channels: int = 512
  tensors: int = TENSORS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, noise: str = 'stored', train: bool = False
  ) -> dict[str, Any]:
    """Completes images.

    Args:
      image: f32[B,size,size,3] in [0,1]; its hole is not read.
      mask: f32[B,size,size,1], 1 = hole.
      noise: one of `NOISES`; 'random' needs an rng called 'noise'.
      train: changes nothing here.

    Returns:
      'out' f32[B,size,size,3] in [0,1]; 'raw', the same in about [-1,1], not clipped; 'rgb', what
      each side's ToRGB adds to it, of `Synthesis`.

    Raises:
      ValueError: images of another size.
    """
    del train
    if image.shape[1:3] != (self.size, self.size):
      raise ValueError(
        f'images of {image.shape[1]} x {image.shape[2]} for a generator of {self.size} pixels: '
        'resize them'
      )
    options = dict(max_channels=self.max_channels, tensors=self.tensors, dtype=self.dtype)
    x, maps = Encoder(self.size, name='encoder', **options)(seen(image, mask))
    raw, rgb = Synthesis(self.size, name='synthesis', **options)(x, maps, noise)
    return {'out': jnp.clip((raw + 1) / 2, 0.0, 1.0), 'raw': raw, 'rgb': rgb}


class ResidualDown(nn.Module):
  """Two separable convolutions, the second halving the resolution, and a 1x1 shortcut."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H/2,W/2,features]."""
    half = math.sqrt(0.5)
    skip = PointConv(self.features, use_bias=False, name='skip')(halve(x)) * half
    y = SeparableConv(x.shape[-1], dtype=self.dtype, name='conv1')(x)
    options = dict(down=True, gain=half, dtype=self.dtype)
    return skip + SeparableConv(self.features, name='conv2', **options)(y)


class Discriminator(nn.Module):
  """Residual critic of one image size; logits. All kernels are sums.

  Attributes:
    size: of the image, a power of two.
    max_channels: as the generator's.
    group: samples whose deviation is appended as a channel; see `minibatch_stddev`.
    dtype: of the convolutions; the dense layers and logits are float32.
  """

  size: int = 512
  max_channels: int = 512
  group: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f32[B,size,size,4] of `judged` -> f32[B,1]."""
    if x.shape[1:3] != (self.size, self.size):
      raise ValueError(f'images of {x.shape[1]} x {x.shape[2]} for a critic of {self.size} pixels')
    channels = lambda r: channel_count(r, max_channels=self.max_channels)
    y = activate(PointConv(channels(self.size), name='from_rgb')(x.astype(self.dtype)))
    for r in reversed(sides(self.size)[1:]):
      y = ResidualDown(channels(r // 2), dtype=self.dtype, name=f'block{r}')(y)
    y = minibatch_stddev(y, self.group)
    y = SeparableConv(channels(4), dtype=self.dtype, name='conv4')(y)
    y = jnp.moveaxis(y, -1, 1).reshape(y.shape[0], -1).astype(jnp.float32)  # PyTorch's order
    y = EqualDense(channels(4), activate=True, name='dense1')(y)
    return EqualDense(1, name='dense2')(y)
