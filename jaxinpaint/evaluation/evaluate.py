"""The evaluation loop: every predictor on the same images with the same holes."""

import concurrent.futures
import os
from collections.abc import Callable, Mapping
from typing import Protocol as Interface

import numpy as np
import tqdm
from absl import logging

from jaxinpaint import arrays
from jaxinpaint.data import decode
from jaxinpaint.evaluation import mask_sets
from jaxinpaint.evaluation.protocols import Protocol
from jaxinpaint.evaluation.results import Example, Record, Results

# (image f32[B,H,W,3] in [0,1] with an empty (0) hole, mask f32[B,H,W,1] 1 = hole, ids i32[B]) ->
# f32[B,H,W,3], the completed image, equal to the image wherever mask is 0.
Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class EvaluationError(ValueError):
  """The evaluation cannot be made or trusted; the message says why."""


class Images(Interface):
  """Test images of one size, as `data.pipeline.evaluation_set` gives them."""

  def __len__(self) -> int:
    """How many there are."""

  def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
    """(uint8[H, W, 3] RGB, its path); raises data.decode.UnreadableImage."""


def evaluate(
  predictors: Mapping[str, Predictor],
  images: Images,
  masks_by_bin: mask_sets.MaskSet,
  protocol: Protocol,
  *,
  batch_size: int = 8,
  seed: int = 0,
  count: int | None = None,
  examples: int = 4,
  progress: bool = True,
) -> Results:
  """Measures predictors on the first `count` images, each with one mask per bin.

  Predictors get the picture with its hole emptied to 0, so that none can look at the truth, in
  batches of exactly `batch_size` (the last is filled up with copies, which are not measured), so
  that whatever compiles, compiles once. The output is pasted into the known picture and rounded as
  the protocol says, then measured on the host. The numbers do not depend on batch_size, as far as a
  predictor's rows do not.

  Args:
    predictors: {name: predictor}.
    images: the test set; one that cannot be read is named, skipped and counted.
    masks_by_bin: of `mask_sets.make`.
    protocol: what is measured.
    batch_size: images at a time.
    seed: of the masks; recorded.
    count: at most; None: the protocol's.
    examples: so many images per bin are kept for the grids.
    progress: logs a line, and shows a bar where stderr is a terminal.

  Raises:
    EvaluationError: nothing to measure, or a predictor returned another shape, changed known
      pixels, or returned NaN or infinity.
  """
  if not predictors or not masks_by_bin or batch_size < 1:
    raise EvaluationError(
      f'give at least one predictor ({len(predictors)}), one bin ({len(masks_by_bin)}) and a '
      f'batch_size of at least 1 ({batch_size})'
    )
  wanted = min(protocol.count if count is None else count, len(images))
  if wanted < 1:
    raise EvaluationError(f'no images to evaluate on: there are {len(images)}, wanted {count}')
  bins = tuple(masks_by_bin)
  if progress:
    logging.info(
      'Evaluating %s on %d images, hole shares %s %%.',
      ', '.join(predictors),
      wanted,
      ', '.join(b.label for b in bins),
    )
  records: list[Record] = []
  kept: list[Example] = []
  skipped: list[tuple[str, str]] = []
  digest = mask_sets.Hash(bins)
  size: tuple[int, int] = (0, 0)
  bar = tqdm.tqdm(
    total=wanted * len(bins), unit='image', desc='evaluating', disable=None if progress else True
  )
  threads = min(8, os.cpu_count() or 1)
  with bar, concurrent.futures.ThreadPoolExecutor(threads) as pool:
    for start in range(0, wanted, batch_size):
      indices, truths, paths = _read(images, range(start, min(start + batch_size, wanted)), skipped)
      bar.update((min(start + batch_size, wanted) - start - len(indices)) * len(bins))
      if not indices:
        continue
      size = size if any(size) else truths[0].shape[:2]
      _check_sizes(paths, truths, size)
      for b in bins:
        holes = [np.asarray(masks_by_bin[b](i)) for i in indices]
        for i, hole in zip(indices, holes, strict=True):
          digest.add(b, i, hole)
        new = [
          Example(b, i, truth, hole, {})
          for i, truth, hole in zip(indices, truths, holes, strict=True)
        ]
        for name, predictor in predictors.items():
          outputs = _predict(name, predictor, indices, truths, holes, batch_size, protocol)
          for example, output in zip(new, outputs, strict=True):
            example.outputs[name] = output
          measured = pool.map(lambda *x: _measure(protocol, *x), truths, outputs, holes)
          for i, path, hole, values in zip(indices, paths, holes, measured, strict=True):
            records.append(Record(name, b, i, path, float(hole.mean()), values))
        room = examples - sum(e.bin == b for e in kept)
        kept += new[: max(room, 0)]
        bar.update(len(indices))
  if not records:
    raise EvaluationError(
      f'none of the {wanted} images could be read; the first: {": ".join(skipped[0])}'
    )
  return Results(
    protocol=protocol,
    predictors=tuple(predictors),
    bins=bins,
    records=records,
    examples=kept,
    skipped=skipped,
    mask_sha256=digest.hexdigest(),
    seed=seed,
    size=size,
  )


def _read(
  images: Images, indices: range, skipped: list[tuple[str, str]]
) -> tuple[list[int], list[np.ndarray], list[str]]:
  """Those of the images that can be read; names the others in the log and in `skipped`."""
  found, truths, paths = [], [], []
  for i in indices:
    try:
      truth, path = images[i]
    except decode.UnreadableImage as error:
      logging.warning('Image left out of the evaluation: %s', error)
      skipped.append((error.path, error.why))
      continue
    found.append(i)
    truths.append(truth)
    paths.append(path)
  return found, truths, paths


def _check_sizes(paths: list[str], truths: list[np.ndarray], size: tuple[int, int]) -> None:
  for path, truth in zip(paths, truths, strict=True):
    if truth.shape != (*size, 3) or truth.dtype != np.uint8:
      raise EvaluationError(
        f'{path} is {truth.dtype}{list(truth.shape)}, the images before it are '
        f'uint8[{size[0]}, {size[1]}, 3]: crop or resize all to one size'
      )


def _fill_up(rows: list[np.ndarray], batch_size: int) -> np.ndarray:
  """Stacks rows and repeats the last until there are `batch_size`."""
  return np.stack(rows + [rows[-1]] * (batch_size - len(rows)))


def _predict(
  name: str,
  predictor: Predictor,
  indices: list[int],
  truths: list[np.ndarray],
  holes: list[np.ndarray],
  batch_size: int,
  protocol: Protocol,
) -> list[np.ndarray]:
  """What is measured of each output: pasted and rounded as the protocol says."""
  truth = arrays.to_float(_fill_up(truths, batch_size))
  mask = _fill_up(holes, batch_size).astype(np.float32)[..., None]
  ids = _fill_up([np.int32(i) for i in indices], batch_size)
  image = np.where(mask > 0, np.float32(0), truth)
  output = np.asarray(predictor(image, mask, ids), np.float32)
  if output.shape != image.shape:
    raise EvaluationError(f'{name!r} returned the shape {output.shape} for images {image.shape}')
  n = len(indices)
  output, image, mask, truth = output[:n], image[:n], mask[:n], truth[:n]
  if not np.isfinite(output).all():
    bad = [i for i, x in zip(indices, output, strict=True) if not np.isfinite(x).all()]
    raise EvaluationError(f'{name!r} returned NaN or infinity for the images {bad}')
  change = float(np.where(mask > 0, 0, np.abs(output - image)).max())
  if change > 0:
    raise EvaluationError(
      f'{name!r} changed known pixels by up to {change:.3g} (of 1): a predictor returns the '
      'completed image, see arrays.compose'
    )
  if protocol.composite:
    output = np.where(mask > 0, output, truth)
  if protocol.round_to_uint8:
    output = arrays.to_uint8(output)
    for i, was, hole, now in zip(indices, truths, holes, output, strict=True):
      known = hole == 0
      if protocol.composite and not np.array_equal(was[known], now[known]):
        raise EvaluationError(f'{name!r}: known pixels of image {i} differ after rounding')
  return list(output)


def _measure(
  protocol: Protocol, truth: np.ndarray, output: np.ndarray, hole: np.ndarray
) -> dict[str, float]:
  if output.dtype != np.uint8:
    truth = truth.astype(np.float64) / 255
  return {m.name: m(truth, output, hole.astype(bool)) for m in protocol.metrics}
