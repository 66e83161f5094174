"""What one generator, one discriminator and a joint loss do, on a generator of one convolution."""

import functools

import drawn
import flax.linen as nn
import initial
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.features import vgg
from jaxinpaint.losses import reconstruction
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import joint_loss
from jaxinpaint.training import step as step_lib
from jaxinpaint.weights import hub

LAYERS = ('pool1', 'pool2')


class Generator(nn.Module):
  """The least network that a joint loss can train."""

  taps: tuple[int, ...] = (3, 3)
  dtype: type = jnp.float32

  @nn.compact
  def __call__(self, image, mask, *, train=False):
    x = jnp.concatenate([image * (1 - mask), mask], -1)
    x = nn.Conv(3, self.taps, dtype=self.dtype, name='paint')(x)
    return {'out': jax.nn.sigmoid(x.astype(jnp.float32))}


def small(**loss):
  """Narrow networks; without the terms that need VGG unless asked."""
  config = ConfigDict(dict(system='', dtype='float32', model=dict(taps=(3, 3))))
  config.loss = systems.default_config('mesff').loss
  config.loss.update(
    dict(perceptual=0.0, style=0.0, discriminator_width=4)
    | dict(perceptual_layers=LAYERS, style_layers=LAYERS)
    | loss
  )
  return config


def test_the_hole_alone_can_be_weighted(batch):
  recipe = make(small(l1=0.0, l1_hole=2.0, adversarial=0.0))
  outputs = {'out': jnp.zeros_like(batch['image'])}
  loss = recipe.phases[0].updates[0].loss
  total, aux = loss(Variables({}, {}), {}, outputs, batch, jax.random.key(0))
  image, hole = np.asarray(batch['image']), np.asarray(batch['mask'])[..., 0] == 1
  assert float(total) == pytest.approx(2 * image[hole].mean(), rel=1e-6)
  assert set(aux['metrics']) == {'l1_hole', 'total'}


def test_the_psnr_of_the_hole_is_raised(batch):
  recipe = make(small(l1=0.0, psnr_hole=0.1, adversarial=0.0))
  outputs = {'out': jnp.zeros_like(batch['image'])}
  total, aux = (
    recipe.phases[0].updates[0].loss(Variables({}, {}), {}, outputs, batch, jax.random.key(0))
  )
  holes = zip(np.asarray(batch['image']), np.asarray(batch['mask'])[..., 0] == 1, strict=True)
  decibels = [-10 * np.log10((image[hole] ** 2).mean() + 1e-4) for image, hole in holes]
  assert float(total) == pytest.approx(-0.1 * np.mean(decibels), rel=1e-5)
  assert set(aux['metrics']) == {'psnr_hole', 'total'}


def make(config):
  inference = joint_loss.inference(config, Generator, multiple=4, min_side=8)
  return joint_loss.make(config, inference, Generator)


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 40, 40, 1), np.float32)
  mask[0, 8:24, 10:30] = 1
  mask[1, 20:36, 4:20] = 1
  image = rng.random((2, 40, 40, 3), dtype=np.float32)
  return {'image': jnp.asarray(image), 'mask': jnp.asarray(mask), 'id': jnp.arange(2)}


@pytest.fixture(scope='module')
def vgg_params():
  """Random VGG16 of full width (its first two blocks are small)."""
  init = vgg.VGG(16, LAYERS).init
  return initial.values(lambda key: init(key, jnp.zeros((1, 32, 32, 3))), seed=7)['params']


def pieces(config, batch):
  recipe = make(config)
  return recipe, drawn.variables(recipe, batch)


def changed(a, b):
  differs = lambda x, y: bool((np.asarray(x) != np.asarray(y)).any())
  return any(jax.tree.leaves(jax.tree.map(differs, a, b)))


def test_a_recipe_plans_both_updates_in_order():
  recipe = make(small())
  assert recipe.plan(0).updates == recipe.plan(10**6).updates == ('generator', 'discriminator')
  assert recipe.optimizers == {
    'generator': ('generator',),
    'discriminator': ('discriminator',),
  }
  made = recipe.inference
  assert (made.multiple, made.min_side, made.networks) == (4, 8, ('generator',))
  assert recipe.steps is None


def test_a_step_moves_both_networks_and_takes_three_power_iterations(batch):
  recipe = make(small())
  txs = {name: optax.sgd(1e-2) for name in recipe.optimizers}
  start = drawn.state(recipe, txs, drawn.variables(recipe, batch))
  old = jax.tree.map(np.asarray, start)
  train_step = step_lib.make_train_step(recipe, txs)
  new, metrics = train_step(start, {}, batch, jax.random.key(1), recipe.plan(0))
  assert bool(metrics['finite'])
  for name in recipe.networks:
    assert changed(old.params[name], new.params[name]), name
  # Three iterations by hand on the first layer: W is [out, in*kh*kw] in PyTorch's order, and no
  # weight moves before the third.
  kernel = old.params['discriminator']['conv1']['kernel'].astype(np.float64)
  w = kernel.transpose(3, 2, 0, 1).reshape(kernel.shape[-1], -1)
  u = old.stats['discriminator']['spectral']['conv1']['u'].astype(np.float64)
  unit = lambda x: x / np.linalg.norm(x)
  for _ in range(3):
    u = unit(w @ unit(w.T @ u))
  got = new.stats['discriminator']['spectral']['conv1']['u']
  np.testing.assert_allclose(got, u, atol=1e-5)
  assert {k.split('/')[0] for k in metrics} == {'generator', 'discriminator', 'finite'}


def test_each_update_has_gradients_only_for_what_it_trains(batch):
  recipe, start = pieces(small(), batch)
  (phase,) = recipe.phases

  @jax.jit
  def gradients(params):
    def loss_of(update):
      def loss(params):
        variables = start.with_params(params)
        outputs, _ = phase.forward(variables, {}, batch, jax.random.key(0))
        return update.loss(variables, {}, outputs, batch, jax.random.key(0))[0]

      return loss

    return {u.name: jax.grad(loss_of(u))(params) for u in phase.updates}

  found = gradients(start.params)
  zero = lambda tree: all((x == 0).all() for x in jax.tree.leaves(tree))
  # The discriminator's loss must not reach the generator; the generator's does reach the
  # discriminator's weights, and the engine leaves them out because they are not in `trains`.
  assert zero(found['discriminator']['generator'])
  assert not zero(found['discriminator']['discriminator'])
  assert not zero(found['generator']['generator'])


@pytest.mark.parametrize('style_on_hole', (False, True))
def test_terms_are_the_losses_and_sum_to_the_total(batch, vgg_params, style_on_hole):
  config = small(perceptual=0.1, style=250.0, style_on_hole=style_on_hole)
  recipe, variables = pieces(config, batch)

  @jax.jit
  def run(variables, constants):
    outputs, _ = recipe.phases[0].forward(variables, constants, batch, jax.random.key(0))
    found = {
      u.name: u.loss(variables, constants, outputs, batch, jax.random.key(0))
      for u in recipe.phases[0].updates
    }
    return outputs['out'], found

  out, found = run(variables, {'vgg': vgg_params})
  total, aux = found['generator']
  metrics = aux['metrics']
  assert set(metrics) == {'l1', 'adversarial', 'perceptual', 'style', 'total'}
  assert sum(v for k, v in metrics.items() if k != 'total') == pytest.approx(float(total), rel=1e-6)
  assert metrics['l1'] == pytest.approx(float(reconstruction.l1(out, batch['image'])), rel=1e-6)

  # The VGG terms once more, written out.
  see = jax.jit(functools.partial(vgg.apply, layers=LAYERS, depth=16))
  part = batch['mask'] if style_on_hole else 1.0

  def gram(x):
    flat = np.asarray(x, np.float64).reshape(2, -1, x.shape[-1])
    return np.einsum('bnc,bnd->bcd', flat, flat) / (flat.shape[1] * flat.shape[2])

  got, want = see(vgg_params, out), see(vgg_params, batch['image'])
  by_hand = sum(np.abs(np.asarray(got[n]) - np.asarray(want[n])).mean() for n in LAYERS)
  assert metrics['perceptual'] == pytest.approx(0.1 * by_hand, rel=1e-4)
  got, want = see(vgg_params, out * part), see(vgg_params, batch['image'] * part)
  by_hand = sum(np.abs(gram(got[n]) - gram(want[n])).mean() for n in LAYERS)
  assert metrics['style'] == pytest.approx(250 * by_hand, rel=1e-3)

  total, aux = found['discriminator']
  assert aux['metrics']['real'] + aux['metrics']['fake'] == total == aux['metrics']['total']
  # At the start the logits are near zero: half of 2 log 2, and 0.1 log 2 for the generator.
  assert total == pytest.approx(np.log(2), abs=0.05)
  assert metrics['adversarial'] == pytest.approx(0.1 * np.log(2), abs=0.01)


def test_what_the_discriminator_is_shown(batch):
  seen = {}
  for choice in ('out', 'comp'):
    recipe, variables = pieces(small(discriminator_input=choice), batch)
    update = recipe.phases[0].updates[1]
    far = {'out': jnp.where(batch['mask'] == 1, batch['image'], 0.0)}  # differs outside the hole
    run = jax.jit(lambda o: update.loss(variables, {}, o, batch, jax.random.key(0))[1])  # noqa: B023
    same, other = (run(o)['metrics']['fake'] for o in ({'out': batch['image']}, far))
    seen[choice] = bool(same == other)
  assert seen == {'out': False, 'comp': True}


def test_what_vgg_is_shown(batch, vgg_params):
  far = {'out': np.where(batch['mask'] == 1, batch['image'], 0)}  # differs outside the hole
  config = lambda choice: small(perceptual=0.1, style=250.0, vgg_input=choice)
  _, variables = pieces(config('out'), batch)
  losses = [make(config(choice)).phases[0].updates[0].loss for choice in ('out', 'comp')]

  @jax.jit
  def run(*inputs):
    return [loss(*inputs, jax.random.key(0))[1]['metrics'] for loss in losses]

  found = run(variables, {'vgg': vgg_params}, far, batch)
  out, comp = ((float(x['perceptual']), float(x['style'])) for x in found)
  assert min(out) > 0 and comp == (0, 0)


def test_a_weight_of_zero_removes_the_term_and_what_it_needs(batch):
  recipe, variables = pieces(small(adversarial=0.0), batch)
  assert recipe.networks == tuple(variables.params) == ('generator',) and variables.stats == {}
  assert recipe.plan(0).updates == ('generator',)
  assert recipe.load_constants() == {}
  loss = recipe.phases[0].updates[0].loss
  total, aux = loss(variables, {}, {'out': batch['image'] + 0.5}, batch, jax.random.key(0))
  assert set(aux['metrics']) == {'l1', 'total'} and aux['stats'] == {}
  assert total == pytest.approx(0.5)


def test_constants_are_loaded_for_training_only_and_only_what_is_used(monkeypatch):
  names = [n.replace('relu', 'conv') for n in vgg.layer_names(16) if n.startswith('relu')]
  asked = []

  def load(depth, file=None, *, shapes_only):
    asked.append((depth, file))
    return {name: {'kernel': name} for name in names}

  monkeypatch.setattr(vgg, 'load', load)
  recipe = make(small(style=250.0))
  assert recipe.inference.load_constants() == {} and asked == []
  assert list(recipe.load_constants()['vgg']) == ['conv1_1', 'conv1_2', 'conv2_1', 'conv2_2']
  make(small(perceptual=0.1, vgg_file='mine.pth')).load_constants()
  assert asked == [(16, None), (16, 'mine.pth')]


def test_without_vgg_weights_the_error_says_where_they_go(monkeypatch, tmp_path):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  nowhere = ('http://127.0.0.1:9/vgg16-397923af.pth', '397923af')
  monkeypatch.setattr(vgg, 'PUBLISHED', {16: nowhere, 19: nowhere})
  recipe = make(small(style=250.0))
  with pytest.raises(hub.DownloadError, match=r'127.0.0.1:9/vgg16.*') as error:
    recipe.load_constants()
  assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_predict_leaves_known_pixels_to_the_bit(batch, dtype):
  config = small()
  config.dtype = dtype
  recipe, variables = pieces(config, batch)
  assert {x.dtype for x in jax.tree.leaves(variables.params)} == {jnp.dtype('float32')}
  predict = jax.jit(recipe.inference.predict)
  got = predict(variables, {}, batch['image'], batch['mask'], jax.random.key(0))
  known = np.broadcast_to(np.asarray(batch['mask']) == 0, got.shape)
  assert got.dtype == jnp.float32 and got.shape == batch['image'].shape
  np.testing.assert_array_equal(np.asarray(got)[known], np.asarray(batch['image'])[known])
  assert (np.asarray(got)[~known] != np.asarray(batch['image'])[~known]).mean() > 0.9
  assert got.min() >= 0 and got.max() <= 1


def test_bfloat16_computes_another_output_and_float32_losses(batch):
  outs = {}
  for dtype in ('float32', 'bfloat16'):
    config = small()
    config.dtype = dtype
    recipe, variables = pieces(config, batch)

    def run(variables, recipe=recipe):
      outputs, _ = recipe.phases[0].forward(variables, {}, batch, jax.random.key(0))
      update = recipe.phases[0].updates[0]
      return outputs['out'], update.loss(variables, {}, outputs, batch, jax.random.key(0))

    outs[dtype], (total, aux) = jax.jit(run)(variables)
    assert outs[dtype].dtype == total.dtype == jnp.float32
    assert all(v.dtype == jnp.float32 for v in aux['metrics'].values())
  difference = np.abs(np.asarray(outs['float32']) - np.asarray(outs['bfloat16']))
  assert 0 < difference.max() < 0.1


def test_a_config_read_back_from_json_makes_the_same_networks(batch):
  config = small()
  with config.unlocked(), config.ignore_type():
    config.model.taps = [3, 3]
    config.loss.perceptual_layers = list(LAYERS)
  recipe = make(config)
  jax.eval_shape(recipe.init, jax.random.key(0), batch)


@pytest.mark.parametrize(
  'section, name, value, message',
  [
    ('model', 'tap', 8, "config.model has no 'tap'; it has: taps"),
    ('loss', 'styl', 8, "config.loss has no 'styl'; it has: .*style"),
    ('loss', 'l1', -1.0, 'config.loss.l1 -1.0 must be finite and >= 0'),
    ('loss', 'style', float('nan'), 'config.loss.style nan must be finite'),
    ('loss', 'style', 'much', "config.loss.style 'much' must be a number"),
    ('loss', 'adversarial_kind', 'wasserstein', "must be one of: 'non_saturating', 'hinge'"),
    ('loss', 'discriminator_input', 'raw', "'raw' must be one of: 'out', 'comp'"),
    ('loss', 'vgg_input', 'raw', "config.loss.vgg_input 'raw' must be one of: 'out', 'comp'"),
    ('loss', 'discriminator_width', 0, 'discriminator_width 0 must be >= 1'),
    ('loss', 'vgg', 'vgg11', "'vgg11' must be one of: 'vgg16', 'vgg19'"),
    ('loss', 'style_layers', ('pool6',), "layer 'pool6' must be one of: 'relu1_1'"),
    (None, 'dtype', 'float16', "config.dtype 'float16' must be one of: 'float32', 'bfloat16'"),
  ],
)
def test_bad_fields_are_named_before_anything_is_built(section, name, value, message):
  config = small()
  target = config[section] if section else config
  with config.unlocked(), config.ignore_type():
    target[name] = value
  with pytest.raises(ValueError, match=message):
    make(config)


def test_fields_that_are_missing_and_losses_that_are_none(batch):
  config = small()
  with config.unlocked():
    del config.loss.vgg
  with pytest.raises(ValueError, match=r"config.loss lacks \['vgg'\]"):
    make(config)
  with pytest.raises(ValueError, match=r'all weights .* are 0: nothing to train'):
    make(small(l1=0.0, adversarial=0.0))
  with pytest.raises(ValueError, match='style_layers is empty'):
    make(small(style=1.0, style_layers=()))


@pytest.mark.parametrize('kind', joint_loss.ADVERSARIAL_KINDS)
def test_kinds_of_gan_differ(kind, batch):
  recipes = {name: make(small(adversarial_kind=name)) for name in ('non_saturating', kind)}
  shapes = jax.eval_shape(recipes[kind].init, jax.random.key(1), batch)
  filled = jax.tree.map(lambda s: np.full(s.shape, 0.3, np.float32), shapes)

  @jax.jit
  def run(variables, batch):
    outputs, key = {'out': batch['image']}, jax.random.key(0)
    judging = [recipe.phases[0].updates[1] for recipe in recipes.values()]
    return [update.loss(variables, {}, outputs, batch, key)[0] for update in judging]

  values = [float(value) for value in run(filled, batch)]
  assert len(set(values)) == len(recipes)
