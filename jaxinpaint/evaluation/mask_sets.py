"""Which mask each test image gets, in each bin: the same for every predictor and every run.

A mask set is {bin: index of the image -> uint8[H, W], 1 = hole}. Its masks are either drawn, each
from its own generator of (seed, bin, image), or taken from a folder of files.
"""

import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from jaxinpaint.data import masks as data_masks
from jaxinpaint.evaluation.protocols import Bin

MaskSet = Mapping[Bin, Callable[[int], np.ndarray]]

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')
# Draws until a mask lies in its bin; the samplers aim at the area, so one nearly always does.
_TRIES = 100


def make(
  spec: Any, bins: Sequence[Bin], height: int, width: int, *, seed: int = 0, invert: bool = False
) -> MaskSet:
  """The mask set of a spec or a folder.

  Args:
    spec: as of `data.masks.make` (an area range in it gives way to the bin's); 'folder:PATH', or
      the path of a folder.
    bins: those wanted.
    height: of the masks.
    width: of the masks.
    seed: of the draws, and of the order in which a folder's files are handed out.
    invert: files have black holes.

  Raises:
    ValueError: unknown spec, or no mask file falls into a bin.
    FileNotFoundError: no such folder, or it holds no images.
  """
  folder = folder_of(spec)
  if folder is not None:
    return from_folder(folder, bins, height, width, seed=seed, invert=invert)
  if invert:
    raise ValueError(f'invert applies to mask files, not to masks drawn by {spec!r}')
  return {b: _drawn(spec, b, height, width, seed) for b in bins}


def folder_of(spec: Any) -> str | None:
  """The folder that a spec names; None where masks are drawn."""
  if not isinstance(spec, str):
    return None
  if spec.startswith('folder:'):
    return spec.removeprefix('folder:')
  return spec if '/' in spec or pathlib.Path(spec).expanduser().is_dir() else None


def _drawn(spec: Any, bin: Bin, height: int, width: int, seed: int) -> Callable[[int], np.ndarray]:
  sampler = data_masks.make(with_area(spec, bin.low, bin.high))
  key = [seed, round(1e6 * bin.low), round(1e6 * bin.high)]

  def mask(index: int) -> np.ndarray:
    rng = np.random.default_rng([*key, index])
    for _ in range(_TRIES):
      drawn = sampler(rng, height, width)
      if bin.holds(drawn.mean()):
        return drawn
    raise ValueError(
      f'masks {spec!r} do not reach {bin.label} % of {height} x {width} pixels: none of {_TRIES} '
      'did; choose other masks or bins'
    )

  return mask


def with_area(spec: Any, low: float, high: float) -> Any:
  """`spec` with the area range (low, high), in every part of a mixture."""
  if isinstance(spec, str):
    return f'{spec.partition(":")[0]}:{low:g}-{high:g}'
  spec = dict(spec)
  if spec.get('kind') == 'mixture':
    parts = [(weight, with_area(part, low, high)) for weight, part in spec['of']]
    return {**spec, 'of': parts}
  return {**spec, 'area': (low, high)}


def from_folder(
  folder: str | pathlib.Path,
  bins: Sequence[Bin],
  height: int,
  width: int,
  *,
  seed: int = 0,
  invert: bool = False,
) -> MaskSet:
  """Masks of a folder and its subfolders, each in the bins that its measured share belongs to.

  The files of a bin, sorted by name, are shuffled once by (seed, bin), because published folders
  are sorted by share; image i gets the i-th of them, starting over where there are fewer.

  Raises:
    FileNotFoundError: no such folder, or no images in it.
    ValueError: a bin stays empty; names the shares found.
  """
  folder = pathlib.Path(folder).expanduser()
  if not folder.is_dir():
    raise FileNotFoundError(f'mask folder {folder} does not exist')
  paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in _SUFFIXES)
  if not paths:
    raise FileNotFoundError(f'mask folder {folder} holds no images ({", ".join(_SUFFIXES)})')
  read = lambda path, **warn: data_masks.read_mask(path, height, width, invert=invert, **warn)
  shares = np.array([read(p).mean() for p in paths])
  logging.info(
    '%s: %d masks, holes of %.1f to %.1f %% of the image, %.1f %% in the mean.',
    folder,
    len(paths),
    *(100 * shares.min(), 100 * shares.max(), 100 * shares.mean()),
  )
  result = {}
  for b in bins:
    chosen = [p for p, share in zip(paths, shares, strict=True) if b.holds(share)]
    if not chosen:
      raise ValueError(
        f'mask folder {folder}: no mask has a hole of {b.label} % of the image; its {len(paths)} '
        f'masks have {100 * shares.min():.1f} to {100 * shares.max():.1f} %. Choose other bins'
        + ('' if invert else ', or invert the masks if their holes are black')
      )
    rng = np.random.default_rng([seed, round(1e6 * b.low), round(1e6 * b.high)])
    order = [chosen[k] for k in rng.permutation(len(chosen))]
    # Warnings were given when the shares were measured.
    silent = {'warn': lambda *_: None}
    result[b] = lambda i, order=order: read(order[i % len(order)], **silent)
  return result


class Hash:
  """SHA-256 of the masks handed out, in the order of bins, then of images."""

  def __init__(self, bins: Sequence[Bin]):
    """See the class."""
    self._parts = {b: hashlib.sha256() for b in bins}

  def add(self, bin: Bin, index: int, mask: np.ndarray) -> None:
    """`mask`, uint8[H, W], is the mask of image `index` in `bin`."""
    self._parts[bin].update(f'{index} {mask.shape}'.encode())
    self._parts[bin].update(np.packbits(mask.astype(bool)).tobytes())

  def hexdigest(self) -> str:
    """Of everything added so far."""
    whole = ''.join(f'{b.label} {part.hexdigest()}\n' for b, part in self._parts.items())
    return hashlib.sha256(whole.encode()).hexdigest()
