"""Loops over the images of a batch that lies on several devices: the same numbers, no gathering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import level_attention, placement, region_affinity
from jaxinpaint.losses import contextual
from jaxinpaint.training import collectives, sharding

SHAPES = {
  'region_affinity': ((8, 8, 4),),
  'level_attention': ((4, 4, 3), (8, 8, 2), (8, 8, 1)),
  'contextual_loss': ((5, 5, 6), (5, 5, 6)),
}
FUNCTIONS = {
  'region_affinity': region_affinity.region_affinity,
  'level_attention': level_attention.fill,
  'contextual_loss': lambda x, y: contextual.contextual_loss(x, y, form='blocks'),
}


def given(name, count):
  rng = np.random.default_rng(0)
  made = [rng.standard_normal((count, *s), np.float32) for s in SHAPES[name]]
  if name == 'level_attention':
    made[2] = (made[2] > 1).astype(np.float32)
  return made


def gradient(name, groups):
  def loss(x, *others):
    with placement.use(placement.Placement(groups=groups)):
      return jnp.square(FUNCTIONS[name](x, *others)).sum()

  return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize('name', sorted(FUNCTIONS))
def test_each_device_goes_through_its_own_images(name):
  mesh = sharding.make_mesh(data=4, fsdp=2)
  host = given(name, 16)
  placed = [jax.device_put(x, sharding.batch_sharding(mesh, x.ndim)) for x in host]
  compiled = gradient(name, 8).lower(*placed).compile()
  found = collectives.collectives(compiled)
  assert [c.kind for c in found] == ['all-reduce'], collectives.summary(found)
  assert found[0].bytes == 4  # the sum of the images' losses
  value, slope = compiled(*placed)
  wanted_value, wanted_slope = gradient(name, 1)(*host)
  np.testing.assert_allclose(value, wanted_value, rtol=1e-5)
  np.testing.assert_allclose(slope, wanted_slope, rtol=1e-3, atol=1e-4)


def test_a_batch_that_does_not_divide_is_gone_through_as_one():
  with placement.use(placement.Placement(groups=4)):
    found = placement.map_images(lambda x: {'a': x.sum()}, np.ones((6, 3), np.float32))
  np.testing.assert_array_equal(found['a'], np.full(6, 3.0))


def test_groups_keep_the_order_of_images():
  rows = np.arange(12.0).reshape(6, 2)
  with placement.use(placement.Placement(groups=3)):
    np.testing.assert_array_equal(placement.map_images(lambda x: x + 1, rows), rows + 1)
