"""Pixel losses. Every mean runs over all batch, row, column and channel entries unless said."""

import jax
import jax.numpy as jnp
import numpy as np


def absolute(x: jax.Array) -> jax.Array:
  """|x| in float32 with derivative sign(x), which is 0 where x is 0.

  `jnp.abs` has derivative 1 there, and exact ties are common: 8-bit pictures, ReLU features.
  """
  x = x.astype(jnp.float32)
  return x * jax.lax.stop_gradient(jnp.sign(x))


def l1(
  pred: jax.Array,
  target: jax.Array,
  mask: jax.Array | None = None,
  *,
  over_mask_mean: bool = False,
  hole_weight: float = 1.0,
  valid_weight: float = 1.0,
) -> jax.Array:
  """Mean absolute error over every pixel, hole or not.

  Args:
    pred: [B, H, W, C].
    target: [B, H, W, C].
    mask: [B, H, W, 1], 1 = hole; only the options below use it.
    over_mask_mean: divide by mean(mask) over the batch (EdgeConnect, MISF). A batch without any
      hole, where those divide by zero, is left undivided.
    hole_weight: factor of the pixels in the hole (the mean still divides by all pixels).
    valid_weight: factor of the known pixels.

  Returns:
    f32[].
  """
  difference = absolute(pred.astype(jnp.float32) - target.astype(jnp.float32))
  if hole_weight != 1.0 or valid_weight != 1.0:
    m = _needed(mask).astype(jnp.float32)
    difference = difference * (hole_weight * m + valid_weight * (1 - m))
  loss = difference.mean()
  if over_mask_mean:
    share = _needed(mask).astype(jnp.float32).mean()
    loss = loss / jnp.where(share > 0, share, 1.0)
  return loss


def l2(pred: jax.Array, target: jax.Array) -> jax.Array:
  """Mean squared error over every pixel, f32[]."""
  return jnp.square(pred.astype(jnp.float32) - target.astype(jnp.float32)).mean()


def spatial_discount_mask(height: int, width: int, gamma: float = 0.9) -> np.ndarray:
  """Weights of hole pixels by their distance to the border (Yu et al., CVPR 2018, section 4.3).

  weight[i, j] = max(gamma ** min(i, height - i), gamma ** min(j, width - j)), as in the released
  code: the distance to the nearest border decides, row 0 weighs 1 and row height - 1 weighs gamma.

  Args:
    height: of the hole's bounding box.
    width: of the hole's bounding box.
    gamma: 0.9 in the paper.

  Returns:
    f32[height, width, 1] in (0, 1].
  """
  rows, columns = (gamma ** np.minimum(np.arange(n), n - np.arange(n)) for n in (height, width))
  return np.maximum(rows[:, None], columns[None, :]).astype(np.float32)[..., None]


def _needed(mask: jax.Array | None) -> jax.Array:
  if mask is None:
    raise ValueError('this form of the loss weighs hole and known pixels: pass mask')
  return mask
