"""The recipe of GL: its three phases, local parts and losses, both variants."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinpaint import systems
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.glcic import recipe
from jaxinpaint.training import state as state_lib
from jaxinpaint.training import step as step_lib


def small(variant='pytorch', **sections):
  config = systems.default_config('glcic')
  config.model.update(
    dict(variant=variant, width=4, discriminator_width=2, discriminator_features=8)
    | dict(image_size=64, local_size=32)
  )
  if variant == 'tf':
    config.model.update(dict(image_size=253, local_size=125))
  for section, values in sections.items():
    config[section].update(values)
  return config


@goldens.cases('glcic_losses')
def test_completion_loss(case):
  data = case.data()
  arrays = [goldens.nhwc(data[name]) for name in ('output', 'image', 'mask')]
  goldens.assert_close(recipe.completion_loss(*arrays), data['completion_loss'], what='MSE')


def batch(size=64):
  image = np.random.default_rng(0).random((2, size, size, 3), np.float32)
  mask = np.zeros((2, size, size, 1), np.float32)
  mask[0, 4:20, 6:30] = mask[1, 40:64, 8:24] = 1
  return {'image': image, 'mask': mask, 'id': np.arange(2)}


def start(made, data):
  """Parameters and statistics, drawn without compiling: random kernels, the rest 0 or 1."""
  rng = np.random.default_rng(0)

  def value(path, leaf):
    name, shape = path[-1].key, leaf.shape
    if name == 'kernel':
      return rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
    return np.full(shape, name in ('scale', 'var'), np.float32)

  shapes = jax.eval_shape(made.init, jax.random.key(0), data)
  return jax.tree_util.tree_map_with_path(value, shapes)


@pytest.fixture(scope='module')
def trained():
  """{phase: (state before, state after, metrics)} of one step of each phase, all one program."""
  # With alpha 1 the discriminator learns alike in both of its phases: compiled once.
  config = small(loss=dict(alpha=1.0), phases=dict(completion=1, discriminator=1, joint=1))
  made, data = systems.make_recipe(config), batch()
  # With less to compile than Adadelta, and a state of its own as well: the number of its steps.
  optimizers = {name: optax.sgd(lambda _: 0.01) for name in made.optimizers}
  variables = start(made, data)
  opt = {k: optimizers[k].init(variables.pick(n).params) for k, n in made.optimizers.items()}
  state = state_lib.TrainState(np.zeros((), np.int32), *variables, opt, {})
  step = step_lib.make_train_step(made, optimizers)
  plans = {phase.name: made.plan(i) for i, phase in enumerate(made.phases)}

  @jax.jit
  def each(state, data):
    return {name: step(state, {}, data, jax.random.key(2), plan) for name, plan in plans.items()}

  before = jax.tree.map(np.asarray, state)
  found = {name: (before, *results) for name, results in each(state, data).items()}
  assert all(bool(metrics['finite']) for _, _, metrics in found.values())
  return jax.tree.map(np.asarray, found)


def changed(a, b):
  differs = lambda x, y: bool((np.asarray(x) != np.asarray(y)).any())
  return any(jax.tree.leaves(jax.tree.map(differs, a, b)))


def test_default_config_is_the_published_one():
  config = systems.default_config('glcic')
  assert config.phases.to_dict() == dict(completion=90_000, discriminator=10_000, joint=400_000)
  assert config.loss.alpha == 4e-4 and config.loss.discriminator_in_joint
  made = systems.make_recipe(config)
  assert made.steps == 500_000 and (made.inference.multiple, made.inference.min_side) == (4, 8)
  updates = [tuple(u.name for u in phase.updates) for phase in made.phases]
  assert updates == [('generator',), ('discriminator',), ('discriminator', 'generator')]


@pytest.mark.parametrize(
  'phase, moves',
  [
    ('completion', ('generator',)),
    ('discriminator', ('discriminator',)),
    ('joint', ('generator', 'discriminator')),
  ],
)
def test_a_phase_trains_its_networks_and_no_other(trained, phase, moves):
  before, after, _ = trained[phase]
  for name in ('generator', 'discriminator'):
    assert changed(before.params[name], after.params[name]) == (name in moves), name
    # One optimizer state for each network, which rests where the network does.
    assert changed(before.opt[name], after.opt[name]) == (name in moves), name
  # Batch norm is in training mode wherever a network runs.
  assert changed(before.stats['generator'], after.stats['generator'])
  judged = phase != 'completion'
  assert changed(before.stats['discriminator'], after.stats['discriminator']) == judged


def test_terms_are_of_their_size(trained):
  near = lambda value: pytest.approx(float(value), rel=1e-5)
  completion, joint = trained['completion'][2], trained['joint'][2]
  assert float(completion['generator/total']) == near(completion['generator/mse'])
  alone = trained['discriminator'][2]
  assert float(alone['discriminator/total']) == near(
    alone['discriminator/fake'] + alone['discriminator/real']
  )
  # A young discriminator's scores lie about a half: terms are near log(2) times their weight.
  assert 0.1 < float(alone['discriminator/real']) / (0.5 * np.log(2)) < 3
  for term in ('discriminator/real', 'discriminator/fake', 'generator/adversarial'):
    assert 0.01 < float(joint[term]) / (0.5 * np.log(2)) < 20, term


@pytest.fixture
def judge(monkeypatch):
  """A discriminator that says 2 of fakes and 1 of reals, by whichever output layer is asked."""
  logits = {'fake': jnp.full((2, 1), 2.0), 'real': jnp.ones((2, 1))}
  monkeypatch.setattr(recipe.modules, 'train_pass', lambda *_: (logits, {}))
  return {
    name: np.log1p(np.exp(sign * value))
    for name, sign, value in (('fake', 1, 2), ('real', -1, 1), ('fooled', -1, 2))
  }


def test_weights_follow_the_phase(judge):
  data = batch()
  outputs = dict.fromkeys(('out', 'local', 'real_local'), data['image'] + 0.5)
  mse = 0.25 * float(data['mask'].mean())
  both = judge['fake'] + judge['real']
  # alpha = 0.25; the tf variant's values lie in [-1, 1], and it has no halves.
  for variant, want in {
    'pytorch': [mse, both / 2, 0.25 * both / 2, (mse + 0.25 * judge['fooled']) / 2],
    'tf': [4 * mse, 0.25 * both, 0.25 * both, 4 * mse + 0.25 * judge['fooled']],
  }.items():
    phases = systems.make_recipe(small(variant, loss=dict(alpha=0.25))).phases
    totals = []
    for update in (u for phase in phases for u in phase.updates):
      total, aux = update.loss(Variables({}, {}), {}, outputs, data, jax.random.key(0))
      metrics = dict(aux['metrics'])
      assert float(metrics.pop('total')) == pytest.approx(float(sum(metrics.values())), rel=1e-6)
      totals.append(float(total))
    assert totals == pytest.approx(want, rel=1e-5), variant


def test_cross_entropy_is_clamped_as_pytorchs():
  logits = jnp.array([[0.0], [3.0], [-250.0]])
  small = np.log1p(np.exp(-3))
  for target, want in ((1.0, [np.log(2), small, 100]), (0.0, [np.log(2), 3 + small, 0])):
    got = recipe.cross_entropy(logits, target)
    assert float(got) == pytest.approx(np.mean(want), rel=1e-6)
  assert np.isfinite(jax.grad(lambda x: recipe.cross_entropy(x, 1.0))(logits)).all()


def test_adadelta_is_pytorchs():
  rng = np.random.default_rng(0)
  optimizer, square, delta = optax.adadelta(1.0, rho=0.9, eps=1e-6), np.zeros(5), np.zeros(5)
  x = np.zeros(5, np.float32)
  state = optimizer.init(x)
  want = x.astype(np.float64)
  for _ in range(4):
    g = rng.normal(size=5) * 1e-2
    # torch.optim.Adadelta's documentation, line by line
    square = square * 0.9 + g**2 * 0.1
    change = np.sqrt(delta + 1e-6) / np.sqrt(square + 1e-6) * g
    delta = delta * 0.9 + change**2 * 0.1
    want -= change
    updates, state = optimizer.update(jnp.asarray(g, jnp.float32), state, x)
    x = optax.apply_updates(x, updates)
  np.testing.assert_allclose(x, want, rtol=1e-5)


@pytest.mark.parametrize('variant', recipe.VARIANTS)
def test_predict_keeps_known_pixels_and_minds_no_neighbour(variant):
  made = systems.make_recipe(small(variant))
  data = batch()
  image, mask = data['image'][:, :, :40], data['mask'][:, :, :40]
  variables = start(made, data)
  predict = jax.jit(made.inference.predict)
  got = predict(variables, {}, image, mask, jax.random.key(0))
  known = np.broadcast_to(np.asarray(mask) == 0, got.shape)
  np.testing.assert_array_equal(np.asarray(got)[known], np.asarray(image)[known])
  assert (np.asarray(got)[~known] != np.asarray(image)[~known]).all()
  other = image * np.float32([1, 0])[:, None, None, None]
  again = predict(variables, {}, other, mask, jax.random.key(0))
  np.testing.assert_allclose(again[0], got[0], atol=1e-6)


def test_the_tf_variant_shows_its_discriminator_the_pasted_image_and_the_box_around_the_hole():
  config = small('tf', loss=dict(discriminator_in_joint=False), phases=dict(completion=0))
  made = systems.make_recipe(config)
  assert [phase.name for phase in made.phases] == ['discriminator', 'joint']
  assert [u.name for u in made.phases[1].updates] == ['generator']
  data = batch(256)
  config.model.image_size = 256
  made = systems.make_recipe(config)
  variables = start(made, data)
  assert variables.stats == {}
  forward = made.phases[1].forward
  outputs, _ = jax.jit(lambda v: forward(v, {}, data, jax.random.key(0)))(variables)
  known = np.broadcast_to(np.asarray(data['mask']) == 0, outputs['out'].shape)
  np.testing.assert_array_equal(np.asarray(outputs['out'])[known], data['image'][known])
  local, real = outputs['local'], outputs['real_local']
  assert local.shape == real.shape == (2, 125, 125, 3)
  # Rows 0 to 30 and columns 0 to 40 of the first image: ten more than the hole on each side.
  np.testing.assert_allclose(real[0, 0, 0], data['image'][0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(real[0, -1, -1], data['image'][0, 29, 39], atol=0.5)
  np.testing.assert_array_equal(local[0, 0], real[0, 0])
  assert (np.asarray(local[0, 62, 60]) != np.asarray(real[0, 62, 60])).all()


def test_without_a_discriminator_all_phases_are_mse():
  config = small(loss=dict(alpha=0.0), phases=dict(discriminator=0, joint=-1))
  made = systems.make_recipe(config)
  assert made.networks == ('generator',) and made.steps is None
  assert [u.name for phase in made.phases for u in phase.updates] == ['generator', 'generator']


@pytest.mark.parametrize(
  'section, values, message',
  [
    ('model', dict(image_size=150), r'image_size 150 must be a multiple of 32'),
    ('model', dict(discriminator='places2', image_size=160), r'160 must be a multiple of 64'),
    ('model', dict(local_size=100), r'local_size 100 must be a multiple of 32'),
    ('model', dict(local_size=192), r'local_size 192 must not exceed image_size 160'),
    ('model', dict(variant='tf'), r'image_size 160 must be at least 253'),
    ('model', dict(mpv=(120, 110, 100)), r'mpv .* in \[0, 1\]'),
    ('model', dict(variant='keras'), r"'keras' must be one of: 'pytorch', 'tf'"),
    ('loss', dict(alpha=-1.0), r'alpha -1.0 must be >= 0'),
    ('loss', dict(alpha=0.0), r'set config.phases.discriminator=0 too'),
    ('phases', dict(completion=-1), r'phases.completion -1 must be a number of steps'),
    ('phases', dict(completion=0, discriminator=0, joint=0), r'nothing to train'),
  ],
)
def test_settings_that_do_not_fit_are_refused(section, values, message):
  config = systems.default_config('glcic')
  config[section].update(values)
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_training_images_of_another_size_are_refused_in_the_first_phase():
  made = systems.make_recipe(small())
  data = batch(96)
  variables = jax.eval_shape(made.init, jax.random.key(0), data)
  forward = lambda v: made.phases[0].forward(v, {}, data, jax.random.key(0))
  with pytest.raises(ValueError, match=r'are 96 x 96, but .* config.model.image_size=64'):
    jax.eval_shape(forward, variables)
