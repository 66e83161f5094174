"""Reads image files of every common kind as uint8 RGB.

OpenCV decodes plain JPEG, the usual kind in data sets. Pillow decodes everything else (PNG, WebP,
BMP, TIFF, CMYK, 16 bits, palettes, alpha) and every damaged file. Both rotate the picture by its
EXIF orientation and give the same pixels. Colour profiles are ignored.
"""

import io
import os
import pathlib

import cv2
import numpy as np
from absl import logging
from PIL import Image, ImageOps

# The pipeline has its own threads and processes; OpenCV's threads would compete with them.
cv2.setNumThreads(0)

EXTENSIONS = ('.jpg', '.jpeg', '.jpe', '.png', '.webp', '.bmp', '.tif', '.tiff')


class UnreadableImage(ValueError):
  """A file that is not an image, is damaged or does not exist; has `.path` and `.why`."""

  def __init__(self, path: str | os.PathLike, why: str):
    super().__init__(str(path), str(why))
    self.path, self.why = str(path), str(why)

  def __str__(self) -> str:
    return f'{self.path}: {self.why}'


def read_bytes(path: str | os.PathLike) -> bytes:
  """The file's content; raises UnreadableImage if it is empty or missing."""
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UnreadableImage(path, error.strerror or str(error)) from error
  if not data:
    raise UnreadableImage(path, 'the file is empty (0 bytes)')
  return data


def read_image(path: str | os.PathLike) -> np.ndarray:
  """Reads an image file of any mode.

  Grayscale is repeated to three channels. Alpha is composited on white, as viewers show it (the
  colour of a transparent pixel is arbitrary). CMYK is converted. 16 bits are scaled by 255/65535,
  not stretched to the image's own range. The first frame of an animation is taken.

  Returns:
    uint8[H, W, 3], RGB, upright.

  Raises:
    UnreadableImage: no such file, not an image, or damaged (truncated files included).
  """
  return decode(read_bytes(path), path)


def decode(data: bytes, path: str | os.PathLike = '(bytes)') -> np.ndarray:
  """`read_image` from the file's content; `path` is for the error message only."""
  if _is_plain_jpeg(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is not None:
      return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
  return to_rgb(open_upright(data, path), path)


def open_upright(data: bytes, path: str | os.PathLike = '(bytes)') -> Image.Image:
  """The decoded Pillow image in its own mode, turned by its EXIF orientation."""
  # Pillow's plugins raise many kinds of errors (IndexError, struct.error, ...) on damaged files.
  # The caller gets one kind, with the original as its cause.
  try:
    image = Image.open(io.BytesIO(data))
    image.load()
  except Exception as error:
    deep = (
      cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if _is_tiff(data) else None
    )
    if deep is None:
      raise UnreadableImage(path, f'not a readable image ({_reason(error)})') from error
    # TIFF with three 16-bit channels, which Pillow does not know.
    return Image.fromarray(_eight_bits_bgr(deep))
  try:
    return ImageOps.exif_transpose(image)
  except Exception as error:  # a damaged EXIF block does not make the picture unreadable
    logging.warning('%s: EXIF ignored, it is damaged (%s)', path, _reason(error))
    return image


def to_rgb(image: Image.Image, path: str | os.PathLike = '(image)') -> np.ndarray:
  """A Pillow image of any mode to uint8[H, W, 3] (rules: `read_image`)."""
  try:
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
      grey = eight_bits(np.asarray(image))
      return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
      rgba = image.convert('RGBA')
      white = Image.new('RGBA', rgba.size, (255, 255, 255, 255))
      image = Image.alpha_composite(white, rgba)
    return np.array(image.convert('RGB'))
  except Exception as error:
    raise UnreadableImage(path, f'mode {image.mode} cannot be converted ({error})') from error


def eight_bits(x: np.ndarray) -> np.ndarray:
  """Any depth as uint8: integers above 255 are 16-bit; floats are [0, 1], or [0, 255] if larger."""
  if x.dtype == np.uint8:
    return x
  if np.issubdtype(x.dtype, np.floating):
    x = np.nan_to_num(x.astype(np.float64))
    top = 255.0 if x.max(initial=0) <= 1.0 else 1.0
    return (np.clip(x * top, 0, 255) + 0.5).astype(np.uint8)
  x = np.clip(x.astype(np.int64), 0, None)
  # Pillow's mode 'I' holds 16-bit files as int32, and 8-bit ones too.
  if x.dtype != np.uint8 and x.max(initial=0) > 255:
    x = (np.minimum(x, 65535) + 128) // 257
  return x.astype(np.uint8)


def _eight_bits_bgr(x: np.ndarray) -> np.ndarray:
  """OpenCV's array of any depth and channel count to uint8 RGB or RGBA."""
  if x.dtype == np.uint16:
    x = ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)
  x = eight_bits(x)
  if x.ndim == 2:
    return x
  return cv2.cvtColor(x, cv2.COLOR_BGRA2RGBA if x.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _reason(error: Exception) -> str:
  return 'no known image format' if type(error).__name__ == 'UnidentifiedImageError' else str(error)


def _is_tiff(data: bytes) -> bool:
  return data[:4] in (b'II*\0', b'MM\0*')


def _is_plain_jpeg(data: bytes) -> bool:
  """A whole JPEG of one or three 8-bit components: what OpenCV decodes as Pillow does.

  OpenCV silently fills the missing part of a truncated file with grey, so a file without its end
  marker is left to Pillow.
  """
  if data[:2] != b'\xff\xd8' or data[-64:].rstrip(b'\0')[-2:] != b'\xff\xd9':
    return False
  at = 2
  while at + 10 <= len(data):
    if data[at] != 0xFF:
      return False
    marker = data[at + 1]
    if marker == 0xFF:  # padding
      at += 1
    elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
      return data[at + 4] == 8 and data[at + 9] in (1, 3)
    elif marker in (0xD8, 0xD9, 0xDA):
      return False
    else:
      at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
  return False
