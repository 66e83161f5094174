"""Folders of masks as other projects have them: subfolders named by hole share, or image pairs.

masks/20%-40%/00012.png            the folder names the share of the hole (MISF, JPGNet)
test/dog.png, test/dog_mask000.png mask beside its image, several variants possible (LaMa)
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

_RANGE = re.compile(r'(?:[a-z_ ]*[_ ])?(\d+(?:\.\d+)?)\s*%?\s*[-_~]\s*(\d+(?:\.\d+)?)\s*%?', re.I)
_PAIR = re.compile(r'(.+)_mask(\d*)')


def share_range(name: str) -> tuple[float, float] | None:
  """'20%-40%', '20-40', '20~40%', 'mask_20-40' or '0.2-0.4' -> (0.2, 0.4); None for other names.

  Both numbers at most 1 are shares, larger ones percent; a percent sign settles it.
  """
  match = _RANGE.fullmatch(name.strip())
  if not match:
    return None
  low, high = (float(x) for x in match.groups())
  if '%' in name or high > 1:
    low, high = low / 100, high / 100
  return (low, high) if 0 <= low < high <= 1 else None


def by_range(root: str, paths: Sequence[str]) -> dict[tuple[float, float], list[int]]:
  """{(low, high): places in `paths`} by the nearest folder below `root` that is named by share."""
  by_range: dict[tuple[float, float], list[int]] = {}
  for k, path in enumerate(paths):
    folders = pathlib.PurePath(os.path.relpath(path, root)).parts[:-1]
    ranges = [r for r in map(share_range, folders) if r]
    if ranges:
      by_range.setdefault(ranges[-1], []).append(k)
  return by_range


def split_pair(path: str) -> tuple[str, str] | None:
  """'a/dog_mask001.png' -> ('a/dog', '001'); 'a/dog_mask.png' -> ('a/dog', ''); else None."""
  stem = os.path.splitext(path)[0]
  match = _PAIR.fullmatch(os.path.basename(stem))
  return (os.path.join(os.path.dirname(path), match[1]), match[2]) if match else None


def pair_masks(paths: Iterable[str]) -> set[str]:
  """The files that are masks beside their images: NAME_mask000.png with a NAME.png."""
  paths = list(paths)
  stems = {os.path.splitext(p)[0] for p in paths}
  return {p for p in paths if (pair := split_pair(p)) and pair[0] in stems}


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Finds an image's mask by the image's name.

  Attributes:
    root: folder of the masks, for messages.
    by_stem: {path of the image without its ending, as if it lay beside its masks: {variant: place
      of the mask}}.
    by_name: {name of the image without folder and ending: the keys of by_stem that end in it}.
  """

  root: str
  by_stem: Mapping[str, Mapping[str, int]]
  by_name: Mapping[str, Sequence[str]]

  def find(self, image: str, variant: str = '') -> int:
    """The place of an image's mask.

    Args:
      image: path of the image.
      variant: '001' for NAME_mask001.png; '': 000 where it exists, else NAME_mask.png, else the
        lowest.

    Raises:
      ValueError: there is none, not this variant, or images of other folders have the same name.
    """
    # Absolute, because the two folders may have been given in two ways.
    stem = os.path.splitext(os.path.abspath(image))[0]
    if stem not in self.by_stem:
      same = self.by_name.get(os.path.basename(stem), ())
      if not same:
        raise ValueError(
          f'masks {self.root}: none belongs to the image {image}: its mask must be named '
          f'{os.path.basename(stem)}_mask000.png or {os.path.basename(stem)}_mask.png'
        )
      if len(same) > 1:
        raise ValueError(
          f'masks {self.root}: several belong to the image {image}, of {same[0]} and {same[1]}: '
          'keep the masks beside their images, or in one folder'
        )
      stem = same[0]
    variants = self.by_stem[stem]
    if variant:
      wanted = [k for v, k in variants.items() if v.isdigit() and int(v) == int(variant)]
      if not wanted:
        raise ValueError(
          f'masks {self.root}: the image {image} has no variant {variant}; it has '
          f'{", ".join(f"_mask{v}" for v in sorted(variants))}'
        )
      return wanted[0]
    return variants[min(variants, key=lambda v: (v != '000', v != '', v))]


def pairs(root: str, paths: Sequence[str], same_name: bool = False) -> Pairs:
  """Masks by the images that they belong to.

  Args:
    root: of the masks, for messages.
    paths: of the masks.
    same_name: a mask that is not named NAME_mask... belongs to the image of its own name.
  """
  by_stem: dict[str, dict[str, int]] = {}
  for k, path in enumerate(paths):
    path = os.path.abspath(path)
    pair = split_pair(path)
    if not pair and not same_name:
      continue
    stem, variant = pair or (os.path.splitext(path)[0], '')
    by_stem.setdefault(stem, {}).setdefault(variant, k)
  by_name: dict[str, list[str]] = {}
  for stem in by_stem:
    by_name.setdefault(os.path.basename(stem), []).append(stem)
  return Pairs(root, by_stem, by_name)


def agrees(share: float, named: tuple[float, float]) -> bool:
  """Whether a measured share is in the range that a folder names, within a hundredth."""
  return named[0] - 0.01 <= share <= named[1] + 0.01
