"""Kernel gradients of convolutions whose images are split by rows over devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import conv, placement
from jaxinpaint.training import sharding


def gradients(x, kernels, mesh):
  """Of two strided and one unpadded convolution with regard to kernels and x."""

  def total(kernels, x):
    with placement.use(dataclasses.replace(placement.Placement.on(mesh), form='plain')):
      for kernel, stride in zip(kernels, (2, 2, 1), strict=True):
        x = jnp.sin(conv.conv2d(x, kernel, stride=stride, padding=1))
    return (x**2).sum()

  return jax.jit(jax.grad(total, (0, 1)))(kernels, x)


@pytest.mark.parametrize(('size', 'mesh'), [(40, dict(spatial=8)), (32, dict(data=4, spatial=2))])
def test_rows_over_devices_give_one_devices_gradients(size, mesh):
  # 40 rows become 20, 10 and 9: unpinned, the second kernel's gradient came out twice as large.
  kernels = [
    0.2 * jax.random.normal(jax.random.key(i), (4, 4, n, 4)) for i, n in enumerate((3, 4, 4))
  ]
  x = jax.random.normal(jax.random.key(9), (8, size, size, 3))
  one = gradients(x, kernels, None)
  mesh = sharding.make_mesh(**(dict(data=1) | mesh))
  split = jax.device_put(x, sharding.batch_sharding(mesh, 4))
  many = gradients(split, jax.device_put(kernels, sharding.replicated(mesh)), mesh)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(a).max()))


def test_depthwise_kernels_of_few_rows_have_one_devices_gradients():
  """Four rows on four devices are whole on each: the gradient was four times as large."""
  kernel = jax.random.normal(jax.random.key(0), (3, 3, 1, 8))

  def gradients(x, kernel, mesh):
    def total(kernel, x):
      with placement.use(dataclasses.replace(placement.Placement.on(mesh), form='plain')):
        return jnp.sin(conv.depthwise_conv2d(jnp.sin(x), kernel)).sum()

    penalty = lambda kernel, x: (jax.grad(total, 1)(kernel, x) ** 2).sum()
    return jax.jit(lambda *a: (*jax.grad(total, (0, 1))(*a), jax.grad(penalty)(*a)))(kernel, x)

  mesh = sharding.make_mesh(data=2, spatial=4)
  for side in (4, 16):  # rows over none, over all
    x = jax.random.normal(jax.random.key(1), (8, side, side, 8))
    one = gradients(x, kernel, None)
    split = jax.device_put(x, sharding.batch_sharding(mesh, 4))
    many = gradients(split, jax.device_put(kernel, sharding.replicated(mesh)), mesh)
    for a, b in zip(one, many, strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(a).max()))


def test_nothing_is_pinned_where_rows_are_whole():
  x = jnp.ones((4, 8, 8, 3))
  kernel = jnp.ones((3, 3, 3, 2))
  for mesh in (None, sharding.make_mesh(data=8)):
    with placement.use(dataclasses.replace(placement.Placement.on(mesh), form='plain')):
      jaxpr = jax.make_jaxpr(lambda x: conv.conv2d(x, kernel, padding=1))(x)
    assert 'sharding_constraint' not in str(jaxpr)
