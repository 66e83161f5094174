import jax.numpy as jnp
import numpy as np

from jaxinpaint.layers.norm import instance_norm


def test_each_channel_is_normalised_by_its_biased_variance():
  x = np.random.default_rng(0).normal(3.0, 2.0, (2, 3, 4, 5)).astype(np.float32)
  y = np.asarray(instance_norm(jnp.asarray(x)))
  mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)


def test_statistics_are_float32_where_bfloat16_would_lose_them():
  # A large mean: sums in bfloat16 could not see the unit deviation.
  x = np.random.default_rng(0).normal(0.0, 1.0, (1, 64, 64, 1)) + 20.0
  y = instance_norm(jnp.asarray(x, jnp.bfloat16))
  assert y.dtype == jnp.bfloat16
  assert abs(float(y.astype(jnp.float32).std()) - 1) < 0.02
  assert abs(float(y.astype(jnp.float32).mean())) < 0.01


def test_a_constant_channel_becomes_zero():
  assert not instance_norm(jnp.full((1, 4, 4, 2), 0.3)).any()
