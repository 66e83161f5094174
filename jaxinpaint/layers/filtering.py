"""Predictive filtering: every pixel has its own filter kernel.

Guo et al., "JPGNet: Joint Predictive Filtering and Generative Network for Image Inpainting", ACM
Multimedia 2021, eq. 1; Li et al., "MISF: Multi-level Interactive Siamese Filtering", CVPR 2022,
eq. 1.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers import conv
from jaxinpaint.layers.smooth_fill import depth_to_space, space_to_depth


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
  _check(x, kernels, size, 1)
  b, h, w, c = x.shape
  # The derivative of a split is one concatenation; nine slices would each be padded and added.
  taps = jnp.moveaxis(kernels.reshape(b, h, w, c, size**2), -1, 0)
  taps = [tap[0] for tap in lax.split(taps, [1] * size**2)]
  return jnp.concatenate([_filter(x, taps, size, rate) for rate in rates], -1)


def filter_by_taps(
  x: jax.Array,
  kernels: jax.Array,
  size: int,
  rates: Sequence[int] = (1,),
  stem: int = 1,
  form: conv.Form | None = None,
) -> jax.Array:
  """`predicted_kernel_filter` of kernels whose channels lie tap by tap, which moves less memory.

  Args:
    x: [B,H,W,C].
    kernels: [B,H/stem,W/stem,size*size*stem*stem*C]: for each tap the channels of `space_to_depth`.
    size: side of the kernels, odd.
    rates: distances between taps; one filtering for each.
    stem: pixels of `x` along the side of one of `kernels`.
    form: 'plain', 'cpu' (a loop over taps: XLA's CPU code would compute the incoming gradient
      anew for every tap); None: `conv.default_form()`.

  Returns:
    [B,H,W,C*len(rates)].

  Raises:
    ValueError: as `predicted_kernel_filter`.
  """
  _check(x, kernels, size, stem)
  if (form or conv.default_form()) == 'cpu':
    results = [_loop(x, kernels, size, rate, stem) for rate in rates]
  else:
    taps = [depth_to_space(tap, stem) for tap in jnp.split(kernels, size**2, -1)]
    results = [_filter(x, taps, size, rate) for rate in rates]
  return jnp.concatenate(results, -1)


def _check(x: jax.Array, kernels: jax.Array, size: int, stem: int) -> None:
  if size % 2 == 0:
    raise ValueError(f"the kernels' side {size} must be odd")
  b, h, w, c = x.shape
  wanted = (b, h // stem, w // stem, c * (size * stem) ** 2)
  if kernels.shape != wanted:
    raise ValueError(
      f'kernels of shape {kernels.shape} must be {wanted} to filter '
      f'{x.shape} by {size} x {size} taps'
    )


def _filter(x: jax.Array, taps: Sequence[jax.Array], size: int, rate: int) -> jax.Array:
  """A sum of shifted slices: no patches are gathered, forward or backward."""
  _, h, w, _ = x.shape
  padded = _padded(x, size, rate)
  out = jnp.zeros_like(x)
  for tap in range(size**2):
    row, column = tap // size * rate, tap % size * rate
    out += taps[tap] * padded[:, row : row + h, column : column + w]
  return out


def _padded(x, size, rate):
  reach = size // 2 * rate
  return jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _loop(x: jax.Array, kernels: jax.Array, size: int, rate: int, stem: int) -> jax.Array:
  """As `_filter`, tap after tap."""
  padded = _padded(x, size, rate)

  def add(tap, out):
    start, (kernel, _) = _start(tap, size, rate), _tap(kernels, tap, size, stem)
    return out + kernel * lax.dynamic_slice(padded, start, x.shape)

  return lax.fori_loop(0, size**2, add, jnp.zeros_like(x))


def _loop_bwd(size, rate, stem, saved, g):
  x, kernels = saved
  padded = _padded(x, size, rate)

  def add(tap, gradients):
    of_padded, of_kernels = gradients
    start, (kernel, channel) = _start(tap, size, rate), _tap(kernels, tap, size, stem)
    seen = lax.dynamic_slice(of_padded, start, x.shape)
    of_padded = lax.dynamic_update_slice(of_padded, seen + kernel * g, start)
    of_tap = space_to_depth(g * lax.dynamic_slice(padded, start, x.shape), stem)
    return of_padded, lax.dynamic_update_slice(of_kernels, of_tap, (0, 0, 0, channel))

  none = jnp.zeros_like(padded), jnp.zeros_like(kernels)
  of_padded, of_kernels = lax.fori_loop(0, size**2, add, none)
  reach, (_, h, w, _) = size // 2 * rate, x.shape
  return of_padded[:, reach : reach + h, reach : reach + w], of_kernels


_loop.defvjp(lambda x, kernels, *_: (_loop(x, kernels, *_), (x, kernels)), _loop_bwd)


def _start(tap, size, rate):
  return 0, tap // size * rate, tap % size * rate, 0


def _tap(kernels, tap, size, stem):
  """(the kernels' values of a tap at every pixel, their first channel)."""
  channels = kernels.shape[-1] // size**2
  part = lax.dynamic_slice_in_dim(kernels, tap * channels, channels, -1)
  return depth_to_space(part, stem), tap * channels
