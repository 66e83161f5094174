"""How MI-GAN is trained, run, merged and imported."""

import functools
import math
import re
import shutil

import drawn
import goldens
import jax
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import lazy_r1
from jaxinpaint.systems.migan import networks, published, recipe
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, step
from jaxinpaint.training.checkpoints import Checkpoints
from jaxinpaint.training.state import TrainState
from jaxinpaint.weights import names, store

SIZE = 8


def small(model=(), **loss):
  config = config_lib.base('migan')
  with config.unlocked():
    for network in ('generator', 'critic'):
      config.optimizers[network] = dict(name='sgd', learning_rate=0.1)
  config.model.update(dict(size=SIZE, max_channels=4) | dict(model))
  config.loss.update(dict(distillation=0.0) | loss)
  return config


def teachers(size=SIZE):
  config = systems.default_config('comodgan')
  config.model.update(dict(size=size, style_dim=4, mlp_layers=1, features=8, max_channels=4))
  return config


@pytest.fixture
def taught(monkeypatch):
  """All sides of these small pictures are learnt from a teacher."""
  monkeypatch.setattr(recipe, 'LEAST_SIDE', SIZE)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
  """A weights file of a narrow Co-Mod-GAN."""
  config = teachers()
  variables = drawn.variables(systems.make_recipe(config), batch_of(1))
  path = tmp_path_factory.mktemp('teacher') / 'teacher.safetensors'
  return store.save(path, 'comodgan', config, *variables.pick(('generator',)))


def batch_of(count):
  rng = np.random.default_rng(0)
  mask = np.zeros((count, SIZE, SIZE, 1), np.float32)
  mask[:, 2:6, 1:5] = 1
  mask[:1, 5:, 5:] = 1
  image = rng.random((count, SIZE, SIZE, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(count, dtype=np.int32))


@functools.cache
def made():
  ready = systems.make_recipe(small())
  return ready, drawn.variables(ready, batch_of(1))


def test_a_step_trains_both_networks_from_a_teacher(teacher, taught):
  config = small(distillation=2.0, teacher=str(teacher), l1=1.0)
  ready, batch = systems.make_recipe(config), batch_of(4)
  variables = drawn.variables(ready, batch)
  txs = optimizers.make_optimizers(config.optimizers, ready.optimizers)
  before = jax.tree.map(np.asarray, drawn.state(ready, txs, variables))
  constants = ready.load_constants()
  as_loaded = jax.tree.map(np.array, constants)
  run = step.make_train_step(ready, txs)
  state = drawn.state(ready, txs, variables)
  after, metrics = run(state, constants, batch, jax.random.key(1), ready.plan(0))
  assert metrics['finite'] and metrics['generator/distillation'] > 0 and metrics['r1/critic'] > 0
  for name in ('generator', 'critic'):
    moved = jax.tree.map(lambda a, b: (a != b).any(), before.params[name], after.params[name])
    still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
    assert not still, f'{name}: {still} stand still'
  jax.tree.map(np.testing.assert_array_equal, before.stats, dict(after.stats))
  jax.tree.map(np.testing.assert_array_equal, constants, as_loaded)


def test_updates_and_what_they_need():
  updates = systems.make_recipe(small()).phases[0].updates
  want = [('generator', 'generator', 1), ('critic', 'critic', 1), ('r1', 'critic', 16)]
  assert [(u.name, u.optimizer, u.every) for u in updates] == want
  of = lambda **loss: [u.name for u in systems.make_recipe(small(**loss)).phases[0].updates]
  assert of(r1=0.0) == ['generator', 'critic']
  assert of(adversarial=0.0, l1=1.0) == ['generator']


@pytest.mark.parametrize(
  'change, match',
  [
    (dict(model=dict(size=48)), 'not 48'),
    (dict(model=dict(form='fast')), "'training', 'merged'"),
    (dict(model=dict(noise='const')), "'stored', 'random', 'none'"),
    (dict(adversarial=0.0), 'nothing to train'),
    (dict(distillation=2.0), 'size 8 has no side of 32 or more'),
    (dict(r1_of='mask'), "'input', 'image'"),
    (dict(r1_every=0), 'r1_every 0'),
  ],
)
def test_what_cannot_be_is_named(change, match):
  with pytest.raises(ValueError, match=match):
    systems.make_recipe(small(**change))


def teach(file, **model):
  """`load_constants` of a student of that teacher."""
  config = small(model, distillation=2.0, teacher=str(file))
  return systems.make_recipe(config).load_constants


def test_a_run_without_its_teacher_stops_with_a_sentence(tmp_path, taught, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  with pytest.raises(
    FileNotFoundError, match='not set: none is published for 8 pixels: give the w'
  ):
    teach('')()
  published = 'comodgan/places2-256, comodgan/ffhq-256, the workdir'
  with pytest.raises(FileNotFoundError, match=f'not set: give {published}'):
    teach('', size=256)()
  with pytest.raises(
    FileNotFoundError, match=r'^config\.loss\.teacher: there are no weights at .*no'
  ):
    teach(tmp_path / 'none.safetensors')()
  with pytest.raises(
    FileNotFoundError, match=r'comodgan/places2-256 cannot be fetched: .* browser'
  ):
    teach('comodgan/places2-256', size=256)()
  (tmp_path / 'teacher.pt').touch()
  with pytest.raises(ValueError, match=r'teacher: .*weights import SYSTEM .*teacher\.pt OUT'):
    teach(tmp_path / 'teacher.pt')()
  # An estimate needs none.
  for absent in ('', tmp_path / 'none', 'comodgan/places2-256'):
    assert teach(absent)(shapes_only=True)['teacher'].params['generator']['encoder']


def test_a_teacher_is_a_file_a_name_or_a_run(teacher, tmp_path, taught, monkeypatch):
  stored = store.load(teacher)
  want = stored.params
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  named = names.converted('comodgan', 'places2-256')
  named.parent.mkdir(parents=True)
  shutil.copy(teacher, named)
  critic = {'critic': np.ones(2, np.float32)}
  ema = jax.tree.map(lambda x: x + 1, want)
  saver = Checkpoints(tmp_path / 'run')
  saver.save(
    TrainState(np.int32(7), want | critic, stored.stats, {}, ema), config_of(teachers()), {}
  )
  saver.close()
  for given, expected in (
    (teacher, want),
    (teacher.with_suffix(''), want),
    ('comodgan/places2-256', want),
    (tmp_path / 'run', ema),
    (f'{tmp_path}/run@7', ema),
  ):
    found = teach(given)()['teacher']
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)


def config_of(system):
  """What a run of this system stores."""
  config = config_lib.base(system.system).unlock()
  config.model = system.model
  return config


def test_a_teacher_that_does_not_fit_is_refused(teacher, tmp_path, taught):
  with pytest.raises(ValueError, match='completes pictures of 8 pixels, its student of 64'):
    teach(teacher, size=64)()
  params = {'generator': {'conv': np.ones(3, np.float32)}}
  other = store.save(tmp_path / 'other.safetensors', 'misf', systems.default_config('misf'), params)
  with pytest.raises(ValueError, match='misf cannot teach'):
    teach(other)()
  wrong = store.save(tmp_path / 'wrong.safetensors', 'comodgan', teachers(), params)
  with pytest.raises(ValueError, match='does not fit'):
    teach(wrong)()


def test_a_teacher_shows_what_each_side_adds(teacher):
  """Added up they are the picture."""
  stored = store.load(teacher)
  ready, batch = systems.inference(teachers()), batch_of(1)
  show = systems.module('comodgan', 'recipe').rgb_by_side(teachers())
  variables, key = Variables(stored.params, stored.stats), jax.random.key(3)
  args = batch['image'], batch['mask'], key
  shown = jax.jit(show)(variables, *args)
  picture = 0.0
  for side in (4, 8):
    assert shown[side].shape == (1, side, side, 3)
    picture = shown[side] + (networks.upsample2(picture) if side > 4 else 0)
  out = jax.jit(ready.output)(variables, {}, *args)
  np.testing.assert_allclose(np.clip((picture + 1) / 2, 0, 1), out, atol=1e-5)


def test_the_distance_is_of_the_holes_of_large_sides():
  rng = np.random.default_rng(0)
  student, teacher = (
    {r: rng.standard_normal((2, r, r, 3)).astype(np.float32) for r in (16, 32, 64)}
    for _ in range(2)
  )
  mask = np.zeros((2, 64, 64, 1), np.float32)
  mask[0, 10:31, :40] = 1
  want = sum(
    np.mean(np.abs(student[r] - teacher[r]) * mask[:, :: 64 // r, :: 64 // r]) for r in (32, 64)
  )
  got = jax.jit(recipe.distance)(student, teacher, mask)
  assert float(got) == pytest.approx(want, rel=1e-5)


def test_the_teachers_part_is_weighted(taught, monkeypatch):
  shows = lambda teacher, constants, image, mask, rng: {SIZE: constants * image - mask}
  monkeypatch.setattr(recipe.Teacher, 'rgb_by_side', shows)
  batch = batch_of(2)
  (update,) = systems.make_recipe(small(distillation=3.0, adversarial=0.0)).phases[0].updates
  rgb = np.random.default_rng(1).normal(size=batch['image'].shape).astype(np.float32)
  value, _ = update.loss(Variables({}, {}), 5.0, {'rgb': {SIZE: rgb}}, batch, None)
  want = 3 * (np.abs(rgb - (5 * batch['image'] - batch['mask'])) * batch['mask']).mean()
  assert float(value) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize('of', ['input', 'image'])
def test_the_penalty_is_of_image_and_mask_unless_told_otherwise(of, monkeypatch):
  slope = np.random.default_rng(1).normal(size=(SIZE, SIZE, 4)).astype(np.float32)
  squares = lambda networks, name, variables, x: (x**2 * slope).sum((1, 2, 3))
  monkeypatch.setattr(lazy_r1.modules, 'run', squares)
  batch, ready = batch_of(4), systems.make_recipe(small(r1=3.0, r1_every=8, r1_of=of))
  update = ready.phases[0].updates[2]
  value, _ = update.loss(Variables({}, {}), {}, {}, batch, None)
  judged = np.concatenate([0.5 - batch['mask'], 2 * batch['image'] - 1], -1)
  gradient = (2 * judged * slope)[..., 0 if of == 'input' else 1 :]
  want = 3.0 / 2 * 8 * np.square(gradient).sum((1, 2, 3)).mean()
  assert float(value) == pytest.approx(want, rel=1e-5)


def test_the_merged_form_completes_as_the_training_form():
  ready, variables = made()
  given = small()
  config, merged = recipe.merged(given, variables.pick(('generator',)))
  assert config.model.form == 'merged' and given.model.form == 'training'
  fast, batch = systems.inference(config), batch_of(2)
  shapes = jax.tree.map(lambda x: x.shape, merged)
  assert shapes == jax.tree.map(lambda x: x.shape, fast.shapes())
  args = {}, batch['image'], batch['mask'], jax.random.key(0)
  want = jax.jit(ready.inference.output)(variables, *args)
  got = jax.jit(fast.output)(merged, *args)
  assert float(want.std()) > 0.05
  np.testing.assert_allclose(got, want, atol=1e-4)
  assert recipe.merged(config, merged) == (config, merged)


def test_noise_is_drawn_for_each_key_only_where_it_is_random():
  batch = batch_of(2)
  variables = made()[1]

  def two(noise):
    run = jax.jit(systems.inference(small(dict(noise=noise))).output)
    return [run(variables, {}, batch['image'], batch['mask'], jax.random.key(k)) for k in (0, 1)]

  stored, none, random = two('stored'), two('none'), two('random')
  np.testing.assert_array_equal(*stored)
  assert np.abs(stored[0] - none[0]).max() > 1e-3 and np.abs(random[0] - random[1]).max() > 1e-3
  assert systems.inference(small(dict(noise='random'))).samples
  assert not systems.inference(small()).samples


def test_predict_keeps_known_pixels_and_reads_no_hidden_ones():
  ready, variables = made()
  rng = np.random.default_rng(0)
  image = rng.random((1, 13, 11, 3), np.float32)
  mask = np.zeros((1, 13, 11, 1), np.float32)
  mask[:, 4:9, 3:7] = 1
  predictor = Predictor(ready.inference, variables)
  out, other = (predictor(x, mask, np.arange(1)) for x in (image * (1 - mask), image))
  known = np.broadcast_to(mask == 0, image.shape)
  np.testing.assert_array_equal(out[known], image[known])
  np.testing.assert_array_equal(out[~known], other[~known])
  assert out.min() >= 0 and out.max() <= 1 and out[~known].std() > 0.01


# With the filters that are in the published files: 5.94 and 5.97 million.
@pytest.mark.parametrize(
  'size, training, merged, critic',
  [(256, 52_686_881, 5_865_505, 39_002_835), (512, 52_935_718, 5_893_158, 39_195_283)],
)
def test_parameter_counts(size, training, merged, critic):
  ready = systems.make_recipe(small(dict(recipe.default_config().model, size=size)))
  fast = systems.inference(small(dict(max_channels=512, size=size, form='merged')))
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  counts = {name: count(x) for name, x in ready.shapes().params.items()}
  assert counts == dict(generator=training, critic=critic)
  assert count(fast.shapes().params) == merged
  filters = sum(math.prod(shape) for key, shape, _ in constants(size) if key.endswith('weight'))
  assert f'{(merged + filters) / 1e6:.2f}' == {256: '5.94', 512: '5.97'}[size]


def constants(size):
  """[(key, shape, formula)] of a published file's constants."""
  name = {256: 'migan_generator', 512: 'migan_generator_512'}[size]
  (case,) = (c for c in goldens.all_cases() if c.name == name)
  return case.manifest()['constants']


def test_the_published_keys_are_those_of_the_files():
  for name, size in (('migan_generator', 256), ('migan_generator_512', 512)):
    (case,) = (c for c in goldens.all_cases() if c.name == name)
    known = [k for k, _ in case.manifest()['state']]
    assert sorted(e.key for e in published.entries({'size': size})) == sorted(known)


def test_the_files_constants_are_those_of_the_manifest():
  taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1])
  grid = np.tile([[1, 0], [0, 0]], (16, 16))
  says = {'outer([1,3,3,1])/64 on every channel': taps / 64}
  says |= {'outer([1,3,3,1])/16 on every channel': taps / 16}
  says |= {'tile([[1,0],[0,0]]) (1 on even rows and columns)': grid}
  for key, shape, formula in constants(256):
    ((_, make),) = ((p, f) for p, f in published.CONSTANTS.items() if re.search(p, key))
    want = says[formula]
    height, width = (min(a, b) for a, b in zip(shape[2:], want.shape, strict=True))
    array = make(tuple(shape))
    assert array.shape == tuple(shape)
    np.testing.assert_allclose(array[0, 0, :height, :width], want[:height, :width], atol=1e-7)
