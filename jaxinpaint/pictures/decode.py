"""The one reader of image files, for training, evaluation, masks and inference.

`stored` gives a file's samples as they are; `decode` and `read_image` give uint8 RGB. The rules:

  orientation   EXIF's (in TIFF the tag's), in every format. An XMP packet's is not read.
  white         from the file: 255 for 8 bits, 65535 for 16 bits and 32-bit integers, 1 for floats;
                never from the picture's own values.
  profiles      are ignored.
  size          up to a limit in megapixels, `megapixel_limit`; Pillow's own limits do not hold.

simplejpeg decodes plain JPEG, the usual kind in data sets; OpenCV does what simplejpeg refuses, all
JPEG where simplejpeg is not installed, and 16-bit colour. Both have libjpeg-turbo inside and give
the same bits. Pillow decodes everything else and every truncated file, with the same pixels where
OpenCV can do it too.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from jaxinpaint.pictures import metadata

try:
  import simplejpeg
except ImportError:  # pip builds it where it has no wheel, which may fail: OpenCV is enough
  simplejpeg = None

# The pipeline has its own threads and processes; OpenCV's threads would compete with them.
cv2.setNumThreads(0)

EXTENSIONS = ('.jpg', '.jpeg', '.jpe', '.png', '.webp', '.bmp', '.tif', '.tiff')

# libjpeg computes a JPEG at 1 / r of its sides for these r, from some frequencies of each block.
_REDUCED = {
  1: cv2.IMREAD_COLOR,
  2: cv2.IMREAD_REDUCED_COLOR_2,
  4: cv2.IMREAD_REDUCED_COLOR_4,
  8: cv2.IMREAD_REDUCED_COLOR_8,
}
REDUCTIONS = tuple(_REDUCED)

# The environment holds the limit, so that worker processes have it too.
LIMIT_VARIABLE = 'JAXINPAINT_MAX_MEGAPIXELS'
_MEGAPIXELS = 200.0
_TEXT_BYTES = 256 << 20  # of one file's texts and profile, unpacked: a bomb ends here


class UnreadableImage(ValueError):
  """A file that is not an image, is damaged or does not exist; has `.path` and `.why`."""

  def __init__(self, path: str | os.PathLike, why: str):
    super().__init__(str(path), str(why))
    self.path, self.why = str(path), str(why)

  def __str__(self) -> str:
    return f'{self.path}: {self.why}'


@dataclasses.dataclass(frozen=True)
class Stored:
  """What a file holds.

  Attributes:
    path: for messages.
    samples: [H, W] or [H, W, C] as stored, not turned (but TIFF: upright); uint8, uint16, int32 or
      float32.
    mode: L, LA, RGB, RGBA, CMYK, I;16, I, F, RGB;16, RGBA;16 or RGB;F; palettes are resolved to
      RGB(A), bilevel to L.
    orientation: EXIF's, 1 to 8, which is still to be applied.
    image: Pillow's, with its info; None for a TIFF that only OpenCV can read.
    frames: how many pictures the file has; the first one was taken.
    tags: of a TIFF, as an EXIF block without those that say how pixels are stored.
  """

  path: str
  samples: np.ndarray
  mode: str
  orientation: int
  image: Image.Image | None = None
  frames: int = 1
  tags: bytes = b''

  @property
  def white(self) -> float:
    """The value of a white sample."""
    return white(self.samples)

  def eight_bits(self) -> Image.Image:
    """The upright picture in mode L, LA, RGB, RGBA or CMYK.

    Raises:
      UnreadableImage: the samples are beyond black and white.
    """
    check_range(self.samples, self.path)
    x = self.samples
    if x.dtype == np.uint16:
      x = ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif x.dtype != np.uint8:
      x = (x * (255 / self.white) + 0.5).astype(np.uint8)
    mode = self.mode.partition(';')[0]
    return pillow(turn(x, self.orientation), {'I': 'L', 'F': 'L'}.get(mode, mode))


def white(samples: np.ndarray) -> float:
  """The value of a white sample of this type; 32-bit integers hold 16 bits, as Pillow's do."""
  return {'u1': 255.0, 'f4': 1.0}.get(samples.dtype.str[1:], 65535.0)


def check_range(samples: np.ndarray, path: str | os.PathLike) -> None:
  """Raises UnreadableImage for samples that are not finite or not between black and white."""
  if samples.dtype in (np.uint8, np.uint16):
    return
  if not np.isfinite(samples).all():
    raise UnreadableImage(path, 'it holds values that are not finite; replace them first')
  low, high, top = samples.min(), samples.max(), white(samples)
  if low < 0 or high > top:
    kind = 'float' if samples.dtype == np.float32 else '32-bit integer'
    raise UnreadableImage(
      path,
      f'its values run from {low:.6g} to {high:.6g}, but in a {kind} picture 0 is black and '
      f'{top:.6g} is white; scale them first',
    )


def megapixel_limit() -> float:
  """Larger pictures are refused by name: 200, or what `--max_megapixels` or the variable says."""
  return float(os.environ.get(LIMIT_VARIABLE) or _MEGAPIXELS)


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
  colour of a transparent pixel is arbitrary). CMYK is converted. More than 8 bits are scaled by the
  file's own white, not stretched to the image's own range. The first frame of an animation is
  taken.

  Returns:
    uint8[H, W, 3], RGB, upright.

  Raises:
    UnreadableImage: no such file, not an image, damaged (truncated files included), or larger than
      `megapixel_limit`.
  """
  return decode(read_bytes(path), path)


def decode(data: bytes, path: str | os.PathLike = '(bytes)') -> np.ndarray:
  """`read_image` from the file's content; `path` is for the error message only."""
  jpeg = plain_jpeg(data, path)
  if jpeg:
    image = jpeg.samples()
    if image is not None:
      return np.ascontiguousarray(turn(image, jpeg.orientation))
  content = stored(data, path)
  if content.mode == 'RGB':
    return np.ascontiguousarray(turn(content.samples, content.orientation))
  return to_rgb(content.eight_bits())


@dataclasses.dataclass(frozen=True)
class PlainJpeg:
  """A JPEG of `plain_jpeg`, not decoded yet.

  Attributes:
    data: the file's content.
    size: (height, width) as stored.
    orientation: EXIF's, 1 to 8, which is still to be applied.
  """

  data: bytes = dataclasses.field(repr=False)
  size: tuple[int, int]
  orientation: int

  def samples(self, reduction: int = 1) -> np.ndarray | None:
    """uint8[ceil(H / reduction), ceil(W / reduction), 3] RGB, not turned; None: it is damaged.

    Args:
      reduction: of REDUCTIONS. Sample [i, j] is of the picture's square of `reduction` pixels that
        begins at (i, j) * reduction: nearly the mean over it.
    """
    # simplejpeg is no faster at a reduced scale, and of a few pixels it takes another one.
    if simplejpeg is not None and reduction == 1:
      # It refuses what libjpeg warns of, and rare samplings; OpenCV decodes some of these.
      with contextlib.suppress(ValueError, MemoryError):
        return simplejpeg.decode_jpeg(self.data, 'RGB')
    image = _opencv(self.data, _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def plain_jpeg(data: bytes, path: str | os.PathLike = '(bytes)') -> PlainJpeg | None:
  """The JPEG in a file's content, if OpenCV decodes it as Pillow does; else None.

  That is a whole JPEG of one or three 8-bit components. OpenCV silently fills the missing part of a
  truncated file with grey, so a file without its end marker is left to Pillow.

  Raises:
    UnreadableImage: it is larger than `megapixel_limit`.
  """
  found = _jpeg_size_and_orientation(data)
  if found is None:
    return None
  _check_size(path, *found[0])
  return PlainJpeg(data, *found)


def to_rgb(image: Image.Image) -> np.ndarray:
  """A Pillow image of 8 bits to uint8[H, W, 3] (rules: `read_image`)."""
  if image.has_transparency_data:
    rgba = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', rgba.size, 'white'), rgba)
  return np.array(image.convert('RGB'))


def stored(data: bytes, path: str | os.PathLike = '(bytes)') -> Stored:
  """The content of an image file of any kind.

  Raises:
    UnreadableImage: not an image, damaged, or larger than `megapixel_limit`.
  """
  path = str(path)
  # Pillow's plugins raise many kinds of errors (IndexError, struct.error, ...) on damaged files.
  # The caller gets one kind, with the original as its cause.
  try:
    with _pillows_limits_lifted():
      image = Image.open(io.BytesIO(data))
      _check_size(path, *image.size[::-1])
      frames = getattr(image, 'n_frames', 1)
      tiff, tags = image.format == 'TIFF', b''
      xmp = _without_xmp(image)
      if tiff:
        # Pillow turns a TIFF when it loads it; its tags are not available after that.
        turned = _orientation(image)
        tags = metadata.tiff_tags(image)
      image.load()
      xmp = _without_xmp(image) or xmp
    if xmp:
      image.info['xmp'] = xmp
    orientation = 1 if tiff else _orientation(image)
    depth, colour = metadata.png_depth(data)
    bits = set(image.tag_v2.get(258, ())) if tiff else set()
    if (depth == 16 and colour in (2, 4, 6)) or (bits == {16} and len(image.getbands()) > 1):
      samples, mode = _deep_colour(data, path)
      samples = np.ascontiguousarray(turn(samples, turned)) if tiff else samples
    else:
      samples, mode = _samples(image)
      if bits == {12}:  # the writers have no such depth
        samples = samples << 4 | samples >> 8
  except UnreadableImage:
    raise
  except MemoryError as error:
    raise UnreadableImage(path, 'there is not enough memory for its pixels') from error
  except Exception as error:
    if data[:4] in (b'II*\0', b'MM\0*'):  # TIFF with three 16-bit or float channels apart
      with contextlib.suppress(UnreadableImage):
        return Stored(path, *_deep_colour(data, path), metadata.orientation(data))
    raise UnreadableImage(path, _why(error)) from error
  return Stored(path, samples, mode, orientation, image, frames, tags)


def size_of(path: str | os.PathLike) -> tuple[int, int]:
  """(height, width) of an image as it will be decoded, from the header of its file.

  Raises:
    UnreadableImage: the file has no header of an image.
  """
  return _size_of(path, path, lambda: read_bytes(path), None)[1]


def header(
  data: bytes, path: str | os.PathLike, formats: Sequence[str] | None = None
) -> tuple[str, tuple[int, int]]:
  """(Pillow's name of the format, size as of `size_of`) from a file's content; no pixel is decoded.

  Args:
    data: the content.
    path: for the error message only.
    formats: those that are tried, by Pillow's names; None: all.

  Raises:
    UnreadableImage: there is no header of an image of these formats.
  """
  return _size_of(io.BytesIO(data), path, lambda: data, formats)


def _size_of(
  source: str | os.PathLike | BinaryIO,
  path: str | os.PathLike,
  content: Callable[[], bytes],
  formats: Sequence[str] | None,
) -> tuple[str, tuple[int, int]]:
  try:
    if formats is not None:
      Image.init()  # else Pillow does not know all of them
    with _pillows_limits_lifted(), Image.open(source, formats=formats) as image:
      if image.format == 'TIFF':
        width, height = image.tag_v2[256], image.tag_v2[257]
      else:
        width, height = image.size
      if image.format == 'PNG' and 'exif' not in image.info:  # it may follow the pixels
        chunks = metadata.png_chunks(content())
        image.info['exif'] = next((c for kind, c in chunks if kind == b'eXIf'), b'')
      turned = _orientation(image) > 4
      return image.format or '', (width, height) if turned else (height, width)
  except Exception as error:  # Pillow raises many kinds of errors for damaged files
    raise UnreadableImage(path, _why(error)) from error


def turn(x: np.ndarray, orientation: int) -> np.ndarray:
  """A stored array [H, W, ...], rotated upright by its EXIF orientation."""
  return {
    1: lambda: x,
    2: lambda: x[:, ::-1],
    3: lambda: x[::-1, ::-1],
    4: lambda: x[::-1],
    5: lambda: x.swapaxes(0, 1),
    6: lambda: x[::-1].swapaxes(0, 1),
    7: lambda: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda: x[:, ::-1].swapaxes(0, 1),
  }[orientation]()


def pillow(samples: np.ndarray, mode: str) -> Image.Image:
  """A Pillow image with exactly these samples."""
  height, width = samples.shape[:2]
  if mode == 'I;16':
    samples = samples.astype('<u2')
  return Image.frombytes(mode, (width, height), np.ascontiguousarray(samples).tobytes())


_lifting = threading.Lock()
_lifted: list[tuple[int | None, int, int]] = []


@contextlib.contextmanager
def _pillows_limits_lifted() -> Iterator[None]:
  """Pillow's limits of pixels and text are module variables; the last reader puts them back."""
  with _lifting:
    own = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    _lifted.append(_lifted[0] if _lifted else own)
    _set_limits(None, _TEXT_BYTES, _TEXT_BYTES)
  try:
    yield
  finally:
    with _lifting:
      own = _lifted.pop()
      if not _lifted:
        _set_limits(*own)


def _set_limits(pixels: int | None, chunk: int, text: int) -> None:
  Image.MAX_IMAGE_PIXELS = pixels
  PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = chunk, text


def _check_size(path: str | os.PathLike, height: int, width: int) -> None:
  megapixels, limit = height * width / 1e6, megapixel_limit()
  if megapixels > limit:
    raise UnreadableImage(
      path,
      f'its {width} x {height} pixels are {megapixels:.0f} megapixels, more than the limit of '
      f'{limit:g}; if the memory is enough for it, pass --max_megapixels={int(megapixels) + 1}',
    )


def _without_xmp(image: Image.Image) -> bytes:
  """Takes the XMP packet out of an image's info, where Pillow would look for an orientation."""
  packets = [image.info.pop(name, b'') for name in ('xmp', 'XML:com.adobe.xmp')]
  packet = packets[0] or packets[1]
  return packet.encode() if isinstance(packet, str) else bytes(packet)


def _orientation(image: Image.Image) -> int:
  """EXIF's orientation, 1 to 8, of an image that was opened."""
  if image.format == 'TIFF':
    turned = image.tag_v2.get(274, 1)
    return turned if turned in range(1, 9) else 1
  block = image.info.get('exif', b'')
  raw = image.info.get('Raw profile type exif')
  if raw and not block:  # PNG of ImageMagick: name and length, then hexadecimal digits
    block = bytes.fromhex(''.join(raw.split('\n')[3:]))
  return metadata.orientation(block)


def _samples(image: Image.Image) -> tuple[np.ndarray, str]:
  mode = image.mode
  if mode.startswith('I;16'):
    return np.asarray(image).astype(np.uint16), 'I;16'
  if mode == '1':
    mode = 'L'
  elif image.has_transparency_data:
    mode = 'LA' if mode in ('L', 'LA', 'La') else 'RGBA'
  elif mode not in ('L', 'RGB', 'CMYK', 'I', 'F'):
    mode = 'RGB'
  return np.array(image if mode == image.mode else image.convert(mode)), mode


def _deep_colour(data: bytes, path: str) -> tuple[np.ndarray, str]:
  """An image of colours with more than 8 bits, which Pillow would reduce or cannot read."""
  if data[:4] in (b'II*\0', b'MM\0*'):
    data = metadata.set_upright(data)  # OpenCV would rotate the picture
  else:
    data = metadata.without_png_metadata(data)  # libpng has limits, of which it tells on stderr
  deep = _opencv(data, cv2.IMREAD_UNCHANGED)
  types = {'uint16': ';16', 'float32': ';F', 'uint8': ''}
  if deep is None or deep.dtype.name not in types or deep.ndim != 3 or deep.shape[2] not in (3, 4):
    raise UnreadableImage(path, 'this kind of 16-bit image cannot be read; save it as 16-bit RGB')
  order = [2, 1, 0, 3][: deep.shape[2]]
  mode = ('RGB' if len(order) == 3 else 'RGBA') + types[deep.dtype.name]
  return np.ascontiguousarray(deep[..., order]), mode


def _opencv(data: bytes, flags: int) -> np.ndarray | None:
  try:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  except cv2.error:  # beyond OpenCV's own limits of size
    return None


def _why(error: Exception) -> str:
  if isinstance(error, Image.UnidentifiedImageError):
    return 'not a readable image (no known image format); save it as PNG'
  if 'MAX_TEXT' in str(error):
    return f'its texts or profile take more than {_TEXT_BYTES >> 20} MB; save it without them'
  return f'not a readable image ({error}); restore it, or save it anew'


def _jpeg_size_and_orientation(data: bytes) -> tuple[tuple[int, int], int] | None:
  """Of `plain_jpeg`: (height and width as stored, orientation)."""
  if data[:2] != b'\xff\xd8' or data[-64:].rstrip(b'\0')[-2:] != b'\xff\xd9':
    return None
  at, exif = 2, b''
  while at + 10 <= len(data):
    if data[at] != 0xFF:
      return None
    marker = data[at + 1]
    if marker == 0xFF:  # padding
      at += 1
      continue
    if marker in (0xD8, 0xD9, 0xDA):
      return None
    segment = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], 'big')]
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
      if segment[0] != 8 or segment[5] not in (1, 3):
        return None
      size = int.from_bytes(segment[1:3], 'big'), int.from_bytes(segment[3:5], 'big')
      return size, metadata.orientation(exif)
    if marker == 0xE1 and segment.startswith(b'Exif\0\0') and not exif:
      exif = segment
    at += 4 + len(segment)
  return None
