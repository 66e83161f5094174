import dataclasses

import drawn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_bytes

from jaxinpaint import systems
from jaxinpaint.losses import adversarial, perceptual, reconstruction, regularisers
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.shiftnet import networks, published, recipe
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, step
from jaxinpaint.weights import importer, mapping, store


def small(**loss):
  config = config_lib.base('shiftnet')
  with config.unlocked():
    for network in ('generator', 'discriminator'):
      config.optimizers[network] = dict(name='sgd', learning_rate=0.1)
  recipe.quicktest(config)
  config.model.update(dict(width=4, levels=4, discriminator_width=4))
  config.loss.crop = 24
  config.loss.update(loss)
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 48, 48, 1), np.float32)
  mask[0, 12:36, 12:36] = mask[1, 20:44, 4:28] = 1
  image = rng.random((2, 48, 48, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(2, dtype=np.int32))


@pytest.fixture(scope='module')
def made(batch):
  recipe = systems.make_recipe(small())
  return recipe, drawn.variables(recipe, batch)


@goldens.cases('shiftnet_guidance')
def test_guidance_as_released(case):
  data = case.data()
  get = lambda name: jnp.asarray(goldens.nhwc(data[name]))
  c = data['x'].shape[1] // 2
  hole = networks.feature_hole(get('mask'))
  loss = lambda x, region: recipe.guidance(x[..., :c], get('gt')[..., c:], hole, region)
  grad = jax.jit(jax.grad(loss), static_argnums=1)
  got = grad(get('x'), 'released')
  goldens.assert_close(goldens.nchw(got), data['guidance_grad'], 1e-8)  # gradients are of 1e-4
  goldens.assert_close(goldens.nchw(got + get('g')), data['grad_x'])
  # Counting the hole only gives the same gradient there, and none elsewhere.
  inside = np.asarray(goldens.nchw(hole))[:, :1] * data['guidance_grad']
  np.testing.assert_allclose(goldens.nchw(grad(get('x'), 'hole')), inside, atol=1e-8)


@goldens.cases('shiftnet_losses')
def test_losses(case):
  data = case.data()
  fake, real = goldens.nhwc(data['fake']), goldens.nhwc(data['real'])
  goldens.assert_close(reconstruction.discounted_l1(fake, real, 0.9), data['discounted_l1'][0])
  weights = reconstruction.spatial_discount_mask(120, 120, 0.9)[..., 0]
  goldens.assert_close(weights, data['discount_mask'])
  goldens.assert_close(regularisers.squared_total_variation(fake), data['tv1'][0])


def test_squared_features_and_relativistic_terms_by_hand():
  a, b = {'x': jnp.asarray([[[[1.0, 2.0]]]])}, {'x': jnp.asarray([[[[3.0, 1.0]]]])}
  assert perceptual.perceptual(a, b, squared=True) == (4 + 1) / 2
  # Gram matrices over C*H*W = 2: [[1, 2], [2, 4]] / 2 and [[9, 3], [3, 1]] / 2.
  assert perceptual.style(a, b, squared=True) == (64 + 1 + 1 + 9) / 4 / 4
  soft = lambda x: np.log1p(np.exp(x))
  real, fake = jnp.asarray([1.0, 3.0]), jnp.asarray([0.5, -0.5])
  pairs = adversarial.relativistic(adversarial.non_saturating, average=False)
  assert pairs.discriminator(real, fake) == pytest.approx((soft(-0.5) + soft(-3.5)) / 2)
  assert pairs.generator(real, fake) == pytest.approx((soft(0.5) + soft(3.5)) / 2)
  means = adversarial.relativistic(adversarial.non_saturating, average=True)
  wanted = (soft(-1) + soft(-3) + soft(-1.5) + soft(-2.5)) / 4
  assert means.discriminator(real, fake) == pytest.approx(wanted)
  wanted = (soft(1) + soft(3) + soft(1.5) + soft(2.5)) / 4
  assert means.generator(real, fake) == pytest.approx(wanted)


def test_parameter_counts_are_the_published_ones(batch):
  made = systems.make_recipe(systems.default_config('shiftnet'))
  params = made.shapes().params
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert count(params['generator']) == 54_944_771  # 54.94 M
  assert (made.inference.multiple, made.inference.min_side) == (8, 256)


def test_a_step_trains_the_discriminator_and_then_the_generator(made, batch):
  recipe, variables = made
  txs = optimizers.make_optimizers(small().optimizers, recipe.optimizers)
  current = drawn.state(recipe, txs, variables)
  before = jax.tree.map(np.asarray, current)
  current, metrics = step.make_train_step(recipe, txs)(
    current, {}, batch, jax.random.key(1), recipe.plan(0)
  )
  current = jax.tree.map(np.asarray, current)
  assert metrics.pop('finite') and {m.split('/')[0] for m in metrics} == set(recipe.networks)
  terms = {m.split('/')[1] for m in metrics if m.startswith('generator')}
  assert terms >= {'l1', 'hole', 'guidance', 'adversarial'}
  assert not terms & {'style', 'perceptual', 'tv'}, 'of weight 0'
  for network in recipe.networks:
    moved = jax.tree.map(
      lambda a, b: (a != b).any(), before.params[network], current.params[network]
    )
    still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
    # What a norm subtracts again moves by rounding alone, or not.
    still = [k for k in still if 'bias' not in k or '_norm' in k]
    assert not still, f'{network}: {still} stand still'
  pairs = zip(*(jax.tree.leaves(s.stats) for s in (before, current)), strict=True)
  assert all((a != b).any() for a, b in pairs if a.size > 1)  # a vector of one number is 1


def test_only_the_window_around_the_hole_is_judged(made, batch):
  recipe, variables = made
  generator = next(u for u in recipe.phases[0].updates if u.name == 'generator')
  image, mask = jnp.asarray(batch['image']), jnp.asarray(batch['mask'])

  @jax.jit
  def terms(image, out):
    outputs = dict(out=out, former=jnp.ones((2, 6, 6, 16)), target=jnp.zeros((2, 6, 6, 16)))
    return generator.loss(variables, {}, outputs, dict(image=image, mask=mask), None)[1]['metrics']

  far = image + 0.25 * (1 - mask)
  found = terms(image, far)
  assert found['hole'] == 0
  np.testing.assert_allclose(found['l1'], 100 * 2 * 0.25 * 0.75, rtol=1e-5)
  # The cells whose first pixel is hole: 9 of 36 in both pictures, of 16 channels.
  share = np.mean([mask[i, ::8, ::8].mean() for i in range(2)])
  np.testing.assert_allclose(found['guidance'], share, rtol=1e-5)
  np.testing.assert_allclose(found['adversarial'], terms(image, image)['adversarial'])
  near = terms(image, image + 0.25 * mask)
  weights = reconstruction.spatial_discount_mask(24, 24, 0.9)
  np.testing.assert_allclose(near['hole'], 400 * 2 * 0.25 * weights.mean(), rtol=1e-5)


KINDS = ('wasserstein', 'relativistic', 'relativistic_average')


@pytest.fixture(scope='module')
def of_adversaries(batch):
  """{kind: (gradient and metrics of the discriminator's loss, those of the generator's)}."""
  plain = dict(crop=0, hole=0.0, l1=0.0, guidance=0.0)
  recipes = {kind: systems.make_recipe(small(adversarial_kind=kind, **plain)) for kind in KINDS}
  # The networks are the same, so that their passes are compiled once.
  variables = drawn.variables(recipes[KINDS[0]], batch)

  def gradients(recipe, variables, batch, out):
    judging, making = recipe.phases[0].updates

    def loss(update, network):
      def of(params, out):
        both = variables.with_params({network: params})
        value, aux = update.loss(both, {}, {'out': out}, batch, jax.random.key(0))
        return value, aux['metrics']

      return of

    of_params = jax.grad(loss(judging, 'discriminator'), has_aux=True)
    of_out = jax.grad(loss(making, 'generator'), argnums=1, has_aux=True)
    return (
      of_params(variables.params['discriminator'], out),
      of_out(variables.params['generator'], out),
    )

  each = jax.jit(lambda *x: {kind: gradients(recipe, *x) for kind, recipe in recipes.items()})
  return jax.tree.map(np.asarray, each(variables, batch, batch['image'] * 0.5))


@pytest.mark.parametrize('kind', KINDS)
def test_other_adversaries_give_finite_gradients(kind, of_adversaries):
  (judge, metrics), (out, _) = of_adversaries[kind]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((judge, out)))
  assert np.abs(out).max() > 0 and np.abs(judge['conv1']['kernel']).max() > 0
  assert ('penalty' in metrics) == (kind == 'wasserstein')


def soft(x):
  return np.log1p(np.exp(x)).mean()


@pytest.mark.parametrize(
  'kind, of_critic, of_generator',
  [
    (
      'non_saturating',
      lambda r, f: dict(real=soft(-r) / 2, fake=soft(f) / 2),
      lambda r, f: soft(-f),
    ),
    ('relativistic', lambda r, f: dict(relativistic=soft(f - r)), lambda r, f: soft(r - f)),
    (
      'wasserstein',
      lambda r, f: dict(real=-r.mean() / 2, fake=f.mean() / 2),
      lambda r, f: -f.mean(),
    ),
  ],
  ids=['non_saturating', 'relativistic', 'wasserstein'],
)
def test_terms_of_the_adversaries_by_hand(kind, of_critic, of_generator, batch, monkeypatch):
  """With a critic that says four times the mean of a picture in [0, 1]."""
  says = lambda networks, name, variables, x: 4 * x.mean((1, 2, 3), keepdims=True)
  monkeypatch.setattr(recipe.modules, 'train_pass', lambda *args: (says(*args), {}))
  monkeypatch.setattr(recipe.modules, 'run', says)
  loss = dict(adversarial_kind=kind, gradient_penalty=3.0, crop=0, hole=0.0, guidance=0.0, tv=0.5)
  updates = systems.make_recipe(small(**loss)).phases[0].updates
  out = np.full_like(batch['image'], 0.75)
  critic, generator = (
    update.loss(Variables({}, {}), {}, dict(out=out), batch, jax.random.key(0))[1]['metrics']
    for update in updates
  )
  real, fake = (4 * x.mean((1, 2, 3)) for x in (batch['image'], out))
  want = of_critic(real, fake)
  if kind == 'wasserstein':
    # In [-1, 1] the slope of each of 48 x 48 x 3 numbers is 2 / (48 * 48 * 3).
    slope = 2 / np.sqrt(48 * 48 * 3)
    want |= dict(penalty=3 * (slope - 1) ** 2)
    assert critic.pop('slope') == pytest.approx(slope, rel=1e-5)
  assert critic == pytest.approx(want | dict(total=sum(want.values())), rel=1e-5)
  assert generator['adversarial'] == pytest.approx(0.2 * of_generator(real, fake), rel=1e-5)
  # 0.75 is 0.5 in [-1, 1]; around the hole are zeros.
  assert generator['tv'] == pytest.approx(
    0.5 * float(regularisers.squared_total_variation(0.5 * np.repeat(batch['mask'], 3, -1))),
    rel=1e-5,
  )


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'levels', 3, 'levels 3 must be 4 to 8'),
    ('model', 'norm', 'switchable', "norm 'switchable' must be one of: 'instance', 'batch'"),
    ('model', 'width', 0, 'width 0 must be an integer of at least 1'),
    ('loss', 'l1', -1.0, r'loss.l1 -1.0 must be finite and >= 0'),
    ('loss', 'discount', 0.0, r'discount 0.0 must be in \(0, 1\]'),
    ('loss', 'crop', 0, 'loss.hole is the error in a window, but loss.crop is 0'),
    ('loss', 'crop', -1, 'crop -1 must be the side'),
    ('loss', 'adversarial_kind', 'gan', "adversarial_kind 'gan' must be one of"),
    ('loss', 'guidance_region', 'known', "guidance_region 'known' must be one of"),
    ('loss', 'vgg_layers', (), 'vgg_layers .* must be among'),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('shiftnet')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_settings_that_do_not_go_together_are_named(batch):
  config = small(adversarial_kind='wasserstein')
  config.model.norm = 'batch'
  with pytest.raises(ValueError, match="needs each sample's own gradient"):
    systems.make_recipe(config)
  recipe = systems.make_recipe(small(crop=64))
  shapes = jax.eval_shape(recipe.init, jax.random.key(0), batch)
  with pytest.raises(ValueError, match='crop 64 exceeds the images, 48 x 48'):
    jax.eval_shape(recipe.phases[0].forward, shapes, {}, batch, None)
  recipe = systems.make_recipe(small(crop=16))
  with pytest.raises(ValueError, match='16 x 16 leave the patch discriminator nothing'):
    jax.eval_shape(recipe.init, jax.random.key(0), batch)


def test_predict_keeps_known_pixels_and_shows_the_shift(made, batch):
  ready, variables = made
  arguments = (variables, {}, batch['image'], batch['mask'], jax.random.key(0))
  out = np.asarray(jax.jit(ready.inference.predict)(*arguments))
  known = batch['mask'][..., 0] == 0
  np.testing.assert_array_equal(out[known], batch['image'][known])
  assert np.isfinite(out).all() and (out[~known] != batch['image'][~known]).any()
  index = jnp.asarray([[[0, 1], [4 + 2, 3]]])  # a place of the mirrored picture: row 1, column 0
  hole = jnp.asarray([1.0, 0, 1, 1]).reshape(1, 2, 2, 1)
  assert recipe._places(index, hole).tolist() == [[[0, 1], [3, 3]]]


def test_without_an_adversary_there_is_no_discriminator():
  assert systems.make_recipe(small(adversarial=0.0)).networks == ('generator',)


def narrow(**model):
  config = systems.default_config('shiftnet')
  config.model.update(dict(width=4, discriminator_width=4, **model))
  return config


def files_of(folder, **model):
  """A file of zeros for each network, and the keys of both."""
  config = narrow(**model)
  variables = systems.make_recipe(config).shapes()
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables._asdict())
  folder.mkdir()
  paths, keys = [], {}
  for entries, name in (
    (published.generator_entries(config.model), '30_net_G.pth'),
    (published.discriminator_entries(config.model), '30_net_D.pth'),
  ):
    keys[name] = mapping.export(zeros, entries)
    paths.append(folder / name)
    write(paths[-1], keys[name])
  return paths, keys


@pytest.mark.parametrize(
  'case, model',
  [
    ('shiftnet_generator', {}),
    ('shiftnet_generator_bn', dict(norm='batch')),
    ('shiftnet_face_generator', dict(variant='face', mirror='released')),
  ],
)
def test_published_files_are_imported_and_others_refused(case, model, tmp_path):
  shiftnet = dataclasses.replace(systems.published('shiftnet'), default_config=narrow)
  paths, keys = files_of(tmp_path / 'files', **model)
  known = {c.name: c.manifest()['state'] for c in goldens.all_cases()}
  theirs = {k for k, _ in known[case] if not k.endswith('num_batches_tracked')}
  assert theirs == set(keys['30_net_G.pth'])
  stored = store.load(importer.import_file(shiftnet, paths, tmp_path / 'out'))
  assert set(stored.params) == {'generator', 'discriminator'}
  assert {name: stored.config.model[name] for name in model} == model
  del keys['30_net_G.pth'][known[case][0][0]]
  write(
    tmp_path / 'other.pth', keys['30_net_G.pth'] | {'encoder.0.weight': np.zeros(3, np.float32)}
  )
  with pytest.raises(mapping.MappingError) as error:
    importer.import_file(shiftnet, tmp_path / 'other.pth', tmp_path / 'x')
  assert 'encoder.0.weight' in str(error.value) and known[case][0][0] in str(error.value)
  assert not list(tmp_path.glob('x*'))


def write(path, state):
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    stride = tuple(s // 4 for s in np.ascontiguousarray(array).strides)
    tensors[key] = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  torch_bytes.write_zip(path, torch_bytes.emit(tensors), storages)
