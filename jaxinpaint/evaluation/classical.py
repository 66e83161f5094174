"""Fills without learning, the floor that a network has to beat, with a predictor's signature.

  (image f32[B,H,W,3] in [0,1], mask f32[B,H,W,1] 1 = hole, ids i32[B]) -> f32[B,H,W,3]

Telea: "An image inpainting technique based on the fast marching method", 2004. Navier-Stokes:
Bertalmio et al., "Navier-Stokes, fluid dynamics, and image and video inpainting", CVPR 2001. Both
are OpenCV's, on 8-bit RGB.
"""

from collections.abc import Callable

import cv2
import numpy as np

from jaxinpaint import arrays

Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# Pixels around a pixel that OpenCV's fills take into account; 3 is what its tutorial uses.
RADIUS = 3


def mean_fill(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """Fills each image's hole with the mean colour of its known pixels (gray where none is known)."""
  known = 1.0 - np.asarray(mask, np.float64)
  count = known.sum((1, 2), keepdims=True)
  mean = (known * image).sum((1, 2), keepdims=True) / np.maximum(count, 1)
  mean = np.where(count > 0, mean, 0.5)
  return np.where(mask > 0, mean, image).astype(np.float32)


def telea(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """OpenCV's INPAINT_TELEA with radius 3."""
  return _opencv(image, mask, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """OpenCV's INPAINT_NS with radius 3."""
  return _opencv(image, mask, cv2.INPAINT_NS)


def _opencv(image: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
  outputs = []
  for x, m in zip(np.asarray(image), np.asarray(mask), strict=True):
    hole = (m[..., 0] > 0).astype(np.uint8)
    filled = cv2.inpaint(arrays.to_uint8(x), hole, RADIUS, method)
    outputs.append(np.where(m > 0, filled / np.float32(255), x))
  return np.stack(outputs).astype(np.float32)


PREDICTORS: dict[str, Predictor] = {
  'mean fill': mean_fill,
  'Telea': telea,
  'Navier-Stokes': navier_stokes,
}
