"""Evaluations for the train loop: sample pictures and quick ones during training, and the last."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.evaluation import classical
from jaxinpaint.evaluation.evaluate import evaluate
from jaxinpaint.evaluation.run import evaluate_and_report
from jaxinpaint.evaluation.spec import (
  SEED,
  About,
  EvaluationSpec,
  Images,
  ImagesSpec,
  MaskedImages,
  fillable,
  protocol_of,
)
from jaxinpaint.masks import sets
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Protocol
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Constants, Inference, Variables
from jaxinpaint.report import grids
from jaxinpaint.report.results import Example, Results
from jaxinpaint.runtime import atomic


def check(config: ConfigDict) -> None:
  """Raises ValueError or OSError now if an evaluation of this config would fail later."""
  settings = config.evaluation
  for name in ('count', 'batch_size', 'quick_count'):
    if not isinstance(settings[name], int) or settings[name] < 1:
      raise ValueError(
        f'config.evaluation.{name} {settings[name]!r} must be an integer of at least 1'
      )
  protocol = without_networks(protocol_of(config))
  larger = [m.name for m in protocol.metrics if m.better == 'higher']
  if config.training.patience and config.checkpoint.best not in larger:
    raise ValueError(
      f'config.checkpoint.best {config.checkpoint.best!r} must be one of the metrics that this '
      f'protocol measures during training, higher being better: {", ".join(larger)}'
    )
  if config.training.evaluate_every or config.training.sample_every or settings.at_end:
    next(iter(ImagesSpec.of_config(config).load().images))  # one at least can be read


def without_networks(protocol: Protocol) -> Protocol:
  """The protocol without the metrics that need networks of features."""
  return dataclasses.replace(protocol, metrics=protocol.host_metrics)


def quick_masks(masks_by_bin: sets.MaskSet) -> sets.MaskSet:
  """All bins as one: image i gets its mask from bin i mod the number of bins."""
  bins = list(masks_by_bin)
  whole = Bin(min(b.low for b in bins), max(b.high for b in bins))
  return {whole: lambda i: masks_by_bin[bins[i % len(bins)]](i)}


class ReadOnce:
  """Test images that stay in memory, since a run measures the same few again and again."""

  def __init__(self, images: Images):
    self._images = images
    self._read = functools.cache(images.__getitem__)

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
    return self._read(index)


class Watch:
  """Sample grids, quick evaluations and the last evaluation for a train loop.

  Args:
    inference: of the system.
    config: of the run.
    workdir: gets samples/STEP.png and evaluation/STEP/.

  Raises:
    ValueError, OSError: see `check`.
  """

  def __init__(self, inference: Inference, config: ConfigDict, workdir: pathlib.Path):
    """See the class."""
    check(config)
    self._config, self._workdir = config, pathlib.Path(workdir)
    # A predictor without weights, which keeps the compiled programs for the next evaluation.
    self._blank = Predictor(inference, Variables({}, {}), seed=SEED)
    self._on: MaskedImages | None = None
    self._fills: dict[str, float] | None = None  # means of this start

  def _spec(self, row: str, predict: Predictor, count: int) -> EvaluationSpec:
    """One row on the first images of the test set, one mask each, without feature networks."""
    if self._on is None:
      # Made at first use, because a run without evaluations needs no test images.
      most = max(self._config.evaluation.quick_count, self._config.training.sample_count)
      wanted = dataclasses.replace(ImagesSpec.of_config(self._config), count=most)
      test_set = fillable(wanted.load(), {row: predict})
      images = ReadOnce(test_set.images)
      self._on = dataclasses.replace(test_set, images=images, masks=quick_masks(test_set.masks))
    return EvaluationSpec(
      {row: predict},
      dataclasses.replace(self._on, count=count),
      without_networks(protocol_of(self._config)),
      batch_size=self._config.evaluation.batch_size,
    )

  def evaluate(self, step: int, state: Any, constants: Constants) -> dict[str, float]:
    """Means over config.evaluation.quick_count images.

    Metrics that need networks of features are left out. The first time, the classical fills are
    measured on the same images and holes, too. All processes call it.

    Args:
      step: of the state.
      state: TrainState; averaged parameters are used if there are any.
      constants: of the recipe; they may contain more than `Inference` reads.

    Returns:
      {'psnr', 'ssim', 'l1_percent', 'hole_psnr', ...} of the model, and 'telea/psnr', ... of the
      fills, by their names in `classical.FILLS`.
    """
    predict = self._blank.with_weights(state.averaged, constants)
    spec = self._spec('model', predict, self._config.evaluation.quick_count)
    fills = {name: classical.FILLS[name].function for name in classical.DEFAULT}
    if self._fills is None:
      spec = dataclasses.replace(spec, rows={**spec.rows, **fills})
    results = evaluate(spec, share=True, examples=0, progress=False)
    (b,) = results.bins
    metrics = spec.protocol.metrics
    means = {m.name: results.summary('model', b, m.name).mean for m in metrics}
    if jax.process_index() == 0:
      shown = ', '.join(f'{m.label} {means[m.name]:.{m.digits}f}' for m in metrics)
      logging.info('step %d, held-out images: %s', step, shown)
    if self._fills is None:
      mean = lambda fill, metric: results.summary(fill, b, metric).mean
      self._fills = {f'{f}/{m.name}': mean(f, m.name) for f in fills for m in metrics}
    return means | self._fills

  def samples(self, step: int, state: Any, constants: Constants) -> np.ndarray | None:
    """A grid of the first test images, written to samples/STEP.png; all processes call it.

    Its columns: input | mask | output | what the system's `pictures` draws | truth.

    Returns:
      The grid, uint8[H, W, 3]; None on all processes but the first.
    """
    predict = self._blank.with_weights(state.averaged, constants)
    if jax.process_index() != 0:
      return None
    count = self._config.training.sample_count
    results = evaluate(self._spec('output', predict, count), examples=count, progress=False)
    (b,) = results.bins
    picture = grids.of_examples(results, b, _pictures(predict, results.examples))
    folder = self._workdir / 'samples'
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(
      folder / f'{step:07d}.png', lambda file: picture.save(file, format='PNG'), sync=False
    )
    return np.asarray(picture)

  def final(
    self, step: int, result: Variables, constants: Constants, before: Variables | None = None
  ) -> Results:
    """The whole evaluation, with the classical fills, in evaluation/STEP/ and on the terminal.

    Args:
      step: of the result.
      result: what the run leaves.
      constants: of the recipe.
      before: what the run started from. It becomes the row 'before', the result the row 'after',
        and all differences are taken from 'before'.
    """
    rows = {self._config.system: self._blank.with_weights(result, constants)}
    about = About(notes={'weights': f'step {step} of this run'})
    if before is not None:
      (after,) = rows.values()
      rows = {'before': self._blank.with_weights(before, constants), 'after': after}
      notes = {'before': self._config.init_from, 'after': f'step {step} of this run'}
      if step == 0:
        notes['result'] = 'no evaluation during training was better than the start, which is kept'
      about = About(baseline='before', published='', notes=notes)
    wanted = ImagesSpec.of_config(self._config)
    spec = EvaluationSpec(
      {**rows, **classical.PREDICTORS},
      fillable(wanted.load(), rows),
      wanted.protocol,
      batch_size=self._config.evaluation.batch_size,
      about=about,
    )
    return evaluate_and_report(spec, self._workdir / 'evaluation' / str(step))


def _pictures(predict: Predictor, examples: Sequence[Example]) -> dict[str, np.ndarray]:
  """{name: uint8[n, H, W, 3]}, the other pictures that the system can show of the examples."""
  mask = np.stack([e.mask for e in examples]).astype(np.float32)[..., None]
  truth = arrays.to_float(np.stack([e.truth for e in examples]))
  ids = np.array([e.index for e in examples], np.int32)
  drawn = predict.pictures(np.where(mask > 0, np.float32(0), truth), mask, ids)
  rgb = lambda x: np.broadcast_to(x, (*x.shape[:-1], 3))
  return {name: arrays.to_uint8(rgb(np.clip(x, 0, 1))) for name, x in drawn.items()}
