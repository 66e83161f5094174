"""Attention with learned memories instead of keys and values taken from the input."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import normal_init


class AxisMLP(nn.Module):
  """Linear(n -> hidden), ReLU, Linear(hidden -> n) along one spatial axis, the same everywhere.

  Attributes:
    axis: 1 (height) or 2 (width) of [B,H,W,C].
    hidden: memory size.
    kernel_init: of both kernels.
    dtype: of the computation.
  """

  axis: int
  hidden: int
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C]."""
    # One matrix [n, all other axes]: on a CPU, products over an inner axis and above all their
    # gradients are several times slower than the two transpositions.
    x = jnp.moveaxis(x.astype(self.dtype), self.axis, 0)
    n, *others = x.shape
    x = x.reshape(n, -1)
    for name, size_out in (('fc1', self.hidden), ('fc2', n)):
      x = _Linear(size_out, self.kernel_init, self.dtype, name=name)(x)
      if name == 'fc1':
        x = nn.relu(x)
    return jnp.moveaxis(x.reshape(n, *others), 0, self.axis)


class _Linear(nn.Module):
  """A linear layer along the first axis of a matrix."""

  features: int
  kernel_init: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', self.kernel_init, (x.shape[0], self.features), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
    return kernel.astype(self.dtype).T @ x + bias.astype(self.dtype)[:, None]


class ExternalSpatialAttention(nn.Module):
  """Spatial attention whose key mixes rows and whose value mixes columns.

  The MESFF paper's eq. 3, F = (Q^T K)^T V per channel: Q [H,W] is the input, K acts along H, V
  along W, each "an activation and two linear layers, independent of the input, shared by samples"
  (after external attention, Guo et al., TPAMI 2023). The cost is linear in the pixels.

  Attributes:
    size: H = W of the input, fixed by the parameters.
    hidden: memory size of key and value.
    kernel_init: of all kernels.
    dtype: of the computation; parameters are float32.
  """

  size: int
  hidden: int = 64
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,size,size,C] -> the same.

    Raises:
      ValueError: another height or width.
    """
    if x.shape[1:3] != (self.size, self.size):
      raise ValueError(
        f'external attention of size {self.size} got {x.shape[1]} x {x.shape[2]}: resize first'
      )
    x = AxisMLP(1, self.hidden, self.kernel_init, self.dtype, name='key')(x)
    return AxisMLP(2, self.hidden, self.kernel_init, self.dtype, name='value')(x)
