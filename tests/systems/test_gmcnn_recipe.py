import functools

import drawn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinpaint import arrays, systems
from jaxinpaint.losses import reconstruction
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import two_critics
from jaxinpaint.systems.gmcnn import networks, recipe
from jaxinpaint.training import step as step_lib

SIZE, LOCAL = 32, 16
NOTHING = Variables({}, {})


@pytest.fixture(autouse=True)
def one_column(monkeypatch):
  """Three take three times as long to trace and compile; the networks' tests have them."""
  monkeypatch.setattr(networks, 'KERNELS', (5,))


@functools.cache
def drawn_of(critic):
  """(recipe, variables) for `batch`."""
  made = systems.make_recipe(small(dict(critic=critic)))
  return made, drawn.variables(made, batch())


def small(model=None, phases=None, **loss):
  config = systems.default_config('gmcnn')
  sizes = dict(width=2, dilations=(1, 1, 1, 2), critic_width=2, image_size=SIZE, local_size=LOCAL)
  config.model.update(sizes | (model or {}))
  config.loss.update(dict(id_mrf=0.0) | loss)
  config.phases.update(phases or {})
  return config


def batch(size=SIZE):
  image = np.random.default_rng(0).random((2, size, size, 3), np.float32)
  mask = np.zeros((2, size, size, 1), np.float32)
  mask[0, 6:18, 3:17] = mask[1, 20:30, 8:20] = 1
  return {'image': image, 'mask': mask, 'id': np.arange(2)}


def changed(old, new):
  same = jax.tree.map(lambda a, b: np.array_equal(a, b), old, new)
  return {name for name, tree in same.items() if not all(jax.tree.leaves(tree))}


@goldens.cases('gmcnn_confidence_mask')
def test_confidence_mask(case):
  data = case.data()
  mask = goldens.nhwc(data['mask'])
  found = jax.jit(reconstruction.confidence_mask)(mask)
  goldens.assert_close(goldens.nchw(found), data['out'], what='seven times')
  once = jax.jit(lambda m: reconstruction.confidence_mask(m, iterations=1))(mask)
  goldens.assert_close(goldens.nchw(once), data['out_iters1'], what='once')
  # Of a single known pixel in a large hole one blur is the window itself.
  hole = np.ones((1, 129, 129, 1), np.float32)
  hole[0, 64, 64] = 0
  window = reconstruction.confidence_mask(hole, iterations=1)[0, 32:97, 32:97, 0]
  wanted = data['kernel'][0, 0].copy()
  wanted[32, 32] = 0
  goldens.assert_close(window, wanted, 1e-9, 'window')


def test_a_narrow_window_falls_towards_the_middle():
  hole = np.zeros((1, 64, 48, 1), np.float32)
  hole[0, 8:56, 8:40] = 1
  fall = []
  for sigma in (reconstruction.CONFIDENCE_SIGMA, 40.0, 5.0):
    found = reconstruction.confidence_mask(hole, sigma=sigma, size=33, iterations=2)[0, ..., 0]
    assert not found[hole[0, ..., 0] == 0].any() and found.max() < 1
    fall.append(float(found[8, 24] / found[32, 24]))
  assert 1 < fall[0] < fall[1] < fall[2]


def test_each_update_trains_its_networks():
  # The hinge's critics: they have statistics too, and no penalty, which takes long to compile.
  phases = dict(reconstruction=1, adversarial=-1)
  made = systems.make_recipe(small(dict(critic='hinge'), phases, critic_steps=1))
  optimizers = {name: optax.sgd(0.1) for name in made.optimizers}
  assert made.optimizers == {'generator': ('generator',), 'critic': two_critics.CRITICS}
  state = drawn.state(made, optimizers, drawn_of('hinge')[1])
  train_step = step_lib.make_train_step(made, optimizers)

  @jax.jit
  def each(state, data):
    return [train_step(state, {}, data, jax.random.key(2), made.plan(i)) for i in range(2)]

  want = ({'generator'}, {'generator', *two_critics.CRITICS})
  for i, (after, metrics) in enumerate(each(state, batch())):
    assert bool(metrics['finite']), step_lib.nonfinite_terms(metrics)
    assert changed(state.params, after.params) == want[i], i
    assert set(after.stats) == set(two_critics.CRITICS)
    assert changed(state.stats, after.stats) == (want[i] - {'generator'}), i


@pytest.mark.parametrize('critic', ['wgan_gp', 'hinge'])
def test_critics_take_several_steps_before_each_of_the_generator(critic):
  phases = dict(reconstruction=1, adversarial=-1)
  made = systems.make_recipe(small(dict(critic=critic), phases, critic_steps=3))
  assert [made.plan(i).updates for i in range(2)] == [('generator',), ('critic', 'generator')]
  assert [(u.repeat, u.every) for u in made.phases[1].updates] == [(3, 1), (1, 1)]
  assert not any(u.fresh_forward for u in made.phases[1].updates) and made.phases[1].share_forward
  assert set(drawn_of(critic)[1].stats) == (
    set(two_critics.CRITICS) if critic == 'hinge' else set()
  )


def terms_of(update, data, constants=None):
  """(outputs, variables) -> the update's terms, compiled once."""
  run = jax.jit(
    lambda outputs, v: update.loss(v, constants or {}, outputs, data, jax.random.key(3))
  )

  def terms(out, variables=NOTHING):
    return checked(*run({'out': out}, variables))

  return terms


def checked(total, aux):
  """{term: value} of a loss, whose total is their sum."""
  metrics = {k: float(v) for k, v in aux['metrics'].items()}
  summed = sum(v for k, v in metrics.items() if k != 'total' and not k.startswith('slope'))
  assert float(total) == pytest.approx(summed, rel=1e-5)
  return metrics


def test_reconstruction_by_hand():
  data = batch()
  image, mask = data['image'], data['mask']
  window = dict(sigma=3.0, size=9, iterations=2)
  settings = {f'confidence_{k}': v for k, v in window.items()}
  (update,) = systems.make_recipe(small(adversarial=0.0, **settings)).phases[0].updates
  terms = terms_of(update, data)(image + jnp.where(mask == 1, 0.25, 0.1))
  confidence = np.asarray(reconstruction.confidence_mask(mask, **window))
  assert confidence.max() < 1 and confidence[0, 6, 3] > 1.2 * confidence[0, 12, 10] > 0
  # 0.25 in [0, 1] is 0.5 in [-1, 1].
  assert set(terms) == {'reconstruction', 'autoencoder', 'total'}
  want = 1.4 * 0.5 * confidence.mean() / float(mask.mean())
  assert terms['reconstruction'] == pytest.approx(want, rel=1e-4)
  assert terms['autoencoder'] == pytest.approx(1.2 * 0.2, rel=1e-4)


def test_holes_of_nothing_one_pixel_and_everything():
  (update,) = systems.make_recipe(small(adversarial=0.0)).phases[0].updates
  data = batch()
  image = data['image']

  @jax.jit
  def run(out, mask):
    loss = lambda out: update.loss(
      Variables({}, {}), {}, {'out': out}, data | {'mask': mask}, jax.random.key(0)
    )
    return jax.value_and_grad(lambda out: loss(out)[0])(out)

  none = np.zeros_like(data['mask'])
  pixel = none.copy()
  pixel[0, 9, 9] = 1
  found = [run(image + np.float32(0.1), m) for m in (none, pixel, none + 1)]
  assert all(np.isfinite(gradient).all() for _, gradient in found)
  # Of a hole without known pixels nothing is confident; beside one pixel all are.
  values = [float(value) for value, _ in found]
  assert values == pytest.approx([0.24, 0.24 + 0.28, 0], abs=1e-3)


def test_critics_see_completed_images_and_the_penalty_the_hole():
  data = batch()
  made, variables = drawn_of('wgan_gp')
  out = np.random.default_rng(4).random(data['image'].shape, np.float32)
  plainly = systems.make_recipe(small(gp_confidence=False))
  updates = [m.phases[1].updates[0] for m in (made, plainly)]
  critic = networks.critics(2)['global_critic']

  @jax.jit
  def run(out, v):
    fake = arrays.compose(out, data['image'], data['mask'])
    score = lambda x: critic.apply(v.of('global_critic'), x).mean()
    found = [u.loss(v, {}, {'out': out}, data, jax.random.key(3)) for u in updates]
    return *found, score(fake) - score(data['image'])

  first, plain, want = run(out, variables)
  first, plain = checked(*first), checked(*plain)
  assert first['critic_global'] == pytest.approx(float(want), abs=1e-5)
  # Only the hole of the output reaches the critics.
  again = checked(*run(np.where(data['mask'] == 1, out, 0), variables)[0])
  assert again == pytest.approx(first, rel=1e-5)
  assert first['slope_global'] < plain['slope_global']
  assert plain['critic_local'] == pytest.approx(first['critic_local'], rel=1e-5)


def test_the_penalty_counts_pixels_by_their_confidence(monkeypatch):
  """With critics that say four times the mean of a picture in [0, 1]."""
  says = lambda nets, name, variables, x: 4 * x.mean((1, 2, 3)).reshape(-1, 1)
  monkeypatch.setattr(two_critics.modules, 'train_pass', lambda *args: (says(*args), {}))
  monkeypatch.setattr(two_critics.modules, 'run', says)
  data = batch()
  window = dict(sigma=3.0, size=9, iterations=2)  # the published one makes them 1 in such a picture
  config = small(gradient_penalty=3.0, **{f'confidence_{k}': v for k, v in window.items()})
  found = terms_of(systems.make_recipe(config).phases[1].updates[0], data)(data['image'])
  # In [-1, 1] the slope of each number is 2 / (SIZE * SIZE * 3); a pixel has three.
  confidence = np.asarray(reconstruction.confidence_mask(data['mask'], **window))
  slopes = 2 / (3 * SIZE**2) * np.sqrt(3 * np.square(confidence).sum((1, 2, 3)))
  assert found['slope_global'] == pytest.approx(slopes.mean(), rel=1e-4)
  assert found['penalty_global'] == pytest.approx(3 * np.square(slopes - 1).mean(), rel=1e-4)


def test_the_hinge_has_no_penalty():
  data = batch()
  made, variables = drawn_of('hinge')
  out = np.random.default_rng(4).random(data['image'].shape, np.float32)
  found = terms_of(made.phases[1].updates[0], data)(out, variables)
  assert set(found) == {'critic_local', 'critic_global', 'total'}
  critic = networks.critics(2, spectral_norm=True)['global_critic']
  score = jax.jit(
    lambda x: critic.apply(variables.of('global_critic'), x, train=True, mutable=['spectral'])[0]
  )
  fake = score(arrays.compose(out, data['image'], data['mask']))
  want = np.maximum(1 - score(data['image']), 0).mean() + np.maximum(1 + fake, 0).mean()
  assert found['critic_global'] == pytest.approx(float(want), abs=1e-5)


def test_generator_terms_of_the_second_phase(monkeypatch):
  # VGG is drawn at random: the loss itself is compared with the code's in tests/losses.
  monkeypatch.setattr(recipe.vgg, 'WIDTHS', (2, 2, 4, 4, 4))
  data = batch()
  made = systems.make_recipe(small(id_mrf=0.05, vgg_depth=16))
  constants = made.load_constants(shapes_only=True)
  deepest = {'conv1_1', 'conv1_2', 'conv2_1', 'conv2_2', 'conv3_1', 'conv3_2', 'conv3_3', 'conv4_1'}
  assert set(constants['vgg']) == deepest
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(rng.standard_normal(x.shape) * 0.5, jnp.float32)
  constants = jax.tree.map(draw, constants)
  variables = drawn_of('wgan_gp')[1]
  out = np.random.default_rng(4).random(data['image'].shape, np.float32)
  terms = terms_of(made.phases[1].updates[1], data, constants)
  first = terms(out, variables)
  names = {'reconstruction', 'autoencoder', 'id_mrf', 'adversarial_local', 'adversarial_global'}
  assert set(first) == {*names, 'total'}
  fake = arrays.compose(out, data['image'], data['mask'])
  score = jax.jit(networks.critics(2)['global_critic'].apply)(variables.of('global_critic'), fake)
  assert first['adversarial_global'] == pytest.approx(-0.001 * float(score.mean()), rel=1e-4)
  # Where the hole is filled truly, only known pixels cost something.
  perfect = terms(jnp.where(data['mask'] == 1, data['image'], out), variables)
  assert perfect['reconstruction'] == 0 < perfect['autoencoder']
  assert 0 < perfect['id_mrf'] < 0.5 * first['id_mrf']


def test_without_a_weight_a_part_is_not_built():
  made = systems.make_recipe(small(adversarial=0.0))
  assert made.networks == ('generator',) and made.load_constants() == {}
  assert [u.name for u in made.phases[1].updates] == ['generator']
  only = systems.make_recipe(small(phases=dict(reconstruction=0)))
  assert [p.name for p in only.phases] == ['adversarial']


def test_images_of_another_size_than_the_critics_are_refused():
  made = systems.make_recipe(small())
  data = batch(40)
  for update in made.phases[1].updates:
    with pytest.raises(ValueError, match='32 x 32, the batch has 40 x 40: set config'):
      jax.eval_shape(
        lambda u=update: u.loss(
          Variables({}, {}), {}, {'out': data['image']}, data, jax.random.key(0)
        )
      )


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda c: c.model.update(critic='big'), "config.model.critic 'big' must be one of: 'wgan_gp'"),
    (lambda c: c.model.update(dilations=(1, 2)), r'dilations \(1, 2\) must be four'),
    (lambda c: c.model.update(width=0), 'config.model.width 0 must be an integer of at least 1'),
    (lambda c: c.model.update(local_size=64), 'local_size 64 exceeds model.image_size 32'),
    (lambda c: c.loss.update(id_mrf=-1.0), 'config.loss.id_mrf -1.0 must be finite and >= 0'),
    (lambda c: c.loss.update(reconstruction=0.0, autoencoder=0.0), 'phase has nothing to train'),
    (lambda c: c.loss.update(confidence_size=64), 'confidence_size 64 must be odd'),
    (lambda c: c.loss.update(confidence_sigma=0.0), 'confidence_sigma 0.0 must be above 0'),
    (lambda c: c.loss.update(id_mrf=1.0, style_layers=('relu9_1',)), "'relu9_1' must be one of"),
    (lambda c: c.loss.update(id_mrf=1.0, vgg_depth=13), 'vgg_depth 13 must be one of: 16, 19'),
    (lambda c: c.loss.update(critic_steps=0), 'config.loss.critic_steps 0'),
    (
      lambda c: c.phases.update(reconstruction=0, adversarial=0),
      'phases: all .* are 0: nothing to train',
    ),
  ],
)
def test_wrong_settings_are_named(change, words):
  config = small()
  change(config)
  with pytest.raises(ValueError, match=words):
    systems.make_recipe(config)


def test_the_default_is_the_networks_own():
  model = systems.default_config('gmcnn').model
  generator = networks.Generator()
  assert (model.width, tuple(model.dilations)) == (generator.width, generator.dilations)
  assert model.critic_width == networks.Critic().width
