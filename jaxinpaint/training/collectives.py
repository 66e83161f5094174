"""What the devices of a compiled program exchange, read off its text."""

import collections
import dataclasses
import math
import re
from typing import Any

_KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
ITEM_BYTES = {
  'pred': 1,
  's8': 1,
  'u8': 1,
  'bf16': 2,
  'f16': 2,
  's16': 2,
  'u16': 2,
  'f64': 8,
  's64': 8,
}
# Of HLO text: 'name = (f32[3,4]{1,0}, f32[8]{0}) all-reduce(...'; asynchronous ones have -start.
_COLLECTIVE = re.compile(
  r'^\s*(?:ROOT )?%?\S+ = (?P<shapes>.*?) (?P<kind>' + '|'.join(_KINDS) + r')(?P<start>-start)?\(',
  re.MULTILINE,
)
_SHAPE = re.compile(r'(\w+)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction that devices take together.

  Attributes:
    kind: 'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all' or 'collective-permute'.
    shapes: (type, dimensions) of its results on one device; a combined one has several.
  """

  kind: str
  shapes: tuple[tuple[str, tuple[int, ...]], ...]

  @property
  def bytes(self) -> int:
    """Of all results on one device."""
    return sum(ITEM_BYTES.get(kind, 4) * math.prod(shape) for kind, shape in self.shapes)

  @property
  def largest(self) -> int:
    """Elements of the largest result."""
    return max((math.prod(shape) for _, shape in self.shapes), default=0)


def collectives(compiled: Any) -> list[Collective]:
  """Those of a compiled program, in its order.

  Args:
    compiled: of `jax.jit(f).lower(...).compile()`.
  """
  return in_text(compiled.as_text())


def in_text(text: str) -> list[Collective]:
  """As `collectives`, of a compiled program's text."""
  operations = []
  for match in _COLLECTIVE.finditer(text):
    shapes = [
      (kind, tuple(int(n) for n in dims.split(',') if n))
      for kind, dims in _SHAPE.findall(match['shapes'])
    ]
    # An asynchronous all-gather or permute names its operands too; its last half are results.
    if match['start'] and match['kind'] != 'all-reduce':
      shapes = shapes[len(shapes) // 2 :]
    operations.append(Collective(match['kind'], tuple(shapes)))
  return operations


def summary(operations: list[Collective]) -> str:
  """'3 all-reduce (12.5 MB), 1 all-gather (0.1 MB)'."""
  count: collections.Counter[str] = collections.Counter()
  size: collections.Counter[str] = collections.Counter()
  for c in operations:
    count[c.kind] += 1
    size[c.kind] += c.bytes
  return ', '.join(f'{n} {k} ({size[k] / 1e6:.3g} MB)' for k, n in sorted(count.items())) or 'none'
