"""Convolutions and dense layers under spectral normalisation.

Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018 (algorithm
1), with the semantics of torch.nn.utils.spectral_norm: u and v are kept beside the weight, every
forward pass in training begins with one step of power iteration, and the gradient flows through
sigma = u . (W v) with u and v held constant.

The collection 'spectral' holds 'u' f32[out] and 'v' f32[in*kh*kw], both in PyTorch's order: the
matrix W they belong to is [out, in*kh*kw]. Older implementations flatten a kernel as PyTorch stores
it. Those of transposed convolutions then have one row for each input channel (`rows='in'`).
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers import conv
from jaxinpaint.layers.parameters import parameter
from jaxinpaint.layers.same_conv import pad_same

EPS = 1e-12  # of the vectors' normalisation
Rows = Literal['out', 'in']


def _normalize(x: jax.Array) -> jax.Array:
  return x / jnp.maximum(jnp.linalg.norm(x), EPS)


def _random_direction(rng: jax.Array, size: int) -> jax.Array:
  return _normalize(jax.random.normal(rng, (size,)))


def spectral_normalize(
  module: nn.Module,
  kernel: jax.Array,
  *,
  train: bool,
  rows: Rows = 'out',
  always: bool = False,
  keep_v: bool = True,
) -> jax.Array:
  """The kernel divided by the estimate of its largest singular value.

  Args:
    module: whose collection 'spectral' holds u and v; it must be mutable when `train`.
    kernel: f32[kh,kw,in,out]. That of a transposed convolution is flattened in the same way
      (PyTorch moves its axis 1, the output, to the front).
    train: True first does one step of power iteration and stores u and v.
    rows: 'in': W is [in, out*kh*kw], and u and v have these lengths.
    always: the step is done without `train`, too, but then u and v are not stored. So v is never
      read, and u may start with equal numbers, which compiles faster than random ones.
    keep_v: False, with `always`: there is no v in the collection.

  Returns:
    f32[kh,kw,in,out].
  """
  if rows == 'in':
    turned = spectral_normalize(
      module, kernel.swapaxes(2, 3), train=train, always=always, keep_v=keep_v
    )
    return turned.swapaxes(2, 3)
  kh, kw, fan_in, out = kernel.shape
  if always:
    direction = lambda size: jnp.full(size, size**-0.5)
  else:
    direction = lambda size: _random_direction(module.make_rng('params'), size)
  u = module.variable('spectral', 'u', direction, out)
  # The matrix as [kh*kw*in, out] is a view of the kernel; v is put in that order instead.
  matrix = kernel.reshape(-1, out)
  to_kernel = lambda w: w.reshape(fan_in, kh, kw).transpose(1, 2, 0).reshape(-1)
  to_torch = lambda w: w.reshape(kh, kw, fan_in).transpose(2, 0, 1).reshape(-1)
  left = u.value
  if keep_v:
    v = module.variable('spectral', 'v', direction, fan_in * kh * kw)
    right = to_kernel(v.value)
  if not keep_v or ((train or always) and not module.is_initializing()):
    fixed = jax.lax.stop_gradient(matrix)
    right = _normalize(fixed @ left)
    left = _normalize(right @ fixed)
  if train and not module.is_initializing():
    u.value = left
    if keep_v:
      v.value = to_torch(right)
  left, right = jax.lax.stop_gradient((left, right))
  sigma = (right @ matrix) @ left
  return kernel / sigma


class SNConv(nn.Module):
  """`layers.conv.Conv` with a spectrally normalised kernel; fields as there.

  `always` and `keep_v` are of `spectral_normalize`; `padding` may also be 'same', as TensorFlow's.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  padding: int | Literal['same'] = 0
  dilation: int = 1
  pad_mode: conv.PadMode = 'zeros'
  use_bias: bool = True
  kernel_init: conv.Initializer = conv.normal_init
  always: bool = False
  keep_v: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,I] -> [B,H',W',features]; `train` needs mutable=['spectral']."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = parameter(self, 'kernel', self.kernel_init, shape, jnp.float32)
    kernel = spectral_normalize(self, kernel, train=train, always=self.always, keep_v=self.keep_v)
    x, padding = x.astype(self.dtype), self.padding
    if padding == 'same':
      x, padding = pad_same(x, self.kernel_size, self.stride, self.dilation), 0
    y = conv.conv2d(
      x,
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=padding,
      dilation=self.dilation,
      pad_mode=self.pad_mode,
    )
    if self.use_bias:
      y += parameter(self, 'bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
    return y


class SNConvTranspose(nn.Module):
  """`layers.conv.ConvTranspose` with a spectrally normalised kernel; fields as there.

  `rows` and `always` are of `spectral_normalize`.
  """

  features: int
  kernel_size: int = 4
  stride: int = 2
  padding: int = 1
  output_padding: int = 0
  use_bias: bool = True
  kernel_init: conv.Initializer = conv.normal_init
  form: conv.Form | None = None
  rows: Rows = 'out'
  always: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,I] -> [B,H',W',features]; `train` needs mutable=['spectral']."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = parameter(self, 'kernel', self.kernel_init, shape, jnp.float32)
    kernel = spectral_normalize(self, kernel, train=train, rows=self.rows, always=self.always)
    y = conv.conv_transpose2d(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=self.padding,
      output_padding=self.output_padding,
      form=self.form,
    )
    if self.use_bias:
      y += parameter(self, 'bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
    return y


class SNDense(nn.Module):
  """A dense layer with a spectrally normalised kernel f32[in, out]; u f32[out], v f32[in].

  Attributes:
    features: numbers for each sample.
    kernel_init: of the kernel; the bias starts at zero.
    dtype: of the computation; parameters are float32.
  """

  features: int
  kernel_init: conv.Initializer = conv.normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[..., I] -> [..., features]; `train` needs mutable=['spectral']."""
    kernel = parameter(self, 'kernel', self.kernel_init, (x.shape[-1], self.features), jnp.float32)
    kernel = spectral_normalize(self, kernel[None, None], train=train)[0, 0]
    bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    return x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype)
