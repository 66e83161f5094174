"""Which mask each test image gets, in each bin: the same for every predictor and every run.

A mask set is {bin: index of the image -> uint8[H, W], 1 = hole}. Its masks are drawn, each from its
own generator of (seed, bin, image), or taken from files:

  a frozen set (data.mask_manifest)   file i of the bin belongs to image i; every pixel is checked
  subfolders named '20%-40%'          serve the bins that they lie in
  NAME_mask000.png beside NAME.png    belongs to that image; one bin of all
  any other folder                    each file in the bins that its measured share belongs to
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from typing import Protocol as Interface

import numpy as np
from absl import logging

from jaxinpaint.data import mask_draw, mask_folders, mask_manifest
from jaxinpaint.data import masks as data_masks
from jaxinpaint.data.mask_draw import with_area
from jaxinpaint.evaluation.protocols import Bin

MaskSet = Mapping[Bin, Callable[[int], np.ndarray]]


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
      path of a folder hands out its files.
    bins: those wanted.
    height: of the masks.
    width: of the masks.
    seed: of the draws, and of the order in which files are handed out.
    invert: files have black holes.
    own_masks: a bin's own `masks` are drawn instead of `spec`; False: a person chose `spec`, and
      such bins are measured as plain ranges.
    images: those that the masks are for; needed where masks belong to images by name.

  Returns:
    A mask for each bin and image; for masks that belong to images by name, one bin of all.

  Raises:
    ValueError: unknown specification, a bin that no mask falls into, a frozen set that was altered,
      an image without a mask of its name.
    FileNotFoundError: no such folder.
  """
  shared = [b for b in bins if not (own_masks and b.masks)]
  made: dict[Bin, Callable[[int], np.ndarray]] = {}
  if shared:
    sampler = sampler_of(spec)
    if isinstance(sampler, data_masks.FileMasks):
      made = _from_files(sampler, shared, height, width, seed, invert, images)
      if sampler.paired:
        return made
    elif invert:
      raise ValueError(f'only mask files can be inverted, not masks drawn as {sampler.name!r}')
    else:
      for b in map(_plain, shared):
        made[b] = mask_draw.in_range(sampler, b.low, b.high, height, width, seed)
  for b in bins:
    if b in shared:
      continue
    sampler = sampler_of(b.masks)
    if isinstance(sampler, data_masks.FileMasks):
      made |= _from_files(sampler, [b], height, width, seed, invert, images)
    else:
      made[b] = mask_draw.of_bin(sampler, b.low, b.high, height, width, seed)
  for mask in made.values():
    if isinstance(mask, mask_draw.Drawn):
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


def name_of(spec: Any) -> str:
  """What to call the masks of a specification in a report; the bins stand for the area."""
  if spec == '':  # every bin of the protocol has its own
    return ''
  sampler = sampler_of(spec)
  if isinstance(sampler, data_masks.FileMasks):
    frozen = mask_manifest.read(sampler.path)
    if frozen:  # the same masks as if they were drawn, and the same hash
      name = name_of(frozen.spec)
      return name if frozen.seed == 0 else f'{name}, frozen with seed {frozen.seed}'
    return f'{"pairs" if sampler.paired else "folder"}:{sampler.path}'
  return with_area(sampler, None).name


def _from_files(
  files: data_masks.FileMasks,
  bins: Sequence[Bin],
  height: int,
  width: int,
  seed: int,
  invert: bool,
  images: Paths | None,
) -> dict[Bin, Callable[[int], np.ndarray]]:
  """See the module's text."""
  files = dataclasses.replace(files, invert=files.invert or invert)
  frozen = mask_manifest.read(files.path)
  if frozen:
    if files.invert:
      raise ValueError(f'masks {files.path} are frozen, with white holes: drop --invert_mask')
    return _frozen(files.path, frozen, bins, (height, width), seed)
  files.check()
  if files.paired:
    return _paired(files, bins, height, width, images)
  masks = _Files(files, height, width)
  shares = np.array([masks.read(k).mean() for k in range(len(files.paths))])
  named = _by_folder(files, bins, shares)
  result = {}
  for b in map(_plain, bins):
    chosen = named.get(b) or [k for k, share in enumerate(shares) if b.holds(share)]
    if not chosen:
      raise ValueError(
        f'masks {files.path}: none has a hole of {b.label} % of the image; its {len(shares)} masks '
        f'have {100 * shares.min():.1f} to {100 * shares.max():.1f} %. Choose other bins'
        + ('' if files.invert else ', or pass --invert_mask if their holes are black')
      )
    logging.info('masks %s: %d files with %s %% of hole', files.path, len(chosen), b.label)
    # Published folders are sorted by share: shuffled once, then image i gets the i-th.
    key = mask_draw.range_key(seed, b.low, b.high)
    order = np.random.default_rng(key).permutation(sorted(chosen))
    result[b] = _InOrder(masks, order, f'{files.path}, {b.label} %')
  return result


@dataclasses.dataclass(frozen=True)
class _Files:
  """Reads a sampler's files at one size."""

  files: data_masks.FileMasks
  height: int
  width: int

  def read(self, k: int) -> np.ndarray:
    return self.files.read(k, self.height, self.width)


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
  frozen: mask_manifest.Manifest,
  bins: Sequence[Bin],
  size: tuple[int, int],
  seed: int,
) -> dict[Bin, Callable[[int], np.ndarray]]:
  """File i of a bin to image i, not shuffled: what was drawn is what is handed out."""
  root = pathlib.Path(path).expanduser()
  labels = [b.label for b in frozen.bins]
  absent = [b.label for b in bins if b.label not in labels]
  if absent:
    raise ValueError(
      f'masks {root} were frozen for the bins {", ".join(labels)}, not for {", ".join(absent)}: '
      f'pass --bins {",".join(labels)}, or freeze them for those'
    )
  mask_manifest.verify(root, frozen)
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
  files = data_masks.FileMasks(str(root))
  # In the manifest's order, which is not that of the names.
  ordered = tuple(str(root / f.name) for f in frozen.files)
  object.__setattr__(files, 'paths', ordered)
  masks = _Files(files, *size)
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
        '. Their black parts would fit: --invert_mask?' if inverted else '',
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
) -> dict[Bin, Callable[[int], np.ndarray]]:
  """Each image its own mask; they are one bin, since an image has one mask and not one a bin."""
  if images is None:
    raise ValueError(
      f'masks {files.path} belong to images by name: give the images, mask_sets.make(..., images=)'
    )
  same_name = isinstance(files, data_masks.PairMasks)
  pairs = mask_folders.pairs(files.path, files.paths, same_name)
  order = [pairs.find(images.path(i), files.variant) for i in range(len(images))]
  masks = _Files(files, height, width)
  shares = np.array([masks.read(k).mean() for k in order])
  (b,) = bins if len(bins) == 1 else (Bin(0.0, 1.0),)
  outside = [i for i, share in enumerate(shares) if not b.holds(share)]
  if outside:
    text = (
      f'masks {files.path}: {len(outside)} of {len(shares)} have no hole of {b.label} % of the '
      f'image, as that of {images.path(outside[0])} with {100 * shares[outside[0]]:.1f} %'
    )
    if len(bins) == 1:
      raise ValueError(text + ': choose another bin')
    logging.warning('%s', text)
  logging.info(
    'masks %s: each of %d images has its own by name, holes of %.1f to %.1f %%; one bin of all',
    files.path, len(order), 100 * shares.min(), 100 * shares.max(),
  )  # fmt: skip
  return {_plain(b): _InOrder(masks, order, files.path)}


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
