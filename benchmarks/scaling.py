"""Plain arithmetic for MESFF on Places2 over many chips, and what the compiler says to it.

  python -m benchmarks.scaling [--chip='TPU v5e'] [--chips=8,64,256] [--per_chip=1]
  python -m benchmarks.scaling --compile=v5e:2x4,v5e:8x8,v5e:16x16 --size=64

A step of data parallelism computes `work(config)` FLOPs for each image and then sums
`gradient_bytes(...)` over all chips. Nothing here is measured: the share of its peak that a chip
reaches is an assumption. docs/scaling.md explains the columns. `--compile` (pip install "jax[tpu]")
reads the bytes off programs of the TPU compiler; gradients have the same size at every image size,
so that a small one will do.
"""

import argparse
import dataclasses
from collections.abc import Mapping

import jax
from ml_collections import ConfigDict

from jaxinpaint.configs import places2_mesff
from jaxinpaint.cost import estimate
from jaxinpaint.layers import operations
from jaxinpaint.runtime import chips as chips_lib
from jaxinpaint.training import collectives, sharding
from jaxinpaint.training.program import Program

IMAGES = 1_803_460  # of Places365-Standard's training set (Zhou et al., 2018)
STEPS, BATCH = 350_000, 4  # of configs/places2_mesff.py
ITEM = {'float32': 4, 'bfloat16': 2}  # bytes of a number


@dataclasses.dataclass(frozen=True)
class Row:
  """A step over `chips` chips, in seconds.

  Attributes:
    chips: how many.
    share: of the peak, assumed.
    compute: seconds.
    exchange: seconds of the all-reduce.
    batch: global.
  """

  chips: int
  share: float
  compute: float
  exchange: float
  batch: int

  @property
  def apart(self) -> float:
    """Efficiency where the exchange waits for the last gradient."""
    return self.compute / (self.compute + self.exchange)

  @property
  def overlapped(self) -> float:
    """Efficiency where it is hidden behind the computation as far as that lasts."""
    return self.compute / max(self.compute, self.exchange)

  @property
  def step(self) -> float:
    """Seconds, nothing overlapped."""
    return self.compute + self.exchange


def gradient_bytes(parameters: Mapping[str, int], dtype: str = 'float32') -> int:
  """That every device hands to the all-reduce of a step.

  A kernel's gradient is summed over devices in the type that the convolution computes in, before it
  becomes float32. The discriminator's is two summands, of real and of generated pictures, which the
  compiler sums over devices before it adds them.

  Args:
    parameters: {'generator': numbers, 'discriminator': numbers}.
    dtype: of the computation.
  """
  return ITEM[dtype] * (parameters['generator'] + 2 * parameters.get('discriminator', 0))


def ring_seconds(size: float, n: int, bandwidth: float) -> float:
  """Of an all-reduce by rings: `size` bytes travel around twice.

  Args:
    size: bytes on each device.
    n: devices.
    bandwidth: bytes/s that leave a device.
  """
  return 2 * around(size, n) / bandwidth


def around(size: float, n: int) -> float:
  """Bytes that leave each of n devices when `size` bytes travel once around a ring."""
  return (n - 1) / n * size


def work(config: ConfigDict) -> tuple[float, dict[str, int]]:
  """(useful FLOPs of a step for each image, {network: parameters}), of the traced train step."""
  made = Program.of(config, sharding.make_mesh(data=1, devices=jax.devices()[:1]))
  function, plan = made.train_step.__wrapped__, made.recipe.plan(0)
  flops = operations.useful_flops(
    lambda *a: function(*a, plan), made.state, made.constants, made.batch, made.rng
  )
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  return flops / config.data.batch_size, {n: count(t) for n, t in made.state.params.items()}


def row(
  n: int, share: float, flops: float, size: float, chip: chips_lib.Chip, dtype: str, per_chip: int
) -> Row:
  """A step of `per_chip` images on each of n chips.

  Args:
    n: chips.
    share: of the peak that a chip reaches.
    flops: for each image.
    size: bytes of the exchange.
    chip: of the table.
    dtype: of the computation.
    per_chip: images on each.
  """
  compute = per_chip * flops / (share * chip.flops(dtype))
  return Row(n, share, compute, ring_seconds(size, n, chip.interconnect), n * per_chip)


def main() -> None:
  names = {c.name: c for c in chips_lib.CHIPS.values()}
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  numbers = lambda kind: lambda text: [kind(n) for n in text.split(',')]
  parser.add_argument('--chip', choices=sorted(names), default='TPU v5e')
  parser.add_argument('--chips', type=numbers(int), default=[8, 64, 256])
  parser.add_argument('--per_chip', type=int, default=1, help='images on each chip')
  parser.add_argument('--shares', type=numbers(float), default=[0.2, 0.4], help='of the peak')
  parser.add_argument('--dtype', choices=sorted(ITEM), default='bfloat16')
  parser.add_argument('--compile', type=numbers(str), default=[], help='slices: v5e:2x4,v5e:8x8')
  parser.add_argument('--size', type=int, default=256, help='side of the images compiled')
  given = parser.parse_args()

  config = places2_mesff.get_config()
  config.dtype = given.dtype
  jax.config.update('jax_platforms', 'cpu')
  chip = names[given.chip]
  flops, parameters = work(config)
  size = gradient_bytes(parameters, given.dtype)
  named = ', '.join(f'{k} {v:,}' for k, v in parameters.items())
  print(f'{chip.name}, {given.dtype}; parameters: {named}')
  print(f'{flops / 1e9:,.0f} GFLOP an image and step; {size / 1e6:.1f} MB all-reduced a step')
  for name in given.compile:
    print(compiled(config, name, size, given.per_chip, given.size), flush=True)
  if given.compile:
    return
  columns = ['chips', 'batch', 'share', 'compute', 'exchange', 'apart', 'overlapped', 'img/s']
  columns += [f'{STEPS:,} steps', f'{STEPS * BATCH:,} images']
  print(f'| {" | ".join(columns)} |\n|{"---|" * len(columns)}')
  for n in given.chips:
    for share in given.shares:
      r = row(n, share, flops, size, chip, given.dtype, given.per_chip)
      fewer = STEPS * BATCH // r.batch
      cells = [
        n,
        r.batch,
        f'{share:.0%}',
        f'{1e3 * r.compute:.1f} ms',
        f'{1e3 * r.exchange:.2f} ms',
      ]
      cells += [f'{r.apart:.1%}', f'{r.overlapped:.1%}', f'{r.batch / r.step:,.0f}']
      cells += [f'{STEPS * r.step / 3600:.1f} h, {STEPS * r.batch / IMAGES:.1f} epochs']
      cells += [f'{60 * fewer * r.step / 3600:.0f} min, {fewer:,} steps']
      print(f'| {" | ".join(map(str, cells))} |')


def compiled(config: ConfigDict, name: str, size: float, per_chip: int, side: int) -> str:
  """The exchange of the TPU compiler's program for a slice beside the arithmetic's bytes.

  Args:
    config: of MESFF.
    name: of the slice.
    size: of `gradient_bytes`.
    per_chip: images on each chip.
    side: of the images.
  """
  config = config.copy_and_resolve_references().unlock()
  sides = tuple(int(n) for n in name.partition(':')[2].split('x'))
  mesh = sharding.make_mesh(devices=estimate.tpu_slice(name, sides))
  config.data.batch_size, config.data.size = mesh.size * per_chip, side
  config.loss.update(dict(perceptual=0.0, style=0.0))  # frozen networks have no gradients
  made = Program.of(config, mesh)
  found = collectives.collectives(made.lower(made.recipe.plan(0)).compile())
  total = sum(c.bytes for c in found)
  return (
    f'{name}: {collectives.summary(found)}; arithmetic {size / 1e6:.3f} MB, compiled '
    f'{total / 1e6:.3f} MB ({total / size - 1:+.3%})'
  )


if __name__ == '__main__':
  main()
