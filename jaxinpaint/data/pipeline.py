"""The stream of training batches, and the fixed list of evaluation images.

Training: place g = step * batch_size + row of the endless stream belongs to epoch g // n of a
source of n images, which are shuffled again for each epoch. The order depends on (seed, epoch);
crop, flip and mask depend on (seed, epoch, image). So batch s is a pure function of (config, seed,
s): it does not depend on the worker or process count, and a run can begin at any step without
replaying.

A process reads only the rows of each global batch that its devices hold.

An unreadable image is logged with its path, once per worker, and the next image of the source takes
its place (with the place's own crop, flip and mask).
"""

import collections.abc
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import cv2
import grain
import numpy as np
from absl import flags, logging

from jaxinpaint.data import (
  colors,
  crops,
  resizing,
  sources,
)
from jaxinpaint.data import inputs as inputs_lib
from jaxinpaint.masks import brush
from jaxinpaint.masks import spec as masks_lib
from jaxinpaint.pictures.decode import UnreadableImage

_MIN_SIZE = 8
_FAILURES = 100  # unreadable images in a row that end the run
_ENDLESS = 1 << 48
# Keys of the random streams that are drawn from one seed.
_ORDER, _CROP, _MASK = 0, 1, 2

_T = TypeVar('_T')


def make(
  config: Any,
  seed: int,
  *,
  start_step: int = 0,
  rows: Sequence[int] | None = None,
  inputs: Sequence[str] = (),
) -> 'Batches':
  """The batches from `start_step` on, without end.

  Args:
    config: config.data: source, split, size, crop, flip, batch_size, masks, workers [, data_dir].
    seed: at least 0.
    start_step: the first batch's number.
    rows: the rows of the global batch to read, in this order; None: all.
    inputs: extra inputs, see `data.inputs`.

  Returns:
    An iterator of these rows: {'image': uint8[b, size, size, 3] RGB, 'mask':
    uint8[b, size, size, 1] in {0, 1}, 1 = hole, 'id': i32[b], the image's index in the source} and
    the inputs, f32[b, size, size, C], made from the whole image. With config.data.masks_on_device
    'mask_key', u32[b, 2], takes the place of the mask (`masks.brush`).

  Raises:
    ValueError, FileNotFoundError: see `check`.
  """
  samples = _samples(config, seed, start_step, rows, inputs)
  dataset = grain.MapDataset.source(samples).batch(len(samples.rows))
  if not config.workers:
    threads = min(16, os.cpu_count() or 1)
    return Batches(dataset.to_iter_dataset(grain.ReadOptions(threads, max(4, threads))))
  # Grain's workers read absl's flags, which a program that is not an absl app never parses.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  dataset = dataset.to_iter_dataset(grain.ReadOptions(1, 2))
  options = grain.multiprocessing.MultiprocessingOptions(config.workers, per_worker_buffer_size=2)
  return Batches(dataset.mp_prefetch(options, worker_init_fn=_live_with_the_parent))


def _live_with_the_parent(index: int, count: int) -> None:
  """Runs in a worker, which ignores signals and ends when its parent ends.

  Ctrl-C and many schedulers signal every process of a job, but the workers have to go on until the
  parent has saved. A parent that is killed cannot end them itself.
  """
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def watch():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(0)

  if parent is not None:
    threading.Thread(target=watch, daemon=True).start()


class Batches:
  """An endless iterator; `close()`, or its deletion, ends its threads or worker processes."""

  def __init__(self, dataset: grain.IterDataset):
    self._open = [iter(dataset)]
    # Also runs when the program ends, while the modules that closing needs still exist.
    self.close = weakref.finalize(self, _close, self._open)

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if not self._open:
      raise StopIteration
    return next(self._open[0])


def _close(iterators: list[grain.DatasetIterator]) -> None:
  while iterators:
    iterators.pop().close()


def check(
  config: Any,
  seed: int,
  *,
  rows: Sequence[int] | None = None,
  inputs: Sequence[str] = (),
) -> None:
  """Finds whatever is wrong with the data, before a run costs anything else.

  Opens the source, checks mask files, and makes one sample.

  Raises:
    ValueError: a field out of range, unknown names, nothing readable.
    FileNotFoundError: a wrong path, or a data set that is not prepared.
  """
  samples = _samples(config, seed, 0, rows, inputs)
  samples.masks.check()
  samples[0]


def _samples(
  config: Any,
  seed: int,
  start_step: int,
  rows: Sequence[int] | None,
  inputs: Sequence[str],
) -> 'Samples':
  _check_config(config)
  if seed < 0:
    raise ValueError(f'seed {seed} must be at least 0')
  if start_step < 0:
    raise ValueError(f'start_step {start_step} must be at least 0')
  return Samples(config, seed, start_step, rows, inputs)


def source_length(config: Any) -> int:
  """The number of training images of config.data."""
  return len(_source(config.source, config.split, config.get('data_dir', '')))


# A run opens its source three times, and listing a folder of a million files takes a while.
@functools.lru_cache(maxsize=2)
def _source(name: str, split: str, data_dir: str) -> sources.Source:
  return sources.make(name, split, data_dir=data_dir)


def _check_config(config: Any) -> None:
  """Raises ValueError naming the field."""
  for name, least in (('size', _MIN_SIZE), ('batch_size', 1), ('workers', 0)):
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
      raise ValueError(f'config.data.{name} {value!r} must be an integer of at least {least}')
  if config.crop not in crops.KINDS:
    raise ValueError(f'config.data.crop {config.crop!r} must be one of {", ".join(crops.KINDS)}')
  if config.get('colors', 'keep') not in colors.KINDS:
    raise ValueError(
      f'config.data.colors {config.colors!r} must be one of {", ".join(colors.KINDS)}'
    )
  for name in ('flip', 'reduced_decode'):
    if not isinstance(config.get(name, False), bool):
      raise ValueError(f'config.data.{name} {config[name]!r} must be True or False')


class Samples:
  """Random access to n chosen rows of every batch; item i is rows[i % n] of batch i // n.

  Can be pickled. Items are {'image', 'mask', 'id', inputs ...} without the batch axis.
  """

  def __init__(
    self,
    config: Any,
    seed: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    inputs: Sequence[str] = (),
  ):
    self.source = _source(config.source, config.split, config.get('data_dir', ''))
    self.masks = masks_lib.make(config.masks)
    self.seed, self.start_step = int(seed), int(start_step)
    self.size, self.crop, self.flip = config.size, config.crop, config.flip
    self.batch_size = config.batch_size
    self.rows = tuple(range(self.batch_size) if rows is None else map(int, rows))
    if not self.rows or not all(0 <= r < self.batch_size for r in self.rows):
      raise ValueError(f'rows {self.rows} must be some of 0 to {self.batch_size - 1}')
    self.colors = config.get('colors', 'keep')
    self.reduced_decode = config.get('reduced_decode', False)
    self.inputs = tuple(inputs)
    self.masks_on_device = config.get('masks_on_device', False)
    if self.masks_on_device and not isinstance(self.masks, brush.Brush):
      raise ValueError(
        f'config.data.masks {self.masks.name!r} are drawn on the host; config.data.masks_on_device '
        "takes 'brush' masks, as 'brush:0.1-0.4'"
      )
    self._orders: dict[int, np.ndarray] = {}
    self._unreadable: dict[int, object] = {}

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {'_orders': {}, '_unreadable': {}}

  def __len__(self) -> int:
    return _ENDLESS

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    batch, position = divmod(int(i), len(self.rows))
    place = (self.start_step + batch) * self.batch_size + self.rows[position]
    epoch, position = divmod(place, len(self.source))
    index = int(self._order(epoch)[position])
    # The place's own crop and flip, also of the image that takes the place of an unreadable one.
    (image, rng), used = self._read(index, lambda i: self._crop(i, self._rng(_CROP, epoch, index)))
    if self.flip and rng.random() < 0.5:
      image = cv2.flip(image, 1)
    image = colors.KINDS[self.colors](image, rng)
    rng = self._rng(_MASK, epoch, index)
    if self.masks_on_device:
      mask = {'mask_key': brush.key_of(rng)}
    else:
      mask = {'mask': self.masks(rng, self.size, self.size)[..., None]}
    return {
      'image': np.ascontiguousarray(image),
      **mask,
      'id': np.asarray(used, np.int32),
      **inputs_lib.compute(self.inputs, image, None),
    }

  def _rng(self, *key: int) -> np.random.Generator:
    return np.random.default_rng([self.seed, *key])

  def _order(self, epoch: int) -> np.ndarray:
    """i[n], the source's indices in this epoch's order."""
    order = self._orders.get(epoch)
    if order is None:
      order = self._rng(_ORDER, epoch).permutation(len(self.source))
      # Batches in flight touch at most two epochs if epochs are longer than the read-ahead; a short
      # epoch is cheap to shuffle again.
      self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {epoch: order}
    return order

  def _crop(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.random.Generator]:
    """(uint8[size, size, 3] out of the image of this index, the advanced rng)."""
    data = self.source.encoded(index) if self.reduced_decode else None
    if data is None:
      return crops.crop(self.source[index], self.size, self.crop, rng), rng
    return crops.crop_file(data, self.source.path(index), self.size, self.crop, rng), rng

  def _read(self, index: int, read: Callable[[int], _T]) -> tuple[_T, int]:
    """`read` of this index, or of the first readable image after it, and the index used."""
    n, failure = len(self.source), None
    for k in range(min(n, _FAILURES)):
      candidate = (index + k) % n
      if candidate in self._unreadable and k < min(n, _FAILURES) - 1:
        continue
      try:
        return read(candidate), candidate
      except UnreadableImage as error:
        failure = error
        token = object()  # setdefault is atomic: of several threads one gets its own back
        if self._unreadable.setdefault(candidate, token) is token:
          logging.warning('Image skipped: %s', error)
    raise ValueError(
      f'{min(n, _FAILURES)} images in a row cannot be read, from {self.source.path(index)} on; the '
      f'last: {failure}. Check the files and the access to them'
    )


class EvaluationSet:
  """The images of an evaluation: fixed, in order, each made a square (`resizing.square`).

  `set[i]` is (uint8[size, size, 3], path) and raises UnreadableImage; iterating logs and leaves out
  what cannot be read. `set.indices[i]` is the image's index in the source.
  """

  def __init__(
    self, source: sources.Source, size: int, count: int | None, crop: str, kernel: str = 'area'
  ):
    self.source, self.size, self.crop, self.resize = source, size, crop, kernel
    n = len(source)
    # Spread over the source: sorted folders hold one class after another.
    taken = n if not count else min(count, n)
    self.indices = tuple(int(k * n // taken) for k in range(taken))

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, i: int) -> tuple[np.ndarray, str]:
    index = self.indices[i]
    image = resizing.square(self.source[index], self.size, crop=self.crop, kernel=self.resize)
    return np.ascontiguousarray(image), self.source.path(index)

  def path(self, i: int) -> str:
    """What `self[i]` is read from."""
    return self.source.path(self.indices[i])

  def __iter__(self) -> collections.abc.Iterator[tuple[np.ndarray, str]]:
    readable = False
    for i in range(len(self)):
      try:
        item = self[i]
      except UnreadableImage as error:
        logging.warning('Image left out of the evaluation: %s', error)
        continue
      readable = True
      yield item
    if not readable:
      raise ValueError(f'none of the {len(self)} evaluation images can be read')


def evaluation_set(
  source: 'str | sources.Source',
  split: str = 'test',
  *,
  size: int,
  count: int | None = None,
  crop: str = 'center',
  resize: str = 'area',
  data_dir: str = '',
) -> EvaluationSet:
  """The images of an evaluation.

  Args:
    source: a name as in config.data.eval_source, or a Source.
    split: of a named source.
    size: side of the square images.
    count: at most so many, spread evenly over the source; None or 0: all.
    crop: of `resizing.CROPS`.
    resize: kernel, of `resizing.KERNELS`.
    data_dir: of tfds.

  Raises:
    ValueError, FileNotFoundError: as sources.make, for a size below 8, an unknown crop or kernel.
  """
  if not isinstance(size, int) or size < _MIN_SIZE:
    raise ValueError(f'size {size!r} of the evaluation images must be an integer >= {_MIN_SIZE}')
  for name, value, known in (
    ('crop', crop, resizing.CROPS),
    ('resize', resize, tuple(resizing.KERNELS)),
  ):
    if value not in known:
      raise ValueError(f'{name} {value!r} of the evaluation images must be one of {known}')
  if count is not None and count < 0:
    raise ValueError(f'count {count} of evaluation images must be at least 1, or 0 for all')
  if isinstance(source, str):
    source = sources.make(source, split, data_dir=data_dir)
  return EvaluationSet(source, size, count, crop, resize)
