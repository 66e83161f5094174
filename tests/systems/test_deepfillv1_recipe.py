import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinpaint import arrays, systems
from jaxinpaint.losses import reconstruction
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import two_critics, windows
from jaxinpaint.systems.deepfillv1 import networks
from jaxinpaint.training import state as state_lib
from jaxinpaint.training import step as step_lib

SIZE, LOCAL = 32, 16


def small(model=None, phases=None, **loss):
  config = systems.default_config('deepfillv1')
  sizes = dict(width=4, critic_width=4, image_size=SIZE, local_size=LOCAL)
  config.model.update(sizes | (model or {}))
  config.loss.update(loss)
  config.phases.update(phases or {})
  return config


def batch(size=SIZE):
  image = np.random.default_rng(0).random((2, size, size, 3), np.float32)
  mask = np.zeros((2, size, size, 1), np.float32)
  mask[0, 6:18, 3:17] = mask[1, 20:30, 8:20] = 1
  return {'image': image, 'mask': mask, 'id': np.arange(2)}


def filled(made, data):
  """Parameters of a recipe, without compiling its initialisation."""
  shapes = jax.eval_shape(made.init, jax.random.key(1), data)
  rng = np.random.default_rng(1)
  draw = lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape) * 0.1, jnp.float32)
  return jax.tree.map(draw, shapes)


def changed(old, new):
  same = jax.tree.map(lambda a, b: np.array_equal(a, b), old, new)
  return {name for name, tree in same.items() if not all(jax.tree.leaves(tree))}


def test_each_update_trains_its_networks():
  made = systems.make_recipe(small(phases=dict(coarse=1, joint=-1), critic_steps=2))
  optimizers = {name: optax.sgd(0.1) for name in made.optimizers}
  variables = filled(made, batch())
  state = state_lib.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables.params,
    stats=variables.stats,
    opt={
      name: optimizers[name].init(variables.pick(trained).params)
      for name, trained in made.optimizers.items()
    },
    ema={},
  )
  train_step = step_lib.make_train_step(made, optimizers)
  assert [made.plan(i).updates for i in range(4)] == [
    ('coarse',),
    ('critic', 'generator'),
    ('critic',),
    ('critic', 'generator'),
  ]

  @jax.jit
  def each(state, data):
    return [train_step(state, {}, data, jax.random.key(2), made.plan(i)) for i in range(2)]

  before = jax.tree.map(np.asarray, state.params)
  want = [{'generator'}, {'generator', *two_critics.CRITICS}]
  for i, (after, metrics) in enumerate(each(state, batch())):
    assert bool(metrics['finite']), step_lib.nonfinite_terms(metrics)
    assert changed(before, after.params) == want[i], i
    if i == 0:  # the first phase leaves the second stage alone
      assert changed(before['generator'], after.params['generator']) == {'coarse'}


def test_fresh_and_same_batches_take_as_many_critic_steps():
  fresh = systems.make_recipe(small())
  active = [fresh.plan(i).updates for i in range(11)]
  assert [i for i, updates in enumerate(active) if 'generator' in updates] == [0, 5, 10]
  assert all('critic' in updates for updates in active)
  assert [(u.name, u.repeat) for u in fresh.phases[0].updates] == [('critic', 1), ('generator', 1)]
  same = systems.make_recipe(small(critic_batches='same'))
  assert [(u.name, u.repeat, u.every) for u in same.phases[0].updates] == [
    ('critic', 5, 1),
    ('generator', 1, 1),
  ]


def test_the_box_of_a_shrunk_mask_is_found_again():
  rng = np.random.default_rng(0)
  masks, want = [], []
  for _ in range(50):
    top, left = rng.integers(0, 64 - 32, size=2)
    less = rng.integers(0, 5, size=2)
    mask = np.zeros((64, 64, 1), np.float32)
    mask[top + less[0] : top + 32 - less[0], left + less[1] : left + 32 - less[1]] = 1
    masks.append(mask)
    want.append((top, left))
  corner = windows.middle_window(jnp.asarray(np.stack(masks)), 32)
  np.testing.assert_array_equal(np.stack(corner, 1), want)
  patches = windows.cut(jnp.asarray(np.stack(masks)), corner, 32)
  assert patches.shape == (50, 32, 32, 1)
  np.testing.assert_array_equal(patches.sum((1, 2, 3)), np.stack(masks).sum((1, 2, 3)))
  # At the border, without a hole, and larger than the box.
  odd = np.zeros((3, 64, 64, 1), np.float32)
  odd[0, 60:, :4] = 1
  odd[2] = 1
  corner = np.stack(windows.middle_window(odd, 32), 1)
  np.testing.assert_array_equal(corner, [(32, 0), (16, 16), (16, 16)])


def generator_terms(data, outputs, **loss):
  made = systems.make_recipe(small(adversarial=0.0, **loss))
  update = made.phases[0].updates[0]
  assert update.every == 1 and made.networks == ('generator',)
  total, aux = update.loss(Variables({}, {}), {}, outputs, data, jax.random.key(0))
  return float(total), {k: float(v) for k, v in aux['metrics'].items()}


def test_reconstruction_terms_by_hand():
  data = batch()
  image, mask = data['image'], data['mask']
  outputs = {'coarse': image + 0.25, 'out': image - 0.1}
  total, terms = generator_terms(data, outputs)
  discount = float(reconstruction.spatial_discount_mask(LOCAL, LOCAL).mean())
  want = {
    'l1_coarse': 1.2 * 1.2 * 0.5 * discount,  # 0.25 in [0, 1] is 0.5 in [-1, 1]
    'l1_out': 1.2 * 0.2 * discount,
    'ae_coarse': 1.2 * 1.2 * 0.5,
    'ae_out': 1.2 * 0.2,
  }
  assert {k: terms[k] for k in want} == pytest.approx(want, rel=1e-4)
  assert total == pytest.approx(sum(want.values()), rel=1e-4)
  known = float((1 - mask).mean())
  _, terms = generator_terms(data, outputs, ae_over_known=False, discount=1.0)
  assert terms['ae_out'] == pytest.approx(1.2 * 0.2 * known, rel=1e-4)
  assert terms['l1_out'] == pytest.approx(1.2 * 0.2, rel=1e-4)
  # Pasted into the image, known pixels have no error: the holes' share of the boxes remains.
  _, terms = generator_terms(data, outputs, l1_on='comp', discount=1.0)
  share = float(mask.sum() / (2 * LOCAL**2))
  assert terms['l1_out'] == pytest.approx(1.2 * 0.2 * share, rel=1e-4)
  everything = data | {'mask': jnp.ones_like(mask)}
  assert np.isfinite(generator_terms(everything, outputs)[0])


def critic_terms(variables, outputs, data, **loss):
  update = systems.make_recipe(small(**loss)).phases[0].updates[0]
  return update.loss(variables, {}, outputs, data, jax.random.key(3))[1]['metrics']


def numbers(terms):
  return {k: float(v) for k, v in terms.items()}


def test_critics_see_completed_images_and_penalties_the_hole():
  data = batch()
  made = systems.make_recipe(small())
  variables = filled(made, data)
  out = np.random.default_rng(4).random(data['image'].shape, np.float32)
  critic = networks.critics('official', 4)['global_critic']

  @jax.jit
  def run(variables, out, data):
    fake = arrays.compose(out, data['image'], data['mask'])
    fake, real = (critic.apply(variables.of('global_critic'), x) for x in (fake, data['image']))
    outputs = {'coarse': out, 'out': out}
    terms = [critic_terms(variables, outputs, data, gp_masked=masked) for masked in (True, False)]
    return *terms, fake.mean() - real.mean()

  terms, everywhere, want = run(variables, out, data)
  assert systems.default_config('deepfillv1').loss.gp_masked
  assert terms['wasserstein_global'] == pytest.approx(float(want), abs=1e-5)
  assert terms['slope_global'] < everywhere['slope_global']
  # Only the hole of the output reaches the critics.
  again, _, _ = run(variables, np.where(data['mask'] == 1, out, 0), data)
  assert numbers(again) == pytest.approx(numbers(terms), rel=1e-5)


def test_predict_pictures_and_known_pixels():
  made = systems.make_recipe(small())
  data = batch()
  variables = filled(made, data)
  image, mask = data['image'][:, :24], data['mask'][:, :24]
  arguments = (variables, {}, image, mask, jax.random.key(0))
  run = made.inference
  got, pictures = jax.jit(lambda *x: (run.predict(*x), run.pictures(*x)))(*arguments)
  known = np.broadcast_to(np.asarray(mask) == 0, got.shape)
  np.testing.assert_array_equal(np.asarray(got)[known], np.asarray(image)[known])
  assert set(pictures) == {'coarse', 'attention'}
  for picture in pictures.values():
    assert picture.shape == image.shape
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1
  np.testing.assert_array_equal(np.asarray(pictures['coarse'])[known], np.asarray(image)[known])
  baseline = systems.make_recipe(small(model=dict(use_attention=False)))
  drawn = jax.eval_shape(
    baseline.inference.pictures, baseline.shapes(), {}, image, mask, jax.random.key(0)
  )
  assert set(drawn) == {'coarse'}


def test_images_of_another_size_than_the_critics_are_refused():
  made = systems.make_recipe(small())
  loss = made.phases[0].updates[1].loss
  data = batch(40)
  outputs = {'coarse': data['image'], 'out': data['image']}
  with pytest.raises(ValueError, match='32 x 32, the batch has 40 x 40: set config'):
    jax.eval_shape(lambda: loss(Variables({}, {}), {}, outputs, data, jax.random.key(0)))


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (
      lambda c: c.model.update(critic='big'),
      "config.model.critic 'big' must be one of: 'official'",
    ),
    (lambda c: c.loss.update(critic_batches='new'), "'fresh', 'same'"),
    (lambda c: c.loss.update(ae=-1.0), 'config.loss.ae -1.0 must be finite and >= 0'),
    (lambda c: c.loss.update(discount=0.0), 'config.loss.discount 0.0'),
    (lambda c: c.phases.update(joint=0), 'phases: all .* are 0: nothing to train'),
    (lambda c: c.model.update(local_size=64), 'local_size 64 exceeds model.image_size 32'),
    (lambda c: c.loss.update(l1=0.0, ae=0.0, adversarial=0.0), 'nothing to train'),
  ],
)
def test_wrong_settings_are_named(change, words):
  config = small()
  change(config)
  with pytest.raises(ValueError, match=words):
    systems.make_recipe(config)


def test_the_default_is_the_networks_own():
  shown = systems.default_config('deepfillv1').model.to_dict()
  for name in ('critic', 'critic_width', 'image_size', 'local_size'):
    shown.pop(name)
  generator = networks.Generator()
  assert {k: getattr(generator, k) for k in shown} == shown
