"""In which parts a large picture is completed: whole, reduced, in windows or in tiles.

  plan = Strategy('auto').plan(hole)           # of one picture; reads nothing but its mask
  plan.sentence                                # what was chosen, and why

The strategies are those that IOPaint made known (https://www.iopaint.com), with its margin:
  - original: the whole picture as it is. Memory grows with its pixels.
  - resize: the whole picture, reduced. What fills the hole is enlarged, so it is less sharp.
  - crop: a window around each hole, at full resolution. Holes near each other share a window, and
    windows longer than the limit are reduced.
  - boxed: one window around all holes, for networks of one size: how MI-GAN's authors complete
    large pictures (`boxed`). A square, but at the rim of the picture, and stretched to the size.
  - tile: overlapping tiles wherever there is hole, blended into each other. A tile that is mostly
    hole reads a larger part of the picture, reduced to its size.
  - auto: a picture that is not longer than the limit is completed whole. In a larger one each hole
    gets a window if that is not longer than the limit, tiles if the hole is long and narrow (a
    scratch), else a window that is reduced. So is that of a hole wider than 384 pixels, to `HABIT`:
    networks that are trained on pictures of 256 pixels continue structures over no longer a
    distance. Where such a window is most of the picture, and for networks that need the whole
    picture, the whole is reduced.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from jaxinpaint.predictor import Size, gather

KINDS = ('auto', 'original', 'resize', 'crop', 'boxed', 'tile')
LIMIT = 1024  # the longest side that a network sees, unless a strategy says otherwise
CROP_MARGIN = 128
TILE = 512
LEAST_TILE = 64
# The strategies that a number is for; the others would ignore it.
_FOR = {
  'crop_margin': ('auto', 'crop', 'boxed'),
  'tile': ('auto', 'tile'),
  'max_side': ('resize', 'crop'),
}
# The width in pixels that `auto` reduces holes to ...
HABIT = 256
# ... that are wider than this: less is not worth another size of windows.
_WIDE = 384
# Sides of windows are multiples of it, so that few programs are compiled.
_GRAIN = 64
# Holes that touch the same or neighbouring cells of so many pixels are one.
_CELL = 32
# Larger cells are taken while there are more holes: merging takes a time that grows with n^2.
_MOST_HOLES = 256
# A hole is narrow if it is no wider than this share of a tile.
_NARROW = 1 / 4
# A window that covers this share of the picture is the picture.
_MOST = 2 / 3


class Window(NamedTuple):
  """A rectangle of a picture."""

  top: int
  left: int
  height: int
  width: int

  @property
  def slices(self) -> tuple[slice, slice]:
    """Of rows and columns."""
    bottom, right = self.top + self.height, self.left + self.width
    return slice(self.top, bottom), slice(self.left, right)

  def within(self, other: 'Window') -> 'Window':
    """The same rectangle, counted from another one's corner."""
    return Window(self.top - other.top, self.left - other.left, self.height, self.width)


@dataclasses.dataclass(frozen=True)
class Part:
  """What a network completes at once.

  Attributes:
    read: what it sees ...
    limit: ... reduced so that no side is longer, and what it completes is enlarged again.
    write: where its completion is used, within `read`.
    own: bool[h,w] of `write`, the pixels of the hole that this part fills.
    weights: f32[h,w] of `write`, its share in them: over all parts these sum to 1. None: it fills
      them alone.
  """

  read: Window
  limit: int | None
  write: Window
  own: np.ndarray
  weights: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
  """How one picture is completed.

  Attributes:
    kind: 'original', 'resize', 'crop', 'boxed' or 'tile'.
    limit: the whole picture is reduced so that no side is longer; None: it is not.
    parts: of a picture that is not completed whole; its network sees one after another.
    sentence: what is done, and why.
  """

  kind: str
  limit: int | None
  parts: tuple[Part, ...]
  sentence: str


@dataclasses.dataclass(frozen=True)
class Strategy:
  """How pictures are completed by one network.

  Attributes:
    kind: one of `KINDS`.
    crop_margin: known pixels on each side of a hole in its window; with `auto` and `crop` at least
      half as many as the hole is long. None: `CROP_MARGIN`.
    tile: side of the tiles. None: `TILE`, or that of the network if it takes one size alone; where
      neither is given, no more than `default_limit`.
    max_side: of `resize` and `crop`, the longest side that the network sees. With `auto` it means
      resize, as before there were others. None: `default_limit`.
    side: of a network that takes one size alone; its windows are squares. 0: of others.
    whole_picture: of a network that needs the whole picture.
    default_limit: the longest side that the network sees where `max_side` says none; `original` has
      no limit.
  """

  kind: str = 'auto'
  crop_margin: int | None = None
  tile: int | None = None
  max_side: int | None = None
  side: int = 0
  whole_picture: bool = False
  default_limit: int = LIMIT

  def __post_init__(self):
    """Raises ValueError for what is out of range, or would be ignored."""
    if self.kind not in KINDS:
      raise ValueError(f'strategy {self.kind!r} must be one of: {", ".join(KINDS)}')
    if self.default_limit < LEAST_TILE:
      raise ValueError(f'default_limit {self.default_limit} must be at least {LEAST_TILE}')
    if self.margin < 0:
      raise ValueError(f'crop_margin {self.margin} must be at least 0')
    if self.tile_side < LEAST_TILE and not self.side:
      raise ValueError(f'tile {self.tile} must be at least {LEAST_TILE}')
    if self.side and self.tile not in (None, self.side):
      raise ValueError(
        f'tile {self.tile}: this network takes {self.side} x {self.side} pixels alone; leave it out'
      )
    if self.kind == 'boxed' and not self.side:
      raise ValueError(
        'strategy boxed is for networks of one size, and this one takes any: choose crop'
      )
    resizes = self.kind == 'auto' and self.max_side is not None
    kind = 'resize' if resizes else self.kind
    why = ', which max_side alone means' if resizes else ''
    for name, kinds in _FOR.items():
      if getattr(self, name) is not None and kind not in kinds:
        raise ValueError(
          f'{name} means nothing to the strategy {kind}{why}: leave it out, or choose '
          + ' or '.join(kinds)
        )

  @property
  def limit(self) -> int | None:
    """The longest side that the network sees; None: any."""
    return None if self.kind == 'original' else self.max_side or self.default_limit

  @property
  def margin(self) -> int:
    """Known pixels on each side of a hole."""
    return CROP_MARGIN if self.crop_margin is None else self.crop_margin

  @property
  def tile_side(self) -> int:
    """The side of the tiles."""
    return self.side or (min(TILE, self.default_limit) if self.tile is None else self.tile)

  def completes_whole(self, size: Size) -> bool:
    """Whether pictures of this size are completed whole, whatever their hole is."""
    if self.kind == 'auto':
      return self.max_side is not None or self.whole_picture or max(size) <= self.default_limit
    return self.kind in ('original', 'resize')

  def reduces(self, size: Size) -> bool:
    """Whether pictures of this size are reduced as a whole, whatever their hole is."""
    return self.completes_whole(size) and self.limit is not None and max(size) > self.limit

  def plan(self, hole: np.ndarray) -> Plan:
    """The plan for a picture with this hole, bool[H,W], of which some is hole and some is not."""
    height, width = hole.shape
    if self.completes_whole(hole.shape):
      return self._whole(hole.shape)
    if self.kind == 'tile':
      parts = tuple(self._tiles(hole, Window(0, 0, height, width), hole))
      return Plan('tile', None, parts, f'{_count(len(parts), "tile")} of {self.tile_side} pixels')
    if self.kind == 'boxed':
      return self._boxed(hole)
    return self._windows(hole)

  def _whole(self, size: Size, why: str = '') -> Plan:
    if self.kind == 'auto' and self.whole_picture:
      why = ': the network needs the whole picture'
    if self.limit is None or max(size) <= self.limit:
      return Plan('original', self.limit, (), 'completed whole')
    return Plan('resize', self.limit, (), f'completed whole, reduced to {self.limit} pixels{why}')

  def _windows(self, hole: np.ndarray) -> Plan:
    """Of `crop`, and of `auto` in large pictures."""
    holes = list(_holes(hole, self.margin, self.limit))
    wanted = [self._window_size(box) for box, _ in holes]
    # Windows that fit share a size where that costs less than a compilation.
    sizes = gather([size for size in wanted if max(size) <= self.limit], few=1)
    parts: list[Part] = []
    tiled, reduced = 0, 0
    for (box, own), size in zip(holes, wanted, strict=True):
      window = around(box, *sizes.get(size, size), hole.shape)
      longest, limit = max(window.height, window.width), self.limit
      if self.kind == 'auto':
        hole_width = 2 * _half_width(own)
        if longest > limit and hole_width <= self.tile_side * _NARROW:
          tiles = list(self._tiles(hole, box, own))
          parts += tiles
          tiled += len(tiles)
          continue
        if longest > limit and window.height * window.width > _MOST * hole.size:
          return self._whole(hole.shape, f': a hole of {box.width} x {box.height} takes most of it')
        if hole_width > _WIDE and not self.side:
          habitual = round(longest * HABIT / hole_width)
          limit = min(limit, -(-habitual // _GRAIN) * _GRAIN)
      reduced += longest > limit
      parts.append(Part(window, limit, box, own))
    return self._in_words(parts, tiled, reduced, hole.shape)

  def _boxed(self, hole: np.ndarray) -> Plan:
    window, box = boxed(hole, self.side, self.margin), _bounds(hole)
    part = Part(window, None, box, hole[box.slices])
    size = f'{window.width} x {window.height}'
    how = '' if (self.side,) * 2 == window[2:] else f', resized to {self.side} x {self.side}'
    sentence = f'completed in one window of {size} pixels around all holes{how}'
    return Plan('boxed', None, (part,), sentence)

  def _in_words(self, parts: list[Part], tiled: int, reduced: int, size: Size) -> Plan:
    said = []
    if full := len(parts) - tiled - reduced:
      how = f'resized to {self.side} x {self.side}' if self.side else 'at full resolution'
      said.append(f'{_count(full, "window")} {how}')
    if reduced:
      said.append(f'{_count(reduced, "window")} around wide holes, reduced')
    if tiled:
      said.append(f'{_count(tiled, "tile")} of {self.tile_side} pixels along narrow holes')
    sentence = f'{size[1]} x {size[0]} pixels, completed in {" and ".join(said)}'
    return Plan('tile' if tiled else 'crop', None, tuple(parts), sentence)

  def _window_size(self, box: Window) -> Size:
    """(height, width) of the window around a hole, which may be longer than the picture."""
    margin = max(self.margin, max(box.height, box.width) // 2)
    sides = box.height + 2 * margin, box.width + 2 * margin
    if self.side:
      sides = (max(*sides, self.side),) * 2
    height, width = (-(-side // _GRAIN) * _GRAIN for side in sides)
    return height, width

  def _tiles(self, hole: np.ndarray, box: Window, own: np.ndarray) -> Iterator[Part]:
    """Tiles over the part `box` of a picture, wherever there is something of `own`, bool[h,w].

    Of what a network makes of a tile, the outer eighth is not used: there it sees one side only.
    """
    tile = self.tile_side
    rows, columns = (_axis(length, tile - 2 * (tile // 8)) for length in box[2:])
    for top, down in rows:
      for left, across in columns:
        write = Window(top, left, len(down), len(across))
        inside = own[write.slices]
        if not inside.any():
          continue
        write = Window(box.top + top, box.left + left, len(down), len(across))
        side = tile
        read = around(write, side, side, hole.shape)
        while hole[read.slices].mean() > 1 / 2 and max(read[2:]) < max(hole.shape):
          side *= 2
          read = around(write, side, side, hole.shape)
        yield Part(read, tile, write, inside, np.outer(down, across))


def boxed(hole: np.ndarray, side: int, padding: int) -> Window:
  """The window around all that is hole, as MI-GAN's exported pipeline cuts it (padding 128).

  Sargsyan, Navasardyan, Xu, Shi: "MI-GAN: A Simple Baseline for Image Inpainting on Mobile
  Devices", ICCV 2023. It has `side` pixels, or `padding` more than the hole on each side of it. As
  many as would lie outside of the picture are added on both sides, as far as there are some.

  Differs from the reference code in what follows: the window is resized as any picture of these
  networks (`Predictor`), and known pixels stay as they are, where the pipeline takes bilinear
  samples and blends by a blurred mask.

  Args:
    hole: bool[H,W], of which some is True.
    side: that the network takes.
    padding: around the hole.
  """
  box = _bounds(hole)
  # The reference does not count the last pixel; what the halves lack is added below.
  wanted = max(max(box.height, box.width) - 1 + 2 * padding, side)
  spans = []
  for first, count, length in zip(box[:2], box[2:], hole.shape, strict=True):
    middle = (2 * first + count - 1) // 2
    start, stop = max(middle - wanted // 2, 0), min(middle + wanted // 2, length)
    lacking = wanted - (stop - start)
    spans.append((max(start - lacking, 0), min(stop + lacking, length)))
  (top, bottom), (left, right) = spans
  return Window(top, left, bottom - top, right - left)


def around(box: Window, height: int, width: int, size: Size) -> Window:
  """The window of this size with the middle of `box`, shifted and cut to lie in the picture."""
  height, width = min(height, size[0]), min(width, size[1])
  top = box.top + box.height // 2 - height // 2
  left = box.left + box.width // 2 - width // 2
  top, left = np.clip(top, 0, size[0] - height), np.clip(left, 0, size[1] - width)
  return Window(int(top), int(left), height, width)


def _axis(length: int, tile: int) -> list[tuple[int, np.ndarray]]:
  """[(first pixel, f32[n] weights)] of tiles along one side; they overlap by a quarter or more."""
  tile = min(tile, length)
  count = 1 + -(-4 * (length - tile) // (3 * tile))
  starts = np.linspace(0, length - tile, count).round().astype(int).tolist()
  hat = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1))
  hat = np.minimum(hat, -(-tile // 4)).astype(np.float32)
  total = np.zeros(length, np.float32)
  for start in starts:
    total[start : start + tile] += hat
  return [(start, hat / total[start : start + tile]) for start in starts]


def _holes(hole: np.ndarray, margin: int, limit: int) -> Iterator[tuple[Window, np.ndarray]]:
  """(box, bool[h,w] of the box: its pixels) of each hole, or of several that share a window.

  Holes that touch the same or neighbouring cells are one. Then, again and again, two become one
  whose windows with `margin` have no fewer pixels than their common one, if that is not longer than
  `limit`.
  """
  cell = _CELL
  while True:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(_cells(hole, cell), connectivity=8)
    if count - 1 <= _MOST_HOLES:
      break
    cell *= 2

  def pixels(box: Window, numbers: list[int]) -> np.ndarray:
    rows, columns = (np.arange(part.start, part.stop) // cell for part in box.slices)
    return hole[box.slices] & np.isin(labels, numbers)[np.ix_(rows, columns)]

  bounds = []
  for number in range(1, count):
    left, top, width, height = (cell * int(n) for n in stats[number, :4])
    whole = Window(top, left, min(height, hole.shape[0] - top), min(width, hole.shape[1] - left))
    box = _bounds(pixels(whole, [number]))
    top, left = top + box.top, left + box.left
    bounds.append((top, left, top + box.height, left + box.width))
  for (top, left, bottom, right), group in _merged(np.array(bounds), margin, limit):
    box = Window(top, left, bottom - top, right - left)
    yield box, pixels(box, [number + 1 for number in group])


def _bounds(hole: np.ndarray) -> Window:
  """The smallest window with all that is hole, bool[H,W], of which some is True."""
  rows, columns = np.flatnonzero(hole.any(1)).tolist(), np.flatnonzero(hole.any(0)).tolist()
  return Window(rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0])


def _cells(hole: np.ndarray, cell: int) -> np.ndarray:
  """uint8[h,w], 1 for each cell of so many pixels that touches the hole."""
  height, width = hole.shape
  rows = np.logical_or.reduceat(hole, np.arange(0, height, cell), axis=0)
  return np.logical_or.reduceat(rows, np.arange(0, width, cell), axis=1).astype(np.uint8)


def _merged(bounds: np.ndarray, margin: int, limit: int) -> Iterator[tuple[list[int], list[int]]]:
  """(top, left, bottom, right) of groups of `bounds`, i64[n,4], and which are in each."""
  groups = [[i] for i in range(len(bounds))]
  area = lambda low, high: (high - low + 2 * margin).prod(-1)
  while len(bounds) > 1:
    low = np.minimum(bounds[:, None, :2], bounds[:, :2])
    high = np.maximum(bounds[:, None, 2:], bounds[:, 2:])
    alone = area(bounds[:, :2], bounds[:, 2:])
    added = area(low, high) - alone[:, None] - alone
    never = ((high - low).max(-1) + 2 * margin > limit) | np.eye(len(bounds), dtype=bool)
    added[never] = 1
    a, b = sorted(divmod(int(added.argmin()), len(bounds)))
    if added[a, b] > 0:
      break
    bounds[a] = *low[a, b], *high[a, b]
    groups[a] += groups.pop(b)
    bounds = np.delete(bounds, b, 0)
  yield from zip(bounds.tolist(), groups, strict=True)


def _half_width(own: np.ndarray) -> float:
  """How far the innermost pixel of a hole, bool[h,w], is from what is known."""
  inside = np.pad(own, 1).astype(np.uint8)
  return float(cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max())


def _count(number: int, name: str) -> str:
  return f'{number} {name}{"" if number == 1 else "s"}'
