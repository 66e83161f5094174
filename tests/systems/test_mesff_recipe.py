"""The recipe of MESFF; what it shares with other systems is tested in test_joint_loss.py."""

import jax
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.features import vgg
from jaxinpaint.systems._shared import joint_loss
from jaxinpaint.systems.mesff import networks
from jaxinpaint.systems.mesff import recipe as recipe_lib


def small(**model):
  config = systems.default_config('mesff')
  recipe_lib.quicktest(config)
  config.model.update(dict(width=4) | model)
  return config


def shapes(size=40):
  shape = lambda channels: jax.ShapeDtypeStruct((2, size, size, channels), np.float32)
  return {'image': shape(3), 'mask': shape(1), 'id': jax.ShapeDtypeStruct((2,), np.int32)}


def test_default_config_is_the_papers():
  config = systems.default_config('mesff')
  weights = {name: config.loss[name] for name in joint_loss.WEIGHTS}
  assert weights == dict(
    l1=1.0, adversarial=0.1, perceptual=0.1, style=250.0, l1_hole=0.0, psnr_hole=0.0
  )
  assert config.system == 'mesff' and config.loss.vgg == 'vgg16'
  assert not config.loss.l1_over_mask_mean and not config.loss.style_on_hole
  # Nothing of the network is left to a default that the config does not show.
  generator = networks.Generator()
  shown = config.model.to_dict()
  assert shown.pop('kernel_init') == 'normal_0.02'
  assert {k: getattr(generator, k) for k in shown} == shown
  hidden = {'parent', 'name', 'dtype'}
  assert set(networks.Generator.__dataclass_fields__) - hidden == set(config.model)


def test_a_stem_multiplies_the_sides_that_the_recipe_takes():
  inference = systems.make_recipe(small(stem=2)).inference
  assert (inference.multiple, inference.min_side) == (8, 72)
  with pytest.raises(ValueError, match=r'config\.model\.stem 0 must be a whole number'):
    systems.make_recipe(small(stem=0))


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_the_published_networks_and_losses_fit_together(dtype):
  """Traced at full width, with every term, and never compiled."""
  config = systems.default_config('mesff')
  config.dtype = dtype
  recipe = systems.make_recipe(config)
  batch, key = shapes(64), jax.random.key(0)
  variables = jax.eval_shape(recipe.init, key, batch)
  init = vgg.VGG(16, ('pool3',)).init
  constants = {'vgg': jax.eval_shape(init, key, batch['image'])['params']}
  outputs, _ = jax.eval_shape(recipe.phases[0].forward, variables, constants, batch, key)
  assert outputs['out'].shape == batch['image'].shape and outputs['out'].dtype == np.float32
  terms = {}
  for update in recipe.phases[0].updates:
    _, aux = jax.eval_shape(update.loss, variables, constants, outputs, batch, key)
    terms[update.name] = set(aux['metrics'])
    assert jax.tree.structure(aux['stats']) == jax.tree.structure(variables.stats)
  assert terms == {
    'generator': {'l1', 'adversarial', 'perceptual', 'style', 'total'},
    'discriminator': {'real', 'fake', 'total'},
  }


def test_predict_paints_the_hole_and_leaves_known_pixels_to_the_bit():
  recipe = systems.make_recipe(small(bottleneck='none'))  # compiled in a third of the time
  made = recipe.inference
  assert (made.multiple, made.min_side, made.networks) == (4, 36, ('generator',))
  rng = np.random.default_rng(0)
  image = rng.random((1, 36, 40, 3), dtype=np.float32)
  mask = (rng.random((1, 36, 40, 1)) < 0.3).astype(np.float32)
  batch = {'image': image, 'mask': mask, 'id': np.zeros(1, np.int32)}
  draw = lambda s: rng.normal(0, 0.1, s.shape).astype(s.dtype)
  variables = jax.tree.map(draw, jax.eval_shape(recipe.init, jax.random.key(0), batch))
  got = np.asarray(jax.jit(recipe.inference.predict)(variables, {}, image, mask, jax.random.key(0)))
  known = np.broadcast_to(mask == 0, got.shape)
  np.testing.assert_array_equal(got[known], image[known])
  assert got.dtype == np.float32 and (got[~known] != image[~known]).mean() > 0.9


@pytest.mark.parametrize('switch', (dict(use_mesff=False), dict(bottleneck='none')))
def test_ablations_have_fewer_parameters(switch):
  size = lambda config: sum(
    x.size
    for x in jax.tree.leaves(
      jax.eval_shape(systems.make_recipe(config).init, jax.random.key(0), shapes())[0]
    )
  )
  assert size(small(**switch)) < size(small())


def test_the_quicktest_needs_no_vgg():
  recipe = systems.make_recipe(small())
  assert recipe.load_constants() == {} and 'discriminator' in recipe.networks
