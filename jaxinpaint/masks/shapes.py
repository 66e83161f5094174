"""Masks that are drawn: strokes, irregular lines, rectangles, boxes, the centre, exact shares.

All numbers of pixels below hold at the size their authors used (256, or the 512 of LaMa's *_512
sets). At another size lengths and widths are multiplied by min(height, width) / that size, so that
the shapes look the same and cover the same share.

Sources:
  DeepFill v2: Yu et al., Free-Form Image Inpainting with Gated Convolution, ICCV 2019,
    https://arxiv.org/abs/1806.03589, section 4.2 and the official release.
  LaMa: Suvorov et al., Resolution-robust Large Mask Inpainting with Fourier Convolutions,
    WACV 2022, https://arxiv.org/abs/2109.07161, and the official release's configurations.
"""

import dataclasses
import itertools
import math
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image, ImageDraw

from jaxinpaint.masks.sampler import MaskSampler, grow_to


def _scale(height: int, width: int, reference: int) -> float:
  return min(height, width) / reference


def _pixels(value: float, scale: float) -> int:
  return max(1, round(value * scale))


@dataclasses.dataclass(frozen=True)
class Strokes(MaskSampler):
  """Brush strokes of DeepFill v2: 1 to 3 polylines with round joints, drawn by Pillow.

  Per stroke 4 to 11 vertices; turns of mean 2 pi / 5, each side of the range widened by
  U(0, 2 pi / 15); steps N(r, r // 2) clipped to [0, 2 r] with r = diagonal / 8; width U(12, 40) at
  256 pixels.

  Attributes:
    box: unite with DeepFill's random box (a half-side square, each side shrunk by up to 1/8),
      as its training does.
  """

  min_strokes: int = 1
  max_strokes: int = 3
  min_vertices: int = 4
  max_vertices: int = 11
  min_width: float = 12
  max_width: float = 40
  box: bool = False
  reference: int = 256

  def __post_init__(self):
    super().__post_init__()
    _check_order(self, 'strokes', 'vertices', 'width')

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return 'deepfill_v2' if self.box else 'strokes'

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler."""
    count = int(rng.integers(self.min_strokes, self.max_strokes, endpoint=True))
    mask = self.strokes(rng, height, width, count)
    if self.box:
      _deepfill_box(rng, mask)
    return mask

  def strokes(self, rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """uint8[H, W] in {0, 1} of `count` strokes."""
    canvas = Image.new('L', (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    for _ in range(count):
      points, thickness = self.stroke(rng, height, width)
      pen.line(points, width=thickness, fill=1)
      half = thickness // 2
      for x, y in points:
        pen.ellipse((x - half, y - half, x + half, y + half), fill=1)
    return np.array(canvas, np.uint8)

  def stroke(
    self, rng: np.random.Generator, height: int, width: int
  ) -> tuple[list[tuple[int, int]], int]:
    """One stroke: its vertices (x, y), and its width in pixels."""
    radius = math.hypot(height, width) / 8
    count = int(rng.integers(self.min_vertices, self.max_vertices, endpoint=True))
    low = 2 * math.pi / 5 - rng.uniform(0, 2 * math.pi / 15)
    high = 2 * math.pi / 5 + rng.uniform(0, 2 * math.pi / 15)
    angles = rng.uniform(low, high, count)
    angles[::2] = 2 * math.pi - angles[::2]
    steps = np.clip(rng.normal(radius, radius // 2, count), 0, 2 * radius)
    points = [(int(rng.integers(0, width)), int(rng.integers(0, height)))]
    for angle, step in zip(angles, steps, strict=True):
      x = min(max(int(points[-1][0] + step * math.cos(angle)), 0), width)
      y = min(max(int(points[-1][1] + step * math.sin(angle)), 0), height)
      points.append((x, y))
    thickness = _pixels(
      int(rng.uniform(self.min_width, self.max_width)), _scale(height, width, self.reference)
    )
    return points, thickness


def _deepfill_box(rng: np.random.Generator, mask: np.ndarray) -> None:
  """Half-side box at a uniform place, each axis shrunk on both sides by randint(0, side / 8)."""
  height, width = mask.shape
  spans = []
  for n in (height, width):
    side = n // 2
    start = int(rng.integers(0, n - side))
    shrink = int(rng.integers(0, max(1, side // 8)))
    spans.append(slice(start + shrink, start + side - shrink))
  mask[spans[0], spans[1]] = 1


@dataclasses.dataclass(frozen=True)
class FreeForm(MaskSampler):
  """Free forms of Co-Mod-GAN, which MI-GAN and MAT take, too: rectangles and strokes.

  There are fewer than `boxes` rectangles with sides below half of the picture's, fewer than
  `large_boxes` with sides below the whole, and fewer than `strokes` strokes of DeepFill's brush,
  with 4 to 17 vertices and widths U(12, 48); the strokes are mirrored along each axis with
  probability 1/2. With an area range (lo, hi) the three numbers are multiplied by lo + hi, if that
  is less than 1. A mask of only hole or only known pixels is drawn again. MAT has boxes=5,
  large_boxes=3, strokes=9 at 512 pixels, and 4, 2, 8 at 256.
  """

  boxes: int = 10
  large_boxes: int = 5
  strokes: int = 20
  reference: int = 512

  def __post_init__(self):
    super().__post_init__()
    if min(self.boxes, self.large_boxes, self.strokes) < 1:
      raise ValueError(
        f'free_form masks: boxes {self.boxes}, large_boxes {self.large_boxes} and strokes '
        f'{self.strokes} are above what is drawn, so at least 1'
      )

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return 'free_form'

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler."""
    share = min(sum(self.area), 1.0) if self.area else 1.0
    fewer = lambda limit: int(rng.integers(max(1, int(share * limit))))
    brush = Strokes(min_vertices=4, max_vertices=17, max_width=48, reference=self.reference)
    while True:
      mask = np.zeros((height, width), np.uint8)
      for limit, part in ((self.boxes, 2), (self.large_boxes, 1)):
        for _ in range(fewer(limit)):
          spans = [_reaching_out(rng, n, n // part) for n in (height, width)]
          mask[spans[0], spans[1]] = 1
      strokes = brush.strokes(rng, height, width, fewer(self.strokes))
      mask |= strokes[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
      if 0 < mask.sum() < mask.size:
        return mask


def _reaching_out(rng: np.random.Generator, n: int, limit: int) -> slice:
  """One axis of a rectangle of 0 to limit - 1 pixels, of which up to a half may lie outside."""
  side = int(rng.integers(limit))
  start = int(rng.integers(-side // 2, n - side + side // 2))
  return slice(max(start, 0), min(start + side, n))


@dataclasses.dataclass(frozen=True)
class Irregular(MaskSampler):
  """LaMa's irregular masks: lines of random length, width and turn, drawn by OpenCV.

  min_times to max_times + 1 chains (both ends included: the release adds one), each of 1 to 5
  segments; a segment's angle is 0.01 + {0, 1, 2, 3} radians (negated in even chains), its
  length 10 + randint(max_len), its width 5 + randint(max_width). The defaults are LaMa's training
  set.
  """

  max_len: int = 200
  max_width: int = 100
  min_times: int = 1
  max_times: int = 5
  reference: int = 256

  def __post_init__(self):
    super().__post_init__()
    _check_order(self, 'times')

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return 'irregular'

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler."""
    mask = np.zeros((height, width), np.uint8)
    scale = _scale(height, width, self.reference)
    for chain in range(rng.integers(self.min_times, self.max_times + 1, endpoint=True)):
      x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
      for _ in range(1 + rng.integers(0, 5)):
        angle = 0.01 + rng.integers(0, 4)
        if chain % 2 == 0:
          angle = 2 * math.pi - angle
        length = (10 + rng.integers(0, self.max_len)) * scale
        brush = _pixels(5 + int(rng.integers(0, self.max_width)), scale)
        end_x = min(max(int(x + length * math.sin(angle)), 0), width)
        end_y = min(max(int(y + length * math.cos(angle)), 0), height)
        cv2.line(mask, (x, y), (end_x, end_y), 1, brush)
        x, y = end_x, end_y
    return mask


_FIXED_SEED = 10


@dataclasses.dataclass(frozen=True)
class Rectangles(MaskSampler):
  """LaMa's boxes: min_times to max_times rectangles, each side uniform in [min_side, max_side].

  The defaults are LaMa's training set.

  Attributes:
    margin: pixels at the border that stay known.
    min_side: least side, as max_side.
    max_side: largest side.
    min_times: least number of rectangles, as max_times.
    max_times: largest number.
    square: both sides of a rectangle are equal (LFR's masks: ten squares).
    fixed: only this many different masks exist, and one of them is chosen; 0: each is new.
    reference: see the module's text.
    within: all rectangles lie in one square of this side at a uniform place, as GLCIC's do (Iizuka
      et al., 2017: one of 96 to 128 pixels in a square of 128); 0: each anywhere in the image.
  """

  margin: int = 10
  min_side: int = 30
  max_side: int = 150
  min_times: int = 1
  max_times: int = 4
  square: bool = False
  fixed: int = 0
  reference: int = 256
  within: int = 0

  def __post_init__(self):
    super().__post_init__()
    _check_order(self, 'side', 'times')
    if self.fixed < 0:
      raise ValueError(f'fixed {self.fixed!r} of rectangle masks must be a number of masks, or 0')
    if self.within and self.within < self.max_side:
      raise ValueError(
        f'rectangles of up to {self.max_side} pixels do not fit within {self.within}: '
        'raise within, or lower max_side'
      )

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return 'rectangles'

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler."""
    if self.fixed:
      rng = np.random.default_rng([_FIXED_SEED, int(rng.integers(self.fixed))])
    mask = np.zeros((height, width), np.uint8)
    scale = _scale(height, width, self.reference)
    margin = round(self.margin * scale)
    low, high = _pixels(self.min_side, scale), _pixels(self.max_side, scale)
    areas = [(margin, n - margin) for n in (height, width)]
    if self.within:
      areas = [_square(rng, *area, _pixels(self.within, scale)) for area in areas]
    for _ in range(rng.integers(self.min_times, self.max_times, endpoint=True)):
      spans = []
      side = 0
      for n, (first, end) in zip((height, width), areas, strict=True):
        most = max(1, min(high, end - first, n - 2 * margin - 1))
        if self.square:
          most = max(1, min(most, min(height, width) - 2 * margin - 1))
        if not (self.square and side):
          side = int(rng.integers(min(low, most), most, endpoint=True))
        start = int(rng.integers(first, end - side, endpoint=True))
        spans.append(slice(start, start + side))
      mask[spans[0], spans[1]] = 1
    return mask


def _square(rng: np.random.Generator, first: int, end: int, side: int) -> tuple[int, int]:
  """One axis of a square at a uniform place in [first, end), or all of it if it is too small."""
  side = min(side, end - first)
  start = int(rng.integers(first, end - side, endpoint=True))
  return start, start + side


@dataclasses.dataclass(frozen=True)
class _OfShare(MaskSampler):
  """Families that reach a wanted share: exactly `share`, or uniform in the area range."""

  share: float | None = None

  word: ClassVar[str]
  usual: ClassVar[float]

  def __post_init__(self):
    super().__post_init__()
    if self.area is not None and self.share is not None:
      raise ValueError(f'{self.word} masks take a share or an area range, not both')
    if self.share is not None and not 0 < self.share <= 1:
      hint = ' (percent? divide by 100)' if self.share > 1 else ''
      raise ValueError(f'share {self.share!r} of {self.word} masks must be in (0, 1]{hint}')

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return self.word if self.area else f'{self.word}:{self.share or self.usual:g}'

  @property
  def name(self) -> str:
    """See MaskSampler."""
    return f'{self.word}:{self.area[0]:g}-{self.area[1]:g}' if self.area else self.kind

  def _wanted(self, rng: np.random.Generator) -> float:
    return rng.uniform(*self.area) if self.area else self.share or self.usual


@dataclasses.dataclass(frozen=True)
class Center(_OfShare):
  """The centre rectangle of the image's own shape: a square in a square image.

  Sides round(n sqrt(share)); 0.25 is the half-side square of most papers. With an area range the
  share is uniform in the range.
  """

  word: ClassVar[str] = 'center'
  usual: ClassVar[float] = 0.25

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler."""
    share = self._wanted(rng)
    mask = np.zeros((height, width), np.uint8)
    sides = [min(n, max(1, math.floor(n * math.sqrt(share) + 0.5))) for n in (height, width)]
    top, left = ((n - side) // 2 for n, side in zip((height, width), sides, strict=True))
    mask[top : top + sides[0], left : left + sides[1]] = 1
    return mask


@dataclasses.dataclass(frozen=True)
class SurveyRandom(_OfShare):
  """Free-form holes of an exact share: the survey's "random region missing", as it is read here.

  The survey names shares (10, 20, 30, 40 %) and no generator. Strokes of DeepFill v2's brush are
  added until the hole first reaches the share; the last one then ends early, so that the hole has
  round(share * H * W) pixels. With an area range the share is uniform in the range.
  """

  word: ClassVar[str] = 'survey_random'
  usual: ClassVar[float] = 0.2

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler."""
    wanted = max(1, math.floor(self._wanted(rng) * height * width + 0.5))
    mask, brush = np.zeros((height, width), np.uint8), Strokes()
    for _ in range(_MOST_STROKES):
      points, thickness = brush.stroke(rng, height, width)
      for start, end in itertools.pairwise(points):
        new = _segment(start, end, thickness, height, width) & ~mask.astype(bool)
        excess = int(mask.sum()) + int(new.sum()) - wanted
        if excess >= 0:
          y, x = np.nonzero(new)
          # How far along the segment, in whole numbers: the same order on every machine.
          along = (end[0] - start[0]) * (x - start[0]) + (end[1] - start[1]) * (y - start[1])
          kept = np.argsort(along, kind='stable')[: len(x) - excess]
          mask[y[kept], x[kept]] = 1
          return mask
        mask[new] = 1
    return grow_to(mask, wanted)


# Strokes meet old strokes ever more often: shares near 1 are reached by growing instead.
_MOST_STROKES = 200


def _segment(
  start: tuple[int, int], end: tuple[int, int], thickness: int, height: int, width: int
) -> np.ndarray:
  """bool[H, W]: a thick line with round ends."""
  canvas = Image.new('L', (width, height), 0)
  pen = ImageDraw.Draw(canvas)
  pen.line([start, end], width=thickness, fill=1)
  half = thickness // 2
  for x, y in (start, end):
    pen.ellipse((x - half, y - half, x + half, y + half), fill=1)
  return np.array(canvas, bool)


@dataclasses.dataclass(frozen=True)
class Box(MaskSampler):
  """DeepFill v1's box: half the image's sides, at a uniform place, each axis shrunk on both sides.

  The authors' 128 x 128 in 256 x 256, whose rows and columns give up {0, ..., 16} on either side,
  as much on both: its middle is always that of the box. The place is uniform in {0, ..., n - side -
  1}, as published (never the last one).

  Attributes:
    side: of the box, as a share of the image's.
    shrink: largest, as a share of the box's side.
  """

  side: float = 0.5
  shrink: float = 0.125

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.side <= 1 or not 0 <= self.shrink < 0.5:
      raise ValueError(
        f'side {self.side!r} of box masks must be in (0, 1], shrink {self.shrink!r} in [0, 0.5)'
      )

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return 'box'

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler."""
    mask = np.zeros((height, width), np.uint8)
    spans = []
    for n in (height, width):
      side = _pixels(self.side, n)
      start = int(rng.integers(0, max(1, n - side)))
      less = int(rng.integers(0, int(self.shrink * side), endpoint=True))
      spans.append(slice(start + less, start + side - less))
    mask[spans[0], spans[1]] = 1
    return mask


def _check_order(sampler: MaskSampler, *names: str) -> None:
  for name in names:
    low, high = getattr(sampler, f'min_{name}'), getattr(sampler, f'max_{name}')
    if not 1 <= low <= high:
      raise ValueError(
        f'{sampler.kind} masks: min_{name} {low} and max_{name} {high} must satisfy 1 <= min <= max'
      )
