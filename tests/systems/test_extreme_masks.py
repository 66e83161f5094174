"""Each update of each system at holes of nothing, of one pixel, of everything."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_completeness import CONFIGS, get_config

from jaxinpaint import systems
from jaxinpaint.data import inputs

HOLES = ('nothing', 'one pixel', 'everything')


def config_of(system):
  """The first config of a system, in miniature."""
  return next(c for p in CONFIGS if (c := get_config(p, 'quicktest')).system == system)


def picture_and_holes(size, seed=0):
  """Two pictures, {name: mask}."""
  image = jax.random.uniform(jax.random.key(seed), (2, size, size, 3))
  image = 0.25 + 0.5 * jax.image.resize(image[:, ::8, ::8], image.shape, 'linear')
  masks = dict.fromkeys(('a quarter', *HOLES), jnp.zeros((2, size, size, 1)))
  masks['a quarter'] = (
    masks['a quarter'].at[:, size // 4 : -size // 4, size // 4 : -size // 4].set(1)
  )
  masks['one pixel'] = masks['one pixel'].at[:, size // 2, size // 2].set(1)
  masks['everything'] = jnp.ones_like(masks['nothing'])
  return image, masks


def gradient_norms(system):
  """{(phase, update): {hole: (value, norm of the gradient of the networks it trains)}}."""
  config = config_of(system)
  recipe = systems.make_recipe(config)
  image, masks = picture_and_holes(config.data.size)
  numbers = np.arange(2)
  batch = {'image': image, 'mask': masks['a quarter'], 'id': numbers}
  pictures = np.asarray(255 * image).astype(np.uint8)
  if recipe.inference.inputs:
    batch |= inputs.compute(recipe.inference.inputs, pictures, None)
  variables = drawn.variables(recipe, batch)
  constants = recipe.load_constants()
  found = {}
  for phase in recipe.phases:
    for update in phase.updates:

      def value(params, batch, phase=phase, update=update):
        key = jax.random.key(1)
        known = variables.with_params(params)
        outputs, changed = phase.forward(known, constants, batch, key)
        known = known.with_stats(changed)
        return update.loss(known, constants, outputs, batch, key)[0]

      run = jax.jit(jax.value_and_grad(value))
      params = variables.pick(update.trains).params
      norms = found[phase.name, update.name] = {}
      for hole, mask in masks.items():
        loss, gradient = run(params, batch | {'mask': mask})
        squares = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient))
        norms[hole] = (float(loss), float(jnp.sqrt(squares)))
  return found


def check(system):
  for update, norms in gradient_norms(system).items():
    usual = norms['a quarter'][1]
    for hole in HOLES:
      loss, norm = norms[hole]
      assert np.isfinite([loss, norm]).all(), (update, hole, norms)
      # One pixel of an L1 that is divided by the mask's mean weighs as much as a whole hole.
      assert norm < 100 * usual, (update, hole, norms)


@pytest.mark.slow
@pytest.mark.parametrize('system', systems.list_systems())
def test_every_update_is_finite_and_sensible(system):
  check(system)
