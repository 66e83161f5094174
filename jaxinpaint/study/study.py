"""The survey's study: rows on its two data sets and eight kinds of holes, as its tables show them.

Every number comes from `run.evaluate_and_report`, whose reports lie in DIR/DATASET, or from
`cost.resources`, whose finished measurements lie in DIR/costs.json; study.md and study.json put
them beside the published ones. An interrupted study goes on with the same command.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from jaxinpaint import trained as trained_lib
from jaxinpaint.cost import resources
from jaxinpaint.data import sources
from jaxinpaint.data.held_out import Subset
from jaxinpaint.evaluation import classical, folders, predictors, rows, run
from jaxinpaint.evaluation.spec import (
  About,
  EvaluationError,
  EvaluationSpec,
  ImagesSpec,
  MaskedImages,
  fillable,
)
from jaxinpaint.masks import sets
from jaxinpaint.metrics import protocols
from jaxinpaint.metrics.protocols import Protocol
from jaxinpaint.runtime import atomic, digest
from jaxinpaint.runtime.environment import environment
from jaxinpaint.study import document as study_document
from jaxinpaint.study import images as study_images

COSTS = 'costs.json'  # in the study's folder: finished measurements of resources


@dataclasses.dataclass(frozen=True)
class Request:
  """What a person asked for.

  Attributes:
    config: of configs/survey_study.py.
    rows: NAME=PATH or NAME@DATASET=PATH, as --row of `evaluate`.
    data: {data set: image source}; '' if it is not given.
    output: folder of the study.
    size: of the images for all rows; None: as the config says.
    resources: arguments of `resources.measure`; None: resources are not measured.
    full_size: (name of a config) -> the config: resources are those of the config that
      `config.full_size` names for a row's system, with its published networks and training; None:
      those of the row itself.
    resume: an interrupted study goes on.
  """

  config: ConfigDict
  rows: Sequence[str]
  data: Mapping[str, str]
  output: str | os.PathLike
  size: int | None = None
  resources: Mapping[str, Any] | None = None
  full_size: Callable[[str], ConfigDict] | None = None
  resume: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
  """One row on one data set.

  Attributes:
    name: of the row.
    path: of its run, weights file or folder of outputs.
    system: of its weights; '' for outputs.
    method: the survey's name for it; '': the survey does not have it.
    size: of the images.
    predictor: the row of an `EvaluationSpec`.
    origin: where it is from, for the report.
  """

  name: str
  path: str
  system: str
  method: str
  size: int
  predictor: Any
  origin: str


def split_rows(given: Sequence[str], datasets: Sequence[str]) -> dict[str, dict[str, str]]:
  """['NAME=PATH', 'NAME@DATASET=PATH'] -> {data set: {name: path}}.

  Raises:
    ValueError: another form, an unknown data set, or two rows with one name.
  """
  paths: dict[str, dict[str, str]] = {d: {} for d in datasets}
  for word, path in rows.split(given).items():
    name, at, dataset = word.rpartition('@')
    if not at:
      name, dataset = word, ''
    if at and dataset not in paths:
      raise ValueError(
        f'--row {word}: {dataset!r} is none of the data sets {", ".join(datasets)}: write '
        f'NAME@{datasets[0]}=PATH, or NAME=PATH for all'
      )
    for d in [dataset] if at else datasets:
      if name in paths[d]:
        raise ValueError(f'--row {word}: two rows of this name are given for {d}')
      paths[d][name] = path
  return paths


def prepare(request: Request) -> 'Study':
  """Reads and checks everything that is asked for, before anything is measured.

  Raises:
    EvaluationError: says what to change.
  """
  try:
    return _prepare(request)
  except (ValueError, OSError) as error:
    raise EvaluationError(str(error)) from error


def _prepare(request: Request) -> 'Study':
  config = request.config
  output = pathlib.Path(request.output).expanduser()
  check_folder(output)
  _check_config(config)
  protocol = protocols.get(config.protocol)
  unknown = sorted(set(request.data) - set(config.datasets))
  if unknown:
    raise ValueError(f'unknown data sets {unknown}; there are: {", ".join(config.datasets)}')
  given = {d: request.data.get(d, '') for d in config.datasets}
  if not any(given.values()):
    raise ValueError(
      f'give at least one data set: {" or ".join(f"--{d} folder:DIR" for d in given)}'
    )
  by_dataset = split_rows(request.rows, list(config.datasets))
  fills = classical.choose(config.fills)
  if not any(by_dataset[d] for d in given if given[d]) and not fills:
    raise ValueError('give at least one --row NAME=PATH')
  images = {}
  for d, source in given.items():
    if source:
      images[d] = study_images.draw(
        sources.make(source, ''), config.count, config.draw_seed, f'--{d} {source}'
      )
  loaded: dict[str, Loaded] = {}
  rows_of: dict[str, list[Row]] = {d: [] for d in images}
  for d in images:
    for name, path in by_dataset[d].items():
      try:
        if path not in loaded:
          loaded[path] = _load(path, config, request.size)
      except (ValueError, OSError) as error:
        raise ValueError(f'--row {name}: {error}') from error
      rows_of[d].append(_row(name, path, loaded[path], config))
    clash = [r.name for r in rows_of[d] if r.name in fills]
    if clash:
      raise ValueError(f'--row {clash[0]}: a fill has this name already: choose another')
    for size in {r.size for r in rows_of[d]} | {request.size or config.size}:
      protocol.check_size(size, size)
      sets.make(protocol.masks, protocol.bins, size, size, seed=config.seed)
    for i, r in enumerate(rows_of[d]):
      if r.predictor is None:
        paths = [images[d].path(k) for k in range(len(images[d]))]
        stored = folders.find(r.name, r.path, paths, protocol.bins, (r.size, r.size))
        rows_of[d][i] = dataclasses.replace(r, predictor=stored)
  for d in set(given) - set(images):
    idle = sorted(set(by_dataset[d]) - {n for k in images for n in by_dataset[k]})
    if idle:
      logging.warning('--row %s: --%s is not given, so it is not measured.', ', '.join(idle), d)
  return Study(request, protocol, output, images, rows_of, fills)


def _check_config(config: ConfigDict) -> None:
  for name in ('count', 'size', 'batch_size'):
    if not isinstance(config[name], int) or config[name] < 1:
      raise ValueError(f'config.{name} {config[name]!r} must be an integer of at least 1')
  known = {m.name for m in protocols.get(config.protocol).metrics}
  unknown = [m for m in config.metrics if m not in known]
  if unknown:
    raise ValueError(f'config.metrics {unknown} are not measured; there are: {sorted(known)}')


# (system, size, predictor, origin, config.model) of a row's path.
Loaded = tuple[str, int, Any, str, ConfigDict | None]


def _load(path: str, config: ConfigDict, size: int | None) -> Loaded:
  """See `Loaded`."""
  if rows.is_folder(path):
    return '', size or config.size, None, f'files in {path}', None
  trained = trained_lib.load(path)
  own = size or config.size
  if size is None and trained.config.system in config.own_size:
    own = trained.config.get('data', {}).get('size') or trained.config.model.get('image_size', own)
  predict = rows.predictor(trained, config.seed)
  return trained.config.system, own, predict, trained.origin, trained.config.model


def _is_the_surveys(
  name: str, system: str, model: ConfigDict | None, method: str, config: ConfigDict
) -> bool:
  """Whether weights are of the code that the survey measured; says so where they are not."""
  wanted = dict(config.get('method_models', {}).get(system, {}))
  other = {k: model.get(k) for k, v in wanted.items() if model and model.get(k) != v}
  if other:
    words = lambda fields: ', '.join(f'model.{k}={v!r}' for k, v in fields.items())
    logging.warning(
      "--row %s: weights of %s with %s, and the survey's %s has %s: a row of its own, beside the "
      'methods of the survey.', name, system, words(other), method,
      words({k: wanted[k] for k in other}),
    )  # fmt: skip
  return not other


def _row(name: str, path: str, loaded: Loaded, config: ConfigDict) -> Row:
  system, size, predictor, origin, model = loaded
  methods = config.methods.to_dict()
  # A row with the name of a method or system must have weights of it.
  called = {**methods, **{m: m for m in methods.values()}}.get(name, '')
  method = methods.get(system, '') if system else called
  if system and method and not _is_the_surveys(name, system, model, method, config):
    method = ''
  if system and called and called != method and name != system:
    raise ValueError(
      f'--row {name}: {path} is of the system {system!r}: give weights of {name}, or call the row '
      'otherwise'
    )
  return Row(name, path, system, method, size, predictor, origin)


def check_folder(output: pathlib.Path) -> None:
  """Raises ValueError if the folder holds other files than a study."""
  if output.exists() and not output.is_dir():
    raise ValueError(f'--output {output} is a file: give a folder')
  marks = ('study.json', COSTS, *(f'{d}_test.txt' for d in ('celeba', 'places2')))
  if output.is_dir() and any(output.iterdir()):
    if not any((output / m).exists() for m in marks):
      raise ValueError(
        f'--output {output} holds other files and no study: give a new folder, e.g. '
        f'{output / "study"}'
      )


@dataclasses.dataclass(frozen=True)
class Study:
  """A study that is ready to run."""

  request: Request
  protocol: Protocol
  output: pathlib.Path
  images: Mapping[str, Subset]
  rows: Mapping[str, Sequence[Row]]
  fills: Mapping[str, Any]

  def run(self, measured: resources.Measured | None = None) -> dict[str, Any]:
    """Measures, writes study.md and study.json, returns what study.json holds.

    Args:
      measured: resources of the rows, by `resource_name`.
    """
    config = self.request.config
    if jax.process_index() == 0:
      self.output.mkdir(parents=True, exist_ok=True)
      for d, drawn in self.images.items():
        rest = config.datasets[d].training == 'rest'
        study_images.write_lists(drawn, self.output, d, rest)
    datasets: dict[str, Any] = {d: None for d in config.datasets}
    cells: list[dict[str, Any]] = []
    for d in self.images:
      of, kept = self._fingerprint(d, measured), self.output / f'{d}_cells.json'
      datasets[d], own_cells = self._kept(kept, of) or self._dataset(d, measured)
      cells += own_cells
      if of and jax.process_index() == 0:
        text = json.dumps({'of': of, 'about': datasets[d], 'cells': own_cells}, ensure_ascii=False)
        kept.write_bytes(atomic.as_bytes(text))
    document = study_document.make(
      config=config,
      protocol=self.protocol,
      datasets=datasets,
      rows=[self._described(d, r) for d in self.rows for r in self.rows[d]],
      fills=list(self.fills),
      cells=cells,
      measured=measured,
      environment=environment(),
      size=self.request.size or config.size,
      full_size=bool(self.request.full_size),
    )
    if jax.process_index() == 0:
      study_document.write(document, self.output)
      print(f'study: {self.output / "study.md"}', flush=True)
    return document

  def _fingerprint(self, d: str, measured: resources.Measured | None) -> str:
    """Hash of everything that the numbers of a data set depend on; '' if a row cannot say."""
    config, by_name = self.request.config, {r.name: r.predictor for r in self.rows[d]}
    outputs = predictors.fingerprints(by_name | dict(self.fills))
    if outputs is None:
      return ''
    about = [config[n] for n in ('seed', 'count', 'draw_seed', 'size')]
    about += [
      study_images.names_of(self.images[d]),
      self.request.size,
      self.request.data[d],
      outputs,
    ]
    about += [{r.name: (r.size, r.origin) for r in self.rows[d]}, self.protocol.description()]
    about += [bool(measured), {k: str(v) for k, v in environment().items()}]
    return digest.of(json.dumps(about).encode())

  def _kept(self, file: pathlib.Path, of: str) -> tuple[dict[str, Any], list[Any]] | None:
    """(about, cells) of a data set from an earlier attempt with the same fingerprint."""
    if not (self.request.resume and of and file.exists()):
      return None
    try:
      stored = json.loads(file.read_text(encoding='utf-8'))
    except ValueError:  # torn by the end of a process
      return None
    folders_there = all(
      (self.output / r['folder'] / 'metrics.json').exists()
      for r in stored.get('about', {}).get('reports', {}).values()
    )
    if stored.get('of') != of or not folders_there:
      return None
    logging.info('%s is there already, and nothing of it has changed.', file)
    return stored['about'], stored['cells']

  def _dataset(
    self, d: str, measured: resources.Measured | None
  ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(about, cells) of one data set.

    There is an evaluation for each size of images, and for each choice of holes that rows fill.
    """
    config, drawn = self.request.config, self.images[d]
    label = config.datasets[d].label
    usual = self.request.size or config.size
    sizes = sorted({r.size for r in self.rows[d]} | ({usual} if self.fills else set()))
    about = {
      'label': label,
      'source': self.request.data[d],
      'of': len(drawn.whole),
      'count': len(drawn),
      'draw_seed': config.draw_seed,
      'names': study_images.names_of(drawn),
      'reports': {},
    }
    about['names_sha256'] = digest.of('\n'.join(about['names']).encode())
    cells = []
    for size, on, chosen in self._evaluations(d, sizes):
      whole = len(on.masks) == len(self.protocol.bins)
      source = f'{self.request.data[d]}, {len(drawn)} drawn with seed {config.draw_seed}'
      evaluated = {r.name: r.predictor for r in chosen}
      evaluated |= dict(self.fills) if size == usual and whole else {}
      spec = EvaluationSpec(
        evaluated,
        dataclasses.replace(on, dataset=f'{label}: {source}'),
        self.protocol,
        batch_size=config.batch_size,
        about=About(
          published=label,
          notes={r.name: r.origin for r in chosen},
          resources=self._resources(d, measured, list(evaluated)),
        ),
      )
      folder = d if size == usual else f'{d}_{size}'
      folder = self.output / (folder if whole else f'{folder}_{len(on.masks)}_holes')
      results = run.evaluate_and_report(spec, folder, resume=self.request.resume)
      about['reports'][str(size) if whole else f'{size} ({len(on.masks)} holes)'] = {
        'folder': folder.name,
        'mask_sha256': results.mask_sha256,
        'measured': results.count,
        'skipped': [{'file': file, 'why': why} for file, why in results.skipped],
      }
      cells += study_document.cells(results, d, size)
    return about, cells

  def _evaluations(self, d: str, sizes: Sequence[int]) -> list[tuple[int, MaskedImages, list[Row]]]:
    """(size, images with the holes that these rows fill, rows); the whole set of holes first."""
    drawn, found = self.images[d], []
    for size in sizes:
      wanted = ImagesSpec(
        drawn, self.protocol, size=size, count=len(drawn), seed=self.request.config.seed
      ).load()
      chosen = [r for r in self.rows[d] if r.size == size]
      groups: dict[tuple, list[Row]] = {}
      if self.fills and size == (self.request.size or self.request.config.size):
        groups[tuple(wanted.masks)] = []
      for row in chosen:
        filled = tuple(fillable(wanted, {row.name: row.predictor}).masks)
        groups.setdefault(filled, []).append(row)
      for bins in sorted(groups, key=len, reverse=True):
        masks = {b: wanted.masks[b] for b in bins}
        found.append((size, dataclasses.replace(wanted, masks=masks), groups[bins]))
    return found

  def _resources(
    self, d: str, measured: resources.Measured | None, names: Sequence[str]
  ) -> dict[str, dict[str, float]]:
    """Resources of the rows of one evaluation, by their names in it."""
    costs = measured.resources if measured else {}
    called = {name: resource_name(self.request.rows, name, d) for name in names}
    return {name: costs[key] for name, key in called.items() if key in costs}

  def _described(self, d: str, row: Row) -> dict[str, Any]:
    fields = dataclasses.asdict(dataclasses.replace(row, predictor=None)) | {'dataset': d}
    del fields['predictor'], fields['path']
    return fields | {'resources': resource_name(self.request.rows, row.name, d)}


def resource_name(given: Sequence[str], name: str, dataset: str) -> str:
  """How `measure_resources` calls a row: 'glcic', or 'glcic@celeba' where it is of one data set."""
  words = rows.split(given)
  return f'{name}@{dataset}' if f'{name}@{dataset}' in words else name


def measure_resources(request: Request) -> resources.Measured | None:
  """Resources of all rows, before this process touches a device; None where none are wanted.

  Each measurement is kept in the study's folder when it is finished.

  Raises:
    resources.ResourceError, ValueError: see `resources.measure`, `check_folder`.
  """
  if request.resources is None:
    return None
  config, output = request.config, pathlib.Path(request.output).expanduser()
  check_folder(output)
  split_rows(request.rows, list(config.datasets))
  paths: dict[str, Any] = rows.split(request.rows)
  if request.full_size:
    paths = {name: _full_size(name, path, request) for name, path in paths.items()}
  fills = [n for n in classical.FILLS if n in config.fills]
  size = config.size if request.full_size else request.size or config.size
  options = dict(size=size) | dict(request.resources)
  kept = resources.open_kept(output / COSTS, resume=request.resume)
  return resources.measure(paths, fills, kept=kept, **options)


def _full_size(name: str, path: str, request: Request) -> Any:
  """The config whose cost stands for a row; the row's own path where there is none."""
  if rows.is_folder(path):
    return path
  try:
    system = trained_lib.open_weights(path).config.system
  except OSError as error:
    raise ValueError(f'--row {name}: {error}') from error
  dataset = name.rpartition('@')[2] if '@' in name else next(iter(request.config.full_size))
  known = request.config.full_size[dataset]
  return request.full_size(known[system]) if system in known else path
