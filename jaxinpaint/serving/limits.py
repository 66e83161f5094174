"""What a request may send, checked before a pixel is decoded."""

import dataclasses

from jaxinpaint.pictures import decode

# Pillow has more readers, some of which start other programs or are hardly tried.
READ = ('PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF', 'GIF')
# {a format's name in a request: the writer's}.
WRITTEN = {'png': 'PNG', 'jpg': 'JPEG', 'webp': 'WEBP', 'bmp': 'BMP', 'tif': 'TIFF'}
MEDIA_TYPES = {
  'PNG': 'image/png',
  'JPEG': 'image/jpeg',
  'WEBP': 'image/webp',
  'BMP': 'image/bmp',
  'TIFF': 'image/tiff',
}


LEAST_SIDE = 64  # of `Limits.max_side`, and of a request's


@dataclasses.dataclass(frozen=True)
class Limits:
  """How much is taken; the defaults are for a machine with 8 GB of memory.

  Attributes:
    bytes: of a request's body.
    megapixels: of a picture, and of a mask.
    waiting: jobs that wait for the worker.
    held_bytes: bodies that are being received or wait, and results that were not fetched, together.
    job_seconds: that a job may run, with its compilation.
    body_seconds: in which a body has to arrive.
    keep_seconds: that a result waits to be fetched.
    max_side: the longest side that a network sees. Longer pictures are filled in windows around
      their holes (`inference.strategies`), none longer than this. At least `LEAST_SIDE`; None: they
      are filled whole.
    pad_to: sizes are padded to multiples of it where a request allows it.
    sizes: programs that are kept compiled.
  """

  bytes: int = 64 << 20
  megapixels: float = 50.0
  waiting: int = 32
  held_bytes: int = 512 << 20
  job_seconds: float = 300.0
  body_seconds: float = 60.0
  keep_seconds: float = 300.0
  max_side: int | None = 1024
  pad_to: int = 64
  sizes: int = 32


class TooLarge(ValueError):
  """A body or a picture beyond the limits; the message says by how much."""


def check_header(data: bytes, name: str, limits: Limits) -> tuple[int, int]:
  """(height, width) of a picture that may be decoded, from its header.

  Args:
    data: the content of its file.
    name: for messages.
    limits: of the server.

  Raises:
    UnreadableImage: there is no header of a picture of the formats `READ`.
    TooLarge: it has too many pixels.
  """
  if not data:
    raise decode.UnreadableImage(name, 'the file is empty (0 bytes)')
  _, (height, width) = decode.header(data, name, READ)
  megapixels = height * width / 1e6
  if megapixels > limits.megapixels:
    raise TooLarge(
      f'{name}: its {width} x {height} pixels are {megapixels:.0f} megapixels, more than the limit '
      f'of {limits.megapixels:g}: make it smaller'
    )
  return height, width
