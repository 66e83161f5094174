"""What `evaluate.py` does: everything that can be wrong is found first, then it is measured."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.data import pipeline
from jaxinpaint.evaluation import classical, mask_sets, protocols, report, run
from jaxinpaint.evaluation.evaluate import EvaluationError, Images, Predictor
from jaxinpaint.evaluation.model import Model
from jaxinpaint.evaluation.protocols import Protocol
from jaxinpaint.evaluation.results import Results
from jaxinpaint.training import checkpoints
from jaxinpaint.training.recipe import Recipe
from jaxinpaint.weights import store


class UsageError(Exception):
  """What was asked cannot be done; the message says what to change."""


# What the entry point shows as a sentence, without a traceback.
USER_ERRORS = (UsageError, EvaluationError)


@dataclasses.dataclass(frozen=True)
class Request:
  """What a person asked for; None or '': the default.

  Attributes:
    config: an experiment's, for the data and evaluation settings; default the checkpoint's own.
    workdir: of a run ...
    step: ... and which of its checkpoints; None: the newest.
    weights: or a weights file of this library.
    system: refuses weights of another system.
    data: image source; default config.data.eval_source or source.
    split: of it.
    count: images; default the config's, else the protocol's.
    size: likewise.
    masks: specification or folder; likewise.
    invert_mask: mask files have black holes.
    bins: labels as '10-20'; default the protocol's.
    seed: of the masks.
    batch_size: images at a time.
    with_classical: measure the classical fills too.
    protocol: id.
    published: data set whose published rows stand beside; default found by the source's name,
      'none': no rows.
    output: folder of the report; default WORKDIR/evaluation/STEP or runs/evaluation/WEIGHTS.
  """

  config: ConfigDict | None = None
  workdir: str | os.PathLike | None = None
  step: int | None = None
  weights: str | os.PathLike | None = None
  system: str = ''
  data: str = ''
  split: str | None = None
  count: int | None = None
  size: int | None = None
  masks: str = ''
  invert_mask: bool = False
  bins: Sequence[str] = ()
  seed: int = run.SEED
  batch_size: int | None = None
  with_classical: bool = True
  protocol: str = ''
  published: str | None = None
  output: str | os.PathLike | None = None


@dataclasses.dataclass(frozen=True)
class _Model:
  """A model that was found: its config, weights, where from, and the report's default folder."""

  config: ConfigDict
  params: Mapping[str, Any]
  stats: Mapping[str, Any]
  origin: str
  output: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Prepared:
  """An evaluation that is ready to be made."""

  predictors: Mapping[str, Predictor]
  images: Images
  masks: mask_sets.MaskSet
  protocol: Protocol
  output: pathlib.Path
  settings: Mapping[str, Any]

  def run(self) -> Results:
    """Measures, writes the report and prints the table."""
    return run.evaluate_and_report(
      self.predictors, self.images, self.masks, self.protocol, self.output, **self.settings
    )


def prepare(request: Request) -> Prepared:
  """Reads and checks all that is asked for; compiles and measures nothing yet.

  Raises:
    UsageError: with what to change.
  """
  try:
    return _prepare(request)
  except (ValueError, OSError, checkpoints.CheckpointError) as error:
    raise UsageError(str(error)) from error


def _prepare(request: Request) -> Prepared:
  model = _load(request)
  config = request.config or model.config
  given = config.get('evaluation') or {}
  data = config.get('data') or {}
  protocol = protocols.get(_first(request.protocol, given.get('protocol'), protocols.SEED000.id))
  count = _positive('count', _first(request.count, given.get('count'), protocol.count))
  size = _positive('size', _first(request.size, data.get('size'), protocol.size))
  batch_size = _positive('batch_size', _first(request.batch_size, given.get('batch_size'), 8))
  bins = protocols.parse_bins(request.bins) if request.bins else protocol.bins
  spec = _first(request.masks, given.get('masks'), protocol.masks)
  if request.seed < 0:
    raise ValueError(f'--seed {request.seed} must be at least 0')
  published = _published(request.published, protocol)
  output = pathlib.Path(request.output or model.output).expanduser()
  report.check_folder(output)
  run.check_size(protocol, size)

  source = _first(request.data, data.get('eval_source'), data.get('source'))
  if not source:
    raise ValueError(
      "give the images to evaluate on: --data folder:PATH, files:LIST.txt, tfds:NAME or 'sample'"
    )
  own_split = data.get('eval_split', 'test') if not request.data else 'test'
  split = own_split if request.split is None else request.split
  dataset = f'{source}/{split}' if split else source
  images = pipeline.evaluation_set(
    source,
    split,
    size=size,
    count=count,
    **protocol.image_options(data.get('crop', '')),
    data_dir=data.get('data_dir', ''),
  )
  if len(images) < count:
    logging.warning('%s has %d images, %d were wanted.', dataset, len(images), count)
  masks = mask_sets.make(spec, bins, size, size, seed=request.seed, invert=request.invert_mask)

  recipe = systems.make_recipe(model.config)
  _check_weights(model, recipe)
  constants = recipe.load_constants(False)
  predictor = Model(recipe, request.seed).bind(model.params, model.stats, constants)
  predictors = {model.config.system: predictor}
  if request.with_classical:
    predictors |= classical.PREDICTORS
  settings = dict(
    batch_size=batch_size,
    seed=request.seed,
    count=count,
    dataset=dataset,
    masks_name=mask_sets.name_of(spec) + (', inverted' if request.invert_mask else ''),
    published=published,
    notes={'weights': model.origin, 'dtype': str(model.config.dtype)},
  )
  return Prepared(predictors, images, masks, protocol, output, settings)


def _load(request: Request) -> _Model:
  if bool(request.workdir) == bool(request.weights):
    raise ValueError(
      'give either --workdir (with --step) of a run, or --weights of a file'
      + (', not both' if request.workdir else '')
    )
  if request.workdir:
    workdir = pathlib.Path(request.workdir).expanduser()
    if not workdir.is_dir():
      raise FileNotFoundError(f'--workdir {workdir} does not exist: give the folder of a run')
    config, params, stats, step = checkpoints.restore_for_inference(workdir, request.step)
    output = workdir / 'evaluation' / str(step)
    model = _Model(config, params, stats, f'{workdir}, step {step}', output)
  else:
    if request.step is not None:
      raise ValueError(f'--step {request.step} belongs to --workdir, a weights file has no steps')
    path = pathlib.Path(request.weights).expanduser()
    stored = store.load(path)
    output = pathlib.Path('runs') / 'evaluation' / path.name.removesuffix('.safetensors')
    model = _Model(stored.config, stored.params, stored.stats, str(path), output)
  wanted = request.system or (request.config.system if request.config else '')
  if wanted and wanted != model.config.system:
    raise ValueError(
      f'{model.origin} is of the system {model.config.system!r}, wanted is {wanted!r}: give its '
      'own config, or other weights'
    )
  _report_other_model(request, model)
  return model


def _report_other_model(request: Request, model: _Model) -> None:
  """Warns when --config describes other networks: those of the weights are measured."""
  if request.config is None:
    return
  plain = lambda section: json.dumps(json.loads(section.to_json_best_effort()), sort_keys=True)
  if plain(request.config.model) != plain(model.config.model):
    logging.warning(
      "--config has another model section than %s, whose own is used; only --config's data and "
      'evaluation settings hold.',
      model.origin,
    )


def _check_weights(model: _Model, recipe: Recipe) -> None:
  """Raises ValueError when the arrays are not those that the system's networks read."""
  side = max(64, recipe.min_side)
  side = -(-side // recipe.multiple) * recipe.multiple
  batch = {
    'image': jax.ShapeDtypeStruct((1, side, side, 3), np.float32),
    'mask': jax.ShapeDtypeStruct((1, side, side, 1), np.float32),
    'id': jax.ShapeDtypeStruct((1,), np.int32),
  }
  params, stats = jax.eval_shape(recipe.init, jax.random.key(0), batch)
  pick = lambda tree: {n: tree[n] for n in recipe.predict_networks if n in tree}
  stored = store.Stored(
    model.config.system, model.config, pick(model.params), pick(model.stats), {}
  )
  store.check_shapes(stored, pick(params), pick(stats))


def _published(wanted: str | None, protocol: Protocol) -> str | None:
  if wanted == 'none':
    return ''
  known = report.published_datasets(protocol.id)
  if wanted and wanted not in known:
    raise ValueError(f'--published {wanted!r} must be one of {", ".join(map(repr, known))}, none')
  return wanted or None


def _first(*values: Any) -> Any:
  """The first that is given."""
  return next((v for v in values if v is not None and v != ''), None)


def _positive(name: str, value: int) -> int:
  if value < 1:
    raise ValueError(f'--{name} {value} must be at least 1')
  return value
