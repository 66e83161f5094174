"""Which mask each test image gets, in each bin: the same for every predictor and every run.

A mask set is {bin: index of the image -> uint8[H, W], 1 = hole}. Its masks are either drawn, each
from its own generator of (seed, bin, image), or taken from a folder of files.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from jaxinpaint.data import masks as data_masks
from jaxinpaint.evaluation.protocols import Bin

MaskSet = Mapping[Bin, Callable[[int], np.ndarray]]


def make(
  spec: Any, bins: Sequence[Bin], height: int, width: int, *, seed: int = 0, invert: bool = False
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

  Raises:
    ValueError: unknown specification, or a bin that no mask falls into.
    FileNotFoundError: no such folder.
  """
  sampler = sampler_of(spec)
  if isinstance(sampler, data_masks.FileMasks):
    sampler = dataclasses.replace(sampler, invert=sampler.invert or invert)
    return _from_files(sampler, bins, height, width, seed)
  if invert:
    raise ValueError(f'only mask files can be inverted, not masks drawn as {sampler.name!r}')
  drawn = {b: _drawn(sampler, b, height, width, seed) for b in bins}
  for mask in drawn.values():
    mask(0)  # a bin that this size cannot reach fails here
  return drawn


def sampler_of(spec: Any) -> data_masks.MaskSampler:
  """`data.masks.make`, which may also be given the bare path of a folder."""
  if isinstance(spec, str) and pathlib.Path(spec).expanduser().is_dir():
    spec = f'folder:{spec}'
  return data_masks.make(spec)


def name_of(spec: Any) -> str:
  """What to call the masks of a specification in a report; the bins stand for the area."""
  sampler = sampler_of(spec)
  if isinstance(sampler, data_masks.FileMasks):
    return f'folder:{sampler.path}'
  return with_area(sampler, None).name


def _drawn(
  sampler: data_masks.MaskSampler, bin: Bin, height: int, width: int, seed: int
) -> Callable[[int], np.ndarray]:
  sampler = with_area(sampler, (bin.low, bin.high))
  key = _key(seed, bin)
  return lambda index: sampler(np.random.default_rng([*key, index]), height, width)


def _key(seed: int, bin: Bin) -> list[int]:
  return [seed, round(1e6 * bin.low), round(1e6 * bin.high)]


def with_area(
  sampler: data_masks.MaskSampler, area: tuple[float, float] | None
) -> data_masks.MaskSampler:
  """The sampler with this range of hole shares instead of its own, or its parts' own."""
  changes: dict[str, Any] = {'area': area}
  fields = {f.name for f in dataclasses.fields(sampler)}
  if 'of' in fields:  # a mixture: its draws as a whole are brought into the range
    changes['of'] = tuple((weight, with_area(part, None)) for weight, part in sampler.of)
  if 'share' in fields and area is not None:  # a centre square of fixed share
    changes['share'] = None
  return dataclasses.replace(sampler, **changes)


def _from_files(
  files: data_masks.FileMasks, bins: Sequence[Bin], height: int, width: int, seed: int
) -> MaskSet:
  """Each file in the bins that its measured share belongs to.

  The files of a bin, sorted by name, are shuffled once by (seed, bin), because published folders
  are sorted by share; image i gets the i-th of them, starting over where there are fewer.
  """
  files.check()
  read = lambda k: files.read(k, height, width)
  shares = np.array([read(k).mean() for k in range(len(files.paths))])
  result = {}
  for b in bins:
    chosen = [k for k, share in enumerate(shares) if b.holds(share)]
    if not chosen:
      raise ValueError(
        f'masks {files.path}: none has a hole of {b.label} % of the image; its {len(shares)} masks '
        f'have {100 * shares.min():.1f} to {100 * shares.max():.1f} %. Choose other bins'
        + ('' if files.invert else ', or pass --invert_mask if their holes are black')
      )
    logging.info('masks %s: %d files with %s %% of hole', files.path, len(chosen), b.label)
    order = np.random.default_rng(_key(seed, b)).permutation(chosen)
    result[b] = lambda i, order=order: read(order[i % len(order)])
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
