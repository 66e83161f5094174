"""Squares cut from pictures for training, `config.data.crop`.

`crop` cuts from a decoded picture. `crop_file` does the same from a file, and decodes a JPEG at a
half, a quarter or an eighth of its sides where the square is reduced by so much anyway
(`config.data.reduced_decode`): large photographs are read in less time. Both draw the same squares.
"""

import os

import numpy as np

from jaxinpaint import arrays
from jaxinpaint.data import distortions, resizing
from jaxinpaint.pictures import decode

KINDS = ('center', 'random', 'random_resized', 'resize', 'distorted')
_OWN_SCALE = ('random', 'distorted')  # kinds that do not reduce pictures

# A picture that has to be enlarged for such a crop is cut to so many times its short side first:
# enlarging a picture of 1 x 40,000 pixels to a short side of 256 would take 8 GB.
_LONGEST = 8

Window = tuple[int, int, int, int]  # top, left, height, width


def crop(image: np.ndarray, size: int, kind: str, rng: np.random.Generator) -> np.ndarray:
  """A size x size picture out of a larger or smaller one.

  Args:
    image: uint8[H, W, 3].
    size: side of the result.
    kind: 'center': the centre square, resized. 'random': a window of size x size of the image as it
      is; an image with a shorter side is enlarged until it fits, and of one longer than 8 to 1 only
      a random piece of 8 to 1. 'random_resized': a square window whose side is uniform between size
      (or the short side, if that is less) and the short side, resized. 'resize': the whole image,
      stretched to a square. 'distorted': as 'random', of a distorted picture (`distortions`).
    rng: not used by 'center' and 'resize'.

  Returns:
    uint8[size, size, 3]. Reducing is by area, enlarging bicubic.
  """
  if kind in _OWN_SCALE and min(image.shape[:2]) < size:
    image = _enlarged(image, size, rng)
  if kind == 'distorted':
    return distortions.crop(image, size, rng)
  return _cut(image, _window(*image.shape[:2], size, kind, rng), size)


def crop_file(
  data: bytes, path: str | os.PathLike, size: int, kind: str, rng: np.random.Generator
) -> np.ndarray:
  """`crop` of an image file, whose pixels are not all decoded if that makes no visible difference.

  A JPEG is decoded at 1 / r of its sides, r = 8, 4 or 2, where a window still has size x size
  pixels then; 'random' and 'distorted' keep the picture's own scale. The window's edges are moved
  to multiples of r: by r / 2 pixels at most, which is less than half a pixel of the result.

  Args:
    data: the file's content.
    path: for errors.
    size: side of the result.
    kind: of KINDS.
    rng: as `crop` uses it.

  Returns:
    uint8[size, size, 3].

  Raises:
    UnreadableImage: of `decode.decode`.
  """
  jpeg = decode.plain_jpeg(data, path)
  if jpeg is None or kind in _OWN_SCALE:
    return crop(decode.decode(data, path), size, kind, rng)
  height, width = jpeg.size[::-1] if jpeg.orientation > 4 else jpeg.size
  window = _window(height, width, size, kind, rng)
  reduction = max(r for r in decode.REDUCTIONS if r == 1 or min(window[2:]) // r >= size)
  samples = jpeg.samples(reduction) if reduction > 1 else None
  if samples is None:
    return _cut(decode.decode(data, path), window, size)
  top, left, height, width = _reduced(
    _as_stored(window, *jpeg.size, jpeg.orientation), *samples.shape[:2], reduction
  )
  part = decode.turn(samples[top : top + height, left : left + width], jpeg.orientation)
  return resize(part, size, size)


def _window(height: int, width: int, size: int, kind: str, rng: np.random.Generator) -> Window:
  """The part of a picture of height x width that becomes the square; see `crop`."""
  if kind == 'resize':
    return 0, 0, height, width
  if kind == 'center':
    top, left, side = arrays.middle_window(height, width)
    return top, left, side, side
  short = min(height, width)
  side = size if kind == 'random' else int(rng.integers(min(size, short), short, endpoint=True))
  top = int(rng.integers(0, height - side, endpoint=True))
  left = int(rng.integers(0, width - side, endpoint=True))
  return top, left, side, side


def _cut(image: np.ndarray, window: Window, size: int) -> np.ndarray:
  top, left, height, width = window
  return resize(image[top : top + height, left : left + width], size, size)


def _as_stored(window: Window, height: int, width: int, orientation: int) -> Window:
  """A window of the upright picture in the stored one of height x width: undoes `decode.turn`."""
  top, left, rows, columns = window
  if orientation > 4:
    top, left, rows, columns = left, top, columns, rows
  if orientation in (3, 4, 6, 7):
    top = height - top - rows
  if orientation in (2, 3, 7, 8):
    left = width - left - columns
  return top, left, rows, columns


def _reduced(window: Window, height: int, width: int, reduction: int) -> Window:
  """A window in the picture of height x width at 1 / reduction, in whole pixels and within it."""
  top, left, rows, columns = ((n + reduction // 2) // reduction for n in window)
  return min(top, height - rows), min(left, width - columns), rows, columns


def _enlarged(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
  """With a short side of `size`, for crops at the picture's own scale."""
  short = min(image.shape[:2])
  image = _piece(image, _LONGEST * short, rng)
  scale = size / short
  height, width = (max(size, round(n * scale)) for n in image.shape[:2])
  return resize(image, height, width)


def _piece(image: np.ndarray, longest: int, rng: np.random.Generator) -> np.ndarray:
  """At most `longest` pixels of the long side, at a uniform place; no draw if it is no longer."""
  if max(image.shape[:2]) <= longest:
    return image
  start = int(rng.integers(0, max(image.shape[:2]) - longest, endpoint=True))
  place = slice(start, start + longest)
  return image[place] if image.shape[0] > image.shape[1] else image[:, place]


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8[H, W, 3] to another size: by area where that reduces it, else bicubic."""
  if image.shape[:2] == (height, width):
    return image
  return resizing.area(np.ascontiguousarray(image), height, width)
