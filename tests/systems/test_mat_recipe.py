"""How MAT is trained, run and imported."""

import functools

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.recipe import Plan, Variables
from jaxinpaint.systems.mat import networks, published, recipe
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, step
from jaxinpaint.weights import mapping

SMALL = dict(size=32, tokens=16, features=4, heads=2, style_dim=4, mlp_layers=1, max_channels=4)


def small(**loss):
  config = config_lib.base('mat')
  with config.unlocked():
    for name in ('generator', 'critics'):
      config.optimizers[name] = dict(name='sgd', learning_rate=10.0)
  recipe.quicktest(config)
  config.model.update(SMALL)
  config.model.depths = (1, 1, 1, 1, 1)
  config.loss.update(loss)
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 32, 32, 1), np.float32)
  mask[0, 8:24, 10:30] = 1
  mask[1, 20:, :] = 1
  image = rng.random((2, 32, 32, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(2, dtype=np.int32))


@pytest.fixture(scope='module')
def made(batch):
  ready = systems.make_recipe(small())
  variables = drawn.variables(ready, batch)
  rng = np.random.default_rng(1)

  def draw(path, x):
    """As the layers' own: normal kernels, larger ones of the mapping, styles about one."""
    names = [k.key for k in path]
    if names[-1] == 'kernel':
      return rng.standard_normal(x.shape).astype(np.float32) * (100 if 'mapping' in names else 1)
    return np.full(x.shape, 'modulation' in names or names[-1] == 'noise_weight', np.float32)

  params = jax.tree_util.tree_map_with_path(draw, variables.params)
  return ready, variables._replace(params=jax.tree.map(jnp.asarray, params))


@pytest.fixture(scope='module')
def predict(made):
  return functools.partial(jax.jit(made[0].inference.predict), made[1], {})


def test_known_pixels_stay_and_hidden_ones_are_not_read(predict, batch):
  image, mask, key = batch['image'], batch['mask'], jax.random.key(0)
  out = np.asarray(predict(image, mask, key))
  known = np.broadcast_to(mask == 0, out.shape)
  np.testing.assert_array_equal(out[known], image[known])
  assert out.min() >= 0 and out.max() <= 1
  np.testing.assert_array_equal(out, predict(np.where(mask == 1, 1 - image, image), mask, key))


def test_another_key_is_another_completion(made, predict, batch):
  assert made[0].inference.samples
  one, same, other = (
    np.asarray(predict(batch['image'], batch['mask'], jax.random.key(k))) for k in (0, 0, 1)
  )
  np.testing.assert_array_equal(one, same)
  hole = np.broadcast_to(batch['mask'] == 1, one.shape)
  assert np.abs(one - other)[hole].mean() > 1e-4


def test_pictures_of_several_sizes_and_no_others_are_taken(made):
  inference = made[0].inference
  assert (inference.multiple, inference.min_side) == (32, 32)
  run = lambda *size: jax.eval_shape(
    inference.predict,
    made[1],
    {},
    jax.ShapeDtypeStruct((1, *size, 3), np.float32),
    jax.ShapeDtypeStruct((1, *size, 1), np.float32),
    jax.random.key(0),
  )
  assert run(64, 96).shape == (1, 64, 96, 3)
  with pytest.raises(ValueError, match='width 48 must be a multiple of 32'):
    run(32, 48)
  published = systems.inference(systems.default_config('mat'))
  assert (published.multiple, published.min_side) == (512, 512)


def changed(before, after):
  """{network: paths of its parameters that differ}."""
  moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), before, after)
  return {
    name: [jax.tree_util.keystr(p) for p, m in jax.tree.leaves_with_path(tree) if m]
    for name, tree in moved.items()
  }


def run_step(made, batch, plan):
  """(networks' parameters and statistics before, state after, metrics) of one step."""
  ready, variables = made
  txs = optimizers.make_optimizers(small().optimizers, ready.optimizers)
  start = drawn.state(ready, txs, variables)
  before = jax.tree.map(np.asarray, (start.params, start.stats))
  after, metrics = step.make_train_step(ready, txs)(start, {}, batch, jax.random.key(1), plan)
  assert metrics['finite']
  return before, after, metrics


def check_all_moved(before, after, networks):
  moved = changed(before, after)
  for name, paths in moved.items():
    every = {jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(before[name])}
    wanted = every if name in networks else set()
    assert set(paths) == wanted, f'{name}: {sorted(wanted ^ set(paths))}'


def test_a_step_trains_all_of_the_generator_and_moves_the_average_latent(made, batch, monkeypatch):
  """Its critics' place is taken by means, whose programs are short."""
  own = recipe.modules.run
  mean = lambda networks, name, variables, *args, **settings: (
    own(networks, name, variables, *args, **settings)
    if name == 'generator'
    else jnp.square(args[0]).mean((1, 2, 3))[:, None]
  )
  monkeypatch.setattr(recipe.modules, 'run', mean)
  plan = Plan(0, ('generator',))
  (params, stats), after, _ = run_step((systems.make_recipe(small()), made[1]), batch, plan)
  check_all_moved(params, after.params, ('generator',))
  old, new = (x['generator']['buffers'] for x in (stats, after.stats))
  assert (np.asarray(new['w_avg']) != old['w_avg']).all()
  np.testing.assert_array_equal(new['noise0'], old['noise0'])


@pytest.mark.slow
def test_a_step_trains_every_network(made, batch):
  (params, _), after, metrics = run_step(made, batch, made[0].plan(0))
  check_all_moved(params, after.params, ('generator', 'critic', 'critic_stage1'))
  assert {name.split('/')[0] for name in metrics} == {'generator', 'critics', 'r1', 'finite'}


def test_updates_and_their_plans(made):
  ready = made[0]
  updates = ready.phases[0].updates
  both = ('critic', 'critic_stage1')
  assert [(u.name, u.trains, u.optimizer, u.every) for u in updates] == [
    ('generator', ('generator',), 'generator', 1),
    ('critics', both, 'critics', 1),
    ('r1', both, 'critics', 2),
  ]
  assert ready.plan(1).updates == ('generator', 'critics')
  assert recipe.default_config().loss.r1_every == 16


@pytest.fixture
def judged(monkeypatch, batch):
  """Critics whose logit is a multiple of the mean of the picture; what they saw."""
  seen = {}

  def run(networks, name, variables, x):
    seen.setdefault(name, []).append(x)
    return (2.0 if name == 'critic' else 3.0) * x[..., 1:].mean((1, 2, 3))[:, None]

  monkeypatch.setattr(recipe.modules, 'run', run)
  return seen


def test_terms_by_hand(judged, batch):
  ready = systems.make_recipe(small())
  image = jnp.asarray(batch['image'])
  outputs = dict(out=0 * image + 0.75, stage1=0 * image + 0.25)  # 0.5 and -0.5 in [-1, 1]
  losses = {u.name: u.loss for u in ready.phases[0].updates}
  call = lambda name: losses[name](Variables({}, {}), {}, outputs, batch, jax.random.key(0))[1]
  soft = lambda x: np.log1p(np.exp(np.asarray(x, np.float64)))
  terms = {k: float(v) for k, v in call('generator')['metrics'].items()}
  want = dict(adversarial_out=soft(-1.0), adversarial_stage1=soft(1.5))
  assert terms == pytest.approx(want | {'total': sum(want.values())}, rel=1e-5)
  np.testing.assert_array_equal(judged['critic'][0][..., :1], 0.5 - batch['mask'])
  terms = {k: float(v) for k, v in call('critics')['metrics'].items()}
  real = (2 * batch['image'] - 1).mean((1, 2, 3))
  want = dict(real_out=soft(-2 * real).mean(), fake_out=soft(1.0))
  want |= dict(real_stage1=soft(-3 * real).mean(), fake_stage1=soft(-1.5))
  assert terms == pytest.approx(want | {'total': sum(want.values())}, rel=1e-5)
  # The gradient is 2 (3) / n at each of n numbers: squared and summed 4 / n (9 / n).
  terms = {k: float(v) for k, v in call('r1')['metrics'].items()}
  n = 32 * 32 * 3
  want = dict(critic=2 * 10 / 2 * 4 / n, critic_stage1=2 * 10 / 2 * 9 / n)
  assert terms == pytest.approx(want | {'total': sum(want.values())}, rel=1e-4)


def test_the_perceptual_term_compares_two_layers_before_their_activation(
  monkeypatch, judged, batch
):
  image = jnp.asarray(batch['image'])
  weights = {'conv4_4': 1 / 4, 'conv5_4': 1 / 2}

  def apply(params, images, layers, *, depth, dtype):
    assert (params, depth) == ('VGG', 19)
    return {name: (i + 1) * images for i, name in enumerate(layers)}

  monkeypatch.setattr(recipe.vgg, 'apply', apply)
  ready = systems.make_recipe(small(perceptual=0.1))
  outputs = dict(out=image + 0.2, stage1=image)
  loss = ready.phases[0].updates[0].loss
  metrics = loss(Variables({}, {}), {'vgg': 'VGG'}, outputs, batch, jax.random.key(0))[1]['metrics']
  assert float(metrics['perceptual']) == pytest.approx(0.1 * 0.2 * (1 / 4 + 2 / 2), rel=1e-5)
  constants = ready.load_constants(shapes_only=True)['vgg']
  assert set(weights) == set(recipe.VGG_LAYERS) and 'conv5_4' in constants


def test_latents_are_mixed_from_some_layer_on(made, monkeypatch, batch):
  seen = []

  def run(networks, name, variables, image, mask, w, noise, rngs):
    assert noise == 'random'
    seen.append(np.asarray(w))
    return dict(out=image, stage1=image)

  monkeypatch.setattr(recipe.modules, 'run', run)
  for chance in (0.0, 1.0):
    forward = systems.make_recipe(small(style_mixing=chance)).phases[0].forward
    outputs, stats = forward(made[1], {}, batch, jax.random.key(3))
    assert set(stats) == {'generator'} and set(outputs) == {'out', 'stage1'}
  plain, mixed = seen
  assert plain.shape == (2, networks.latent_count(32), 4)
  np.testing.assert_array_equal(plain, plain[:, :1].repeat(plain.shape[1], 1))
  for same in (mixed == plain).all(2):  # of a picture
    at = int(same.sum())
    assert 1 <= at < len(same) and same[:at].all() and not same[at:].any()


def test_training_of_another_size_is_refused(made, batch):
  wide = jax.tree.map(
    lambda x: np.zeros((*x.shape[:2], 64, *x.shape[3:]), x.dtype),
    batch | {'id': np.zeros((2, 1, 1, 1))},
  )
  with pytest.raises(ValueError, match='pictures of 32 x 64 for critics of 32 pixels'):
    made[0].phases[0].forward(made[1], {}, wide, jax.random.key(0))


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'tokens', 128, '512 pixels and 128 x 128 tokens'),
    ('model', 'heads', 7, 'features 180 must be a multiple of config.model.heads 7'),
    ('model', 'max_channels', 5, 'max_channels 5 must be even'),
    ('model', 'depths', (1, 2), r'depths \(1, 2\) must be of five stages'),
    ('model', 'noise', 'some', "noise 'some' must be one of: 'stored'"),
    ('model', 'truncation', 2.0, r'truncation 2.0 must be a number in \[0, 1\]'),
    ('loss', 'style_mixing', -1.0, r'style_mixing -1.0 must be a number in \[0, 1\]'),
    ('loss', 'r1_every', 0, 'r1_every 0 must be an integer of at least 1'),
    ('loss', 'r1', -1.0, 'r1 -1.0 must be finite and >= 0'),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('mat')
  with config.unlocked():
    config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_a_published_state_dict_is_imported_with_its_constants_left_out(made):
  config, variables = small(), made[1]
  tree = variables._asdict()
  state = mapping.export(tree, published.entries(config.model))
  assert state['synthesis.dec.Dec_16x16.conv1.noise_strength'].shape == ()
  state['synthesis.first_stage.tran.0.blocks.1.attn_mask'] = np.zeros((64, 64), np.float32)
  state['synthesis.enc.EncConv_Block_32x32.conv0.resample_filter'] = np.zeros((4, 4), np.float32)
  got = mapping.convert(state, published.entries(config.model), published.IGNORE)
  for kind in ('params', 'stats'):
    jax.tree.map(
      np.testing.assert_array_equal, got[kind]['generator'], dict(tree[kind]['generator'])
    )
  up = ('stage1', 'decoder0', 'conv0', 'conv', 'kernel')
  kernel = functools.reduce(lambda t, k: t[k], up, variables.params['generator'])
  theirs = state['synthesis.first_stage.dec_conv.0.conv0.conv.weight']
  assert theirs[0, 1, 2, 0, 1] == kernel[2, 1, 2, 1], 'the taps are turned'
