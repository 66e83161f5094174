"""What is in a folder of masks: shares, sizes, polarity, problems, a picture. Changes nothing."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxinpaint.masks import (
  files as mask_files,
)
from jaxinpaint.masks import (
  folders,
)
from jaxinpaint.masks import (
  manifest as mask_manifest,
)
from jaxinpaint.masks import (
  spec as masks,
)
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.runtime import digest

# The shares that usually divide test sets, and the ranges outside of them.
EDGES = (0.0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0)


@dataclasses.dataclass(frozen=True)
class Looked:
  """The properties of one mask file.

  Attributes:
    name: below the folder.
    height: of the file.
    width: likewise.
    white: share of pixels brighter than 127.
    rim: that share along the image's border.
    grey: share of pixels that are neither 0 nor 255.
    any_white: share of pixels brighter than 0, which another threshold would make white.
    digest: of the thresholded pixels.
  """

  name: str
  height: int
  width: int
  white: float
  rim: float
  grey: float
  any_white: float
  digest: str


@dataclasses.dataclass(frozen=True)
class Polarity:
  """Which value is the hole.

  Attributes:
    hole: 'white', 'black' or 'unclear'.
    sure: 'certain', 'likely' or 'a guess'.
    why: the evidence, a sentence.
  """

  hole: str
  sure: str
  why: str


@dataclasses.dataclass(frozen=True)
class Inspection:
  """The result of an inspection.

  Attributes:
    root: the folder, or the specification.
    files: those that could be read.
    unreadable: [(name, why)].
    named: {(low, high): places in files} of folders named by share.
    pairs: number of masks that lie beside their images.
    manifest: of a frozen set.
    trouble: how the set differs from the frozen one; '': it does not, or was never frozen.
    drawn: masks of a specification, not files.
  """

  root: str
  files: tuple[Looked, ...]
  unreadable: tuple[tuple[str, str], ...] = ()
  named: dict[tuple[float, float], list[int]] = dataclasses.field(default_factory=dict)
  pairs: int = 0
  manifest: mask_manifest.Manifest | None = None
  trouble: str = ''
  drawn: bool = False

  def polarity(self) -> Polarity:
    """Which value is the hole, by the names of folders, else by shares and borders."""
    if self.manifest or self.drawn:
      return Polarity('white', 'certain', 'this library draws and freezes masks with white holes')
    if self.named:
      votes = collections.Counter()
      for named, places in self.named.items():
        for k in places:
          fits = [
            name
            for name, share in (('white', self.files[k].white), ('black', 1 - self.files[k].white))
            if folders.agrees(share, named)
          ]
          votes[fits[0] if len(fits) == 1 else 'both' if fits else 'neither'] += 1
      decided = votes['white'] + votes['black']
      hole = 'white' if votes['white'] >= votes['black'] else 'black'
      why = (
        f'of the folders named by share, {votes["white"]} files fit with white holes, '
        f'{votes["black"]} with black ones, {votes["both"]} with either, {votes["neither"]} with '
        'neither'
      )
      total = sum(votes.values())
      if decided and votes[hole] >= 0.95 * decided and votes['neither'] < 0.05 * total:
        return Polarity(hole, 'certain' if decided >= 10 else 'likely', why)
      return Polarity(hole if decided else 'unclear', 'a guess', why)
    # A hole is mostly the smaller part, and mostly away from the border.
    small = [f.name for f in self.files if f.white < 0.5 and f.rim < 0.5]
    large = [f.name for f in self.files if f.white > 0.5 and f.rim > 0.5]
    white, black, n = len(small), len(large), len(self.files)
    why = (
      f'white is the smaller part and rare along the border in {white} of {n} files, black in '
      f'{black}, mixed in {n - white - black}'
    )
    fewer = min(small, large, key=len)
    if fewer:
      why += f'; the other way round: {", ".join(fewer[:3])}' + (', ...' if fewer[3:] else '')
    first, hole = max((white, 'white'), (black, 'black'))
    if not n or first == 0 or first < 0.6 * n:
      return Polarity('unclear', 'a guess', why)
    return Polarity(hole, 'likely' if first >= 0.9 * n and n >= 10 else 'a guess', why)

  def shares(self, hole: str = 'white') -> np.ndarray:
    """Hole share of each file."""
    white = np.array([f.white for f in self.files])
    return 1 - white if hole == 'black' else white

  def duplicates(self) -> list[list[str]]:
    """Names of files with the same pixels after thresholding."""
    groups: dict[str, list[str]] = {}
    for file in self.files:
      groups.setdefault(file.digest, []).append(file.name)
    return [names for names in groups.values() if len(names) > 1]


def inspect(path: str) -> Inspection:
  """Reads every mask of a folder or .txt list.

  Raises:
    FileNotFoundError, ValueError: no such folder, or no masks in it.
  """
  root = pathlib.Path(path).expanduser()
  sampler = masks.FileMasks(str(path))
  base = root if root.is_dir() else root.parent
  paths = [str(p) for p in sampler.paths]
  files, kept, unreadable = [], [], []
  for p in paths:
    name = pathlib.Path(p).relative_to(base).as_posix() if p.startswith(str(base)) else p
    try:
      grey, _ = mask_files.read_grey(p)
    except UnreadableImage as error:
      unreadable.append((name, error.why))
      continue
    files.append(_look(name, grey))
    kept.append(p)
  manifest, trouble = None, ''
  if root.is_dir():
    try:
      manifest = mask_manifest.read(root)
      if manifest:
        mask_manifest.verify(root, manifest)
    except ValueError as error:
      trouble = str(error)
  return Inspection(
    root=str(path),
    files=tuple(files),
    unreadable=tuple(unreadable),
    named={} if manifest or trouble else folders.by_range(str(base), kept),
    pairs=len(paths) if sampler.paired else 0,
    manifest=manifest,
    trouble=trouble,
  )


def samples(spec: str, drawn: Sequence[np.ndarray]) -> Inspection:
  """The same of masks that were drawn; their holes are white."""
  looked = tuple(_look(f'{i}', m * np.uint8(255)) for i, m in enumerate(drawn))
  return Inspection(spec, looked, drawn=True)


def _look(name: str, grey: np.ndarray) -> Looked:
  hole = grey > 127
  rim = np.concatenate([hole[0], hole[-1], hole[1:-1, 0], hole[1:-1, -1]])
  return Looked(
    name=name,
    height=grey.shape[0],
    width=grey.shape[1],
    white=float(hole.mean()),
    rim=float(rim.mean()),
    grey=float(((grey > 0) & (grey < 255)).mean()),
    any_white=float((grey > 0).mean()),
    digest=digest.of(repr(hole.shape).encode(), np.packbits(hole)),
  )


def describe(inspection: Inspection) -> str:
  """Lines of text."""
  lines = [f'{inspection.root}: {len(inspection.files)} masks']
  if inspection.pairs:
    lines[0] += f' beside their images ({inspection.pairs} files named NAME_mask...)'
  sizes = collections.Counter((f.height, f.width) for f in inspection.files).most_common()
  lines.append(
    'sizes: ' + ', '.join(f'{n} of {h} x {w}' for (h, w), n in sizes[:6])
    + (f' and {len(sizes) - 6} more sizes' if len(sizes) > 6 else '')
  )  # fmt: skip
  polarity = inspection.polarity()
  says = 'unclear' if polarity.hole == 'unclear' else f'{polarity.hole} is the hole'
  lines.append(f'polarity: {says} ({polarity.sure}): {polarity.why}')
  if polarity.hole == 'black':
    lines.append('  read them with invert=true, or --invert_mask; white is the hole otherwise')
  shares = inspection.shares(polarity.hole)
  lines.append(f'share of hole (with {"black" if polarity.hole == "black" else "white"} holes):')
  lines += _histogram(shares)
  lines += _grey_lines(inspection)
  lines += _folder_lines(inspection, shares)
  same = inspection.duplicates()
  if same:
    lines.append(
      f'same pixels: {sum(len(s) - 1 for s in same)} files repeat another, as {same[0][0]} and '
      f'{same[0][1]}'
    )
  if inspection.unreadable:
    lines.append(f'unreadable: {len(inspection.unreadable)} files')
    lines += [f'  {name}: {why}' for name, why in inspection.unreadable[:10]]
  if inspection.trouble:
    lines.append(f'manifest: FAILED: {inspection.trouble}')
  elif inspection.manifest:
    m = inspection.manifest
    lines.append(
      f'manifest: verified; {m.spec or "own masks of each bin"}, seed {m.seed}, {m.count} for each '
      f'of {", ".join(b.label for b in m.bins)}\nSHA-256: {m.sha256}'
    )
  return '\n'.join(lines)


def bin_of(share: float) -> int:
  """Place in EDGES of the range (low, high] that a share is in; -1: empty."""
  return int(np.searchsorted(EDGES, share, side='left')) - 1


def label_of(place: int) -> str:
  """'10-20 %' of `bin_of`."""
  if place < 0:
    return 'empty'
  return f'{100 * EDGES[place]:g}-{100 * EDGES[place + 1]:g} %'


def _histogram(shares: np.ndarray) -> list[str]:
  places = [bin_of(s) for s in shares]
  most = max((places.count(b) for b in range(-1, len(EDGES) - 1)), default=1) or 1
  lines = []
  for b in range(-1, len(EDGES) - 1):
    n = places.count(b)
    if b >= 0 or n:
      lines.append(f'  {label_of(b):>9} {n:6d} {"#" * round(40 * n / most)}'.rstrip())
  full = sum(s == 1 for s in shares)
  if full:
    lines.append(f'  {full} of them are full: no pixel is known')
  return lines


def _grey_lines(inspection: Inspection) -> list[str]:
  grey = [f for f in inspection.files if f.grey > 0]
  if not grey:
    return ['grey pixels: none']
  worst = max(grey, key=lambda f: f.any_white - f.white)
  return [
    f'grey pixels: {len(grey)} files have some (at most {100 * max(f.grey for f in grey):.2f} % of '
    'a file), cut at 127: brighter is white',
    f'  cutting above 0 instead would make up to {100 * (worst.any_white - worst.white):.2f} % of '
    f'the image more white ({worst.name})',
  ]


def _folder_lines(inspection: Inspection, shares: np.ndarray) -> list[str]:
  lines = []
  for named, places in sorted(inspection.named.items()):
    other = sum(not folders.agrees(shares[k], named) for k in places)
    lines.append(
      f'  folder {100 * named[0]:g}-{100 * named[1]:g} %: {len(places)} files'
      + (f', {other} with another share' if other else '')
    )
  return ['folders named by share:', *lines] if lines else []


_THUMBNAIL = 96
_COLUMNS = 8


def sheet(shares: Sequence[float], read: Callable[[int], np.ndarray]) -> Image.Image:
  """A contact sheet: a row for each range of shares with up to eight masks, shares below.

  Args:
    shares: of hole, of each mask.
    read: place of a mask -> uint8[H, W] as in the file; called for those that are shown.
  """
  rows: dict[int, list[int]] = {}
  for k in np.argsort(shares, kind='stable'):
    rows.setdefault(bin_of(shares[k]), []).append(int(k))
  cell, left, text = _THUMBNAIL + 8, 76, 16
  canvas = Image.new('RGB', (left + _COLUMNS * cell, len(rows) * (cell + text) + 4), (96, 96, 128))
  pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
  for row, (place, members) in enumerate(rows.items()):
    n = min(_COLUMNS, len(members))
    y = 4 + row * (cell + text)
    pen.text((4, y), label_of(place), 'white', font)
    pen.text((4, y + 18), f'{len(members)} masks', 'white', font)
    for column in range(n):
      k = members[column * len(members) // n]  # spread over the range's shares
      small = Image.fromarray(read(k))
      small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
      x = left + column * cell
      canvas.paste(small.convert('RGB'), (x, y))
      pen.text((x, y + _THUMBNAIL + 1), f'{100 * shares[k]:.1f} %', 'white', font)
  return canvas


def folder_sheet(inspection: Inspection) -> Image.Image:
  """The contact sheet of a folder that was inspected."""
  root = pathlib.Path(inspection.root).expanduser()
  base = root if root.is_dir() else root.parent
  read = lambda k: mask_files.read_grey(base / inspection.files[k].name)[0]
  return sheet(inspection.shares(inspection.polarity().hole), read)
