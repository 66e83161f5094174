"""Losses on features of a frozen network (Gatys et al., 2016; Johnson et al., 2016), in float32.

Features are dicts {layer: [B, h, w, c]}, as `features.vgg.apply` returns them.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxinpaint.losses.reconstruction import absolute

Features = Mapping[str, jax.Array]


def gram_matrix(x: jax.Array) -> jax.Array:
  """Channel correlations F F^T / (C * H * W).

  Args:
    x: [B, H, W, C].

  Returns:
    f32[B, C, C].
  """
  b, h, w, c = x.shape
  flat = x.astype(jnp.float32).reshape(b, h * w, c)
  return jnp.einsum('bnc,bnd->bcd', flat, flat, precision='highest') / (c * h * w)


def perceptual(pred: Features, target: Features, layers: Sequence[str]) -> jax.Array:
  """Sum over layers of the mean absolute difference of features, f32[]."""
  difference = lambda k: pred[k].astype(jnp.float32) - target[k].astype(jnp.float32)
  return jnp.stack([absolute(difference(k)).mean() for k in layers]).sum()


def style(pred: Features, target: Features, layers: Sequence[str]) -> jax.Array:
  """Sum over layers of the mean absolute difference of Gram matrices, f32[]."""
  terms = [absolute(gram_matrix(pred[k]) - gram_matrix(target[k])).mean() for k in layers]
  return jnp.stack(terms).sum()
