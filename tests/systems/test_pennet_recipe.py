"""The recipe of PEN-Net: losses by hand, one step, its published files."""

import contextlib
import functools
from unittest import mock

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch_bytes

from jaxinpaint import arrays, systems
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.pennet import networks, published, recipe
from jaxinpaint.training import step
from jaxinpaint.weights import importer, mapping, store


def small(**sections):
  config = systems.default_config('pennet')
  recipe.quicktest(config)
  for section, values in sections.items():
    config[section].update(values)
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 64, 128, 1), np.float32)
  mask[0, 8:20, 10:44] = mask[1, 40:, 90:] = 1
  return dict(
    image=rng.random((2, 64, 128, 3), np.float32), mask=mask, id=np.arange(2, dtype=np.int32)
  )


@pytest.fixture(scope='module')
def made(batch):
  made = systems.make_recipe(small())
  return made, drawn.variables(made, batch)


def test_parameter_counts_are_the_published_ones():
  made = systems.make_recipe(systems.default_config('pennet'))
  params, stats = made.shapes()
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert count(params['generator']) == 10_231_538
  assert count(params['discriminator']) == 4_318_401
  assert (made.inference.multiple, made.inference.min_side) == (64, 64)
  # And each of them, statistics too, has one key in the files.
  want = set(mapping.flatten({'params': params, 'stats': stats}, separator='/'))
  found = ['/'.join(e.target) for e in published.entries({})]
  assert len(found) == len(set(found)) and set(found) == want


def three_levels():
  """Of the five, each with an attention: the deepest kind once, the other twice."""
  stack = contextlib.ExitStack()
  stack.enter_context(mock.patch.object(networks, 'SCALES', networks.SCALES[:4]))
  stack.enter_context(mock.patch.object(recipe, 'LEVELS', 3))
  return stack


@pytest.fixture(scope='module')
def stepping(batch):
  """batch -> (state before, state after, metrics) of one step."""
  with three_levels():
    made = systems.make_recipe(small())
    variables = drawn.variables(made, batch)
  txs = {name: optax.sgd(0.1) for name in made.optimizers}
  program = step.make_train_step(made, txs)

  def run(batch):
    current = drawn.state(made, txs, variables)
    before = jax.tree.map(np.asarray, current)
    with three_levels():
      current, metrics = program(current, {}, batch, jax.random.key(1), made.plan(0))
    return before, jax.tree.map(np.asarray, current), metrics

  return run


def test_a_step_trains_both_networks(made, stepping, batch):
  before, after, metrics = stepping(batch)
  assert metrics.pop('finite') and {m.split('/')[0] for m in metrics} == set(made[0].networks)
  for kind in made[0].networks:
    moved = jax.tree.map(lambda a, b: (a != b).any(), before.params[kind], after.params[kind])
    still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
    # Within the hinge's margins its two gradients of this bias cancel.
    still = [k for k in still if k != "['conv5']['bias']"]
    assert not still, f'{kind}: {still} stand still'
  u = lambda s: s.stats['discriminator']['spectral']['conv1']['u']
  assert (u(before) != u(after)).any()
  assert {u.optimizer: u.trains for u in made[0].phases[0].updates} == {
    'discriminator': ('discriminator',),
    'generator': ('generator',),
  }


@pytest.mark.parametrize('pixels', [0, 1, 64 * 128])
def test_a_step_is_finite_for_any_hole(stepping, batch, pixels):
  mask = np.zeros((2, 64 * 128, 1), np.float32)
  mask[:, :pixels] = 1
  _, after, metrics = stepping(batch | {'mask': mask.reshape(2, 64, 128, 1)})
  assert metrics['finite'] and all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))
  assert (float(metrics['generator/hole']) == 0) == (pixels == 0)


@functools.partial(jax.jit, static_argnums=1)
def half(image, times):
  height, width = (side >> times for side in image.shape[1:3])
  return arrays.resize_bilinear(image, height, width, align_corners=True)


@pytest.mark.parametrize('kind', recipe.ADVERSARIAL_KINDS)
def test_losses_by_hand(batch, kind, monkeypatch):
  """Of constant pictures: out 0.75, image 0.5, 0.25 in the second image's hole."""
  made = systems.make_recipe(small(loss=dict(adversarial_kind=kind)))
  mask = jnp.asarray(batch['mask'])
  image = jnp.full((2, 64, 128, 3), 0.5).at[1, 40:, 90:].set(0.25)
  outputs = {'out': jnp.full((2, 64, 128, 3), 0.75)}
  outputs |= {f'pyramid{i}': jnp.full((2, 64 >> i, 128 >> i, 3), 0.1 * i) for i in range(1, 6)}
  # The judge's logit is ten times the mean of what it sees.
  monkeypatch.setattr(
    networks.Discriminator,
    'apply',
    lambda self, variables, x, **k: ((10 * x.mean((1, 2, 3), keepdims=True), ()), {}),
  )
  data = batch | {'image': image}
  updates = made.phases[0].updates
  run = lambda outputs, data: {
    u.name: u.loss(Variables({'discriminator': {}}, {}), {}, outputs, data, None) for u in updates
  }
  losses = jax.jit(run)(outputs, data)
  total, aux = losses['generator']
  terms = aux['metrics']
  holes = np.asarray(mask).sum((1, 2, 3))
  # In [-1, 1] the holes are wrong by 0.5 and 1, and known pixels by 0.5.
  wrong = (0.5 * holes[0] + 1.0 * holes[1]) / holes.sum()
  np.testing.assert_allclose(terms['hole'], 6 * wrong, rtol=1e-5)
  np.testing.assert_allclose(terms['valid'], 0.5, rtol=1e-5)
  reduced = lambda i: np.asarray(half(image, i))
  want = sum(2 * np.abs(0.1 * i - reduced(i)).mean() for i in range(1, 6))
  np.testing.assert_allclose(terms['pyramid'], 0.5 * want, rtol=1e-5)

  composed = np.where(mask, 0.75, image)
  logits = {k: 10 * x.mean((1, 2, 3)) for k, x in (('real', np.asarray(image)), ('fake', composed))}
  real, fake = logits['real'], logits['fake']
  score = lambda x: 1 / (1 + np.exp(-x))
  forms = {
    'hinge': (np.maximum(1 - real, 0), np.maximum(1 + fake, 0), -fake),
    'non_saturating': (-np.log(score(real)), -np.log(1 - score(fake)), -np.log(score(fake))),
    'least_squares_on_sigmoid': ((score(real) - 1) ** 2, score(fake) ** 2, (score(fake) - 1) ** 2),
  }
  real, fake, fooled = (x.mean() for x in forms[kind])
  np.testing.assert_allclose(terms['adversarial'], 0.1 * fooled, rtol=1e-4)
  np.testing.assert_allclose(total, sum(terms[n] for n in recipe.WEIGHTS), rtol=1e-6)
  judged = losses['discriminator'][1]['metrics']
  np.testing.assert_allclose(judged['real'], real / 2, rtol=1e-4)
  np.testing.assert_allclose(judged['fake'], fake / 2, rtol=1e-4)


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
  shown = jax.eval_shape(made.inference.pictures, variables, {}, image, mask, key)
  assert {x.shape for x in shown.values()} == {image.shape}
  assert set(shown) == {f'pyramid{i}' for i in range(1, 6)}


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'width', 6, 'model.width 6 must be a multiple of 4'),
    ('model', 'transfer', 'all', "model.transfer 'all' must be one of: 'released', 'paper'"),
    ('loss', 'pyramid', -1.0, 'loss.pyramid -1.0 must be finite and >= 0'),
    ('loss', 'adversarial_kind', 'wasserstein', "'wasserstein' must be one of: 'hinge', 'non_sat"),
    ('loss', 'discriminator_width', 0, 'discriminator_width 0 must be an integer of at least 1'),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('pennet')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_a_term_of_weight_0_is_not_built():
  config = small(loss=dict(adversarial=0.0, pyramid=0.0))
  made = systems.make_recipe(config)
  assert made.networks == ('generator',)
  (update,) = made.phases[0].updates
  image, mask = jnp.zeros((1, 64, 64, 3)), jnp.ones((1, 64, 64, 1))
  _, aux = update.loss(None, {}, {'out': image}, {'image': image, 'mask': mask}, None)
  assert set(aux['metrics']) == {'hole', 'valid', 'total'}


def write(path, key, state):
  """As the code saves it: {'netG': state dict}."""
  storages, tensors = {}, {}
  for i, (name, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array, '<f4')
    stride = tuple(s // 4 for s in array.strides)
    tensors[name] = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
  torch_bytes.write_zip(path, torch_bytes.emit({key: tensors} if key else tensors), storages)


def test_published_files_are_imported_and_others_refused(tmp_path):
  made = systems.make_recipe(systems.default_config('pennet'))
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float16), made.shapes()._asdict())
  files = {
    'gen_00033.pth': ('netG', mapping.export(zeros, published.generator_entries())),
    'dis_00033.pth': ('netD', mapping.export(zeros, published.discriminator_entries())),
  }
  for name, (key, state) in files.items():
    write(tmp_path / name, key, state)
  read = lambda paths, out: importer.import_file(systems.published('pennet'), paths, tmp_path / out)
  stored = store.load(read([tmp_path / name for name in files], 'both'))
  assert set(stored.params) == {'generator', 'discriminator'}
  write(tmp_path / 'other.pt', '', {'encoder.1.weight': np.zeros((1, 1, 3, 3))})
  with pytest.raises(mapping.MappingError) as error:
    read([tmp_path / 'other.pt'], 'other')
  assert "wanted 'netG' or 'netD'" in str(error.value) and 'encoder.1.weight' in str(error.value)
