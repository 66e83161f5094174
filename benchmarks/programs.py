"""Every system's step and forward pass as a compiler makes them: what will cost, before it runs.

  python -m benchmarks.programs --json OUT                          on this machine, float32
  python -m benchmarks.programs --devices v5e:2x4 --dtype bfloat16 --json OUT
  python -m benchmarks.programs --trace --dtype bfloat16            products left in float32

A program is compiled without the persistent cache, and never run; the seconds are this machine's,
by the clock and of its processors (a shared one makes the first longer). For a TPU that is not here
pip install "jax[tpu]" brings the compiler. Only one compilation has been done before: what jax
keeps in memory of one program does not help another.

`read` counts in the compiled text what moves bytes without computing: copies, transposes and
conversions that are no part of another operation, zeros that an array's tiles are filled up with,
and what devices gather. `islands` sums, in a trace, the convolutions and matrix products that stay
in float32 where the config says bfloat16.
"""

import collections
import dataclasses
import gc
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from benchmarks import pages, workloads
from jaxinpaint.cost import costs, estimate
from jaxinpaint.layers import operations
from jaxinpaint.runtime import atomic, environment
from jaxinpaint.training import collectives

# Operations that only move what they get, or write it in another type.
_MOVES = ('copy', 'transpose', 'bitcast', 'reshape', 'copy-start', 'copy-done', 'slice', 'reverse')
_FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast')
# 'ROOT %name = bf16[8,256]{1,0:T(8,128)(2,1)} opcode(%operand, ...), attributes'
_INSTRUCTION = re.compile(
  r'^\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>\(.*?\)|\S+) (?P<opcode>[\w-]+)\((?P<rest>.*)$'
)
_HEADER = re.compile(r'^(?:ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$')
_SHAPE = re.compile(r'(?P<type>\w+)\[(?P<dims>[\d,]*)\](?:\{(?P<layout>[^}]*)\})?')
_OPERAND = re.compile(r'%([\w.-]+)')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a compiled program.

  Attributes:
    name: of its result.
    opcode: as HLO names it.
    shape: of its result, with layout.
    operands: names.
    calls: the computation that a fusion is made of; ''.
    attributes: all that is written behind the operands.
  """

  name: str
  opcode: str
  shape: str
  operands: tuple[str, ...]
  calls: str
  attributes: str

  @property
  def bytes(self) -> int:
    """Of its result."""
    return sum(size for size, _ in sizes(self.shape))


@dataclasses.dataclass(frozen=True)
class Counts:
  """What a compiled program holds.

  Attributes:
    instructions: in all computations.
    fusions: that it calls.
    kernels: different ones among them; a CPU's compiler makes equal ones once.
    convolutions: that it calls, or has in fusions.
    products: matrix products.
    float32: convolutions and matrix products whose operands are both float32.
    moves: operations of their own that only copy, transpose or reverse.
    moved_mb: bytes of their results, in millions.
    converts: operations of their own that write the same numbers in another type.
    converted_mb: bytes of their results.
    filled_mb: bytes that tiles add to the results of all operations of their own.
    gathered_mb: bytes of all-gathers.
  """

  instructions: int
  fusions: int
  kernels: int
  convolutions: int
  products: int
  float32: int
  moves: int
  moved_mb: float
  converts: int
  converted_mb: float
  filled_mb: float
  gathered_mb: float


def read(text: str) -> Counts:
  """What the text of a compiled program holds (`compiled.as_text()`)."""
  program = computations(text)
  everything = {i.name: i for body in program.values() for i in body}
  inner = {i.calls for i in everything.values() if i.opcode == 'fusion'}
  # A computation that is reduced with, or compared with, has no arrays.
  own = [i for name, body in program.items() if name not in inner for i in body]
  own = [i for i in own if i.opcode not in _FREE]
  kinds = [(i, _kind(i, program)) for i in own]
  moves = [i for i, kind in kinds if kind == 'move']
  converts = [i for i, kind in kinds if kind == 'convert']
  multiplied = [i for i in everything.values() if i.opcode in ('convolution', 'dot')]
  gathers = [c for c in collectives.in_text(text) if c.kind == 'all-gather']
  return Counts(
    instructions=len(everything),
    fusions=len(inner),
    kernels=len({_form(program[name]) for name in inner if name in program}),
    convolutions=sum(i.opcode == 'convolution' for i in multiplied),
    products=sum(i.opcode == 'dot' for i in multiplied),
    float32=sum(_types(i, everything) == {'f32'} for i in multiplied),
    moves=len(moves),
    moved_mb=sum(i.bytes for i in moves) / 1e6,
    converts=len(converts),
    converted_mb=sum(i.bytes for i in converts) / 1e6,
    filled_mb=sum(tiled - size for i in own for size, tiled in sizes(i.shape)) / 1e6,
    gathered_mb=sum(c.bytes for c in gathers) / 1e6,
  )


def computations(text: str) -> dict[str, list[Instruction]]:
  """{name of a computation: its instructions} of a compiled program's text."""
  found: dict[str, list[Instruction]] = {}
  body: list[Instruction] = []
  for line in text.splitlines():
    if header := _HEADER.match(line):
      body = found[header['name']] = []
    elif match := _INSTRUCTION.match(line):
      body.append(_instruction(match))
  return found


def _instruction(match: re.Match) -> Instruction:
  inside, _, attributes = match['rest'].partition('), ')
  calls = re.search(r'calls=%?([\w.-]+)', attributes)
  return Instruction(
    match['name'],
    match['opcode'],
    match['shape'],
    tuple(_OPERAND.findall(inside)),
    calls[1] if calls else '',
    attributes,
  )


def sizes(shape: str) -> list[tuple[int, int]]:
  """(bytes, bytes with its tiles filled up) of each array in 'bf16[8,3]{1,0:T(8,128)(2,1)}'."""
  found = []
  for match in _SHAPE.finditer(shape):
    dims = [int(d) for d in match['dims'].split(',') if d]
    item = collectives.ITEM_BYTES.get(match['type'], 4)
    found.append((item * math.prod(dims), item * math.prod(_filled(dims, match['layout'] or ''))))
  return found


def _filled(dims: list[int], layout: str) -> list[int]:
  """Sides of an array after its minor ones are rounded up to whole tiles.

  Only the first tile counts: the next ones divide it further.
  """
  order, _, rest = layout.partition(':')
  tile = re.match(r'T\(([\d,]+)\)', rest)
  if not tile or not dims:
    return dims
  filled = list(dims)
  minor = [int(d) for d in order.split(',')]
  for axis, side in zip(minor, reversed([int(d) for d in tile[1].split(',')]), strict=False):
    filled[axis] = -(-filled[axis] // side) * side
  return filled


def _kind(instruction: Instruction, program: Mapping[str, list[Instruction]]) -> str:
  """'move', 'convert', or '' for what computes."""
  body = program.get(instruction.calls, [instruction])
  opcodes = {i.opcode for i in body} - set(_FREE)
  if opcodes and opcodes <= {'convert', *_MOVES}:
    return 'convert' if 'convert' in opcodes else 'move'
  return ''


def _form(body: Sequence[Instruction]) -> tuple:
  """A computation without its names."""
  order = {instruction.name: i for i, instruction in enumerate(body)}
  return tuple((i.opcode, i.shape, tuple(order.get(n, n) for n in i.operands)) for i in body)


def _types(instruction: Instruction, everything: Mapping[str, Instruction]) -> set[str]:
  """Of the two operands of a convolution or a matrix product."""
  return {everything[n].shape.partition('[')[0] for n in instruction.operands if n in everything}


def islands(trace: Any) -> tuple[float, dict[str, float]]:
  """(share of useful FLOPs with a float32 operand, {the lines that ask for them: their share}).

  Args:
    trace: of a step in bfloat16: a closed jaxpr.
  """
  places: dict[str, float] = collections.defaultdict(float)
  total = 0.0
  for product in operations.products(trace):
    total += product.flops
    if 'float32' in product.dtypes:
      places[product.place] += product.flops
  largest = sorted(places, key=lambda place: -places[place])
  return sum(places.values()) / total, {place: places[place] / total for place in largest}


def compiled_rows(
  names: Sequence[str], whats: Sequence[str], devices: Sequence[Any], **config: Any
) -> Iterator[dict[str, Any]]:
  """Compiles tasks one after the other.

  Args:
    names: of systems.
    whats: of `workloads.WHATS`.
    devices: that share the batch.
    **config: of `workloads.config_of`.

  Yields:
    {'system', 'what', 'size', 'seconds', 'processor_seconds', fields of `Counts`}.
  """
  for what in whats:
    for system in names:
      own = workloads.config_of(system, **config)
      task = workloads.Workload(own, devices).task(what)
      with costs.without_cache():
        begun, processor = time.perf_counter(), time.process_time()
        compiled = task.trace().lower().compile()
        seconds = time.perf_counter() - begun, time.process_time() - processor
      row = dict(system=system, what=what, size=own.data.size)
      row |= dict(seconds=seconds[0], processor_seconds=seconds[1])
      yield row | dataclasses.asdict(read(compiled.as_text()))
      del task, compiled
      gc.collect()
      jax.clear_caches()


def traced_rows(
  names: Sequence[str], whats: Sequence[str], devices: Sequence[Any], **config: Any
) -> Iterator[dict[str, Any]]:
  """Traces tasks; arguments of `compiled_rows`.

  Yields:
    {'system', 'what', 'size', 'float32_share', 'places': {line: share}}.
  """
  for what in whats:
    for system in names:
      own = workloads.config_of(system, **config)
      share, places = islands(workloads.Workload(own, devices).task(what).plain())
      row = dict(system=system, what=what, size=own.data.size)
      yield row | dict(float32_share=share, places=places)
      jax.clear_caches()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows of `compiled_rows` in Markdown, the slowest first."""
  columns = ['', 'compiled in', 'of processors', 'instructions', 'kernels (fusions)']
  columns += ['convolutions, products']
  columns += ['in float32', 'moves', 'conversions', 'filled up', 'gathered']
  cells = [
    [
      f'{r["system"]} {r["what"]}, {r["size"]} px',
      f'{r["seconds"]:.0f} s',
      f'{r["processor_seconds"]:.0f} s',
      f'{r["instructions"]:,}',
      f'{r["kernels"]:,} ({r["fusions"]:,})',
      f'{r["convolutions"]}, {r["products"]}',
      str(r['float32']),
      f'{r["moves"]} ({r["moved_mb"]:,.0f} MB)',
      f'{r["converts"]} ({r["converted_mb"]:,.0f} MB)',
      f'{r["filled_mb"]:,.0f} MB',
      f'{r["gathered_mb"]:,.1f} MB',
    ]
    for r in sorted(rows, key=lambda r: -r['processor_seconds'])
  ]
  return pages.table(columns, cells)


def main(argv: Sequence[str] | None = None) -> None:
  parser = workloads.flags(__doc__, ['step', 'forward'])
  parser.add_argument('--devices', default='', help='N CPU devices or v5e:2x4; default: these')
  parser.add_argument('--per_device', type=int, default=1, help='images on each device')
  parser.add_argument('--trace', action='store_true', help='only trace: products in float32')
  given = parser.parse_args(argv)
  rows = []
  with estimate.chosen(given.devices) as devices:
    batch = given.per_device * len(devices)
    make = traced_rows if given.trace else compiled_rows
    config = dict(dtype=given.dtype, size=given.size, batch=batch)
    for row in make(given.systems, given.what, devices, **config):
      rows.append(row)
      print(json.dumps(row), flush=True)
      if given.json:
        page = {**environment.environment(), **config, 'compiled_for': given.devices, 'rows': rows}
        atomic.write(given.json, json.dumps(page, indent=1) + '\n')
  if not given.trace:
    print(table(rows))


if __name__ == '__main__':
  main()
