"""How LaMa is trained, run and imported."""

import dataclasses
from unittest import mock

import drawn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.ndimage

from jaxinpaint import systems
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.inpainter import load
from jaxinpaint.losses import adversarial, reconstruction
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.lama import networks, published, recipe, refinement
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, step
from jaxinpaint.weights import importer, mapping, store

SIZE = 32
FORMATS = {'big': published.FORMATS['big']}


def small(model=(), **loss):
  config = config_lib.base('lama')
  with config.unlocked():
    for network in ('generator', 'discriminator'):
      config.optimizers[network] = dict(name='sgd', learning_rate=0.01)
  config.model.update(dict(width=4, blocks=1) | dict(model))
  config.loss.update(dict(perceptual=0.0, discriminator_width=4) | loss)
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((3, SIZE, SIZE, 1), np.float32)
  mask[0, 8:24, 4:20] = 1
  mask[1, 16:, 16:] = 1
  mask[2] = 1
  image = rng.random((3, SIZE, SIZE, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(3, dtype=np.int32))


@pytest.fixture(scope='module')
def made(batch):
  ready = systems.make_recipe(small())
  return ready, drawn.variables(ready, batch)


def test_the_default_config_is_the_published_one():
  loss = systems.default_config('lama').loss
  assert {name: loss[name] for name in recipe.WEIGHTS} == dict(
    known=10.0, hole=0.0, adversarial=10.0, feature_matching=100.0, perceptual=30.0
  )
  assert loss.r1 == 0.001 and loss.mask_as_fake
  generator = networks.Generator()
  shown = systems.default_config('lama').model.to_dict()
  assert {k: getattr(generator, k) for k in shown} == shown


def test_terms_without_weight_are_not_built():
  names = lambda **loss: [u.name for u in systems.make_recipe(small(**loss)).phases[0].updates]
  assert names() == names(feature_matching=0.0) == ['generator', 'discriminator']
  assert names(adversarial=0.0, feature_matching=0.0) == ['generator']
  assert systems.make_recipe(small()).load_constants() == {}
  constants = systems.make_recipe(small(perceptual=1.0)).load_constants(shapes_only=True)
  assert list(constants) == ['resnet']


@pytest.mark.parametrize(
  'change, match',
  [
    (dict(model=dict(blocks=0)), 'blocks 0'),
    (dict(model=dict(global_share=1.0)), 'global_share 1.0 must be > 0 and < 1'),
    (dict(r1=-1.0), 'r1 -1.0'),
    (dict(known=0.0, adversarial=0.0, feature_matching=0.0), 'nothing to train'),
  ],
)
def test_what_cannot_be_is_named(change, match):
  with pytest.raises(ValueError, match=match):
    systems.make_recipe(small(**change))


@goldens.cases('lama_losses')
def test_losses_equal_the_references(case):
  tree = mapping.convert(case.state(), published.discriminator_entries())
  variables = {
    'params': tree['params']['discriminator'],
    **tree['stats']['discriminator'],
  }
  data = case.data()
  real, fake, mask = (goldens.nhwc(data[k]) for k in ('real', 'fake', 'mask'))

  @jax.jit
  def run(variables, real, fake, mask):
    judge = lambda x: networks.Discriminator().apply(variables, x)
    (of_real, features), (of_fake, others) = judge(real), judge(fake)
    terms = recipe.critic_terms(of_real, of_fake, mask)
    penalty = 0.001 * adversarial.r1_penalty(lambda x: judge(x)[0], real)
    return {
      'real_pred': of_real.transpose(0, 3, 1, 2),
      'fake_pred': of_fake.transpose(0, 3, 1, 2),
      'gp': penalty,
      'd_loss': sum(terms.values()) + penalty,
      'g_loss': 10 * adversarial.non_saturating.generator(of_fake),
      'fm': recipe.feature_distance(others, features),
      'l1': 10 * reconstruction.masked_l1(fake, real, 1 - mask),
    }

  for name, got in run(variables, real, fake, mask).items():
    goldens.assert_close(np.reshape(got, data[name].shape), data[name], what=name)


@pytest.fixture(scope='module')
def stepped(batch):
  """State before and after a step, and the step's metrics; of two halvings instead of three."""
  with mock.patch.object(networks, 'LEVELS', 2):
    ready = systems.make_recipe(small())
    variables = drawn.variables(ready, batch)
    txs = optimizers.make_optimizers(small().optimizers, ready.optimizers)
    run = step.make_train_step(ready, txs)
    before = jax.tree.map(np.asarray, drawn.state(ready, txs, variables))
    start = drawn.state(ready, txs, variables)
    after, metrics = run(start, {}, batch, jax.random.key(1), ready.plan(0))
  return before, jax.tree.map(np.asarray, after), metrics


def test_a_step_trains_both_networks_and_moves_their_statistics(stepped):
  before, after, metrics = stepped
  assert metrics['finite']
  for kind in ('params', 'stats'):
    for name in ('generator', 'discriminator'):
      old, new = getattr(before, kind)[name], getattr(after, kind)[name]
      moved = jax.tree.map(lambda a, b: (a != b).any(), old, new)
      still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
      # The bias before a batch norm has no gradient but for rounding.
      assert not [k for k in still if not k.endswith("['bias']")], f'{kind}, {name}: {still}'


def test_logged_terms_are_those_of_the_updates_and_sum_to_their_totals(stepped):
  _, _, metrics = stepped
  wanted = {
    'generator': {'known', 'adversarial', 'feature_matching'},
    'discriminator': {'real', 'fake', 'r1'},
  }
  for update, names in wanted.items():
    own = {k.split('/')[1]: float(v) for k, v in metrics.items() if k.startswith(f'{update}/')}
    assert names < set(own)
    assert sum(own[n] for n in names) == pytest.approx(own['total'], rel=1e-5)


def test_terms_by_hand(batch, monkeypatch):
  """With a critic whose logits are a sum of squares, and whose features are two powers."""
  slope = np.array([0.5, -2.0, 1.0], np.float32)
  judge = lambda networks, name, variables, x: (((x**2 @ slope)[..., None], (x, 2 * x**2)), {})
  monkeypatch.setattr(recipe.modules, 'train_pass', judge)
  seen = lambda resnet, out, image, dtype: resnet * jnp.abs(out - image).max()
  monkeypatch.setattr(recipe.resnet_dilated, 'perceptual', seen)
  weights = dict(known=2.0, hole=3.0, adversarial=5.0, feature_matching=7.0, perceptual=11.0)
  generator, critic = systems.make_recipe(small(r1=13.0, **weights)).phases[0].updates
  image, mask = batch['image'], batch['mask']
  out = np.random.default_rng(3).random(image.shape, np.float32)
  terms = lambda update: {
    name: float(value)
    for name, value in update.loss(
      Variables({}, {}), {'resnet': 0.25}, {'out': jnp.asarray(out)}, batch, None
    )[1]['metrics'].items()
  }
  softplus = lambda x: np.log1p(np.exp(x))
  apart, of_out, of_image = np.abs(out - image), out**2 @ slope, image**2 @ slope
  want = dict(
    known=2 * (apart * (1 - mask)).mean(),
    hole=3 * (apart * mask).mean(),
    adversarial=5 * softplus(-of_out).mean(),
    feature_matching=7 * (apart**2 + 4 * (out**2 - image**2) ** 2).mean() / 2,
    perceptual=11 * 0.25 * apart.max(),
  )
  assert terms(generator) == pytest.approx(want | dict(total=sum(want.values())), rel=1e-4)
  hole = mask[..., 0]
  want = dict(
    real=softplus(-of_image).mean(),
    fake=(hole * softplus(of_out) + (1 - hole) * softplus(-of_out)).mean(),
    r1=13 * np.square(2 * image * slope).sum((1, 2, 3)).mean(),
  )
  assert terms(critic) == pytest.approx(want | dict(total=sum(want.values())), rel=1e-4)


def test_a_picture_without_a_known_pixel_trains_nothing(batch, monkeypatch):
  given = lambda networks, name, variables, image, mask: ({'out': variables}, {})
  monkeypatch.setattr(recipe.modules, 'train_pass', given)
  forward = systems.make_recipe(small()).phases[0].forward
  gradient = jax.grad(lambda x: forward(x, {}, batch, None)[0]['out'].sum())(batch['image'])
  np.testing.assert_array_equal(gradient.any((1, 2, 3)), [True, True, False])


def test_known_patches_count_as_real_for_the_critic():
  logits, mask = jnp.array([[2.0, -1.0]]).reshape(1, 1, 2, 1), np.zeros((1, 4, 4, 1))
  mask[:, :, 2:] = 1
  softplus = lambda x: np.log1p(np.exp(x))
  terms = recipe.critic_terms(logits, logits, mask)
  assert float(terms['fake']) == pytest.approx((softplus(-2.0) + softplus(-1.0)) / 2)
  whole = recipe.critic_terms(logits, logits, None)
  assert float(whole['fake']) == pytest.approx((softplus(2.0) + softplus(-1.0)) / 2)


def centred(path, x):
  """Means of 0, with which not every ReLU is at rest."""
  return x * (path[-1].key != 'mean')


def test_pictures_of_any_size_keep_their_known_pixels(made):
  ready, variables = made
  variables = variables._replace(stats=jax.tree_util.tree_map_with_path(centred, variables.stats))
  predictor = Predictor(ready.inference, variables)
  rng = np.random.default_rng(0)
  image, mask = rng.random((1, 21, 13, 3), np.float32), np.zeros((1, 21, 13, 1), np.float32)
  mask[:, 4:9, 3:7] = 1
  known = np.broadcast_to(mask == 0, image.shape)
  assert predictor.padded_size(21, 13) == (24, 16)
  out, other = (predictor(x, mask, np.arange(1)) for x in (image, np.where(known, image, 0.5)))
  np.testing.assert_array_equal(out[known], image[known])
  np.testing.assert_array_equal(out, other)
  assert np.ptp(out[~known]) > 0
  # As the authors' code pads: the last row is repeated.
  widths = ((0, 0), (0, 3), (0, 3), (0, 0))
  padded = [np.pad(x, widths, mode='symmetric') for x in (image, mask)]
  whole = predictor(*padded, np.arange(1))
  np.testing.assert_allclose(out, whole[:, :21, :13], atol=1e-5)


def test_large_pictures_have_more_scales():
  sizes = [(512, 900), (724, 724), (725, 725), (1024, 3000), (2048, 2048), (4096, 4096)]
  assert [refinement.scales(*size) for size in sizes] == [1, 1, 2, 2, 3, 3]
  assert refinement.scales(64, 48, 32) == 2
  least = refinement.LEAST_SIDE
  assert [refinement.scales(side, 4000) for side in (least - 1, least)] == [1, 2]


def first_loss(paint, image, mask):
  """Before an iteration, of pictures whose halves are 36 pixels high: f32[B]."""
  mean = lambda x: x.reshape(len(x), 36, 2, 32, 2, -1).mean((2, 4))
  known = mean(1 - mask)
  half = mean(image * (1 - mask)) / np.maximum(known, 0.25)
  hole = (known < 1).astype(np.float32)
  fitted = [np.pad(x, ((0, 0), (0, 4), (0, 0), (0, 0)), 'symmetric') for x in (half, hole)]
  below = np.where(hole, paint(*fitted)[:, :36], half)
  out = np.asarray(paint(image, mask))
  inner = [scipy.ndimage.minimum_filter(x[..., 0], 15, mode='constant', cval=1) for x in hole]
  regions = (np.abs(out - image), 1 - mask), (np.abs(mean(out) - below), np.stack(inner)[..., None])
  return sum(
    (x * region).sum((1, 2, 3)) / np.maximum(3 * region.sum((1, 2, 3)), 1) for x, region in regions
  )


def test_refining_lowers_the_loss_of_each_image_and_changes_large_pictures_alone(made):
  variables = jax.tree_util.tree_map_with_path(centred, made[1].stats['generator'])
  variables |= {'params': made[1].params['generator']}
  rng = np.random.default_rng(0)
  image, mask = rng.random((2, 72, 64, 3), np.float32), np.zeros((2, 72, 64, 1), np.float32)
  mask[0, 10:60, 8:58] = 1
  mask[1, 30:40, 20:30] = 1
  generator = networks.Generator(4, 1)
  run = jax.jit(lambda v, *x: refinement.refine(generator, v, *x, min_side=32, iterations=4))
  out, (losses,) = run(variables, image, mask)
  assert out.shape == image.shape and losses.shape == (4, 2)
  assert (np.diff(losses, axis=0) < 0).all()
  paint = jax.jit(lambda *x: generator.apply(variables, *x)['out'])
  unrefined = jax.jit(lambda v, *x: refinement.refine(generator, v, *x))
  plain = paint(image, mask)
  assert np.abs(out - plain)[np.broadcast_to(mask > 0, image.shape)].mean() > 1e-4
  np.testing.assert_allclose(losses[0], first_loss(paint, image, mask), rtol=1e-4)
  # The other image of a batch changes nothing, nor do pixels in the hole.
  _, (alone,) = run(variables, *(np.stack([x[0], x[0]]) for x in (image, mask)))
  np.testing.assert_allclose(losses[:, 0], alone[:, 0], rtol=1e-5)
  hidden, _ = run(variables, np.where(mask > 0, 1 - image, image), mask)
  np.testing.assert_array_equal(out, hidden)
  small, none = unrefined(variables, image, mask)
  np.testing.assert_allclose(small, plain, atol=1e-5)
  assert none == []


def test_a_system_without_it_says_that_it_cannot_refine(made):
  ready, variables = made
  assert Predictor(ready.inference, variables, refine=True).inference.refined
  assert ready.inference.refined_side == refinement.LEAST_SIDE
  plain = dataclasses.replace(ready.inference, refined=None)
  with pytest.raises(ValueError, match='cannot refine what it completes'):
    Predictor(plain, variables, refine=True)
  with pytest.raises(InpaintError, match='mesff/box cannot refine'):
    load('mesff/box', refine=True)


def files(variables, prefix):
  """The state dict of a file with both networks, and what else lies in the authors' files."""
  entries = published.entries(small().model)
  state = {}
  for network in ('generator', 'discriminator'):
    own = mapping.export(variables._asdict(), [e for e in entries if e.network == network])
    state |= {f'{prefix}{network}.{key}': value for key, value in own.items()}
  junk = {'loss_resnet_pl.impl.conv1.weight': 3, 'val_evaluator.model.1.weight': 2}
  return state | {k: np.ones(n, np.float32) for k, n in junk.items()}


@pytest.mark.parametrize('prefix, whole', [('state_dict.', True), ('model.', False)])
def test_files_of_the_authors_and_of_others_are_imported(made, tmp_path, prefix, whole):
  ready, variables = made
  state = files(variables, prefix)
  if not whole:
    state = {k: v for k, v in state.items() if 'generator' in k}
  safetensors.numpy.save_file(state, tmp_path / 'file.safetensors')
  narrow = importer.Published('lama', FORMATS, small, lambda config: ready)
  out = importer.import_file(narrow, tmp_path / 'file.safetensors', tmp_path / 'out')
  own = variables if whole else variables.pick(('generator',))
  stored = store.load(out)
  for got, want in ((stored.params, own.params), (stored.stats, own.stats)):
    jax.tree.map(np.testing.assert_array_equal, got, dict(want))


def test_foreign_files_and_those_with_two_generators_or_half_of_one_are_refused(made, tmp_path):
  ready, variables = made
  narrow = importer.Published('lama', FORMATS, small, lambda config: ready)
  one = {'x.weight': np.ones(2, np.float32)}
  two = files(variables, '') | files(variables, 'average.')
  less = files(variables, 'a.')
  del less['a.generator.model.1.ffc.convl2l.weight']
  for state, match in (
    (one, 'none of its keys ends as'),
    (two, r'several times, below average\.generator\., generator\.'),
    (less, r'1 wanted here, but not in the file:\n *model\.1\.ffc\.convl2l\.weight'),
  ):
    safetensors.numpy.save_file(state, tmp_path / 'file.safetensors')
    with pytest.raises(mapping.MappingError, match=match):
      importer.import_file(narrow, tmp_path / 'file.safetensors', tmp_path / 'out')


@pytest.mark.parametrize('name, blocks', [('big', 18), ('fourier', 9)])
def test_the_references_keys_are_those_of_its_files(name, blocks):
  (case,) = (c for c in goldens.all_cases() if c.name == f'lama_{name}_generator')
  known = [k for k, _ in case.manifest()['state'] if not k.endswith('num_batches_tracked')]
  entries = published.generator_entries({'blocks': blocks})
  assert sorted(e.key for e in entries) == sorted(known)
