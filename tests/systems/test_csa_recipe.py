"""How CSA is trained."""

import dataclasses

import drawn
import flax.linen as nn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_bytes
from jax.interpreters import partial_eval
from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.features import vgg
from jaxinpaint.systems.csa import networks, published, recipe
from jaxinpaint.training import optimizers, step
from jaxinpaint.weights import importer, mapping, store

SGD = dict(name='sgd', learning_rate=1e-2)


def small(**loss):
  config = systems.default_config('csa')
  recipe.quicktest(config)
  config.model.update(dict(width=4, deep_width=8, levels=4, critic_width=4))
  config.loss.update(loss)
  return config


@pytest.fixture(scope='module')
def batch():
  """Two pictures that are no squares, each with its own hole."""
  image = np.random.default_rng(0).random((2, 32, 48, 3), np.float32)
  mask = np.zeros((2, 32, 48, 1), np.float32)
  mask[0, 8:24, 20:40], mask[1, :, :16] = 1, 1
  return dict(image=image, mask=mask, id=np.arange(2, dtype=np.int32))


@pytest.fixture(scope='module')
def made(batch):
  recipe = systems.make_recipe(small())
  return recipe, drawn.variables(recipe, batch)


@goldens.cases('csa_gan_loss')
def test_adversarial_loss(case):
  data = case.data()
  real, fake = data['pred_real'], data['pred_fake']
  goldens.assert_close(recipe.RALSGAN.discriminator(real, fake), data['loss_d'], what='critic')
  goldens.assert_close(recipe.RALSGAN.generator(real, fake), data['loss_g'], what='generator')


def test_the_default_config_is_the_published_one():
  config = systems.default_config('csa')
  # The paper's weights, 1, 0.002 and 0.01, times 100.
  weights = {name: config.loss[name] for name in recipe.WEIGHTS}
  assert weights == dict(l1=100.0, adversarial=0.2, feature_adversarial=0.2, consistency=1.0)
  assert config.loss.consistency_gradient and config.loss.feature_gradient
  made = systems.make_recipe(config)
  assert made.networks == ('rough', 'refinement', 'critic', 'feature_critic')
  (phase,) = made.phases
  trained = [(u.name, u.trains) for u in phase.updates]
  assert trained == [
    ('critics', ('critic', 'feature_critic')),
    ('generators', ('rough', 'refinement')),
  ]
  assert made.inference.multiple == made.inference.min_side == 256
  constants = made.load_constants(shapes_only=True)
  assert 'conv4_3' in constants['vgg'] and 'conv5_1' not in constants['vgg']
  assert not systems.make_recipe(small()).load_constants()


class Rough(nn.Module):
  """Stands in for the rough network: a tenth of the time to compile."""

  @nn.compact
  def __call__(self, image, mask, train=False):
    return {'out': nn.sigmoid(nn.Dense(3, name='dense')(image * (1 - mask)))}


class Refinement(nn.Module):
  """Stands in for the refining network."""

  @nn.compact
  def __call__(self, synthesis, image, mask, train=False):
    shrunk = shrink(nn.Dense(3, name='encoder')(synthesis))
    raw = nn.Dense(3, name='decoder')(synthesis) + shrunk.mean()
    return dict(raw=raw, out=raw, hole=shrink(mask), attention=shrunk, decoded=2 * shrunk)


def shrink(x):
  return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 8, 8, 1), (1, 8, 8, 1), 'VALID') / 64


@pytest.fixture
def stand_ins(monkeypatch):
  """Small networks, and a VGG16 that averages."""
  monkeypatch.setattr(networks, 'RoughGenerator', lambda **_: Rough())
  monkeypatch.setattr(networks, 'RefinementGenerator', lambda **_: Refinement())
  monkeypatch.setattr(vgg, 'apply', lambda p, x, layers, **_: {n: shrink(x) for n in layers})


def test_a_step_trains_all_networks(stand_ins, batch):
  made = systems.make_recipe(small())
  variables = drawn.variables(made, batch)
  txs = optimizers.make_optimizers(dict(generators=SGD, critics=SGD), made.optimizers)
  current = drawn.state(made, txs, variables)
  before = jax.tree.map(np.asarray, current.params)
  current, metrics = step.make_train_step(made, txs)(
    current, {}, batch, jax.random.key(1), made.plan(0)
  )
  assert metrics.pop('finite') and {m.split('/')[0] for m in metrics} == {'critics', 'generators'}
  moved = jax.tree.map(lambda a, b: (a != b).any(), before, dict(current.params))
  still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
  # An instance norm takes the bias before it away; what moves there is rounding.
  assert not [k for k in still if "['bias']" not in k], still


@pytest.mark.parametrize('paper', [True, False])
def test_which_gradients_reach_which_generator(stand_ins, batch, paper):
  """By the code's reading neither VGG's features nor the consistency loss train anything."""
  loss = dict(feature_adversarial=0.2, consistency=1.0)
  config = small(**loss, feature_gradient=paper, consistency_gradient=paper)
  config.model.deep_width = 512
  made = systems.make_recipe(config)
  variables = drawn.variables(made.inference, batch)

  def values(params):
    outputs, _ = made.phases[0].forward(variables.with_params(params), {'vgg': None}, batch, None)
    consistent = recipe.consistency(outputs, gradient=config.loss.consistency_gradient)
    difference = lambda name: jnp.abs(outputs[name] - batch['image']).sum()
    judged = jnp.square(outputs['judged']).sum()
    return dict(
      raw=difference('raw'), rough=difference('rough'), judged=judged, consistent=sum(consistent)
    )

  slopes = jax.jit(jax.jacrev(values))(variables.params)
  reached = {
    name: {n for n, tree in of.items() if any(x.any() for x in jax.tree.leaves(tree))}
    for name, of in slopes.items()
  }
  by_vgg = {'refinement'} if paper else set()
  assert reached == dict(raw={'refinement'}, rough={'rough'}, judged=by_vgg, consistent=by_vgg)


def test_every_parameter_of_both_generators_is_used(made, batch):
  recipe, variables = made
  run = lambda params: recipe.phases[0].forward(variables.with_params(params), {}, batch, None)[0]
  params = {n: variables.params[n] for n in ('rough', 'refinement')}
  jaxpr = jax.make_jaxpr(lambda p: (run(p)['rough'], run(p)['raw']))(params).jaxpr
  _, used = partial_eval.dce_jaxpr(jaxpr, [True, True])
  assert all(used)


def test_the_hole_is_not_read_and_known_pixels_are_untouched(made, batch):
  recipe, variables = made
  image, mask = batch['image'], batch['mask']
  predict = jax.jit(recipe.inference.predict)
  out = predict(variables, {}, image, mask, None)
  other = predict(variables, {}, np.where(mask == 1, 0.3, image), mask, None)
  np.testing.assert_array_equal(out, other)
  known = mask[..., 0] == 0
  np.testing.assert_array_equal(out[known], image[known])
  assert (np.asarray(out)[~known] != image[~known]).any()
  # Each picture has its own hole, whatever the others have.
  swapped = predict(variables, {}, image[::-1], mask[::-1], None)
  np.testing.assert_allclose(out, swapped[::-1], atol=1e-5)
  assert np.isfinite(predict(variables, {}, image, np.ones_like(mask), None)).all()


def outputs_of(batch, seed=1):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.standard_normal(shape, np.float32)
  hole = np.zeros((2, 4, 6, 1), np.float32)
  hole[:, 1:3, 2:4] = 1
  names = ('attention', 'decoded', 'consistent')
  features = {name: draw(2, 4, 6, 8) for name in names}
  judged = {'judged': draw(2, 8, 8, 256), 'judged_real': draw(2, 8, 8, 256)}
  noise = {name: batch['image'] + draw(*batch['image'].shape) for name in ('raw', 'rough')}
  return {'hole': hole, **features, **judged, **noise}


def test_consistency_by_hand(batch):
  outputs = outputs_of(batch)
  hole, wanted = outputs['hole'], outputs['consistent']
  for masked in (True, False):
    values = recipe.consistency(outputs, gradient=masked)
    for name, value in zip(('attention', 'decoded'), values, strict=True):
      target = wanted * hole if masked else wanted
      hand = np.square(outputs[name] * hole - target).sum() / wanted.size
      assert value == pytest.approx(hand, rel=1e-5)
    of = lambda x, masked=masked: sum(
      recipe.consistency(outputs | {'attention': x}, gradient=masked)
    )
    slope = np.asarray(jax.grad(of)(outputs['attention']))
    if masked:
      hand = 2 * (outputs['attention'] - wanted) * hole / wanted.size
      np.testing.assert_allclose(slope, hand, atol=1e-7)
    else:
      assert not slope.any()


def test_each_term_of_both_losses(batch):
  config = systems.default_config('csa')
  config.model.update(dict(width=4, levels=4, critic_width=4, feature_critic_width=4))
  made = systems.make_recipe(config)
  shape = lambda *s: jax.ShapeDtypeStruct(s, np.float32)
  whole = dict(image=shape(1, 64, 64, 3), mask=shape(1, 64, 64, 1))
  variables = drawn.variables(made, whole).pick(('critic', 'feature_critic'))
  critics, generators = made.phases[0].updates
  outputs = outputs_of(batch)
  judges = {'critic': networks.Critic(4), 'feature_critic': networks.FeatureCritic(4)}
  pairs = {
    'critic': (batch['image'], outputs['raw']),
    'feature_critic': (outputs['judged_real'], outputs['judged']),
  }
  square = lambda a, b, sign: np.square(a - b.mean() + sign).mean()
  both = lambda a, b: (square(a, b, -1) + square(b, a, 1)) / 2

  @jax.jit
  def run(variables, outputs, pairs):
    logits = {n: [judges[n].apply(variables.of(n), x) for x in p] for n, p in pairs.items()}
    return logits, *(u.loss(variables, {}, outputs, batch, None) for u in (critics, generators))

  logits, of_critics, of_generators = run(variables, outputs, pairs)
  logits = {n: [np.asarray(x, np.float64) for x in p] for n, p in logits.items()}
  value, aux = of_critics
  for name, (real, fake) in logits.items():
    assert aux['metrics'][name] == pytest.approx(both(real, fake) / 2, rel=1e-4)
  assert value == pytest.approx(sum(both(*pair) / 2 for pair in logits.values()), rel=1e-4)

  value, aux = of_generators
  far = lambda name: 200 * np.abs(outputs[name] - batch['image']).mean()
  consistent = recipe.consistency(outputs)
  wanted = dict(
    l1_refined=far('raw'),
    l1_rough=far('rough'),
    adversarial=0.2 * both(*logits['critic'][::-1]),
    feature_adversarial=0.2 * both(*logits['feature_critic'][::-1]),
    consistency_attention=consistent[0],
    consistency_decoded=consistent[1],
  )
  assert {n: float(v) for n, v in aux['metrics'].items() if n != 'total'} == pytest.approx(
    {n: float(v) for n, v in wanted.items()}, rel=1e-4
  )
  assert value == pytest.approx(float(sum(wanted.values())), rel=1e-4)


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'levels', 3, 'levels 3 must be 4 to 9'),
    ('model', 'gradient', 'exact', "gradient 'exact' must be one of"),
    ('model', 'width', 0, 'width 0 must be an integer of at least 1'),
    ('model', 'deep_width', 64, 'deep_width 64 must be 512'),
    ('loss', 'adversarial', -1.0, r'loss.adversarial -1.0 must be finite and >= 0'),
    ('loss', 'l1', 0.0, 'would leave the rough network without any loss'),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('csa')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_images_too_small_to_be_judged_are_named(batch):
  config = small(feature_adversarial=0.2)
  with pytest.raises(ValueError, match=r'32 x 48 are too small to be judged: .* >= 64'):
    jax.eval_shape(systems.make_recipe(config).init, jax.random.key(0), batch)


@pytest.fixture(scope='module')
def narrow_files(tmp_path_factory):
  """(Published of a narrow CSA, its networks' files, its variables)."""
  config = small(feature_adversarial=0.2)
  known = dataclasses.replace(systems.published('csa'), default_config=lambda: ConfigDict(config))
  variables = drawn.variables(
    systems.make_recipe(config),
    dict(image=np.zeros((1, 64, 64, 3)), mask=np.zeros((1, 64, 64, 1))),
  )
  folder, files = tmp_path_factory.mktemp('csa'), {}
  letters = dict(rough='P', refinement='G', critic='D', feature_critic='F')
  for network, letter in letters.items():
    entries = [e for e in published.entries(config.model) if e.network == network]
    files[network] = folder / f'30_net_{letter}.pth'
    write(files[network], mapping.export(variables._asdict(), entries))
  return known, files, variables


def test_published_files_are_imported_each_as_its_network(narrow_files, tmp_path):
  known, files, variables = narrow_files
  stored = store.load(importer.import_file(known, list(files.values()), tmp_path / 'out'))
  same = jax.tree.map(np.array_equal, stored.params, dict(variables.params))
  assert all(jax.tree.leaves(same)) and set(stored.params) == set(files)


def test_other_files_are_refused(narrow_files, tmp_path):
  known, files, _ = narrow_files
  with pytest.raises(mapping.MappingError, match='but not the rough, without which'):
    importer.import_file(known, files['refinement'], tmp_path / 'out')
  write(tmp_path / 'other.pth', {'encoder.0.weight': np.zeros((4, 3, 3, 3), np.float32)})
  with pytest.raises(
    mapping.MappingError, match=r'(?s)encoder\.0\.weight.*model\.model\.0\.weight'
  ):
    importer.import_file(known, tmp_path / 'other.pth', tmp_path / 'out')
  assert not list(tmp_path.glob('out*'))


def write(path, state):
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[key] = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  torch_bytes.write_zip(path, torch_bytes.emit(tensors), storages)
