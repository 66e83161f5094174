"""The recipe of AOT-GAN; what it shares with other systems is tested in test_joint_loss.py."""

import drawn
import edge_guided_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from jaxinpaint import arrays, systems
from jaxinpaint.losses import adversarial
from jaxinpaint.systems._shared import joint_loss
from jaxinpaint.systems.aotgan import networks, published
from jaxinpaint.training import step as step_lib
from jaxinpaint.weights import importer, mapping, store


def small(**loss):
  config = systems.default_config('aotgan')
  config.model.update(dict(width=4, blocks=1))
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=4) | loss)
  return config


@pytest.fixture(scope='module')
def batch():
  image = np.random.default_rng(0).random((2, 40, 40, 3), np.float32)
  mask = np.zeros((2, 40, 40, 1), np.float32)
  mask[0, 4:20, 4:20] = 1
  return {'image': image, 'mask': mask, 'id': jnp.arange(2)}


@pytest.fixture(scope='module')
def pieces(batch):
  recipe = systems.make_recipe(small())
  return recipe, drawn.variables(recipe, batch)


def test_default_config_is_the_published_one():
  config = systems.default_config('aotgan')
  loss = config.loss
  weights = {name: loss[name] for name in joint_loss.WEIGHTS}
  assert weights == dict(
    l1=2.0, adversarial=0.01, perceptual=0.1, style=250.0, l1_hole=0.0, psnr_hole=0.0
  )
  assert loss.adversarial_kind == 'soft_mask' and loss.discriminator_input == 'comp'
  assert loss.vgg == 'vgg19' and loss.vgg_normalize
  assert not loss.l1_over_mask_mean and not loss.style_on_hole
  generator = networks.Generator()
  shown = config.model.to_dict()
  assert shown.pop('kernel_init') == 'normal_0.02'
  assert {k: getattr(generator, k) for k in shown} == shown
  assert loss.discriminator_width == networks.Discriminator().width


def test_the_recipe_takes_its_least_side_from_the_rates():
  recipe = systems.make_recipe(small())
  assert (recipe.inference.multiple, recipe.inference.min_side) == (4, 36)
  config = small()
  config.model.rates = (1, 2)
  assert systems.make_recipe(config).inference.min_side == 12
  config.model.stem = 4
  inference = systems.make_recipe(config).inference
  assert (inference.multiple, inference.min_side) == (16, 48)
  config.model.stem = 0
  with pytest.raises(ValueError, match=r'config\.model\.stem 0 must be a whole number'):
    systems.make_recipe(config)
  config.model.update(dict(stem=1, rates=(1, 0)))
  with pytest.raises(ValueError, match=r'config\.model\.rates \(1, 0\) must be'):
    systems.make_recipe(config)


@pytest.mark.parametrize('kind', ['soft_mask', 'soft_mask_released', 'non_saturating'])
def test_losses_are_of_the_completed_image_and_as_their_kind_says(kind, pieces, batch):
  _, variables = pieces
  recipe = systems.make_recipe(small(adversarial_kind=kind))
  network = networks.Discriminator(width=4)
  gan, variant = adversarial.non_saturating, 'paper' if kind == 'soft_mask' else 'released'

  @jax.jit
  def run(variables, batch, out):
    key = jax.random.key(0)
    losses = [update.loss for update in recipe.phases[0].updates]
    got = [loss(variables, {}, {'out': out}, batch, key)[1]['metrics'] for loss in losses]
    own = variables.of('discriminator')

    def logits(x):
      found, changed = network.apply(own, x, train=True, mutable=['spectral'])
      own.update(changed)
      return found[0]

    mask, comp = batch['mask'], arrays.compose(out, batch['image'], batch['mask'])
    drawing = logits(comp)
    own.update(variables.stats['discriminator'])
    judged = logits(batch['image']), logits(comp)
    if kind == 'non_saturating':
      return got, gan.generator(drawing), gan.discriminator(*judged)
    drawing = adversarial.sm_gan_generator(drawing, mask, variant=variant)
    return got, drawing, adversarial.sm_gan_discriminator(*judged, mask, variant=variant)

  out = np.clip(batch['image'] + 0.25, 0, 1)
  (got, judged), drawing, judging = run(variables, batch, out)
  np.testing.assert_allclose(got['adversarial'], 0.01 * drawing, rtol=1e-4)
  # The published weight 1 is of images in [-1, 1].
  l1 = np.abs(2 * out - 2 * batch['image']).mean()
  np.testing.assert_allclose(got['l1'], l1, rtol=1e-4)
  np.testing.assert_allclose(got['total'], got['l1'] + got['adversarial'], rtol=1e-5)
  np.testing.assert_allclose([judged['real'], judged['fake']], np.asarray(judging) / 2, rtol=1e-4)


def test_a_step_moves_both_networks(pieces, batch):
  recipe, variables = pieces
  txs = {name: optax.sgd(1e-2) for name in recipe.optimizers}
  assert txs.keys() == {'generator', 'discriminator'}
  start = drawn.state(recipe, txs, variables)
  old = jax.tree.map(np.asarray, start)
  step = step_lib.make_train_step(recipe, txs)
  new, metrics = step(start, {}, batch, jax.random.key(1), recipe.plan(0))
  assert bool(metrics['finite'])
  for name in recipe.networks:
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), old.params[name], new.params[name])
    # A gate's normalisation takes its bias out again.
    still = {path for path, leaf in flat(moved).items() if not leaf}
    assert still <= {'middle0/gate/bias'}, still


def test_the_generator_leaves_the_discriminator_alone(pieces, batch):
  """The released code's leak: the generator's adversarial gradient in the discriminator's step."""
  recipe, variables = pieces
  discriminator = recipe.phases[0].updates[1]

  def total(own, out):
    judging = variables.with_params({'discriminator': own})
    return discriminator.loss(judging, {}, {'out': out}, batch, jax.random.key(0))[0]

  own = variables.params['discriminator']
  to_own, to_out = jax.jit(jax.grad(total, (0, 1)))(own, batch['image'] / 2)
  assert not np.asarray(to_out).any()
  assert np.asarray(to_own['conv5']['kernel']).any()
  assert recipe.phases[0].updates[0].trains == ('generator',)


def test_predict_keeps_known_pixels_and_takes_other_shapes(pieces, batch):
  recipe, variables = pieces
  image, mask = batch['image'][:, :36], batch['mask'][:, :36]
  got = jax.jit(recipe.inference.predict)(variables, {}, image, mask, jax.random.key(0))
  known = np.broadcast_to(np.asarray(mask) == 0, got.shape)
  np.testing.assert_array_equal(np.asarray(got)[known], np.asarray(image)[known])
  assert np.abs(np.asarray(got - image)[~known]).max() > 0


def test_published_files_are_imported_and_others_refused(tmp_path, monkeypatch):
  cases.narrow_format(monkeypatch, 'aotgan', dict(width=4))
  config = systems.default_config('aotgan')
  config.model.width = 4
  recipe = systems.make_recipe(config)
  variables = jax.eval_shape(recipe.init, jax.random.key(0), importer_batch())
  tree = variables._asdict()
  tree = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), tree)
  tree['params']['generator']['decoder2']['bias'] += np.arange(3, dtype=np.float32)
  for name, entries in (
    ('G0000000', published.generator_entries(config.model)),
    ('D0000000', published.discriminator_entries()),
  ):
    state = mapping.export(tree, entries)
    save_file(state, tmp_path / f'{name}.safetensors')
  paths = [tmp_path / f'{n}0000000.safetensors' for n in 'GD']
  path = importer.import_file(systems.published('aotgan'), paths[0], tmp_path / 'generator')
  assert list(store.load(path).params) == ['generator']
  stored = store.load(importer.import_file(systems.published('aotgan'), paths, tmp_path / 'both'))
  assert set(stored.params) == {'generator', 'discriminator'}
  np.testing.assert_array_equal(stored.params['generator']['decoder2']['bias'], [0, 1, 2])
  with pytest.raises(mapping.MappingError, match='not the generator'):
    importer.import_file(systems.published('aotgan'), paths[1], tmp_path / 'x')
  del state['conv.8.bias']
  save_file(state, tmp_path / 'other.safetensors')
  with pytest.raises(mapping.MappingError, match=r'conv\.8\.bias'):
    importer.import_file(
      systems.published('aotgan'), tmp_path / 'other.safetensors', tmp_path / 'x'
    )


def importer_batch():
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  return {'image': image, 'mask': jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)}


def flat(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {'/'.join(k.key for k in path): leaf for path, leaf in leaves}
