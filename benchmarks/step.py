"""A system's forward pass, forward and backward pass, and whole train step.

  python -m benchmarks.step --system misf --size 256 --batch 1 [--what forward,grad,step]
      [--dtype bfloat16] [--json OUT]

'forward' is what fills a hole, 'grad' the gradient of its L1 loss with respect to all parameters
that it reads, with norms as in inference. 'step' is the loop's own step, the first of the last
phase: all losses, all optimizers; VGG's weights are random unless --vgg_file names some. The share
of peak is useful work (twice the multiply-adds of the convolutions and matrix products that are
asked for; 'grad' counts three times the forward pass, the usual convention; 'step' counts the
discriminator and the frozen networks, too) by time by the matmul rate measured in the same run.
"""

import json
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import measure, workloads
from jaxinpaint import systems

SYSTEM = flags.DEFINE_list('system', ['misf', 'mesff'], "Systems; 'all'.")
SIZE = flags.DEFINE_integer('size', 256, 'Side of the images.')
BATCH = flags.DEFINE_integer('batch', 1, 'Images at once.')
DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.')
WHAT = flags.DEFINE_list('what', ['forward', 'grad', 'step'], 'Of forward, grad, step.')
WIDTH = flags.DEFINE_integer('width', 0, 'Of the generator; 0: as published.')
VGG_FILE = flags.DEFINE_string('vgg_file', None, 'VGG weights, for the perceptual and style terms.')
REPEATS = flags.DEFINE_integer('repeats', 4, 'Calls; the fastest counts.')
JSON = flags.DEFINE_string('json', None, 'Also write the rows here.')


def measure_system(system: str) -> Iterator[tuple[str, int, measure.Measured]]:
  """(what, side of its images, its measurement) of each that --what names."""
  config = workloads.config_of(
    system, dtype=DTYPE.value, size=SIZE.value, batch=BATCH.value, width=WIDTH.value
  )
  if VGG_FILE.value:
    config.loss.vgg_file = VGG_FILE.value
  workload = workloads.Workload(config, frozen=bool(VGG_FILE.value))
  for what in workloads.WHATS:
    if what in WHAT.value:
      yield what, config.data.size, measure.measure_task(workload.task(what), repeats=REPEATS.value)


def main(argv):
  del argv
  peaks = [measure.matmul_peak(jnp.dtype(DTYPE.value))]
  print(
    f'{measure.hardware()}, jax {jax.__version__}, {DTYPE.value}, {SIZE.value} px, '
    f'batch {BATCH.value}, matmul {peaks[0] / 1e9:.0f} GFLOP/s'
  )
  rows = []

  def show(system, what, size, m):
    # A shared machine's clock wanders: the peak is taken again beside each measurement, and the
    # faster of the two readings around it counts.
    peaks.append(measure.matmul_peak(jnp.dtype(DTYPE.value)))
    peak = max(peaks[-2:])
    row = dict(
      system=system, what=what, size=size, seconds=m.seconds, img_per_s=BATCH.value / m.seconds
    )
    row |= dict(compile_seconds=m.compile_seconds, temporary_mib=m.temporary_mib)
    row |= dict(xla_flops=m.flops, useful_flops=m.useful)
    row |= dict(share_of_peak=m.useful / m.seconds / peak)
    row |= dict(matmul_flops=peak, peak_memory_mib=measure.peak_memory_mib())
    rows.append(row)
    print(
      f'{system:8s} {what:8s} {1e3 * m.seconds:9.1f} ms {row["img_per_s"]:8.2f} img/s of {size} px',
      f'useful {m.useful / 1e9:.1f} GFLOP, XLA counts {m.flops / 1e9:.1f}',
      f'{row["share_of_peak"]:.1%} of {peak / 1e9:.0f} GFLOP/s',
      f'compiled in {m.compile_seconds:.1f} s, temp {m.temporary_mib:.0f} MiB',
      f'peak memory {row["peak_memory_mib"]:.0f} MiB',
      sep='; ',
      flush=True,
    )

  for system in systems.list_systems() if SYSTEM.value == ['all'] else SYSTEM.value:
    for what, size, measured in measure_system(system):
      show(system, what, size, measured)
  if JSON.value:
    pathlib.Path(JSON.value).write_text(json.dumps(rows, indent=2))


if __name__ == '__main__':
  app.run(main)
