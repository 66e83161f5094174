"""How a picture becomes a square of the wanted size: crops, and kernels by name.

Papers rarely name the kernel that reduced their test images, but PSNR and SSIM depend on it: a
blurred image is easier to restore than an aliased one.
"""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from jaxinpaint import arrays

# 'center': the centre square, resized. 'window': the middle size x size pixels at the picture's own
# scale, as 'center' where a side is shorter. 'resize': the whole picture, stretched to a square.
CROPS = ('center', 'window', 'resize')


def square(
  image: np.ndarray, size: int, *, crop: str = 'center', kernel: str = 'area'
) -> np.ndarray:
  """uint8[H, W, 3] -> uint8[size, size, 3].

  Args:
    image: RGB.
    size: side of the result.
    crop: one of CROPS; see `arrays.middle_square`.
    kernel: one of KERNELS; a picture that already has the size is returned unchanged.
  """
  if crop != 'resize':
    image = arrays.middle_square(image, size if crop == 'window' else None)
  if image.shape[:2] == (size, size):
    return image
  return KERNELS[kernel](np.ascontiguousarray(image), size, size)


def known_only(
  image: np.ndarray, hole: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Resizes an image without mixing known pixels with the hole.

  Along an axis that gets smaller each pixel is the mean of its area, along others it lies between
  its two neighbours.

  Args:
    image: f32[H, W, 3], 0 in the hole.
    hole: bool[H, W].
    height: of the result.
    width: of the result.

  Returns:
    f32[height, width, 3], means over the known pixels alone, and bool[height, width], True where a
    hole was touched.
  """
  known = _linear((~hole).astype(np.float32), height, width)
  total = _linear(np.ascontiguousarray(image), height, width)
  small_hole = known < 1 - 1e-4
  small = np.where(small_hole[..., None], np.float32(0), total / np.maximum(known, 1e-6)[..., None])
  return small.astype(np.float32), small_hole


def _linear(x: np.ndarray, height: int, width: int) -> np.ndarray:
  if (height - x.shape[0]) * (width - x.shape[1]) < 0:
    # OpenCV's INTER_AREA takes no mean along either axis if one of them gets larger.
    return _linear(_linear(x, height, x.shape[1]), height, width)
  smaller = height * width < x.shape[0] * x.shape[1]
  method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
  return cv2.resize(x, (width, height), interpolation=method)


def area(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """The mean over each pixel's area where the picture gets smaller, else bicubic (OpenCV's)."""
  smaller = height * width < image.shape[0] * image.shape[1]
  method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
  return cv2.resize(image, (width, height), interpolation=method)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Between the four nearest pixels, half-pixel centres, no antialiasing: it may alias.

  PyTorch's `interpolate(mode='bilinear', align_corners=False)`, rounded to nearest; OpenCV's
  INTER_LINEAR up to its fixed-point weights.
  """
  exact = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
  return (exact + 0.5).astype(np.uint8)


def _pillow(method: Image.Resampling) -> Callable[[np.ndarray, int, int], np.ndarray]:
  return lambda image, height, width: np.asarray(
    Image.fromarray(image).resize((width, height), method)
  )


# name: (uint8[H, W, 3], height, width) -> uint8[height, width, 3]. Pillow widens a kernel by the
# factor of the reduction, as torchvision's 'antialias' and scipy's old imresize do.
KERNELS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
  'area': area,
  'bilinear': bilinear,
  'bilinear_antialias': _pillow(Image.Resampling.BILINEAR),
  'bicubic_antialias': _pillow(Image.Resampling.BICUBIC),
  'lanczos': _pillow(Image.Resampling.LANCZOS),
}
