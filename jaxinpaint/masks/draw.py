"""Which mask image i of a test set gets: one rule for evaluations and for frozen sets.

Each mask has its own random generator, seeded with (seed, bin, i). So it depends on nothing else,
neither on the other images nor on the order in which masks are drawn.
"""

import dataclasses
import hashlib
from typing import Any

import numpy as np

from jaxinpaint.masks import spec as masks
from jaxinpaint.masks.sampler import MaskSampler


@dataclasses.dataclass(frozen=True)
class Drawn:
  """The masks of one bin: index of the image -> uint8[height, width], 1 = hole.

  Attributes:
    sampler: draws them.
    key: of the bin; mask i comes from `np.random.default_rng([*key, i])`.
    height: of the masks.
    width: likewise.
  """

  sampler: MaskSampler
  key: tuple[int, ...]
  height: int
  width: int

  def __call__(self, index: int) -> np.ndarray:
    """The mask of image `index`."""
    return self.sampler(np.random.default_rng([*self.key, index]), self.height, self.width)


def in_range(spec: Any, low: float, high: float, height: int, width: int, seed: int = 0) -> Drawn:
  """Masks of a specification, with a hole share in (low, high] instead of its own range."""
  return Drawn(with_area(masks.make(spec), (low, high)), range_key(seed, low, high), height, width)


def of_bin(spec: Any, low: float, high: float, height: int, width: int, seed: int = 0) -> Drawn:
  """Masks of a bin's own specification: an exact share is kept, otherwise as `in_range`.

  The generator's key is the masks' name. So bins of the same range with other masks, or of the same
  masks with other shares, are drawn independently.
  """
  sampler = masks.make(spec)
  if not has_share(sampler):
    sampler = with_area(sampler, (low, high))
  digest = hashlib.sha256(sampler.name.encode()).digest()
  return Drawn(sampler, (seed, int.from_bytes(digest[:8], 'little')), height, width)


def range_key(seed: int, low: float, high: float) -> tuple[int, int, int]:
  """The key of the random numbers for the bin (low, high] and a seed."""
  return seed, round(1e6 * low), round(1e6 * high)


def has_share(sampler: MaskSampler) -> bool:
  """Whether each hole has one exact share ('center:0.25')."""
  return getattr(sampler, 'share', None) is not None


def with_area(sampler: MaskSampler, area: tuple[float, float] | None) -> MaskSampler:
  """The sampler with this range of hole shares instead of its own, or its parts' own."""
  changes: dict[str, Any] = {'area': area}
  fields = {f.name for f in dataclasses.fields(sampler)}
  if 'of' in fields:  # a mixture: its draws as a whole are brought into the range
    changes['of'] = tuple((weight, with_area(part, None)) for weight, part in sampler.of)
  if 'share' in fields and area is not None:  # an exact share gives way to the range
    changes['share'] = None
  return dataclasses.replace(sampler, **changes)
