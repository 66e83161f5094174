import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from jaxinpaint.training import optimizers


def one_step(tx, gradient):
  params = jnp.zeros_like(gradient)
  updates, _ = tx.update(gradient, tx.init(params), params)
  return np.asarray(updates)


def test_an_optimizer_of_optax_by_name_with_its_arguments():
  gradient = jnp.array([1.0, -2.0])
  got = one_step(optimizers.make_optimizer('adam', 1e-2, b1=0.0, b2=0.9), gradient)
  want = one_step(optax.adam(1e-2, b1=0.0, b2=0.9), gradient)
  np.testing.assert_array_equal(got, want)


def test_clipping_scales_to_the_norm():
  tx = optimizers.make_optimizer('sgd', 1.0, clip_norm=1.0)
  np.testing.assert_allclose(one_step(tx, jnp.array([3.0, 4.0])), [-0.6, -0.8], rtol=1e-6)
  np.testing.assert_allclose(one_step(tx, jnp.array([0.3, 0.4])), [-0.3, -0.4], rtol=1e-6)


def test_a_schedule_by_name():
  rate = optimizers.make_schedule(0.1, 'cosine_decay', {'decay_steps': 10})
  assert float(rate(0)) == pytest.approx(0.1) and float(rate(10)) == pytest.approx(0.0)
  warm = optimizers.make_schedule(
    0.1, 'warmup_cosine_decay', {'init_value': 0.0, 'warmup_steps': 5, 'decay_steps': 10}
  )
  assert float(warm(0)) == 0.0 and float(warm(5)) == pytest.approx(0.1)
  assert optimizers.make_schedule(0.1) == 0.1


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (dict(name='adamant', learning_rate=1e-3), 'unknown optimizer .*adamw'),
    (dict(name='adam', learning_rate=1e-3, beta1=0.5), 'takes no beta1; it takes: .*b1'),
    (dict(name='adam', learning_rate=-1.0), 'must be >= 0'),
    (
      dict(name='adam', learning_rate=1.0, schedule='sawtooth'),
      'optax has: constant_schedule, cos',
    ),
    (
      dict(name='adam', learning_rate=1.0, schedule='cosine_decay', schedule_args={'x': 1}),
      'takes no x',
    ),
    (dict(name='adam', learning_rate=1.0, accumulate=0), 'accumulate 0'),
  ],
)
def test_what_cannot_work_is_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    optimizers.make_optimizer(**arguments)


def test_an_optimizer_that_the_recipe_needs_and_the_config_lacks():
  config = ConfigDict({'generator': {'name': 'sgd', 'learning_rate': 0.1}})
  assert set(optimizers.make_optimizers(config, ['generator'])) == {'generator'}
  with pytest.raises(ValueError, match='lacks discriminator'):
    optimizers.make_optimizers(config, ['generator', 'discriminator'])
