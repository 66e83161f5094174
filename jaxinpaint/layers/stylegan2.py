"""The building blocks of StyleGAN2: equalised layers, modulated convolutions, FIR resampling.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila: "Analyzing and Improving the Image Quality of
StyleGAN", CVPR 2020, https://arxiv.org/abs/1912.04958. The numbers are those of the two public
codes (NVlabs/stylegan2, rosinality/stylegan2-pytorch), which agree.

Differs from the reference code:
  - a modulated convolution scales its input by the style and its output by the demodulation
    (section 2.2, eq. 1 and 3; the same numbers). The reference gives every sample its own kernels
    in a grouped convolution, which is slow on CPUs;
  - FIR filters given as one row of taps run along rows and then columns, which equals their outer
    product with fewer multiplications.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinpaint.layers.conv import conv2d, conv_transpose2d
from jaxinpaint.layers.parameters import parameter

BLUR = (1.0, 3.0, 3.0, 1.0)  # taps of every resampling filter of StyleGAN2
SLOPE = 0.2
EPSILON = 1e-8


def fir_taps(taps: Sequence[float] = BLUR, gain: float = 1.0) -> np.ndarray:
  """f32[k]: `taps` scaled so that their outer product with themselves sums to `gain`."""
  taps = np.asarray(taps, np.float64)
  return (taps / taps.sum() * math.sqrt(gain)).astype(np.float32)


def upfirdn2d(
  x: jax.Array,
  taps: np.ndarray,
  *,
  up: int = 1,
  down: int = 1,
  pad: tuple[int, int] = (0, 0),
) -> jax.Array:
  """Inserts zeros, pads, convolves and keeps every `down`-th sample, for each channel alone.

  It is a true convolution: the taps are flipped before they slide over the picture.

  Args:
    x: [B,H,W,C].
    taps: [k], along rows and along columns, or [kh,kw].
    up: up - 1 zeros follow each sample.
    down: every `down`-th sample is kept, beginning with the first.
    pad: zeros before and after, on both axes; negative crops.

  Returns:
    [B,H',W',C] in x's dtype, H' = (H * up + pad[0] + pad[1] - kh) // down + 1.
  """
  taps = np.asarray(taps)
  if taps.ndim == 1:
    return _fir(x, tuple(taps.tolist()), up, down, (pad, pad))
  rows, columns = taps.shape
  x = _spread(x, up, (pad, pad))
  flipped = taps[::-1, ::-1]
  terms = [
    flipped[i, j].astype(x.dtype) * _window(_window(x, 1, i, rows, down), 2, j, columns, down)
    for i in range(rows)
    for j in range(columns)
  ]
  return sum(terms[1:], terms[0])


Pads = tuple[tuple[int, int], tuple[int, int]]  # of rows and of columns, each before and after


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _fir(x: jax.Array, taps: tuple[float, ...], up: int, down: int, pads: Pads) -> jax.Array:
  """`upfirdn2d` by one row of taps; its gradients, of any order, are filters of the same kind.

  What jax derives from slices (their transposes, padded and summed) takes up to twice the time and
  memory: benchmarks.layers, 'fir'.
  """
  x = _spread(x, up, pads)
  for axis in (1, 2):
    terms = [
      np.asarray(tap, x.dtype) * _window(x, axis, i, len(taps), down)
      for i, tap in enumerate(taps[::-1])
    ]
    x = sum(terms[1:], terms[0])
  return x


def _fir_forward(
  x: jax.Array, taps: tuple[float, ...], up: int, down: int, pads: Pads
) -> tuple[jax.Array, jax.Array]:
  # An empty array keeps the sides of x.
  return _fir(x, taps, up, down, pads), jnp.zeros((0, *x.shape[1:3]))


def _fir_backward(
  taps: tuple[float, ...], up: int, down: int, pads: Pads, sides: jax.Array, y: jax.Array
) -> tuple[jax.Array]:
  """The transpose: flipped taps, up and down exchanged, padded to the sides of x."""
  turned = tuple(
    (len(taps) - 1 - low, n * up - m * down + low - up + 1)
    for n, m, (low, _) in zip(sides.shape[1:], y.shape[1:3], pads, strict=True)
  )
  return (_fir(y, taps[::-1], down, up, turned),)


_fir.defvjp(_fir_forward, _fir_backward)


def _spread(x: jax.Array, up: int, pads: Pads) -> jax.Array:
  """Inserts up - 1 zeros after each sample, and pads."""
  rows, columns = ((low, high + up - 1, up - 1) for low, high in pads)
  return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))


def _window(x: jax.Array, axis: int, start: int, taps: int, stride: int) -> jax.Array:
  """The samples that tap number `start` of `taps` taps reads along `axis`."""
  last = x.shape[axis] - taps + 1
  if last < 1:
    raise ValueError(f'{x.shape[axis]} samples, padding included, are fewer than {taps} taps')
  return lax.slice_in_dim(x, start, start + last, stride, axis)


def upsample2(x: jax.Array) -> jax.Array:
  """[B,H,W,C] -> [B,2H,2W,C] with the filter 1, 3, 3, 1."""
  return upfirdn2d(x, fir_taps(gain=4.0), up=2, pad=(2, 1))


def blur_before_stride(x: jax.Array, kernel_size: int) -> jax.Array:
  """The filter before a convolution of stride 2 without padding; together H becomes H/2."""
  extra = len(BLUR) - 2 + kernel_size - 1
  return upfirdn2d(x, fir_taps(), pad=((extra + 1) // 2, extra // 2))


def blur_after_stride(x: jax.Array, kernel_size: int) -> jax.Array:
  """The filter after a transposed convolution of stride 2 without padding: 2H + k - 2 -> 2H."""
  extra = len(BLUR) - 2 - (kernel_size - 1)
  return upfirdn2d(x, fir_taps(gain=4.0), pad=((extra + 1) // 2 + 1, extra // 2 + 1))


def scaled_leaky_relu(x: jax.Array) -> jax.Array:
  """sqrt(2) * leaky_relu(x, 0.2): keeps the second moment of a normal input near one."""
  return math.sqrt(2.0) * nn.leaky_relu(x, SLOPE)


def pixel_norm(x: jax.Array) -> jax.Array:
  """[..., C] divided by the root of the mean square over C (+ 1e-8)."""
  y = x.astype(jnp.float32)
  y *= lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + EPSILON)
  return y.astype(x.dtype)


def minibatch_stddev(x: jax.Array, group: int = 4) -> jax.Array:
  """Appends one channel: how much the samples of a group differ, averaged over the rest.

  Karras et al., "Progressive Growing of GANs", ICLR 2018, section 3. Sample i belongs to group
  i mod (B / group). The deviation is the biased one, sqrt(variance + 1e-8).

  Args:
    x: [B,H,W,C].
    group: samples of one group; smaller batches are one group.

  Returns:
    [B,H,W,C+1].

  Raises:
    ValueError: the batch cannot be divided into such groups.
  """
  b, h, w, c = x.shape
  group = min(b, group)
  if b % group:
    raise ValueError(
      f'a batch of {b} cannot be divided into groups of {group}: use a multiple of {group}, '
      f'or fewer than {group} samples'
    )
  y = x.astype(jnp.float32).reshape(group, -1, h, w, c)
  deviation = jnp.sqrt(y.var(0) + EPSILON).mean((1, 2, 3))
  deviation = jnp.tile(deviation, group)[:, None, None, None].astype(x.dtype)
  return jnp.concatenate([x, jnp.broadcast_to(deviation, (b, h, w, 1))], -1)


def modulated_conv2d(
  x: jax.Array,
  kernel: jax.Array,
  style: jax.Array,
  *,
  demodulate: bool = True,
  up: bool = False,
  down: bool = False,
) -> jax.Array:
  """Convolution whose input channels are scaled per sample; the output is rescaled to unit size.

  Karras et al., eq. 1 and 3: w'[i,o] = style[i] * w[i,o], divided by the 2-norm of what reaches
  output channel o.

  Args:
    x: [B,H,W,I].
    kernel: f32[k,k,I,O], k odd, already equalised.
    style: [B,I].
    demodulate: divide by that norm (+ 1e-8 under the root).
    up: double the resolution: transposed convolution of stride 2, then the filter.
    down: halve it: the filter, then stride 2.

  Returns:
    [B,H',W',O] in x's dtype.
  """
  if up and down:
    raise ValueError('a convolution cannot double and halve the resolution at once')
  size = kernel.shape[0]
  weights = kernel.astype(x.dtype)
  y = x * style[:, None, None].astype(x.dtype)
  if up:
    y = blur_after_stride(conv_transpose2d(y, weights, stride=2), size)
  elif down:
    y = conv2d(blur_before_stride(y, size), weights, stride=2)
  else:
    y = conv2d(y, weights, padding=size // 2)
  if demodulate:
    energy = jnp.square(kernel.astype(jnp.float32)).sum((0, 1))
    squares = jnp.matmul(jnp.square(style.astype(jnp.float32)), energy, precision='highest')
    y *= lax.rsqrt(squares + EPSILON)[:, None, None].astype(y.dtype)
  return y


class EqualDense(nn.Module):
  """Linear layer with an equalised learning rate: kernel * lr / sqrt(inputs), bias * lr.

  Parameters 'kernel' f32[in,out], drawn from N(0, 1) / lr, and 'bias' f32[out].

  Attributes:
    features: outputs.
    lr_multiplier: `lr` above.
    bias_init: value that the stored bias starts at.
    activate: apply `scaled_leaky_relu`.
    dtype: of the computation.
  """

  features: int
  lr_multiplier: float = 1.0
  bias_init: float = 0.0
  activate: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., in] -> [..., features]."""
    inputs = x.shape[-1]
    init = nn.initializers.normal(1 / self.lr_multiplier)
    kernel = parameter(self, 'kernel', init, (inputs, self.features), jnp.float32)
    bias = parameter(self, 'bias', nn.initializers.constant(self.bias_init), (self.features,))
    kernel = kernel * (self.lr_multiplier / math.sqrt(inputs))
    y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
    y += (bias * self.lr_multiplier).astype(self.dtype)
    return scaled_leaky_relu(y) if self.activate else y


class EqualConv(nn.Module):
  """Convolution with an equalised learning rate, for the discriminator.

  Parameters 'kernel' f32[k,k,in,out], drawn from N(0, 1) and used divided by sqrt(in * k * k), and
  'bias' f32[out].

  Attributes:
    features: output channels.
    kernel_size: odd.
    down: filter and halve the resolution.
    up: double it: a transposed convolution of stride 2, then the filter.
    use_bias: adds a bias.
    activate: apply `scaled_leaky_relu`.
    dtype: of the computation.
  """

  features: int
  kernel_size: int = 3
  down: bool = False
  up: bool = False
  use_bias: bool = True
  activate: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,in] -> [B,H,W,features], or half or twice H and W."""
    kernel = equalised_kernel(self, self.kernel_size, x.shape[-1], self.features)
    kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
    if self.down:
      y = conv2d(blur_before_stride(x, self.kernel_size), kernel, stride=2)
    elif self.up:
      y = blur_after_stride(conv_transpose2d(x, kernel, stride=2), self.kernel_size)
    else:
      y = conv2d(x, kernel, padding=self.kernel_size // 2)
    if self.use_bias:
      y += parameter(self, 'bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
    return scaled_leaky_relu(y) if self.activate else y


def equalised_kernel(module: nn.Module, size: int, inputs: int, outputs: int) -> jax.Array:
  """The parameter 'kernel' f32[size,size,inputs,outputs] of `module`, divided by sqrt(fan in)."""
  shape = (size, size, inputs, outputs)
  kernel = parameter(module, 'kernel', nn.initializers.normal(1.0), shape, jnp.float32)
  return kernel / math.sqrt(inputs * size * size)


class ModulatedConv(nn.Module):
  """`modulated_conv2d` by an affine map of a latent ('modulation'; its bias starts at one).

  Attributes:
    features: output channels.
    kernel_size: odd.
    demodulate: see `modulated_conv2d`.
    up: double the resolution.
    down: halve it.
    dtype: of the computation; modulation and demodulation are float32.
  """

  features: int
  kernel_size: int = 3
  demodulate: bool = True
  up: bool = False
  down: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, latent: jax.Array) -> jax.Array:
    """[B,H,W,I] and f32[B,D] -> [B,H',W',features]."""
    inputs = x.shape[-1]
    style = EqualDense(inputs, bias_init=1.0, name='modulation')(latent)
    kernel = equalised_kernel(self, self.kernel_size, inputs, self.features)
    return modulated_conv2d(
      x.astype(self.dtype),
      kernel,
      style,
      demodulate=self.demodulate,
      up=self.up,
      down=self.down,
    )


class StyledConv(nn.Module):
  """Modulated convolution, scaled noise, bias, activation.

  Parameters besides those of 'conv': 'noise_weight' f32[1] and 'bias' f32[features], both zero at
  the start.

  Attributes:
    features: output channels.
    kernel_size: odd.
    up: double the resolution.
    noisy: False: never add noise, and have no 'noise_weight'.
    dtype: of the computation.
  """

  features: int
  kernel_size: int = 3
  up: bool = False
  noisy: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, latent: jax.Array, noise: jax.Array | None = None) -> jax.Array:
    """[B,H,W,I], f32[B,D] and noise [B or 1,H',W',1] -> [B,H',W',features].

    `noise` None adds none.
    """
    conv = ModulatedConv(self.features, self.kernel_size, up=self.up, dtype=self.dtype, name='conv')
    y = conv(x, latent)
    bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    if self.noisy:
      weight = parameter(self, 'noise_weight', nn.initializers.zeros, (1,))
      if noise is not None:
        y += (weight * noise).astype(y.dtype)
    return scaled_leaky_relu(y + bias.astype(y.dtype))


class ToRGB(nn.Module):
  """1x1 modulated convolution to an image, without demodulation, added to the upsampled last one.

  Attributes:
    features: channels of the image.
    dtype: of the convolution; the image is float32.
  """

  features: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, latent: jax.Array, skip: jax.Array | None = None) -> jax.Array:
    """[B,H,W,I], f32[B,D] and f32[B,H/2,W/2,features] -> f32[B,H,W,features]."""
    conv = ModulatedConv(self.features, 1, demodulate=False, dtype=self.dtype, name='conv')
    y = conv(x, latent).astype(jnp.float32)
    y += parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    return y if skip is None else y + upsample2(skip)
