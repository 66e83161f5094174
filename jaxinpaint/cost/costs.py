"""What one row costs, measured in a separate process, which `cost.resources` starts.

  python -m jaxinpaint.cost.costs '{"what": "predict", "to": FILE, "row": PATH, "size": 256, ...}'

`what` is one of `JOBS`, and what follows `to` are the arguments of its function.

The peak of memory is a number of a whole process, so each row, and its training, needs its own
process. Each result is appended to FILE at once, one JSON object per line. So if a process is
killed because it uses too much memory, the earlier results remain.

  {"stage": TEXT}                       what is measured next
  {"values": {NAME: NUMBER}}            of `report.resources.RESOURCES`
  {"not_measured": {NAME: SENTENCE}}
  {"like": [{NAME: NUMBER}, ...]}       of other rows, see `train`
  {"devices": TEXT}                     that jax has here
  {"error": SENTENCE}                   why nothing else can be measured
"""

import collections
import contextlib
import functools
import json
import math
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxinpaint import arrays, migrations, systems
from jaxinpaint import trained as trained_lib
from jaxinpaint.data import inputs, pipeline
from jaxinpaint.evaluation import classical
from jaxinpaint.layers import operations
from jaxinpaint.masks import spec as data_masks
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Constants, Inference, Plan, Recipe, Variables
from jaxinpaint.runtime import memory
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import preparation, sharding
from jaxinpaint.training.program import Program
from jaxinpaint.training.run import step_key

HOLE = 0.25  # share of the image that the hole, a centre square, covers
_WARM_UP = 2
_BATCH_REPEATS = 5  # calls at batches above 1

Say = Callable[[str, Any], None]  # (key of a line, its value)
# A path, or the fields of an experiment's config, whose networks get random weights.
Row = str | Mapping[str, Any]


def main(job: str) -> int:
  """Does a job, see the module; returns 0, or 1 after an 'error' line."""
  arguments = json.loads(job)
  measure, to = JOBS[arguments.pop('what')], arguments.pop('to')

  def say(key: str, value: Any) -> None:
    with open(to, 'a', encoding='utf-8') as f:
      f.write(json.dumps({key: value}) + '\n')

  try:
    measure(**arguments, say=say)
  except (ValueError, OSError) as error:
    say('error', str(error))
    return 1
  return 0


def check(rows: Sequence[str], say: Say) -> None:
  """Loads every run and weights file, and says before each of them which comes now."""
  for path in rows:
    say('stage', path)
    trained_lib.load(path)


def devices(say: Say) -> None:
  """Says which devices a process here measures on."""
  found = jax.devices()
  say('devices', f'{len(found)} x {found[0].device_kind}')


def predict(row: Row, size: int, max_batch: int, repeats: int, say: Say) -> None:
  """Measures what `predict` costs on one device.

  Args:
    row: a run or a weights file, or the fields of an experiment's config.
    size: side of the images.
    max_batch: the largest batch tried; 0: 8 on a CPU, 64 on other devices.
    repeats: timed calls at batch 1.
    say: is called with each result.
  """
  say('stage', 'loading')
  inference, *weights = _loaded(row)
  device = jax.local_devices()[0]
  predictor = Predictor(inference, *weights, devices=[device])
  say('values', {'parameters': count(weights[0].params), 'size': size})
  max_batch = max_batch or (8 if device.platform == 'cpu' else 64)

  say('stage', 'batch 1')
  image, mask = pictures(1, size)
  say('values', {'gflops': gflops(inference, weights, size)})
  with without_cache():
    begun = time.perf_counter()
    compiled = predictor.lower(image, mask).compile()
    say('values', {'compile_seconds': time.perf_counter() - begun})
  costs = compiled.cost_analysis() or {}
  costs = costs[0] if isinstance(costs, list) else costs
  if 'flops' in costs:
    say('values', {'compiled_gflops': float(costs['flops']) / 1e9})
  best = {1: _seconds(lambda: predictor(image, mask, np.arange(1)), repeats)}
  say('values', {'seconds_per_image': best[1], 'host_gb': memory.host_peak_gb()})
  say('values', _device_memory(device, compiled))
  say('values', {'best_batch': 1, 'seconds_per_image_best_batch': best[1], 'largest_batch': 1})

  n = 2
  while n <= max_batch:
    say('stage', f'batch {n}')
    batch = (*pictures(n, size), np.arange(n))
    try:
      compiled = predictor.lower(*batch[:2]).compile()
      if planned_bytes(compiled) > free_bytes(device):
        raise MemoryError
      best[n] = _seconds(functools.partial(predictor, *batch), _BATCH_REPEATS) / n
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      say('not_measured', {'best_batch': f'batches of {n} and more do not fit into memory'})
      break
    fastest = min(best, key=best.get)
    values = {'best_batch': fastest, 'seconds_per_image_best_batch': best[fastest]}
    say('values', values | {'largest_batch': n})
    n *= 2


def fill(name: str, size: int, repeats: int, say: Say) -> None:
  """Measures what a classical fill costs."""
  say('stage', 'batch 1')
  (function,) = classical.get([name]).values()
  image, mask = pictures(1, size)
  ids = np.zeros(1, np.int32)
  seconds = _seconds(lambda: function(image, mask, ids), repeats)
  say('values', {'size': size, 'seconds_per_image': seconds, 'host_gb': memory.host_peak_gb()})


def _loaded(row: Row) -> tuple[Inference, Variables, Constants]:
  """What inference needs; random weights of an experiment, of its frozen networks too."""
  if not isinstance(row, Mapping):
    trained = trained_lib.load(row)
    return trained.inference, trained.variables, trained.constants
  inference = systems.inference(migrations.migrate(row, systems.default_config))
  return inference, inference.random(), random_weights(inference.load_constants(shapes_only=True))


def train(
  row: Row, batch_size: int, size: int, steps: int, say: Say, like: Sequence[Mapping[str, Any]] = ()
) -> None:
  """Measures what a step of the run's own training costs, on all devices of this process.

  Args:
    row: a run, or the fields of an experiment's config.
    batch_size: of the step; 0: the run's.
    size: of the images; 0: the run's.
    steps: timed steps of each distinct plan, after one that is not counted.
    say: is called with each result.
    like: of an experiment: the fields of others whose steps are the same and whose schedules are
      not. Their hours are said in this order.
  """
  if isinstance(row, Mapping):
    _train_experiments([row, *like], batch_size, size, steps, say)
    return
  say('stage', 'preparing the run')
  config = run_config(row)
  own_batch = config.data.batch_size
  with tempfile.TemporaryDirectory() as workdir:
    run = preparation.prepare(_alone(config, row, batch_size, size), pathlib.Path(workdir))
    try:
      values = dict(train_batch=run.config.data.batch_size, train_size=run.config.data.size)
      say('values', values | {'train_steps': run.total})
      batch = sharding.to_devices(next(run.batches), run.mesh)
      arguments = (run.state, run.constants, batch, run.rng)
      times = plans(run.recipe, run.total)
      seconds = plan_seconds(run.recipe, run.train_step, arguments, times, steps, say)
      batches = own_batch / run.config.data.batch_size
      say('values', _hours(times, seconds, batches) | {'train_host_gb': memory.host_peak_gb()})
    finally:
      run.batches.close()
      run.checkpoints.close()


def _train_experiments(
  rows: Sequence[Mapping[str, Any]], batch_size: int, size: int, steps: int, say: Say
) -> None:
  """`train` of configs that have not run: random weights, random pictures."""
  say('stage', 'preparing the experiment')
  schedules = []
  for fields in reversed(rows):  # the first row's config and program are left
    config = migrations.migrate(fields, config_lib.base).unlock()
    batches = config.data.batch_size / (batch_size or config.data.batch_size)
    config.data.batch_size = batch_size or config.data.batch_size
    config.data.size = size or config.data.size
    program = Program.of(config, sharding.make_mesh(**config.training.mesh))
    total = preparation.total_steps(config, program.recipe)
    schedules.insert(0, (plans(program.recipe, total), batches))
  say('values', dict(train_batch=config.data.batch_size, train_size=config.data.size))
  wanted = dict.fromkeys(plan for times, _ in schedules for plan in times)
  seconds = probe_seconds(config, program, wanted, steps, say)
  first, *others = (_hours(times, seconds, batches) for times, batches in schedules)
  say('like', others)
  say('values', first | {'train_host_gb': memory.host_peak_gb()})


def probe_seconds(
  config: ConfigDict, program: Program, wanted: Iterable[Plan], steps: int, say: Say
) -> dict[Plan, float]:
  """`plan_seconds` with random weights on random pictures.

  Args:
    config: of the program.
    program: its devices are here.
    wanted: the plans to time.
    steps: how many steps of each plan are timed, after one that is not.
    say: is called with each result.
  """
  state = program.random_state(config.seed)
  batch = sharding.to_devices(random_rows(config, program), program.mesh)
  arguments = state, random_weights(program.constants), batch, step_key(config, program.mesh, 0)
  return plan_seconds(program.recipe, program.train_step, arguments, wanted, steps, say)


def weighted_seconds(times: Mapping[Plan, int], seconds: Mapping[Plan, float]) -> float:
  """The seconds of a whole training: {plan: its steps} by {plan: seconds of one}."""
  return sum(n * seconds[plan] for plan, n in times.items())


def _hours(
  times: Mapping[Plan, int], seconds: Mapping[Plan, float], batches: float
) -> dict[str, float]:
  """What a training takes.

  Args:
    times: {plan: its steps}.
    seconds: of a step of each plan.
    batches: how many measured batches are one of the training: it can be too large to measure.
  """
  total, whole = sum(times.values()), weighted_seconds(times, seconds)
  return {
    'train_steps': total,
    'train_seconds_per_step': whole / total,
    'train_hours': batches * whole / 3600,
  }


def run_config(row: str) -> ConfigDict:
  """The config of a run, with today's fields.

  Raises:
    ValueError: a weights file, which does not say how it was trained; or a config that cannot be
      brought to today's fields.
  """
  folder = pathlib.Path(row).expanduser()
  if not folder.exists():
    folder = pathlib.Path(row.rpartition('@')[0]).expanduser()
  file = folder / 'config.json'
  if not file.is_file():
    raise ValueError(
      f'{row} is no run with a config.json, so its batch, optimizers and steps are not known: '
      'give the --workdir of a run to measure training'
    )
  stored = json.loads(file.read_text(encoding='utf-8'))
  return migrations.migrate(stored, config_lib.base)


def plans(recipe: Recipe, total: int) -> dict[Plan, int]:
  """{plan: how many of the `total` steps have this plan}."""
  counts: collections.Counter[Plan] = collections.Counter()
  start = 0
  for phase in recipe.phases:
    length = total - start if phase.steps < 0 else min(phase.steps, total - start)
    cycle = math.lcm(*(u.every for u in phase.updates))
    for k in range(min(cycle, length)):
      counts[recipe.plan(start + k)] += len(range(k, length, cycle))
    start += length
  return dict(counts)


def count(params: Mapping[str, Any]) -> int:
  """The number of elements in all arrays of a tree."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))


def gflops(inference: Inference, weights: tuple[Variables, Constants], size: int) -> float:
  """GFLOPs of one output for an image of this side: see `layers.operations.useful_flops`.

  Args:
    inference: of the system.
    weights: arrays or their shapes.
    size: before padding.
  """
  sides = inference.seen_size(size, size)
  shape = lambda dims: jax.ShapeDtypeStruct(dims, np.float32)
  image, mask = shape((1, *sides, 3)), shape((1, *sides, 1))
  extra = {name: shape(dims) for name, dims in inputs.shapes(inference.inputs, (1, *sides)).items()}
  run = lambda weights, image, mask, extra: inference.output(
    *weights, image, mask, jax.random.key(0), **extra
  )
  return operations.useful_flops(run, weights, image, mask, extra) / 1e9


def pictures(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
  """(image f32[n,S,S,3] with an empty hole, mask f32[n,S,S,1]): photographs of the sample."""
  photographs = pipeline.evaluation_set('sample', 'test', size=size)
  image = arrays.to_float(np.stack([photographs[i % len(photographs)][0] for i in range(n)]))
  square = data_masks.make(f'center:{HOLE}')(np.random.default_rng(0), size, size)
  mask = np.repeat(square.astype(np.float32)[None, ..., None], n, axis=0)
  return np.where(mask > 0, np.float32(0), image), mask


def _seconds(call: Callable[[], Any], repeats: int) -> float:
  """The median time of `repeats` calls; each call is complete before the next."""
  for _ in range(_WARM_UP):
    call()
  times = []
  for _ in range(repeats):
    begun = time.perf_counter()
    call()
    times.append(time.perf_counter() - begun)
  return statistics.median(times)


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
  """Turns the compilation cache off; jax only reads this setting after the cache is reset."""
  from jax.experimental.compilation_cache import compilation_cache

  before = jax.config.jax_enable_compilation_cache
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()
  try:
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    compilation_cache.reset_cache()


def planned_bytes(compiled: Any) -> int:
  """That a compiled program needs at once, as its compiler says; 0 where it does not."""
  sizes = compiled.memory_analysis()
  if sizes is None:
    return 0
  return int(
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    + sizes.temp_size_in_bytes
    - sizes.alias_size_in_bytes
  )


def _device_memory(device: Any, compiled: Any, prefix: str = '') -> dict[str, float]:
  """The measured peak, if the backend counts it, and the memory that the compiled program needs."""
  gigabytes = {}
  stats = device.memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    gigabytes[f'{prefix}device_gb'] = stats['peak_bytes_in_use'] / memory.GB
  if compiled.memory_analysis() is not None:
    gigabytes[f'{prefix}planned_gb'] = planned_bytes(compiled) / memory.GB
  return gigabytes


def free_bytes(device: Any) -> float:
  """The memory that a program can still use; infinite if the system does not say."""
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  try:
    text = pathlib.Path('/proc/meminfo').read_text(encoding='ascii')
    kib = next(int(x.split()[1]) for x in text.splitlines() if x.startswith('MemAvailable:'))
    return kib * 1024
  except (OSError, StopIteration):
    return math.inf


def _alone(config: ConfigDict, row: str, batch_size: int, size: int) -> ConfigDict:
  """The run's config without evaluations, on the embedded sample: its data need not be here."""
  config = config.copy_and_resolve_references().unlock()
  config.data.update(dict(source='sample', split='train', eval_source='', eval_split='test'))
  config.data.workers = 0
  config.data.batch_size = batch_size or config.data.batch_size
  config.data.size = size or config.data.size
  config.training.update(dict(sample_every=0, evaluate_every=0))
  config.evaluation.at_end = False
  if config.init_from or systems.make_recipe(config).pretrained:
    config.init_from = row.rpartition('@')[0] if not pathlib.Path(row).exists() else row
  return config


def plan_seconds(
  recipe: Recipe,
  train_step: Callable,
  arguments: Sequence[Any],
  wanted: Iterable[Plan],
  steps: int,
  say: Say,
) -> dict[Plan, float]:
  """The median seconds of a step of each plan.

  Args:
    recipe: names the phases.
    train_step: of `training.step.make_train_step`.
    arguments: of its first step: (state, constants, batch, rng); the state is donated.
    wanted: the plans to time.
    steps: timed steps of each of them, after one that is not counted.
    say: is called with each result.
  """
  state, *others = arguments
  seconds = {}
  for plan in wanted:
    phase = recipe.phases[plan.phase].name
    say('stage', f'a training step of phase {phase!r} ({", ".join(plan.updates) or "no update"})')
    compiled = train_step.lower(state, *others, plan).compile()
    taken = []
    for _ in range(steps + 1):
      begun = time.perf_counter()
      state, metrics = jax.block_until_ready(compiled(state, *others))
      taken.append(time.perf_counter() - begun)
    del metrics
    seconds[plan] = statistics.median(taken[1:])
    say('values', _device_memory(jax.local_devices()[0], compiled, 'train_'))
  return seconds


def random_weights(tree: Any) -> Any:
  """Random weights for the shapes of frozen networks, so small that nothing overflows."""
  rng = np.random.default_rng(0)

  def make(s: jax.ShapeDtypeStruct) -> jax.Array:
    fan_in = max(math.prod(s.shape[:-1]), 1)
    host = rng.standard_normal(s.shape, np.float32) * math.sqrt(2 / fan_in)
    if s.sharding is None:
      return jax.device_put(np.abs(host).astype(s.dtype))
    return jax.make_array_from_callback(
      s.shape, s.sharding, lambda index: np.abs(host[index]).astype(s.dtype)
    )

  return jax.tree.map(make, tree)


def random_rows(config: ConfigDict, program: Program) -> dict[str, np.ndarray]:
  """This process's rows of a batch of random pictures, with a hole of a sixteenth."""
  rng = np.random.default_rng(jax.process_index())
  rows = len(sharding.local_rows(config.data.batch_size, program.mesh))
  batch = {}
  for name, s in program.batch.items():
    shape = (rows, *s.shape[1:])
    if name == 'mask':
      batch[name] = np.zeros(shape, s.dtype)
      side = s.shape[1]
      batch[name][:, side // 4 : side // 2, side // 4 : side // 2] = 1
    elif np.issubdtype(s.dtype, np.floating):
      batch[name] = rng.random(shape, np.float32).astype(s.dtype)
    else:
      batch[name] = rng.integers(0, 256, shape).astype(s.dtype)
  return batch


JOBS = {'check': check, 'devices': devices, 'predict': predict, 'train': train, 'fill': fill}

if __name__ == '__main__':
  sys.exit(main(sys.argv[1]))
