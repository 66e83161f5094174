"""Free-form brush masks that a device draws to the bit as the host does.

The masks of papers are drawn by OpenCV and Pillow, so only on the host. This family is this
project's own and resembles DeepFill v2's strokes (Yu et al., ICCV 2019, section 4.2). It only uses
integers, and its random numbers are a hash of (key, counter). So numpy in a worker process and XLA
inside a train step give equal masks for equal keys.

  key = key_of(np.random.default_rng(0))                    u32[2]
  draw(key, 256, 256, Brush(area=(0.1, 0.4)))               numpy: uint8[256, 256]
  draw_on_device(keys, 256, 256, Brush(area=(0.1, 0.4)))    jax: f32[B, 256, 256, 1]

`config.data.masks_on_device = True` makes the train step draw its masks; the pipeline then sends
eight bytes per sample instead of masks.

A stroke is a chain of thick segments with round ends: a pixel belongs to a segment from a to b of
half-width r when it is within r of the line and its foot lies between a and b, or when it is within
r of a or of b.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.masks.sampler import MaskSampler

_DIRECTIONS = 64  # a turn
_UNIT = 1 << 10  # of the table of directions
_VERTICES = 12
_STROKES = 3
_MAX_STROKES = 48  # with an area range: at most this many to make the hole large enough
_MAX_SIDE = 2048  # products of coordinates stay within 32 bits


@functools.cache
def _direction_table() -> np.ndarray:
  """i32[64, 2]: (y, x) of the unit circle, in 1024ths."""
  turns = 2 * math.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
  return np.rint(_UNIT * np.stack([np.sin(turns), np.cos(turns)], -1)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Brush(MaskSampler):
  """Chains of thick segments; the host and the device draw the same masks.

  Without an area: 1 to `max_strokes` chains of 4 to 11 segments. With an area: chains are added
  until the hole has a share drawn uniformly from the range, exact to the pixel; for this, the lower
  rows of the last segment are left out.

  Attributes:
    max_strokes: number of chains without an area, 1 to 3.
    min_width: of the brush, in pixels of an image of 256.
    max_width: likewise.
  """

  max_strokes: int = 3
  min_width: int = 12
  max_width: int = 40

  def __post_init__(self):
    super().__post_init__()
    if not 1 <= self.max_strokes <= _STROKES:
      raise ValueError(f"masks 'brush': max_strokes {self.max_strokes} must be 1 to {_STROKES}")
    if not 1 <= self.min_width <= self.max_width <= 256:
      raise ValueError(
        f"masks 'brush': min_width {self.min_width} and max_width {self.max_width} must satisfy 1 "
        '<= min_width <= max_width <= 256'
      )

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return 'brush'

  def __call__(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler; draws one key from the generator."""
    return draw(key_of(rng), height, width, self)

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler."""
    return draw(key_of(rng), height, width, dataclasses.replace(self, area=None))


def key_of(rng: np.random.Generator) -> np.ndarray:
  """u32[2], the only thing that a mask depends on."""
  return rng.integers(0, 1 << 32, 2, dtype=np.uint32)


def draw(key: np.ndarray, height: int, width: int, brush: Brush) -> np.ndarray:
  """One mask by numpy.

  Args:
    key: u32[2].
    height: 8 to 2048.
    width: likewise.
    brush: the family's numbers.

  Returns:
    uint8[height, width] in {0, 1}, 1 = hole.

  Raises:
    ValueError: sides out of range, or no whole number of pixels lies in the area range.
  """
  target_range = _check(brush, height, width)
  segments, target, active = _geometry(np, np.asarray(key, np.uint32)[None], height, width, brush)
  mask = np.zeros((height, width), bool)
  rows, columns = np.arange(height, dtype=np.int32), np.arange(width, dtype=np.int32)
  hole = 0
  for segment, on in zip(segments[0], active[0], strict=True):
    if not on:
      continue
    # Only the segment's own rectangle can change.
    y0, x0, y1, x1, r = (int(v) for v in segment)
    own = (
      slice(max(min(y0, y1) - r, 0), max(y0, y1) + r + 1),
      slice(max(min(x0, x1) - r, 0), max(x0, x1) + r + 1),
    )
    inside = _inside(np, segment[None], rows[own[0], None], columns[None, own[1]])[0]
    count = hole + int(inside.sum()) - int((inside & mask[own]).sum())
    if target_range and count >= target[0]:
      last = np.zeros_like(mask)
      last[own] = inside
      return _fill(np, mask[None], last[None], target)[0].astype(np.uint8)
    mask[own] |= inside
    hole = count
  if target_range:
    mask = _fill(np, mask[None], np.ones_like(mask)[None], target)[0]
  return mask.astype(np.uint8)


def draw_on_device(keys: jax.Array, height: int, width: int, brush: Brush) -> jax.Array:
  """Masks by jax, each equal to `draw` of its key; under jit.

  Args:
    keys: u32[B, 2].
    height: 8 to 2048.
    width: likewise.
    brush: the family's numbers.

  Returns:
    f32[B, height, width, 1] in {0, 1}, 1 = hole.

  Raises:
    ValueError: as `draw`.
  """
  target_range = _check(brush, height, width)
  segments, target, active = _geometry(jnp, keys, height, width, brush)
  rows = jnp.arange(height, dtype=jnp.int32)[:, None]
  columns = jnp.arange(width, dtype=jnp.int32)[None]

  nothing = jnp.zeros((len(keys), height, width), bool)
  inside = lambda k: _inside(jnp, segments[:, k], rows, columns) & active[:, k, None, None]
  if not target_range:
    mask = jax.lax.fori_loop(0, segments.shape[1], lambda k, m: m | inside(k), nothing)
    return mask[..., None].astype(jnp.float32)

  unfinished = lambda mask: mask.sum((1, 2)) < target

  def add(carry):
    k, mask, before = carry
    goes_on = unfinished(mask)[:, None, None]
    return k + 1, mask | (inside(k) & goes_on), jnp.where(goes_on, mask, before)

  # Most masks are complete long before the last chain.
  more = lambda carry: (carry[0] < segments.shape[1]) & unfinished(carry[1]).any()
  _, mask, before = jax.lax.while_loop(more, add, (jnp.int32(0), nothing, nothing))
  mask = _fill(jnp, before, mask, target)
  mask = _fill(jnp, mask, ~nothing, target)
  return mask[..., None].astype(jnp.float32)


def _check(brush: Brush, height: int, width: int) -> tuple[int, int] | None:
  """(least, most) pixels of the hole; None without an area."""
  if not 8 <= min(height, width) <= max(height, width) <= _MAX_SIDE:
    raise ValueError(f"masks 'brush' have sides of 8 to {_MAX_SIDE} pixels, not {height} x {width}")
  if brush.area is None:
    return None
  least = math.floor(brush.area[0] * height * width) + 1
  most = math.floor(brush.area[1] * height * width)
  if least > most:
    raise ValueError(
      f'no mask of {height} x {width} pixels has a hole share in ({brush.area[0]:g}, '
      f'{brush.area[1]:g}]: widen the area range'
    )
  return least, most


def _mix(x: Any) -> Any:
  """The finaliser of MurmurHash3 (Appleby, public domain): a bijection of u32 that mixes well."""
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
  x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
  return x ^ (x >> np.uint32(16))


def _random(xp: Any, keys: Any, counters: np.ndarray) -> Any:
  """u32[B, *counters.shape], hash of (key, counter)."""
  shape = (-1,) + (1,) * counters.ndim
  first, second = keys[:, 0].reshape(shape), keys[:, 1].reshape(shape)
  counted = xp.asarray(counters.astype(np.uint32)[None]) * np.uint32(0x9E3779B9)
  return _mix(_mix(counted ^ _mix(first)) + second)


def _below(random: Any, n: Any) -> Any:
  """i32 in [0, n), n at most 65535, of u32."""
  return ((random >> np.uint32(16)) * n.astype(np.uint32) >> np.uint32(16)).astype(np.int32)


def _geometry(xp: Any, keys: Any, height: int, width: int, brush: Brush) -> tuple[Any, Any, Any]:
  """(i32[B, n, 5] of (y, x, y, x, half-width), i32[B] pixels wanted, bool[B, n] drawn)."""
  chains = _STROKES if brush.area is None else _MAX_STROKES
  scale = min(height, width) / 256
  number = lambda value: xp.asarray(np.int32(value))
  # Counters: one block of 64 for each chain, the last for the whole.
  block = 64 * np.arange(chains)
  of = lambda k: _random(xp, keys, block + k)
  low = max(1, round(brush.min_width * scale))
  high = max(low, round(brush.max_width * scale))
  radius = (number(low) + _below(of(0), number(high - low + 1)) + 1) // 2
  count = 4 + _below(of(1), number(_VERTICES - 4))
  y, x = _below(of(2), number(height)), _below(of(3), number(width))
  # DeepFill's angles, by turns to either side of a heading: 2 pi / 5, give or take 2 pi / 15.
  mean = _DIRECTIONS / 5
  least = number(round(mean)) - _below(of(4), number(round(mean / 3) + 1))
  most = number(round(mean)) + _below(of(5), number(round(mean / 3) + 1))
  heading = _below(of(40), number(_DIRECTIONS))
  longest = round(math.hypot(height, width) / 4)
  table = xp.asarray(_direction_table())
  points = [(y, x)]
  for k in range(_VERTICES - 1):
    turn = least + _below(of(6 + 2 * k), most - least + 1)
    angle = (heading + (-turn if k % 2 == 0 else turn)) % _DIRECTIONS
    length = _below(of(7 + 2 * k), number(longest + 1))
    step = (length[..., None] * table[angle]) >> 10
    y = xp.clip(y + step[..., 0], 0, height)
    x = xp.clip(x + step[..., 1], 0, width)
    points.append((y, x))
  segments = [xp.stack([*points[k], *points[k + 1], radius], -1) for k in range(_VERTICES - 1)]
  active = [count > k for k in range(_VERTICES - 1)]
  segments = xp.stack(segments, 2).reshape(len(keys), -1, 5)
  active = xp.stack(active, 2)
  whole = _random(xp, keys, np.asarray(64 * chains + np.arange(2)))
  target = whole[:, 0].astype(np.int32)
  if brush.area is None:
    drawn = 1 + _below(whole[:, 1], number(brush.max_strokes))
    active = active & (xp.arange(chains)[None, :, None] < drawn[:, None, None])
  else:
    least_pixels, most_pixels = _check(brush, height, width)
    # In two digits of 16 bits, as an image has more pixels than one holds.
    span = most_pixels - least_pixels + 1
    target = number(least_pixels) + _wide_below(whole[:, 0], whole[:, 1], span)
  return segments, target, active.reshape(len(keys), -1)


def _wide_below(high: Any, low: Any, n: int) -> Any:
  """i32 in [0, n) for n up to 2^22, of two u32."""
  upper, lower = divmod(n, 1 << 11)
  # n = upper * 2^11 + lower: the block first, then the place in it; the last block is shorter.
  blocks = np.uint32(upper + (lower > 0))
  block = ((high >> np.uint32(16)) * blocks >> np.uint32(16)).astype(np.int32)
  place = (low >> np.uint32(21)).astype(np.int32)
  value = block * (1 << 11) + place
  return value % n


def _inside(xp: Any, segments: Any, rows: Any, columns: Any) -> Any:
  """bool[B, H, W] of i32[B, 5]; rows i32[H, 1] and columns i32[1, W]."""
  y0, x0, y1, x1, r = (segments[:, k, None, None] for k in range(5))
  dy, dx = y1 - y0, x1 - x0
  squared = dy * dy + dx * dx
  py, px = rows[None] - y0, columns[None] - x0
  along = py * dy + px * dx
  across = py * dx - px * dy
  # A segment without length has no line that pixels could be near.
  near = (along > 0) & (along < squared) & (abs(across) <= r * _integer_root(xp, squared))
  start = py * py + px * px <= r * r
  qy, qx = rows[None] - y1, columns[None] - x1
  return near | start | (qy * qy + qx * qx <= r * r)


def _integer_root(xp: Any, n: Any) -> Any:
  """Floor of the square root, exact whatever the last bit of the floating root."""
  root = xp.sqrt(n.astype(np.float32)).astype(np.int32)
  root = xp.where(root * root > n, root - 1, root)
  return xp.where((root + 1) * (root + 1) <= n, root + 1, root)


def _fill(xp: Any, mask: Any, wanted: Any, target: Any) -> Any:
  """`mask` and of the pixels wanted as many, row by row, as bring the hole to the target."""
  new = wanted & ~mask
  room = target - mask.sum((1, 2)).astype(np.int32)
  order = xp.cumsum(new.reshape(len(new), -1).astype(np.int32), axis=1).reshape(new.shape)
  return mask | (new & (order <= room[:, None, None]))
