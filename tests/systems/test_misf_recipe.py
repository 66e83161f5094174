"""The recipe of MISF; what it shares with other systems is tested in test_joint_loss.py."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import joint_loss
from jaxinpaint.systems.misf import networks


def small(**loss):
  config = systems.default_config('misf')
  config.model.update(dict(width=4, blocks=1))
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=4) | loss)
  return config


def batch(size=32):
  image = jax.random.uniform(jax.random.key(0), (2, size, size, 3))
  mask = jnp.zeros((2, size, size, 1)).at[0, 4:12, 4:12].set(1.0)
  return {'image': image, 'mask': mask, 'id': jnp.arange(2)}


def test_default_config_is_the_released_one():
  config = systems.default_config('misf')
  weights = {name: config.loss[name] for name in joint_loss.WEIGHTS}
  assert weights == dict(
    l1=1.0, adversarial=0.1, perceptual=0.1, style=250.0, l1_hole=0.0, psnr_hole=0.0
  )
  assert config.system == 'misf' and config.loss.vgg == 'vgg19' and not config.loss.vgg_normalize
  assert config.loss.l1_over_mask_mean and config.loss.style_on_hole
  generator = networks.Generator()
  shown = config.model.to_dict()
  assert shown.pop('kernel_init') == 'normal_0.02'
  assert {k: getattr(generator, k) for k in shown} == shown


def test_l1_is_divided_by_the_mean_of_the_masks():
  recipe = systems.make_recipe(small(adversarial=0.0))
  data = batch()
  loss = recipe.phases[0].updates[0].loss
  outputs = {'out': data['image'] + 0.25}
  total, _ = loss(Variables({}, {}), {}, outputs, data, jax.random.key(0))
  assert total == pytest.approx(0.25 / (64 / (2 * 32 * 32)), rel=1e-5)
  total, _ = loss(
    Variables({}, {}), {}, outputs, data | {'mask': 0 * data['mask']}, jax.random.key(0)
  )
  assert np.isfinite(total)


def test_predict_takes_other_shapes_than_squares():
  recipe = systems.make_recipe(small())
  data = batch()
  variables = drawn.variables(recipe, data)
  image, mask = data['image'][:, :20], data['mask'][:, :20]
  got = jax.jit(recipe.inference.predict)(variables, {}, image, mask, jax.random.key(0))
  known = np.broadcast_to(np.asarray(mask) == 0, got.shape)
  np.testing.assert_array_equal(np.asarray(got)[known], np.asarray(image)[known])
  assert recipe.inference.multiple == 4 and recipe.inference.min_side == 12


def test_images_too_small_for_the_discriminator_are_refused():
  recipe = systems.make_recipe(small())
  with pytest.raises(ValueError, match=r'16 x 16 .*config.data.size >= 24'):
    jax.eval_shape(recipe.init, jax.random.key(0), batch(16))
  jax.eval_shape(recipe.init, jax.random.key(0), batch(24))
