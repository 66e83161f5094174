"""A split of any source by name, without lists: every n-th image is held out.

As config.data.split, eval_split, or --split:

  'but every 10th'          all but those, to train on
  'every 10th'              images 1, 11, 21, ... of the source, in its order (files: by name)
  'every 10th, 48 crops'    48 squares at random places of these images, always the same ones
  'train but every 10th'    the same of a split, a subfolder or a split of tfds
"""

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from jaxinpaint.data.sources import Source

_FORM = re.compile(
  r'(?:(?P<split>(?!but )\S+) )?(?P<but>but )?every (?P<n>\d+)(?:st|nd|rd|th)'
  r'(?:, (?P<crops>\d+) crops)?'
)
# A crop is at least half as wide as its photograph is, and of this many pixels where there are.
_CROP_MIN_SIDE = 256


@dataclasses.dataclass(frozen=True)
class Part:
  """What a split of these forms names.

  Attributes:
    split: of the whole source.
    n: one image of so many is held out.
    rest: the images that are not held out.
    crops: how many squares are cut from the images; 0: the images as they are.
  """

  split: str
  n: int
  rest: bool
  crops: int

  def of(self, whole: 'Source', name: str) -> 'Source':
    """This part of a source.

    Args:
      whole: the source.
      name: of it, for the error.

    Raises:
      ValueError: nothing is left to train on.
    """
    held_out = range(0, len(whole), self.n)
    indices = tuple(i for i in range(len(whole)) if (i in held_out) != self.rest)
    if not indices:
      raise ValueError(
        f'{name} has 1 image, which is held out, so none is left to train on: give at least two, '
        'or measure on images from elsewhere, with --config.data.split= '
        '--config.data.eval_source=folder:PATH --config.data.eval_split='
      )
    return Crops(whole, indices, self.crops) if self.crops else Subset(whole, indices)


def parse(split: str) -> Part | None:
  """The part that a split names; None: it is the name of a split.

  Raises:
    ValueError: a number that cannot be.
  """
  form = _FORM.fullmatch(split.strip())
  if not form:
    return None
  n, crops = int(form['n']), int(form['crops'] or 0)
  if n < 2 or form['crops'] == '0':
    raise ValueError(
      f'split {split!r} must hold out every 2nd image or fewer, and cut at least 1 crop'
    )
  return Part(form['split'] or '', n, bool(form['but']), crops)


@dataclasses.dataclass(frozen=True)
class Subset:
  """Some images of a source: a source, see `sources.Source`."""

  whole: 'Source'
  indices: tuple[int, ...] = dataclasses.field(repr=False)

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, i: int) -> np.ndarray:
    return self.whole[self.indices[i]]

  def path(self, i: int) -> str:
    """See sources.Source."""
    return self.whole.path(self.indices[i])

  def encoded(self, i: int) -> bytes | None:
    """See sources.Source."""
    return self.whole.encoded(self.indices[i])


@dataclasses.dataclass(frozen=True)
class Crops:
  """Squares of some images of a source, as many of each image; the first n are of all images."""

  whole: 'Source'
  indices: tuple[int, ...] = dataclasses.field(repr=False)
  count: int

  def __len__(self) -> int:
    return self.count

  def _photo(self, i: int) -> int:
    if not 0 <= i < self.count:
      raise IndexError(i)
    order = np.random.default_rng(0).permutation(self.count)
    return self.indices[int(order[i]) * len(self.indices) // self.count]

  def __getitem__(self, i: int) -> np.ndarray:
    image = self.whole[self._photo(i)]
    height, width = image.shape[:2]
    short = min(height, width)
    rng = np.random.default_rng([0, i])
    side = int(rng.integers(min(short, max(short // 2, _CROP_MIN_SIDE)), short, endpoint=True))
    top = int(rng.integers(0, height - side, endpoint=True))
    left = int(rng.integers(0, width - side, endpoint=True))
    return image[top : top + side, left : left + side]

  def path(self, i: int) -> str:
    """The image's, with the number of the crop."""
    return f'{self.whole.path(self._photo(i))}#{i}'

  def encoded(self, i: int) -> None:
    """See sources.Source: an image is a part of a file."""
