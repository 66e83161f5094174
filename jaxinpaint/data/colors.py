"""Colour changes for training samples, `config.data.colors`.

Each takes (uint8[H, W, 3] RGB, rng) and returns the same kind of array. The known and the hidden
part of a picture change in the same way.
"""

from collections.abc import Callable

import cv2
import numpy as np

JITTER = 0.05


def _grey(image: np.ndarray) -> np.ndarray:
  return image @ np.array([0.299, 0.587, 0.114], np.float32)


def jitter(image: np.ndarray, rng: np.random.Generator, amount: float = JITTER) -> np.ndarray:
  """Brightness, contrast, saturation and hue, each a little and in random order.

  The first three blend with black, the mean grey and the grey picture by a factor uniform in
  1 +- amount; the hue turns by up to `amount` of a circle. This is torchvision's ColorJitter
  (AOT-GAN's settings, 0.05 for all four), without rounding in between.
  """
  x = image.astype(np.float32) / 255
  for kind in rng.permutation(4):
    change = rng.uniform(-amount, amount)
    if kind == 3:
      hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
      hsv[..., 0] = (hsv[..., 0] + 360 * change) % 360
      x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
      continue
    anchor = (0.0, _grey(x).mean(), _grey(x)[..., None])[kind]
    x = np.clip(x + change * (x - anchor), 0, 1, dtype=np.float32)
  return (x * 255 + 0.5).astype(np.uint8)


def permute(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Permutes red, green and blue at random."""
  return image[..., rng.permutation(3)]


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
  'keep': lambda image, rng: image,
  'jitter': jitter,
  'permute': permute,
}
