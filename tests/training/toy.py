"""Small recipes that exercise every shape of training that the engine knows."""

import functools

import jax
import jax.numpy as jnp

from jaxinpaint.recipe import Inference, Phase, Recipe, Update, Variables


def init(rng, batch, hidden=8):
  keys = jax.random.split(rng, 2)
  params = {
    'generator': {'w': 0.1 * jax.random.normal(keys[0], (4, 3)), 'b': jnp.zeros((3,))},
    'critic': {'w': 0.1 * jax.random.normal(keys[1], (3, hidden)), 'v': jnp.full((hidden,), 0.1)},
  }
  return Variables(params, {'generator': {'batch_stats': {'mean': jnp.zeros((3,))}}})


def generate(params, image, mask):
  p = params['generator']
  x = jnp.concatenate([image * (1 - mask), mask], axis=-1)
  return jax.nn.sigmoid(x @ p['w'] + p['b'])


def criticise(params, x):
  p = params['critic']
  return jnp.tanh(x @ p['w']) @ p['v']


def forward(variables, constants, batch, rng):
  out = generate(variables.params, batch['image'], batch['mask'])
  mean = 0.9 * variables.stats['generator']['batch_stats']['mean'] + 0.1 * out.mean((0, 1, 2))
  noise = jax.random.normal(rng, ())
  outputs = {'out': out, 'noise': noise}
  return outputs, {'generator': {'batch_stats': {'mean': jax.lax.stop_gradient(mean)}}}


def generator_loss(variables, constants, outputs, batch, rng):
  l1 = jnp.abs(outputs['out'] - batch['image']).mean()
  adversarial = -0.1 * criticise(variables.params, outputs['out']).mean()
  total = l1 + adversarial
  return total, {'metrics': {'l1': l1, 'adversarial': adversarial, 'total': total}}


def critic_loss(variables, constants, outputs, batch, rng):
  jitter = 1e-3 * jax.random.normal(rng, batch['image'].shape)
  fake = criticise(variables.params, outputs['out'] + jitter).mean()
  real = criticise(variables.params, batch['image']).mean()
  return fake - real, {'metrics': {'total': fake - real}}


def output(variables, constants, image, mask, rng):
  return generate(variables.params, image, mask)


GENERATOR = Update('generator', ('generator',), generator_loss, 'generator')
CRITIC = Update('critic', ('critic',), critic_loss, 'critic')


def recipe(*phases: Phase, hidden: int = 8) -> Recipe:
  phases = phases or (Phase('joint', -1, forward, (GENERATOR, CRITIC)),)
  inference = Inference(('generator',), lambda *a: init(*a).pick(('generator',)), output)
  first = functools.partial(init, hidden=hidden)
  return Recipe(inference, ('generator', 'critic'), first, phases)


def batch(rows: int = 8, size: int = 8, seed: int = 0) -> dict:
  keys = jax.random.split(jax.random.key(seed), 2)
  return {
    'image': jax.random.uniform(keys[0], (rows, size, size, 3)),
    'mask': (jax.random.uniform(keys[1], (rows, size, size, 1)) < 0.3).astype(jnp.float32),
    'id': jnp.arange(rows, dtype=jnp.int32),
  }
