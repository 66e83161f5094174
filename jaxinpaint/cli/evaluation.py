"""From the flags of `evaluate` to an `EvaluationSpec`; everything that can be wrong is said here.

A flag that is not given takes its value from --config, or else from the config of the first row
that is a system, or else from the protocol.
"""

import argparse
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import jax
from absl import logging
from ml_collections import ConfigDict

from jaxinpaint import trained as trained_lib
from jaxinpaint.cost import resources
from jaxinpaint.evaluation import classical, folders, pairs, rows, run
from jaxinpaint.evaluation.spec import (
  About,
  EvaluationError,
  EvaluationSpec,
  ImagesSpec,
  fillable,
  protocol_of,
)
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import deep, protocols
from jaxinpaint.metrics.protocols import Protocol
from jaxinpaint.report import files, published
from jaxinpaint.report.results import Results
from jaxinpaint.runtime import activity, locks
from jaxinpaint.trained import Trained

# What the command shows as a sentence, without a traceback.
USER_ERRORS = (EvaluationError, locks.InUse)

# The files that --real_dir names are measured as they are; these flags would change them.
_NOT_WITH_PAIRS = ('workdir', 'weights', 'row', 'data', 'size', 'masks', 'resources')


@dataclasses.dataclass(frozen=True)
class Prepared:
  """An evaluation that is ready to run.

  Attributes:
    spec: what is measured.
    output: folder of the report.
    resume: an interrupted evaluation goes on.
  """

  spec: EvaluationSpec
  output: pathlib.Path
  resume: bool

  def run(self) -> Results:
    """Measures, writes the report and prints the table."""
    return run.evaluate_and_report(self.spec, self.output, resume=self.resume)


def prepare(given: argparse.Namespace, config: ConfigDict | None = None) -> Prepared:
  """Reads and checks everything that is asked for, before anything is measured.

  With --resources the rows' costs are measured here, when all else is known to be right and before
  this process takes up a device.

  Args:
    given: the flags of `evaluate`, by their names.
    config: of --config.

  Raises:
    EvaluationError: with what to change.
  """
  try:
    _check_numbers(given)
    if given.real_dir or given.fake_dir or given.mask_dir:
      return _prepare_pairs(given, config or ConfigDict())
    return _prepare_rows(given, config)
  except (ValueError, OSError) as error:
    raise EvaluationError(str(error)) from error


def _prepare_rows(given: argparse.Namespace, config: ConfigDict | None) -> Prepared:
  with activity.shown('Loading the weights'):
    trained, stored = _rows(given, config)
  fills = classical.choose(given.fills if given.classical else ['none'])
  names = [*trained, *stored, *fills]
  baseline = _baseline(names, given.baseline)
  first = next(iter(trained.values()), None)
  config = config or (first.config if first else ConfigDict())
  wanted = _images(given, config)
  protocol, size = wanted.protocol, (wanted.side, wanted.side)
  samples = given.samples or protocol.samples
  if any(model.inference.samples for model in trained.values()):
    protocol = protocols.with_samples(protocol, samples)
  beside = _published(given.published, protocol)
  alone = first and (len(trained) + len(stored) == 1 or given.workdir or given.weights)
  default = rows.report_folder(first) if alone else _default_output([*trained, *stored])
  output = _output(given, default)
  on = wanted.load()
  if len(on.images) < on.count:
    logging.warning('%s has %d images, %d were wanted.', on.dataset, len(on.images), on.count)
  bins = tuple(on.masks)
  outputs = {n: folders.find(n, path, on.paths, bins, size) for n, path in stored.items()}
  costs = _resources(given, list(trained), list(fills), wanted.side) if given.resources else {}
  systems = {name: rows.predictor(model, given.seed) for name, model in trained.items()}
  predictors, on = systems | outputs | fills, fillable(on, systems)
  spec = EvaluationSpec(
    {name: predictors[name] for name in names},
    on,
    protocol,
    batch_size=_batch_size(given, config),
    samples=samples,
    on_unreadable=given.on_unreadable,
    networks=load_networks(protocol, given.network, size),
    about=About(baseline, beside, _notes(trained, stored), costs),
  )
  return Prepared(spec, output, given.resume)


def _prepare_pairs(given: argparse.Namespace, config: ConfigDict) -> Prepared:
  """An evaluation of files, without any model."""
  if not (given.real_dir and given.fake_dir):
    raise ValueError(
      'give both --real_dir, the folder of true pictures, and --fake_dir, of outputs'
    )
  wrong = [f'--{name}' for name in _NOT_WITH_PAIRS if getattr(given, name)]
  if wrong:
    raise ValueError(
      f'{", ".join(wrong)} cannot be joined with --real_dir, whose files are measured as they are: '
      'leave it out'
    )
  named = [d if '=' in d else f'{pathlib.Path(d).name}={d}' for d in given.fake_dir]
  fakes = rows.split(named)
  baseline = _baseline(list(fakes), given.baseline)
  compared = pairs.find(
    given.real_dir,
    fakes,
    given.mask_dir,
    _protocol(given, config),
    bins=_bins(given) or (),
    count=given.count,
    invert=given.invert_mask,
  )
  output = _output(given, _default_output(list(fakes)))
  notes = {f'{name}: files': path for name, path in fakes.items()} | compared.notes
  spec = EvaluationSpec(
    compared.rows,
    dataclasses.replace(compared.on, seed=given.seed),
    compared.protocol,
    batch_size=_batch_size(given, config),
    samples=given.samples or compared.protocol.samples,
    on_unreadable=given.on_unreadable,
    networks=load_networks(compared.protocol, given.network, compared.size),
    about=About(baseline, _published(given.published, compared.protocol), notes),
  )
  return Prepared(spec, output, given.resume)


def _rows(
  given: argparse.Namespace, config: ConfigDict | None
) -> tuple[dict[str, Trained], dict[str, str]]:
  """({name: system}, {name: folder of outputs}), in the order given."""
  if given.workdir and given.weights:
    raise ValueError('give either --workdir (with --step) of a run, or --weights, not both')
  if not (given.workdir or given.weights or given.row):
    raise ValueError(
      'give either --workdir (with --step) of a run, or --weights of a file, or --row NAME=PATH'
    )
  named = rows.split(given.row)
  trained: dict[str, Trained] = {}
  if given.step is not None and not given.workdir:
    raise ValueError(
      f'--step {given.step} belongs to --workdir; a weights file has no steps, and a row names '
      'its own, --row NAME=WORKDIR@STEP'
    )
  if given.workdir:
    model = trained_lib.load(given.workdir, given.step)
  elif given.weights:
    model = trained_lib.load(given.weights)
  if given.workdir or given.weights:
    _check_system(given.system or (config.system if config else ''), model)
    if config:
      _compare_models(config, model)
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
      trained[name] = trained_lib.load(path)
    except (ValueError, OSError) as error:
      raise ValueError(f'--row {name}: {error}') from error
    _check_system(given.system, trained[name])
  return trained, stored


def _check_system(wanted: str, model: Trained) -> None:
  """Raises ValueError for weights of another system."""
  if wanted and wanted != model.config.system:
    raise ValueError(
      f'{model.origin} is of the system {model.config.system!r}, wanted is {wanted!r}: give its '
      'own config, or other weights'
    )


def _compare_models(config: ConfigDict, model: Trained) -> None:
  """Warns where --config describes other networks than the weights are of."""
  plain = lambda c: json.dumps(json.loads(c.model.to_json_best_effort()), sort_keys=True)
  if plain(config) != plain(model.config):
    logging.warning(
      "--config has another model section than %s, whose own is used; only --config's data and "
      'evaluation settings hold.',
      model.origin,
    )


def _images(given: argparse.Namespace, config: ConfigDict) -> ImagesSpec:
  """On what is measured: as the config says, but for the flags that are given."""
  changes = dict(
    source=given.data or None,
    split='test' if given.data and given.split is None else given.split,
    size=given.size,
    count=given.count,
    masks=given.masks or None,
    bins=_bins(given),
  )
  return dataclasses.replace(
    ImagesSpec.of_config(config, _protocol(given, config)),
    own_masks=not given.masks,
    invert=given.invert_mask,
    seed=given.seed,
    **{name: value for name, value in changes.items() if value is not None},
  )


def _protocol(given: argparse.Namespace, config: ConfigDict) -> Protocol:
  return protocols.get(given.protocol) if given.protocol else protocol_of(config)


def _bins(given: argparse.Namespace) -> tuple[Bin, ...] | None:
  return protocols.parse_bins(given.bins) if given.bins else None


def _batch_size(given: argparse.Namespace, config: ConfigDict) -> int:
  return given.batch_size or (config.get('evaluation') or {}).get('batch_size') or 8


def _resources(
  given: argparse.Namespace, trained: Sequence[str], fills: Sequence[str], size: int
) -> dict[str, dict[str, float]]:
  """What the rows cost, each in processes of its own."""
  if jax.distributed.is_initialized():
    raise ValueError('--resources measures on one machine: leave it out with several processes')
  named = rows.split(given.row)
  own = str(given.weights or given.workdir)
  if given.workdir and given.step is not None:
    own += f'@{given.step}'
  measured = resources.measure(
    {name: named.get(name, own) for name in trained},
    [name for name, fill in classical.FILLS.items() if fill.label in fills],
    size=size,
  )
  for name, why in measured.not_measured.items():
    for what, reason in why.items():
      logging.warning('%s of %s is not measured: %s', what, name, reason)
  return measured.resources


def load_networks(
  protocol: Protocol, files: Sequence[str], size: tuple[int, int]
) -> deep.Networks | None:
  """The networks of features that a protocol's metrics need; says what cannot be computed.

  Args:
    protocol: what is measured.
    files: of --network: 'NAME=FILE', NAME of `deep.FILES`.
    size: (height, width) of the images.

  Raises:
    ValueError, FileNotFoundError: of `files`.
  """
  if wrong := [f for f in files if '=' not in f or f.split('=')[0] not in deep.FILES]:
    raise ValueError(f'--network {wrong[0]!r} must be NAME=FILE, NAME of: {", ".join(deep.FILES)}')
  read = {file for m in protocol.deep_metrics for file in deep.files_of(deep.network(m))}
  if unused := [f for f in files if f.split('=')[0] not in read]:
    raise ValueError(
      f'--network {unused[0]} is read by no metric of the protocol {protocol.id}: leave it out, or '
      'choose a --protocol whose metrics need it (docs/protocols.md)'
    )
  if not protocol.deep_metrics:
    return None
  own = dict(f.split('=', 1) for f in files)
  networks = deep.Networks.load(protocol.metrics, own, size=size)
  for name, why in networks.missing.items():
    logging.warning('%s is not computed: %s', name, why)
  return networks


def _baseline(names: Sequence[str], baseline: str) -> str:
  """The row of --baseline, which may be given as a fill's name in --fills."""
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


def _notes(trained: Mapping[str, Trained], stored: Mapping[str, str]) -> dict[str, str]:
  if len(trained) == 1 and not stored:
    (model,) = trained.values()
    return {'weights': model.origin, 'dtype': str(model.config.dtype)}
  notes = {
    name: f'{model.config.system}, {model.origin}, {model.config.dtype}'
    for name, model in trained.items()
  }
  return notes | {name: f'files in {path}' for name, path in stored.items()}


def _output(given: argparse.Namespace, default: pathlib.Path) -> pathlib.Path:
  output = pathlib.Path(given.output or default).expanduser()
  files.check_folder(output)
  return output


def _default_output(names: Sequence[str]) -> pathlib.Path:
  """Of a report about several rows."""
  return pathlib.Path('runs') / 'evaluation' / '_'.join(names).replace(os.sep, '-')


def _check_numbers(given: argparse.Namespace) -> None:
  for name, least in (('seed', 0), ('count', 1), ('size', 1), ('batch_size', 1), ('samples', 1)):
    value = getattr(given, name)
    if value is not None and value < least:
      raise ValueError(f'--{name} {value} must be at least {least}')
  if given.on_unreadable not in ('skip', 'fail'):
    raise ValueError(f"--on_unreadable {given.on_unreadable!r} must be 'skip' or 'fail'")


def _published(wanted: str | None, protocol: Protocol) -> str | None:
  if wanted == 'none':
    return ''
  known = published.published_datasets(protocol.id)
  if wanted and wanted not in known:
    raise ValueError(f'--published {wanted!r} must be one of {", ".join(map(repr, known))}, none')
  return wanted or None
