"""Images as arrays: ranges, padding, compositing, and resizing as each framework does it.

Everything here works on `[..., H, W, C]` and is pure, so that it can run on the host (numpy in,
jax array out) or inside a compiled step. Outside a system's own folder an image is float32 in
[0, 1] and a mask is float32 with 1 in the hole.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

PadMode = Literal['reflect', 'symmetric']
# Of red, green and blue over ImageNet, as torchvision's networks take them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def standardise(image: jax.Array) -> jax.Array:
  """f32[...,3] in [0, 1] -> minus ImageNet's mean, divided by its deviation, of each channel."""
  return (image - jnp.asarray(IMAGENET_MEAN)) / jnp.asarray(IMAGENET_STD)


def to_float(image: jax.Array) -> jax.Array:
  """uint8 [0, 255] -> float32 [0, 1]; float arrays pass as float32 unchanged."""
  if image.dtype == jnp.uint8:
    return image.astype(jnp.float32) / 255.0
  return image.astype(jnp.float32)


def to_uint8(image: np.ndarray, rounding: str = 'nearest') -> np.ndarray:
  """float [0, 1] -> uint8, clipped; the host's side of `to_float`.

  Args:
    image: any shape.
    rounding: 'nearest', or 'truncate': to the next lower level, as codes that cast do. A value
      within a thousandth of a level counts as that level, so that `to_float` is undone by both.

  >>> to_uint8(np.array([-0.1, 0.5, 1.2])).tolist()
  [0, 128, 255]
  >>> to_uint8(np.array([0.5]), 'truncate').tolist()
  [127]
  """
  offset = {'nearest': 0.5, 'truncate': 1e-3}[rounding]
  return (np.clip(np.asarray(image, np.float32), 0.0, 1.0) * 255.0 + offset).astype(np.uint8)


def compose(pred: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
  """Pastes `pred` into the hole of `image`.

  Args:
    pred: f32[..., H, W, C], the network's whole output.
    image: f32[..., H, W, C], the known picture; what it holds inside the hole is ignored.
    mask: f32[..., H, W, 1], 1 = hole.

  Returns:
    f32[..., H, W, C] that equals `image` to the bit wherever mask is 0. A mask between 0 and 1
    blends.

  >>> known, filled = np.full((1, 2, 1), 0.25), np.ones((1, 2, 1))
  >>> compose(filled, known, np.array([[[0], [1]]])).ravel().tolist()
  [0.25, 1.0]
  """
  return jnp.where(mask == 0, image, pred * mask + image * (1 - mask))


def padded_size(height: int, width: int, multiple: int, min_side: int = 0) -> tuple[int, int]:
  """The smallest multiples of `multiple` that are not below these sides or `min_side`.

  >>> padded_size(100, 128, 32)
  (128, 128)
  >>> padded_size(20, 30, 8, min_side=64)
  (64, 64)
  """
  up = lambda n: -(-max(n, min_side, 1) // multiple) * multiple
  return up(height), up(width)


def pad_to_multiple(x: np.ndarray, multiple: int, min_side: int = 0) -> np.ndarray:
  """`pad` to `padded_size`.

  Args:
    x: [..., H, W, C].
    multiple: both sides become multiples of it.
    min_side: and at least this long.
  """
  return pad(x, *padded_size(*x.shape[-3:-1], multiple, min_side))


def pad(x: np.ndarray, rows: int, columns: int, mode: PadMode = 'reflect') -> np.ndarray:
  """[..., H, W, C] with so many rows and columns, by reflection at the bottom and right.

  A side shorter than its padding is reflected several times; a side of one pixel is repeated.
  'symmetric' repeats the last row and column in the mirror, 'reflect' does not.
  """
  height, width = x.shape[-3:-1]
  widths = [(0, 0)] * (x.ndim - 3) + [(0, rows - height), (0, columns - width), (0, 0)]
  return np.pad(x, widths, mode=mode)


def middle_square(x: np.ndarray, largest: int | None = None) -> np.ndarray:
  """The centre square [n,n,...] of [H,W,...], of the short side or `largest`, if that is less."""
  top, left, side = middle_window(*x.shape[:2], largest)
  return x[top : top + side, left : left + side]


def middle_window(height: int, width: int, largest: int | None = None) -> tuple[int, int, int]:
  """(top, left, n) of `middle_square`: it begins at (H - n) // 2, (W - n) // 2."""
  side = min(height, width) if largest is None else min(height, width, largest)
  return (height - side) // 2, (width - side) // 2, side


def check_multiple(height: int, width: int, multiple: int, min_side: int = 0) -> None:
  """Raises ValueError with what to do when a network cannot take an image of this size."""
  for name, n in (('height', height), ('width', width)):
    if n % multiple or n < min_side:
      want = f'a multiple of {multiple}' + (f' and at least {min_side}' if min_side else '')
      raise ValueError(
        f'image {name} {n} must be {want}: pad it with '
        f'arrays.pad_to_multiple(image, {multiple}, {min_side})'
      )


def numpy_of(*sizes: int) -> Any:
  """numpy, to compute with sizes while a function is traced; jax.numpy for symbolic ones.

  Sizes are symbolic (`jax.export.symbolic_shape`) in a program that is exported for any size.
  """
  return np if all(isinstance(n, int) for n in sizes) else jnp


def _interpolation_matrix(size_in: int, size_out: int, align_corners: bool) -> Any:
  """f32[size_out, size_in]: row i holds the two weights of output sample i (no antialias)."""
  xp = numpy_of(size_in, size_out)
  i = xp.arange(size_out)[:, None]
  # Sample i lies at over / under, whole numbers, so that float32 is enough for what remains.
  if align_corners:
    over, under = i * (size_in - 1), xp.maximum(size_out - 1, 1)
  else:
    over, under = xp.maximum((2 * i + 1) * size_in - size_out, 0), 2 * size_out
  low = xp.minimum(over // under, size_in - 1)
  share = (over - low * under) / under
  at = xp.arange(size_in)
  beyond = xp.minimum(low + 1, size_in - 1)
  return ((at == low) * (1 - share) + (at == beyond) * share).astype(np.float32)


def resize_bilinear(
  x: jax.Array, height: int, width: int, *, align_corners: bool = False
) -> jax.Array:
  """Bilinear resizing without antialiasing, as PyTorch's `interpolate(mode='bilinear')`.

  Args:
    x: [..., H, W, C].
    height: rows of the result.
    width: columns of the result.
    align_corners: PyTorch's flag of that name (False: half-pixel centres).
  """
  if x.shape[-3] != height:
    rows = jnp.asarray(_interpolation_matrix(x.shape[-3], height, align_corners), x.dtype)
    x = jnp.einsum('oi,...iwc->...owc', rows, x, precision='highest')
  if x.shape[-2] != width:
    columns = jnp.asarray(_interpolation_matrix(x.shape[-2], width, align_corners), x.dtype)
    x = jnp.einsum('oi,...hic->...hoc', columns, x, precision='highest')
  return x


def resize_nearest(x: jax.Array, height: int, width: int) -> jax.Array:
  """Nearest neighbour by floor(i * in / out), as PyTorch's 'nearest' and OpenCV's INTER_NEAREST."""
  pick = lambda n, size: numpy_of(n, size).arange(size) * n // size
  rows, columns = pick(x.shape[-3], height), pick(x.shape[-2], width)
  return x[..., rows, :, :][..., columns, :]


def adaptive_avg_pool(x: jax.Array, height: int, width: int) -> jax.Array:
  """Means over windows that divide the picture as PyTorch's AdaptiveAvgPool2d does.

  Window i of n rows out of `height` spans rows floor(i * n / height) to ceil((i+1) * n / height),
  the last excluded, so windows overlap where the division leaves a rest.

  Args:
    x: [..., H, W, C].
    height: rows of the result.
    width: columns of the result.
  """
  rows = jnp.asarray(_window_means(x.shape[-3], height), x.dtype)
  columns = jnp.asarray(_window_means(x.shape[-2], width), x.dtype)
  x = jnp.einsum('oi,...iwc->...owc', rows, x, precision='highest')
  return jnp.einsum('oi,...hic->...hoc', columns, x, precision='highest')


def _window_means(size_in: int, size_out: int) -> np.ndarray:
  """f32[size_out, size_in]: row i is 1 / n on the n samples of window i."""
  matrix = np.zeros((size_out, size_in), np.float32)
  for i in range(size_out):
    low, high = i * size_in // size_out, -(-(i + 1) * size_in // size_out)
    matrix[i, low:high] = 1 / (high - low)
  return matrix
