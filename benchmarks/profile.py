"""Where the time of a system's passes goes, by kinds of kernels, and how much of it must be.

  python -m benchmarks.profile --systems pix2pix,csa [--what forward,grad] [--top 8] [--json OUT]

Traces a few calls of each task of `workloads`, and looks every kernel up in the compiled program.
For convolutions and matrix products it also says the least time that they can take: of each, its
operations at the rate of a large matrix product, or its bytes (operands and result, once) at the
rate at which a large array is read and written, whichever is longer; both rates are measured beside
it. Where that least time is that of the bytes, weights are read for few multiplications.

The two gradients of convolutions are told apart in their form for a CPU (`layers.conv_cpu` names
them); in the plain form both are convolutions.
"""

import collections
import dataclasses
import json
import math
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure, pages, programs, traces, workloads
from jaxinpaint.layers import conv_cpu
from jaxinpaint.runtime import atomic, environment

KINDS = {
  'convolution': 'convolutions',
  'input gradient': "their input's gradient",
  'weight gradient': "their weights' gradient",
  'product': 'matrix products',
  'reduction': 'reductions',
  'gather': 'gathers, sorts',
  'move': 'copies, pads',
  'elementwise': 'elementwise',
  'other': 'other',
}
MULTIPLIED = ('convolution', 'input gradient', 'weight gradient', 'product')
_CALLS = 3  # that are traced
_PRODUCTS = {'convolution', 'dot'}
_GATHERS = {'gather', 'scatter', 'sort'}
_REDUCTIONS = {'reduce', 'reduce-window', 'select-and-scatter'}
_MOVES = {'copy', 'transpose', 'bitcast', 'reshape', 'slice', 'reverse', 'pad', 'concatenate'}
_MOVES |= {'dynamic-slice', 'dynamic-update-slice', 'broadcast', 'iota'}
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element'}
_OTHER = {'while', 'conditional', 'custom-call', 'rng-bit-generator', 'fft'}


@dataclasses.dataclass(frozen=True)
class Kernel:
  """What an instruction of a compiled program does.

  Attributes:
    kind: of `KINDS`.
    place: the modules and functions that asked for it.
    shape: of its result.
    flops: 2 x the multiply-adds of its convolutions and products.
    bytes: of its operands and its result.
  """

  kind: str
  place: str
  shape: str
  flops: float
  bytes: int

  def least_seconds(self, flops: float, bandwidth: float) -> float:
    """Of one run, at these rates."""
    return max(self.flops / flops, self.bytes / bandwidth)


def kernels(text: str) -> dict[str, Kernel]:
  """{name of an instruction: what it does} of the text of a compiled program."""
  program = programs.computations(text)
  everything = {i.name: i for body in program.values() for i in body}
  user = {operand: i for i in reversed(everything.values()) for operand in i.operands}
  return {name: _kernel(i, program, everything, user) for name, i in everything.items()}


def _kernel(
  instruction: programs.Instruction,
  program: Mapping[str, Sequence[programs.Instruction]],
  everything: Mapping[str, programs.Instruction],
  user: Mapping[str, programs.Instruction],
) -> Kernel:
  body = list(_inside(instruction, program))
  place = _place(instruction, user)
  of = lambda name: everything[name].bytes if name in everything else 0
  return Kernel(
    _kind({i.opcode for i in body}, place),
    place,
    instruction.shape.partition('{')[0],
    sum(_flops(i, everything) for i in body),
    instruction.bytes + sum(map(of, instruction.operands)),
  )


def _place(instruction: programs.Instruction, user: Mapping[str, programs.Instruction]) -> str:
  """Its own, or that of the first user that has one: a rewritten product has lost its own."""
  at: programs.Instruction | None = instruction
  while at:
    if place := re.search(r'op_name="([^"]*)"', at.attributes):
      return place[1]
    at = user.get(at.name)
  return ''


def _inside(
  instruction: programs.Instruction, program: Mapping[str, Sequence[programs.Instruction]]
) -> Iterator[programs.Instruction]:
  """The instructions of a fusion or a call; of others themselves."""
  if instruction.opcode in ('fusion', 'call'):
    called = re.search(r'(?:calls|to_apply)=%?([\w.-]+)', instruction.attributes)
    for inner in program.get(called[1], ()) if called else ():
      yield from _inside(inner, program)
  else:
    yield instruction


def _kind(opcodes: set[str], place: str) -> str:
  opcodes = opcodes - _FREE
  if opcodes & _PRODUCTS:
    scopes = (
      (conv_cpu.WEIGHT_GRADIENT, 'weight gradient'),
      (conv_cpu.INPUT_GRADIENT, 'input gradient'),
    )
    for scope, kind in (*scopes, (conv_cpu.CONVOLUTION, 'convolution')):
      if scope in place:
        return kind
    return 'convolution' if 'convolution' in opcodes else 'product'
  for some, kind in ((_OTHER, 'other'), (_GATHERS, 'gather'), (_REDUCTIONS, 'reduction')):
    if opcodes & some:
      return kind
  return 'move' if opcodes <= _MOVES else 'elementwise'


def _flops(
  instruction: programs.Instruction, everything: Mapping[str, programs.Instruction]
) -> float:
  """2 x the multiply-adds of a convolution or a product, 0 of others.

  Zeros that a convolution puts between or around its input count as if they were multiplied.
  """
  if instruction.opcode not in _PRODUCTS:
    return 0.0
  left, right = ([_dims(everything[n].shape) for n in instruction.operands[:2]] + [[], []])[:2]
  of_result = math.prod(_dims(instruction.shape))
  if instruction.opcode == 'dot':
    axes = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', instruction.attributes)
    return 2.0 * of_result * math.prod(left[int(a)] for a in axes[1].split(',') if a)
  labels = re.search(r'dim_labels=\w+_(\w+)->', instruction.attributes)
  return 2.0 * of_result * math.prod(right) / right[labels[1].index('o')]


def _dims(shape: str) -> list[int]:
  """[8, 3] of 'bf16[8,3]{1,0}'."""
  return [int(d) for d in re.search(r'\[([\d,]*)\]', shape)[1].split(',') if d]


def memory_bandwidth(mib: int = 256) -> float:
  """Bytes per second that are read and written where a large array is changed in place."""
  change = jax.jit(lambda x: (x + 1,), donate_argnums=0)
  x = jnp.zeros(mib * 2**18, jnp.float32)
  calls = measure.Calls(change, (x,), lambda arguments, results: results)
  return 2 * mib * 2**20 / calls.best(5)


def rates(dtype: Any) -> tuple[float, float]:
  """(FLOP/s of a large matrix product, bytes/s of memory), now."""
  return measure.matmul_peak(dtype), memory_bandwidth()


def profile(
  system: str, what: str, *, dtype: str, size: int, batch: int, top: int, quick: bool = False
) -> dict[str, Any]:
  """Where the time of one task goes.

  Args:
    system: of `systems.list_systems()`.
    what: of `workloads.WHATS`.
    dtype: of the computation.
    size: side of the images.
    batch: of images.
    top: how many of the kernels that take most are listed.
    quick: the small networks of the variant `quicktest`.

  Returns:
    'seconds' of a call, as the sum of its kernels; 'kinds': {kind: share of it}; 'least': {kind of
    `MULTIPLIED`: the share that its operations and bytes need}; 'of_bytes': the share of kernels
    whose bytes need longer than their operations; 'weights_mb' of the generator; 'weights_seconds'
    to read them once; 'flops' and 'bandwidth' per second; 'top' kernels, the largest first.
  """
  config = workloads.config_of(system, dtype=dtype, size=size, batch=batch, quick=quick)
  workload = workloads.Workload(config)
  task = workload.task(what)
  compiled, _ = measure.compile_cold(task)
  calls = measure.Calls(compiled, task.arguments(), task.follow)
  calls.run(2)
  before = rates(jnp.dtype(dtype))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      calls.run(_CALLS)
    events = traces.read(pathlib.Path(folder))
  flops, bandwidth = map(max, before, rates(jnp.dtype(dtype)))
  shapes = workload.program.recipe.inference.shapes().params
  weights = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
  row = dict(system=system, what=what, size=config.data.size, flops=flops, bandwidth=bandwidth)
  row |= dict(weights_mb=weights / 1e6, weights_seconds=weights / bandwidth)
  return row | summary(events, kernels(compiled.as_text()), _CALLS, flops, bandwidth, top)


def summary(
  events: Sequence[traces.Event],
  known: Mapping[str, Kernel],
  calls: int,
  flops: float,
  bandwidth: float,
  top: int = 0,
) -> dict[str, Any]:
  """'seconds', 'kinds', 'least', 'of_bytes' and 'top' of `profile`.

  Args:
    events: of a trace.
    known: of the program that ran.
    calls: of it that are in the trace.
    flops: per second.
    bandwidth: bytes per second.
    top: as for `profile`.
  """
  nothing = Kernel('other', '', '', 0.0, 0)
  total = sum(e.seconds for e in events)
  kinds, least = collections.Counter[str](), collections.Counter[str]()
  own: dict[str, list[float]] = collections.defaultdict(list)
  of_bytes = 0.0
  for e in events:
    kernel = known.get(e.operation, nothing)
    kinds[kernel.kind] += e.seconds / total
    own[e.operation].append(e.seconds)
    if kernel.kind in MULTIPLIED:
      least[kernel.kind] += kernel.least_seconds(flops, bandwidth) / total
      if kernel.bytes / bandwidth > kernel.flops / flops:
        of_bytes += e.seconds / total
  largest = sorted(own, key=lambda name: -sum(own[name]))[:top]
  listed = []
  for name in largest:
    kernel, seconds = known.get(name, nothing), sum(own[name])
    row = dict(name=name, kind=kernel.kind, place=kernel.place, shape=kernel.shape)
    row |= dict(share=seconds / total, calls=len(own[name]) / calls)
    row |= dict(gflops=len(own[name]) * kernel.flops / seconds / 1e9)
    listed.append(row | dict(gb_per_s=len(own[name]) * kernel.bytes / seconds / 1e9))
  return dict(seconds=total / calls, kinds=dict(kinds), least=dict(least), of_bytes=of_bytes) | {
    'top': listed
  }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows of `profile` in Markdown: percent of the time."""
  kinds = [k for k in KINDS if any(r['kinds'].get(k, 0) >= 0.005 for r in rows)]
  columns = ['', 'ms', *(KINDS[k] for k in kinds)]
  columns += ['least of convolutions and products', 'in those bound by bytes', 'weights, once']
  cells = [
    [
      f'{r["system"]} {r["what"]}',
      f'{1e3 * r["seconds"]:.0f}',
      *(f'{100 * r["kinds"].get(k, 0):.0f}' for k in kinds),
      f'{100 * sum(r["least"].values()):.0f}',
      f'{100 * r["of_bytes"]:.0f}',
      f'{r["weights_mb"]:.0f} MB, {1e3 * r["weights_seconds"]:.0f} ms',
    ]
    for r in rows
  ]
  return pages.table(columns, cells)


def main(argv: Sequence[str] | None = None) -> None:
  parser = workloads.flags(__doc__, ['forward', 'grad'])
  parser.add_argument('--batch', type=int, default=1, help='images at once')
  parser.add_argument('--top', type=int, default=0, help='kernels listed of each')
  given = parser.parse_args(argv)
  print(f'{measure.hardware()}, jax {jax.__version__}', flush=True)
  rows = []
  options = dict(dtype=given.dtype, size=given.size, batch=given.batch)
  for system in given.systems:
    for what in given.what:
      rows.append(profile(system, what, top=given.top, **options))
      row = rows[-1]
      print(
        f'{system} {what}: {1e3 * row["seconds"]:.0f} ms; {row["flops"] / 1e9:.0f} GFLOP/s, '
        f'{row["bandwidth"] / 1e9:.1f} GB/s', flush=True,
      )  # fmt: skip
      for k in row['top']:
        print(
          f'  {k["share"]:4.0%} {k["kind"]:15} {k["calls"]:5.0f} x {k["gflops"]:6.1f} GFLOP/s '
          f'{k["gb_per_s"]:5.1f} GB/s {k["shape"]:24} {k["place"][-90:]}', flush=True,
        )  # fmt: skip
      if given.json:
        page = {**environment.environment(), **options, 'rows': rows}
        atomic.write(given.json, json.dumps(page, indent=1) + '\n')
      jax.clear_caches()
  print(table(rows))


if __name__ == '__main__':
  main()
