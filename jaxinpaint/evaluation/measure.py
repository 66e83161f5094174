"""One batch of an evaluation: read, completed by every row, measured."""

import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxinpaint import arrays
from jaxinpaint.evaluation import predictors
from jaxinpaint.evaluation.journal import Entry
from jaxinpaint.evaluation.spec import EvaluationError, EvaluationSpec
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocol import DEEP, Metric, Protocol
from jaxinpaint.pictures import decode
from jaxinpaint.report.results import Example


def kind_of(metric: Metric) -> str:
  """'host', or 'pair', 'set', 'samples' of those that need networks of features."""
  return DEEP[metric.function] if metric.is_deep else 'host'


def variant_of(metric: Metric, protocol: Protocol) -> str:
  """'composite' or 'raw': which output it measures."""
  if metric.of != 'protocol':
    return metric.of
  return 'composite' if protocol.composite else 'raw'


@dataclasses.dataclass
class Batch:
  """Images with their masks, without those that could not be read.

  Attributes:
    indices: of the images.
    truths: uint8[H, W, 3] each.
    paths: of the images.
    holes: {bin: {index: uint8[H, W], 1 = hole}}, of the images that have a mask in that bin.
    stored: {(row, bin): {index: uint8[H, W, 3]}} of rows whose outputs exist already.
    unreadable: [(index, path, why)].
  """

  indices: list[int]
  truths: list[np.ndarray]
  paths: list[str]
  holes: dict[Bin, dict[int, np.ndarray]]
  stored: dict[tuple[str, Bin], dict[int, np.ndarray]]
  unreadable: list[tuple[int, str, str]]

  def part(self, bin: Bin) -> '_Part':
    """The images that have a mask in a bin."""
    here = [(i, t) for i, t in zip(self.indices, self.truths, strict=True) if i in self.holes[bin]]
    indices = [i for i, _ in here]
    return _Part(indices, [t for _, t in here], [self.holes[bin][i] for i in indices], bin)


@dataclasses.dataclass
class Found:
  """What was measured of a batch: entries, features and pictures as `Journal.add` takes them."""

  entries: list[Entry]
  features: np.ndarray | None
  pictures: dict[str, np.ndarray]


class Measurement:
  """Reads, completes and measures batches.

  Args:
    spec: of the evaluation; without networks, metrics of features are not measured.
    pool: threads that read images and measure.
  """

  def __init__(self, spec: EvaluationSpec, pool: concurrent.futures.Executor):
    """See the class."""
    protocol, rows, networks = spec.protocol, spec.rows, spec.networks
    self._rows, self._images, self._masks = rows, spec.on.images, spec.on.masks
    self.protocol, self._batch_size = protocol, spec.batch_size
    self._networks, self._samples, self._pool = networks, spec.samples, pool
    self._size: tuple[int, int] | None = None
    self._shown = 'composite' if protocol.composite else 'raw'
    missing = networks.missing if networks else {m.name for m in protocol.deep_metrics}
    self._metrics: dict[str, list[Metric]] = {}
    for m in protocol.metrics:
      if m.name not in missing:
        self._metrics.setdefault(kind_of(m), []).append(m)
    variants = {variant_of(m, protocol) for m in self._of('set')}
    # Index of each output's features among those of an image; the truth's are at 0.
    keys = [(v, r, b) for v in sorted(variants) for r in rows for b in self._masks]
    self.places = {key: 1 + k for k, key in enumerate(keys)}

  def _of(self, kind: str) -> list[Metric]:
    return self._metrics.get(kind, [])

  @property
  def set_metrics(self) -> list[Metric]:
    """Metrics of all images together."""
    return self._of('set')

  def read(self, indices: Sequence[int]) -> Batch:
    """Images, masks and stored outputs; if one cannot be read, its image is left out."""
    stored = {n: r for n, r in self._rows.items() if predictors.is_stored(r)}

    def one(i: int) -> tuple:
      try:
        truth, path = self._images[i]
        masks = {b: mask(i) for b, mask in self._masks.items()}
        masks = {b: np.asarray(m) for b, m in masks.items() if m is not None}
        files = {(n, b): row.load(i, b) for n, row in stored.items() for b in masks}
      except decode.UnreadableImage as error:
        return i, error.path, error.why
      return i, truth, path, masks, files

    batch = Batch([], [], [], {b: {} for b in self._masks}, {}, [])
    for i, *content in self._pool.map(one, indices):
      if len(content) == 2:
        batch.unreadable.append((i, *content))
        continue
      truth, path, masks, files = content
      self._check_size(path, truth)
      batch.indices.append(i)
      batch.truths.append(truth)
      batch.paths.append(path)
      for b, mask in masks.items():
        batch.holes[b][i] = mask
      for key, output in files.items():
        if output.shape != truth.shape:
          raise EvaluationError(
            f'the output of {key[0]!r} for {path} is {output.shape[0]} x {output.shape[1]}, the '
            f'image {truth.shape[0]} x {truth.shape[1]}: write outputs of the size of the images'
          )
        batch.stored.setdefault(key, {})[i] = output
    return batch

  def _check_size(self, path: str, truth: np.ndarray) -> None:
    self._size = self._size or truth.shape[:2]
    if truth.shape != (*self._size, 3) or truth.dtype != np.uint8:
      raise EvaluationError(
        f'{path} is {truth.dtype}{list(truth.shape)}, the images before it are '
        f'uint8[{self._size[0]}, {self._size[1]}, 3]: crop or resize all to one size'
      )

  def complete(self, name: str, bin: Bin, indices: Sequence[int]) -> list[Example]:
    """Completes some images once more, as they are measured, to show them."""
    examples = []
    for start in range(0, len(indices), self._batch_size):
      batch = self.read(indices[start : start + self._batch_size])
      part = batch.part(bin)
      if not part.indices:
        continue
      outputs, _ = self._outputs(name, part, batch)
      shown = map(_eight_bits, outputs[self._shown])
      examples += [
        Example(bin, i, truth, hole, {name: output})
        for i, truth, hole, output in zip(part.indices, part.truths, part.holes, shown, strict=True)
      ]
    return examples

  def measure(self, batch: Batch, picture: bool) -> Found:
    """Measures all rows on a batch; with `picture` the outputs are kept for the grids."""
    n, bins = len(batch.indices), list(self._masks)
    at = {i: k for k, i in enumerate(batch.indices)}
    values = [{name: [{} for _ in bins] for name in self._rows} for _ in range(n)]
    changed = [{name: [0 for _ in bins] for name in self._rows} for _ in range(n)]
    pictures: dict[str, np.ndarray] = {}
    features = None
    if self._of('set') and n:
      # Features of truths are cached, for the next evaluation on these images.
      truth = self._networks.features_of_set(batch.truths)
      features = np.zeros((n, 1 + len(self.places), truth.shape[-1]), np.float32)
      features[:, 0] = truth
    if picture and n:
      pictures['truth'] = np.stack(batch.truths)
    pending = []
    for k, b in enumerate(bins):
      part = batch.part(b)
      here = part.indices
      if not here:
        continue
      if picture:
        _put(pictures, f'mask {k}', part.holes, [at[i] for i in here], n)
      for r, name in enumerate(self._rows):
        outputs, differences = self._outputs(name, part, batch)
        for i, difference in zip(here, differences, strict=True):
          changed[at[i]][name][k] = difference
        if picture:
          as_seen = list(map(_eight_bits, outputs[self._shown]))
          _put(pictures, f'output {k} {r}', as_seen, [at[i] for i in here], n)
        # The host measures one row while the devices complete the next one.
        pending.append((k, name, here, self._host(part, outputs)))
        for i, numbers in zip(here, self._deep(name, part, outputs), strict=True):
          values[at[i]][name][k] |= numbers
        for v in {variant_of(m, self.protocol) for m in self._of('set')}:
          as_seen = list(map(_eight_bits, outputs[v]))
          rows = self._networks.features(_fill_up(as_seen, self._batch_size))
          for row, i in enumerate(here):
            features[at[i], self.places[v, name, b]] = rows[row]
    for k, name, here, futures in pending:
      for i, future in zip(here, futures, strict=True):
        values[at[i]][name][k] |= future.result()
    entries = [
      Entry(
        index=i,
        file=path,
        size=truth.shape[:2],
        shares=tuple(
          float(batch.holes[b][i].mean()) if i in batch.holes[b] else None for b in bins
        ),
        values={name: [self._in_order(v) for v in of] for name, of in values[row].items()},
        changed={name: of for name, of in changed[row].items() if any(of)},
        features=None if features is None else row,
        pictures=row if pictures else None,
      )
      for row, (i, path, truth) in enumerate(
        zip(batch.indices, batch.paths, batch.truths, strict=True)
      )
    ]
    entries += [Entry(index=i, file=path, why=why) for i, path, why in batch.unreadable]
    return Found(entries, features, pictures)

  def _in_order(self, values: Mapping[str, float]) -> dict[str, float]:
    return {m.name: values[m.name] for m in self.protocol.metrics if m.name in values}

  def _outputs(
    self, name: str, part: '_Part', batch: Batch
  ) -> tuple[dict[str, list[np.ndarray]], list[int]]:
    """{'composite' or 'raw': each output}, and how much known pixels of stored outputs differ."""
    row = self._rows[name]
    if predictors.is_stored(row):
      raw = [batch.stored[name, part.bin][i] for i in part.indices]
      differences = []
      for output, truth, hole in zip(raw, part.truths, part.holes, strict=True):
        known = hole == 0
        difference = np.abs(output[known].astype(np.int32) - truth[known])
        differences.append(int(difference.max(initial=0)))
      whole = list(map(arrays.to_float, raw))
    else:
      whole, differences = self._complete(name, part, 0), [0] * len(part.indices)
    composite = [
      np.where(hole[..., None] > 0, x, arrays.to_float(truth))
      for x, truth, hole in zip(whole, part.truths, part.holes, strict=True)
    ]
    outputs = {'composite': composite, 'raw': whole}
    if self.protocol.round_to_uint8:
      outputs = {v: list(map(self._rounded, x)) for v, x in outputs.items()}
      self._check_known(name, part, outputs['composite'])
    return outputs, differences

  def _check_known(self, name: str, part: '_Part', composite: list[np.ndarray]) -> None:
    for i, truth, hole, now in zip(part.indices, part.truths, part.holes, composite, strict=True):
      known = hole == 0
      if not np.array_equal(truth[known], now[known]):
        raise EvaluationError(f'{name!r}: known pixels of image {i} differ after rounding')

  def _complete(self, name: str, part: '_Part', sample: int) -> list[np.ndarray]:
    """f32[H, W, 3] of each image: the row's output, checked."""
    row, n = self._rows[name], len(part.indices)
    for i, hole in zip(part.indices, part.holes, strict=True):
      if why := predictors.refuses(row, hole):
        raise EvaluationError(f'{name!r} cannot complete image {i}: {why}')
    image, mask, ids = part.inputs(self._batch_size)
    output = predictors.call(row, image, mask, ids, sample)
    if output.shape != image.shape:
      raise EvaluationError(f'{name!r} returned the shape {output.shape} for images {image.shape}')
    output, image, mask = output[:n], image[:n], mask[:n]
    if not np.isfinite(output).all():
      bad = [i for i, x in zip(part.indices, output, strict=True) if not np.isfinite(x).all()]
      raise EvaluationError(f'{name!r} returned NaN or infinity for the images {bad}')
    if not predictors.has_raw(row):
      change = float(np.where(mask > 0, 0, np.abs(output - image)).max())
      if change > 0:
        raise EvaluationError(
          f'{name!r} changed known pixels by up to {change:.3g} (of 1): a predictor returns the '
          'completed image, see arrays.compose'
        )
    return list(output)

  def _host(
    self, part: '_Part', outputs: Mapping[str, list[np.ndarray]]
  ) -> list[concurrent.futures.Future]:
    """Futures of {metric: number}, one for each image."""
    metrics = [(m, variant_of(m, self.protocol)) for m in self._of('host')]

    def one(row: int) -> dict[str, float]:
      truth, hole = part.truths[row], part.holes[row].astype(bool)
      if not self.protocol.round_to_uint8:
        truth = truth.astype(np.float64) / 255
      return {m.name: m(truth, outputs[v][row], hole) for m, v in metrics}

    return [self._pool.submit(one, row) for row in range(len(part.indices))]

  def _deep(
    self, name: str, part: '_Part', outputs: Mapping[str, list[np.ndarray]]
  ) -> list[dict[str, float]]:
    """{metric: number} of each image, for metrics that need networks."""
    by_image: list[dict[str, float]] = [{} for _ in part.indices]
    if not (self._of('pair') or self._of('samples')):
      return by_image
    truth = _fill_up(self._seen(part.truths), self._batch_size)
    for m in self._of('pair'):
      output = _fill_up(outputs[variant_of(m, self.protocol)], self._batch_size)
      numbers = self._networks.pair(m, truth, output)
      for row, values in enumerate(by_image):
        values[m.name] = float(numbers[row])
    row = self._rows[name]
    if self._of('samples') and self._samples > 1 and predictors.has_samples(row):
      drawn = [outputs] + [self._sample(name, part, k) for k in range(1, self._samples)]
      for m in self._of('samples'):
        v = variant_of(m, self.protocol)
        stack = np.stack([_fill_up(o[v], self._batch_size) for o in drawn])
        numbers = self._networks.of_samples(m, truth, stack)
        for row, values in enumerate(by_image):
          values[m.name] = float(numbers[row])
    return by_image

  def _sample(self, name: str, part: '_Part', sample: int) -> dict[str, list[np.ndarray]]:
    """As `_outputs`, of another sample."""
    whole = self._complete(name, part, sample)
    composite = [
      np.where(hole[..., None] > 0, x, arrays.to_float(truth))
      for x, truth, hole in zip(whole, part.truths, part.holes, strict=True)
    ]
    seen = self._rounded if self.protocol.round_to_uint8 else lambda x: x
    return {'composite': list(map(seen, composite)), 'raw': list(map(seen, whole))}

  def _rounded(self, image: np.ndarray) -> np.ndarray:
    return arrays.to_uint8(image, self.protocol.rounding)

  def _seen(self, truths: list[np.ndarray]) -> list[np.ndarray]:
    return truths if self.protocol.round_to_uint8 else list(map(arrays.to_float, truths))


@dataclasses.dataclass(frozen=True)
class _Part:
  """The images of a batch that have a mask in a bin."""

  indices: list[int]
  truths: list[np.ndarray]
  holes: list[np.ndarray]
  bin: Bin

  def inputs(self, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, mask, ids) of `batch_size` rows; the hole of the image is 0."""
    truth = arrays.to_float(_fill_up(self.truths, batch_size))
    mask = _fill_up(self.holes, batch_size).astype(np.float32)[..., None]
    ids = _fill_up([np.int32(i) for i in self.indices], batch_size)
    return np.where(mask > 0, np.float32(0), truth), mask, ids


def _fill_up(rows: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
  """Stacks rows, and repeats the last until there are `batch_size`."""
  return np.stack([*rows, *[rows[-1]] * (batch_size - len(rows))])


def _eight_bits(image: np.ndarray) -> np.ndarray:
  """uint8, as pictures are shown and as networks of features read them."""
  return image if image.dtype == np.uint8 else arrays.to_uint8(image)


def _put(
  pictures: dict[str, np.ndarray], name: str, rows: list[np.ndarray], at: list[int], n: int
) -> None:
  """Adds an array of all n images of a batch that holds these rows at their indices."""
  pictures[name] = np.zeros((n, *rows[0].shape), rows[0].dtype)
  pictures[name][at] = rows
