"""An image as it was given and as a network sees it: reduced, and its completion enlarged again."""

from collections.abc import Hashable

import cv2
import numpy as np

from jaxinpaint import arrays
from jaxinpaint.data import resizing
from jaxinpaint.inference import blend as blend_lib


class Job:
  """One image: as given, and as the network sees it."""

  def __init__(
    self, key: Hashable, number: int, image: np.ndarray, hole: np.ndarray, max_side: int | None
  ):
    self.key, self.number, self.image, self.hole = key, number, image, hole
    # Blank, so that nothing inside the hole, such as NaN, can reach the result.
    known = image if image.dtype == np.float32 else arrays.to_float(image)
    blank = np.where(hole[..., None], np.float32(0), known)
    self.small, self.small_hole = blank, hole
    if max_side is not None and max(hole.shape) > max_side:
      self.small, self.small_hole = shrink(blank, hole, max_side)

  def filling(self, output: np.ndarray, blend: str) -> np.ndarray:
    """The network's output at the image's size, of which the hole matters."""
    if self.small_hole.shape != self.hole.shape:
      # Outside the hole `output` is the network's input, so that enlarging mixes the completion
      # with known pixels along the border.
      height, width = self.hole.shape
      output = cv2.resize(output, (width, height), interpolation=cv2.INTER_CUBIC)
    if blend == 'poisson':
      output = np.clip(output, 0.0, 1.0)
      output = blend_lib.poisson(arrays.to_float(self.image), output, self.hole)
    return output


def shrink(image: np.ndarray, hole: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
  """Reduces an image so that its long side is `max_side`; the hole does not mix with known pixels.

  Args:
    image: f32[H, W, 3], 0 in the hole.
    hole: bool[H, W].
    max_side: the new long side.

  Returns:
    f32[h, w, 3], the mean over the known pixels of each area, and bool[h, w], True where the area
    touches the hole.
  """
  return resizing.known_only(image, hole, *reduced_size(*hole.shape, max_side))


def reduced_size(height: int, width: int, max_side: int | None) -> tuple[int, int]:
  """(height, width) of an image once its long side is at most `max_side`; None: unchanged."""
  if max_side is None or max(height, width) <= max_side:
    return height, width
  scale = max_side / max(height, width)
  return max(1, round(height * scale)), max(1, round(width * scale))
