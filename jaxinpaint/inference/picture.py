"""One image file: its samples at their own depth, and everything needed to write it back.

The network sees an upright float RGB picture. The file gets its own samples back, with new ones
only in the hole. Samples are only converted if the file format cannot hold them.
"""

import dataclasses
import io
import os
import pathlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from absl import logging
from PIL import Image, PngImagePlugin

from jaxinpaint import arrays
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.pictures import decode, metadata
from jaxinpaint.pictures.decode import UnreadableImage, pillow, turn

FORMATS = {
  **{'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.jpe': 'JPEG', '.webp': 'WEBP'},
  **{'.bmp': 'BMP', '.tif': 'TIFF', '.tiff': 'TIFF'},
}
# The modes that each format holds without loss. '*;16' means 16 bits per channel.
_HOLDS = {
  'PNG': ('L', 'LA', 'RGB', 'RGBA', 'I;16', 'RGB;16', 'RGBA;16'),
  'JPEG': ('L', 'RGB', 'CMYK'),
  'WEBP': ('L', 'RGB', 'RGBA', 'LA'),
  'BMP': ('L', 'RGB', 'RGBA'),
  'TIFF': ('L', 'LA', 'RGB', 'RGBA', 'CMYK', 'I;16', 'I', 'F', 'RGB;16', 'RGBA;16'),
}
# Those of Pillow that the writers know, once palettes are resolved.
_MODES = (
  *('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'I', 'F'),
  *('I;16', 'I;16B', 'I;16L', 'I;16N'),
)
# Metadata that each format keeps, of those that `Picture.keep` and PNG's text may hold.
_KEEPS = {
  'PNG': ('exif', 'icc_profile', 'dpi', 'xmp', 'text'),
  'JPEG': ('exif', 'icc_profile', 'dpi', 'xmp', 'comment'),
  'WEBP': ('exif', 'icc_profile', 'xmp'),
  'BMP': ('dpi',),
  'TIFF': ('exif', 'icc_profile', 'dpi', 'xmp'),
}
_DEEP_TIFF_KEEPS = ('icc_profile',)  # tifffile writes these
_METADATA = {
  'exif': 'EXIF',
  'icc_profile': 'colour profile',
  'xmp': 'XMP',
  'comment': 'comment',
  'dpi': 'resolution',
  'text': 'text',
}
_MEANING = {
  'L': 'grey',
  'LA': 'grey with alpha',
  'RGBA': 'colour with alpha',
  'CMYK': 'CMYK',
  'I;16': '16-bit grey',
  'I': '32-bit grey',
  'F': 'float grey',
  'RGB;16': '16-bit colour',
  'RGBA;16': '16-bit colour with alpha',
}
_TIFF_SUBTABLES = {0x8769, 0x8825}  # EXIF and GPS
_TIFF_XMP = 700
_TIFF_LOSSLESS = ('raw', 'tiff_lzw', 'tiff_adobe_deflate', 'packbits')


@dataclasses.dataclass(frozen=True)
class Picture:
  """A decoded file.

  Attributes:
    path: the file.
    samples: [H, W] or [H, W, C] as stored, not rotated (but TIFF: upright); uint8, uint16, int32
      or float32.
    mode: of the samples, by Pillow's names; palettes are resolved to RGB(A), bilevel to L.
    format: of the file, a value of FORMATS; for other formats Pillow's name.
    orientation: EXIF's, 1 to 8.
    data: the file's content.
    keep: options for Pillow's writer that preserve metadata (exif, icc_profile, xmp, dpi, ...).
  """

  path: pathlib.Path
  samples: np.ndarray
  mode: str
  format: str
  orientation: int
  data: bytes
  keep: dict[str, Any]

  @property
  def size(self) -> tuple[int, int]:
    """(height, width) upright, as viewers show it."""
    return turn(self.samples, self.orientation).shape[:2]

  @property
  def stored_size(self) -> tuple[int, int]:
    """(height, width) as stored."""
    return self.samples.shape[:2]

  @property
  def alpha(self) -> np.ndarray | None:
    """f32[H, W] in [0, 1], upright; None: opaque."""
    if self.mode not in ('LA', 'RGBA', 'RGBA;16'):
      return None
    alpha = turn(self.samples[..., -1], self.orientation)
    return alpha.astype(np.float32) / decode.white(self.samples)

  def rgb(self) -> np.ndarray:
    """f32[H, W, 3] in [0, 1], upright; alpha composited on white, as `decode.read_image`."""
    x = turn(self.samples, self.orientation)
    if self.mode == 'CMYK':
      x = np.asarray(pillow(x, 'CMYK').convert('RGB'))
    elif self.mode in ('LA', 'RGBA', 'RGBA;16'):
      x = x[..., :-1]
    x = x.astype(np.float32)
    x /= decode.white(self.samples)
    np.clip(x, 0, 1, out=x)
    if x.ndim == 2 or x.shape[-1] == 1:
      x = np.repeat(x.reshape(*x.shape[:2], 1), 3, axis=-1)
    alpha = self.alpha
    return x if alpha is None else x * alpha[..., None] + (1 - alpha[..., None])

  def fill(self, rgb: np.ndarray, hole: np.ndarray) -> 'Picture':
    """This picture with new samples in the hole; alpha is not changed.

    Args:
      rgb: f32[H, W, 3] in [0, 1], upright.
      hole: bool[H, W], upright.
    """
    rgb, hole = unturn(rgb, self.orientation), unturn(hole, self.orientation)
    filling = rgb[hole]  # [n, 3]
    if self.mode == 'CMYK':
      new = np.asarray(Image.fromarray(arrays.to_uint8(filling[None])).convert('CMYK'))[0]
    else:
      if self.mode.startswith(('L', 'I', 'F')):
        filling = filling @ np.array([[0.299], [0.587], [0.114]], np.float32)  # as Pillow's 'L'
      new = np.clip(filling, 0, 1) * decode.white(self.samples)
      if self.mode != 'F':
        new = new + 0.5
      new = new.astype(self.samples.dtype)
    samples = self.samples.copy()
    if samples.ndim == 2:
      samples[hole] = new[:, 0]
    else:
      samples[hole, : new.shape[-1]] = new
    return dataclasses.replace(self, samples=samples)

  def check_holdable(self, format: str) -> None:
    """Raises InpaintError when a file of this format cannot hold the samples."""
    if self.mode in _HOLDS[format]:
      return
    fit = [f for f, modes in _HOLDS.items() if self.mode in modes]
    names = ' or '.join('.' + {'JPEG': 'jpg', 'TIFF': 'tif'}.get(f, f.lower()) for f in fit)
    raise InpaintError(
      f'{self.path} is {_MEANING.get(self.mode, self.mode)}, which a {format} file cannot hold: '
      f'write a {names} file'
    )

  def encode(self, format: str, left_out: Callable[[str], object] | None = None) -> bytes:
    """The content of a file of this format.

    A file of the same format keeps its pixels as stored, with the orientation tag. Another format
    may have no such tag, or viewers may ignore it; such a file gets upright pixels. All formats
    except JPEG are stored without loss, and are read back and compared before they are returned.

    Args:
      format: a value of FORMATS.
      left_out: is called with the name of each kind of metadata that the format cannot hold, such
        as 'EXIF' of more than 64 KB in a JPEG; None: nobody is told.

    Raises:
      InpaintError: the format cannot hold the picture.
    """
    self.check_holdable(format)
    samples = self.samples
    keep = self._holdable(format, left_out or (lambda name: None))
    if format != self.format and self.orientation != 1:
      samples = np.ascontiguousarray(turn(samples, self.orientation))
      if 'exif' in keep:
        keep['exif'] = metadata.set_upright(keep['exif'])
      if 'xmp' in keep:
        keep['xmp'] = metadata.set_xmp_upright(keep['xmp'])
    try:
      data = _ENCODERS[format](samples, self.mode, keep)
    except Exception as error:  # of many types, for sides that are too long for instance
      raise InpaintError(
        f'{self.path} cannot be written as {format} ({error}): choose another format'
      ) from error
    if format == self.format == 'PNG':
      data = metadata.copy_png_metadata(self.data, data)
    if format != 'JPEG':
      _check_same(decode_picture(data, self.path), samples, self.mode)
    return data

  def _holdable(self, format: str, left_out: Callable[[str], object]) -> dict[str, Any]:
    """What is kept, without the metadata that a file of this format cannot hold."""
    keeps = _KEEPS[format]
    if format == 'TIFF' and self.mode in ('RGB;16', 'RGBA;16'):
      keeps = _DEEP_TIFF_KEEPS
    keep = {}
    for name, value in self.keep.items():
      if name in _METADATA and not (name in keeps and _can_hold(format, name, value)):
        left_out(_METADATA[name])
      else:
        keep[name] = value
    if 'text' not in keeps and metadata.has_png_text(self.data):
      left_out(_METADATA['text'])
    return keep


def read(path: str | os.PathLike) -> Picture:
  """Reads an image file.

  Raises:
    UnreadableImage: the file is missing, not an image, damaged, has several frames, or has a mode
      that cannot be written back.
  """
  return decode_picture(decode.read_bytes(path), path)


def decode_picture(data: bytes, path: str | os.PathLike) -> Picture:
  """`read` from the file's content."""
  content = decode.stored(data, path)
  image, mode = content.image, content.mode
  if image is None or image.mode not in _MODES:
    mode = mode if image is None else image.mode
    raise UnreadableImage(path, f'images of mode {mode} cannot be filled; save it as RGB')
  if content.frames > 1 and image.format != 'MPO':  # its other frames are previews and depth maps
    raise UnreadableImage(
      path,
      f'it has {content.frames} frames; save the one that is to be filled as PNG and give that',
    )
  decode.check_range(content.samples, path)
  format = 'JPEG' if image.format == 'MPO' else image.format
  kept = _kept(image, format, content.tags)
  return Picture(pathlib.Path(path), content.samples, mode, format, content.orientation, data, kept)


def _kept(image: Image.Image, format: str, tags: bytes) -> dict[str, Any]:
  info = image.info
  keep: dict[str, Any] = {n: info[n] for n in ('icc_profile', 'dpi') if info.get(n)}
  xmp = info.get('xmp')
  if xmp:
    keep['xmp'] = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
  if format == 'TIFF':
    if tags:
      keep['exif'] = tags
    compression = info.get('compression')
    keep['compression'] = compression if compression in _TIFF_LOSSLESS else 'tiff_adobe_deflate'
  elif info.get('exif'):
    keep['exif'] = metadata.without_thumbnail(info['exif'])
  if format == 'JPEG':
    keep['progressive'] = bool(info.get('progressive'))
    if info.get('comment'):
      keep['comment'] = info['comment']
  return keep


def _saved(samples: np.ndarray, mode: str, format: str, **options: Any) -> bytes:
  out = io.BytesIO()
  pillow(samples, mode).save(out, format, **options)
  return out.getvalue()


def _metadata_of(keep: dict[str, Any], *names: str) -> dict[str, Any]:
  return {n: keep[n] for n in names if n in keep}


def _encode_png(samples: np.ndarray, mode: str, keep: dict[str, Any]) -> bytes:
  if mode.endswith(';16') and mode != 'I;16':
    bgr = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    deep = cv2.imencode('.png', bgr)[1].tobytes()
    # A bare image that carries the metadata, in chunks ready to be copied.
    bare = _saved(np.zeros((1, 1), np.uint8), 'L', 'PNG', **_png_options(keep))
    return metadata.copy_png_metadata(bare, deep)
  return _saved(samples, mode, 'PNG', **_png_options(keep))


def _png_options(keep: dict[str, Any]) -> dict[str, Any]:
  options = _metadata_of(keep, 'exif', 'icc_profile', 'dpi')
  if 'xmp' in keep:
    text = PngImagePlugin.PngInfo()
    text.add_itxt('XML:com.adobe.xmp', keep['xmp'].decode('utf-8', 'replace'))
    options['pnginfo'] = text
  return options


def _encode_jpeg(samples: np.ndarray, mode: str, keep: dict[str, Any]) -> bytes:
  # The file's own tables would change known pixels near the hole by dozens of levels, these by a
  # few, at about three times the size.
  options = _metadata_of(keep, 'exif', 'icc_profile', 'dpi', 'xmp', 'comment', 'progressive')
  return _saved(samples, mode, 'JPEG', quality=100, subsampling=0, optimize=True, **options)


def _encode_webp(samples: np.ndarray, mode: str, keep: dict[str, Any]) -> bytes:
  if mode == 'L':
    samples, mode = np.repeat(samples[..., None], 3, axis=2), 'RGB'
  elif mode == 'LA':
    samples, mode = samples[..., [0, 0, 0, 1]], 'RGBA'
  # exact: keeps the colour of transparent pixels too.
  options = _metadata_of(keep, 'exif', 'icc_profile', 'xmp')
  return _saved(samples, mode, 'WEBP', lossless=True, exact=True, **options)


def _encode_bmp(samples: np.ndarray, mode: str, keep: dict[str, Any]) -> bytes:
  if mode == 'RGBA':  # Pillow writes an alpha channel that it does not read back
    return cv2.imencode('.bmp', samples[..., [2, 1, 0, 3]])[1].tobytes()
  return _saved(samples, mode, 'BMP', **_metadata_of(keep, 'dpi'))


def _encode_tiff(samples: np.ndarray, mode: str, keep: dict[str, Any]) -> bytes:
  if mode in ('RGB;16', 'RGBA;16'):
    import tifffile

    out = io.BytesIO()
    tifffile.imwrite(
      out,
      samples,
      photometric='rgb',
      extrasamples=['unassalpha'] if mode == 'RGBA;16' else None,
      compression='adobe_deflate',
      iccprofile=keep.get('icc_profile'),
      metadata=None,
    )
    return out.getvalue()
  options = {'compression': 'tiff_adobe_deflate'}
  options |= _metadata_of(keep, 'icc_profile', 'dpi', 'compression')
  exif = Image.Exif()
  exif.load(keep.get('exif', b''))
  if _TIFF_SUBTABLES & set(exif):
    options['compression'] = 'raw'  # libtiff, which compresses, would drop these tables
  if 'xmp' in keep:
    exif[_TIFF_XMP] = keep['xmp']
  return _saved(samples, mode, 'TIFF', exif=exif, **options)


_ENCODERS = {
  'PNG': _encode_png,
  'JPEG': _encode_jpeg,
  'WEBP': _encode_webp,
  'BMP': _encode_bmp,
  'TIFF': _encode_tiff,
}


def _can_hold(format: str, name: str, value: Any) -> bool:
  """Whether the encoder of a format takes this metadata, tried with a picture of one pixel."""
  try:
    _ENCODERS[format](np.zeros((1, 1), np.uint8), 'L', {name: value})
  except Exception as error:  # the limits and the errors are those of each encoder
    logging.debug('%s cannot hold %s: %s', format, name, error)
    return False
  return True


def _check_same(again: Picture, samples: np.ndarray, mode: str) -> None:
  got = again.samples
  if again.mode != mode:  # WebP has no grey mode and drops an alpha channel that is fully opaque
    got, samples = _rgba(got, again.mode), _rgba(samples, mode)
  if got.shape != samples.shape or not np.array_equal(got, samples):
    raise InpaintError(
      f'{again.path} could not be written without a change to its known pixels ({mode}): save the '
      'image as PNG first'
    )


def _rgba(samples: np.ndarray, mode: str) -> np.ndarray:
  if mode not in ('L', 'LA', 'RGB', 'RGBA'):
    return samples
  return np.asarray(pillow(samples, mode).convert('RGBA'))


def unturn(x: np.ndarray, orientation: int) -> np.ndarray:
  """The inverse of `turn`."""
  return turn(x, {6: 8, 8: 6}.get(orientation, orientation))
