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


def strong(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Local contrast, brightness and contrast, and hue, saturation and value, as LaMa is trained.

  Each of the three happens to one half of the pictures, which is ours, as is the strength of the
  first: it is equalised in 8 x 8 parts of the brightness, clipped at 1 to 4 times the mean.
  Contrast changes by a factor of up to 1 +- 0.2, brightness by up to 0.2 of the range, hue by up to
  10 degrees, saturation by up to 30 and value by up to 5 of 255.
  """
  if rng.random() < 0.5:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(rng.uniform(1, 4), (8, 8)).apply(lab[..., 0])
    image = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
  x = image.astype(np.float32) / 255
  if rng.random() < 0.5:
    contrast, brightness = rng.uniform(-0.2, 0.2, 2)
    x = np.clip(x * (1 + contrast) + brightness, 0, 1, dtype=np.float32)
  if rng.random() < 0.5:
    hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-10, 10)) % 360
    for channel, amount in ((1, 30), (2, 5)):
      change = rng.uniform(-amount, amount) / 255
      hsv[..., channel] = np.clip(hsv[..., channel] + change, 0, 1)
    x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
  return (x * 255 + 0.5).astype(np.uint8)


def permute(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Permutes red, green and blue at random."""
  return image[..., rng.permutation(3)]


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
  'keep': lambda image, rng: image,
  'jitter': jitter,
  'permute': permute,
  'strong': strong,
}
