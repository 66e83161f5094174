"""Fresh networks start from the values they always started from, whatever is refactored.

initial_values.json holds sums over the arrays of every network of every system, narrowed as for a
quicktest, drawn from key 0. Compiling ten systems' draws would take a minute: numpy computes them
(tests/initial.py), as `test_numpy_draws_as_jax_does` checks.

Where a change of initial values is meant: run this file as a program, and say so in CHANGELOG.md.
"""

import json
import pathlib

import initial
import jax
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.training import config as config_lib

FILE = pathlib.Path(__file__).with_name('initial_values.json')


def sums(system):
  """{network: [count, sum of magnitudes, sum of values with weights that tell places apart]}."""
  config = config_lib.quicktest(config_lib.base(system))
  size = config.data.size
  batch = {
    name: np.zeros((1, size, size, c), np.float32) for name, c in (('image', 3), ('mask', 1))
  }
  recipe = systems.make_recipe(config)
  variables = initial.values(lambda key: recipe.init(key, batch | {'id': np.zeros(1, np.int32)}))
  found = {}
  for network in variables.params:
    leaves = jax.tree.leaves(variables.of(network))
    x = np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in leaves])
    found[network] = [len(x), np.abs(x).sum(), (x * np.cos(np.arange(len(x)))).sum()]
  return found


@pytest.mark.parametrize('seed', [0, 7])
def test_numpy_draws_as_jax_does(seed):
  def function(key):
    a, b = jax.random.split(jax.random.fold_in(key, 7))
    return jax.random.normal(a, (3, 4)), jax.random.truncated_normal(b, -2, 2, (5,))

  for ours, theirs in zip(
    initial.values(function, seed), function(jax.random.key(seed)), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # erf_inv is another polynomial


@pytest.mark.parametrize('system', systems.list_systems())
def test_initial_values_are_as_ever(system):
  wanted, found = json.loads(FILE.read_text())[system], sums(system)
  assert list(found) == list(wanted)
  for network, (count, magnitude, weighted) in wanted.items():
    assert found[network][0] == count, network
    # Values differ in their last bits: another erf_inv.
    assert found[network][1] == pytest.approx(magnitude, rel=1e-5), network
    assert found[network][2] == pytest.approx(weighted, abs=1e-5 * magnitude), network


if __name__ == '__main__':
  text = json.dumps({system: sums(system) for system in systems.list_systems()}, indent=1)
  FILE.write_text(text + '\n')
