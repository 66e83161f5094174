"""The train loop, the same for every system.

Prepares everything that can fail (config, data, weights, checkpoints) before the first
compilation, then repeats: batch -> step -> numbers, pictures, evaluations, checkpoints. A run is
started, resumed and extended by the same command; what is resumed equals what was never stopped, to
the bit.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint import distributed, systems
from jaxinpaint.data import brush, masks, pipeline
from jaxinpaint.evaluation import run as evaluation
from jaxinpaint.training import checkpoints as checkpoints_lib
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import initial, optimizers, sharding, state, step, writers
from jaxinpaint.training.recipe import Recipe


class ConfigurationError(Exception):
  """The run cannot begin; the message says what to change."""


class Diverged(Exception):
  """A loss or gradient became NaN or infinite; the message names update, term and step."""


# What an entry point shows as a sentence, without a traceback.
USER_ERRORS = (ConfigurationError, Diverged, checkpoints_lib.CheckpointError)

# Steps that may be under way before the host looks whether the oldest was sound.
_LAG = 2


@dataclasses.dataclass
class Run:
  """A run that is ready to take steps."""

  config: ConfigDict
  workdir: pathlib.Path
  recipe: Recipe
  mesh: jax.sharding.Mesh
  constants: Any
  state: state.TrainState
  train_step: Callable
  checkpoints: checkpoints_lib.Checkpoints
  batches: Iterator[dict[str, np.ndarray]]
  rng: jax.Array


def train(config: ConfigDict, workdir: str | pathlib.Path) -> state.TrainState:
  """Trains, or goes on training, until `config.training.steps` steps are done.

  Args:
    config: see `training.config.base`.
    workdir: gets config.json, environment.json, metrics.jsonl, tb/, checkpoints/, samples/ and
      evaluation/. When it holds checkpoints of the same run, the newest whole one is resumed.

  Returns:
    The last state. SIGTERM (or the first Ctrl-C) saves at the next step and returns early.

  Raises:
    ConfigurationError: before any training, with what to change.
    Diverged: NaN or infinity, under config.training.nan = 'stop'.
    CheckpointError: the workdir's checkpoints cannot be used.
  """
  workdir = pathlib.Path(workdir)
  try:
    run = prepare(config, workdir)
  except (ValueError, OSError) as error:
    raise ConfigurationError(str(error)) from error
  total = total_steps(config, run.recipe)
  start = int(run.state.step)
  if start >= total:
    logging.info('%s is at step %d of %d: nothing is left to train.', workdir, start, total)
    run.checkpoints.close()
    return run.state
  with _StopSignals() as stop:
    return _loop(run, start, total, stop)


def total_steps(config: ConfigDict, recipe: Recipe) -> int:
  """config.training.steps, or the length of the recipe's phases where they all have an end."""
  if recipe.steps is None:
    return config.training.steps
  return min(config.training.steps, recipe.steps)


def prepare(config: ConfigDict, workdir: pathlib.Path) -> Run:
  """Everything before the first step; whatever the user can get wrong fails here.

  Raises:
    ValueError, OSError: naming the field or path, and the fix.
  """
  config_lib.validate(config)
  recipe = systems.make_recipe(config)
  mesh = sharding.make_mesh(**config.training.mesh)
  sharding.check_batch(config.data.batch_size, config.data.size, mesh)
  distributed.announce(mesh)
  evaluation.check(config, recipe)
  txs = optimizers.make_optimizers(
    config.optimizers, recipe.optimizers, accumulate=config.training.accumulate
  )
  own_rows = sharding.local_rows(config.data.batch_size, mesh)
  pipeline.check(config.data, config.seed, inputs=recipe.inputs, rows=own_rows)
  constants = recipe.load_constants(True)

  size, rows = config.data.size, config.data.batch_size
  shapes = {
    'image': jax.ShapeDtypeStruct((rows, size, size, 3), np.float32),
    'mask': jax.ShapeDtypeStruct((rows, size, size, 1), np.float32),
    'id': jax.ShapeDtypeStruct((rows,), np.int32),
  }
  key = jax.random.key(config.seed)
  init_key, rng = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
  ema = tuple(config.training.ema_networks) if config.training.ema_decay else ()
  absent = [n for n in ema if n not in recipe.networks]
  if absent:
    raise ValueError(f'config.training.ema_networks {absent} are not among {recipe.networks}')

  def create(key):
    # The parameters depend on the shapes of a batch, not on what is in it.
    batch = jax.tree.map(lambda s: jax.numpy.zeros((1, *s.shape[1:]), s.dtype), shapes)
    return state.create(recipe, txs, ema, key, batch)

  abstract = jax.eval_shape(create, init_key)
  min_size = config.training.mesh.get('fsdp_min_size', sharding.FSDP_MIN_SIZE)
  placed = sharding.state_sharding(abstract, mesh, min_size)
  abstract = jax.tree.map(
    lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), abstract, placed
  )

  _check_workdir(workdir)
  checkpoints = checkpoints_lib.Checkpoints(
    workdir,
    keep=config.checkpoint.keep,
    keep_every=config.checkpoint.keep_every,
    best=config.checkpoint.best if config.training.evaluate_every else '',
  )
  restored = checkpoints.restore(abstract, config)
  if restored is None:
    current = jax.jit(create, out_shardings=placed)(init_key)
    current = initial.merge(recipe.start(), current)
    if recipe.pretrained and not config.init_from:
      raise ValueError(
        f'this config wants config.init_from to bring the {", ".join(recipe.pretrained)}: a file '
        f'of `python -m jaxinpaint.weights import {config.system} FILE OUT`'
      )
    if config.init_from:
      current = initial.load(config.init_from, current, recipe)
  else:
    current, meta = restored
    logging.info('Resumed %s at step %d.', workdir, int(current.step))
    _report_changes(meta, config)
  _write_workdir(workdir, config)

  replicated = sharding.replicated(mesh)
  constants = jax.device_put(constants, replicated)
  train_step = step.make_train_step(
    recipe,
    txs,
    ema_decay=config.training.ema_decay,
    accumulate=config.training.accumulate,
    state_sharding=placed,
    constants_sharding=replicated,
    replicated=replicated,
    draw_masks=_draw_masks(config.data),
  )
  batches = pipeline.make(
    config.data,
    config.seed,
    start_step=int(current.step),
    inputs=recipe.inputs,
    rows=own_rows,
  )
  rng = jax.device_put(rng, replicated)
  return Run(
    config, workdir, recipe, mesh, constants, current, train_step, checkpoints, batches, rng
  )


def _draw_masks(data: ConfigDict) -> Callable | None:
  """What draws the masks inside the step; None where the pipeline does."""
  if not data.masks_on_device:
    return None
  return functools.partial(brush.draw_on_device, brush=masks.make(data.masks))


def _loop(run: Run, start: int, total: int, stop: '_StopSignals') -> state.TrainState:
  """Takes the steps from `start` to `total`."""
  config, first = run.config, jax.process_index() == 0
  writer = writers.Writer(run.workdir, active=first)
  if first:
    for network, params in run.state.params.items():
      count = parameter_overview.count_parameters(params)
      logging.info('%s: %s parameters', network, f'{count:,}')
  watch = evaluation.Watch(run.recipe, config, run.workdir, writer)
  if start == 0 and config.training.sample_every:
    watch.samples(0, run.state, run.constants)
  progress = writers.Progress(total, start, active=first)
  guard = _Guard(config.training.nan, config.training.nan_limit)
  meter = _Meter(config.data.batch_size)
  done, phase = start, None
  try:
    while done < total and not stop.reached(done):
      begun = time.monotonic()
      batch = sharding.to_devices(next(run.batches), run.mesh)
      meter.waited += time.monotonic() - begun
      plan = run.recipe.plan(done)
      if plan.phase != phase:
        phase = plan.phase
        logging.info('Phase %r begins or goes on at step %d.', run.recipe.phases[phase].name, done)
      run.state, metrics = run.train_step(run.state, run.constants, batch, run.rng, plan)
      guard.add(done, metrics)
      meter.add(metrics)
      done += 1
      progress.step()

      last = done == total
      if done % config.training.log_every == 0 or last or done == start + 1:
        # The first step of a start is shown at once; its time is mostly compilation.
        scalars, speed = meter.read()
        writer.scalars(done, scalars | speed)
        progress.show(done, _totals(scalars), speed)
      evaluated = None
      if config.training.evaluate_every and (done % config.training.evaluate_every == 0 or last):
        guard.drain()
        evaluated = watch.evaluate(done, run.state, run.constants)
        meter.pause()
      if config.training.sample_every and (done % config.training.sample_every == 0 or last):
        guard.drain()
        watch.samples(done, run.state, run.constants)
        meter.pause()
      if done % config.checkpoint.every == 0 or last or evaluated:
        guard.drain()
        _save(run, evaluated)
        meter.pause()
    if done < total:
      guard.drain()
      _save(run, None)
      logging.warning('Stopped by a signal; step %d is saved. The same command goes on.', done)
    run.checkpoints.wait()
  finally:
    progress.close()
    writer.close()
    run.checkpoints.close()
  if done == total and config.evaluation.at_end:
    watch.final(done, run.state, run.constants)
  return run.state


def _save(run: Run, metrics: dict[str, float] | None) -> None:
  run.checkpoints.save(run.state, run.config, _position(run), metrics)


def _position(run: Run) -> dict[str, Any]:
  """Where the data is: the step is enough, the rest lets a resumed run notice a change."""
  data = run.config.data
  return {
    'next_batch': int(run.state.step),
    'seed': run.config.seed,
    'batch_size': data.batch_size,
    'length': pipeline.source_length(data),
  }


def _report_changes(meta: Mapping[str, Any], config: ConfigDict) -> None:
  """Logs what differs between the checkpoint's run and this one."""
  new = json.loads(config.to_json_best_effort())
  for line in config_lib.differences(meta['config'], new):
    logging.warning('Changed since the checkpoint: %s', line)
  was, now = meta['data'].get('length'), pipeline.source_length(config.data)
  if was != now:
    logging.warning(
      'The data had %s images when the checkpoint was saved and has %s now: the order of images '
      'and masks from here on is not that of an uninterrupted run.',
      was,
      now,
    )


def _totals(scalars: Mapping[str, float]) -> dict[str, float]:
  """{update: its total loss}, for the terminal; every term where none is called total."""
  totals = {k.removesuffix('/total'): v for k, v in scalars.items() if k.endswith('/total')}
  return totals or dict(scalars)


class _Meter:
  """Means of the metrics and the speed since the last reading."""

  def __init__(self, batch_size: int):
    self._batch_size = batch_size
    self._metrics: list[Mapping[str, jax.Array]] = []
    self._begun = time.monotonic()
    self._paused = 0.0
    self.waited = 0.0

  def add(self, metrics: Mapping[str, jax.Array]) -> None:
    self._metrics.append(metrics)
    self._last = time.monotonic()

  def pause(self) -> None:
    """What happened since the last step was not training."""
    now = time.monotonic()
    self._paused += now - self._last
    self._last = now

  def read(self) -> tuple[dict[str, float], dict[str, float]]:
    values = jax.device_get(self._metrics)
    seconds = max(time.monotonic() - self._begun - self._paused, 1e-9)
    names = dict.fromkeys(k for m in values for k in m if k != 'finite')
    means = {k: float(np.mean([m[k] for m in values if k in m])) for k in names}
    speed = {
      'speed/img_per_s': len(values) * self._batch_size / seconds,
      'speed/step_ms': 1e3 * seconds / len(values),
      'speed/data_wait': self.waited / seconds,
    }
    self._metrics, self._begun, self._paused, self.waited = [], time.monotonic(), 0.0, 0.0
    return means, speed


class _Guard:
  """Looks, a few steps late so that the device never waits, whether steps were finite."""

  def __init__(self, policy: str, limit: int):
    self._policy, self._limit = policy, limit
    self._pending: collections.deque = collections.deque()
    self._skipped = 0

  def add(self, number: int, metrics: Mapping[str, jax.Array]) -> None:
    self._pending.append((number, metrics))
    while len(self._pending) > _LAG:
      self._check(*self._pending.popleft())

  def drain(self) -> None:
    """Checks every step taken; called before anything is saved."""
    while self._pending:
      self._check(*self._pending.popleft())

  def _check(self, number: int, metrics: Mapping[str, jax.Array]) -> None:
    if bool(metrics['finite']):
      self._skipped = 0
      return
    values = jax.device_get(dict(metrics))
    terms = ', '.join(f'{k} = {values[k]}' for k in step.nonfinite_terms(values))
    self._skipped += 1
    sentence = f'step {number}: {terms}: not finite; its changes were dropped'
    if self._policy == 'stop':
      raise Diverged(
        f'{sentence}. Training stops; the checkpoints are untouched. Lower the learning rate, set '
        f'config.optimizers.*.clip_norm, or go on past such steps with --config.training.nan=skip'
      )
    logging.error('%s (%d in a row).', sentence, self._skipped)
    if self._skipped >= self._limit:
      raise Diverged(f'{sentence}, the {self._skipped}th in a row (config.training.nan_limit)')


class _StopSignals:
  """Turns SIGTERM and the first Ctrl-C into a stop at the next step."""

  def __enter__(self) -> '_StopSignals':
    self._received: int | None = None
    self._old = {}
    for number in (signal.SIGTERM, signal.SIGINT):
      try:
        self._old[number] = signal.signal(number, self._receive)
      except ValueError:  # not in the main thread: the caller keeps its own handlers
        logging.info('Not in the main thread: signals are left to the caller.')
        break
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def _receive(self, number: int, frame: Any) -> None:
    self._received = number
    # A second signal ends the process as it always did.
    signal.signal(number, self._old[number])
    logging.warning('%s: saving at the next step.', signal.Signals(number).name)

  def reached(self, done: int) -> bool:
    """Whether to stop before the step after `done`; the same answer on every process."""
    if jax.process_count() == 1:
      return self._received is not None
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(self._received is not None)).any())


def _check_workdir(workdir: pathlib.Path) -> None:
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'--workdir {workdir} is a file: give a folder')
  workdir.mkdir(parents=True, exist_ok=True)


def _write_workdir(workdir: pathlib.Path, config: ConfigDict) -> None:
  """config.json and environment.json; an earlier config that differs is kept beside it."""
  if jax.process_index() != 0:
    return
  path, text = workdir / 'config.json', config.to_json_best_effort(indent=2)
  if path.exists() and path.read_text() != text:
    count = len(list(workdir.glob('config.*.json')))
    path.rename(workdir / f'config.{count}.json')
  path.write_text(text)
  devices = jax.devices()
  environment = {
    'jaxinpaint': jaxinpaint.__version__,
    'commit': _commit(),
    'jax': jax.__version__,
    'python': platform.python_version(),
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'processes': jax.process_count(),
    'arguments': sys.argv[1:],
  }
  (workdir / 'environment.json').write_text(json.dumps(environment, indent=2))


def _commit() -> str:
  """The commit of the code that runs; '' outside a git checkout."""
  here = pathlib.Path(__file__).parent
  try:
    done = subprocess.run(
      ['git', 'describe', '--always', '--dirty'], cwd=here, capture_output=True, text=True
    )
  except FileNotFoundError:
    return ''
  return done.stdout.strip() if done.returncode == 0 else ''
