"""Names of what a row costs: their units, and how `cost.resources` measures each."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Resource:
  """One number of a row.

  Attributes:
    name: its key.
    label: in tables.
    unit: of the number; '' for counts.
    method: how it is measured.
    published: its name in published.csv; '' if papers do not print it.
  """

  name: str
  label: str
  unit: str
  method: str
  published: str = ''


_PEAK = 'largest resident size of a process that measures nothing else'
_PLANNED = 'arguments, results and temporary arrays of the compiled program, by its own analysis'

RESOURCES: tuple[Resource, ...] = (
  Resource('size', 'size', 'pixels', 'side of the square images'),
  Resource('parameters', 'parameters', '', 'of the networks that fill a hole'),
  Resource(
    'gflops',
    'GFLOPs',
    'GFLOP per image',
    'convolutions and matrix products of one image, a multiply-add counted as two',
  ),
  Resource(
    'compiled_gflops',
    'compiled GFLOPs',
    'GFLOP per image',
    "all operations of the compiled program for one image, by the compiler's own count",
  ),
  Resource(
    'compile_seconds',
    'compile',
    's',
    'tracing and compiling for one image, the compilation cache switched off',
  ),
  Resource(
    'seconds_per_image',
    'seconds per image',
    's',
    'one image at a time, from arrays of the host to an array of the host, edges and other inputs '
    'included; median of the timed calls after two that are not counted; one device',
    'test_seconds_per_image',
  ),
  Resource('best_batch', 'best batch', 'images', 'the power of two with the least time per image'),
  Resource(
    'seconds_per_image_best_batch',
    'seconds per image, best batch',
    's',
    'likewise, of a whole batch divided by its images; median of five calls',
  ),
  Resource('largest_batch', 'largest batch tried', 'images', 'batches are doubled up to it'),
  Resource('host_gb', 'host memory', 'GB', f'{_PEAK}: loading, compiling, batch 1', 'memory_GB'),
  Resource('device_gb', 'device memory', 'GB', "the device's own peak, batch 1", 'gpu_memory_GB'),
  Resource('planned_gb', 'device memory, planned', 'GB', f'{_PLANNED}, batch 1; not measured'),
  Resource('train_batch', 'training batch', 'images', 'over all devices'),
  Resource('train_size', 'training size', 'pixels', 'side of the square images'),
  Resource(
    'train_seconds_per_step',
    'seconds per training step',
    's',
    "the run's own step without reading images; median of the timed steps of each kind after one "
    'that is not counted, weighted by how often the schedule takes it',
  ),
  Resource('train_steps', 'training steps', '', 'of the whole schedule'),
  Resource(
    'train_hours',
    'training hours, extrapolated',
    'h',
    'steps x seconds per step, times the batches of the measured size that make one of the '
    "training's: not measured as a whole",
    'train_hours',
  ),
  Resource('train_host_gb', 'host memory in training', 'GB', _PEAK),
  Resource('train_device_gb', 'device memory in training', 'GB', "the device's own peak"),
  Resource('train_planned_gb', 'device memory in training, planned', 'GB', _PLANNED),
)


def shown(name: str, value: float) -> str:
  """A number of RESOURCES for tables: counts as whole numbers, others with three digits."""
  if name == 'parameters':
    return f'{value / 1e6:.2f} M'
  unit = next(r.unit for r in RESOURCES if r.name == name)
  if unit in ('', 'pixels', 'images') or value == 0 or abs(value) >= 100:
    return f'{value:,.0f}'
  return f'{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}'
