"""Measures what rows cost: parameters, operations, seconds, memory, hours of training.

Each row is measured in its own process, and its training in another, because a process has only one
peak of memory. `report.resources.RESOURCES` says what every number is.
"""

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from jaxinpaint import trained as trained_lib
from jaxinpaint.cost.kept import Kept, Lines
from jaxinpaint.evaluation import classical, rows
from jaxinpaint.report.resources import RESOURCES, shown
from jaxinpaint.runtime.environment import commit


class ResourceError(ValueError):
  """A row cannot be measured; the message says why."""


@dataclasses.dataclass(frozen=True)
class Measured:
  """What was measured; JSON-able by `to_json`.

  Attributes:
    resources: {row: {name of RESOURCES: number}}: `Results.resources`.
    not_measured: {row: {name, or 'training', 'predict': why}}.
    environment: versions and hardware.
  """

  resources: dict[str, dict[str, float]]
  not_measured: dict[str, dict[str, str]]
  environment: dict[str, Any]

  def to_json(self) -> dict[str, Any]:
    """The numbers with their units and methods."""
    return {
      'schema': 1,
      'resources': self.resources,
      'not_measured': self.not_measured,
      'methods': [dataclasses.asdict(r) for r in RESOURCES],
      'environment': self.environment,
    }


def measure(
  paths: Mapping[str, str | os.PathLike | ConfigDict],
  fills: Sequence[str] = (),
  *,
  size: int = 256,
  max_batch: int = 0,
  repeats: int = 20,
  training: bool = True,
  train_batch: int = 0,
  train_size: int = 0,
  train_steps: int = 3,
  kept: Kept | None = None,
) -> Measured:
  """Measures rows one after another, each in its own processes.

  On a GPU or TPU call it before this process uses the device, because it would hold its memory.

  Args:
    paths: {row: run, weights file or folder of outputs}, as --row of `jaxinpaint evaluate`; or an
      experiment's config: its networks are measured with random weights, on which no cost depends.
    fills: names of classical fills (`classical.FILLS`); their rows have its labels.
    size: side of the images.
    max_batch: the largest batch tried; 0: 8 on a CPU, else 64.
    repeats: timed calls at batch 1.
    training: measure training steps too.
    train_batch: of a training step; 0: the run's.
    train_size: of its images; 0: the run's.
    train_steps: timed steps of each kind.
    kept: finished measurements, see `open_kept`; what they have is not measured again.

  Raises:
    ResourceError: a number or row is wrong (before anything is measured), or a process failed.
  """
  for name, value, least in (
    ('size', size, 8),
    ('repeats', repeats, 1),
    ('max_batch', max_batch, 0),
    ('train_batch', train_batch, 0),
    ('train_size', train_size, 0),
    ('train_steps', train_steps, 1),
  ):
    if value < least:
      raise ResourceError(f'--{name} {value} must be at least {least}')
  for name in fills:
    try:
      classical.check(name)
    except ValueError as error:
      raise ResourceError(f'--fills: {error}') from error
  configs = {n: c for n, c in paths.items() if isinstance(c, ConfigDict)}
  given = {n: str(p) for n, p in paths.items() if n not in configs}
  stored = {n: p for n, p in given.items() if rows.is_folder(p)}
  _check({n: p for n, p in given.items() if n not in stored})
  jobs = {n: json.loads(c.to_json_best_effort()) for n, c in configs.items()} | given
  known: dict[str, tuple[dict[str, float], dict[str, str]]] = {}  # of equal networks
  steps_of = {n: _step_fields(jobs[n]) for n in configs}
  hours: dict[str, tuple[dict[str, float], dict[str, str]]] = {}
  measured: dict[str, dict[str, float]] = {}
  missing: dict[str, dict[str, str]] = {}
  for name in paths:
    if name in stored:
      continue
    row = jobs[name]
    if name in configs:  # its training does not matter
      row = {k: row[k] for k in ('system', 'version', 'dtype', 'model', 'loss') if k in row}
    job = dict(row=row, size=size, max_batch=max_batch, repeats=repeats)
    key = json.dumps(job, sort_keys=True)
    if key not in known:
      known[key] = _worker('predict', job, name, kept=kept)[:2]
    values, why = known[key]
    if training:
      if name not in hours:
        like = [n for n in steps_of if n != name and steps_of[n] == steps_of.get(name)]
        job = dict(row=jobs[name], batch_size=train_batch, size=train_size, steps=train_steps)
        job |= {'like': [jobs[n] for n in like]} if like else {}
        more, why_not, others = _worker('train', job, name, 'training', kept)
        hours[name] = more, why_not
        for n, own in zip(like, others or [{} for _ in like], strict=True):
          hours[n] = more | own, why_not
      values, why = values | hours[name][0], why | hours[name][1]
    measured[name], missing[name] = values, why
  for name in stored:
    missing[name] = {'predict': f'{stored[name]} is a folder of outputs, made elsewhere'}
  for name in fills:
    label = classical.FILLS[name].label
    job = dict(name=name, size=size, repeats=repeats)
    measured[label], missing[label], _ = _worker('fill', job, label, kept=kept)
  return Measured(measured, {k: v for k, v in missing.items() if v}, hardware())


def hardware() -> dict[str, Any]:
  """Of this machine, without touching its accelerator."""
  import importlib.metadata

  import jaxinpaint

  names = platform.processor() or platform.machine()
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    names = next(x.split(':')[1].strip() for x in lines if x.startswith('model name'))
  except (OSError, StopIteration):
    pass  # not Linux: the platform's own word stands
  return {
    'jaxinpaint': jaxinpaint.__version__,
    'jax': importlib.metadata.version('jax'),
    'python': platform.python_version(),
    'processor': f'{os.cpu_count()} cores of {names}',
    'system': f'{platform.system()} {platform.machine()}',
  }


def table(measured: Measured) -> str:
  """Markdown: a row for each resource, a column for each row of the tables."""
  names = list(measured.resources)
  lines = ['| | ' + ' | '.join(names) + ' |', '|---|' + '---:|' * len(names)]
  for r in RESOURCES:
    values = [measured.resources[n].get(r.name) for n in names]
    if any(v is not None for v in values):
      cells = ['–' if v is None else shown(r.name, v) for v in values]
      unit = f' ({r.unit})' if r.unit else ''
      lines.append(f'| {r.label}{unit} | ' + ' | '.join(cells) + ' |')
  notes = [
    f'- {name}, {what}: not measured: {why}.'.replace('..', '.')
    for name, reasons in measured.not_measured.items()
    for what, why in reasons.items()
  ]
  return '\n'.join([*lines, '', *notes]).rstrip() + '\n'


def _check(trained: Mapping[str, str]) -> None:
  """Raises ResourceError for the first row whose weights are missing, or not of its networks."""
  if not trained:
    return
  lines, code = _run('check', {'rows': list(trained.values())})
  stages = [x['stage'] for x in lines if 'stage' in x]
  name = list(trained)[max(0, len(stages) - 1)]
  errors = [x['error'] for x in lines if 'error' in x]
  if errors:
    raise ResourceError(f'--row {name}: {errors[0]}')
  if code:
    raise ResourceError(f'--row {name}: loading {trained[name]} failed with exit code {code}')


def _step_fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of an experiment on which the cost of its training steps depends.

  Images, schedules and the lengths of phases are left out: experiments that differ in nothing else
  are measured once.
  """
  fields = ('system', 'version', 'dtype', 'model', 'loss', 'training')
  kept = {k: config[k] for k in fields if k in config}
  kept['training'] = {k: v for k, v in kept['training'].items() if k != 'steps'}
  kept['data'] = {k: config['data'][k] for k in ('batch_size', 'size', 'masks', 'masks_on_device')}
  kept['phases'] = {name: bool(steps) for name, steps in config.get('phases', {}).items()}
  kept['optimizers'] = {
    name: {k: v for k, v in entry.items() if k not in ('learning_rate', 'schedule_args')}
    for name, entry in config['optimizers'].items()
  }
  return kept


def open_kept(file: pathlib.Path, *, resume: bool = True) -> Kept:
  """The finished measurements in a file, of this machine, its devices and these versions.

  Args:
    file: need not be there.
    resume: False: nothing of it counts.

  Raises:
    ResourceError: the file holds something else.
  """
  settings = {k: v for k, v in os.environ.items() if k.startswith(('JAX_', 'XLA_'))}
  # One core of sixteen is another machine. macOS does not say.
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  lines, _ = _run('devices', {})  # a process that asks jax itself would hold them
  devices = [line['devices'] for line in lines if 'devices' in line]
  machine = hardware() | {'commit': commit(), 'host': platform.node(), 'usable_cores': cores}
  machine |= {'devices': devices, 'settings': settings}
  try:
    return Kept(file, machine, resume=resume)
  except ValueError as error:
    raise ResourceError(str(error)) from error


def _identified(job: Mapping[str, Any]) -> dict[str, Any]:
  """A job with the config of its run or weights, on which a cost depends, beside their path."""
  row = job.get('row')
  if not isinstance(row, str):
    return dict(job)
  fields = json.loads(trained_lib.open_weights(row).config.to_json_best_effort())
  return {**job, 'config': fields}


def _worker(
  what: str, job: Mapping[str, Any], name: str, may_fail: str = '', kept: Kept | None = None
) -> tuple[dict[str, float], dict[str, str], list[dict[str, float]]]:
  """(values, what was not measured and why, values of the rows in `like`) of one process."""
  lines, code = _kept_or_run(what, job, name, kept)
  values: dict[str, float] = {}
  missing: dict[str, str] = {}
  like: list[dict[str, float]] = []
  for line in lines:
    values |= line.get('values', {})
    like = line.get('like', like)
    missing |= line.get('not_measured', {})
  errors = [x['error'] for x in lines if 'error' in x]
  stage = next((x['stage'] for x in reversed(lines) if 'stage' in x), 'starting')
  if errors and not may_fail:
    raise ResourceError(f'--row {name}: {errors[0]}')
  if errors:
    missing[may_fail] = errors[0]
  elif code:
    # The operating system kills a process that takes too much memory; earlier numbers are kept.
    missing[may_fail or stage] = f'its process ended with exit code {code} at {stage}' + (
      ', as one that runs out of memory' if code in (-9, 137) else ''
    )
  return values, missing, like


def _kept_or_run(
  what: str, job: Mapping[str, Any], name: str, kept: Kept | None
) -> tuple[Lines, int]:
  """`_run`, unless it ended well before."""
  of = _identified(job) if kept else {}
  if kept and (lines := kept.find(what, of)) is not None:
    return lines, 0
  logging.info('What %s costs: %s.', name, what)
  lines, code = _run(what, job)
  if kept and code == 0:
    kept.add(what, of, lines)
  return lines, code


def _run(what: str, job: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
  """(lines, exit code) of a process of `cost.costs`."""
  with tempfile.TemporaryDirectory() as folder:
    to = pathlib.Path(folder) / 'numbers'
    text = json.dumps({'what': what, 'to': str(to), **job})
    command = [sys.executable, '-m', 'jaxinpaint.cost.costs', text]
    root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join(x for x in (root, os.environ.get('PYTHONPATH')) if x)
    done = subprocess.run(command, env=os.environ | {'PYTHONPATH': path}, check=False)
    written = to.read_text(encoding='utf-8') if to.exists() else ''
  # A process that was killed may have left half a line.
  lines = [json.loads(x) for x in written.splitlines() if x.endswith('}')]
  return lines, done.returncode
