import drawn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.losses import perceptual, regularisers
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.dfnet import recipe


def small(**loss):
  config = systems.default_config('dfnet')
  config.model.update(dict(width=4, levels=2))
  config.loss.update(dict(perceptual=0.0, style=0.0, texture_scales=2) | loss)
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 16, 24, 1), np.float32)
  mask[:, 4:10, 5:14] = 1
  image = rng.random((2, 16, 24, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(2, dtype=np.int32))


@goldens.cases('dfnet_losses')
def test_all_terms(case):
  data, loss = case.data(), systems.default_config('dfnet').loss
  results = [goldens.nhwc(data[f'result_{i}']) for i in range(6)]
  target, hole = goldens.nhwc(data['target']), 1 - goldens.nhwc(data['mask'])
  maps = [{str(i): goldens.nhwc(data[f'feat_{x}_{i}']) for i in range(3)} for x in 'ab']
  loss.update(dict(perceptual=0.0, style=0.0, tv_of='target'))

  @jax.jit
  def run(results, target, maps):
    terms = recipe.generator_terms(loss, results, target, hole, None)
    return terms | {'percep': perceptual.perceptual(*maps), 'style': perceptual.style(*maps)}

  found = run(results, target, maps)
  for name, weight, want in (('reconstruction', 6, 'rec'), ('tv', 0.1, 'tv')):
    goldens.assert_close(found[name] / weight, data[want].squeeze(), what=name)
  for name in ('percep', 'style'):
    goldens.assert_close(found[name], data[name].squeeze(), what=name)


def test_terms_by_hand():
  """Constant pictures: each result lies 0.1 more above the truth than the one before it."""
  loss = systems.default_config('dfnet').loss
  image = np.full((1, 32, 32, 3), 0.25, np.float32)
  mask = np.zeros((1, 32, 32, 1), np.float32)
  mask[:, :16] = 1
  heights = 0.1 * np.arange(1, 7)
  results = [np.full((1, 32 >> i, 32 >> i, 3), 0.25 + h, np.float32) for i, h in enumerate(heights)]
  seen = lambda x: {'pool1': x, 'pool2': 2 * x}
  run = lambda: jax.jit(lambda r: recipe.generator_terms(loss, r, image, mask, seen))(results)
  terms = run()
  near = lambda value: pytest.approx(value, rel=1e-4)
  assert terms['reconstruction'] == near(6 * heights.mean())
  # Of the finest three scales; both layers are summed.
  assert terms['perceptual'] == near(0.1 * 3 * heights[:3].mean())
  values = 0.25 + heights[:3]
  # A Gram matrix of a constant c has c^2 / 3 everywhere; that of the second layer, 4 times that.
  assert terms['style'] == near(240 * 5 * ((values**2 - 0.25**2) / 3).mean())
  # Only the left border counts, whose left neighbours are 0: the top one lies in the hole.
  assert terms['tv'] == near(0.1 * np.mean([v * 0.5 / (32 >> i) for i, v in enumerate(values)]))
  loss.tv_of = 'target'
  assert run()['tv'] == near(0.1 * np.mean([0.25 * 0.5 / (32 >> i) for i in range(3)]))
  loss.update(dict(texture_scales=1, tv=0.0, style=0.0))
  terms = run()
  assert set(terms) == {'reconstruction', 'perceptual'}
  assert terms['perceptual'] == near(0.1 * 3 * 0.1)


def test_corner_variation_by_hand():
  image = jnp.array([[1.0, 2.0], [4.0, 9.0]])[None, ..., None]
  # |0 + 0 - 2|, |0 + 1 - 4|; |1 + 0 - 8|, |2 + 4 - 18|
  one = jnp.ones((1, 2, 2, 1))
  assert regularisers.corner_variation(image, one) == pytest.approx((2 + 3 + 7 + 12) / 4)
  weight = one.at[0, 1, 1].set(0)
  assert regularisers.corner_variation(image, weight) == pytest.approx(12 / 4)
  flat = jnp.full((1, 6, 6, 1), 0.5)
  gradient = jax.jit(jax.grad(regularisers.corner_variation))(flat, jnp.ones_like(flat))
  assert (gradient[0, 2:4, 2:4] == 0).all()


@pytest.fixture(scope='module')
def stepping(batch):
  return drawn.stepping(systems.make_recipe(small()), batch, 0.1)


@pytest.fixture(scope='module')
def trained(stepping, batch):
  return stepping(batch)


def test_a_step_trains_every_parameter_and_moves_all_statistics(trained):
  before, after, metrics = trained
  assert metrics['finite']
  for kind in ('params', 'stats'):
    pair = getattr(before, kind), getattr(after, kind)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), *pair)
    still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
    # Batch norm takes a bias before it out again.
    still = [name for name in still if "['bias']" not in name]
    assert not still, still
  parts = metrics['generator/reconstruction'] + metrics['generator/tv']
  np.testing.assert_allclose(metrics['generator/total'], parts, rtol=1e-6)


def test_default_recipe_is_the_published_one():
  config = systems.default_config('dfnet')
  weights = {name: config.loss[name] for name in recipe.WEIGHTS}
  assert weights == dict(reconstruction=6.0, perceptual=0.1, style=240.0, tv=0.1)
  assert config.loss.texture_scales == 3
  made = systems.make_recipe(config)
  assert made.steps is None and made.inference.multiple == made.inference.min_side == 256
  vgg = made.load_constants(shapes_only=True)['vgg']
  assert 'conv3_3' in vgg and 'conv4_1' not in vgg
  assert systems.make_recipe(small()).load_constants() == {}  # without terms that need it


def test_gradients_are_finite_for_every_hole(stepping, batch):
  one = np.zeros_like(batch['mask'])
  one[:, 5, 5] = 1
  for mask in (np.zeros_like(one), one, np.ones_like(one)):
    _, after, metrics = stepping(batch | {'mask': mask})
    # Of the terms, and of the norms of the gradient and of the change.
    assert metrics['finite'] and np.isfinite(metrics['generator/grad_norm'])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


def test_predict_keeps_known_pixels_and_shows_its_parts(trained, batch):
  made, before = systems.make_recipe(small()), trained[0]
  variables = Variables(before.params, before.stats)
  arguments = (variables, {}, batch['image'], batch['mask'], jax.random.key(0))
  out = np.asarray(jax.jit(made.inference.predict)(*arguments))
  known = batch['mask'][..., 0] == 0
  np.testing.assert_array_equal(out[known], batch['image'][known])
  assert np.isfinite(out).all() and (out[~known] != batch['image'][~known]).any()
  shown = jax.eval_shape(made.inference.pictures, *arguments)
  assert {name: x.shape for name, x in shown.items()} == {
    'predicted': batch['image'].shape,
    'alpha': batch['image'].shape,
  }


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'levels', 9, 'model.levels 9 must be one of: 2, 3, 4, 5, 6, 7, 8'),
    ('model', 'channel_order', 'gbr', "model.channel_order 'gbr' must be one of: 'rgb', 'bgr'"),
    ('model', 'width', 0, 'model.width 0 must be an integer of at least 1'),
    ('loss', 'tv_of', 'out', "loss.tv_of 'out' must be one of: 'result', 'target'"),
    ('loss', 'style', -1.0, 'loss.style -1.0 must be finite and >= 0'),
    ('loss', 'texture_scales', 7, 'texture_scales 7 must not exceed the 6 scales'),
    ('loss', 'vgg_layers', ('relu1_1',), 'vgg_layers .* must be among'),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('dfnet')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_a_constant_alone_trains_nothing():
  with pytest.raises(ValueError, match="'target' alone trains nothing"):
    systems.make_recipe(small(reconstruction=0.0, tv_of='target'))
