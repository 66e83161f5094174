"""What a system's training does on many chips, counted for `benchmarks.scaling_systems`.

FLOPs of each kind of step in traces of the full networks, the parameters that it trains, and how
often their gradient travels, since a discriminator's has two or more parts, which are summed over
devices before they are added. The table of programs of the TPU's compiler in docs/scaling.md says
all of it for nine systems; of the others networks are traced, and small ones compiled for eight CPU
devices.
"""

import importlib
import itertools
import logging
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks import scaling
from jaxinpaint.cost import costs
from jaxinpaint.layers import operations
from jaxinpaint.recipe import Plan
from jaxinpaint.training import collectives, preparation, sharding
from jaxinpaint.training import config as config_lib
from jaxinpaint.training.program import Program

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
DEVICES = 8  # of the compiled programs


def measure(system: str, page_text: str) -> dict[str, Any]:
  """The fields of a system in docs/scaling.json.

  Args:
    system: its name.
    page_text: docs/scaling.md, whose programs of the TPU's compiler spare tracing and compiling.
  """
  name, config = _config(system)
  config.dtype = 'bfloat16'
  full = Program.of(config, sharding.make_mesh(data=1, devices=jax.devices()[:1]))
  total, table_rows = preparation.total_steps(config, full.recipe), compiled(page_text)
  plans = costs.plans(full.recipe, total)
  rows = {plan: table_rows.get((name, *_named(full, plan)), (0.0, 0.0)) for plan in plans}
  counted = {plan: explained(numbers, _updates(full, plan)) for plan, (_, numbers) in rows.items()}
  if None in counted.values():  # it is not in the table, or with other networks (LFR's stand-in)
    narrow = _narrow_summands(system)
    counted = {plan: narrow[_named(full, plan)] for plan in plans}
    rows = {plan: (_flops(full, plan, config), 0.0) for plan in plans}
  steps = []
  for plan, times in plans.items():
    updates, (flops, _) = _updates(full, plan), rows[plan]
    step = dict(phase=_named(full, plan)[0], updates=plan.updates, part=times / total, flops=flops)
    steps.append(
      step
      | dict(
        trained={n: size for sizes, _ in updates for n, size in sizes.items()},
        repeats={n: repeat for sizes, repeat in updates for n in sizes},
        summands=counted[plan],
      )
    )
  return dict(config=name, side=config.data.size, batch=config.data.batch_size, steps=steps)


def compiled(page_text: str) -> dict[tuple[str, str, frozenset[str]], tuple[float, float]]:
  """{(config, phase, updates): (useful FLOPs an image, numbers all-reduced)} of bfloat16 programs.

  Args:
    page_text: docs/scaling.md, with its table of programs for eight chips.
  """
  row = re.compile(
    r'^\| `(\w+)` [^|]*batch (\d+) \| (\w+) \(([\w, ]+)\) \| ([\d,]+), '
    r'.* all-reduce \(([\d.]+) MB\)',
    re.MULTILINE,
  )
  return {
    (config, phase, frozenset(updates.split(', '))): (
      float(useful.replace(',', '')) * 1e9 * DEVICES / int(batch),
      float(size) * 1e6 / scaling.ITEM['bfloat16'],
    )
    for config, batch, phase, updates, useful, size in row.findall(page_text)
  }


def _config(system: str) -> tuple[str, ConfigDict]:
  """The experiment whose schedule stands for the system: of Places2, where there is one."""
  for data in ('places2', 'celebahq', 'celeba'):
    name = f'{data}_{system}'
    if (CONFIGS / f'{name}.py').exists():
      return name, importlib.import_module(f'jaxinpaint.configs.{name}').get_config().unlock()
  raise ValueError(f'no config trains {system} on Places2, CelebA-HQ or CelebA')


def _named(program: Program, plan: Plan) -> tuple[str, frozenset[str]]:
  return program.recipe.phases[plan.phase].name, frozenset(plan.updates)


def _count(tree: Any) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _flops(program: Program, plan: Plan, config: ConfigDict) -> float:
  step = program.train_step.__wrapped__
  arguments = program.state, program.constants, program.batch, program.rng
  return operations.useful_flops(lambda *a: step(*a, plan), *arguments) / config.data.batch_size


def _updates(program: Program, plan: Plan) -> list[tuple[dict[str, int], int]]:
  """({network that it trains: its parameters}, repeats) of each update of the plan."""
  updates = [u for u in program.recipe.phases[plan.phase].updates if u.name in plan.updates]
  return [({n: _count(program.state.params[n]) for n in u.trains}, u.repeat) for u in updates]


def _narrow_summands(system: str) -> dict[tuple[str, frozenset[str]], dict[str, int]]:
  """{(phase, updates): summands} of the system's small networks, compiled for CPU devices."""
  _, config = _config(system)
  config = config_lib.quicktest(config)
  config.data.batch_size = DEVICES
  program = Program.of(config, sharding.make_mesh(data=DEVICES, devices=jax.devices()))
  # The code is not run: the devices' exchange is decided before it is made.
  options = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
  found = {}
  for plan in costs.plans(program.recipe, preparation.total_steps(config, program.recipe)):
    exchanged = collectives.collectives(program.lower(plan).compile(compiler_options=options))
    numbers = sum(c.bytes for c in exchanged if c.kind == 'all-reduce') / scaling.ITEM['float32']
    updates = _updates(program, plan)
    summands = explained(numbers, updates)
    if summands is None:  # passes share parts of critics, or kernels are sums of several arrays
      logging.warning('%s, %s: %s are no whole sums; counted once', system, plan.updates, numbers)
      summands = {network: 1 for sizes, _ in updates for network in sizes}
    found[_named(program, plan)] = summands
  return found


def explained(
  numbers: float, updates: Sequence[tuple[Mapping[str, int], int]]
) -> dict[str, int] | None:
  """{network: how often its gradient is summed each time}, the same for all networks of an update.

  Args:
    numbers: that a program exchanges.
    updates: ({network: parameters}, repeats) of each.

  Returns:
    None where no whole numbers explain `numbers`.
  """
  counts = whole_numbers(numbers, [repeat * sum(sizes.values()) for sizes, repeat in updates])
  if counts is None:
    return None
  each = zip(updates, counts, strict=True)
  return {network: count for (sizes, _), count in each for network in sizes}


def whole_numbers(total: float, sizes: Sequence[int]) -> tuple[int, ...] | None:
  """The smallest numbers, of 1 to 8, whose products with `sizes` sum up to `total`.

  They may leave 3 % of it, statistics of batch norms and losses, and be half a per cent above it: a
  table rounds, and a bias may have one summand less. None: there are none.

  Args:
    total: the sum.
    sizes: of a few things.
  """
  left = lambda counts: 1 - sum(n * s for n, s in zip(counts, sizes, strict=True)) / total
  choices = itertools.product(range(1, 9), repeat=len(sizes)) if total else ()
  fitting = [counts for counts in choices if -0.005 <= left(counts) <= 0.03]
  return min(fitting, key=lambda counts: (sum(counts), abs(left(counts))), default=None)
