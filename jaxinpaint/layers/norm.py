"""Normalisation; statistics are always float32."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.parameters import parameter


def instance_norm(x: jax.Array, eps: float = 1e-5) -> jax.Array:
  """Gives each channel of each sample zero mean and unit variance over H and W.

  Ulyanov et al., "Instance Normalization", 2016, eq. 1, as PyTorch's InstanceNorm2d without affine
  parameters and running statistics.

  Args:
    x: [B,H,W,C], any float dtype.
    eps: added to the variance, which is biased (divided by H*W).

  Returns:
    [B,H,W,C] in the dtype of `x`; the computation is float32.
  """
  y = x.astype(jnp.float32)
  mean = y.mean((1, 2), keepdims=True)
  y -= mean
  variance = jnp.square(y).mean((1, 2), keepdims=True)
  return (y * jax.lax.rsqrt(variance + eps)).astype(x.dtype)


class InstanceNorm(nn.Module):
  """`instance_norm` with a learned 'scale' [C] and 'bias' [C], as PyTorch's with affine=True.

  Attributes:
    scale_init: of the scale; the bias starts at zero.
    dtype: of the result; statistics and parameters are float32.
  """

  scale_init: Any = nn.initializers.ones
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C] in `dtype`."""
    c = x.shape[-1]
    y = instance_norm(x.astype(jnp.float32)) * parameter(self, 'scale', self.scale_init, (c,))
    return (y + parameter(self, 'bias', nn.initializers.zeros, (c,))).astype(self.dtype)


class CurrentBatchNorm(nn.Module):
  """Batch norm without running statistics: it always uses those of its input.

  Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1; parameters 'scale' [C] and
  'bias' [C].

  Attributes:
    eps: added to the variance, which is biased.
    dtype: of the result; statistics and parameters are float32.
    scale_init: of the scale; the bias starts at zero.
  """

  eps: float = 1e-5
  dtype: Any = jnp.float32
  scale_init: Any = nn.initializers.ones

  @nn.compact
  def __call__(self, x: jax.Array, *, over_batch: bool) -> jax.Array:
    """[B,...,C] -> [B,...,C] in `dtype`.

    `over_batch`: one mean and variance of a channel for all samples; otherwise one for each sample,
    as a batch of that sample alone would give.
    """
    c = x.shape[-1]
    axes = tuple(range(0 if over_batch else 1, x.ndim - 1))
    y = x.astype(jnp.float32)
    y -= y.mean(axes, keepdims=True)
    y *= jax.lax.rsqrt(jnp.square(y).mean(axes, keepdims=True) + self.eps)
    y = y * parameter(self, 'scale', self.scale_init, (c,))
    return (y + parameter(self, 'bias', nn.initializers.zeros, (c,))).astype(self.dtype)


def normal_scale_init(
  key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
  """N(1, 0.02): the GAN convention for the scales of batch norm, beside `conv.normal_init`."""
  return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def batch_norm(
  name: str, train: bool, dtype: Any, scale_init: Any = nn.initializers.ones
) -> nn.BatchNorm:
  """PyTorch's BatchNorm2d: eps 1e-5, running statistics move by a tenth of the difference.

  PyTorch's running variance uses the unbiased estimate, n / (n - 1) times the one used here.
  """
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=0.9,
    epsilon=1e-5,
    dtype=dtype,
    scale_init=scale_init,
    use_fast_variance=False,  # the fast one is the difference of two large numbers
    name=name,
  )
