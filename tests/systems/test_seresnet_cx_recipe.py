"""The recipe: three phases, what each trains, and what each switch does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinpaint import systems
from jaxinpaint.losses import contextual
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import windows
from jaxinpaint.systems.seresnet_cx import recipe as recipe_lib
from jaxinpaint.training.state import TrainState
from jaxinpaint.training.step import make_train_step


def small(model=(), loss=(), phases=()):
  config = systems.default_config('seresnet_cx')
  sizes = dict(width=4, discriminator_width=2, discriminator_features=4)
  config.model.update(sizes | dict(global_size=32, local_size=20) | dict(model))
  config.loss.update(dict(contextual=0.0) | dict(loss))
  config.phases.update(dict(completion=1, discriminator=1, joint=1) | dict(phases))
  return config


def batch(size=32):
  image = np.random.default_rng(0).random((2, size, size, 3), np.float32)
  mask = np.zeros((2, size, size, 1), np.float32)
  mask[0, 4:12, 4:12] = mask[1, 20:30, 8:20] = 1
  return {'image': image, 'mask': mask, 'id': np.arange(2)}


def filled(recipe, data):
  """Variables of the recipe's shapes, without compiling an initialisation."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(recipe.init, jax.random.key(0), data)
  draw = lambda s: rng.normal(size=s.shape).astype(np.float32) / 8
  ones = lambda s: np.ones(s.shape, np.float32)
  return Variables(jax.tree.map(draw, shapes.params), jax.tree.map(ones, shapes.stats))


@functools.cache
def trained():
  """[(state before, state after, metrics)] of one step of each phase, all one program.

  Without blocks, as they take twice as long to compile; with them it is the quicktest's.
  """
  recipe = systems.make_recipe(small(dict(use_se_resnet=False)))
  data = batch()
  variables = filled(recipe, data)
  # With less to compile than the default Adadelta.
  optimizers = {name: optax.sgd(0.1) for name in recipe.optimizers}
  opt = {k: optimizers[k].init(variables.pick(n).params) for k, n in recipe.optimizers.items()}
  state = TrainState(np.int32(0), *variables, opt, {})
  step = make_train_step(recipe, optimizers)

  @jax.jit
  def each(state, data):
    return [step(state, {}, data, jax.random.key(1), recipe.plan(i)) for i in range(3)]

  # The phases share what they do alike: the generator's pass, the discriminator's update.
  lowered = each.lower(state, data)
  compiled = lowered.compile(compiler_options={'xla_backend_optimization_level': 0})
  before = jax.tree.map(np.asarray, state)
  return [(before, *jax.tree.map(np.asarray, after)) for after in compiled(state, data)]


def moved(before, after):
  """Whether every array of the one tree differs from that of the other; None if only some."""
  same = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
  return None if len(set(same)) > 1 else not same[0]


@pytest.mark.parametrize(
  'i, networks', enumerate((('generator',), ('discriminator',), ('generator', 'discriminator')))
)
def test_each_phase_trains_its_networks_only(i, networks):
  before, after, metrics = trained()[i]
  assert bool(metrics['finite'])
  assert {name.split('/')[0] for name in metrics} - {'finite'} == set(networks)
  for name in ('generator', 'discriminator'):
    changed = [
      not np.array_equal(a, b)
      for a, b in zip(
        jax.tree.leaves(before.params[name]), jax.tree.leaves(after.params[name]), strict=True
      )
    ]
    assert any(changed) == (name in networks) and (not any(changed) or np.mean(changed) > 0.9)
  # The generator's norms see every batch, the discriminator's only where it judges.
  assert moved(before.stats['generator'], after.stats['generator'])
  assert moved(before.stats['discriminator'], after.stats['discriminator']) == (i > 0)


def test_the_joint_phase_judges_before_it_paints():
  recipe = systems.make_recipe(small())
  assert [u.name for u in recipe.phases[2].updates] == ['discriminator', 'generator']
  metrics = trained()[2][2]
  for name, terms in {
    'discriminator': ('real', 'fake'),
    'generator': ('content', 'adversarial'),
  }.items():
    total = sum(float(metrics[f'{name}/{term}']) for term in terms)
    assert float(metrics[f'{name}/total']) == pytest.approx(total, rel=1e-6)


def test_predict_leaves_known_pixels_and_takes_other_shapes_than_squares():
  recipe = systems.make_recipe(small())
  data = batch()
  variables = filled(recipe, data)
  image, mask = data['image'][:, :20], data['mask'][:, :20]
  got = jax.jit(recipe.inference.predict)(variables, {}, image, mask, jax.random.key(0))
  known = np.broadcast_to(np.asarray(mask) == 0, got.shape)
  np.testing.assert_array_equal(np.asarray(got)[known], np.asarray(image)[known])
  assert np.abs(np.asarray(got - image)[~known]).max() > 0.01
  assert recipe.inference.multiple == 4


def generator_loss(config, phase, outputs, data, constants=None):
  """(total, metrics) of the generator's update, its discriminator answering 2 to everything."""
  recipe = systems.make_recipe(config)
  update = next(u for u in recipe.phases[phase].updates if u.name == 'generator')
  total, aux = update.loss(Variables({}, {}), constants or {}, outputs, data, jax.random.key(0))
  return float(total), {k: float(v) for k, v in aux['metrics'].items()}


@pytest.mark.parametrize('region', ['hole', 'known', 'all'])
def test_the_content_loss_is_a_mean_over_all_elements(region):
  data = batch()
  outputs = {'out': data['image'] + 0.5}
  config = small(loss=dict(content_region=region))
  share = {'hole': data['mask'].mean(), 'known': 1 - data['mask'].mean(), 'all': 1.0}[region]
  total, metrics = generator_loss(config, 0, outputs, data)
  assert total == pytest.approx(0.25 * float(share), rel=1e-5) == metrics['content']


@pytest.mark.parametrize('form', ['paper', 'log'])
def test_the_adversarial_loss_has_the_form_asked_for(form, monkeypatch):
  class Always:
    def __init__(self, **fields):
      pass

    def apply(self, variables, local, whole, *, train, mutable):
      assert train and local.shape[1:3] == (20, 20) and whole.shape[1:3] == (32, 32)
      return {'logits': jnp.full((2, 1), 2.0)}, {'batch_stats': {}}

  monkeypatch.setattr(recipe_lib.networks_lib, 'Discriminator', Always)
  data = batch()
  recipe = systems.make_recipe(small(loss=dict(adv_form=form, adversarial=0.5)))
  loss = recipe.phases[2].updates[1].loss
  outputs = {'out': data['image'], 'fake_local': data['image'][:, :20, :20]}
  variables = Variables({'discriminator': {}}, {'discriminator': {}})
  total, _ = loss(variables, {}, outputs, data, jax.random.key(0))
  probability = 1 / (1 + np.exp(-2.0))
  want = -probability if form == 'paper' else -np.log(probability)
  assert float(total) == pytest.approx(0.5 * want, rel=1e-5)


@pytest.mark.parametrize('roles', ['reference', 'paper'])
def test_the_contextual_loss_compares_layers_in_their_roles(roles, monkeypatch):
  layers = ('relu1_1', 'pool1')

  def features(params, image, names, *, depth, dtype):
    assert (params, names, depth) == ('weights', layers, 16)
    return {name: image[:, i::4, i::4] for i, name in enumerate(names)}

  monkeypatch.setattr(recipe_lib.vgg, 'apply', features)
  data = batch()
  outputs = {'out': jnp.flip(data['image'], 3) ** 2}
  loss = dict(
    adversarial=0.0,
    contextual=3.0,
    cx_roles=roles,
    cx_layers=layers,
    cx_h=0.2,
    content_region='known',
  )
  config = small(loss=loss, phases=dict(completion=0, discriminator=0))
  _, metrics = generator_loss(config, 0, outputs, data, {'vgg': 'weights'})
  pairs = [(outputs['out'][:, i::4, i::4], data['image'][:, i::4, i::4]) for i in range(2)]
  value = lambda a, b: float(contextual.contextual_loss(a, b, h=0.2))
  own, other = (3 * sum(value(*p[::s]) for p in pairs) for s in (1, -1))
  if roles == 'paper':
    own, other = other, own
  assert metrics['contextual'] == pytest.approx(own, rel=1e-5)
  assert abs(own - other) > 1e-3


def test_areas_hold_the_hole():
  mask = np.zeros((5, 40, 48, 1), np.float32)
  mask[0, 0:10, 0:10] = 1  # a corner
  mask[1, 30:40, 38:48] = 1  # the other one
  mask[2, 10:30, 14:34] = 1  # fits exactly
  mask[3, 2:38, 20:22] = 1  # too high
  draw = jax.jit(windows.window_on_hole_or_middle, static_argnums=2)
  tops, lefts = [], []
  for i in range(40):
    top, left = draw(jax.random.key(i), mask, 20)
    tops.append(top), lefts.append(left)
  tops, lefts = np.array(tops), np.array(lefts)
  assert tops.min() >= 0 and tops.max() <= 20 and lefts.min() >= 0 and lefts.max() <= 28
  for i in range(3):
    for top, left in zip(tops[:, i], lefts[:, i], strict=True):
      assert mask[i, top : top + 20, left : left + 20].sum() == mask[i].sum()
  assert set(tops[:, 0]) == {0} and len(set(lefts[:, 3])) > 5
  assert set(tops[:, 2]) == {10} and set(lefts[:, 2]) == {14}
  assert set(tops[:, 3]) == {10} and lefts[:, 3].min() >= 2 and lefts[:, 3].max() <= 20
  assert set(tops[:, 4]) == {10} and set(lefts[:, 4]) == {14}  # no hole: the middle
  image = np.random.default_rng(0).random((5, 40, 48, 3), np.float32)
  cut = windows.cut(image, (tops[0], lefts[0]), 20)
  want = image[1, tops[0, 1] : tops[0, 1] + 20, lefts[0, 1] : lefts[0, 1] + 20]
  np.testing.assert_array_equal(cut[1], want)


def test_phases_and_networks_follow_the_weights():
  names = lambda **settings: [p.name for p in systems.make_recipe(small(**settings)).phases]
  assert names() == ['completion', 'discriminator', 'joint']
  assert names(phases=dict(discriminator=0)) == ['completion', 'joint']
  assert systems.make_recipe(small(phases=dict(joint=-1))).steps is None
  alone = small(loss=dict(adversarial=0.0), phases=dict(discriminator=0))
  assert systems.make_recipe(alone).networks == ('generator',)
  published = systems.make_recipe(systems.default_config('seresnet_cx'))
  assert [p.steps for p in published.phases] == [90_000, 10_000, 400_000]
  assert published.optimizers == {'generator': ('generator',), 'discriminator': ('discriminator',)}
  assert published.inference.load_constants() == {}


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(loss=dict(adv_form='hinge')), "adv_form .*'paper', 'log'"),
    (dict(loss=dict(cx_layers=('relu3_4',))), 'cx_layers .*relu3_3'),
    (dict(loss=dict(contextual=-1.0)), 'contextual -1.0 must be finite'),
    (dict(loss=dict(contextual=1.0, cx_h=0.0)), 'positive cx_h'),
    (dict(loss=dict(adversarial=0.0)), 'phases.discriminator=0 too'),
    (dict(model=dict(disc_tail_stride=3)), 'must be 1 or 2'),
    (dict(model=dict(local_size=64)), 'at most global_size'),
    (dict(phases=dict(completion=-1)), 'phases.completion -1'),
  ],
)
def test_what_makes_no_sense_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(small(**settings))


def test_unknown_fields_are_named():
  config = small()
  with config.unlocked():
    config.phases.warmup = 3
  with pytest.raises(ValueError, match=r"config.phases has no 'warmup'"):
    systems.make_recipe(config)


def test_a_size_that_the_discriminator_cannot_take_is_refused_in_the_first_phase():
  recipe = systems.make_recipe(small())
  data = batch(64)
  variables = jax.eval_shape(recipe.init, jax.random.key(0), data)
  with pytest.raises(ValueError, match=r'64 x 64 do not fit .*32 x 32: set config.data.size'):
    jax.eval_shape(recipe.phases[0].forward, variables, {}, data, jax.random.key(0))
