"""The card of weights: what an export says of them, and how `weights show` prints it.

A card goes to strangers with the weights, so it holds no path of the machine that made it.
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxinpaint import migrations, systems
from jaxinpaint import trained as trained_lib
from jaxinpaint.data import sources
from jaxinpaint.exporting import function
from jaxinpaint.report import files
from jaxinpaint.report.results import Results
from jaxinpaint.training import config as config_lib
from jaxinpaint.weights import names, store

Path = str | os.PathLike
_OF_WEIGHTS = ('licence', 'notes', 'results')  # what a card keeps when its weights are written anew


def export(
  run: str,
  out: Path,
  *,
  dtype: str | None = None,
  licence: str = '',
  notes: Sequence[str] = (),
  results: Path | None = None,
  row: str = '',
  merge: bool = False,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes the networks of a run that inference needs, averages where it keeps them, as one file.

  Args:
    run: WORKDIR@STEP, or WORKDIR for the result of the run; or a weights file or name of weights,
      whose card goes on.
    out: NAME or NAME.safetensors.
    dtype: 'float32', or 'float16' for half the size; None: as the weights are stored.
    licence: of the weights.
    notes: sentences for the card: what the data were, what the weights cannot do.
    results: folder of an evaluation's report; the means of the run's row go into the card.
    row: its name in the report; '': the only system that was evaluated.
    merge: write the form of the networks that is only run, of systems that are trained in another
      one (`merged` of their recipe).
    overwrite: replace `out`.

  Returns:
    Path of the file.

  Raises:
    ValueError: the report has no row of the run, or is not for a run; or there is nothing to merge.
    weights.store.StoreError, FileExistsError, report.files.ReportError: as their names say.
  """
  store.refuse_existing(out, overwrite)
  trained = trained_lib.load(run)
  about: dict[str, Any] = {'conventions': function.conventions(trained.inference)}
  if trained.step is None:
    if results is not None:
      raise ValueError(
        f'{run} is a weights file, whose results stay as they are: leave --results out'
      )
    source = trained.card['source']
    about |= {name: trained.card[name] for name in _OF_WEIGHTS if name in trained.card}
  else:
    from jaxinpaint.weights import checkpoints  # imports orbax: only where a run is read

    source = _training(checkpoints.read_meta(checkpoints.find(trained.path, trained.step)))
    if results is not None:
      about['results'] = _means(results, row, trained.step)
  about['licence'] = licence or about.get('licence', '')
  about['notes'] = [*about.get('notes', ()), *notes]
  config, variables = trained.config, trained.variables
  if merge:
    recipe = systems.module(config.system, 'recipe')
    if not hasattr(recipe, 'merged'):
      raise ValueError(f'{config.system} has one form only: leave out --merge')
    config, variables = recipe.merged(config, variables)
  return store.save(
    out,
    config.system,
    function.without_folders(config),
    *variables,
    source=source,
    about=about,
    dtype=dtype or trained.card.get('stored_as', 'float32'),
    overwrite=overwrite,
  )


def describe(path: Path) -> list[str]:
  """The card of weights, in lines for a reader.

  Args:
    path: a weights file, or a name of weights.

  Raises:
    weights.store.StoreError, ValueError: there are none, or they cannot be read.
  """
  file = trained_lib.find(path)
  if file.is_dir():
    raise ValueError(f'{file} is a folder: show a file; `weights export` makes one of a run')
  trained_lib.check_file(file)
  stored = store.load(file)
  meta, source = stored.meta, stored.meta['source']
  rows = [
    ('system', stored.system),
    *(
      ('network', f'{network}, {count["parameters"]:,} parameters')
      for network, count in meta['networks'].items()
    ),
    ('stored as', meta.get('stored_as', 'float32')),
    ('licence', meta.get('licence') or source.get('licence') or 'not stated'),
    ('written by', meta['created_by']),
  ]
  if 'step' in source:
    rows.append(('trained', _training_shown(source)))
  rows += [(key, source[key]) for key in ('format', 'prefix', 'url', 'note') if source.get(key)]
  rows += [('file', f'{f["name"]}, SHA-256 {f["sha256"]}') for f in source.get('files', ())]
  rows += [('note', note) for note in meta.get('notes', ())]
  rows += _results_shown(meta['results']) if 'results' in meta else []
  rows += [('config', line) for line in _changed(stored)] or [('config', "the system's default")]
  width = max(len(name) for name, _ in rows)
  return [names.name_of(file) or str(file)] + [f'  {name:<{width}}  {x}' for name, x in rows]


def _changed(stored: store.Stored) -> list[str]:
  """What the networks and losses differ in from the system's default config."""
  default = systems.default_config(stored.system).to_dict()
  config = migrations.migrate(stored.config, systems.default_config).to_dict()
  pick = lambda whole: {part: whole[part] for part in ('dtype', 'model', 'loss')}
  return config_lib.differences(pick(default), pick(config))


def _training(meta: dict[str, Any]) -> dict[str, Any]:
  """How the run trained up to a checkpoint; of its paths only what kind of thing they name."""
  config, data = meta['config'], meta['data']
  start = config.get('init_from', '')
  return {
    'step': meta['step'],
    'images': meta['step'] * data['batch_size'],
    'batch_size': data['batch_size'],
    'size': config['data']['size'],
    'data': {'kind': sources.kind(config['data']['source']), 'count': data['length']},
    'started_from': _start_shown(start),
    'jaxinpaint': meta['version'],
  }


def _start_shown(start: str) -> str:
  """What a run began with: a name is told, a path is not."""
  if not start:
    return ''
  return start if start in names.FILES or systems.named(start) else 'other weights'


def _training_shown(source: dict[str, Any]) -> str:
  data, start = source['data'], source['started_from']
  return (
    f'{source["step"]:,} steps of {source["batch_size"]}, so on {source["images"]:,} crops of '
    f'{source["size"]} pixels, from {data["count"]:,} images ({data["kind"]})'
    + (f', starting from {start}' if start else '')
  )


def _means(folder: Path, row: str, step: int) -> dict[str, Any]:
  """The means of one row of a report, by bin and metric."""
  results = files.load(folder).results
  own = [name for name in results.predictors if results.kind(name) == 'system']
  if row and row not in results.predictors:
    raise ValueError(f'{folder} has no row {row!r}; it has: {", ".join(results.predictors)}')
  if not row and len(own) != 1:
    raise ValueError(
      f'{folder} has {len(own)} rows of systems: name that of the run with --row, one of: '
      f'{", ".join(results.predictors)}'
    )
  row = row or own[0]
  of = str(results.notes.get(row) or results.notes.get('weights', ''))
  evaluated = re.search(r'\bstep (\d+)\b', of)
  if evaluated and int(evaluated[1]) != step:
    raise ValueError(
      f'{folder} evaluates step {evaluated[1]}, but step {step} is exported: evaluate that step, '
      f'or export WORKDIR@{evaluated[1]}'
    )
  return {
    'protocol': results.protocol.id,
    'images': results.count,
    'size': list(results.size),
    'means': _by_bin(results, row),
  }


def _by_bin(results: Results, row: str) -> dict[str, dict[str, float]]:
  means: dict[str, dict[str, float]] = {}
  for b in results.bins:
    here = {m.name: results.summary(row, b, m.name).mean for m in results.image_metrics}
    here |= {v.metric: v.value for v in results.set_values if (v.predictor, v.bin) == (row, b)}
    means[b.label] = {name: round(x, 4) for name, x in here.items() if np.isfinite(x)}
  return means


def _results_shown(results: dict[str, Any]) -> list[tuple[str, str]]:
  height, width = results['size']
  rows = [
    ('results', f'protocol {results["protocol"]}, {results["images"]} images, {height} x {width}')
  ]
  for label, means in results['means'].items():
    rows.append(('', f'{label} %: ' + ', '.join(f'{m} {x:g}' for m, x in means.items())))
  return rows
