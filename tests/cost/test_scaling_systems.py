"""The arithmetic of many chips, by hand, and that docs/scaling.md is made of it."""

import dataclasses
import json
import pathlib

import pytest

from benchmarks import scaling_counts, scaling_systems
from benchmarks.scaling_systems import Setting, Step, System, mean_step
from jaxinpaint import systems
from jaxinpaint.runtime import chips

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
CHIP = chips.Chip(
  '', bfloat16=100e9, float32=50e9, memory=0, bandwidth=28e6, interconnect=1e6
)  # a small one
# In the mean 3e9 FLOPs an image, 1000 parameters that change, 1500 numbers to sum.
SYSTEM = System(
  'toy', 'places2_toy', 256, 12,
  (
    Step('joint', ('generator',), 0.5, 4e9, dict(g=1000), dict(g=1), dict(g=1)),
    Step('joint', ('critic',), 0.5, 2e9, dict(d=500), dict(d=2), dict(d=2)),
  ),
)  # fmt: skip
BASE = Setting(CHIP, chips=4, per_chip=2, share=0.5)


def change(**fields):
  return dataclasses.replace(BASE, **fields)


def test_the_mean_step_by_hand():
  times = mean_step(SYSTEM, BASE)
  assert times.compute == pytest.approx(2 * 3e9 / 50e9)
  assert times.optimizer == pytest.approx(28 * 1000 / 28e6)
  # Three of four parts leave each chip twice, two bytes for each of 1500 numbers.
  assert times.exchange == pytest.approx(2 * 3 / 4 * 3000 / 1e6)
  assert times.seconds == pytest.approx(0.12 + 0.001 + 0.0045)
  assert times.efficiency == pytest.approx(0.121 / 0.1255)
  assert times.images == 8 and times.rate == pytest.approx(8 / 0.1255)
  assert mean_step(SYSTEM, change(chips=1)).exchange == 0


def test_what_each_setting_changes_by_hand():
  single = mean_step(SYSTEM, change(dtype='float32'))
  assert (single.compute, single.exchange) == pytest.approx((0.24, 0.009))
  # fsdp 2: half of the gradients (3000 bytes) and of the parameters (4000) leave a chip within its
  # pair, then half of its 1500 bytes of gradients twice, to the other pair.
  split = mean_step(SYSTEM, change(fsdp=2))
  assert split.exchange == pytest.approx((3500 + 1500) / 1e6)
  assert split.optimizer == pytest.approx(0.0005) and split.compute == pytest.approx(0.12)
  # All in one group: nothing is left to sum.
  assert mean_step(SYSTEM, change(fsdp=4)).exchange == pytest.approx(3 / 4 * 7000 / 1e6)
  rows = mean_step(SYSTEM, change(spatial=2))
  assert (rows.images, rows.compute) == (4, pytest.approx(0.06))
  assert rows.exchange == mean_step(SYSTEM, BASE).exchange
  assert mean_step(SYSTEM, change(share=0.25)).compute == pytest.approx(0.24)


@pytest.mark.parametrize('links', [1e4, 1e5, 1e6])
@pytest.mark.parametrize('goal', [0.5, 0.8, 0.95])
def test_the_fewest_images_for_an_efficiency(links, goal):
  setting = change(chip=dataclasses.replace(CHIP, interconnect=links))
  least = scaling_systems.least_images(SYSTEM, setting, goal)
  efficiency = lambda n: mean_step(SYSTEM, dataclasses.replace(setting, per_chip=n)).efficiency
  assert efficiency(least) >= goal and (least == 1 or efficiency(least - 1) < goal)
  if (links, goal) == (1e5, 0.8):  # compute must take 4 x 0.045 s - 0.001 s, 0.06 s an image
    assert least == 3


def test_what_hosts_deliver():
  times = scaling_systems.Times(compute=0.4, optimizer=0.05, exchange=0.05, images=64)
  assert scaling_systems.host_rate(times, 64) == pytest.approx(128 / 16)  # of four chips each
  assert scaling_systems.host_rate(times, 2) == pytest.approx(128)
  rates = {'images_per_core': {'256': 800, '512': 400}}
  sides = [scaling_systems.core_rate(rates, side) for side in (128, 256, 257, 1024)]
  assert sides == [800, 800, 400, 400]


def test_the_summands_are_the_whole_numbers_that_explain_the_sum():
  assert scaling_counts.whole_numbers(1050.0, [500, 40]) == (2, 1)  # 1 % is something else
  # DeepFill v1's step: generator once and critics three times. 2 x 7.07 + 3 x 3.6 is nearer to the
  # 49.8 MB of the table, but less simple.
  assert scaling_counts.whole_numbers(24.9e6, [7_072_770, 3_601_542]) == (3, 1)
  assert scaling_counts.whole_numbers(10.0, [500]) is None
  assert scaling_counts.whole_numbers(0.0, [500]) is None
  # GMCNN's small networks, critics twice in a step: all networks of an update travel equally often.
  updates = [(dict(local=10_809, globe=11_001), 2), (dict(generator=197_959), 1)]
  summands = dict(local=3, globe=3, generator=1)
  assert scaling_counts.explained(328_009, updates) == summands
  assert scaling_counts.explained(300_000, updates) is None


def test_programs_of_the_page_are_read():
  found = scaling_counts.compiled((DOCS / 'scaling.md').read_text())
  # 222 GFLOP on each of eight chips, for a batch of 16; 42.6 MB of two bytes.
  critic = found['places2_deepfillv1', 'joint', frozenset({'critic'})]
  assert critic == pytest.approx((111e9, 21.3e6))
  assert len(found) == 24
  steps = {
    (system.config, step.phase, frozenset(step.updates)): step
    for system in scaling_systems.load(stored())
    for step in system.steps
  }
  for kind, (flops, numbers) in found.items():
    if kind[0] != 'celebahq_lfr':  # the table has its stand-in
      assert steps[kind].flops == pytest.approx(flops, rel=0.005)
      assert 0.97 * numbers <= steps[kind].numbers <= 1.005 * numbers


def stored():
  return json.loads((DOCS / 'scaling.json').read_text())


def test_the_page_is_that_of_what_was_counted():
  text = (DOCS / 'scaling.md').read_text()
  assert text == scaling_systems.page(text, stored()), 'run python -m benchmarks.scaling_systems'
  assert all(f'`{s.config}`' in text for s in scaling_systems.load(stored()))
  with pytest.raises(ValueError, match='needs the lines'):
    scaling_systems.page('# Scaling', stored())


def test_every_system_is_counted_and_its_parameters_are_those_of_the_zoo():
  found = scaling_systems.load(stored())
  assert [s.name for s in found] == systems.list_systems()
  zoo = json.loads((DOCS / 'zoo.json').read_text())
  # Than the published weights': MI-GAN is trained in a larger form.
  other_sizes = {'glcic': 'discriminator', 'pconv': 'generator', 'migan': 'generator'}
  for system in found:
    for step in system.steps:
      assert step.flops > 0
      assert step.summands.keys() == step.repeats.keys() == step.trained.keys()
      for network, count in step.trained.items():
        same = zoo[system.name]['parameters'][network] == count
        assert same != (other_sizes.get(system.name) == network), (system.name, network)


def test_the_plot_has_every_system(tmp_path):
  pytest.importorskip('matplotlib')
  scaling_systems.plot(stored(), chips.CHIPS['TPU v5e'], tmp_path / 'x.svg')
  text = (tmp_path / 'x.svg').read_text()
  assert all(f'>{name}<' in text for name in systems.list_systems())
