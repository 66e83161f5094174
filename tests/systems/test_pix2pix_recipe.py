"""The recipe of pix2pix: its two losses, one step, sampling."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.pix2pix import networks, recipe
from jaxinpaint.weights import mapping


def small(**sections):
  config = systems.default_config('pix2pix')
  config.model.update(dict(width=4, levels=4, discriminator_width=4))
  for section, values in sections.items():
    config[section].update(values)
  return config


def batch(size=32):
  image = np.random.default_rng(0).random((2, size, size, 3), np.float32)
  mask = np.zeros((2, size, size, 1), np.float32)
  mask[:, 8:20, 12:20] = 1
  return {'image': image, 'mask': mask, 'id': np.arange(2)}


@pytest.fixture(scope='module')
def stepping():
  return drawn.stepping(systems.make_recipe(small()), batch())


@pytest.fixture(scope='module')
def trained(stepping):
  return stepping(batch())


def test_a_step_moves_every_parameter_that_matters(trained):
  before, after, metrics = trained
  assert bool(metrics['finite'])
  for name, tree in after.params.items():
    was = mapping.flatten(before.params[name])
    for key, value in mapping.flatten(tree).items():
      layer, kind = key.split('.')
      # A norm takes the mean away, and with it the bias before it.
      if kind == 'bias' and (f'{layer}_bn' in tree or layer.replace('conv', 'bn') in tree):
        continue
      assert (value != was[key]).any(), f'{name} {key}'
  assert not after.stats


def test_terms_are_of_their_size(trained):
  made, (_, _, metrics) = systems.make_recipe(small()), trained
  assert [u.name for u in made.phases[0].updates] == ['discriminator', 'generator']
  for name in ('discriminator/real', 'discriminator/fake', 'generator/adversarial'):
    assert 0.1 < float(metrics[name]) / np.log(2) < 10, name
  assert 20 < float(metrics['generator/l1']) < 100  # mean |difference| of noise: 0.2 to 1 of 100


LOGITS = {'real': 1.0, 'fake': 2.0}


@pytest.fixture
def judge(monkeypatch):
  """A critic that says 2 of a picture of 0 and 1 of others; it lists what it is shown."""
  shown = []

  def train_pass(nets, name, variables, seen, image):
    shown.append((seen, image))
    return jnp.where((image == 0).all(), jnp.full((2, 1), 2.0), jnp.ones((2, 1))), {}

  monkeypatch.setattr(recipe.modules, 'train_pass', train_pass)
  return shown


def test_losses_by_hand(judge):
  made, data = systems.make_recipe(small(loss=dict(adversarial=3.0))), batch()
  critic, generator = (update.loss for update in made.phases[0].updates)
  outputs = {'out': jnp.zeros_like(data['image']), 'seen': data['image'] * 0.5}
  args = Variables({}, {}), {}, outputs, data, jax.random.key(0)
  plus = lambda x: np.log1p(np.exp(x))
  total, aux = critic(*args)
  assert float(aux['metrics']['real']) == pytest.approx(plus(-1), rel=1e-5)
  assert float(aux['metrics']['fake']) == pytest.approx(plus(2), rel=1e-5)
  assert float(total) == pytest.approx(plus(-1) + plus(2), rel=1e-5)
  assert all(seen is outputs['seen'] or (seen == outputs['seen']).all() for seen, _ in judge)
  total, aux = generator(*args)
  l1 = 100 * 2 * float(data['image'].mean())
  assert float(aux['metrics']['l1']) == pytest.approx(l1, rel=1e-5)
  assert float(total) == pytest.approx(l1 + 3 * plus(-2), rel=1e-5)


def test_the_critic_sees_the_painted_image():
  made, data = systems.make_recipe(small()), batch()
  variables = drawn.variables(made, data)
  forward = jax.jit(lambda v: made.phases[0].forward(v, {}, data, jax.random.key(0))[0])
  seen = np.asarray(forward(variables)['seen'])
  hole = np.broadcast_to(np.asarray(data['mask']) == 1, seen.shape)
  assert (seen[hole] == 0.5).all()
  np.testing.assert_array_equal(seen[~hole], np.asarray(data['image'])[~hole])


def test_gradients_are_finite_for_every_mask(stepping):
  none = np.zeros((2, 32, 32, 1), np.float32)
  pixel = none.copy()
  pixel[:, 16, 16] = 1
  for mask in (none, pixel, none + 1):
    _, after, metrics = stepping(batch() | {'mask': mask})
    # Of both updates: their terms, the norms of their gradients and of the changes.
    assert metrics['finite'] and np.isfinite(metrics['generator/grad_norm'])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


@pytest.mark.parametrize('sample', [True, False])
def test_predict_samples_and_keeps_known_pixels(sample):
  made = systems.make_recipe(small(model=dict(sample=sample)))
  predict = Predictor(made.inference, drawn.variables(made, batch()))
  image = np.random.default_rng(0).random((1, 21, 30, 3), np.float32)
  mask = np.zeros((1, 21, 30, 1), np.float32)
  mask[:, 4:11, 9:30] = 1
  first, again, second = (
    predict(image * (1 - mask), mask, np.zeros(1, np.int32), k) for k in (0, 0, 1)
  )
  known = np.broadcast_to(mask == 0, image.shape)
  np.testing.assert_array_equal(first[known], image[known])
  np.testing.assert_array_equal(first, again)
  assert (first != second).any() == predict.samples == sample


def test_terms_without_weight_are_not_built():
  made = systems.make_recipe(small(loss=dict(adversarial=0.0)))
  assert made.networks == ('generator',)
  assert [u.name for u in made.phases[0].updates] == ['generator']


@pytest.mark.parametrize(
  'section, values, message',
  [
    ('model', dict(levels=3), r'model.levels 3 must be one of: 4, 5, 6, 7, 8, 9'),
    ('model', dict(fill=2.0), r'model.fill 2.0 must be a grey in \[0, 1\]'),
    ('model', dict(dropout=1.0), r'model.dropout 1.0 must be in \[0, 1\)'),
    ('model', dict(width=0), r'model.width 0 must be an integer of at least 1'),
    ('loss', dict(l1=-1.0), r'loss.l1 -1.0 must be finite and >= 0'),
    ('loss', dict(l1=0.0, adversarial=0.0), r'nothing to train'),
  ],
)
def test_settings_that_do_not_fit_are_refused(section, values, message):
  config = systems.default_config('pix2pix')
  config[section].update(values)
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_images_too_small_for_the_critic_are_refused():
  made = systems.make_recipe(small())
  with pytest.raises(ValueError, match=r'16 x 16 .*config.data.size >= 24'):
    jax.eval_shape(made.init, jax.random.key(0), batch(16))
  jax.eval_shape(made.init, jax.random.key(0), batch(32))


def test_default_config_is_the_released_one():
  config = systems.default_config('pix2pix')
  assert config.loss.to_dict() == dict(l1=100.0, adversarial=1.0) and config.model.sample
  generator = networks.Generator()
  assert all(
    config.model[n] == getattr(generator, n)
    for n in ('width', 'levels', 'fill', 'dropout', 'norm_over_batch')
  )
  inference = systems.make_recipe(config).inference
  assert inference.multiple == 256 and inference.samples
