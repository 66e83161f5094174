import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinpaint import arrays, systems
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.deepfillv2 import networks, recipe
from jaxinpaint.training import state as state_lib
from jaxinpaint.training import step as step_lib

SIZE = 32


def small(model=None, **loss):
  config = systems.default_config('deepfillv2')
  config.model.update(dict(width=4, critic_width=2) | (model or {}))
  config.loss.update(loss)
  return config


def batch(size=SIZE):
  rng = np.random.default_rng(0)
  mask = np.zeros((2, size, size, 1), np.float32)
  mask[0, 6:18, 3:17] = mask[1, 20:30, 8:20] = 1
  image = rng.random((2, size, size, 3), np.float32)
  lines = (rng.random(mask.shape) < 0.3).astype(np.float32)
  return {'image': image, 'mask': mask, 'id': np.arange(2), 'canny': lines}


def filled(made, data):
  """Variables of a recipe, without compiling its initialisation."""
  rng = np.random.default_rng(1)
  size = lambda leaf: 3 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim == 4 else 0.2
  draw = lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape) * size(leaf), jnp.float32)
  return jax.tree.map(draw, jax.eval_shape(made.init, jax.random.key(1), data))


def changed(old, new):
  same = jax.tree.map(lambda a, b: np.array_equal(a, b), old, new)
  return {name for name, tree in same.items() if not all(jax.tree.leaves(tree))}


def test_a_step_trains_the_critic_and_then_the_generator_whatever_the_holes():
  made = systems.make_recipe(small(dict(sketch=True), sketch_left_out=0.5))
  assert [u.name for u in made.phases[0].updates] == ['critic', 'generator']
  assert [p.steps for p in made.phases] == [-1] and made.inference.inputs == ('canny:sigma=2',)
  optimizers = {name: optax.sgd(0.1) for name in made.optimizers}
  data = batch(16)
  data['mask'] = np.zeros((3, 16, 16, 1), np.float32)
  data['mask'][1, 5, 7] = data['mask'][2] = 1
  data |= {k: np.concatenate([data[k], data[k][:1]]) for k in ('image', 'canny')}
  variables = filled(made, data)
  opt = {
    name: optimizers[name].init(variables.pick(trained).params)
    for name, trained in made.optimizers.items()
  }
  state = state_lib.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables.params,
    stats=variables.stats,
    opt=opt,
    ema={},
  )
  before = jax.tree.map(np.asarray, (state.params, state.stats))
  train_step = step_lib.make_train_step(made, optimizers)
  state, metrics = train_step(state, {}, data, jax.random.key(2), made.plan(0))
  assert bool(metrics['finite']), step_lib.nonfinite_terms(metrics)
  assert changed(before[0], state.params) == {'generator', 'critic'}
  assert changed(before[0]['generator'], state.params['generator']) == {'coarse', 'refine'}
  assert changed(before[1], state.stats) == {'critic'}
  terms = {'critic/real', 'critic/fake', 'generator/ae_coarse', 'generator/ae_out'}
  assert terms | {'generator/adversarial'} <= set(metrics)


def loss_of(made, name):
  return next(u.loss for u in made.phases[0].updates if u.name == name)


def test_reconstruction_terms_by_hand():
  data = batch()
  outputs = {'coarse': data['image'] + 0.25, 'out': data['image'] - 0.1}
  run = lambda made: loss_of(made, 'generator')(Variables({}, {}), {}, outputs, data, None)
  total, aux = run(systems.make_recipe(small(adversarial=0.0, ae=3.0, ae_coarse=0.5)))
  # 0.25 in [0, 1] is 0.5 in [-1, 1]; over the whole image, known pixels too
  want = {'ae_coarse': 3 * 0.5 * 0.5, 'ae_out': 3 * 0.2}
  assert {k: float(aux['metrics'][k]) for k in want} == pytest.approx(want, rel=1e-5)
  assert float(total) == pytest.approx(sum(want.values()), rel=1e-5)
  _, aux = run(systems.make_recipe(small(adversarial=0.0, ae_coarse=0.0)))
  assert set(aux['metrics']) == {'ae_out', 'total'}
  made = systems.make_recipe(small(adversarial=0.0))
  assert made.networks == ('generator',) and [u.name for u in made.phases[0].updates] == [
    'generator'
  ]


@pytest.fixture(scope='module')
def judged():
  """A recipe with sketches, its variables, a batch, the outputs of a pass."""
  made, data = systems.make_recipe(small(dict(sketch=True), adversarial=0.5)), batch()
  out = np.random.default_rng(4).random(data['image'].shape, np.float32)
  return made, filled(made, data), data, {'coarse': out, 'out': out, 'sketch': data['canny']}


def test_critic_and_generator_terms_are_of_completed_images(judged):
  made, variables, data, outputs = judged
  critic = networks.Critic(2, sketch=True)

  @jax.jit
  def run(variables, data, outputs):
    terms = lambda name: loss_of(made, name)(variables, {}, outputs, data, jax.random.key(0))[1]
    score = lambda x, lines: critic.apply(variables.of('critic'), x, data['mask'], lines)
    fake, lines = arrays.compose(outputs['out'], data['image'], data['mask']), data['canny']
    scores = score(data['image'], lines), score(fake, lines), score(fake, 0 * lines)
    return terms('critic')['metrics'], terms('generator'), scores

  found, of_generator, scores = run(variables, data, outputs)
  on_real, on_fake, without_lines = map(np.asarray, scores)
  assert float(found['real']) == pytest.approx(np.maximum(1 - on_real, 0).mean() / 2, rel=1e-4)
  assert float(found['fake']) == pytest.approx(np.maximum(1 + on_fake, 0).mean() / 2, rel=1e-4)
  want = -0.5 * on_fake.mean()
  assert float(of_generator['metrics']['adversarial']) == pytest.approx(want, rel=1e-4, abs=1e-6)
  assert set(of_generator['stats']['critic']) == {'spectral'}
  # Only the hole of the output reaches the critic, and only the hole's lines.
  inside = lambda x: np.where(data['mask'] == 1, x, 0)
  again, _, _ = run(variables, data, {k: inside(v) for k, v in outputs.items()})
  assert float(again['fake']) == pytest.approx(float(found['fake']), rel=1e-5)
  assert np.abs(without_lines - on_fake).max() > 1e-4


class _Shown(nn.Module):
  """A generator whose output is the sketch that it was shown."""

  @nn.compact
  def __call__(self, image, mask, sketch, *, train):
    return {'coarse': image, 'out': sketch}


def test_sketches_are_left_out_for_whole_samples():
  data = {k: jnp.concatenate([v] * 4) for k, v in batch().items()}
  lines = np.asarray(data['canny'])

  def shown(left_out):
    forward = recipe._forward({'generator': _Shown()}, left_out)
    variables = Variables({'generator': {}}, {})
    outputs = forward(variables, {}, data, jax.random.key(3))[0]
    np.testing.assert_array_equal(outputs['sketch'], outputs['out'])
    return np.asarray(outputs['sketch'])

  np.testing.assert_array_equal(shown(0.0), lines)
  half = shown(0.5)
  kept = (half == lines).all((1, 2, 3))
  assert 0 < kept.sum() < len(kept) and not half[~kept].any()
  assert (shown(0.9) == lines).all((1, 2, 3)).sum() < len(lines) / 2, '9 of 10 are left out'


def test_other_shapes_run_the_hole_is_not_read_and_samples_are_apart():
  made = systems.make_recipe(small(dict(sketch=True)))
  data = {k: v[:, :24] if v.ndim > 1 else v for k, v in batch(40).items()}
  image, mask, lines = (data[k] for k in ('image', 'mask', 'canny'))
  variables = filled(made, batch())

  @jax.jit
  def run(image, mask, lines):
    arguments = (variables, {}, image, mask, jax.random.key(0))
    inference = made.inference
    pictures = inference.pictures(*arguments, canny=lines)
    return (
      inference.output(*arguments, canny=lines),
      inference.predict(*arguments, canny=lines),
      pictures,
    )

  out, completed, pictures = run(image, mask, lines)
  assert out.shape == image.shape == (2, 24, 40, 3)
  known = np.broadcast_to(np.asarray(mask) == 0, image.shape)
  np.testing.assert_array_equal(np.asarray(completed)[known], np.asarray(image)[known])
  assert float(jnp.abs(completed - image).max()) > 0.01
  assert set(pictures) == {'coarse', 'attention'}
  for picture in pictures.values():
    assert picture.shape == image.shape
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1
  hidden = jnp.where(mask == 1, 0.5, image)
  np.testing.assert_array_equal(out, run(hidden, mask, lines * mask)[0])  # lines of the hole only
  assert float(jnp.abs(out - run(image, mask, 0 * lines)[0]).max()) > 1e-3
  alone = run(*(jnp.stack([x[1]] * 2) for x in (image, mask, lines)))[0]
  np.testing.assert_allclose(out[1], alone[0], atol=1e-5)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda c: c.model.update(padding='valid'), "config.model.padding 'valid' must be one of"),
    (lambda c: c.model.update(mask_steps=3), 'config.model.mask_steps 3 must be one of: 1, 2'),
    (lambda c: c.model.update(width=5), 'config.model.width 5 must be even'),
    (lambda c: c.model.update(sketch=True, sigma=0.0), 'config.model.sigma 0.0'),
    (lambda c: c.loss.update(ae=-1.0), 'config.loss.ae -1.0 must be finite and >= 0'),
    (lambda c: c.loss.update(ae=0.0, adversarial=0.0), 'nothing to train'),
    (lambda c: c.loss.update(sketch_left_out=0.5), 'set config.model.sketch=True'),
    (lambda c: c.loss.update(sketch_left_out=1.0), 'must be a probability below 1'),
  ],
)
def test_wrong_settings_are_named(change, words):
  config = small()
  change(config)
  with pytest.raises(ValueError, match=words):
    systems.make_recipe(config)


def test_the_default_is_the_networks_own():
  shown = systems.default_config('deepfillv2').model.to_dict()
  for name in ('sigma', 'critic_width'):
    shown.pop(name)
  generator = networks.Generator()
  assert {k: getattr(generator, k) for k in shown} == shown
  assert systems.default_config('deepfillv2').model.critic_width == networks.Critic().width
