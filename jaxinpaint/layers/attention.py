"""Attention with learned memories instead of keys and values taken from the input."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import normal_init
from jaxinpaint.layers.parameters import parameter


class AxisMLP(nn.Module):
  """Linear(n -> hidden), ReLU, Linear(hidden -> n) along one spatial axis, the same everywhere.

  Attributes:
    axis: 1 (height) or 2 (width) of [B,H,W,C].
    hidden: memory size.
    linear: the layers are not applied to the input: they make a matrix [n, n] of the identity, and
      the matrix is applied to the input. The result is then linear in the input.
    kernel_init: of both kernels.
    dtype: of the computation.
  """

  axis: int
  hidden: int
  linear: bool = False
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
    y = jnp.eye(n, dtype=self.dtype) if self.linear else x
    y = nn.relu(_Linear(self.hidden, self.kernel_init, self.dtype, name='fc1')(y))
    y = _Linear(n, self.kernel_init, self.dtype, name='fc2')(y)
    if self.linear:
      y = y @ x
    return jnp.moveaxis(y.reshape(n, *others), 0, self.axis)


class _Linear(nn.Module):
  """A linear layer along the first axis of a matrix."""

  features: int
  kernel_init: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    kernel = parameter(self, 'kernel', self.kernel_init, (x.shape[0], self.features), jnp.float32)
    bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,), jnp.float32)
    return kernel.astype(self.dtype).T @ x + bias.astype(self.dtype)[:, None]


class ExternalSpatialAttention(nn.Module):
  """Spatial attention whose key mixes rows and whose value mixes columns.

  The MESFF paper's eq. 3, F = (Q^T K)^T V per channel: Q [H,W] is the input, K acts along H, V
  along W, each "an activation and two linear layers, independent of the input, shared by samples"
  (after external attention, Guo et al., TPAMI 2023). The cost is linear in the pixels.

  These words can be read in two ways. 'mlp': K and V are the layers themselves, applied to Q. Their
  parameters do not depend on Q, but the result is not linear in Q. 'matrix': the layers make
  matrices K and V, which multiply Q as eq. 3 prints it. The parameters are the same.

  Attributes:
    size: H = W of the input, fixed by the parameters.
    hidden: memory size of key and value.
    memory: 'mlp' or 'matrix', see above.
    kernel_init: of all kernels.
    dtype: of the computation; parameters are float32.
  """

  size: int
  hidden: int = 64
  memory: Literal['mlp', 'matrix'] = 'mlp'
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,size,size,C] -> the same.

    Raises:
      ValueError: another height or width, or an unknown memory.
    """
    if self.memory not in ('mlp', 'matrix'):
      raise ValueError(f"memory {self.memory!r} must be 'mlp' or 'matrix'")
    if x.shape[1:3] != (self.size, self.size):
      raise ValueError(
        f'external attention of size {self.size} got {x.shape[1]} x {x.shape[2]}: resize first'
      )
    for axis, name in ((1, 'key'), (2, 'value')):
      linear = self.memory == 'matrix'
      x = AxisMLP(axis, self.hidden, linear, self.kernel_init, self.dtype, name=name)(x)
    return x
