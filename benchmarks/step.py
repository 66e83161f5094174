"""A system's forward pass, forward and backward pass, and whole train step.

  python -m benchmarks.step --system misf --size 256 --batch 1 [--what forward,grad,step]
      [--dtype bfloat16] [--json OUT]

'forward' is what fills a hole, 'grad' the gradient of its L1 loss with respect to all parameters
that it reads, with norms as in inference. 'step' is the loop's own first step: all losses, all
optimizers; VGG's weights are random unless --vgg_file names some. The share of peak is useful work
(twice the multiply-adds of the convolutions and matrix products of the forward pass; three times
that with the backward pass, the usual convention) by time by the matmul rate measured in the same
run.
"""

import json
import math
import pathlib
import time

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import measure
from jaxinpaint import systems
from jaxinpaint.cost import costs
from jaxinpaint.data import inputs
from jaxinpaint.recipe import Variables
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, state, step

SYSTEM = flags.DEFINE_list('system', ['misf', 'mesff'], "Systems; 'all'.")
SIZE = flags.DEFINE_integer('size', 256, 'Side of the images.')
BATCH = flags.DEFINE_integer('batch', 1, 'Images at once.')
DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.')
WHAT = flags.DEFINE_list('what', ['forward', 'grad', 'step'], 'Of forward, grad, step.')
WIDTH = flags.DEFINE_integer('width', 0, 'Of the generator; 0: as published.')
VGG_FILE = flags.DEFINE_string('vgg_file', None, 'VGG weights, for the perceptual and style terms.')
REPEATS = flags.DEFINE_integer('repeats', 4, 'Calls; the fastest counts.')
JSON = flags.DEFINE_string('json', None, 'Also write the rows here.')


def make(system):
  config = config_lib.base(system)
  config.dtype = DTYPE.value
  if WIDTH.value:
    config.model.width = WIDTH.value
  if VGG_FILE.value:
    config.loss.vgg_file = VGG_FILE.value
  recipe = systems.make_recipe(config)
  keys = jax.random.split(jax.random.key(0), 2)
  shape = (BATCH.value, SIZE.value, SIZE.value)
  batch = {
    'image': jax.random.uniform(keys[0], (*shape, 3)),
    'mask': (jax.random.uniform(keys[1], (*shape, 1)) < 0.3).astype(jnp.float32),
    'id': jnp.arange(BATCH.value, dtype=jnp.int32),
  }
  extra = inputs.shapes(recipe.inference.inputs, shape)
  return recipe, batch | {name: jnp.zeros(size) for name, size in extra.items()}


def whole_step(recipe, batch, constants):
  """(seconds of a step, seconds to compile it, temporary MiB, XLA's FLOPs)."""
  txs = {name: optimizers.make_optimizer('adam', 1e-4, b1=0.0) for name in recipe.optimizers}
  current = state.create(recipe, txs, (), jax.random.key(0), batch)
  run = step.make_train_step(recipe, txs)
  plan, key = recipe.plan(0), jax.random.key(1)
  begun = time.perf_counter()
  compiled = run.lower(current, constants, batch, key, plan).compile()
  compile_seconds = time.perf_counter() - begun
  best = math.inf
  for _ in range(REPEATS.value + 1):
    begun = time.perf_counter()
    current, metrics = compiled(current, constants, batch, key)
    jax.block_until_ready(metrics)
    best = min(best, time.perf_counter() - begun)
  costs = compiled.cost_analysis() or {}
  costs = costs[0] if isinstance(costs, list) else costs
  memory = compiled.memory_analysis()
  temporary = memory.temp_size_in_bytes / 2**20 if memory is not None else math.nan
  return best, compile_seconds, temporary, float(costs.get('flops', math.nan))


def measure_system(system):
  """Yields (what, seconds, compile seconds, temporary MiB, XLA's FLOPs, useful FLOPs)."""
  recipe, batch = make(system)
  inference = recipe.inference
  params, stats = jax.jit(recipe.init)(jax.random.key(0), batch)
  params = {name: params[name] for name in inference.networks}
  constants = costs.random_weights(inference.load_constants(shapes_only=True))

  def run(params, batch):
    extra = {name: x for name, x in batch.items() if name not in ('image', 'mask', 'id')}
    variables, seen = Variables(params, stats), (batch['image'], batch['mask'])
    return inference.output(variables, constants, *seen, jax.random.key(0), **extra)

  def loss(params, batch):
    return jnp.abs(run(params, batch) - batch['image']).mean()

  useful = measure.useful_flops(run, params, batch)
  for what, function, work in (('forward', run, useful), ('grad', jax.grad(loss), 3 * useful)):
    if what in WHAT.value:
      m = measure.measure(function, params, batch, repeats=REPEATS.value)
      yield what, m.seconds, m.compile_seconds, m.temporary_mib, m.flops, work
  if 'step' in WHAT.value:
    random = lambda: costs.random_weights(recipe.load_constants(shapes_only=True))
    frozen = recipe.load_constants() if VGG_FILE.value else random()
    yield 'step', *whole_step(recipe, batch, frozen), 3 * useful


def main(argv):
  del argv
  peaks = [measure.matmul_peak(jnp.dtype(DTYPE.value))]
  print(
    f'{measure.hardware()}, jax {jax.__version__}, {DTYPE.value}, {SIZE.value} px, '
    f'batch {BATCH.value}, matmul {peaks[0] / 1e9:.0f} GFLOP/s'
  )
  rows = []

  def show(system, what, seconds, compile_seconds, temporary, flops, useful):
    # A shared machine's clock wanders: the peak is taken again beside each measurement, and the
    # faster of the two readings around it counts.
    peaks.append(measure.matmul_peak(jnp.dtype(DTYPE.value)))
    peak = max(peaks[-2:])
    row = dict(system=system, what=what, seconds=seconds, img_per_s=BATCH.value / seconds)
    row |= dict(compile_seconds=compile_seconds, temporary_mib=temporary, xla_flops=flops)
    row |= dict(useful_flops=useful, share_of_peak=useful / seconds / peak)
    row |= dict(matmul_flops=peak, peak_memory_mib=measure.peak_memory_mib())
    rows.append(row)
    print(
      f'{system:8s} {what:8s} {1e3 * seconds:9.1f} ms {row["img_per_s"]:8.2f} img/s',
      f'useful {useful / 1e9:.1f} GFLOP, XLA counts {flops / 1e9:.1f}',
      f'{row["share_of_peak"]:.1%} of {peak / 1e9:.0f} GFLOP/s',
      f'compiled in {compile_seconds:.1f} s, temp {temporary:.0f} MiB',
      f'peak memory {row["peak_memory_mib"]:.0f} MiB',
      sep='; ',
      flush=True,
    )

  for system in systems.list_systems() if SYSTEM.value == ['all'] else SYSTEM.value:
    for found in measure_system(system):
      show(system, *found)
  if 'step' in WHAT.value:
    print(
      "step: useful work is the generator's alone; discriminator, VGG and optimizers come on top"
    )
  if JSON.value:
    pathlib.Path(JSON.value).write_text(json.dumps(rows, indent=2))


if __name__ == '__main__':
  app.run(main)
