import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from jaxinpaint.recipe import (
  Phase,
  Plan,
  Recipe,
  Update,
)
from jaxinpaint.training import averages, sharding, state, step

SGD = {'generator': optax.sgd(0.1), 'critic': optax.sgd(0.1)}


def start(recipe, txs=SGD, ema=()):
  return state.create(recipe, txs, ema, jax.random.key(0), toy.batch())


def run(recipe, steps, txs=SGD, ema=(), seed=1, batches=None, **kwargs):
  train_step = step.make_train_step(recipe, txs, **kwargs)
  current = start(recipe, txs, ema)
  metrics = None
  for i in range(steps):
    batch = toy.batch(seed=i) if batches is None else batches[i]
    current, metrics = train_step(current, {}, batch, jax.random.key(seed), recipe.plan(i))
  return current, metrics


def assert_trees_equal(a, b, atol=0.0):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


def test_an_update_changes_only_the_networks_it_trains():
  only_critic = toy.recipe(Phase('d', -1, toy.forward, (toy.CRITIC,)))
  before = start(only_critic, {'critic': SGD['critic']})
  after, _ = run(only_critic, 1, {'critic': SGD['critic']})
  assert_trees_equal(before.params['generator'], after.params['generator'])
  assert not np.array_equal(before.params['critic']['w'], after.params['critic']['w'])


def test_shared_forward_gives_the_gradient_of_the_composed_loss():
  recipe = toy.recipe(Phase('g', -1, toy.forward, (toy.GENERATOR,)))
  txs = {'generator': optax.sgd(1.0)}
  before, batch = start(recipe, txs), toy.batch()

  def loss(params):
    out = toy.generate(params, batch['image'], batch['mask'])
    return jnp.abs(out - batch['image']).mean() - 0.1 * toy.criticise(params, out).mean()

  want = jax.grad(loss)(before.params)['generator']
  expected = jax.tree.map(lambda p, g: p - g, before.params['generator'], want)
  after, _ = run(recipe, 1, txs, batches=[batch])
  assert_trees_equal(expected, after.params['generator'], atol=1e-7)


def test_the_second_update_sees_the_first_ones_parameters_but_the_old_forward():
  batch = toy.batch()
  recipe = toy.recipe()
  before = start(recipe)
  _, metrics = run(recipe, 1, batches=[batch])
  out = toy.generate(before.params, batch['image'], batch['mask'])
  critic_first = toy.recipe(Phase('j', -1, toy.forward, (toy.CRITIC, toy.GENERATOR)))
  swapped, swapped_metrics = run(critic_first, 1, batches=[batch])
  # When the critic goes first, the generator's adversarial term is measured by the new critic.
  old = -0.1 * toy.criticise(before.params, out).mean()
  new = -0.1 * toy.criticise(swapped.params, out).mean()
  np.testing.assert_allclose(metrics['generator/adversarial'], old, atol=1e-7)
  np.testing.assert_allclose(swapped_metrics['generator/adversarial'], new, atol=1e-7)
  assert abs(float(old - new)) > 1e-6


def test_fresh_forward_runs_on_the_parameters_left_by_the_update_before():
  seen = dataclasses.replace(toy.GENERATOR, name='again', fresh_forward=True)
  recipe = toy.recipe(Phase('j', -1, toy.forward, (toy.GENERATOR, seen)))
  txs = {'generator': SGD['generator']}
  _, metrics = run(recipe, 1, txs)
  assert float(metrics['again/l1']) < float(metrics['generator/l1'])
  shared = dataclasses.replace(seen, fresh_forward=False)
  _, metrics = run(toy.recipe(Phase('j', -1, toy.forward, (toy.GENERATOR, shared))), 1, txs)
  assert float(metrics['again/l1']) == float(metrics['generator/l1'])


def test_repeat_takes_as_many_optimizer_steps_with_other_random_numbers():
  critic = dataclasses.replace(toy.CRITIC, repeat=3)
  recipe = toy.recipe(Phase('d', -1, toy.forward, (critic,)))
  counted = {'critic': optax.adam(1e-3)}
  after, _ = run(recipe, 2, counted)
  assert int(after.opt['critic'][0].count) == 6


def test_lazy_updates_and_phases_follow_from_the_step():
  lazy = dataclasses.replace(toy.CRITIC, every=4)
  recipe = toy.recipe(
    Phase('warm', 3, toy.forward, (toy.GENERATOR,)),
    Phase('joint', -1, toy.forward, (toy.GENERATOR, lazy)),
  )
  plans = [recipe.plan(s) for s in range(9)]
  assert [p.phase for p in plans] == [0, 0, 0, 1, 1, 1, 1, 1, 1]
  assert [p.updates for p in plans[3:8]] == [
    ('generator', 'critic'),
    ('generator',),
    ('generator',),
    ('generator',),
    ('generator', 'critic'),
  ]
  assert len({recipe.plan(s) for s in range(100)}) == 3
  finite = toy.recipe(Phase('warm', 3, toy.forward, (toy.GENERATOR,)))
  assert finite.steps == 3 and recipe.steps is None
  with pytest.raises(ValueError, match='past the last phase'):
    finite.plan(3)


def test_recipes_that_cannot_work_are_refused():
  with pytest.raises(ValueError, match='has no end'):
    toy.recipe(Phase('a', -1, toy.forward, ()), Phase('b', 5, toy.forward, ()))
  with pytest.raises(ValueError, match='not among'):
    toy.recipe(Phase('a', -1, toy.forward, (Update('u', ('nobody',), toy.critic_loss, 'o'),)))
  other = dataclasses.replace(toy.CRITIC, optimizer='generator')
  with pytest.raises(ValueError, match='share the optimizer'):
    toy.recipe(Phase('a', -1, toy.forward, (toy.GENERATOR, other)))


def test_statistics_of_the_forward_are_kept():
  after, _ = run(toy.recipe(), 1)
  assert float(jnp.abs(after.stats['generator']['batch_stats']['mean']).max()) > 0.01


def test_the_average_follows_the_parameters():
  decay = 0.75
  first, _ = run(toy.recipe(), 1, ema=('generator',), ema_decay=decay)
  begin = start(toy.recipe())
  want = jax.tree.map(
    lambda a, b: decay * a + (1 - decay) * b, begin.params['generator'], first.params['generator']
  )
  assert_trees_equal(want, first.ema['generator'], atol=1e-7)


def test_an_average_with_a_half_life_forgets_by_images_and_ramps_up():
  settings = dict(ema_decay=0.0, ema_half_life=100.0, ema_rampup=0.0, accumulate=1)
  assert averages.decay(settings, 25) ** 4 == pytest.approx(0.5)
  assert averages.decay(settings | dict(accumulate=2), 25) ** 2 == pytest.approx(0.5)
  assert averages.decay(settings | dict(ema_decay=0.9, ema_half_life=0.0), 25) == 0.9
  ramped = averages.decay(settings | dict(ema_rampup=0.5), 20)
  # Half-lives of 0, 10, 20, ... 100 images; a step has 20.
  lives = np.minimum(10.0 * np.arange(13), 100)[1:]
  got = np.array([ramped(jnp.int32(i)) for i in range(13)])
  np.testing.assert_allclose(got, [0, *0.5 ** (20 / lives)], rtol=1e-6)
  after, _ = run(toy.recipe(), 1, ema=('generator',), ema_decay=ramped)
  assert_trees_equal(after.params['generator'], after.ema['generator'])  # nothing of the start
  later, _ = run(toy.recipe(), 2, ema=('generator',), ema_decay=ramped)
  want = jax.tree.map(
    lambda a, b: a / 4 + 3 * b / 4, after.params['generator'], later.params['generator']
  )
  assert_trees_equal(want, later.ema['generator'], atol=1e-7)


@pytest.mark.parametrize(
  'settings, match',
  [
    (dict(ema_half_life=100.0, ema_decay=0.5), 'takes the place of'),
    (dict(ema_rampup=0.05), 'limits config.training.ema_half_life, which is 0'),
    (dict(ema_half_life=-1.0), r'ema_half_life -1.0 must be >= 0'),
    (dict(ema_decay=1.0), r'ema_decay 1.0 must be in \[0, 1\)'),
  ],
)
def test_settings_of_averages_that_mean_nothing_are_refused(settings, match):
  with pytest.raises(ValueError, match=match):
    averages.check(dict(ema_decay=0.0, ema_half_life=0.0, ema_rampup=0.0) | settings)


def test_accumulating_k_batches_equals_one_of_k_times_the_size():
  wide = toy.batch(rows=8)
  halves = [{k: v[:4] for k, v in wide.items()}, {k: v[4:] for k, v in wide.items()}]
  recipe = toy.recipe(Phase('g', -1, toy.forward, (toy.GENERATOR,)))
  txs = {'generator': optax.sgd(0.1)}
  whole, _ = run(recipe, 1, txs, batches=[wide])
  steps = {'generator': optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()}
  parts, _ = run(recipe, 2, steps, ('generator',), batches=halves, ema_decay=0.5, accumulate=2)
  assert_trees_equal(whole.params['generator'], parts.params['generator'], atol=1e-7)
  begin = start(recipe, txs).params['generator']
  half = jax.tree.map(lambda a, b: (a + b) / 2, begin, parts.params['generator'])
  assert_trees_equal(half, parts.ema['generator'], atol=1e-7)


def test_an_average_moves_with_the_optimizer_after_a_step_that_was_skipped():
  recipe = toy.recipe(Phase('g', -1, toy.forward, (toy.GENERATOR,)))
  txs = {'generator': optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()}
  take = step.make_train_step(recipe, txs, ema_decay=0.5, accumulate=2)
  current, key = start(recipe, txs, ('generator',)), jax.random.key(1)
  begin = jax.device_get(current.params['generator'])
  for i in range(3):
    batch = toy.batch(seed=i)
    if i == 1:
      batch['image'] = batch['image'].at[0].set(jnp.nan)
    current, _ = take(current, {}, batch, key, recipe.plan(i))
    if i < 2:
      assert_trees_equal(begin, current.ema['generator'], atol=0)
  half = jax.tree.map(lambda a, b: (a + b) / 2, begin, current.params['generator'])
  assert_trees_equal(half, current.ema['generator'], atol=1e-7)


def test_the_average_of_a_network_rests_while_others_are_trained():
  critic = Phase('c', 2, toy.forward, (toy.CRITIC,))
  recipe = toy.recipe(critic, Phase('joint', -1, toy.forward, (toy.GENERATOR, toy.CRITIC)))
  # An average away from its network, which any move would bring nearer.
  own = start(recipe, SGD, ('generator',))
  away = jax.tree.map(lambda x: np.asarray(x + 1), own.ema['generator'])
  current, take = (
    own.replace(ema={'generator': away}),
    step.make_train_step(recipe, SGD, ema_decay=0.5),
  )
  for i in range(3):
    current, _ = take(current, {}, toy.batch(), jax.random.key(1), recipe.plan(i))
    if i < 2:
      assert_trees_equal(away, current.ema['generator'], atol=0)
  assert float(jnp.abs(current.ema['generator']['w'] - away['w']).min()) > 0.4


def test_a_sick_step_changes_nothing_but_the_clock_and_is_named():
  recipe = toy.recipe()
  train_step = step.make_train_step(recipe, SGD)
  batch = toy.batch()
  batch['image'] = batch['image'].at[0, 0, 0, 0].set(jnp.nan)
  before = start(recipe)
  after, metrics = train_step(start(recipe), {}, batch, jax.random.key(0), recipe.plan(0))
  assert not bool(metrics['finite'])
  assert step.nonfinite_terms(metrics)[:2] == ['generator/adversarial', 'generator/l1']
  assert int(after.step) == 1
  assert_trees_equal(before.replace(step=after.step), after)


def test_eight_devices_equal_one():
  recipe = toy.recipe()
  one, _ = run(recipe, 3)
  for shape in (dict(data=8), dict(data=4, fsdp=2), dict(data=2, spatial=4)):
    mesh = sharding.make_mesh(**shape)
    abstract = jax.eval_shape(lambda: start(recipe))
    placed = sharding.state_sharding(abstract, mesh)
    repl = sharding.replicated(mesh)
    train_step = step.make_train_step(
      recipe,
      SGD,
      state_sharding=placed,
      constants_sharding=repl,
      replicated=repl,
    )
    many = jax.device_put(start(recipe), placed)
    for i in range(3):
      batch = sharding.to_devices(jax.device_get(toy.batch(seed=i)), mesh)
      key = jax.device_put(jax.random.key(1), repl)
      many, _ = train_step(many, {}, batch, key, recipe.plan(i))
    assert_trees_equal(one.params, many.params, atol=1e-6)


def test_fsdp_splits_large_arrays_only():
  mesh = sharding.make_mesh(data=4, fsdp=2)
  shapes = {
    'big': jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32),
    'small': jax.ShapeDtypeStruct((64,), jnp.float32),
  }
  placed = sharding.state_sharding(shapes, mesh)
  assert placed['big'].spec == jax.sharding.PartitionSpec(None, None, None, 'fsdp')
  assert placed['small'].spec == jax.sharding.PartitionSpec()


def test_plan_is_hashable_and_compares_by_value():
  assert Plan(0, ('a',)) == Plan(0, ('a',)) and len({Plan(0, ('a',)), Plan(0, ('a',))}) == 1
  assert isinstance(toy.recipe(), Recipe)
