"""Masks that a person makes of one picture: from boxes, a colour, lines, text, another picture.

  hole = combined([boxes([(40, 30, 120, 60)], height, width), lines(image, 'white')])
  hole = dilated(hole, 4)
  shown = overlay(image, hole)

All take and give uint8[H,W] in {0,1}, 1 = hole; images are uint8[H,W,3]. Colours are compared in
CIELAB (1976), in which a distance of 2 or 3 is just seen and black is 100 from white.
"""

import csv
import io
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import ImageColor

from jaxinpaint import arrays

# Pixels (x, y) of a box's upper left corner and, beyond it, of its lower right one.
Box = tuple[float, float, float, float]
Quad = Sequence[tuple[float, float]]  # the corners (x, y) of a region of text, in order

LINES = ('white', 'black')
_BOX_KEYS = ('box', 'bbox', 'quad', 'points', 'polygon')
_OVERLAY = (255, 0, 64)


def boxes(given: Sequence[Box], height: int, width: int) -> np.ndarray:
  """Rectangles (x0, y0, x1, y1), the last two excluded, cut at the picture's rim.

  Raises:
    ValueError: one is empty, not finite, or wholly outside the picture.
  """
  mask = np.zeros((height, width), np.uint8)
  for box in given:
    name = ','.join(f'{value:g}' for value in box)
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
      raise ValueError(f'box {name} must be four numbers x0,y0,x1,y1')
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
      raise ValueError(f'box {name} is empty: x1 must be above x0, and y1 above y0')
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
      raise ValueError(f'box {name} is outside the picture of {width} x {height} pixels')
    top, left = math.floor(max(y0, 0)), math.floor(max(x0, 0))
    mask[top : math.ceil(y1), left : math.ceil(x1)] = 1
  return mask


def quads(given: Sequence[Quad], height: int, width: int) -> np.ndarray:
  """Polygons of three corners (x, y) or more, as text detectors give them, with their border.

  Raises:
    ValueError: one has fewer corners, or is wholly outside the picture.
  """
  mask = np.zeros((height, width), np.uint8)
  for quad in given:
    corners = np.asarray(quad, np.float64)
    name = ' '.join(f'{x:g},{y:g}' for x, y in corners)
    if len(corners) < 3 or not np.isfinite(corners).all():
      raise ValueError(f'region {name} must have at least three corners x,y')
    low, high = corners.min(0), corners.max(0)
    if (low >= (width, height)).any() or (high < 0).any():
      raise ValueError(f'region {name} is outside the picture of {width} x {height} pixels')
    cv2.fillPoly(mask, [corners.round().astype(np.int32)], 1)
  return mask


def colour(image: np.ndarray, wanted: str, tolerance: float = 12) -> np.ndarray:
  """The pixels whose colour is at most `tolerance` (CIELAB) from `wanted`: '#ff0000', 'white'.

  Raises:
    ValueError: no such colour, or a tolerance below 0.
  """
  if not tolerance >= 0:
    raise ValueError(f'tolerance {tolerance:g} must be at least 0')
  try:
    rgb = ImageColor.getrgb(wanted)[:3]
  except ValueError as error:
    raise ValueError(
      f"colour {wanted!r} is unknown: give '#rrggbb' or a name as 'white'"
    ) from error
  target = _lab(np.array([[rgb]], np.uint8))
  return (_distance(_lab(image), target) <= tolerance).astype(np.uint8)


def lines(
  image: np.ndarray, kind: str, width: int = 9, threshold: float = 10, length: int = 25
) -> np.ndarray:
  """Scratches: what is narrower than `width` pixels, and lighter or darker than its surroundings.

  A pixel counts whose lightness L* differs by `threshold` or more from that of the picture without
  anything so narrow: its morphological opening ('white') or closing ('black') with a disc. Of these
  pixels those count that lie on a straight line of `length` of them, in one of 32 directions, or
  touch one: stars, leaves and grain do not.

  Raises:
    ValueError: an unknown kind, or a number out of range.
  """
  if kind not in LINES:
    raise ValueError(f'lines {kind!r} must be one of: {", ".join(LINES)}')
  if width < 2 or not threshold > 0 or length < 1:
    raise ValueError(
      f'lines need a width of 2 or more ({width}), a threshold above 0 ({threshold:g}) and a '
      f'length of 1 or more ({length})'
    )
  lightness = _lab(image)[..., 0]
  disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
  how = cv2.MORPH_TOPHAT if kind == 'white' else cv2.MORPH_BLACKHAT
  narrow = (cv2.morphologyEx(lightness, how, disc) >= threshold).astype(np.uint8)
  straight = np.zeros_like(narrow)
  for angle in np.arange(32) * np.pi / 32:
    segment = np.zeros((length, length), np.uint8)
    middle, reach = (length - 1) / 2, (length - 1) / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = (np.rint(middle + sign * reach).astype(int).tolist() for sign in (-1, 1))
    cv2.line(segment, *ends, 1)
    straight |= cv2.morphologyEx(narrow, cv2.MORPH_OPEN, segment)
  return dilated(straight, 1) & narrow


def difference(
  image: np.ndarray, other: np.ndarray, threshold: float = 6, close: int = 3, specks: int = 4
) -> np.ndarray:
  """Where two pictures of one scene differ: with and without a caption, a scratch, a person.

  Args:
    image: uint8[H,W,3].
    other: of the same size.
    threshold: least difference of colours (CIELAB). Two JPEG files of one picture differ by some.
    close: gaps of up to about twice as many pixels are closed.
    specks: regions of fewer pixels are dropped, before that.

  Raises:
    ValueError: the sizes differ, or a number is out of range.
  """
  if image.shape != other.shape:
    sizes = ' and '.join(f'{x.shape[1]} x {x.shape[0]}' for x in (image, other))
    raise ValueError(f'the pictures are {sizes} pixels: only equal sizes can be compared')
  if not threshold > 0 or close < 0 or specks < 0:
    raise ValueError(f'threshold {threshold:g} must be above 0, close and specks at least 0')
  mask = (_distance(_lab(image), _lab(other)) >= threshold).astype(np.uint8)
  _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
  large = stats[:, cv2.CC_STAT_AREA] >= specks
  large[0] = False
  mask = large[labels].astype(np.uint8)
  return 1 - dilated(1 - dilated(mask, close), close)


def dilated(mask: np.ndarray, pixels: int) -> np.ndarray:
  """The mask and whatever is within so many pixels of it (Euclidean).

  Raises:
    ValueError: pixels below 0.
  """
  if pixels < 0:
    raise ValueError(f'dilate {pixels} must be at least 0')
  if not pixels or not mask.any():
    return mask
  far = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
  return (far <= pixels + 1e-3).astype(np.uint8)


def combined(added: Sequence[np.ndarray], subtracted: Sequence[np.ndarray] = ()) -> np.ndarray:
  """The union of masks, without those that are subtracted.

  Raises:
    ValueError: no mask is given, or their sizes differ.
  """
  if not added:
    raise ValueError('there is no mask to combine')
  result = np.zeros_like(added[0])
  for mask in (*added, *subtracted):
    if mask.shape != result.shape:
      sizes = ' and '.join(f'{x.shape[1]} x {x.shape[0]}' for x in (result, mask))
      raise ValueError(f'masks are {sizes} pixels: only equal sizes can be combined')
  for mask in added:
    result |= mask
  for mask in subtracted:
    result &= 1 - mask
  return result


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """uint8[H,W,3]: the picture, half covered by red in the hole, with a red border around it."""
  shown = image.copy()
  hole = mask > 0
  shown[hole] = (image[hole].astype(np.uint16) + np.array(_OVERLAY, np.uint16)) // 2
  border = (dilated(mask, 1 + max(image.shape[:2]) // 1000) > 0) & ~hole
  shown[border] = _OVERLAY
  return shown


def read_regions(path: str | os.PathLike) -> list[Quad]:
  """Regions of text from a file: of each one a box x0,y0,x1,y1 or corners x1,y1,x2,y2,x3,y3,...

  JSON: a list of lists of numbers, or of pairs, or of mappings with one of the keys box, bbox,
  quad, points or polygon. Any other file: a region in each line, numbers separated by commas; text
  after them is ignored, as is a first line without numbers.

  Raises:
    ValueError: a region that is none, with its number; none at all; or the file cannot be read.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_text(encoding='utf-8-sig')
    rows = json.loads(text) if path.suffix.lower() == '.json' else _rows(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is not JSON: {error}') from error
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is not text in UTF-8: save the regions as CSV or JSON') from error
  except OSError as error:
    why = error.strerror or error
    raise ValueError(f'the regions {path} cannot be read ({why}): correct the path') from error
  if not isinstance(rows, list) or not rows:
    raise ValueError(f'{path} holds no list of regions')
  return [_region(row, f'{path}, region {i + 1}') for i, row in enumerate(rows)]


def _rows(text: str) -> list[list[float]]:
  rows = []
  for cells in csv.reader(io.StringIO(text), quoting=csv.QUOTE_NONE):
    numbers: list[float] = []
    for cell in cells:
      if not _is_number(cell):
        break
      numbers.append(float(cell))
    # Of ICDAR's lines, x1,y1,...,x4,y4,text, the text may be a number.
    if numbers or (rows and any(cell.strip() for cell in cells)):
      rows.append(numbers[:8])
  return rows


def _is_number(cell: str) -> bool:
  try:
    return math.isfinite(float(cell))
  except ValueError:
    return False


def _region(row: Any, where: str) -> Quad:
  if isinstance(row, dict):
    key = next((key for key in _BOX_KEYS if key in row), None)
    if key is None:
      raise ValueError(f'{where} has none of the keys {", ".join(_BOX_KEYS)}')
    row = row[key]
  try:
    numbers = np.asarray(row, np.float64).ravel().tolist()
  except (TypeError, ValueError) as error:
    raise ValueError(f'{where} must be numbers, not {row!r}') from error
  if len(numbers) == 4:
    x0, y0, x1, y1 = numbers
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
  if len(numbers) < 6 or len(numbers) % 2:
    raise ValueError(f'{where} has {len(numbers)} numbers: give x0,y0,x1,y1 or corners x,y,x,y,x,y')
  return list(zip(numbers[::2], numbers[1::2], strict=True))


def _lab(image: np.ndarray) -> np.ndarray:
  """uint8[H,W,3], sRGB -> f32[H,W,3], CIELAB with L* in [0, 100]."""
  return cv2.cvtColor(np.asarray(arrays.to_float(image)), cv2.COLOR_RGB2LAB)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return np.linalg.norm(a - b, axis=-1)
