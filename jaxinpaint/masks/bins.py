"""Bins: the ranges of hole shares by which a table of results is divided."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Bin:
  """Masks whose hole covers a share of the image in (low, high].

  Attributes:
    low: share of the image.
    high: likewise.
    masks: spec of this bin's own masks, if a protocol has several kinds (the survey has centre
      squares of 10 % and random holes of 10 %); '': the protocol's.
    name: name of the bin ('center 10'); '': its range in percent.
    published: 'MASK PERCENT' of the rows of published.csv to show beside it, if these differ from
      the bin's own.
  """

  low: float
  high: float
  masks: str = ''
  name: str = ''
  published: str = ''

  @property
  def label(self) -> str:
    """The name, or '10-20', in percent."""
    return self.name or f'{100 * self.low:g}-{100 * self.high:g}'

  def matches(self, mask: str, percent: str) -> bool:
    """Whether a row of published.csv with these holes belongs to this bin."""
    words = f'{mask} {percent}'.strip()
    if self.published:
      return words == self.published
    return words == self.label or (not self.name and percent == self.label)

  def holds(self, share: float) -> bool:
    """Whether a mask of this share of hole belongs here."""
    return self.low < share <= self.high
