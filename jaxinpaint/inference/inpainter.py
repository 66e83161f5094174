"""A user's pictures: checked, run through a system, and pasted back.

  inpainter = load()                           # or load('misf.safetensors'), load('runs/mesff')
  completed = inpainter(image, mask)           # one image
  completed = inpainter(images, masks)         # a batch, or a list of images of different sizes

Known pixels of the result always equal those of the input, to the bit.
"""

import copy
import functools
import os
import pathlib
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint import trained as trained_lib
from jaxinpaint.inference import blend as blend_lib
from jaxinpaint.inference.checks import (
  InpaintError,
  as_inpaint_error,
  check_image,
  check_mask,
  check_range,
  masks_for,
)
from jaxinpaint.inference.job import Job, reduced_size
from jaxinpaint.inference.strategies import LIMIT, Part, Plan, Strategy
from jaxinpaint.predictor import Predictor, check_pad_to
from jaxinpaint.runtime import traces

# `batch_size` images of this many pixels run at once, and fewer of larger ones, because memory
# grows with pixels, not with images.
_FULL_BATCH_PIXELS = 512 * 512
# How many batches of images may wait for others of the same size ...
_WAITING_BATCHES = 4
# ... and how many pixels, as the images were given: a reduced image waits with its full one.
_WAITING_PIXELS = 32 * 10**6


# Is told which image cannot be filled, and why.
Refused = Callable[[Hashable, InpaintError], object]
# Is told how an image is completed.
Planned = Callable[[Hashable, Plan], object]


def load(
  path: str | os.PathLike | None = None,
  *,
  step: int | None = None,
  batch_size: int = 8,
  seed: int = 0,
  max_side: int | None = None,
  pad_to: int = 1,
  blend: str = 'none',
  exact_sizes: bool = False,
  strategy: str = 'auto',
  crop_margin: int | None = None,
  tile: int | None = None,
  refine: bool = False,
  programs: str | os.PathLike | None = None,
) -> 'Inpainter':
  """Loads a system with its weights.

  Args:
    path: a weights file (.safetensors), the workdir of a run, WORKDIR@STEP, or the name of weights
      that come with the library (`jaxinpaint weights list`). None: the default ones.
    step: of the checkpoint of a run; None: its result.
    batch_size: see Inpainter.
    seed: for systems that draw random numbers.
    max_side: the longest side that the network sees; see Inpainter.
    pad_to: sides are padded to a multiple of it (and of the network's own). With a larger one,
      images of many sizes need fewer compilations, but more padding.
    blend: 'poisson' or 'none'.
    exact_sizes: see Inpainter.
    strategy: for large images: 'auto', 'original', 'resize', 'crop', 'boxed' or 'tile'; see
      `inference.strategies`.
    crop_margin: known pixels on each side of a hole in its window, 128 where none are given.
    tile: side of tiles, 512 where none is given.
    refine: take the output that the system improves at high resolution, for systems that have one
      (`recipe.Inference.refined`); it takes many times as long, and more memory. Of images that
      are too small a warning is given, and they are completed as without it.
    programs: folder for traced programs (`runtime.traces`), with which a second start traces
      nothing; None: they are not kept.

  Raises:
    weights.store.StoreError: the weights cannot be used, see `trained.load`.
    InpaintError: an option is out of range, or the system has nothing to refine.
  """
  with as_inpaint_error():
    check_pad_to(pad_to)
  trained = trained_lib.load(path, step)
  if refine and trained.inference.refined is None:
    raise InpaintError(f'{trained.name} cannot refine what it completes: leave refine out')
  weights = trained.variables, trained.constants
  with as_inpaint_error():
    predictor = Predictor(
      trained.inference,
      *weights,
      seed=seed,
      pad_to=pad_to,
      refine=refine,
      keep=programs and functools.partial(_kept, pathlib.Path(programs), trained.config),
    )
  return Inpainter(
    predictor,
    name=trained.name,
    batch_size=batch_size,
    max_side=max_side,
    blend=blend,
    exact_sizes=exact_sizes,
    strategy=strategy,
    crop_margin=crop_margin,
    tile=tile,
  )


def _kept(
  folder: pathlib.Path, config: ConfigDict, function: jax.stages.Wrapped, kind: str
) -> traces.Kept:
  """The function of an inference, with its traces in the folder."""
  parts = {part: config[part] for part in ('system', 'model', 'dtype')}
  return traces.Kept(function, folder, f'{ConfigDict(parts).to_json(sort_keys=True)} {kind}')


class Inpainter:
  """Completes images with one system; compiled once for each padded size and batch.

  Attributes:
    predictor: the system with its weights.
    name: of the system and its weights, for messages.
    batch_size: number of images of up to 512 x 512 that run at once; fewer if they are larger.
    max_side: the longest side that the network sees. Alone it means the strategy 'resize': longer
      images are completed at that size, and only the hole, enlarged again, is pasted into the full
      image, so it is less sharp. None: `default_limit`, or any with the strategy 'original'.
    strategy: in which parts large images are completed (`inference.strategies`). With 'auto' images
      of up to `default_limit` pixels are completed whole, and larger ones in windows around their
      holes, so that memory does not grow with the image.
    blend: 'poisson' fits completions to the level of their surroundings (`inference.blend`); it
      works for any system and takes seconds on the CPU for a large hole. 'none' pastes them
      unchanged.
    exact_sizes: never gather the sizes of many images into few (see `Predictor.for_sizes`), so that
      each is completed as it would be alone. Gathering saves most of the compilations.
  """

  def __init__(
    self,
    predictor: Predictor,
    *,
    name: str,
    batch_size: int = 8,
    max_side: int | None = None,
    blend: str = 'none',
    exact_sizes: bool = False,
    strategy: str = 'auto',
    crop_margin: int | None = None,
    tile: int | None = None,
    default_limit: int = LIMIT,
  ):
    """See the class, and `load` for the strategy's numbers.

    `default_limit` is the longest side that the network sees where `max_side` says none, or the
    least that it can see.

    Raises:
      InpaintError: a number is out of range, or blend or strategy unknown.
    """
    if batch_size < 1:
      raise InpaintError(f'batch_size {batch_size} must be at least 1')
    least = max(predictor.inference.min_side, predictor.inference.multiple, 8)
    if max_side is not None and max_side < least:
      raise InpaintError(f'max_side {max_side} must be at least {least}, or None for no limit')
    if blend not in blend_lib.KINDS:
      raise InpaintError(f'blend {blend!r} must be one of: {", ".join(blend_lib.KINDS)}')
    self.predictor, self.name, self.blend = predictor, name, blend
    self.batch_size, self.max_side, self.exact_sizes = batch_size, max_side, exact_sizes
    side, whole = predictor.inference.side, predictor.inference.whole_picture
    with as_inpaint_error():
      limit = max(default_limit, least, side)
      self.strategy = Strategy(strategy, crop_margin, tile, max_side, side, whole, limit)

  def for_sizes(self, sizes: Iterable[tuple[int, int]]) -> 'Inpainter':
    """The same for a set of images of these (height, width); see `Predictor.for_sizes`.

    With `exact_sizes` it is the same object.
    """
    if self.exact_sizes:
      return self
    other = copy.copy(self)
    limit = self.strategy.limit
    # Of larger ones parts are completed, whose sizes the holes decide.
    whole = [s for s in sizes if self.strategy.completes_whole(s)]
    other.predictor = self.predictor.for_sizes(reduced_size(*s, limit) for s in whole)
    return other

  def padded_size(self, height: int, width: int) -> tuple[int, int]:
    """(height, width) at which the networks see an image of this size."""
    return self.predictor.padded_size(*reduced_size(height, width, self.strategy.limit))

  def seen_sizes(self, hole: np.ndarray) -> set[tuple[int, int]]:
    """(height, width) of all that the networks see of an image with this hole, bool[H, W]."""
    plan = self.strategy.plan(hole)
    seen = [(part.read[2:], part.limit) for part in plan.parts] or [(hole.shape, plan.limit)]
    return {self.predictor.padded_size(*reduced_size(*size, limit)) for size, limit in seen}

  def refines(self, hole: np.ndarray) -> bool:
    """Whether any part of an image with this hole, bool[H, W], is refined."""
    return any(map(self.predictor.refines, self.seen_sizes(hole)))

  def __repr__(self) -> str:
    options = f'batch_size={self.batch_size}, max_side={self.max_side}'
    return f'Inpainter({self.name!r}, {options}, strategy={self.strategy.kind!r})'

  def __call__(
    self,
    image: np.ndarray | Sequence[np.ndarray],
    mask: np.ndarray | Sequence[np.ndarray],
    sample: int = 0,
  ) -> np.ndarray | list[np.ndarray]:
    """Fills the hole.

    Args:
      image: uint8[H, W, 3], or float[H, W, 3] in [0, 1]; a batch [B, H, W, 3]; or a list of images
        of any sizes. Pixels inside the hole are never read.
      mask: [H, W] or [H, W, 1], hole = True. Of numbers with two values, one of them 0, the
        other one is the hole; else integers > 127 (of 255) and floats > 0.5. For a batch
        [B, H, W(, 1)], for a list a list. If all images have the same size, one mask may be given
        for all. Without a hole the image comes back as it is.
      sample: number of the completion, of systems that draw random numbers.

    Returns:
      The same kind, shape and dtype as `image`; equal to it outside the hole.

    Raises:
      InpaintError: a wrong shape, type or range; a mask that is hole everywhere, or a hole that the
        system does not fill; the network's output is not finite; or memory is short.
    """
    if isinstance(image, (list, tuple)):
      images, single = list(image), False
    else:
      if isinstance(image, (str, os.PathLike)):
        raise InpaintError(f'image is a path, {image}: read the file into an array first')
      image = np.asarray(image)
      single = image.ndim == 3
      if image.ndim not in (3, 4):
        raise InpaintError(
          f'image has the shape {image.shape}: give [H, W, 3], [B, H, W, 3] or a list of [H, W, 3]'
        )
      images = [image] if single else list(image)
    masks = masks_for(images, mask, single)
    numbers = range(len(images))
    images = [check_image(one) for one in images]
    painter = self.for_sizes([one.shape[:2] for one in images])
    items = zip(numbers, numbers, images, masks, strict=True)
    results = dict(painter.stream(items, sample=sample))
    if self.predictor.refine:
      holes = [check_mask(*pair) for pair in zip(masks, (x.shape[:2] for x in images), strict=True)]
      if unrefined := sum(hole.any() and not painter.refines(hole) for hole in holes):
        least = self.predictor.inference.refined_side
        warnings.warn(unrefined_sentence(unrefined, len(images), least), stacklevel=2)
    if single:
      return results[0]
    ordered = [results[i] for i in range(len(images))]
    if isinstance(image, (list, tuple)):
      return ordered
    return np.stack(ordered) if ordered else image.copy()

  def pictures(self, image: np.ndarray, mask: np.ndarray, number: int = 0) -> dict[str, np.ndarray]:
    """The other pictures that the system can show: a coarse result, edges, where attention looks.

    Args:
      image: one image, as in a call.
      mask: likewise.
      number: as in `stream`.

    Returns:
      {name: uint8[h, w, 1 or 3]} of the whole image, reduced to the longest side that the network
      sees; {} for a system without such pictures.

    Raises:
      InpaintError: as in a call.
    """
    image = check_image(image)
    hole = check_mask(mask, image.shape[:2])
    check_range(image, hole)
    job = self._job(None, number, image, hole, self.strategy.limit)
    drawn = self._call(self.predictor.pictures, [job])
    return {name: arrays.to_uint8(pictures[0]) for name, pictures in drawn.items()}

  def stream(
    self,
    items: Iterable[tuple[Hashable, int, np.ndarray, np.ndarray]],
    *,
    sample: int = 0,
    refused: Refused | None = None,
    planned: Planned | None = None,
  ) -> Iterator[tuple[Hashable, np.ndarray]]:
    """Fills many, in batches of equal padded size, holding only a few in memory.

    Images wait for others of their padded size: at most 4 batches of them, and at most 32
    megapixels of images as they were given, or one image that is larger. An image that is completed
    in parts waits for no other, and its parts run one by one.

    Args:
      items: (key, number, image, mask); image and mask are as for one image in `__call__`. The
        number is that of the image in its set, 0 for a single image. For a system that draws random
        numbers it decides the result, here and in an evaluation of that set.
      sample: number of the completion, of such a system.
      refused: is called with the key and the error of each image that cannot be filled, and the
        others are filled; None: the error is raised.
      planned: is called with the key of each image that has a hole, and how it is completed.

    Yields:
      (key, completed image) in the order in which batches fill up.

    Raises:
      InpaintError: as in `__call__`, without `refused`; results that were yielded before are
        complete.
    """
    refused = refused or _raise
    output = functools.partial(self.predictor, sample=sample)
    waiting: dict[tuple[int, int], list] = {}
    # Batch sizes that ran in this stream: a remainder is filled up to one of them, so that nothing
    # is compiled for it. Separate calls compile their own size, so that one image does not cost as
    # much as eight.
    ran: dict[tuple[int, int], set[int]] = {}
    for key, number, image, mask in items:
      try:
        image = check_image(image)
        hole = check_mask(mask, image.shape[:2])
        check_range(image, hole)
        if hole.all():
          raise InpaintError(
            'every pixel of the mask is hole, so there is nothing to fill it from: 0 (black, '
            'False) marks what is kept'
          )
      except InpaintError as error:
        refused(key, error)
        continue
      if not hole.any():
        yield key, image.copy()
        continue
      plan = self.strategy.plan(hole)
      if planned:
        planned(key, plan)
      try:
        job = None if plan.parts else self._job(key, number, image, hole, plan.limit)
      except InpaintError as error:
        refused(key, error)
        continue
      while waiting and hole.size + sum(map(_pixels, waiting.values())) > _WAITING_PIXELS:
        largest = max(waiting, key=lambda s: _pixels(waiting[s]))
        yield from self._flush(output, waiting, largest, ran, refused)
      if job is None:
        try:
          yield key, self._in_parts(output, number, image, hole, plan.parts)
        except InpaintError as error:
          refused(key, error)
        continue
      shape = self.predictor.padded_size(*job.small_hole.shape)
      waiting.setdefault(shape, []).append(job)
      if len(waiting[shape]) >= self._batch(shape):
        yield from self._flush(output, waiting, shape, ran, refused)
      elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * self.batch_size:
        largest = max(waiting, key=lambda s: len(waiting[s]))
        yield from self._flush(output, waiting, largest, ran, refused)
    for shape in list(waiting):
      yield from self._flush(output, waiting, shape, ran, refused)

  def _job(
    self, key: Hashable, number: int, image: np.ndarray, hole: np.ndarray, limit: int | None
  ) -> Job:
    """Raises InpaintError for a hole that the system does not fill."""
    job = Job(key, number, image, hole, limit)
    if why := self.predictor.refuses(job.small_hole):
      raise InpaintError(why)
    return job

  def _batch(self, shape: tuple[int, int]) -> int:
    fit = self.batch_size * _FULL_BATCH_PIXELS // (shape[0] * shape[1])
    return max(1, min(self.batch_size, fit))

  def _flush(
    self,
    output: Callable,
    waiting: dict[tuple[int, int], list[Job]],
    shape: tuple[int, int],
    ran: dict[tuple[int, int], set[int]],
    refused: Refused,
  ) -> Iterator[tuple[Hashable, np.ndarray]]:
    jobs = waiting.pop(shape)
    sizes = ran.setdefault(shape, set())
    size = min((s for s in sizes if s >= len(jobs)), default=len(jobs))
    sizes.add(size)
    rows = jobs + [jobs[-1]] * (size - len(jobs))
    try:
      outputs = self._call(output, rows)
    except InpaintError as error:
      for job in jobs:
        refused(job.key, error)
      return
    for job, completed in zip(jobs, outputs, strict=False):
      try:
        filling = self._filling(job, completed)[job.hole]
      except InpaintError as error:
        refused(job.key, error)
        continue
      # Of the hole alone: whole copies of a picture of 50 megapixels take 600 MB each.
      result = job.image.copy()
      result[job.hole] = _stored(filling, result.dtype)
      yield job.key, result

  def _in_parts(
    self,
    output: Callable,
    number: int,
    image: np.ndarray,
    hole: np.ndarray,
    parts: Sequence[Part],
  ) -> np.ndarray:
    """The completed image, one part after another; raises InpaintError."""
    result = image.copy()
    # The memory of zeros is taken where something is added to them, so only around blended parts.
    blended = np.zeros(image.shape, np.float32)
    is_blended = np.zeros(hole.shape, bool)
    for part in parts:
      read = part.read.slices
      job = self._job(None, number, image[read], hole[read], part.limit)
      [completed] = self._call(output, [job])
      inside = part.write.within(part.read).slices
      filling = self._filling(job, completed)[inside][part.own]
      write = part.write.slices
      if part.weights is None:
        result[write][part.own] = _stored(filling, result.dtype)
      else:
        blended[write][part.own] += part.weights[part.own][:, None] * np.clip(filling, 0, 1)
        is_blended[write] |= part.own
    result[is_blended] = _stored(blended[is_blended], result.dtype)
    return result

  def _filling(self, job: Job, completed: np.ndarray) -> np.ndarray:
    """f32[H,W,3] at the job's own size of the network's output; raises InpaintError."""
    if not np.isfinite(completed[job.small_hole]).all():
      height, width = self.predictor.padded_size(*job.small_hole.shape)
      raise InpaintError(
        f'{self.name} gave values that are not finite at {height} x {width}: its weights '
        'are damaged or of a run that diverged; use others'
      )
    return job.filling(completed, self.blend)

  def _call(self, function: Callable, jobs: Sequence[Job]) -> Any:
    """The result of a predictor's method for these jobs, which all have the same padded size."""
    images, holes = [job.small for job in jobs], [job.small_hole for job in jobs]
    masks = [hole[..., None].astype(np.float32) for hole in holes]
    try:
      return function(images, masks, np.array([job.number for job in jobs], np.int32))
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
      if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        height, width = self.predictor.padded_size(*holes[0].shape)
        raise InpaintError(
          f'memory does not suffice for {len(jobs)} x {height} x {width} pixels at once: set '
          f'max_side below {max(height, width)}'
          + (f' or batch_size below {len(jobs)}' if len(jobs) > 1 else '')
          + ', or make the image smaller'
        ) from error
      raise


def unrefined_sentence(count: int, total: int, least: int) -> str:
  """What is said of `count` of `total` images that the network saw too small to be refined."""
  return (
    f'{count} of {total} images were not refined: the network saw a shorter side of less than '
    f'{least} pixels. Long images are reduced first, but not by the strategy original'
  )


def _stored(filling: np.ndarray, dtype: np.dtype) -> np.ndarray:
  filling = np.clip(filling, 0.0, 1.0)
  return arrays.to_uint8(filling) if dtype == np.uint8 else filling


def _pixels(jobs: Sequence[Job]) -> int:
  return sum(job.hole.size for job in jobs)


def _raise(key: Hashable, error: InpaintError) -> None:
  raise error
