import drawn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import arrays, systems
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import pconv_terms, vgg16_terms
from jaxinpaint.training import optimizers, step
from jaxinpaint.weights import mapping


def small():
  config = systems.default_config('pconv')
  config.model.update(dict(width=4, levels=2))
  config.loss.update(dict(perceptual=0.0, style=0.0))
  config.phases.update(dict(training=1, finetuning=1))
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 32, 32, 1), np.float32)
  mask[:, 8:20, 10:24] = 1
  image = rng.random((2, 32, 32, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(2, dtype=np.int32))


@goldens.cases('pconv_loss')
def test_all_terms(case):
  data, state = case.data(), case.state()
  entries = tuple(
    entry
    for key in sorted(k.removesuffix('.weight') for k in state if k.endswith('.weight'))
    for entry in mapping.conv(key, 'vgg', (f'conv{key[4]}_{int(key.split(".")[-1]) // 2 + 1}',))
  )
  params = mapping.convert(state, entries)['params']['vgg']
  loss = systems.default_config('pconv').loss
  out, image, valid = (goldens.nhwc(data[k]) for k in ('output', 'gt', 'mask'))
  hole = 1 - valid[..., :1]

  @jax.jit
  def run(params, out, image):
    see = vgg16_terms.features({'vgg': params}, loss, normalize=False, dtype=jnp.float32)
    return pconv_terms.generator_terms(loss, out, image, hole, see), see(image)

  terms, pools = run(params, out, image)
  for name in ('valid', 'hole', 'tv'):
    goldens.assert_close(terms[name] / loss[name], data[name].squeeze(), what=name)
  goldens.assert_close(terms['perceptual'] / 0.05, data['prc'].squeeze(), what='perceptual')
  both = terms['style_out'] + terms['style_composite']
  goldens.assert_close(both / 120, data['style'].squeeze(), what='style')
  goldens.assert_close(sum(terms.values()), data['total'].squeeze(), what='total')
  for name, features in pools.items():
    goldens.assert_close(goldens.nchw(features)[:1, :16], data[name], what=name)


def test_terms_by_hand():
  """A flat output 1 above a flat picture, in a hole of 4 x 4 of 8 x 8 pixels."""
  loss = systems.default_config('pconv').loss
  loss.update(dict(perceptual=0.0, style=0.0))
  mask = np.zeros((1, 8, 8, 1), np.float32)
  mask[:, 2:6, 2:6] = 1
  image = np.full((1, 8, 8, 3), 0.25, np.float32)
  run = lambda: jax.jit(lambda out: pconv_terms.generator_terms(loss, out, image, mask, None))(
    image + 1
  )
  terms = run()
  near = lambda value: pytest.approx(value, rel=1e-6)
  assert set(terms) == {'valid', 'hole', 'tv'}
  assert terms['hole'] == near(6 * 16 / 64) and terms['valid'] == near(48 / 64)
  # 8 steps of height 1 across and as many down, of 7 * 8 pairs each.
  assert terms['tv'] == near(0.1 * 2 * 8 / 56)
  loss.tv_region = 'hole'
  terms = run()
  assert terms['tv'] == near(0.1 * 2 * 8 / 64)
  loss.tv_region = 'masked'  # zeros around the hole make each step one of 1.25
  terms = run()
  assert terms['tv'] == near(0.1 * 1.25 * 2 * 8 / 56)
  loss.update(dict(hole=0.0, tv=0.0))
  assert set(run()) == {'valid'}


def test_the_output_is_compared_with_the_picture_as_vgg_gets_it(batch):
  update = systems.make_recipe(small()).phases[0].updates[0]
  of = lambda out: update.loss(Variables({}, {}), {}, {'standardised': out}, batch, None)[1][
    'metrics'
  ]
  found = of(arrays.standardise(batch['image']))
  assert found['valid'] == found['hole'] == 0 and found['tv'] > 0


def test_features_are_of_the_output_and_of_the_composite():
  """With pictures as their own features, perceptual terms are L1 of the whole and of the hole."""
  loss = systems.default_config('pconv').loss
  rng = np.random.default_rng(0)
  out, image = (rng.random((1, 4, 4, 3), np.float32) for _ in range(2))
  mask = np.zeros((1, 4, 4, 1), np.float32)
  mask[:, :2] = 1
  run = jax.jit(lambda *x: pconv_terms.generator_terms(loss, *x, lambda x: {'pool1': x}))
  terms = run(out, image, mask)
  error = np.abs(out - image)
  want = 0.05 * (error.mean() + (error * mask).mean())
  np.testing.assert_allclose(terms['perceptual'], want, rtol=1e-5)
  gram = lambda x: np.einsum('hwc,hwd->cd', x[0], x[0]) / 48
  styles = (out, np.where(mask > 0, out, image))
  for name, x in zip(('style_out', 'style_composite'), styles, strict=True):
    want = 120 * np.abs(gram(x) - gram(image)).mean()
    np.testing.assert_allclose(terms[name], want, rtol=1e-4)


@pytest.fixture(scope='module')
def trained(batch):
  """(recipe, [states before, between and after its two phases], [metrics of each])."""
  made = systems.make_recipe(small())
  sgd = dict(name='sgd', learning_rate=0.1)
  txs = optimizers.make_optimizers(dict.fromkeys(made.optimizers, sgd), made.optimizers)
  current = drawn.state(made, txs, drawn.variables(made, batch))
  train, states, metrics = step.make_train_step(made, txs), [], []
  for i in range(2):
    states.append(jax.tree.map(np.array, current))
    current, found = train(current, {}, batch, jax.random.key(1), made.plan(i))
    metrics.append(found)
  return made, [*states, jax.tree.map(np.array, current)], metrics


@pytest.mark.parametrize('phase, frozen', [(0, set()), (1, {'encoder2'})])
def test_a_phase_trains_every_parameter_and_moves_its_norms(trained, phase, frozen):
  _, states, metrics = trained
  before, after = states[phase : phase + 2]
  moved = lambda a, b: jax.tree.map(lambda x, y: bool((x != y).any()), a, b)
  assert metrics[phase]['finite'] and jax.tree.all(moved(before.params, after.params))
  stats = moved(*(s.stats['generator']['batch_stats'] for s in (before, after)))
  assert {name for name, each in stats.items() if not any(each['bn'].values())} == frozen
  assert set(metrics[phase]) >= {f'generator/{t}' for t in ('valid', 'hole', 'tv', 'total')}
  parts = [metrics[phase][f'generator/{t}'] for t in ('valid', 'hole', 'tv')]
  np.testing.assert_allclose(metrics[phase]['generator/total'], sum(parts), rtol=1e-6)


def test_default_recipe_is_the_published_one(trained):
  config = systems.default_config('pconv')
  assert config.loss.to_dict() | dict(vgg_file='') == dict(
    valid=1.0,
    hole=6.0,
    perceptual=0.05,
    style=120.0,
    tv=0.1,
    tv_region='picture',
    vgg_file='',
    vgg_layers=('pool1', 'pool2', 'pool3'),
  )
  made = systems.make_recipe(config)
  assert made.steps == 1_000_000 and made.inference.multiple == made.inference.min_side == 128
  names = [update.optimizer for phase in made.phases for update in phase.updates]
  assert names == ['generator', 'generator_finetuning']
  assert set(made.load_constants(shapes_only=True)['vgg']) >= {'conv1_1', 'conv3_3'}
  assert 'conv4_1' not in made.load_constants(shapes_only=True)['vgg']
  assert trained[0].load_constants() == {}  # without terms that need it


def test_gradients_are_finite_for_every_hole(trained, batch):
  made, states, _ = trained
  (update,) = made.phases[0].updates

  def run(params, stats, mask):
    data = batch | {'mask': mask}
    variables = Variables(params, stats)
    outputs, _ = made.phases[0].forward(variables, {}, data, None)
    return update.loss(variables, {}, outputs, data, None)[0]

  both = jax.jit(jax.value_and_grad(run))
  one = np.zeros_like(batch['mask'])
  one[:, 5, 5] = 1
  for mask in (np.zeros_like(one), one, np.ones_like(one)):
    value, gradient = both(states[0].params, states[0].stats, mask)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_predict_keeps_known_pixels(trained, batch):
  made, states, _ = trained
  variables = Variables(states[0].params, states[0].stats)
  run = jax.jit(made.inference.predict)
  out = np.asarray(run(variables, {}, batch['image'], batch['mask'], jax.random.key(0)))
  known = batch['mask'][..., 0] == 0
  np.testing.assert_array_equal(out[known], batch['image'][known])
  assert np.isfinite(out).all() and (out[~known] != batch['image'][~known]).any()


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'levels', 9, 'model.levels 9 must be one of: 2, 3, 4, 5, 6, 7, 8'),
    ('model', 'renorm', 'sum', "model.renorm 'sum' must be one of: 'ratio', 'mean'"),
    ('model', 'width', 0, 'model.width 0 must be an integer of at least 1'),
    ('loss', 'tv_region', 'edge', "loss.tv_region 'edge' must be one of"),
    ('loss', 'hole', -1.0, 'loss.hole -1.0 must be finite and >= 0'),
    ('loss', 'vgg_layers', ('relu1_1',), 'vgg_layers .* must be among'),
    ('phases', 'training', -1, 'training -1 must be a number of steps'),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('pconv')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_a_phase_of_no_steps_is_left_out():
  config = small()
  config.phases.training = 0
  assert [phase.name for phase in systems.make_recipe(config).phases] == ['finetuning']
