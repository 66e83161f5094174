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
# Systems whose pictures without a known pixel train nothing, as small as they get: their side,
# config.model and config.loss.
SILENT = {
  'dfnet': (16, dict(width=4, levels=2), dict(perceptual=0.0, style=0.0, texture_scales=2)),
  'pix2pix': (32, dict(width=4, levels=4, discriminator_width=4), {}),
  'shiftnet': (
    48,
    dict(width=4, levels=4, discriminator_width=4),
    dict(adversarial_kind='wasserstein', crop=0, hole=0.0, style=0.0, perceptual=0.0, tv=0.0),
  ),
}


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


def gradient_of(variables, constants, phase, update):
  """(parameters that the update trains, batch) -> (value, gradient), compiled."""

  def value(params, batch):
    key = jax.random.key(1)
    known = variables.with_params(params)
    outputs, changed = phase.forward(known, constants, batch, key)
    return update.loss(known.with_stats(changed), constants, outputs, batch, key)[0]

  return jax.jit(jax.value_and_grad(value))


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
      run = gradient_of(variables, constants, phase, update)
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


@pytest.mark.parametrize('system', SILENT)
def test_pictures_without_a_known_pixel_train_nothing(system):
  size, model, loss = SILENT[system]
  config = systems.default_config(system)
  config.model.update(model)
  config.loss.update(loss)
  recipe = systems.make_recipe(config)
  image, masks = picture_and_holes(size)
  batch = {'image': image, 'mask': masks['everything'], 'id': np.arange(2)}
  variables = drawn.variables(recipe, batch)
  (phase,) = recipe.phases
  for update in phase.updates:
    run, params = gradient_of(variables, {}, phase, update), variables.pick(update.trains).params
    moves = lambda mask, run=run, params=params: any(
      np.any(leaf) for leaf in jax.tree.leaves(run(params, batch | {'mask': mask})[1])
    )
    assert moves(masks['a quarter']), update.name
    assert not moves(masks['everything']), update.name
