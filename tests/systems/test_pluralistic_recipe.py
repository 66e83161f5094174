"""How Pluralistic is trained, run and imported."""

import functools
import types
from typing import Any
from unittest import mock

import drawn
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_bytes

from jaxinpaint import systems
from jaxinpaint.arrays import resize_bilinear
from jaxinpaint.layers.spectral_norm import SNConv
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.pluralistic import networks, published, recipe
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, step
from jaxinpaint.weights import importer, mapping, store


def small(**loss):
  config = config_lib.base('pluralistic')
  with config.unlocked():
    for network in ('generator', 'discriminator'):
      config.optimizers[network] = dict(name='sgd', learning_rate=0.01)
  recipe.quicktest(config)
  config.model.update(dict(width=4, latent=4, prior_blocks=0, discriminator_width=4))
  config.loss.update(loss)
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 48, 64, 1), np.float32)
  mask[0, 8:30, 10:34] = 1
  mask[1, 20:48, 30:64] = 1
  image = rng.random((2, 48, 64, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(2, dtype=np.int32))


@pytest.fixture(scope='module')
def made(batch):
  ready = systems.make_recipe(small())
  variables = drawn.variables(ready, batch)
  return ready, variables


@pytest.fixture(scope='module')
def predict(made):
  return functools.partial(jax.jit(made[0].inference.predict), made[1], {})


def test_the_assumed_deviation_grows_with_the_hole():
  shares = np.array([0.0, 0.2, 0.5, 1.0])
  mask = (np.arange(100).reshape(1, 10, 10, 1) < 100 * shares[:, None, None, None]) * 1.0
  found = recipe.assumed_deviation(jnp.asarray(mask, jnp.float32))
  # exp of 8 times: 0.2, 0, -0.3, -0.8 (visible share minus 0.8)
  want = 1 / (1 + np.exp([1.6, 0.0, -2.4, -6.4]))
  np.testing.assert_allclose(found[:, 0, 0, 0], want, atol=3e-5)


def test_divergences_are_of_their_distributions_and_directions():
  mask = np.zeros((1, 10, 10, 1), np.float32)
  mask[:, :2] = 1  # the assumed deviation is 0.50002
  at = lambda *values: tuple(np.full((1, 2, 2, 3), x, np.float32) for x in values)
  outputs = dict(posterior=at(1.0, 2.0), prior=at(0.5, 0.25))
  kl = lambda m1, s1, m2, s2: np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
  cases = (
    ({}, kl(0, 0.5, 1, 2), kl(1, 2, 0.5, 0.25)),
    (dict(train_paths='one'), kl(0, 0.5, 1, 2), kl(0, 0.5, 0.5, 0.25)),
    (dict(kl_direction='paper'), kl(1, 2, 0, 0.5), kl(1, 2, 0.5, 0.25)),
  )
  losses = [small(**settings).loss for settings, _, _ in cases]

  @jax.jit
  def run(outputs):
    terms = [recipe.kl_terms(loss, outputs, mask) for loss in losses]
    return terms, jax.grad(lambda o: recipe.kl_terms(losses[0], o, mask)['kl_gen'])(outputs)

  terms, pulled = run(outputs)
  for found, (_, rec, gen) in zip(terms, cases, strict=True):
    assert float(found['kl_rec']) == pytest.approx(rec, rel=1e-3)
    assert float(found['kl_gen']) == pytest.approx(gen, rel=1e-3)
  assert not any(np.asarray(x).any() for x in pulled['posterior'])
  assert all(np.asarray(x).all() for x in pulled['prior'])


@jax.jit
def scales(image, offset):
  sizes = [(6, 8), (12, 16), (24, 32), (48, 64)]
  return tuple(resize_bilinear(image, *size, align_corners=True) + offset for size in sizes)


def test_appearance_sums_scales_and_sees_only_visible_pixels_of_the_generative_path(batch):

  @jax.jit
  def run(image, mask):
    outputs = dict(rec=scales(image, 0.1), gen=scales(image, 0.1))
    return recipe.appearance_terms(outputs, image, mask)

  found = run(batch['image'], batch['mask'])
  assert float(found['appearance_rec']) == pytest.approx(4 * 0.2, rel=1e-5)
  visible = 0.0
  for h, w in ((6, 8), (12, 16), (24, 32), (48, 64)):
    # Aligned corners: sample i of n lies at i * (48 - 1) / (n - 1) of the rows.
    rows, columns = np.linspace(0, 47, h), np.linspace(0, 63, w)
    for mask in batch['mask'][..., 0]:
      across = np.stack([np.interp(columns, np.arange(64), row) for row in mask])
      soft = np.stack([np.interp(rows, np.arange(48), column) for column in across.T])
      visible += (1 - soft).mean() / 2
  assert float(found['appearance_gen']) == pytest.approx(0.2 * visible, rel=1e-5)


def test_adversarial_terms_and_weights(batch, monkeypatch):
  image = jnp.asarray(batch['image'])
  outputs = dict(rec=scales(image, 0.1), gen=scales(image, -0.1))
  outputs |= dict(posterior=(0 * image, 1 + 0 * image), prior=(0 * image, 2 + 0 * image))
  logit = {('discriminator', -0.1): 2.0, ('discriminator', 0.0): 0.5}
  logit |= {('discriminator_rec', 0.1): 3.0, ('discriminator_rec', 0.0): -1.0}

  def judge(networks, name, variables, x):
    offset = round(float((x - image).mean()), 3)
    return jnp.full((2, 1, 1, 1), logit[name, offset]), {name: {}}

  monkeypatch.setattr(recipe.modules, 'train_pass', judge)
  updates = systems.make_recipe(small()).phases[0].updates
  assert [(u.name, u.trains) for u in updates] == [
    ('discriminator', ('discriminator', 'discriminator_rec')),
    ('generator', ('encoder', 'generator')),
  ]
  results = {
    u.name: u.loss(Variables({}, {}), {}, outputs, batch, jax.random.key(0)) for u in updates
  }
  metrics = {k: float(v) for k, v in results['discriminator'][1]['metrics'].items()}
  want = dict(real_gen=0.5**2 / 2, fake_gen=2**2 / 2, real_rec=2**2 / 2, fake_rec=3**2 / 2)
  assert metrics == pytest.approx(want | {'total': sum(want.values())})
  metrics = {k: float(v) for k, v in results['generator'][1]['metrics'].items()}
  plain = recipe.kl_terms(small().loss, outputs, batch['mask'])
  plain |= recipe.appearance_terms(outputs, image, batch['mask'])
  want = dict(adversarial_gen=1.0, adversarial_rec=16.0)
  want |= {k: (80 if k.startswith('kl') else 20) * float(v) for k, v in plain.items()}
  assert metrics == pytest.approx(want | {'total': sum(want.values())})


class Judge(nn.Module):
  """One layer in the place of a discriminator's seventeen, whose seven passes compile for long."""

  width: int
  layers: int
  kernel_init: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, *, train=False):
    return SNConv(2, 3, kernel_init=self.kernel_init, name='conv')(x, train=train)


@pytest.fixture(scope='module')
def stepped(batch):
  """(state before, {hole: (state after, metrics)}) of one step; one program for all."""
  with mock.patch.object(networks, 'Discriminator', Judge):
    ready = systems.make_recipe(small())
    variables = drawn.variables(ready, batch)
  txs = optimizers.make_optimizers(small().optimizers, ready.optimizers)
  start = lambda: drawn.state(ready, txs, variables)
  run = step.make_train_step(ready, txs)
  pixel = np.zeros_like(batch['mask'])
  pixel[:, 5, 7] = 1
  masks = dict(given=batch['mask'], none=0 * pixel, pixel=pixel, all=1 + 0 * pixel)
  after = {}
  for name, mask in masks.items():
    results = run(start(), {}, batch | {'mask': mask}, jax.random.key(1), ready.plan(0))
    after[name] = jax.tree.map(np.asarray, results)
  return jax.tree.map(np.asarray, start()), after


def test_a_step_trains_all_networks_and_moves_their_statistics(stepped):
  before, (after, metrics) = stepped[0], stepped[1]['given']
  assert metrics['finite']
  assert set(after.params) == {'encoder', 'generator', 'discriminator', 'discriminator_rec'}
  for name in after.params:
    for kind in ('params', 'stats'):
      moved = jax.tree.map(
        lambda a, b: (a != b).any(), getattr(before, kind)[name], getattr(after, kind)[name]
      )
      still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
      assert not still, f'{name}: {still} stand still'


def test_gradients_reach_all_of_a_discriminator(made, batch):
  network = networks.Discriminator(4, 4)
  variables = made[1].of('discriminator')

  @jax.jit
  def run(params):
    def loss(params):
      found = network.apply(
        {**variables, 'params': params}, batch['image'], train=True, mutable=['spectral']
      )
      return jnp.square(found[0] - 1).mean(), found

    return jax.grad(loss, has_aux=True)(params)

  gradients, (logits, changed) = run(variables['params'])
  assert logits.shape == (2, 1, 2, 1)
  for path, x in jax.tree.leaves_with_path(gradients):
    assert np.isfinite(x).all() and np.asarray(x).any(), path
  for path, x in jax.tree.leaves_with_path(changed['spectral']):
    before = functools.reduce(lambda tree, key: tree[key.key], path, variables['spectral'])
    assert x.size == 1 or (x != before).any(), path


def test_losses_and_gradients_are_finite_for_every_hole(stepped):
  for hole, (_, metrics) in stepped[1].items():
    assert metrics['finite'], hole  # of gradients and changes, too
  visible = {hole: float(m['generator/appearance_gen']) for hole, (_, m) in stepped[1].items()}
  assert visible['all'] == 0 < visible['given'] < visible['none']


def test_predict_keeps_known_pixels_and_reads_no_hidden_ones(predict, batch):
  image, mask = batch['image'], batch['mask']
  out = np.asarray(predict(image, mask, jax.random.key(0)))
  known = np.broadcast_to(mask == 0, out.shape)
  np.testing.assert_array_equal(out[known], image[known])
  other = np.where(mask == 1, 1 - image, image)
  np.testing.assert_array_equal(out, predict(other, mask, jax.random.key(0)))
  assert out.min() >= 0 and out.max() <= 1


def test_another_key_is_another_completion(made, predict, batch):
  assert made[0].inference.samples
  one, same, other = (
    np.asarray(predict(batch['image'], batch['mask'], jax.random.key(k))) for k in (0, 0, 1)
  )
  np.testing.assert_array_equal(one, same)
  hole = np.broadcast_to(batch['mask'] == 1, one.shape)
  assert np.abs(one - other)[hole].mean() > 1e-4


def test_the_reconstructive_path_decodes_the_posterior_and_the_generative_one_the_prior(
  batch, monkeypatch
):
  image = jnp.asarray(batch['image'])
  normal = lambda mean: (jnp.full((2, 3, 4, 4), mean), jnp.full((2, 3, 4, 4), 0.01))

  def train_pass(networks, name, variables, *arguments, **settings):
    if name == 'encoder':
      assert settings == {'hidden': True} and arguments == (batch['image'], batch['mask'])
      features = tuple(image[:, :1, :1, :1] + k for k in range(4))
      return dict(features=features, prior=normal(1.0), posterior=normal(2.0)), {name: {}}
    z, feature, memory, mask = arguments
    for got, want in ((feature, image[:, :1, :1, :1] + 3), (memory, image[:, :1, :1, :1] + 2)):
      np.testing.assert_array_equal(got, np.repeat(want, 2, 0))
    np.testing.assert_array_equal(mask, np.repeat(batch['mask'], 2, 0))
    first = image[:, 0, 0, 0].repeat(2)[:, None, None, None]
    return {'scales': (z.mean((1, 2, 3), keepdims=True) + first, first)}, {name: {}}

  monkeypatch.setattr(recipe.modules, 'train_pass', train_pass)
  forward = systems.make_recipe(small()).phases[0].forward
  outputs, changed = forward(Variables({}, {}), {}, batch, jax.random.key(3))
  assert set(changed) == {'encoder', 'generator'}
  for name, mean in (('rec', 2.0), ('gen', 1.0)):
    got = outputs[name][0][:, 0, 0, 0] - image[:, 0, 0, 0]
    np.testing.assert_allclose(got, mean, atol=0.01)
    assert (np.abs(got - mean) > 1e-6).all(), 'z is drawn, not the mean'
    np.testing.assert_array_equal(outputs[name][1][:, 0, 0, 0], image[:, 0, 0, 0])


def test_without_an_adversary_there_are_no_discriminators():
  ready = systems.make_recipe(small(adversarial=0.0))
  assert ready.networks == ('encoder', 'generator') and len(ready.phases[0].updates) == 1


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'layers', 3, 'layers 3 must be at least 4'),
    ('model', 'width', 0, 'width 0 must be an integer of at least 1'),
    ('model', 'prior_blocks', -1, 'prior_blocks -1 must be a number of blocks'),
    ('model', 'kernel_init', 'he', "kernel_init 'he' must be one of: 'torch'"),
    ('loss', 'kl', -1.0, r'loss.kl -1.0 must be finite and >= 0'),
    ('loss', 'train_paths', 'three', "train_paths 'three' must be one of: 'two', 'one'"),
    ('loss', 'kl_direction', 'up', "'up' must be one of: 'released', 'paper'"),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('pluralistic')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_images_too_small_for_the_discriminators_are_refused():
  ready = systems.make_recipe(systems.default_config('pluralistic'))
  assert (ready.inference.multiple, ready.inference.min_side) == (32, 96)
  data = {'image': jnp.zeros((1, 64, 96, 3)), 'mask': jnp.zeros((1, 64, 96, 1))}
  with pytest.raises(ValueError, match=r'64 x 96 .* config.data.size >= 96'):
    jax.eval_shape(ready.init, jax.random.key(0), data)


# {published file: its network, entries}
FILES = {
  'latest_net_E.pth': ('encoder', published.encoder_entries),
  'latest_net_G.pth': ('generator', published.generator_entries),
  'latest_net_D.pth': ('discriminator', published.discriminator_entries),
  'latest_net_D_rec.pth': (
    'discriminator_rec',
    lambda model: published.discriminator_entries(model, 'discriminator_rec'),
  ),
}


def test_published_files_are_imported_by_their_names_and_others_refused(made, tmp_path):
  config, variables = small(), made[1]
  # Its shapes are found once, and not for each import.
  ready = types.SimpleNamespace(inference=made[0].inference, shapes=lambda: variables)
  formats = systems.published('pluralistic').formats
  narrow = importer.Published('pluralistic', formats, small, lambda config: ready)
  tree = variables._asdict()
  for name, (_, entries) in FILES.items():
    # Saved on several GPUs; and most arrays twice, of which the second counts.
    state = {f'module.{k}': v for k, v in mapping.export(tree, entries(config.model)).items()}
    twice = {k.replace('model.1.module', 'conv1.module'): 0 * v for k, v in state.items()}
    write(tmp_path / name, {k: v for k, v in twice.items() if 'conv1' in k} | state)
  paths = [tmp_path / name for name in FILES]
  stored = store.load(importer.import_file(narrow, paths, tmp_path / 'out'))
  assert set(stored.params) == {network for network, _ in FILES.values()}
  for network in stored.params:
    want = jax.tree.leaves_with_path(variables.of(network))
    got = Variables(stored.params, stored.stats).of(network)
    for path, value in want:
      found = functools.reduce(lambda tree, key: tree[key.key], path, got)
      np.testing.assert_array_equal(found, value, err_msg=f'{network} {path}')
  with pytest.raises(mapping.MappingError, match='but not the generator'):
    importer.import_file(narrow, paths[0], tmp_path / 'alone')
  foreign = {'encoder0.1.weight': np.zeros((4, 4, 7, 7), np.float32)}
  write(tmp_path / 'places2_InpaintingModel_gen.pth', foreign)
  with pytest.raises(mapping.MappingError, match=r"weights of 'pluralistic'[\s\S]*encoder0\.1"):
    importer.import_file(narrow, tmp_path / 'places2_InpaintingModel_gen.pth', tmp_path / 'x')
  write(tmp_path / 'old_net_G.pth', {'block0.weight': np.zeros((2, 2), np.float32)})
  with pytest.raises(mapping.MappingError, match=r'generator\.model\.1'):
    importer.import_file(narrow, [paths[0], tmp_path / 'old_net_G.pth'], tmp_path / 'x')


def write(path, state):
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[key] = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  torch_bytes.write_zip(path, torch_bytes.emit(tensors), storages)
