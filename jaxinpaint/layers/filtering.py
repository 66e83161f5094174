"""Predictive filtering: every pixel has its own filter kernel.

Guo et al., "JPGNet: Joint Predictive Filtering and Generative Network for Image Inpainting", ACM
Multimedia 2021, eq. 1; Li et al., "MISF: Multi-level Interactive Siamese Filtering", CVPR 2022,
eq. 1.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def predicted_kernel_filter(
  x: jax.Array, kernels: jax.Array, size: int, rates: Sequence[int] = (1,)
) -> jax.Array:
  """out[y,x,c] = sum over (row, col) of kernels[y,x,c,row,col] * x[y+row', x+col', c].

  row' = (row - size//2) * rate, and col' likewise; outside the image is zero. The kernels are used
  as given: no softmax, no normalisation.

  Args:
    x: [B,H,W,C].
    kernels: [B,H,W,C*size*size]; channel c*size*size + row*size + col.
    size: side of the kernels, odd.
    rates: distances between taps; one filtering for each.

  Returns:
    [B,H,W,C*len(rates)]: the results of the rates side by side.

  Raises:
    ValueError: the kernels have another number of channels or pixels, or `size` is even.
  """
  b, h, w, c = x.shape
  if size % 2 == 0:
    raise ValueError(f"the kernels' side {size} must be odd")
  if kernels.shape != (b, h, w, c * size**2):
    raise ValueError(
      f'kernels of shape {kernels.shape} must be {(b, h, w, c * size**2)} to filter '
      f'{x.shape} by {size} x {size} taps'
    )
  # The derivative of a split is one concatenation; nine slices would each be padded and added.
  taps = jnp.moveaxis(kernels.reshape(b, h, w, c, size**2), -1, 0)
  taps = [tap[0] for tap in lax.split(taps, [1] * size**2)]
  return jnp.concatenate([_filter(x, taps, size, rate) for rate in rates], -1)


def _filter(x: jax.Array, taps: list[jax.Array], size: int, rate: int) -> jax.Array:
  """A sum of shifted slices: no patches are gathered, forward or backward."""
  _, h, w, _ = x.shape
  reach = size // 2 * rate
  padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  out = jnp.zeros_like(x)
  for tap in range(size**2):
    row, column = tap // size * rate, tap % size * rate
    out += taps[tap] * padded[:, row : row + h, column : column + w]
  return out
