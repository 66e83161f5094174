"""What `evaluate.py` does: everything that can be wrong is found first, then it is measured."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from jaxinpaint.cost import resources
from jaxinpaint.data import pipeline
from jaxinpaint.evaluation import (
  classical,
  folders,
  measure,
  pairs,
  rows,
  run,
)
from jaxinpaint.evaluation.evaluate import EvaluationError, Images
from jaxinpaint.masks import sets
from jaxinpaint.metrics import deep, protocols
from jaxinpaint.metrics.protocols import Protocol
from jaxinpaint.report import report
from jaxinpaint.report.results import Results
from jaxinpaint.runtime import locks
from jaxinpaint.training import checkpoints


class UsageError(Exception):
  """What was asked cannot be done; the message says what to change."""


# What the entry point shows as a sentence, without a traceback.
USER_ERRORS = (UsageError, EvaluationError, locks.InUse)

DEFAULT_FILLS = ('mean', 'telea', 'ns')


@dataclasses.dataclass(frozen=True)
class Request:
  """What a person asked for; None or '': the default.

  Attributes:
    config: an experiment's, for the data and evaluation settings; default those of the first row
      that is a system.
    workdir: of a run ...
    step: ... and which of its checkpoints; None: the newest.
    weights: or a weights file of this library.
    rows: more rows, as NAME=PATH.
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
    fills: names of classical fills, or 'all', 'none'.
    baseline: the row that others are compared with.
    protocol: id.
    published: data set whose published rows stand beside; default found by the source's name,
      'none': no rows.
    output: folder of the report; default WORKDIR/evaluation/STEP or runs/evaluation/WEIGHTS.
    samples: completions of each image by systems that sample; default the protocol's.
    on_unreadable: 'skip' or 'fail'.
    resume: an evaluation that was interrupted goes on.
    real_dir: folder of truths, for outputs that lie in ...
    fake_dirs: ... these folders, as NAME=DIR or DIR.
    mask_dir: and their masks.
    resources: measure what rows cost, too (`evaluation.resources`).
    networks: files of networks of features, NAME=FILE (`deep.FILES`); default those in the cache.
  """

  config: ConfigDict | None = None
  workdir: str | os.PathLike | None = None
  step: int | None = None
  weights: str | os.PathLike | None = None
  rows: Sequence[str] = ()
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
  fills: Sequence[str] = DEFAULT_FILLS
  baseline: str = ''
  protocol: str = ''
  published: str | None = None
  output: str | os.PathLike | None = None
  samples: int | None = None
  on_unreadable: str = 'skip'
  resume: bool = True
  real_dir: str | os.PathLike | None = None
  fake_dirs: Sequence[str] = ()
  mask_dir: str | os.PathLike | None = None
  networks: Sequence[str] = ()
  resources: bool = False


@dataclasses.dataclass(frozen=True)
class Prepared:
  """An evaluation that is ready to be made."""

  rows: Mapping[str, Any]
  images: Images
  masks: sets.MaskSet
  protocol: Protocol
  output: pathlib.Path
  settings: Mapping[str, Any]

  def run(self) -> Results:
    """Measures, writes the report and prints the table."""
    return run.evaluate_and_report(
      self.rows, self.images, self.masks, self.protocol, self.output, **self.settings
    )


def prepare(request: Request) -> Prepared:
  """Reads and checks all that is asked for; compiles and measures nothing yet.

  Raises:
    UsageError: with what to change.
  """
  try:
    _check_numbers(request)
    if request.real_dir or request.fake_dirs or request.mask_dir:
      return _prepare_pairs(request)
    return _prepare(request)
  except (ValueError, OSError, checkpoints.CheckpointError) as error:
    raise UsageError(str(error)) from error


def _prepare(request: Request) -> Prepared:
  trained, stored = _rows(request)
  fills = fills_of(request.fills)
  names = [*trained, *stored, *fills]
  baseline = _checked_names(names, request.baseline)
  first = next(iter(trained.values()), None)
  config = request.config or (first.config if first else ConfigDict())
  given = config.get('evaluation') or {}
  data = config.get('data') or {}
  protocol = protocols.get(_first(request.protocol, given.get('protocol'), protocols.SEED000.id))
  if protocol.id != given.get('protocol', protocol.id):
    given = {}  # holes and counts that were chosen for another protocol
  count = _positive('count', _first(request.count, given.get('count'), protocol.count))
  size = _positive('size', _first(request.size, data.get('size'), protocol.size))
  batch_size = _positive('batch_size', _first(request.batch_size, given.get('batch_size'), 8))
  bins = protocols.parse_bins(request.bins) if request.bins else protocol.bins
  spec = _first(request.masks, given.get('masks'), protocol.masks) or ''
  if not spec and not all(b.masks for b in bins):
    raise ValueError(
      f'protocol {protocol.id!r} has holes for its own bins alone: give --masks with --bins, as '
      '--masks irregular'
    )
  published = _published(request.published, protocol)
  own = first and (len(trained) + len(stored) == 1 or request.workdir or request.weights)
  output = _output(request, first.output if own else _default_output([*trained, *stored]))
  measure.check_size(protocol, size, size)

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
  masks = sets.make(
    spec,
    bins,
    size,
    size,
    seed=request.seed,
    invert=request.invert_mask,
    own_masks=not request.masks,
    images=images,
  )
  paths = run.files_of(images)
  found = {
    name: folders.find(name, path, paths, tuple(masks), (size, size))
    for name, path in stored.items()
  }
  costs = _resources(request, trained, fills, size) if request.resources else {}
  predictors = {name: model.bind(request.seed) for name, model in trained.items()}
  settings = dict(
    count=count,
    resources=costs,
    dataset=dataset,
    masks_name=sets.name_of(spec) + (', inverted' if request.invert_mask else ''),
    notes=_notes(trained, stored),
    **_settings(request, baseline, batch_size, published, protocol, (size, size)),
  )
  in_order = {n: predictors.get(n) or found.get(n) or fills[n] for n in names}
  return Prepared(in_order, images, masks, protocol, output, settings)


def _resources(
  request: Request, trained: Mapping[str, rows.Trained], fills: Mapping[str, Any], size: int
) -> dict[str, dict[str, float]]:
  """What the rows cost, each in processes of its own, before this one takes up a device."""
  if jax.distributed.is_initialized():
    raise ValueError('--resources measures on one machine: leave it out with several processes')
  given = rows.split(request.rows)
  own = str(request.weights or request.workdir)
  if request.workdir and request.step is not None:
    own += f'@{request.step}'
  found = resources.measure(
    {name: given.get(name, own) for name in trained},
    [name for name, fill in classical.FILLS.items() if fill.label in fills],
    size=size,
  )
  for name, why in found.not_measured.items():
    for what, reason in why.items():
      logging.warning('%s of %s is not measured: %s', what, name, reason)
  return found.resources


def _prepare_pairs(request: Request) -> Prepared:
  """An evaluation of files, without any model."""
  if not (request.real_dir and request.fake_dirs):
    raise ValueError(
      'give both --real_dir, the folder of true pictures, and --fake_dir, of outputs'
    )
  foreign = dict(
    workdir=request.workdir, weights=request.weights, row=request.rows, data=request.data,
    size=request.size, masks=request.masks, resources=request.resources,
  )  # fmt: skip
  wrong = [f'--{name}' for name, value in foreign.items() if value]
  if wrong:
    raise ValueError(
      f'{", ".join(wrong)} cannot be joined with --real_dir, whose files are measured as they are: '
      'leave it out'
    )
  named = [d if '=' in d else f'{pathlib.Path(d).name}={d}' for d in request.fake_dirs]
  fakes = rows.split(named)
  baseline = _checked_names(list(fakes), request.baseline)
  given = (request.config.get('evaluation') if request.config else None) or {}
  protocol = protocols.get(_first(request.protocol, given.get('protocol'), protocols.SEED000.id))
  batch_size = _positive('batch_size', _first(request.batch_size, given.get('batch_size'), 8))
  found = pairs.find(
    request.real_dir,
    fakes,
    request.mask_dir,
    protocol,
    bins=protocols.parse_bins(request.bins) if request.bins else (),
    count=request.count,
    invert=request.invert_mask,
  )
  output = _output(request, _default_output(list(fakes)))
  settings = dict(
    count=len(found.images),
    dataset=str(request.real_dir),
    masks_name=found.masks_name,
    notes={f'{name}: files': path for name, path in fakes.items()} | found.notes,
    **_settings(
      request,
      baseline,
      batch_size,
      _published(request.published, protocol),
      found.protocol,
      found.size,
    ),
  )
  return Prepared(found.rows, found.images, found.masks, found.protocol, output, settings)


def _settings(
  request: Request,
  baseline: str,
  batch_size: int,
  published: str | None,
  protocol: Protocol,
  size: tuple[int, int] | None = None,
) -> dict[str, Any]:
  return dict(
    batch_size=batch_size,
    seed=request.seed,
    published=published,
    baseline=baseline,
    samples=_first(request.samples, protocol.samples),
    on_unreadable=request.on_unreadable,
    resume=request.resume,
    networks=load_networks(protocol, request.networks, size),
  )


def load_networks(
  protocol: Protocol, files: Sequence[str] = (), size: tuple[int, int] | None = None
) -> Any:
  """The networks of features that a protocol's metrics need; says what cannot be computed.

  Args:
    protocol: what is measured.
    files: 'NAME=FILE' of one's own, NAME of `deep.FILES`.
    size: of the images, if it is known.

  Raises:
    ValueError, FileNotFoundError: of `files`.
  """
  if wrong := [f for f in files if '=' not in f]:
    raise ValueError(f'--network {wrong[0]!r} must be NAME=FILE, NAME of: {", ".join(deep.FILES)}')
  if not protocol.deep_metrics:
    return None
  own = dict(f.split('=', 1) for f in files)
  networks = deep.Networks.load(protocol.metrics, own, size=size)
  for name, why in networks.missing.items():
    logging.warning('%s is not computed: %s', name, why)
  return networks


def fills_of(names: Sequence[str]) -> dict[str, Any]:
  """{label: predictor} of the fills with these names; 'all' that are installed, 'none'.

  Raises:
    ValueError: an unknown name, or a library that is not installed.
  """
  names = [n.strip().lower() for n in names if n.strip()]
  if 'none' in names or 'all' in names:
    if len(names) > 1:
      raise ValueError(f"--fills {','.join(names)}: 'all' and 'none' stand alone")
    if names == ['none']:
      return {}
    names = list(classical.FILLS)
    for name in list(names):
      try:
        classical.check(name)
      except ValueError as error:
        logging.warning('%s', error)
        names.remove(name)
  try:
    return classical.get(names)
  except ValueError as error:
    raise ValueError(f"--fills: {error}; or 'all', 'none'") from error


def _rows(request: Request) -> tuple[dict[str, rows.Trained], dict[str, str]]:
  """({name: system}, {name: folder of outputs}), in the order given."""
  if request.workdir and request.weights:
    raise ValueError('give either --workdir (with --step) of a run, or --weights, not both')
  if not (request.workdir or request.weights or request.rows):
    raise ValueError(
      'give either --workdir (with --step) of a run, or --weights of a file, or --row NAME=PATH'
    )
  named = rows.split(request.rows)
  trained: dict[str, rows.Trained] = {}
  if request.step is not None and not request.workdir:
    raise ValueError(
      f'--step {request.step} belongs to --workdir; a weights file has no steps, and a row names '
      'its own, --row NAME=WORKDIR@STEP'
    )
  if request.workdir:
    model = rows.from_workdir(request.workdir, request.step)
  elif request.weights:
    model = rows.from_weights(request.weights)
  if request.workdir or request.weights:
    _check_system(request, model, [request.config] if request.config else [])
    trained[model.config.system] = model
    if model.config.system in named:
      raise ValueError(
        f'--row {model.config.system}: {model.origin} has this name already: choose another'
      )
  stored: dict[str, str] = {}
  for name, path in named.items():
    if rows.is_folder(path):
      stored[name] = path
      continue
    try:
      trained[name] = rows.load(path)
    except (ValueError, OSError, checkpoints.CheckpointError) as error:
      raise ValueError(f'--row {name}: {error}') from error
    if request.system:
      _check_system(request, trained[name], [])
  return trained, stored


def _check_system(request: Request, model: rows.Trained, configs: Sequence[ConfigDict]) -> None:
  """Refuses weights of another system; warns when --config describes other networks."""
  wanted = request.system or next((c.system for c in configs), '')
  if wanted and wanted != model.config.system:
    raise ValueError(
      f'{model.origin} is of the system {model.config.system!r}, wanted is {wanted!r}: give its '
      'own config, or other weights'
    )
  plain = lambda section: json.dumps(json.loads(section.to_json_best_effort()), sort_keys=True)
  for config in configs:
    if plain(config.model) != plain(model.config.model):
      logging.warning(
        "--config has another model section than %s, whose own is used; only --config's data and "
        'evaluation settings hold.',
        model.origin,
      )


def _checked_names(names: Sequence[str], baseline: str) -> str:
  """The baseline's name, which may be given as that of a fill's flag."""
  for name in names:
    if names.count(name) > 1:
      raise ValueError(
        f'two rows are named {name!r}: give one of them another name, --row NAME=PATH'
      )
  if baseline in classical.FILLS and baseline not in names:
    baseline = classical.FILLS[baseline].label
  if baseline and baseline not in names:
    raise ValueError(f'--baseline {baseline!r} must be one of the rows: {", ".join(names)}')
  return baseline


def _notes(trained: Mapping[str, rows.Trained], stored: Mapping[str, str]) -> dict[str, str]:
  if len(trained) == 1 and not stored:
    (model,) = trained.values()
    return {'weights': model.origin, 'dtype': str(model.config.dtype)}
  notes = {
    name: f'{model.config.system}, {model.origin}, {model.config.dtype}'
    for name, model in trained.items()
  }
  return notes | {name: f'files in {path}' for name, path in stored.items()}


def _output(request: Request, default: pathlib.Path) -> pathlib.Path:
  output = pathlib.Path(request.output or default).expanduser()
  report.check_folder(output)
  return output


def _default_output(names: Sequence[str]) -> pathlib.Path:
  """Of a report about several rows."""
  return pathlib.Path('runs') / 'evaluation' / '_'.join(names).replace(os.sep, '-')


def _check_numbers(request: Request) -> None:
  if request.seed < 0:
    raise ValueError(f'--seed {request.seed} must be at least 0')
  _positive('samples', _first(request.samples, 1))
  if request.on_unreadable not in ('skip', 'fail'):
    raise ValueError(f"--on_unreadable {request.on_unreadable!r} must be 'skip' or 'fail'")


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
