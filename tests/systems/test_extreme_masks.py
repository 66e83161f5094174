"""Each update of each system at holes of nothing, of one pixel, of everything."""

import cv2
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
  rng = np.random.default_rng(seed)
  coarse = rng.random((2, size // 8, size // 8, 3), np.float32)
  image = 0.25 + 0.5 * np.stack([cv2.resize(picture, (size, size)) for picture in coarse])
  masks = {hole: np.zeros((2, size, size, 1), np.float32) for hole in ('a quarter', *HOLES)}
  masks['a quarter'][:, size // 4 : -size // 4, size // 4 : -size // 4] = 1
  masks['one pixel'][:, size // 2, size // 2] = 1
  masks['everything'][:] = 1
  return image, masks


def gradient_of(variables, constants, phase, update):
  """(parameters that the update trains, batch) -> (value, gradient)."""

  def value(params, batch):
    key = jax.random.key(1)
    known = variables.with_params(params)
    outputs, changed = phase.forward(known, constants, batch, key)
    return update.loss(known.with_stats(changed), constants, outputs, batch, key)[0]

  return jax.value_and_grad(value)


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
      run = jax.jit(gradient_of(variables, constants, phase, update))
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

  @jax.jit
  def gradients(variables, batch):
    return {
      update.name: gradient_of(variables, {}, phase, update)(
        variables.pick(update.trains).params, batch
      )[1]
      for update in phase.updates
    }

  moves = lambda mask: {
    name: any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    for name, gradient in gradients(variables, batch | {'mask': mask}).items()
  }
  names = [update.name for update in phase.updates]
  assert moves(masks['a quarter']) == dict.fromkeys(names, True)
  assert moves(masks['everything']) == dict.fromkeys(names, False)
