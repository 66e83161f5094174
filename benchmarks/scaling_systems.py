"""Every system over many chips: compute, exchange and images from the hosts, by plain arithmetic.

  python -m benchmarks.scaling_systems            docs/scaling.json -> the table in docs/scaling.md
  python -m benchmarks.scaling_systems --plot     also docs/scaling.svg (pip install -e '.[bench]')
  python -m benchmarks.scaling_systems --measure [--systems misf,lfr]       counts the work first
  python -m benchmarks.scaling_systems --input FILE    takes rates of benchmarks.input --json FILE

`mean_step` is the arithmetic: the mean step of a system's schedule for a `Setting`. Nothing is run:
the share of its peak that a chip reaches is an assumption. docs/scaling.json holds what is counted
(`scaling_counts`).
"""

import argparse
import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from benchmarks import pages, scaling, scaling_counts
from jaxinpaint import systems as systems_lib
from jaxinpaint.runtime import chips as chips_lib

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
_MARK = 'systems over chips: made by python -m benchmarks.scaling_systems'
_OPTIMIZER_BYTES = 28  # of a parameter: it, two moments and its gradient are read, three written
_CHIPS_OF_A_HOST = 4
_CHIPS = (8, 64, 256)
_GOAL = 0.8


@dataclasses.dataclass(frozen=True)
class Step:
  """One kind of step.

  Attributes:
    phase: its name.
    updates: their names.
    part: of the schedule's steps that are of this kind.
    flops: useful ones, of all updates, for each image.
    trained: {network: parameters}.
    repeats: {network: how often its optimizer steps}.
    summands: {network: how often its gradient is summed over the devices, each time}.
  """

  phase: str
  updates: tuple[str, ...]
  part: float
  flops: float
  trained: Mapping[str, int]
  repeats: Mapping[str, int]
  summands: Mapping[str, int]

  @property
  def parameters(self) -> int:
    """That optimizers change."""
    return sum(n * self.repeats[name] for name, n in self.trained.items())

  @property
  def numbers(self) -> int:
    """That a device hands to the all-reduce."""
    return sum(n * self.repeats[name] * self.summands[name] for name, n in self.trained.items())


@dataclasses.dataclass(frozen=True)
class System:
  """A system's schedule.

  Attributes:
    name: of the system.
    config: whose numbers these are.
    side: of the images.
    batch: the config's.
    steps: kinds of steps; their parts sum up to 1.
  """

  name: str
  config: str
  side: int
  batch: int
  steps: tuple[Step, ...]

  def mean(self, what: str) -> float:
    """Of an attribute of the steps, over the schedule."""
    return sum(step.part * getattr(step, what) for step in self.steps)


@dataclasses.dataclass(frozen=True)
class Setting:
  """Where a system is trained.

  Attributes:
    chip: of the table.
    chips: how many.
    per_chip: images on each chip; with `spatial` on each group of chips.
    dtype: of the computation.
    share: of the peak that a chip reaches.
    fsdp: chips that share one copy of the state.
    spatial: chips that share an image.
  """

  chip: chips_lib.Chip
  chips: int = 64
  per_chip: int = 1
  dtype: str = 'bfloat16'
  share: float = 0.4
  fsdp: int = 1
  spatial: int = 1


@dataclasses.dataclass(frozen=True)
class Times:
  """The mean step of a schedule.

  Attributes:
    compute: seconds of the networks, forward and backward.
    optimizer: seconds in which parameters, moments and gradients pass through the memory.
    exchange: seconds of the all-reduce.
    images: of all chips.
  """

  compute: float
  optimizer: float
  exchange: float
  images: int

  @property
  def seconds(self) -> float:
    """Nothing overlapped."""
    return self.compute + self.optimizer + self.exchange

  @property
  def efficiency(self) -> float:
    """The part of the step that is not exchange."""
    return 1 - self.exchange / self.seconds

  @property
  def rate(self) -> float:
    """Images a second."""
    return self.images / self.seconds


def mean_step(system: System, setting: Setting) -> Times:
  """The mean step of the schedule; a step has one exchange after the last gradient.

  The exchange of image rows at the borders of `spatial` is left out.

  Args:
    system: what is trained.
    setting: on what.
  """
  chip = setting.chip
  peak = setting.share * chip.flops(setting.dtype)
  images = setting.chips // setting.spatial * setting.per_chip
  return Times(
    compute=setting.per_chip * system.mean('flops') / setting.spatial / peak,
    optimizer=_OPTIMIZER_BYTES * system.mean('parameters') / setting.fsdp / chip.bandwidth,
    exchange=exchange_bytes(system, setting) / chip.interconnect,
    images=images,
  )


def exchange_bytes(system: System, setting: Setting) -> float:
  """That leave a chip in the mean step.

  By rings, 2 (n - 1) / n of the gradients. With `fsdp` they are reduced and scattered in the group,
  the parts are summed over the groups, and the float32 parameters are gathered once in the group.

  Args:
    system: what is trained.
    setting: on what.
  """
  gradients = scaling.ITEM[setting.dtype] * system.mean('numbers')
  shared, groups = setting.fsdp, setting.chips // setting.fsdp
  if shared == 1:
    return 2 * scaling.around(gradients, groups)
  parameters = 4 * system.mean('parameters')
  return scaling.around(gradients + parameters, shared) + 2 * scaling.around(
    gradients / shared, groups
  )


def least_images(system: System, setting: Setting, efficiency: float = _GOAL) -> int:
  """The fewest images on each chip with which a step has this efficiency.

  Args:
    system: what is trained.
    setting: on what; its `per_chip` is not read.
    efficiency: in [0, 1).
  """
  one = mean_step(system, dataclasses.replace(setting, per_chip=1))
  hidden = one.exchange * efficiency / (1 - efficiency)  # that compute and optimizer must take
  return max(1, math.ceil((hidden - one.optimizer) / one.compute - 1e-9))


def host_rate(times: Times, chips: int) -> float:
  """Images a second that each host must deliver.

  Args:
    times: of the step.
    chips: all.
  """
  return times.rate / max(1, chips // _CHIPS_OF_A_HOST)


def load(stored: Mapping[str, Any]) -> tuple[System, ...]:
  """The systems of docs/scaling.json."""
  read = lambda step: Step(**step | {'updates': tuple(step['updates'])})
  return tuple(
    System(name, **fields | {'steps': tuple(map(read, fields['steps']))})
    for name, fields in stored['systems'].items()
  )


def core_rate(stored: Mapping[str, Any], side: int) -> float:
  """Images a second of this side that one core delivers: of the nearest measured side above."""
  rates = {int(size): rate for size, rate in stored['images_per_core'].items()}
  return rates[min((s for s in rates if s >= side), default=max(rates))]


def settings(base: Setting) -> dict[str, Setting]:
  """{what is changed: the setting with this change} of what may move the limit."""
  change = lambda **fields: dataclasses.replace(base, **fields)
  return {
    '4 images': change(per_chip=4),
    'float32': change(dtype='float32'),
    'fsdp 8': change(fsdp=8),
    'spatial 4': change(spatial=4),
  }


def table(stored: Mapping[str, Any], chip: chips_lib.Chip) -> str:
  """The rows, in Markdown, those that need most images for the goal first.

  Args:
    stored: docs/scaling.json.
    chip: of the table.
  """
  base = Setting(chip)
  columns = ['config', 'px', 'batch', 'GFLOP', 'exchange', 'optimizer']
  columns += [f'step on {n}' for n in _CHIPS] + ['efficiency', *settings(base)]
  columns += [f'images for {_GOAL:.0%}', 'chips', 'img/s of a host', 'cores']
  lines = [f'| {" | ".join(columns)} |', f'|{"---|" * len(columns)}']
  for system in sorted(load(stored), key=lambda s: (-least_images(s, base), s.name)):
    lines.append(f'| {" | ".join(_cells(system, base, core_rate(stored, system.side)))} |')
  return ''.join(f'{line}\n' for line in lines)


def _cells(system: System, base: Setting, of_a_core: float) -> list[str]:
  at = {n: mean_step(system, dataclasses.replace(base, chips=n)) for n in _CHIPS}
  exchanged = scaling.ITEM[base.dtype] * system.mean('numbers')
  least, fed = least_images(system, base), host_rate(at[base.chips], base.chips)
  faster = lambda setting: f'{mean_step(system, setting).rate / at[base.chips].rate:.2f}'
  return [
    f'`{system.config}`',
    str(system.side),
    str(system.batch),
    f'{system.mean("flops") / 1e9:,.0f}',
    f'{exchanged / 1e6:,.0f} MB',
    f'{1e3 * at[base.chips].optimizer:.1f} ms',
    *(f'{1e3 * times.seconds:.1f} ms' for times in at.values()),
    f'{at[base.chips].efficiency:.0%}',
    *map(faster, settings(base).values()),
    str(least),
    str(max(1, system.batch // least)),  # a single chip exchanges nothing
    f'{fed:,.0f}',
    f'{fed / of_a_core:.1f}',
  ]


def page(text: str, stored: Mapping[str, Any]) -> str:
  """docs/scaling.md `text` with today's table in its place.

  Raises:
    ValueError: the marks around the table are gone.
  """
  made = '\n' + table(stored, chips_lib.CHIPS['TPU v5e']) + '\n'
  return pages.between(text, _MARK, made)


def plot(stored: Mapping[str, Any], chip: chips_lib.Chip, path: pathlib.Path) -> None:
  """Efficiency by images on a chip, and the cores that feed a host, as SVG.

  Args:
    stored: docs/scaling.json.
    chip: of the table.
    path: of the file.
  """
  import matplotlib

  matplotlib.use('svg')
  matplotlib.rcParams.update({'svg.hashsalt': 'scaling', 'svg.fonttype': 'none', 'font.size': 9})
  from matplotlib import pyplot

  base = Setting(chip)
  found = sorted(load(stored), key=lambda s: mean_step(s, base).efficiency)
  names = [s.name for s in found]
  figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 6), sharey=True, layout='constrained')
  for images, shade in zip((1, 2, 4, 8, 16), (0.0, 0.25, 0.45, 0.65, 0.8), strict=True):
    each = [mean_step(s, dataclasses.replace(base, per_chip=images)).efficiency for s in found]
    left.plot(each, names, 'o', color=str(shade), label=f'{images} on a chip')
  left.axvline(_GOAL, color='red', linewidth=0.8)
  left.set_xlabel(f'part of a step that is not exchange, {base.chips} x {chip.name}')
  left.legend(loc='upper left')
  cores = [host_rate(mean_step(s, base), base.chips) / core_rate(stored, s.side) for s in found]
  right.plot(cores, names, 'o', color='black')
  right.set_xlim(left=0)
  right.set_xlabel(f'cores that feed a host of {_CHIPS_OF_A_HOST} chips, 1 image on each')
  for axis in (left, right):
    axis.grid(alpha=0.3)
  figure.savefig(path, metadata={'Date': None})


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--measure', action='store_true')
  parser.add_argument('--systems', default='', help='comma-separated; default: all')
  parser.add_argument('--input', type=pathlib.Path, help='of benchmarks.input --json')
  parser.add_argument('--plot', action='store_true')
  given = parser.parse_args(argv)
  file = DOCS / 'scaling.json'
  stored = json.loads(file.read_text()) if file.exists() else {'images_per_core': {}, 'systems': {}}
  if given.input:
    stored['images_per_core'] = {
      row['size']: round(row['per_second_and_core'])
      for row in json.loads(given.input.read_text())
      if row['what'].startswith('whole pipeline, random_resized, plain') and ':' not in row['size']
    }
  if given.measure:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', scaling_counts.DEVICES)
    for system in given.systems.split(',') if given.systems else systems_lib.list_systems():
      stored['systems'][system] = scaling_counts.measure(system, (DOCS / 'scaling.md').read_text())
      print(system, json.dumps(stored['systems'][system]), flush=True)
      stored['systems'] = dict(sorted(stored['systems'].items()))
      file.write_text(json.dumps(stored, indent=2) + '\n')
  file.write_text(json.dumps(stored, indent=2) + '\n')
  if given.plot:
    plot(stored, chips_lib.CHIPS['TPU v5e'], DOCS / 'scaling.svg')
  text = (DOCS / 'scaling.md').read_text()
  (DOCS / 'scaling.md').write_text(page(text, stored))


if __name__ == '__main__':
  main()
