"""Mask files: reading one with checks, and drawing from a folder or a list of files.

In a file white is the hole: what is brighter than 127 of 255. In a file that has only two values,
one of them 0, the other one is the hole, whatever it is: 1 in many data sets.
"""

import collections.abc
import dataclasses
import os
import pathlib
from typing import NamedTuple

import cv2
import numpy as np
from absl import logging

from jaxinpaint.masks import folders as mask_folders
from jaxinpaint.masks.sampler import MaskSampler
from jaxinpaint.pictures import decode
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.pictures.listing import list_files

EXTENSIONS = decode.EXTENSIONS + ('.gif',)

Warn = collections.abc.Callable[[str], object]


class Inverting(NamedTuple):
  """How a mask is inverted where it was given: the words for it in messages.

  Attributes:
    on: 'pass --invert_mask', where it is not inverted.
    off: 'drop --invert_mask', where it is.
  """

  on: str
  off: str


INVERT_IT = Inverting('invert it', 'do not invert it')
_IN_SPECIFICATION = Inverting('add ;invert=true', 'drop ;invert=true')


def read_mask(
  path: str | os.PathLike,
  height: int | None = None,
  width: int | None = None,
  *,
  invert: bool = False,
  warn: Warn | None = logging.warning,
  inverting: Inverting = INVERT_IT,
) -> np.ndarray:
  """Reads a mask file; see above which pixels are hole. It is resized by nearest neighbour.

  Args:
    path: image file of any mode; transparency is ignored, EXIF orientation is followed.
    height: rows of the result; None: as the file.
    width: columns of the result; None: as the file.
    invert: black is the hole in this file.
    warn: gets a sentence for a mask that looks inverted, empty, full or grey; None: no checks, and
      the hole's share is not logged.
    inverting: the words of these sentences.

  Returns:
    uint8[H, W] in {0, 1}, 1 = hole.

  Raises:
    UnreadableImage: not there, no image, damaged.
  """
  given = dict(invert=invert, warn=warn, inverting=inverting)
  return decode_mask(decode.read_bytes(path), path, height, width, **given)


def decode_mask(
  data: bytes,
  path: str | os.PathLike,
  height: int | None = None,
  width: int | None = None,
  *,
  invert: bool = False,
  warn: Warn | None = logging.warning,
  inverting: Inverting = INVERT_IT,
) -> np.ndarray:
  """`read_mask` from the file's content; `path` is for messages only."""
  grey, hidden = decode_grey(data, path)
  file_size = grey.shape
  size = (height or grey.shape[0], width or grey.shape[1])
  if grey.shape != size:
    grey = cv2.resize(grey, size[::-1], interpolation=cv2.INTER_NEAREST)
  mask = (grey > 127).astype(np.uint8)
  if invert:
    mask = 1 - mask
  if warn is not None:
    share = float(mask.mean())
    resized = '' if size == file_size else f' (resized from {file_size[0]} x {file_size[1]})'
    logging.info(
      '%s: the hole is %.1f %% of %d x %d pixels%s', path, 100 * share, size[0], size[1], resized
    )
    for sentence in complaints(grey, mask, invert, hidden, inverting):
      warn(f'{path}: {sentence}')
  return mask


def read_grey(path: str | os.PathLike) -> tuple[np.ndarray, bool]:
  """uint8[H, W] as in the file, and whether the mask is only in the alpha channel.

  Two values, of which one is 0, become 0 and 255; the process logs once that it met others.

  Raises:
    UnreadableImage: not there, no image, damaged.
  """
  return decode_grey(decode.read_bytes(path), path)


def decode_grey(data: bytes, path: str | os.PathLike) -> tuple[np.ndarray, bool]:
  """`read_grey` from the file's content; `path` is for messages only."""
  content = decode.stored(data, path)
  alpha = content.samples[..., -1] if content.mode in ('LA', 'RGBA', 'RGBA;16') else None
  colours = content.samples if alpha is None else content.samples[..., :-1]
  hole = None if content.mode == 'CMYK' else two_levels(colours.reshape(*colours.shape[:2], -1))
  if hole is not None:
    top = colours.max()
    if top != content.white:
      logging.log_first_n(
        logging.INFO, '%s has the values 0 and %g: %g is the hole (said once)', 1, path, top, top
      )
    return np.uint8(255) * decode.turn(hole, content.orientation), False
  image = content.eight_bits()
  if alpha is not None:
    image = image.convert('RGB')  # drops alpha
  grey = np.array(image.convert('L'))
  return grey, alpha is not None and np.ptp(grey) == 0 and np.ptp(alpha) > 0


def two_levels(values: np.ndarray) -> np.ndarray | None:
  """bool[H, W], where numbers [H, W, C] are not 0, if all others are equal, and positive.

  None for others, also for one value alone, of which nothing says whether it is hole.
  """
  hole = values.any(-1)
  if not hole.any() or hole.all():
    return None
  others = values[hole]
  return hole if (others == others[0]).all() and others[0].min() >= 0 else None


def complaints(
  grey: np.ndarray,
  mask: np.ndarray,
  invert: bool = False,
  hidden: bool = False,
  inverting: Inverting = INVERT_IT,
) -> list[str]:
  """What is suspicious about a mask; each item is a sentence that says what to do.

  Args:
    grey: uint8[H, W], as in the file.
    mask: uint8[H, W] in {0, 1}, 1 = hole, after any inversion.
    invert: whether the file was inverted.
    hidden: whether the file's alpha channel varies and its colour does not.
    inverting: what a sentence advises.
  """
  sentences = []
  share = float(mask.mean())
  rim = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
  otherwise = inverting.off if invert else inverting.on
  colour = 'black' if invert else 'white'
  if hidden:
    sentences.append(
      'the mask seems to be in the alpha channel, which is ignored: save it as a black and white '
      'image (white = hole)'
    )
  elif share == 0:
    sentences.append(
      f'the mask is empty, nothing will be filled: paint the hole {colour}, or {otherwise} if the '
      f'hole is {"white" if invert else "black"}'
    )
  elif share == 1:
    sentences.append(
      f'the mask is full, no pixel is known: paint what is to be kept '
      f'{"white" if invert else "black"}, or {otherwise} if the hole has that colour'
    )
  elif share > 0.75 or (share > 0.5 and rim.mean() > 0.7):
    sentences.append(
      f'the mask looks inverted ({100 * share:.0f} % of it is hole): if {colour} marks what is to '
      f'be kept, {otherwise}'
    )
  between = float(((grey > 31) & (grey < 224)).mean())
  if between > 0.05 and not hidden:
    sentences.append(
      f'{100 * between:.0f} % of the mask is grey and was cut at 127 (brighter is '
      f'{"known" if invert else "hole"}): save the mask in pure black and white'
    )
  return sentences


@dataclasses.dataclass(frozen=True)
class FileMasks(MaskSampler):
  """Draws from mask files: a uniform pick, resized to the image by nearest.

  Attributes:
    path: a folder, with all its subfolders, or a .txt list.
    invert: black is the hole in these files.
    flip: flip each axis with probability 1/2, which makes four masks of each file in training.
    variant: which of an image's masks, where an evaluation finds them by the image's name: '001'
      is NAME_mask001.png; '' is 000 where it exists, else NAME_mask.png, else the lowest.
    paths: the files, in order; `read(i, height, width)` gives one without randomness. Where masks
      lie beside their images (NAME_mask000.png, NAME.png), the masks alone.
    paired: the files belong to images by name.
  """

  path: str = ''
  invert: bool = False
  flip: bool = False
  variant: str = ''
  paths: tuple[str, ...] = dataclasses.field(init=False, repr=False, compare=False, default=())
  paired: bool = dataclasses.field(init=False, repr=False, compare=False, default=False)

  def __post_init__(self):
    super().__post_init__()
    if not self.path:
      raise ValueError("masks from files need a path: 'folder:/path/to/masks'")
    if self.variant and not self.variant.isdigit():
      raise ValueError(f"variant {self.variant!r} of mask files must be digits, as '000'")
    paths = list_files(self.path, EXTENSIONS, 'masks', all_names=True)
    beside = mask_folders.pair_masks(paths)
    paths = tuple(p for p in paths if p in beside) if beside else paths
    object.__setattr__(self, 'paths', paths)
    object.__setattr__(self, 'paired', bool(beside))

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return f'folder:{pathlib.Path(self.path).name}'

  def read(self, i: int, height: int, width: int) -> np.ndarray:
    """The i-th file's mask, uint8[H, W] in {0, 1}."""
    return read_mask(self.paths[i], height, width, invert=self.invert, warn=None)

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler; a broken file is logged and replaced by the next one."""
    first = int(rng.integers(len(self.paths)))
    flips = rng.integers(0, 2, 2) if self.flip else (0, 0)
    for i in range(first, first + min(len(self.paths), 100)):
      try:
        mask = self.read(i % len(self.paths), height, width)
        break
      except UnreadableImage as error:
        logging.warning('mask skipped: %s', error)
        failure = error
    else:
      raise ValueError(f'no mask could be read from {self.path}; the last one: {failure}')
    for axis in (0, 1):
      if flips[axis]:
        mask = np.flip(mask, axis)
    return np.ascontiguousarray(mask)

  def check(self, warn: Warn = logging.warning, count: int = 64) -> None:
    """Reads `count` files spread over the set: logs the mean hole share, warns of trouble."""
    n = min(count, len(self.paths))
    shares, told = [], 0
    for i in np.arange(n) * len(self.paths) // n:
      grey, hidden = read_grey(self.paths[i])
      mask = (grey > 127).astype(np.uint8) ^ np.uint8(self.invert)
      shares.append(float(mask.mean()))
      sentences = complaints(grey, mask, self.invert, hidden, _IN_SPECIFICATION)
      if sentences and told < 3:
        warn(f'{self.paths[i]}: {" ".join(sentences)}')
      told += bool(sentences)
    logging.info(
      'masks %s: %d files, mean hole share %.1f %% (of %d looked at)',
      self.path, len(self.paths), 100 * float(np.mean(shares)), n,
    )  # fmt: skip
    if told > 3:
      warn(f'{self.path}: {told} of {n} mask files looked at have such trouble')


@dataclasses.dataclass(frozen=True)
class PairMasks(FileMasks):
  """Files that belong to images by name: NAME_mask000.png, NAME_mask.png or NAME.png to NAME.jpg.

  An evaluation gives each image its own mask. In training they are drawn as `FileMasks`.
  """

  def __post_init__(self):
    super().__post_init__()
    object.__setattr__(self, 'paired', True)

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return f'pairs:{pathlib.Path(self.path).name}'


__all__ = ['FileMasks', 'Inverting', 'PairMasks', 'UnreadableImage', 'complaints', 'read_mask']
