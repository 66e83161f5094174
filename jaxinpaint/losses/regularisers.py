"""Losses that ask for smooth pictures."""

import jax
import jax.numpy as jnp

from jaxinpaint.losses.reconstruction import absolute


def total_variation(image: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Mean absolute difference of neighbours, down plus right (anisotropic total variation).

  Args:
    image: [B, H, W, C]; for inpainting the composited picture.
    mask: [B, H, W, 1] (1 = hole): only neighbours inside the hole grown by one pixel count, the
      region of Liu et al. (ECCV 2018, eq. 6); the mean still divides by all neighbours.

  Returns:
    f32[].
  """
  x = image.astype(jnp.float32)
  down, right = absolute(x[:, 1:] - x[:, :-1]), absolute(x[:, :, 1:] - x[:, :, :-1])
  if mask is not None:
    m = mask.astype(jnp.float32)
    grown = jax.lax.reduce_window(m, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME')
    down = down * grown[:, 1:] * grown[:, :-1]
    right = right * grown[:, :, 1:] * grown[:, :, :-1]
  return down.mean() + right.mean()
