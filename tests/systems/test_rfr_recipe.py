"""The recipe of RFR: its loss, both phases, its published files."""

import functools

import drawn
import edge_guided_cases as cases
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch_bytes

from jaxinpaint import systems
from jaxinpaint.features import vgg
from jaxinpaint.systems._shared import pconv_terms
from jaxinpaint.systems.rfr import networks, published, recipe
from jaxinpaint.training import step
from jaxinpaint.weights import importer, mapping, store


def small(**sections):
  config = systems.default_config('rfr')
  with config.unlocked():
    config.training = dict(steps=0)
  recipe.quicktest(config)
  for section, values in sections.items():
    config[section].update(values)
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 32, 48, 1), np.float32)
  mask[0, 8:20, 10:30] = mask[1, 20:, 24:] = 1
  image = rng.random((2, 32, 48, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(2, dtype=np.int32))


@pytest.fixture(scope='module')
def made(batch):
  made = systems.make_recipe(small())
  return made, drawn.variables(made, batch)


@goldens.cases('rfr_loss')
def test_losses(case):
  state, data = case.state(), case.data()
  names = [n for n in vgg.layer_names(16) if n.startswith('relu')][: len(state) // 2]
  keys = [key.removesuffix('.weight') for key in state if key.endswith('.weight')]
  params = {
    name.replace('relu', 'conv'): {
      'kernel': state[f'{key}.weight'].transpose(2, 3, 1, 0),
      'bias': state[f'{key}.bias'],
    }
    for name, key in zip(names, keys, strict=True)
  }
  image, fake, known = (goldens.nhwc(data[name]) for name in ('gt', 'fake', 'mask'))
  loss = recipe.default_config().loss

  @jax.jit
  def run(params, *pictures):
    features = functools.partial(
      vgg.apply, params, layers=loss.vgg_layers, depth=16, normalize=False
    )
    return pconv_terms.generator_terms(loss, *pictures, features)

  found = run(params, fake, image, 1 - known[..., :1])
  goldens.assert_close(sum(found.values()), data['total'][0], what='total')
  found['style'] = found.pop('style_out') + found.pop('style_composite')
  for name, value in found.items():
    goldens.assert_close(value / loss[name], data[name][0], what=name)


@pytest.mark.parametrize('smaller, count', [(False, 31_224_065), (True, 30_929_153)])
def test_parameter_counts_are_the_published_ones(smaller, count):
  config = systems.default_config('rfr')
  config.model.smaller_hole = smaller
  params, stats = systems.make_recipe(config).shapes()
  assert sum(x.size for x in jax.tree.leaves(params)) == count
  # And each of them, statistics too, has one key in the files.
  want = set(mapping.flatten({'params': params, 'stats': stats}, separator='/'))
  found = ['/'.join(e.target) for e in published.entries({})]
  assert len(found) == len(set(found)) and set(found) == want


@pytest.fixture(scope='module')
def stepping(made):
  """(phase, batch) -> (state before, state after, metrics) of one step."""
  made, variables = made
  txs = {name: optax.sgd(0.1) for name in made.optimizers}
  program = step.make_train_step(made, txs)

  def run(phase, batch):
    current = drawn.state(made, txs, variables)
    before = jax.tree.map(np.asarray, current)
    plan = made.plan(sum(p.steps for p in made.phases[:phase]))
    current, metrics = program(current, {}, batch, jax.random.key(1), plan)
    return before, jax.tree.map(np.asarray, current), metrics

  return run


def moved(before, after):
  """{path: whether the array differs}."""
  different = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
  return {jax.tree_util.keystr(k): v for k, v in jax.tree.leaves_with_path(different)}


def test_a_step_trains_every_parameter_and_moves_the_norms(stepping, batch):
  before, after, metrics = stepping(0, batch)
  assert metrics.pop('finite') and {m.split('/')[0] for m in metrics} == {'generator'}
  still = [k for k, v in moved(before.params, after.params).items() if not v]
  # Of one channel only, the next norm undoes this scale.
  still = [k for k in still if "['tail2']['bn1']['scale']" not in k]
  assert not still, f'{still} stand still'
  assert all(moved(before.stats, after.stats).values())


def test_norms_rest_while_fine_tuning(made, batch):
  made, variables = made
  first, second = made.phases
  assert (first.updates[0].optimizer, second.updates[0].optimizer) == (
    'generator',
    'generator_finetuning',
  )
  _, changed = jax.jit(lambda v: second.forward(v, {}, batch, None))(variables)
  assert not any(moved(variables.stats, changed).values())


@pytest.mark.parametrize('pixels', [0, 1, 32 * 48])
def test_a_step_is_finite_for_any_hole(stepping, batch, pixels):
  mask = np.zeros((2, 32 * 48, 1), np.float32)
  mask[:, :pixels] = 1
  _, after, metrics = stepping(0, batch | {'mask': mask.reshape(2, 32, 48, 1)})
  assert metrics['finite'] and all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))
  assert (float(metrics['generator/hole']) == 0) == (pixels == 0)


def test_norms_inside_the_recurrence_move_once_in_every_step(made, batch):
  made, variables = made
  zero = jax.tree.map(jnp.zeros_like, variables)
  zero = zero._replace(stats=jax.tree.map(jnp.ones_like, zero.stats))
  _, changed = jax.jit(lambda v: made.phases[0].forward(v, {}, batch, None))(zero)
  stats = changed['generator']['batch_stats']
  # Kernels of 0: the batch's mean is 0, and a running mean keeps 0.9 of itself each time.
  np.testing.assert_allclose(stats['pconv1']['bn']['mean'], 0.9, rtol=1e-5)
  np.testing.assert_allclose(stats['step']['pconv22']['bn']['mean'], 0.9**2, rtol=1e-5)
  np.testing.assert_allclose(stats['step']['module']['encoder1_bn']['mean'], 0.9**2, rtol=1e-5)


def test_predict_keeps_known_pixels_and_reads_none_of_the_hole(made, batch):
  made, variables = made
  image, mask, key = batch['image'], batch['mask'], jax.random.key(0)
  predict = jax.jit(
    lambda variables, image: made.inference.predict(variables, {}, image, mask, key)
  )
  out = np.asarray(predict(variables, image))
  known = mask[..., 0] == 0
  np.testing.assert_array_equal(out[known], image[known])
  assert np.isfinite(out).all() and (out[~known] != image[~known]).any()
  np.testing.assert_array_equal(out, predict(variables, np.where(mask == 1, 7, image)))


def test_a_wrong_size_is_named():
  image = jnp.zeros((1, 32, 40, 3))
  with pytest.raises(ValueError, match='width 40 must be a multiple of 16'):
    networks.Generator().init(jax.random.key(0), image, image[..., :1])


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'width', 12, 'model.width 12 must be a multiple of 8'),
    ('model', 'recurrences', 0, 'model.recurrences 0 must be an integer of at least 1'),
    ('model', 'attention_form', 'fast', "attention_form 'fast' must be one of: '', 'plain'"),
    ('loss', 'tv', -1.0, 'loss.tv -1.0 must be finite and >= 0'),
    ('loss', 'vgg_layers', ('relu1_1',), 'vgg_layers .* must be among'),
    ('phases', 'training', -1, 'training -1 must be a number of steps'),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('rfr')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def write(path, state, **rest):
  """As the authors save it: {'n_iter', 'generator'}."""
  storages, tensors = {}, {}
  for i, (key, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[key] = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  torch_bytes.write_zip(path, torch_bytes.emit({'generator': tensors, **rest}), storages)


def test_published_files_are_imported_and_others_refused(tmp_path, monkeypatch):
  """Of the variant for smaller holes: the sizes of its kernels tell it from the other."""
  cases.narrow_format(monkeypatch, 'rfr', dict(width=8))
  config = systems.default_config('rfr')
  config.model.update(dict(smaller_hole=True, width=8))
  shapes = systems.make_recipe(config).shapes()
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float16), shapes._asdict())
  state = mapping.export(zeros, published.generator_entries())
  read = lambda name: importer.import_file(
    systems.published('rfr'), tmp_path / name, tmp_path / f'of_{name}'
  )
  write(tmp_path / 'g_350000.pth', state, n_iter=350_000)
  assert store.load(read('g_350000.pth')).config.model.smaller_hole
  write(tmp_path / 'other.pth', {'encoder.1.weight': np.zeros((1, 1, 3, 3))})
  with pytest.raises(mapping.MappingError) as error:
    read('other.pth')
  assert 'encoder.1.weight' in str(error.value) and 'Pconv1.weight' in str(error.value)
