"""One picture, from the content of its files to the content of the repaired file.

  task = read(image, mask)            # bytes, as in files
  rgb = task.complete(inpainter)
  data = task.encode(rgb)

`files` does this for files on a disk, and the server for what it is sent, so that the same picture
and mask give the same bytes in both.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from jaxinpaint import arrays
from jaxinpaint.inference import picture as picture_lib
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.inference.picture import FORMATS, Picture
from jaxinpaint.masks import files as mask_files
from jaxinpaint.masks.files import INVERT_IT, Inverting
from jaxinpaint.pictures import decode

Say = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class Task:
  """A picture and its hole, decoded and checked.

  Attributes:
    picture: as given.
    hole: bool[H, W] of its upright size.
    format: of the result, a value of FORMATS.
    warn: is called with each warning, a sentence.
  """

  picture: Picture
  hole: np.ndarray
  format: str
  warn: Say

  def complete(self, inpainter: Inpainter, sample: int = 0) -> np.ndarray:
    """f32[H, W, 3] in [0, 1], upright.

    Raises:
      InpaintError: as `Inpainter.__call__`.
    """
    painter = inpainter.for_sizes([self.hole.shape])
    stream = painter.stream([(0, 0, self.picture.rgb(), self.hole)], sample=sample)
    rgb = next(rgb for _, rgb in stream)
    strategy = inpainter.strategy
    if self.hole.any() and strategy.reduces(self.hole.shape):
      self.warn(reduced_sentence(1, 1, strategy.limit))
    return rgb

  def encode(self, rgb: np.ndarray) -> bytes:
    """The content of the repaired file.

    Raises:
      InpaintError: the format cannot hold the picture.
    """
    data, change, lost = encode(self.picture, self.format, rgb, self.hole)
    for name in lost:
      self.warn(left_out_sentence(name, [self.picture.path.with_suffix(_ENDINGS[self.format])], 1))
    if change is not None:
      self.warn(jpeg_sentence([change], 1))
    return data


_ENDINGS = {format: ending for ending, format in reversed(FORMATS.items())}


def read(
  image: bytes,
  mask: bytes,
  *,
  invert_mask: bool = False,
  format: str | None = None,
  warn: Say = lambda sentence: None,
  check_mask: bool = True,
  inverting: Inverting = INVERT_IT,
  names: tuple[str, str] = ('image', 'mask'),
) -> Task:
  """Decodes a picture and its mask.

  Args:
    image: the content of its file.
    mask: likewise; white is the hole.
    invert_mask: black is the hole.
    format: of the result, a value of FORMATS; None: the picture's own.
    warn: is called with each warning, a sentence.
    check_mask: warn of a mask that looks inverted, empty or grey.
    inverting: how whoever sent the mask inverts it, for messages.
    names: of both, for messages.

  Raises:
    UnreadableImage, InpaintError: as `inpaint_files`.
  """
  picture = picture_lib.decode_picture(image, names[0])
  format = format or picture.format
  if format not in _ENDINGS:
    raise InpaintError(
      f'{names[0]}: files of the format {format} are not written; choose a format: png, jpg, webp, '
      'bmp or tif'
    )
  picture.check_holdable(format)
  sentences: list[str] = []
  how = dict(invert=invert_mask, inverting=inverting)
  given = mask_files.decode_mask(
    mask, names[1], **how, warn=sentences.append if check_mask else None
  )
  hole = fit_mask(given.astype(bool), names[1], picture, warn, **how)
  for sentence in sentences:
    warn(sentence)
  warn_of_hidden_hole(picture, hole, warn)
  return Task(picture, hole, format, warn)


def fit_mask(
  mask: np.ndarray,
  path: str | os.PathLike,
  picture: Picture,
  warn: Say,
  *,
  invert: bool = False,
  inverting: Inverting = INVERT_IT,
) -> np.ndarray:
  """bool[H, W] of the picture's upright size, True = hole.

  Args:
    mask: bool[h, w], as in its file.
    path: of the mask, for messages.
    picture: that it belongs to.
    warn: is told where the mask was turned or resized.
    invert: whether the mask was inverted, for messages.
    inverting: their words.

  Raises:
    InpaintError: everything is hole, or the mask has another shape than the picture.
  """
  if mask.all():
    raise InpaintError(
      f'{path}: every pixel is hole, so {picture.path} has nothing to fill it from: paint what is '
      f'to be kept {"white" if invert else "black"}, or {inverting.off if invert else inverting.on}'
    )
  height, width = picture.size
  if mask.shape == (height, width):
    return mask
  sizes = (
    f'{path} is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), {picture.path} '
    f'{width} x {height}'
  )
  if mask.shape == picture.stored_size:
    warn(f'{sizes}, which its EXIF turns; the mask was turned with it')
    return decode.turn(mask, picture.orientation)
  # Equal but for the rounding of one side.
  scale = mask.shape[0] / height
  if abs(mask.shape[1] - width * scale) > max(1.0, scale):
    raise InpaintError(
      f'{sizes}: their shapes differ, so make the mask {width} x {height} (by nearest neighbour)'
    )
  warn(f'{sizes}; the mask was resized (nearest neighbour)')
  return np.asarray(arrays.resize_nearest(mask[..., None], height, width))[..., 0]


def warn_of_hidden_hole(picture: Picture, hole: np.ndarray, warn: Say) -> None:
  """Says where the filling will not show, because the picture is transparent there."""
  alpha = picture.alpha
  if alpha is None or not hole.any():
    return
  hidden = float((alpha[hole] < 0.5).mean())
  if hidden > 0.01:
    warn(
      f'{picture.path}: {100 * hidden:.0f} % of the hole is transparent, and alpha is kept, so the '
      'filling does not show there; remove the alpha channel to see it'
    )


def encode(
  picture: Picture, format: str, rgb: np.ndarray, hole: np.ndarray
) -> tuple[bytes, int | None, list[str]]:
  """The content of the repaired file.

  Args:
    picture: as given.
    format: of the file, a value of FORMATS.
    rgb: f32[H, W, 3] in [0, 1], the completed picture, upright.
    hole: bool[H, W], upright.

  Returns:
    The content; for a JPEG that was encoded, the largest change of a known pixel (of 255 levels);
    and the kinds of metadata that the format cannot hold.
  """
  if not hole.any() and picture.format == format:
    return picture.data, None, []
  lost: list[str] = []
  data = picture.fill(rgb, hole).encode(format, lost.append)
  change = _jpeg_change(picture.path, rgb, hole, data) if format == 'JPEG' else None
  return data, change, lost


def _jpeg_change(path: pathlib.Path, rgb: np.ndarray, hole: np.ndarray, data: bytes) -> int:
  """By how many levels at most the known pixels of `rgb` differ in the JPEG file `data`."""
  change = picture_lib.decode_picture(data, path).rgb()
  change -= rgb
  np.abs(change, out=change)
  change[hole] = 0
  return round(float(change.max(initial=0)) * 255)


def left_out_sentence(name: str, outputs: Sequence[pathlib.Path], total: int) -> str:
  """What is said of metadata that the formats of these of `total` outputs cannot hold."""
  kinds = ' and '.join(sorted({path.suffix for path in outputs}))
  return (
    f'{name} that a {kinds} file cannot hold was left out of {len(outputs)} of {total} images, '
    f'first {outputs[0]}; PNG and TIFF hold more'
  )


def jpeg_sentence(changes: Sequence[int], total: int) -> str:
  """What is said of JPEG files among `total` outputs, whose known pixels changed by so much."""
  return (
    f'JPEG stores known pixels again with loss: in {len(changes)} of {total} images by '
    f'{max(changes)} of 255 at most; choose PNG to keep them exact'
  )


def reduced_sentence(count: int, total: int, max_side: int) -> str:
  """What is said of `count` of `total` images that are longer than `max_side`."""
  return (
    f'{count} of {total} images are longer than {max_side} pixels: their holes were filled at that '
    'size and enlarged; raise max_side for sharper ones'
  )
