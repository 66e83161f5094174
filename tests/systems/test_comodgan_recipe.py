"""How Co-Mod-GAN is trained, run and imported."""

import functools

import drawn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxinpaint import systems
from jaxinpaint.layers import operations
from jaxinpaint.layers.stylegan2_networks import NOISES
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Plan, Variables
from jaxinpaint.systems._shared import lazy_r1
from jaxinpaint.systems.comodgan import networks, published, recipe
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, program, sharding, step
from jaxinpaint.weights import importer, mapping, store

SIZE = 8


def small(model=(), **loss):
  config = config_lib.base('comodgan')
  with config.unlocked():
    for network in ('generator', 'critic'):
      config.optimizers[network] = dict(name='sgd', learning_rate=0.1)
  config.model.update(dict(size=SIZE, style_dim=4, mlp_layers=1, features=8, max_channels=4))
  config.model.update(dict(model))
  config.loss.update(loss)
  return config


def normal(shapes):
  """N(0, 1), and 100 times that in the mapping, whose learning rate is a hundredth."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    scale = 100 if 'style' in jax.tree_util.keystr(path) else 1
    return scale * rng.standard_normal(x.shape, np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((4, SIZE, SIZE, 1), np.float32)
  mask[:, 2:6, 1:5] = 1
  mask[1, 4:, 4:] = 1
  image = rng.random((4, SIZE, SIZE, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(4, dtype=np.int32))


@pytest.fixture(scope='module')
def made(batch):
  """The recipe, and variables as after some training: equalised kernels start as N(0, 1)."""
  ready = systems.make_recipe(small())
  return ready, normal(jax.eval_shape(ready.init, jax.random.key(0), batch))


@pytest.fixture(scope='module')
def stepped(made, batch):
  """State before, and after a step with R1 and one without, each with its metrics."""
  ready, variables = made
  txs = optimizers.make_optimizers(small().optimizers, ready.optimizers)
  run = step.make_train_step(ready, txs)
  before = drawn.state(ready, txs, variables)

  @jax.jit
  def both(state):
    return [run(state, {}, batch, jax.random.key(1), ready.plan(i)) for i in (0, 1)]

  return jax.tree.map(np.asarray, (before, *both(before)))


def test_the_critic_follows_the_generator_and_is_penalised_in_every_16th_step():
  updates = systems.make_recipe(small()).phases[0].updates
  want = [('generator', 'generator', 1), ('critic', 'critic', 1), ('r1', 'critic', 16)]
  assert [(u.name, u.optimizer, u.every) for u in updates] == want
  plans = [systems.make_recipe(small()).plan(i).updates for i in (0, 1, 16)]
  assert ['r1' in updates for updates in plans] == [True, False, True]
  names = lambda **loss: [u.name for u in systems.make_recipe(small(**loss)).phases[0].updates]
  assert names(r1=0.0) == ['generator', 'critic']
  assert names(adversarial=0.0, l1=1.0) == ['generator']


@pytest.mark.parametrize(
  'change, match',
  [
    (dict(model=dict(size=48)), 'not 48'),
    (dict(model=dict(noise='const')), "'stored', 'random', 'none'"),
    (dict(model=dict(dropout=1.0)), r'dropout 1.0 must be in \[0, 1\)'),
    (dict(style_mixing=2.0), 'style_mixing 2.0 must be a probability'),
    (dict(adversarial=0.0), 'nothing to train'),
    (dict(r1_every=0), 'r1_every 0'),
  ],
)
def test_what_cannot_be_is_named(change, match):
  with pytest.raises(ValueError, match=match):
    systems.make_recipe(small(**change))


def test_a_step_trains_both_networks_and_moves_the_average_of_w_alone(stepped):
  before, (after, metrics), _ = stepped
  assert metrics['finite']
  for name in ('generator', 'critic'):
    moved = jax.tree.map(lambda a, b: (a != b).any(), before.params[name], after.params[name])
    still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
    assert not still, f'{name}: {still} stand still'
  buffers = [s.stats['generator']['buffers'] for s in (before, after)]
  changed = {k for k in buffers[0] if (buffers[0][k] != buffers[1][k]).any()}
  assert changed == {'latent_avg'}


def test_steps_between_penalties_contain_nothing_of_them(made, stepped, batch):
  ready, variables = made
  txs = optimizers.make_optimizers(small().optimizers, ready.optimizers)
  state = drawn.state(ready, txs, variables)

  def flops(ready, number):
    run = step.make_train_step(ready, txs)
    plan = ready.plan(number)
    take = functools.partial(run, plan=plan)
    return operations.useful_flops(take, state, {}, batch, jax.random.key(0))

  usual, penalised = flops(ready, 1), flops(ready, 0)
  assert usual == flops(systems.make_recipe(small(r1=0.0)), 1)
  # And a step with one has what the penalty's own gradient needs, nothing of the generator.
  penalty = ready.phases[0].updates[2].loss
  alone = jax.grad(lambda p: penalty(variables.with_params(p), {}, {}, batch, None)[0])
  critic = {'critic': variables.params['critic']}
  assert penalised - usual == operations.useful_flops(alone, critic) > 0
  _, (_, first), (_, second) = stepped
  assert {k.split('/')[0] for k in set(first) - set(second)} == {'r1'}


def test_the_penalty_is_of_the_images_alone_and_weighs_what_it_replaces(batch, monkeypatch):
  slope = np.random.default_rng(1).normal(size=(SIZE, SIZE, 4)).astype(np.float32)
  linear = lambda networks, name, variables, x: (x * slope).sum((1, 2, 3))
  monkeypatch.setattr(lazy_r1.modules, 'run', linear)
  update = systems.make_recipe(small(r1=3.0, r1_every=8)).phases[0].updates[2]
  value, aux = update.loss(Variables({}, {}), {}, {}, batch, None)
  want = 3.0 / 2 * 8 * np.square(slope[..., 1:]).sum()  # channel 0 is the mask
  assert float(value) == pytest.approx(want, rel=1e-5)
  assert set(aux['metrics']) == {'critic', 'total'} and update.every == 8


def test_path_lengths_are_optional_and_follow_their_average(batch):
  ready = systems.make_recipe(small(path_length=2.0, r1=0.0))
  updates = [(u.name, u.optimizer, u.every) for u in ready.phases[0].updates]
  assert updates[1] == ('path', 'generator', 4) and len(updates) == 3
  variables = normal(jax.eval_shape(ready.init, jax.random.key(0), batch))
  length = jnp.float32(0.5)
  variables = variables.with_stats({'path': {'buffers': {'length': length}}})
  take = step.make_train_step(
    ready, txs := optimizers.make_optimizers(small().optimizers, ready.optimizers)
  )
  state = drawn.state(ready, txs, variables)
  assert ready.plan(0).updates == ('generator', 'path', 'critic')
  after, metrics = take(state, {}, batch, jax.random.key(1), Plan(0, ('path',)))
  mean = metrics['path/length']
  average = after.stats['path']['buffers']['length']
  assert metrics['finite'] and mean > 0
  np.testing.assert_allclose(average, length + 0.01 * (mean - length), rtol=1e-5)
  assert metrics['path/penalty'] >= 4 * 2 * (mean - average) ** 2 * 0.999  # Jensen


def test_half_of_the_images_mix_two_styles_from_one_of_the_later_layers():
  z, layer = recipe._mixed(jax.random.key(0), 4000, 3, 0.5, 6)
  assert z.shape == (4000, 3)
  counts = np.bincount(layer, minlength=7) / 4000
  assert counts[0] == 0 and counts[6] == pytest.approx(0.5, abs=0.03)
  np.testing.assert_allclose(counts[1:6], 0.1, atol=0.02)


@functools.cache
def generator():
  module = networks.Generator(SIZE, 4, 1, 8, 4)
  zeros = jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros((1, SIZE, SIZE, 1)), jnp.zeros((1, 4))
  shapes = jax.eval_shape(module.init, jax.random.key(0), *zeros)
  return module, normal(shapes)


def test_a_mixed_image_has_one_w_up_to_its_layer_and_the_other_after_it(batch):
  module, variables = generator()
  one, two = jax.random.normal(jax.random.key(0), (2, 4, 4))
  image, mask = batch['image'], batch['mask']

  @jax.jit
  def run(variables, layer, one, two):
    mixed = module.apply(variables, image, mask, one, other=(two, layer))
    return mixed['out'], module.apply(variables, image, mask, one)['out']

  layers = jnp.array([0, 2, 4, 3])  # 4: none of the layers 0 to 3
  mixed, plain = run(variables, layers, one, two)
  other = run(variables, layers, two, two)[1]
  np.testing.assert_allclose(mixed[0], other[0], atol=1e-6)
  np.testing.assert_allclose(mixed[2], plain[2], atol=1e-6)
  for i in (1, 3):
    assert min(float(jnp.abs(mixed[i] - x[i]).max()) for x in (plain, other)) > 1e-4


def test_the_average_follows_w_and_truncation_goes_to_it():
  module, variables = generator()
  z = jax.random.normal(jax.random.key(1), (3, 4))
  run = functools.partial(module.apply, variables, z, method='mapping')
  w, changed = run(train=True, mutable=['buffers'])
  before = variables['buffers']['latent_avg']
  want = before + 0.005 * (w[:, 0].mean(0) - before)
  np.testing.assert_allclose(changed['buffers']['latent_avg'], want, rtol=1e-4)
  np.testing.assert_allclose(run(psi=0.25), before + 0.25 * (w - before), atol=1e-5)


@pytest.fixture(scope='module')
def completions(made, batch):
  """{settings of the model: a completion for each of two keys}; keys and the mask are arguments."""
  kinds = {noise: dict(noise=noise) for noise in NOISES}
  kinds |= {'drop': dict(drop_at_inference=True), 'truncated': dict(truncation=0.5)}
  ready = {name: systems.inference(small(model)) for name, model in kinds.items()}

  @jax.jit
  def run(variables, image, mask, key):
    return {n: r.predict(variables, {}, image, mask, key) for n, r in ready.items()}

  variables = made[1]
  image, mask = batch['image'], batch['mask']
  other = np.where(mask == 1, 1 - image, image)
  keys = [jax.random.key(k) for k in (0, 1)]
  results = [run(variables, x, mask, k) for k in keys for x in (image, other)]
  return [jax.tree.map(np.asarray, r) for r in results]


def test_predict_keeps_known_pixels_and_reads_no_hidden_ones(completions, batch):
  known = np.broadcast_to(batch['mask'] == 0, batch['image'].shape)
  for name, out in completions[0].items():
    np.testing.assert_array_equal(out[known], batch['image'][known])
    np.testing.assert_array_equal(out[~known], completions[1][name][~known])
    assert out.min() >= 0 and out.max() <= 1, name


def test_another_key_or_setting_is_another_completion(completions, batch):
  hole = np.broadcast_to(batch['mask'] == 1, batch['image'].shape)
  differ = lambda a, b: np.abs(a - b)[hole].mean() > 1e-4
  one, _, two, _ = completions
  assert all(differ(one[name], two[name]) for name in one)
  names = list(one)
  assert all(differ(one[a], one[b]) for a in names for b in names if a < b)


def test_pictures_of_any_size_are_resized_to_the_networks_square(made):
  ready, variables = made
  predictor = Predictor(ready.inference, variables)
  rng = np.random.default_rng(0)
  image = rng.random((1, 13, 9, 3), np.float32)
  mask = np.zeros((1, 13, 9, 1), np.float32)
  mask[:, 4:9, 3:7] = 1
  out = predictor(image * (1 - mask), mask, np.arange(1))
  known = np.broadcast_to(mask == 0, image.shape)
  assert out.shape == image.shape and (out[~known] > 0).any()
  np.testing.assert_array_equal(out[known], image[known])
  config = small()
  config.data.size = 16
  with pytest.raises(ValueError, match=r'config\.data\.size 16 must be 8, the side'):
    program.Program.of(config, sharding.make_mesh(data=1))


# Counted from the shapes; no publication states them.
@pytest.mark.parametrize(
  'size, generator, critic',
  [(256, 79_177_378, 28_864_257), (512, 79_792_231, 28_982_913)],
)
def test_parameter_counts(size, generator, critic):
  config = small(dict(recipe.default_config().model, size=size))
  shapes = systems.make_recipe(config).shapes()
  count = lambda name: sum(x.size for x in jax.tree.leaves(shapes.params[name]))
  assert (count('generator'), count('critic')) == (generator, critic)


def test_the_ports_keys_are_those_of_its_files():
  (case,) = (c for c in goldens.all_cases() if c.name == 'comodgan_torch_generator64')
  known = [k for k, _ in case.manifest()['state'] if not k.endswith('resample_filter')]
  assert sorted(e.key for e in published.entries({'size': 64})) == sorted(known)
  assert 'encoder.b256.fromrgb.weight' in {e.key for e in published.entries({'size': 256})}


def test_a_file_of_the_port_is_imported(made, tmp_path):
  ready, variables = made
  state = mapping.export(variables._asdict(), published.entries(small().model))
  assert state['synthesis.b8.conv0.noise_const'].shape == (8, 8)
  assert state['synthesis.b4.conv.noise_strength'].shape == ()
  state['synthesis.b8.resample_filter'] = np.ones((4, 4), np.float32)
  safetensors.numpy.save_file(state, tmp_path / 'file.safetensors')
  formats = {'comodgan': published.FORMATS['comodgan']}
  narrow = importer.Published('comodgan', formats, small, lambda config: ready)
  out = importer.import_file(narrow, tmp_path / 'file.safetensors', tmp_path / 'out')
  stored, own = store.load(out), variables.pick(('generator',))
  for got, want in ((stored.params, own.params), (stored.stats, own.stats)):
    jax.tree.map(np.testing.assert_array_equal, got, dict(want))
