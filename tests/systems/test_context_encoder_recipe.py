"""The recipe of the context encoder: its two losses, its steps, the holes that it fills."""

import drawn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.evaluation import spec as evaluation
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.metrics import protocols
from jaxinpaint.predictor import Predictor
from jaxinpaint.systems.context_encoder import networks, published, recipe
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import preparation
from jaxinpaint.weights import mapping


def small(**sections):
  config = systems.default_config('context_encoder')
  config.model.update(dict(width=4, bottleneck=8, levels=3, image_size=32, discriminator_width=4))
  for section, values in sections.items():
    config[section].update(values)
  return config


def batch(size=32):
  image = np.random.default_rng(0).random((2, size, size, 3), np.float32)
  mask = np.zeros((2, size, size, 1), np.float32)
  mask[:, 12:20, 12:20] = 1
  return {'image': image, 'mask': mask, 'id': np.arange(2)}


@goldens.cases('context_encoder_losses')
def test_losses(case):
  data = case.data()
  fake, real = ((goldens.nhwc(data[name]) + 1) / 2 for name in ('fake', 'real'))
  settings = dict(overlap=4, weight=0.998, overlap_weight=10.0)
  goldens.assert_close(recipe.weighted_l2(fake, real, **settings), data['l2'], what='L2')
  tree = mapping.convert(case.state(), published.discriminator_entries())
  variables = drawn.Variables(tree['params'], tree['stats'])
  made = systems.make_recipe(systems.default_config('context_encoder'))
  loss = made.phases[0].updates[1].loss
  image = jnp.zeros((2, 128, 128, 3)).at[:, 32:96, 32:96].set(real)

  # The code's critic is in evaluation mode here, so that this is a function of known numbers.
  def run(nets, name, variables, *args):
    return nets[name].apply(variables.of(name), *args), {}

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(recipe.modules, 'train_pass', run)
    value = lambda fake, variables: loss(
      variables, {}, {'square': fake}, {'image': image}, jax.random.key(0)
    )  # as constants, the variables would be compiled, too
    (total, aux), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(fake, variables)
  goldens.assert_close(total, data['total_g'], what='total')
  goldens.assert_close(aux['metrics']['adversarial'], 0.002 * data['adv_g'], what='adversarial')
  goldens.assert_close(aux['metrics']['l2'], 0.998 * data['l2'], what='L2')
  # Values in [0, 1] have twice the gradient of those in [-1, 1]. The largest entry is 1e-3.
  gradient = goldens.nchw(gradient)[:, :, ::4, ::4] / 2
  goldens.assert_close(gradient, data['grad_fake_s4'], atol=1e-8, what='gradient')


def test_weights_of_the_square():
  fake = jnp.zeros((1, 6, 8, 3))
  # 2 x 4 pixels in the middle, 40 in the border; the error is 2 where values lie in [-1, 1].
  want = 4 * (8 * 0.5 + 40 * 0.5 * 3) / 48
  got = recipe.weighted_l2(fake, fake + 1, overlap=2, weight=0.5, overlap_weight=3.0)
  assert float(got) == pytest.approx(want, rel=1e-6)
  got = recipe.weighted_l2(fake, fake + 1, overlap=0, weight=0.5, overlap_weight=3.0)
  assert float(got) == pytest.approx(2.0, rel=1e-6)
  # Of the border nothing counts, not even an error there; the mean is still over all pixels.
  fake = fake.at[:, 0].set(100.0)
  got = recipe.weighted_l2(fake, jnp.ones_like(fake), overlap=2, weight=0.5, overlap_weight=0.0)
  assert float(got) == pytest.approx(4 * 8 * 0.5 / 48, rel=1e-6)


@pytest.mark.parametrize('twice', [True, False])
def test_wtl2_weighs_the_square_error(twice, monkeypatch):
  monkeypatch.setattr(recipe.modules, 'train_pass', lambda *_: (jnp.full((2, 1), 2.0), {}))
  made = systems.make_recipe(small(loss=dict(wtl2=0.5, weight_twice=twice, overlap_weight=1.0)))
  data = batch()
  square = data['image'][:, 8:24, 8:24] + 0.25
  loss = made.phases[0].updates[1].loss
  _, aux = loss(drawn.Variables({}, {}), {}, {'square': square}, data, jax.random.key(0))
  terms = dict(aux['metrics'])
  assert float(terms['adversarial']) == pytest.approx(0.5 * np.log1p(np.exp(-2)), rel=1e-5)
  assert float(terms['l2']) == pytest.approx(0.5 * 4 / 16 * (0.5 if twice else 1), rel=1e-5)
  assert float(terms.pop('total')) == pytest.approx(float(sum(terms.values())), rel=1e-6)


@pytest.fixture(scope='module')
def stepping():
  return drawn.stepping(systems.make_recipe(small()), batch())


@pytest.fixture(scope='module')
def trained(stepping):
  return stepping(batch())


def test_a_step_moves_every_parameter_and_statistic(trained):
  before, after, metrics = trained
  assert bool(metrics['finite'])
  moved = lambda a, b: jax.tree.map(lambda x, y: bool((x != y).any()), a, b)
  for name, tree in moved(before.params, after.params).items():
    still = [k for k, v in mapping.flatten(tree).items() if not v]
    assert not still, name
  assert all(jax.tree.leaves(moved(before.stats, after.stats)))


def test_terms_are_of_their_size(trained):
  made, (_, _, metrics) = systems.make_recipe(small()), trained
  assert [u.name for u in made.phases[0].updates] == ['discriminator', 'generator']
  for name, weight in (('discriminator/real', 1), ('discriminator/fake', 1)):
    assert 0.1 < float(metrics[name]) / (weight * np.log(2)) < 10, name
  assert 0.1 < float(metrics['generator/adversarial']) / (0.002 * np.log(2)) < 10


def test_the_critic_is_not_trained_by_the_generators_update():
  made, data = systems.make_recipe(small()), batch()
  variables = drawn.variables(made, data)
  outputs = {'square': data['image'][:, 8:24, 8:24]}
  judge = made.phases[0].updates[0].loss
  slope = lambda out: judge(variables, {}, {'square': out}, data, jax.random.key(0))[0]
  assert not np.asarray(jax.jit(jax.grad(slope))(outputs['square'])).any()


def test_wtl2_of_one_builds_no_critic():
  made = systems.make_recipe(small(loss=dict(wtl2=1.0)))
  assert made.networks == ('generator',)
  assert [u.name for u in made.phases[0].updates] == ['generator']


def test_gradients_are_finite_for_every_mask(stepping):
  none = np.zeros((2, 32, 32, 1), np.float32)
  pixel = none.copy()
  pixel[:, 16, 16] = 1
  for mask in (none, pixel, none + 1):
    _, after, metrics = stepping(batch() | {'mask': mask})
    # Of both updates: their terms, the norms of their gradients and of the changes.
    assert metrics['finite'] and np.isfinite(metrics['generator/grad_norm'])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


def test_predict_fills_any_size_and_keeps_known_pixels():
  made = systems.make_recipe(small())
  variables = drawn.variables(made, batch())
  predict = Predictor(made.inference, variables)
  image = np.random.default_rng(0).random((1, 45, 30, 3), np.float32)
  mask = np.zeros((1, 45, 30, 1), np.float32)
  mask[:, 14:30, 9:20] = 1
  completed = predict(image * (1 - mask), mask, np.zeros(1, np.int32))
  known = np.broadcast_to(mask == 0, image.shape)
  np.testing.assert_array_equal(completed[known], image[known])
  assert (completed[~known] != 0).all()
  # Padding at the bottom would move the middle, so that sizes are not gathered.
  assert predict.for_sizes([(45 + i, 30) for i in range(9)]) is predict


def test_holes_elsewhere_are_refused_wherever_pictures_are_filled():
  made = systems.make_recipe(small())
  variables = drawn.variables(made, batch())
  predict = Predictor(made.inference, variables)
  image, mask = np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 32, 32, 1), np.float32)
  mask[:, :4, 14:18] = 1
  with pytest.raises(ValueError, match='fills holes in the middle'):
    predict(image, mask, np.zeros(1, np.int32))
  with pytest.raises(InpaintError, match='This hole spans rows 0 to 3'):
    Inpainter(predict, name='ce')(image[0], mask[0])
  config = config_lib.base('context_encoder')
  config.data.update(dict(masks='irregular', size=128))
  with pytest.raises(
    ValueError, match=r"config.data.masks 'irregular': .*fills holes in the middle"
  ):
    preparation._check_holes(config, made.inference)
  config.data.masks = 'center:0.25'
  preparation._check_holes(config, made.inference)


def test_an_evaluation_keeps_the_holes_that_are_filled():
  made = systems.make_recipe(small())
  row = {'ce': Predictor(made.inference, drawn.variables(made, batch()))}
  spec = evaluation.ImagesSpec('sample', protocols.SURVEY, size=32, count=1)
  found = evaluation.fillable(spec.load(), row)
  assert [b.name for b in found.masks] == [f'center {p}' for p in (10, 15, 20, 25)]
  elsewhere = evaluation.ImagesSpec('sample', protocols.SEED000, size=32, count=1)
  with pytest.raises(evaluation.EvaluationError, match="'ce': a context encoder fills holes in"):
    evaluation.fillable(elsewhere.load(), row)


@pytest.mark.parametrize(
  'section, values, message',
  [
    ('model', dict(levels=7), r'model.levels 7 must be one of: 3, 4, 5, 6'),
    ('model', dict(overlap=32), r'model.overlap 32 must be a number of pixels from 0 to 31'),
    ('model', dict(image_size=72), r'image_size 72 must be a multiple of 32 and at least 128'),
    ('model', dict(width=0), r'model.width 0 must be an integer of at least 1'),
    ('loss', dict(wtl2=1.5), r'loss.wtl2 1.5 must be in \[0, 1\]'),
    ('loss', dict(overlap_weight=-1.0), r'weight -1.0 .* >= 0 \(0: the border does not count\)'),
    ('loss', dict(wtl2=-1.0), r'loss.wtl2 -1.0 must be finite and >= 0 \(0: not built\)'),
  ],
)
def test_settings_that_do_not_fit_are_refused(section, values, message):
  config = systems.default_config('context_encoder')
  config[section].update(values)
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_training_images_of_another_size_are_refused():
  made, data = systems.make_recipe(small()), batch(36)
  variables = jax.eval_shape(made.init, jax.random.key(0), data)
  forward = lambda v: made.phases[0].forward(v, {}, data, jax.random.key(0))
  with pytest.raises(ValueError, match=r'are 36 x 36, but .* config.model.image_size=32'):
    jax.eval_shape(forward, variables)


def test_default_config_is_the_released_one():
  config = systems.default_config('context_encoder')
  assert config.loss.to_dict() == dict(wtl2=0.998, overlap_weight=10.0, weight_twice=True)
  generator = networks.Generator()
  fields = ('width', 'bottleneck', 'levels', 'overlap', 'image_size', 'hide_square')
  assert all(config.model[n] == getattr(generator, n) for n in fields)
  made = systems.make_recipe(config)
  assert (made.inference.multiple, made.inference.min_side) == (1, 8)
