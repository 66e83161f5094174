"""Evaluation of a run: while it trains (`Watch`) and when it is done (`evaluate_model`)."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from typing import Protocol as Interface

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint import arrays
from jaxinpaint.data import pipeline
from jaxinpaint.evaluation import (
  classical,
  journal,
  measure,
  predictors,
)
from jaxinpaint.evaluation.evaluate import Images, Predictor, evaluate
from jaxinpaint.masks import sets
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import deep, protocols
from jaxinpaint.metrics.protocols import Protocol
from jaxinpaint.predictor import Model
from jaxinpaint.recipe import Recipe
from jaxinpaint.report import report
from jaxinpaint.report.results import Example, Results
from jaxinpaint.runtime import atomic, locks, processes

# Of the masks. It is not the run's seed, so that runs with other seeds meet the same masks.
SEED = 0

# (word in a source's name, the published data set that stands beside it): the first that fits.
_PUBLISHED = (
  ('places', 'Places2'),
  ('celeb', 'CelebA'),
  ('celeb', 'CelebA-HQ'),
  ('', 'real photographs'),
)


class Writer(Interface):
  """Where numbers and pictures go: `training.writers.Writer`."""

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """{name: number}."""

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """uint8[H, W, 3]."""


def dataset_of(config: ConfigDict) -> str:
  """'SOURCE/SPLIT' that a config evaluates on."""
  return f'{config.data.eval_source or config.data.source}/{config.data.eval_split}'


def images_of(config: ConfigDict, count: int) -> Images:
  """`count` test images of a config, of its size, spread over the set; fewer where it is smaller.

  Raises:
    ValueError, FileNotFoundError: of the source, naming the path.
  """
  data = config.data
  return pipeline.evaluation_set(
    data.eval_source or data.source,
    data.eval_split,
    size=data.size,
    count=count,
    **protocols.get(config.evaluation.protocol).image_options(data.crop),
    data_dir=data.data_dir,
  )


def published_dataset(dataset: str, protocol: Protocol) -> str:
  """The published data set nearest to the one evaluated on; '' where the paper has none such."""
  known = report.published_datasets(protocol.id)
  for word, name in _PUBLISHED:
    if word in dataset.lower() and name in known:
      return name
  return ''


def check(config: ConfigDict, recipe: Recipe) -> None:
  """Raises ValueError or OSError for what would make an evaluation of this config fail later."""
  settings = config.evaluation
  for name in ('count', 'batch_size', 'quick_count'):
    if not isinstance(settings[name], int) or settings[name] < 1:
      raise ValueError(
        f'config.evaluation.{name} {settings[name]!r} must be an integer of at least 1'
      )
  protocol = protocols.get(settings.protocol)
  if not (config.training.evaluate_every or config.training.sample_every or settings.at_end):
    return
  measure.check_size(protocol, config.data.size, config.data.size)
  masks_of(config, protocol, images_of(config, settings.count))


def masks_of(config: ConfigDict, protocol: Protocol, images: Images) -> sets.MaskSet:
  """The holes that a config evaluates with, of its size.

  Raises:
    ValueError, FileNotFoundError: see `mask_sets.make`.
  """
  size = config.data.size
  return sets.make(config.evaluation.masks, protocol.bins, size, size, seed=SEED, images=images)


def without_networks(protocol: Protocol) -> Protocol:
  """The protocol without the metrics that need networks of features."""
  return dataclasses.replace(protocol, metrics=protocol.host_metrics)


def quick_masks(masks_by_bin: sets.MaskSet) -> sets.MaskSet:
  """One bin of all: image i gets its mask of bin i mod the count of bins."""
  bins = list(masks_by_bin)
  whole = Bin(min(b.low for b in bins), max(b.high for b in bins))
  return {whole: lambda i: masks_by_bin[bins[i % len(bins)]](i)}


def quick_evaluate(
  predict: Predictor, images: Images, masks: sets.MaskSet, protocol: Protocol, config: Any
) -> dict[str, float]:
  """Means over a few images, one mask each: {'psnr', 'ssim', 'l1_percent', 'hole_psnr', ...}.

  Metrics that need networks of features are left out. All processes call it.

  Args:
    predict: one predictor.
    images: of `images_of`.
    masks: of `quick_masks`.
    protocol: what is measured.
    config: config.evaluation: quick_count and batch_size.
  """
  protocol = without_networks(protocol)
  results = evaluate(
    {'model': predict},
    images,
    masks,
    protocol,
    batch_size=config.batch_size,
    seed=SEED,
    count=config.quick_count,
    examples=0,
    progress=False,
    share=True,
  )
  (b,) = results.bins
  return {m.name: results.summary('model', b, m.name).mean for m in protocol.metrics}


class Watch:
  """What a train loop shows of the model: sample grids, quick evaluations, the last one.

  Args:
    recipe: of the system.
    config: of the run, checked by `check`.
    workdir: gets samples/STEP.png and evaluation/STEP/.
    writer: gets the numbers and grids too.
  """

  def __init__(self, recipe: Recipe, config: ConfigDict, workdir: pathlib.Path, writer: Writer):
    """See the class."""
    self._config, self._workdir, self._writer = config, pathlib.Path(workdir), writer
    self._recipe = recipe
    self._model = Model(recipe, SEED)
    self._protocol = protocols.get(config.evaluation.protocol)
    self._made: tuple[Images, sets.MaskSet] | None = None

  def _test_set(self) -> tuple[Images, sets.MaskSet]:
    # Made at first use: a run that never looks at test images does not need any.
    if self._made is None:
      wanted = max(self._config.evaluation.quick_count, self._config.training.sample_count)
      images = images_of(self._config, wanted)
      self._made = images, quick_masks(masks_of(self._config, self._protocol, images))
    return self._made

  def evaluate(self, step: int, state: Any, constants: Mapping[str, Any]) -> dict[str, float]:
    """The means of `quick_evaluate`, written as 'evaluation/NAME'; all processes call it.

    Args:
      step: of the state.
      state: TrainState; averaged parameters are used where there are any.
      constants: of the recipe.
    """
    images, masks = self._test_set()
    predict = self._model.bind(state.params | state.ema, state.stats, constants)
    means = quick_evaluate(predict, images, masks, self._protocol, self._config.evaluation)
    if jax.process_index() == 0:
      self._writer.scalars(step, {f'evaluation/{k}': v for k, v in means.items()})
      shown = ', '.join(
        f'{m.label} {means[m.name]:.{m.digits}f}' for m in self._protocol.metrics if m.name in means
      )
      logging.info('step %d, held-out images: %s', step, shown)
    return means

  def samples(self, step: int, state: Any, constants: Mapping[str, Any]) -> None:
    """A grid of the first test images; all processes call it.

    Its columns: input | mask | output | what the recipe's `pictures` draws | truth.
    """
    images, masks = self._test_set()
    weights = (state.params | state.ema, state.stats, constants)
    predict = self._model.bind(*weights)
    draw = self._model.bind_pictures(*weights)
    if jax.process_index() != 0:
      return
    settings = self._config
    results = evaluate(
      {'output': predict},
      images,
      masks,
      without_networks(self._protocol),
      batch_size=settings.evaluation.batch_size,
      seed=SEED,
      count=settings.training.sample_count,
      examples=settings.training.sample_count,
      progress=False,
    )
    (b,) = results.bins
    picture = report.grid(results, b, _pictures(draw, results.examples))
    folder = self._workdir / 'samples'
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(
      folder / f'{step:07d}.png', lambda file: picture.save(file, format='PNG'), sync=False
    )
    self._writer.image(step, 'samples', np.asarray(picture))

  def final(self, step: int, state: Any, constants: Mapping[str, Any]) -> Results:
    """The whole evaluation beside the classical fills, in evaluation/STEP/, and on the terminal."""
    return evaluate_model(
      self._recipe,
      state.params | state.ema,
      state.stats,
      constants,
      self._config,
      self._workdir / 'evaluation' / str(step),
      notes={'weights': f'step {step} of this run'},
    )


def _pictures(draw: Callable, examples: Sequence[Example]) -> dict[str, np.ndarray]:
  """{name: uint8[n, H, W, 3]} of the recipe's further pictures of the examples."""
  mask = np.stack([e.mask for e in examples]).astype(np.float32)[..., None]
  truth = arrays.to_float(np.stack([e.truth for e in examples]))
  drawn = draw(np.where(mask > 0, np.float32(0), truth), mask)
  rgb = lambda x: np.broadcast_to(x, (*x.shape[:-1], 3))
  return {name: arrays.to_uint8(rgb(np.clip(x, 0, 1))) for name, x in drawn.items()}


def evaluate_model(
  recipe: Recipe,
  params: Mapping[str, Any],
  stats: Mapping[str, Any],
  constants: Mapping[str, Any],
  config: ConfigDict,
  output_dir: str | os.PathLike,
  *,
  notes: Mapping[str, Any] | None = None,
) -> Results:
  """The whole evaluation of a model as its config says; writes the report, prints the table.

  Args:
    recipe: of the system.
    params: {network: parameters}.
    stats: {network: statistics}.
    constants: of the recipe.
    config: its data and evaluation sections are followed, config.system names the row.
    output_dir: gets the report; an earlier one there is kept as NAME.bak.
    notes: for the report.

  Raises:
    ValueError, OSError: before anything is computed.
  """
  protocol = protocols.get(config.evaluation.protocol)
  size = config.data.size
  measure.check_size(protocol, size, size)
  images = images_of(config, config.evaluation.count)
  masks = masks_of(config, protocol, images)
  predictors = {config.system: Model(recipe, SEED).bind(params, stats, constants)}
  return evaluate_and_report(
    predictors | classical.PREDICTORS,
    images,
    masks,
    protocol,
    output_dir,
    batch_size=config.evaluation.batch_size,
    seed=SEED,
    count=config.evaluation.count,
    dataset=dataset_of(config),
    masks_name=sets.name_of(config.evaluation.masks),
    notes=notes,
  )


def evaluate_and_report(
  rows: Mapping[str, Any],
  images: Images,
  masks_by_bin: sets.MaskSet,
  protocol: Protocol,
  output_dir: str | os.PathLike,
  *,
  batch_size: int,
  seed: int,
  count: int | None = None,
  dataset: str = '',
  masks_name: str = '',
  published: str | None = None,
  notes: Mapping[str, Any] | None = None,
  baseline: str = '',
  samples: int = 1,
  on_unreadable: str = 'skip',
  resume: bool = True,
  networks: Any = None,
  resources: Mapping[str, dict[str, float]] | None = None,
) -> Results:
  """`evaluate`, then the report in `output_dir` and the table on the terminal.

  An evaluation that was interrupted goes on where it was, if nothing of it has changed. All
  processes call this; the first writes the report.

  Args:
    rows: see `evaluate`, as the following ones.
    images: test set.
    masks_by_bin: masks.
    protocol: what is measured.
    output_dir: see `report.write`.
    batch_size: images at a time.
    seed: of the masks.
    count: of images; None: the protocol's.
    dataset: its name for the report.
    masks_name: likewise.
    published: the data set whose published rows stand beside; None: found by the name of
      `dataset`; '': none.
    notes: for the report.
    baseline: the row that paired differences are taken against; '': none.
    samples: see `evaluate`, as the next.
    on_unreadable: what becomes of images that cannot be read.
    resume: False: measures everything anew.
    networks: see `evaluate`.
    resources: {row: {name: number}}, of `resources.measure`, for the report.
  """
  report.check_folder(output_dir)
  if published is None:
    published = published_dataset(dataset, protocol)
  published_rows = report.published_rows(protocol.id, published) if published else []
  if networks is None and protocol.deep_metrics:
    networks = deep.Networks.load(protocol.metrics)
  origins = dict(networks.origins) if networks else {}
  settings = dict(count=count, samples=samples, seed=seed, masks=masks_name, dataset=dataset)
  if networks:  # other weights, other numbers; and features that were missing are missing still
    settings |= dict(networks=origins, missing=sorted(networks.missing))
  fingerprint = _fingerprint(rows, images, masks_by_bin, protocol, settings)
  with _alone(output_dir):
    kept = _open_journal(journal.place(output_dir), fingerprint, resume)
    results = evaluate(
      rows,
      images,
      masks_by_bin,
      protocol,
      batch_size=batch_size,
      seed=seed,
      count=count,
      samples=samples,
      on_unreadable=on_unreadable,
      networks=networks,
      journal=kept,
      share=True,
      cases=True,
    )
    results.dataset, results.masks, results.baseline = dataset, masks_name, baseline
    results.notes = dict(notes or {}) | origins | results.notes
    results.resources = dict(resources or {})
    if jax.process_index() == 0:
      folder = report.write(results, output_dir, published_rows)
      print(report.terminal_table(results, published_rows))
      print(f'report: {folder / "report.html"}', flush=True)
    processes.wait()
    kept.remove()
  return results


def _alone(output_dir: str | os.PathLike) -> contextlib.AbstractContextManager:
  """Two evaluations into one folder would share a journal."""
  if jax.process_index() != 0:
    return contextlib.nullcontext()
  output = pathlib.Path(output_dir).absolute()
  output.parent.mkdir(parents=True, exist_ok=True)
  return locks.hold(output.with_name(f'.{output.name}.lock'), f'--output {output_dir}')


def _open_journal(
  folder: pathlib.Path, fingerprint: Mapping[str, Any] | None, resume: bool
) -> journal.Journal:
  """The first process decides what becomes of an earlier attempt, before the others look."""
  first = jax.process_index() == 0
  kept = journal.open_journal(folder, fingerprint, resume) if first else None
  processes.wait()
  return kept or journal.open_journal(folder, fingerprint, True)


def _fingerprint(
  rows: Mapping[str, Any],
  images: Images,
  masks_by_bin: sets.MaskSet,
  protocol: Protocol,
  settings: Mapping[str, Any],
) -> dict[str, Any] | None:
  """What the numbers depend on; None where a row cannot say what its outputs depend on."""
  found = predictors.fingerprints(rows)
  if found is None:
    return None
  digest = hashlib.sha256()
  for mask in masks_by_bin.values():
    for i in range(min(2, len(images))):
      drawn = mask(i)
      digest.update(b'none' if drawn is None else np.packbits(drawn).tobytes())
  return {
    **settings,
    'protocol': json.loads(json.dumps(protocol.description())),
    'bins': [dataclasses.asdict(b) for b in masks_by_bin],
    'first masks': digest.hexdigest(),
    'rows': found,
    'images': journal.digest_of_files(files_of(images)),
    'program': {
      'version': jaxinpaint.__version__,
      'commit': report.commit(),
      'jax': jax.__version__,
      'backend': jax.default_backend(),
    },
  }


def files_of(images: Images) -> list[str]:
  """What the images of a set are called, without reading them; [] where they do not say."""
  name = getattr(images, 'path', None)
  return [name(i) for i in range(len(images))] if name else []


__all__: Sequence[str] = (
  'SEED',
  'Watch',
  'check',
  'evaluate_and_report',
  'evaluate_model',
  'quick_evaluate',
)
