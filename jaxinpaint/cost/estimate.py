"""What a config needs, before a run starts: parameters, FLOPs, memory, exchange, time.

  jaxinpaint train --config places2_mesff --estimate
  jaxinpaint train --config places2_mesff --estimate --devices=8
  jaxinpaint train --config places2_mesff --estimate --devices=v5e:4x4
  jaxinpaint train --config places2_mesff --estimate --probe=20

The train step of every phase is compiled for the config's mesh and never run: for the devices of
this machine, for N CPU devices, or by the TPU compiler for a slice that need not be here. It reads
no data and no weights of frozen networks, and makes no workdir. Only `--probe` runs steps, on
pictures of random numbers.
"""

import contextlib
import dataclasses
import math
import os
import re
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxinpaint.cost import costs
from jaxinpaint.layers import operations
from jaxinpaint.runtime import chips, faults
from jaxinpaint.training import collectives as collectives_lib
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import preparation, sharding
from jaxinpaint.training.program import Program

GIB = 2**30
WIDTH = 98  # of the printed lines
# A step's time is predicted for these shares of a chip's peak; the real share is not known before.
SHARES = (0.2, 0.4)
_SLICE = re.compile(r'(v\d+\w*):(\d+(?:x\d+){1,2})')
# The TPU compiler's two messages for too little memory; the second counts only temporaries.
_NO_ROOM = re.compile(
  r'Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) hbm'
  r'|\(([\d.]+[KMGT]?)\) exceeds available HBM \(([\d.]+[KMGT]?)\)'
)
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


@dataclasses.dataclass(frozen=True)
class StepCost:
  """What the step of one plan needs; of one device, if not said otherwise.

  Attributes:
    phase: name of the phase.
    updates: names of the updates that run.
    steps: how many steps of the training have this plan.
    useful_flops: of all devices together, see `layers.operations.useful_flops`.
    flops: the compiler's count for its program; None if it has none.
    arguments: bytes of state, constants and batch.
    outputs: bytes of results that do not reuse the memory of arguments.
    temporaries: bytes.
    code: bytes of the program itself, if it is in the device's memory.
    room: (needed at least, available) bytes, as the compiler says if a program does not fit; else
      None, and the other sizes are known.
    collectives: of the program.
    compile_seconds: time of compilation on this machine.
  """

  phase: str
  updates: tuple[str, ...]
  steps: int
  useful_flops: float
  flops: float | None = None
  arguments: int = 0
  outputs: int = 0
  temporaries: int = 0
  code: int = 0
  room: tuple[float, float] | None = None
  collectives: tuple[collectives_lib.Collective, ...] = ()
  compile_seconds: float = 0.0

  @property
  def peak(self) -> float:
    """Bytes that the program needs at once."""
    if self.room:
      return self.room[0]
    return self.arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Estimate:
  """The estimate of a config on a mesh.

  Attributes:
    config: of the run.
    mesh: its devices.
    here: whether the devices are this machine's.
    networks: {name: parameters}.
    frozen: {name: numbers}.
    state: {part of the TrainState: (bytes in whole, bytes on one device)}.
    steps: one entry for each distinct plan, in order of training.
  """

  config: ConfigDict
  mesh: jax.sharding.Mesh
  here: bool
  networks: Mapping[str, int]
  frozen: Mapping[str, int]
  state: Mapping[str, tuple[int, int]]
  steps: tuple[StepCost, ...]


def run(config: ConfigDict, devices: str = '', probe: int = 0) -> None:
  """Prints the estimate of a config, as `--estimate` does.

  Args:
    config: see `training.config.base`.
    devices: '': of this machine; 'N': CPU devices; 'v5e:4x4': a TPU slice.
    probe: how many steps of each kind to run on the devices of this machine; 0: none.

  Raises:
    faults.ConfigurationError: a config that cannot run, or devices that do not exist.
  """
  try:
    config_lib.validate(config)
    with chosen(devices) as found:
      mesh = sharding.make_mesh(**config.training.mesh, devices=found)
      program = Program.of(config, mesh)
      speaks = jax.process_index() == 0
      if speaks:
        print(heading(config, program, here=not devices), flush=True)
      estimate = of(config, program, here=not devices)
      if speaks:
        print(text(estimate), flush=True)
      if probe:
        line = probed(config, program, probe, estimate)
        if speaks:
          print(line, flush=True)
  except (ValueError, OSError) as error:
    raise faults.ConfigurationError(str(error)) from error


@contextlib.contextmanager
def chosen(spec: str) -> Iterator[Sequence[Any]]:
  """The devices that `run` is asked for; to be called before this process uses any device.

  Args:
    spec: as `devices` of `run`.

  Raises:
    ValueError: it names no devices, or those of a compiler that is not installed.
  """
  if not spec:
    yield jax.devices()
  elif spec.isdigit() and int(spec):
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', int(spec))
    yield jax.devices()
  elif match := _SLICE.fullmatch(spec):
    jax.config.update('jax_platforms', 'cpu')
    yield tpu_slice(spec, tuple(int(n) for n in match[2].split('x')))
  else:
    raise ValueError(
      f'--devices={spec} must be a number of CPU devices (8) or a TPU slice (v5e:4x4, v5p:2x2x2, '
      'v6e:16x16)'
    )


def tpu_slice(name: str, sides: tuple[int, ...]) -> Sequence[Any]:
  """The devices of a TPU slice that need not be here; they can be compiled for, and nothing else.

  For v3 and v4 these are cores, two per chip; a run on v4 has one device per chip.

  Args:
    name: 'v5e:2x4', 'v5p:2x2x1'.
    sides: of the slice, in chips.

  Raises:
    ValueError: no TPU compiler is installed, or it knows no such slice.
  """
  # Without these, libtpu looks for a TPU machine and logs many lines when there is none. It shall
  # compile as one host, number 0, of the slice.
  family, count = name.partition(':')[0], math.prod(sides)
  kind = {'v5e': f'v5litepod-{count}', 'v6e': f'v6e-{count}'}
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', kind.get(family, f'{family}-{2 * count}'))
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_WORKER_ID', '0')
  os.environ.setdefault(
    'ALLOW_MULTIPLE_LIBTPU_LOAD', '1'
  )  # no chip is held: others may compile too
  from jax.experimental import topologies

  further = {'chips_per_host_bounds': (1, 1, 1)} if math.prod(sides) == 1 else {}
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=name, **further).devices
  except (RuntimeError, ValueError) as error:
    line = str(error).strip().splitlines()[0]
    if 'not installed' in line:
      raise ValueError(
        f'--devices={name} needs the TPU compiler, which runs without a TPU: '
        'pip install "jax[tpu]" (Linux)'
      ) from error
    raise ValueError(f'--devices={name}: the TPU compiler knows no such slice ({line})') from error


def of(config: ConfigDict, program: Program, *, here: bool = True) -> Estimate:
  """Compiles every distinct step of a program.

  Args:
    config: of the program.
    program: of `Program.of`.
    here: whether its devices are this machine's.
  """
  count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  parts = {f.name: getattr(program.state, f.name) for f in dataclasses.fields(program.state)}
  names = dict(params='parameters', stats='statistics', opt='optimizers', ema='averages')
  total = preparation.total_steps(config, program.recipe)
  steps = [
    _step_cost(program, plan, times) for plan, times in costs.plans(program.recipe, total).items()
  ]
  return Estimate(
    config=config,
    mesh=program.mesh,
    here=here,
    networks={n: count(program.state.params[n]) for n in program.state.params},
    frozen={n: count(tree) for n, tree in program.constants.items()},
    state={names[k]: _bytes(v) for k, v in parts.items() if k in names},
    steps=tuple(steps),
  )


def _bytes(tree: Any) -> tuple[int, int]:
  """Bytes of arrays with these shapes and shardings: (of the whole tree, on one device)."""
  whole = part = 0
  for x in jax.tree.leaves(tree):
    whole += math.prod(x.shape) * x.dtype.itemsize
    part += math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
  return whole, part


def _step_cost(program: Program, plan: Any, times: int) -> StepCost:
  step = program.train_step.__wrapped__  # a compiled function would remember the plain trace
  useful = operations.useful_flops(
    lambda *a: step(*a, plan), program.state, program.constants, program.batch, program.rng
  )
  phase = program.recipe.phases[plan.phase].name
  cost = StepCost(phase, plan.updates, times, useful)
  begun = time.monotonic()
  try:
    compiled = program.lower(plan).compile()
  except jax.errors.JaxRuntimeError as error:
    room = _NO_ROOM.search(str(error))
    if not room:
      raise
    taken = time.monotonic() - begun
    used, available = (_size(n) for n in room.groups() if n)
    return dataclasses.replace(cost, room=(used, available), compile_seconds=taken)
  taken = time.monotonic() - begun
  memory = compiled.memory_analysis()
  counts = compiled.cost_analysis() or {}
  sizes = {}
  if memory is not None:
    sizes = dict(
      arguments=memory.argument_size_in_bytes,
      outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
      temporaries=memory.temp_size_in_bytes,
      code=memory.generated_code_size_in_bytes,
    )
  return dataclasses.replace(
    cost,
    flops=counts.get('flops'),
    collectives=tuple(collectives_lib.collectives(compiled)),
    compile_seconds=taken,
    **sizes,
  )


def _size(number: str) -> float:
  """'31.20G' in bytes."""
  unit = number[-1] if number[-1] in _UNITS else ''
  return float(number.removesuffix(unit)) * _UNITS[unit]


def heading(config: ConfigDict, program: Program, *, here: bool) -> str:
  """What is estimated; printed before anything is compiled."""
  mesh, data = program.mesh, config.data
  axes = ' x '.join(f'{axis} {n}' for axis, n in mesh.shape.items() if n > 1) or 'one device'
  where = '' if here else ', compiled for, not run'
  total = preparation.total_steps(config, program.recipe)
  kinds = len(costs.plans(program.recipe, total))
  return '\n'.join(
    [
      f'{config.system}, {data.size} x {data.size} pixels, global batch {data.batch_size}, '
      f'{config.dtype}, {total:,} steps',
      f'mesh of {axes}: {mesh.size} x {mesh.devices.flat[0].device_kind}{where}',
      f'compiling {kinds} {"kind of step" if kinds == 1 else "kinds of steps"}',
    ]
  )


def text(estimate: Estimate) -> str:
  """The whole estimate for a terminal of 100 columns."""
  lines = ['']
  for name, n in estimate.networks.items():
    lines.append(f'{name:24}{n / 1e6:10.3f} M parameters')
  for name, n in estimate.frozen.items():
    lines.append(f'{name + " (frozen)":24}{n / 1e6:10.3f} M')
  whole, part = (sum(v[i] for v in estimate.state.values()) for i in (0, 1))
  named = ', '.join(f'{k} {v[0] / GIB:.3f}' for k, v in estimate.state.items() if v[0])
  lines.append(f'{"state":24}{whole / GIB:10.3f} GiB ({named})')
  if part != whole:
    lines.append(f'{"  on each device":24}{part / GIB:10.3f} GiB')
  for step in estimate.steps:
    lines += ['', *_step_lines(estimate, step)]
  if times := _predicted(estimate, sum(s.useful_flops * s.steps for s in estimate.steps)):
    hours = ', '.join(f'{s / 3600:,.1f} hours at {at:.0%}' for at, s in times)
    tera = _peak(estimate) / 1e12
    lines += ['', f'Whole training, PREDICTED: {hours} of the peak, {tera:,.0f} TFLOP/s a device']
  lines += ['', *_remarks(estimate)]
  return '\n'.join(lines)


def _step_lines(estimate: Estimate, step: StepCost) -> list[str]:
  updates = ', '.join(step.updates) or 'no update'
  share = step.steps / sum(s.steps for s in estimate.steps)
  mesh, batch = estimate.mesh, estimate.config.data.batch_size
  row = lambda name, value: f'  {name:22}{value}'
  lines = [
    f'Phase {step.phase!r} ({updates}): {step.steps:,} steps, {share:.1%}',
    row(
      'useful work',
      f'{step.useful_flops / 1e9:,.0f} GFLOP, {step.useful_flops / batch / 1e9:,.0f} an image, '
      f'{step.useful_flops / mesh.size / 1e9:,.0f} a device',
    ),
  ]
  if step.flops is not None:
    lines.append(row('compiled program', f'{step.flops / 1e9:,.0f} GFLOP a device'))
  if step.room is None:
    for name in ('arguments', 'outputs', 'temporaries', 'code'):
      if size := getattr(step, name):
        lines.append(row(name, f'{size / GIB:9.3f} GiB'))
    exchange = textwrap.wrap(collectives_lib.summary(list(step.collectives)), WIDTH - 24)
    lines += [row('' if i else 'exchange', line) for i, line in enumerate(exchange)]
  fits = verdict(estimate, step)
  peak = f'{step.peak / GIB:9.3f} GiB{" or more" if step.room else ""}'
  lines.append(row('memory of a device', f'{peak}{fits and ": "}{fits}'))
  if times := _predicted(estimate, step.useful_flops):
    lines.append(
      row('time, PREDICTED', ', '.join(f'{1e3 * s:,.1f} ms at {at:.0%}' for at, s in times))
    )
  lines.append(row('compiled in', f'{step.compile_seconds:.0f} s'))
  return lines


def verdict(estimate: Estimate, step: StepCost) -> str:
  """Whether a step fits, and else what to do; '' if the device's memory is not known."""
  device = estimate.mesh.devices.flat[0]
  if step.room:
    available = step.room[1]
  elif estimate.here and 'bytes_limit' in (stats := device.memory_stats() or {}):
    available = stats['bytes_limit']
  elif chip := chips.find(device.device_kind):
    available = chip.memory
  else:
    return ''
  if step.peak <= available:
    return f'fits into {available / GIB:.1f}'
  return f'DOES NOT FIT into {available / GIB:.1f}: lower data.batch_size, raise mesh.fsdp'


def _predicted(estimate: Estimate, flops: float) -> list[tuple[float, float]]:
  """[(share of the chip's peak, seconds for this much work on all devices at that share)]."""
  peak = _peak(estimate)
  return [(at, flops / estimate.mesh.size / (at * peak)) for at in SHARES] if peak else []


def _peak(estimate: Estimate) -> float | None:
  """FLOP/s of a device; None if it is not in the table of chips."""
  chip = chips.find(estimate.mesh.devices.flat[0].device_kind)
  return chip and chip.flops(estimate.config.dtype)


def _remarks(estimate: Estimate) -> list[str]:
  """What a reader must know about the numbers."""
  device = estimate.mesh.devices.flat[0]
  remarks = [
    'Useful work: twice the multiply-adds of convolutions and matrix products that a step asks '
    'for, backward passes included, of all devices. The rest is of one device.'
  ]
  if device.platform == 'cpu':
    remarks.append(
      "These are a CPU's programs: the temporaries of a TPU or a GPU are others. --devices=v5e:2x4 "
      'asks the compiler of TPUs.'
    )
  elif not estimate.here:
    remarks.append(
      f"Compiled by the {device.device_kind}'s own compiler, and not run: nothing here is measured."
    )
  if _peak(estimate):
    remarks.append(
      'PREDICTED: useful work by the share of the peak that a device reaches, which is assumed, '
      'without exchange and reading of data; --probe=20 measures the devices that are here.'
    )
  effort = getattr(jax.config, 'jax_exec_time_optimization_effort', 0.0)  # jax 0.12 has none
  if effort < 0:
    remarks.append(
      f'Compiled with jax_exec_time_optimization_effort {effort:g}: soon done; a program that runs '
      'would be compiled at 0, for another need of memory, mostly a smaller one.'
    )
  return [line for remark in remarks for line in textwrap.wrap(remark, WIDTH)]


def probed(config: ConfigDict, program: Program, steps: int, estimate: Estimate) -> str:
  """Runs real steps on random pictures, and says how fast they are.

  Args:
    config: of the program.
    program: its devices are here.
    steps: how many steps of each plan are timed, after one that is not.
    estimate: of the same program.
  """
  total = preparation.total_steps(config, program.recipe)
  times = costs.plans(program.recipe, total)
  of_a_step = costs.probe_seconds(config, program, times, steps, lambda *_: None)
  seconds = costs.weighted_seconds(times, of_a_step)
  speed = config.data.batch_size * total / seconds
  useful = sum(s.useful_flops * s.steps for s in estimate.steps) / seconds / program.mesh.size
  lines = [
    '',
    f'Probe: {steps} steps of each kind on random pictures, without reading data',
    f'  {"median step":22}{1e3 * seconds / total:,.1f} ms, phases weighed by their lengths',
    f'  {"speed":22}{speed:,.2f} img/s, {speed / program.mesh.size:,.2f} img/s a device',
    f'  {"useful work":22}{useful / 1e12:,.3f} TFLOP/s a device{_share(estimate, useful)}',
    f'  {"whole training":22}{seconds / 3600:,.2f} hours for {total:,} steps',
  ]
  return '\n'.join(lines)


def _share(estimate: Estimate, flops: float) -> str:
  peak = _peak(estimate)
  return f', {flops / peak:.1%} of the peak' if peak else ''
