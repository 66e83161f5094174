"""Normalisation without parameters; statistics are always float32."""

import jax
import jax.numpy as jnp


def instance_norm(x: jax.Array, eps: float = 1e-5) -> jax.Array:
  """Each sample's channel to zero mean and unit variance over H and W.

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
