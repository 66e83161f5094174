"""Distorted squares cut from pictures for training: `config.data.crop='distorted'`.

Perspective, turn, scale, shear, a lens, and then a window, as LaMa is trained (Suvorov et al., WACV
2022). The amounts of perspective, scale, turn and shear are those of the authors' configuration.
The unit of shear and the lens are ours, and that one half of the pictures keep their perspective,
and one half are not turned. Pixels are interpolated once, for the window alone, and what lies
outside of the picture is its mirror image.
"""

import cv2
import numpy as np

PERSPECTIVE = 0.06  # of a side, by which corners move at most in the mean
SCALE = (0.7, 1.3)
DEGREES = 40.0
SHEAR = 0.1  # columns move by so much of a row
LENS = 0.05  # of the distance from the centre, one picture width away from it
SHARE = 0.5  # of pictures that a change happens to


def crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
  """A window of a distorted picture.

  Args:
    image: uint8[H, W, 3], both sides at least `size`.
    size: side of the window.
    rng: draws the distortion and the window.

  Returns:
    uint8[size, size, 3].
  """
  height, width = image.shape[:2]
  back = np.eye(3)  # from distorted to original coordinates
  if rng.random() < SHARE:
    back = _perspective(height, width, rng)
  if rng.random() < SHARE:
    back = back @ _affine(height, width, rng)
  lens = rng.uniform(-LENS, LENS)
  top, left = (int(rng.integers(0, n - size, endpoint=True)) for n in (height, width))
  y, x = np.mgrid[top : top + size, left : left + size].astype(np.float64)
  x, y = x - (width - 1) / 2, y - (height - 1) / 2
  stretch = 1 + lens * (x**2 + y**2) / width**2
  points = np.stack([x * stretch + (width - 1) / 2, y * stretch + (height - 1) / 2], -1)
  where = cv2.perspectiveTransform(points, back).astype(np.float32)
  return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _perspective(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
  """A quadrilateral within the picture becomes the picture."""
  corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
  moved = np.abs(rng.normal(0, rng.uniform(0, PERSPECTIVE), (4, 2))).clip(0, 0.4)
  inside = np.where(corners > 0, corners - moved, moved).astype(np.float32)
  side = np.array([width - 1, height - 1], np.float32)
  return cv2.getPerspectiveTransform(corners * side, inside * side)


def _affine(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
  """The inverse of a scale, turn and shear about the centre."""
  scale, shear = rng.uniform(*SCALE), rng.uniform(-SHEAR, SHEAR)
  angle = np.deg2rad(rng.uniform(-DEGREES, DEGREES))
  turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  change = np.linalg.inv(scale * turn @ np.array([[1, shear], [0, 1]]))
  centre = np.array([width - 1, height - 1]) / 2
  whole = np.eye(3)
  whole[:2, :2], whole[:2, 2] = change, centre - change @ centre
  return whole
