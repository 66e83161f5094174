"""What every mask family shares: its name, and keeping the hole's share within a range."""

import dataclasses

import cv2
import numpy as np

_TRIES = 32
_MAX_UNION = 32


def check_area(area: object, what: str = 'area') -> tuple[float, float]:
  """(lo, hi) of a hole-share range; raises ValueError unless 0 <= lo < hi <= 1."""
  try:
    lo, hi = (float(a) for a in area)
  except (TypeError, ValueError) as error:
    raise ValueError(f'{what} {area!r} must be two numbers, as (0.1, 0.4)') from error
  if not 0 <= lo < hi <= 1:
    hint = ' (percent? divide by 100)' if hi > 1 else ''
    raise ValueError(f'{what} {area!r} must satisfy 0 <= low < high <= 1{hint}')
  return lo, hi


@dataclasses.dataclass(frozen=True)
class MaskSampler:
  """A family of random masks; `sampler(rng, height, width)` draws one.

  The only source of randomness is the generator that is passed, so the same generator state gives
  the same mask in any process.

  Attributes:
    area: (lo, hi): the hole's share of the image is in (lo, hi]. None: as the family draws it.
      A mask outside the range is drawn again. After 32 misses, masks are united until the hole is
      large enough. After 32 more misses, the last mask is grown or shrunk (by Euclidean distance to
      its border) to a share drawn uniformly from the range.
  """

  area: tuple[float, float] | None = dataclasses.field(default=None, kw_only=True)

  def __post_init__(self):
    if self.area is not None:
      object.__setattr__(self, 'area', check_area(self.area, f'area of masks {self.kind!r}'))

  @property
  def kind(self) -> str:
    """The family's word in a specification."""
    raise NotImplementedError

  @property
  def name(self) -> str:
    """Short and readable: the family, its area range."""
    return self.kind if self.area is None else f'{self.kind}:{self.area[0]:g}-{self.area[1]:g}'

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One mask of the family, whatever its area: uint8[H, W] in {0, 1}."""
    raise NotImplementedError

  def check(self) -> None:
    """Warns if the masks look wrong; only files can."""

  def __call__(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One mask within the area range.

    Returns:
      uint8[height, width] in {0, 1}, 1 = hole.

    Raises:
      ValueError: sides below 8, or no whole number of pixels lies in the range at this size.
    """
    if height < 8 or width < 8:
      raise ValueError(f'masks need sides of at least 8 pixels, got {height} x {width}')
    if self.area is None:
      return self.draw(rng, height, width)
    lo, hi = (a * height * width for a in self.area)
    least, most = int(np.floor(lo)) + 1, int(np.floor(hi))
    if least > most:
      raise ValueError(
        f'no mask of {height} x {width} pixels has a hole share in ({self.area[0]:g}, '
        f'{self.area[1]:g}]: widen the area range'
      )
    for union in (False, True):
      for _ in range(_TRIES):
        mask = self.draw(rng, height, width)
        hole = int(mask.sum())
        for _ in range(_MAX_UNION if union else 0):
          if hole >= least:
            break
          mask |= self.draw(rng, height, width)
          hole = int(mask.sum())
        if least <= hole <= most:
          return mask
    return grow_to(mask, int(rng.integers(least, most, endpoint=True)))


def grow_to(mask: np.ndarray, hole: int) -> np.ndarray:
  """Dilates or erodes a mask by Euclidean distance until exactly `hole` pixels are 1.

  Args:
    mask: uint8[H, W] in {0, 1}. An empty one grows from the centre.
    hole: wanted count of ones.
  """
  height, width = mask.shape
  if not mask.any():
    mask = mask.copy()
    mask[height // 2, width // 2] = 1
  # Distance inside the hole minus distance outside of it: its largest values are the hole's core.
  distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
  # A full mask has no border of its own: the image's is taken.
  inside = np.pad(mask, 1) if mask.all() else np.pad(mask, 1, mode='edge')
  inside = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
  distance -= inside[1:-1, 1:-1]
  order = np.argsort(distance, axis=None, kind='stable')
  out = np.zeros(mask.size, np.uint8)
  out[order[:hole]] = 1
  return out.reshape(height, width)
