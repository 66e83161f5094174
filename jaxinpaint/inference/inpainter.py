"""Arrays in, arrays out: one system with its weights, for images of any size.

  inpainter = Inpainter(inference, variables, constants, name='mesff')
  completed = inpainter(image, mask)           # one image
  completed = inpainter(images, masks)         # a batch, or a list of images of different sizes

Known pixels of the result are those of the input, to the bit, whatever the network does.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import jax
import numpy as np

from jaxinpaint import arrays
from jaxinpaint.data import inputs
from jaxinpaint.inference import blend as blend_lib
from jaxinpaint.recipe import Constants, Inference, Variables

# `batch_size` images of this many pixels run at once, and fewer of larger ones: memory follows
# pixels, not images.
_FULL_BATCH_PIXELS = 512 * 512
# Images that may wait for company of their own size, in batches.
_WAITING_BATCHES = 4


class InpaintError(ValueError):
  """Input that cannot be inpainted; the message says what is wrong and what to do."""


class Inpainter:
  """Completes images with one system; compiled once for each padded size and batch.

  Sides are padded at the bottom and right by reflection to what the network takes, and cropped
  back. The mask is reflected with the image: a hole that touches the rim stays a hole beyond it,
  where blank pixels would else pass for known ones.

  Attributes:
    name: of the system and its weights, for messages.
    inference: of the system.
    batch_size: images of up to 512 x 512 that run at once; of larger ones proportionally fewer.
    seed: of systems that draw random numbers; a result also depends on the images beside it in the
      batch then.
    max_side: longer images are completed at reduced size (long side `max_side`) and only the hole,
      enlarged again, is pasted into the full image: it is as soft as that enlargement. None: never
      reduced. Published networks learn at 256 pixels, so holes much larger than their training
      size come out better reduced; and memory grows with the pixels.
    pad_to: sides are padded to a multiple of it (besides the network's own): the larger, the fewer
      compilations for images of many sizes, at the price of a wider padding.
    blend: 'poisson' fits completions to the level of what surrounds them (`inference.blend`), of
      any system, in seconds on the CPU for a large hole; 'none' pastes them as they are.
  """

  def __init__(
    self,
    inference: Inference,
    variables: Variables,
    constants: Constants,
    *,
    name: str,
    batch_size: int = 8,
    seed: int = 0,
    max_side: int | None = None,
    pad_to: int = 1,
    blend: str = 'none',
  ):
    """See the class; variables and constants are what `inference.predict` takes.

    Raises:
      InpaintError: batch_size, max_side or pad_to is out of range, or blend unknown.
    """
    if batch_size < 1:
      raise InpaintError(f'batch_size {batch_size} must be at least 1')
    if pad_to < 1:
      raise InpaintError(f'pad_to {pad_to} must be at least 1')
    least = max(inference.min_side, inference.multiple, 8)
    if max_side is not None and max_side < least:
      raise InpaintError(f'max_side {max_side} must be at least {least}, or None for no limit')
    if blend not in blend_lib.KINDS:
      raise InpaintError(f'blend {blend!r} must be one of: {", ".join(blend_lib.KINDS)}')
    self.name, self.inference, self.blend = name, inference, blend
    self.batch_size, self.seed = batch_size, seed
    self.max_side, self.pad_to = max_side, pad_to
    self._state = jax.device_put((variables, dict(constants)))
    self._predict = jax.jit(inference.predict)
    self._pictures = jax.jit(inference.pictures) if inference.pictures else None

  def __repr__(self) -> str:
    return f'Inpainter({self.name!r}, batch_size={self.batch_size}, max_side={self.max_side})'

  def __call__(
    self, image: np.ndarray | Sequence[np.ndarray], mask: np.ndarray | Sequence[np.ndarray]
  ) -> np.ndarray | list[np.ndarray]:
    """Fills the hole.

    Args:
      image: uint8[H, W, 3], or float[H, W, 3] in [0, 1]; a batch [B, H, W, 3]; or a list of images
        of any sizes. What it holds inside the hole is never looked at.
      mask: [H, W] or [H, W, 1], hole = True, or integers > 127 (where none is above 1: hole = 1),
        or floats > 0.5. For a batch [B, H, W(, 1)], for a list a list; one mask of equal size
        serves them all.

    Returns:
      As `image` in kind, shape and dtype; equal to it wherever the mask is no hole.

    Raises:
      InpaintError: a wrong shape, type or range; the network's output is not finite; or memory is
        short.
    """
    if isinstance(image, (list, tuple)):
      images, single = list(image), False
    else:
      image = np.asarray(image)
      single = image.ndim == 3
      if image.ndim not in (3, 4):
        raise InpaintError(
          f'image has the shape {image.shape}: give [H, W, 3], [B, H, W, 3] or a list of [H, W, 3]'
        )
      images = [image] if single else list(image)
    masks = _masks_for(images, mask, single)
    results = dict(self.stream(zip(range(len(images)), images, masks, strict=True)))
    if single:
      return results[0]
    ordered = [results[i] for i in range(len(images))]
    if isinstance(image, (list, tuple)):
      return ordered
    return np.stack(ordered) if ordered else image.copy()

  def pictures(self, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """What the system can show besides its output: a coarse result, edges, where attention looks.

    Args:
      image: one image, as of a call.
      mask: likewise.

    Returns:
      {name: uint8[h, w, 1 or 3]}, h and w the image's, or reduced to `max_side`; {} for a system
      that has nothing to show.

    Raises:
      InpaintError: as a call.
    """
    if self._pictures is None:
      return {}
    image = check_image(image)
    hole = check_mask(mask, image.shape[:2])
    _check_range(image, hole)
    job = _Job(None, image, hole, self.max_side)
    shape = self._padded(job.small_hole)
    images = _reflect(job.small, shape)[None]
    masks = _reflect(job.small_hole[..., None], shape)[None].astype(np.float32)
    drawn = self._call(self._pictures, images, masks)
    height, width = job.small_hole.shape
    return {n: arrays.to_uint8(np.asarray(x)[0, :height, :width]) for n, x in drawn.items()}

  def stream(
    self, items: Iterable[tuple[Hashable, np.ndarray, np.ndarray]]
  ) -> Iterator[tuple[Hashable, np.ndarray]]:
    """Fills many, in batches of equal padded size, holding only a few in memory.

    Args:
      items: (key, image, mask); image and mask as one image of `__call__`.

    Yields:
      (key, completed image) in the order in which batches fill up.

    Raises:
      InpaintError: as `__call__`; what was yielded before is complete.
    """
    waiting: dict[tuple[int, int], list] = {}
    # Batch sizes that ran in this stream: a remainder is filled up to one of them and compiles
    # nothing. Calls of their own compile their own size, else one image would pay for eight.
    ran: dict[tuple[int, int], set[int]] = {}
    for key, image, mask in items:
      image = check_image(image)
      hole = check_mask(mask, image.shape[:2])
      _check_range(image, hole)
      if not hole.any():
        yield key, image.copy()
        continue
      job = _Job(key, image, hole, self.max_side)
      shape = self._padded(job.small_hole)
      waiting.setdefault(shape, []).append(job)
      if len(waiting[shape]) >= self._batch(shape):
        yield from self._flush(waiting, shape, ran)
      elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * self.batch_size:
        yield from self._flush(waiting, max(waiting, key=lambda s: len(waiting[s])), ran)
    for shape in list(waiting):
      yield from self._flush(waiting, shape, ran)

  def _padded(self, hole: np.ndarray) -> tuple[int, int]:
    multiple = math.lcm(self.inference.multiple, self.pad_to)
    least = max(self.inference.min_side, 1)
    height, width = (-(-max(n, least) // multiple) * multiple for n in hole.shape)
    return height, width

  def _batch(self, shape: tuple[int, int]) -> int:
    fit = self.batch_size * _FULL_BATCH_PIXELS // (shape[0] * shape[1])
    return max(1, min(self.batch_size, fit))

  def _flush(
    self, waiting: dict[tuple[int, int], list['_Job']], shape: tuple[int, int], ran: dict
  ) -> Iterator[tuple[Hashable, np.ndarray]]:
    jobs = waiting.pop(shape)
    sizes = ran.setdefault(shape, set())
    size = min((s for s in sizes if s >= len(jobs)), default=len(jobs))
    sizes.add(size)
    rows = jobs + [jobs[-1]] * (size - len(jobs))
    images = np.stack([_reflect(job.small, shape) for job in rows])
    masks = np.stack([_reflect(job.small_hole[..., None], shape) for job in rows])
    outputs = self._run(images, masks.astype(np.float32))
    for job, output in zip(jobs, outputs, strict=False):
      yield job.key, job.paste(output, self.blend)

  def _run(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    outputs = np.asarray(self._call(self._predict, images, masks), np.float32)
    if not np.isfinite(outputs[np.broadcast_to(masks > 0, outputs.shape)]).all():
      raise InpaintError(
        f'{self.name} gave values that are not finite at {height} x {width}: its weights are '
        'damaged or of a run that diverged; use others'
      )
    return outputs

  def _call(self, function: Callable, images: np.ndarray, masks: np.ndarray) -> Any:
    size, height, width, _ = images.shape
    further = inputs.compute(self.inference.inputs, images, masks)
    try:
      outputs = function(*self._state, images, masks, jax.random.key(self.seed), **further)
      return jax.block_until_ready(outputs)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
      if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        raise InpaintError(
          f'memory does not suffice for {size} x {height} x {width} pixels at once: set max_side '
          f'below {max(height, width)}' + (f' or batch_size below {size}' if size > 1 else '')
        ) from error
      raise


class _Job:
  """One image on its way: as given, and as the network sees it."""

  def __init__(self, key: Hashable, image: np.ndarray, hole: np.ndarray, max_side: int | None):
    self.key, self.image, self.hole = key, image, hole
    # Blank, so that nothing the hole holds can reach the result, NaN included.
    blank = np.where(hole[..., None], np.float32(0), _unit(image))
    self.small, self.small_hole = blank, hole
    if max_side is not None and max(hole.shape) > max_side:
      self.small, self.small_hole = shrink(blank, hole, max_side)

  def paste(self, output: np.ndarray, blend: str) -> np.ndarray:
    height, width = self.small_hole.shape
    output = output[:height, :width]
    if self.small_hole.shape != self.hole.shape:
      # Beside the hole the network's input is as good as its output, and is what to blend into.
      height, width = self.hole.shape
      output = cv2.resize(output, (width, height), interpolation=cv2.INTER_CUBIC)
    output = np.clip(output, 0.0, 1.0)
    if blend == 'poisson':
      output = blend_lib.poisson(_unit(self.image), output, self.hole)
    if self.image.dtype == np.uint8:
      output = arrays.to_uint8(output)
    return np.where(self.hole[..., None], output.astype(self.image.dtype), self.image)


def shrink(image: np.ndarray, hole: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
  """Reduces so that the long side is `max_side`; the hole never bleeds into what is known.

  Args:
    image: f32[H, W, 3], 0 in the hole.
    hole: bool[H, W].
    max_side: wanted.

  Returns:
    f32[h, w, 3], the mean over the known pixels of each area, and bool[h, w], True where the area
    touches the hole.
  """
  scale = max_side / max(hole.shape)
  size = tuple(max(1, round(n * scale)) for n in hole.shape[::-1])
  known = cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
  total = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
  small_hole = known < 1 - 1e-4
  small = np.where(small_hole[..., None], np.float32(0), total / np.maximum(known, 1e-6)[..., None])
  return small.astype(np.float32), small_hole


def check_image(image: np.ndarray) -> np.ndarray:
  """The image as an array, known to be [H, W, 3], uint8 or float in [0, 1].

  Raises:
    InpaintError: it is not; the message says how to make it so. NaN is refused as out of range.
  """
  image = np.asarray(image)
  if image.ndim != 3 or image.shape[-1] != 3:
    hint = ': repeat the grey channel' if image.ndim == 2 or image.shape[-1] == 1 else ''
    raise InpaintError(f'image has the shape {image.shape}, wanted is [H, W, 3] in RGB{hint}')
  if not image.size:
    raise InpaintError(f'image has the shape {image.shape}: it has no pixels')
  if image.dtype == np.uint8:
    return image
  if not np.issubdtype(image.dtype, np.floating):
    raise InpaintError(
      f'image has the type {image.dtype}, wanted is uint8, or float in [0, 1]: convert it '
      "(uint16: image.astype('float32') / 65535)"
    )
  return image


def _check_range(image: np.ndarray, hole: np.ndarray) -> None:
  known = image[~hole]
  if image.dtype != np.uint8 and not ((known >= 0) & (known <= 1)).all():
    raise InpaintError(
      f'float image has values from {known.min():.4g} to {known.max():.4g}, wanted is [0, 1]: '
      'divide by 255, or give uint8'
    )


def check_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """bool[H, W], True = hole, of a mask as `Inpainter.__call__` takes it.

  Raises:
    InpaintError: another size than the image's, or values that are no mask's.
  """
  mask = np.asarray(mask)
  if mask.ndim == 3 and mask.shape[-1] == 1:
    mask = mask[..., 0]
  if mask.ndim != 2:
    raise InpaintError(f'mask has the shape {mask.shape}, wanted is [H, W] or [H, W, 1]')
  if mask.shape != tuple(size):
    raise InpaintError(
      f'mask is {mask.shape[0]} x {mask.shape[1]} (rows x columns), the image {size[0]} x {size[1]}'
      ': make them equal, resizing the mask by nearest neighbour'
    )
  if mask.dtype == bool:
    return mask
  low, high = mask.min(), mask.max()
  if np.issubdtype(mask.dtype, np.floating):
    if not (low >= 0 and high <= 1):
      raise InpaintError(
        f'float mask has values from {low:.4g} to {high:.4g}, wanted is [0, 1] with 1 in the hole'
      )
    return mask > 0.5
  if not np.issubdtype(mask.dtype, np.integer) or low < 0 or high > 255:
    raise InpaintError(
      f'mask of type {mask.dtype} has values from {low} to {high}, wanted are booleans, floats in '
      '[0, 1] or integers up to 255'
    )
  return mask > (127 if high > 1 else 0)


def _masks_for(images: list, mask: Any, single: bool) -> list:
  if single:
    return [mask]
  if not images:
    return []
  if not isinstance(mask, (list, tuple)):
    mask = np.asarray(mask)
    one_for_all = mask.ndim == 2 or mask.shape == (*np.shape(images[0])[:2], 1)
    mask = [mask] * len(images) if one_for_all else list(mask)
  if len(mask) != len(images):
    raise InpaintError(f'{len(images)} images but {len(mask)} masks: give one each, or one for all')
  return list(mask)


def _unit(image: np.ndarray) -> np.ndarray:
  if image.dtype == np.uint8:
    return image.astype(np.float32) / np.float32(255)
  return image.astype(np.float32)


def _reflect(x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Pads [h, w, C] to [H, W, C]; numpy reflects again and again where one side does not suffice."""
  height, width = x.shape[:2]
  return np.pad(x, ((0, shape[0] - height), (0, shape[1] - width), (0, 0)), mode='reflect')
