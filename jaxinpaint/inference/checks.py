"""What a user gives: images, masks and options, checked; every mistake becomes a sentence."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxinpaint.masks import files as mask_files


class InpaintError(ValueError):
  """Input that cannot be inpainted; the message says what is wrong and what to do."""


@contextlib.contextmanager
def as_inpaint_error() -> Iterator[None]:
  """Around what raises ValueError for an option that is out of range."""
  try:
    yield
  except ValueError as error:
    raise InpaintError(str(error)) from error


def check_image(image: np.ndarray) -> np.ndarray:
  """The image as an array, checked to be [H, W, 3], uint8 or float in [0, 1].

  Raises:
    InpaintError: it is not; the message says how to convert it. NaN counts as out of range.
  """
  image = np.asarray(image)
  if image.ndim != 3 or image.shape[-1] != 3:
    hint = ': repeat the grey channel' if image.ndim == 2 or image.shape[-1] == 1 else ''
    raise InpaintError(f'image has the shape {image.shape}, wanted is [H, W, 3] in RGB{hint}')
  if not image.size:
    raise InpaintError(f'image has the shape {image.shape}: it has no pixels')
  if image.dtype == np.uint8:
    return image
  if not np.issubdtype(image.dtype, np.floating):
    raise InpaintError(
      f'image has the type {image.dtype}, wanted is uint8, or float in [0, 1]: convert it '
      "(uint16: image.astype('float32') / 65535)"
    )
  return image


def check_range(image: np.ndarray, hole: np.ndarray) -> None:
  """Raises InpaintError where a known pixel of a float image is not in [0, 1]."""
  if image.dtype == np.uint8:
    return
  if not ((image >= 0) & (image <= 1))[~hole].all():
    known = image[~hole]
    raise InpaintError(
      f'float image has values from {known.min():.4g} to {known.max():.4g}, wanted is [0, 1]: '
      'divide by 255, or give uint8'
    )


def check_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """bool[H, W], True = hole, of a mask as `Inpainter.__call__` takes it.

  Raises:
    InpaintError: the size is not the image's, or the values are not those of a mask.
  """
  mask = np.asarray(mask)
  if mask.ndim == 3 and mask.shape[-1] == 1:
    mask = mask[..., 0]
  if mask.ndim != 2:
    raise InpaintError(f'mask has the shape {mask.shape}, wanted is [H, W] or [H, W, 1]')
  if mask.shape != tuple(size):
    raise InpaintError(
      f'mask is {mask.shape[0]} x {mask.shape[1]} (rows x columns), the image {size[0]} x {size[1]}'
      ': make them equal, resizing the mask by nearest neighbour'
    )
  if mask.dtype == bool:
    return mask
  hole = mask_files.two_levels(mask[..., None])
  if hole is not None:
    return hole
  low, high = mask.min(), mask.max()
  if np.issubdtype(mask.dtype, np.floating):
    if not (low >= 0 and high <= 1):
      raise InpaintError(
        f'float mask has values from {low:.4g} to {high:.4g}, wanted is [0, 1] with 1 in the hole'
      )
    return mask > 0.5
  if not np.issubdtype(mask.dtype, np.integer) or low < 0 or high > 255:
    raise InpaintError(
      f'mask of type {mask.dtype} has values from {low} to {high}, wanted are booleans, floats in '
      '[0, 1] or integers up to 255'
    )
  return mask > (127 if high > 1 else 0)


def masks_for(images: list, mask: Any, single: bool) -> list:
  """A mask for each image, of what `Inpainter.__call__` was given; a single image has one.

  Raises:
    InpaintError: there are more or fewer masks than images.
  """
  if single:
    return [mask]
  if not images:
    return []
  if not isinstance(mask, (list, tuple)):
    mask = np.asarray(mask)
    one_for_all = mask.ndim == 2 or mask.shape == (*np.shape(images[0])[:2], 1)
    mask = [mask] * len(images) if one_for_all else list(mask)
  if len(mask) != len(images):
    raise InpaintError(f'{len(images)} images but {len(mask)} masks: give one each, or one for all')
  return list(mask)
