"""Which mask each test image gets, in each bin: the same for every predictor and every run.

A mask set is {bin: index of the image -> uint8[H, W], 1 = hole, or None}. Its masks are drawn, each
from its own generator of (seed, bin, image), or taken from files:

  a frozen set (masks.manifest)       file i of the bin belongs to image i; every pixel is checked
  subfolders named '20%-40%'          their files are used for the bins that contain this range
  NAME_mask000.png beside NAME.png    belongs to that image, in the bins that its share belongs to
  any other folder                    each file in the bins that its measured share belongs to
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from typing import Protocol as Interface

import cv2
import numpy as np
from absl import logging

from jaxinpaint import arrays
from jaxinpaint.masks import (
  draw,
  manifest,
)
from jaxinpaint.masks import (
  folders as mask_folders,
)
from jaxinpaint.masks import spec as data_masks
from jaxinpaint.masks.bins import Bin
from jaxinpaint.masks.draw import with_area
from jaxinpaint.masks.files import read_mask
from jaxinpaint.pictures.decode import UnreadableImage

_INVERT_THEM = 'invert them (;invert=true or --invert_mask)'

MaskSet = Mapping[Bin, Callable[[int], np.ndarray | None]]


class Paths(Interface):
  """Test images by their paths, as `data.pipeline.evaluation_set` gives them."""

  def __len__(self) -> int:
    """How many there are."""

  def path(self, i: int) -> str:
    """Of image i."""


def make(
  spec: Any,
  bins: Sequence[Bin],
  height: int,
  width: int,
  *,
  seed: int = 0,
  invert: bool = False,
  own_masks: bool = True,
  images: Paths | None = None,
) -> MaskSet:
  """The mask set of a specification.

  Args:
    spec: as of `data.masks.make` (an area range in it gives way to the bins'); 'folder:PATH' or the
      path of a folder hands out its files; '' or None where every bin has masks of its own.
    bins: those wanted.
    height: of the masks.
    width: of the masks.
    seed: of the draws, and of the order in which files are handed out.
    invert: files have black holes.
    own_masks: a bin's own `masks` are drawn instead of `spec`; False: a person chose `spec`, and
      such bins are measured as plain ranges.
    images: those that the masks are for; needed where masks belong to images by name.

  Returns:
    A mask for each bin and image. Where masks belong to images by name, an image has none (None) in
    the bins that its mask does not belong to, and bins without any image are left out.

  Raises:
    ValueError: unknown specification, a bin that no mask falls into, a frozen set that was altered,
      an image without a mask of its name.
    FileNotFoundError: no such folder.
  """
  shared = [b for b in bins if not (own_masks and b.masks)]
  made: dict[Bin, Callable[[int], np.ndarray | None]] = {}
  if shared and not spec:
    raise ValueError(f'the bin {shared[0].label!r} has no masks of its own: give --masks')
  if shared:
    sampler = sampler_of(spec)
    if isinstance(sampler, data_masks.FileMasks):
      made = _checked_files(sampler, shared, height, width, seed, invert, images)
      if sampler.paired:
        return made
    elif invert:
      raise ValueError(f'only mask files can be inverted, not masks drawn as {sampler.name!r}')
    else:
      if draw.has_share(sampler):
        logging.warning(
          'masks %s are drawn with the shares of the bins (%s %%), not with their own',
          sampler.name, ', '.join(b.label for b in shared),
        )  # fmt: skip
      for b in map(_plain, shared):
        made[b] = draw.in_range(sampler, b.low, b.high, height, width, seed)
  for b in bins:
    if b in shared:
      continue
    sampler = sampler_of(b.masks)
    if isinstance(sampler, data_masks.FileMasks):
      made |= _checked_files(sampler, [b], height, width, seed, invert, images)
    else:
      made[b] = draw.of_bin(sampler, b.low, b.high, height, width, seed)
  for mask in made.values():
    if isinstance(mask, draw.Drawn):
      mask(0)  # a bin that this size cannot reach fails here
  return {b: made[b] for b in dict.fromkeys(b if b in made else _plain(b) for b in bins)}


def _plain(b: Bin) -> Bin:
  """A bin without masks of its own: its name would be wrong for others."""
  return Bin(b.low, b.high) if b.masks else b


def sampler_of(spec: Any) -> data_masks.MaskSampler:
  """`data.masks.make`, which may also be given the bare path of a folder."""
  if isinstance(spec, str) and pathlib.Path(spec).expanduser().is_dir():
    spec = f'folder:{spec}'
  return data_masks.make(spec)


def name_of(spec: Any, *, own: bool = False) -> str:
  """What to call the masks of a specification in a report; the bins stand for the area.

  Args:
    spec: as of `make`.
    own: the masks are a bin's own, whose exact share is kept: 'center:0.25' and not 'center'.
  """
  if not spec:  # every bin of the protocol has its own
    return ''
  sampler = sampler_of(spec)
  if hasattr(sampler, 'share') and not (own and draw.has_share(sampler)):
    return sampler.kind.partition(':')[0]
  if isinstance(sampler, data_masks.FileMasks):
    frozen = manifest.read(sampler.path)
    if frozen:  # the same masks as if they were drawn, and the same hash
      name = name_of(frozen.spec, own=own)
      return name if frozen.seed == 0 else f'{name}, frozen with seed {frozen.seed}'
    return f'{"pairs" if sampler.paired else "folder"}:{sampler.path}'
  return with_area(sampler, None).name


def _checked_files(
  files: data_masks.FileMasks, *arguments: Any
) -> dict[Bin, Callable[[int], np.ndarray | None]]:
  """`_from_files`; a broken file is not left out silently, since every mask after it would move."""
  try:
    return _from_files(files, *arguments)
  except UnreadableImage as error:
    raise ValueError(
      f'masks {files.path}: {error}: restore or remove the file (jaxinpaint masks '
      'inspect lists all such)'
    ) from error


def _from_files(
  files: data_masks.FileMasks,
  bins: Sequence[Bin],
  height: int,
  width: int,
  seed: int,
  invert: bool,
  images: Paths | None,
) -> dict[Bin, Callable[[int], np.ndarray | None]]:
  """See the module's text."""
  files = dataclasses.replace(files, invert=files.invert or invert)
  frozen = manifest.read(files.path)
  if frozen:
    if files.invert:
      raise ValueError(
        f'masks {files.path} are frozen, with white holes: drop ;invert=true or --invert_mask'
      )
    return _frozen(files.path, frozen, bins, (height, width), seed)
  files.check()
  if files.paired:
    return _paired(files, bins, height, width, images)
  masks = _Files(files.paths, height, width, files.invert)
  shares = np.array([masks.read(k).mean() for k in range(len(files.paths))])
  named = _by_folder(files, bins, shares)
  result = {}
  for b in map(_plain, bins):
    chosen = named.get(b) or [k for k, share in enumerate(shares) if b.holds(share)]
    if not chosen:
      raise ValueError(
        f'masks {files.path}: none has a hole of {b.label} % of the image; its {len(shares)} masks '
        f'have {100 * shares.min():.1f} to {100 * shares.max():.1f} %. Choose other bins'
        + ('' if files.invert else f', or {_INVERT_THEM} if their holes are black')
      )
    logging.info('masks %s: %d files with %s %% of hole', files.path, len(chosen), b.label)
    # Published folders are sorted by share: shuffled once, then image i gets the i-th.
    key = draw.range_key(seed, b.low, b.high)
    order = np.random.default_rng(key).permutation(sorted(chosen))
    result[b] = _InOrder(masks, order, f'{files.path}, {b.label} %')
  return result


@dataclasses.dataclass(frozen=True)
class _Files:
  """Reads mask files at one size; `crop`: the part of them that `data.resizing.square` takes."""

  paths: Sequence[str]
  height: int
  width: int
  invert: bool = False
  crop: str = 'resize'

  def read(self, k: int) -> np.ndarray:
    if self.crop == 'resize':
      return read_mask(self.paths[k], self.height, self.width, invert=self.invert, warn=None)
    mask = read_mask(self.paths[k], invert=self.invert, warn=None)
    mask = arrays.middle_square(mask, self.width if self.crop == 'window' else None)
    return cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_NEAREST)


@dataclasses.dataclass
class _InOrder:
  """Image i gets the i-th of the chosen files, starting over where there are fewer."""

  masks: _Files
  order: Sequence[int]
  what: str
  told: bool = False

  def __call__(self, index: int) -> np.ndarray:
    if index >= len(self.order) and not self.told:
      self.told = True
      logging.warning(
        'masks %s: there are %d, fewer than images; they start over', self.what, len(self.order)
      )
    return self.masks.read(self.order[index % len(self.order)])


def _frozen(
  path: str,
  frozen: manifest.Manifest,
  bins: Sequence[Bin],
  size: tuple[int, int],
  seed: int,
) -> dict[Bin, Callable[[int], np.ndarray | None]]:
  """File i of a bin to image i, not shuffled: what was drawn is what is handed out."""
  root = pathlib.Path(path).expanduser()
  labels = [b.label for b in frozen.bins]
  absent = [b.label for b in bins if b.label not in labels]
  if absent:
    raise ValueError(
      f'masks {root} were frozen for the bins {", ".join(labels)}, not for {", ".join(absent)}: '
      f'pass --bins {",".join(labels)}, or freeze them for those'
    )
  manifest.verify(root, frozen)
  logging.info(
    'masks %s: %s, seed %d, %d for each of %s; SHA-256 %s verified',
    root, frozen.spec, frozen.seed, frozen.count, ', '.join(labels), frozen.sha256,
  )  # fmt: skip
  if frozen.seed != seed:
    logging.warning('masks %s were drawn with seed %d; --seed does not change them', root,
                    frozen.seed)  # fmt: skip
  if size != (frozen.size, frozen.size):
    logging.warning(
      'masks %s are of %d x %d and are resized to %d x %d by nearest: their shares change a little',
      root, frozen.size, frozen.size, *size,
    )  # fmt: skip
  masks = _Files([str(root / f.name) for f in frozen.files], *size)
  return {
    b: _InOrder(
      masks, [k for k, f in enumerate(frozen.files) if f.bin == b.label], f'{root}, {b.label}'
    )
    for b in bins
  }


def _by_folder(
  files: data_masks.FileMasks, bins: Sequence[Bin], shares: np.ndarray
) -> dict[Bin, list[int]]:
  """{bin: files} of the bins that subfolders named by share lie in."""
  path = pathlib.Path(files.path).expanduser()
  root = str(path if path.is_dir() else path.parent)
  folders = mask_folders.by_range(root, files.paths)
  for named, chosen in sorted(folders.items()):
    other = [k for k in chosen if not mask_folders.agrees(shares[k], named)]
    if other:
      inverted = sum(mask_folders.agrees(1 - shares[k], named) for k in other) > len(chosen) / 2
      logging.warning(
        'masks %s: %d of %d files in the folder of %g-%g %% have another share of hole, as %s with '
        '%.1f %%; the folder decides%s', files.path, len(other), len(chosen), 100 * named[0],
        100 * named[1], os.path.relpath(files.paths[other[0]], root), 100 * shares[other[0]],
        f'. Their black parts would fit: {_INVERT_THEM}?' if inverted else '',
      )  # fmt: skip
  result: dict[Bin, list[int]] = {}
  for b in map(_plain, bins):
    # Folder names are decimals: 0.1 + 0.2 need not be 0.3.
    fits = [r for r in folders if b.low - 1e-6 <= r[0] and r[1] <= b.high + 1e-6]
    if fits:
      result[b] = [k for r in fits for k in folders[r]]
    elif folders:
      logging.warning(
        'masks %s: no subfolder lies within %s %%; its files are chosen by their measured share',
        files.path, b.label,
      )  # fmt: skip
  return result


def _paired(
  files: data_masks.FileMasks,
  bins: Sequence[Bin],
  height: int,
  width: int,
  images: Paths | None,
) -> dict[Bin, Callable[[int], np.ndarray | None]]:
  """Each image its own mask, in the bins that its share belongs to."""
  if images is None:
    raise ValueError(
      f'masks {files.path} belong to images by name: give the images, mask_sets.make(..., images=)'
    )
  same_name = isinstance(files, data_masks.PairMasks)
  pairs = mask_folders.pairs(files.path, files.paths, same_name)
  order = [pairs.find(images.path(i), files.variant) for i in range(len(images))]
  crop = getattr(images, 'crop', 'resize')
  masks = _Files(files.paths, height, width, files.invert, crop)
  shares = np.array([masks.read(k).mean() for k in order])
  result: dict[Bin, Callable[[int], np.ndarray | None]] = {}
  for b in map(_plain, bins):
    members = frozenset(i for i, share in enumerate(shares) if b.holds(share))
    if members:
      result[b] = _OfImage(masks, order, members)
    logging.info('masks %s: %d images have one with %s %% of hole', files.path, len(members),
                 b.label)  # fmt: skip
  outside = [i for i, share in enumerate(shares) if not any(b.holds(share) for b in result)]
  if outside:
    text = (
      f'masks {files.path}: those of {len(outside)} of {len(shares)} images are in no bin, as that '
      f'of {images.path(outside[0])} with {100 * shares[outside[0]]:.1f} % of hole'
    )
    if not result:
      raise ValueError(f'{text}: choose other bins, as --bins 0-100')
    logging.warning('%s; they are not measured', text)
  return result


@dataclasses.dataclass(frozen=True)
class _OfImage:
  """Image i gets its own mask, if it is a member."""

  masks: _Files
  order: Sequence[int]
  members: frozenset[int]

  def __call__(self, index: int) -> np.ndarray | None:
    return self.masks.read(self.order[index]) if index in self.members else None


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
