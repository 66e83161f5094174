from unittest import mock

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_bytes
from absl import logging

from jaxinpaint import systems
from jaxinpaint.recipe import Variables
from jaxinpaint.systems.lfr import published
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import initial, optimizers, state, step
from jaxinpaint.weights import importer, mapping, store


def small(**model):
  config = config_lib.base('lfr')
  with config.unlocked():
    for name in ('structure', 'texture', 'critic'):
      config.optimizers[name] = dict(name='sgd', learning_rate=1e-2)
  systems.module('lfr', 'recipe').quicktest(config)
  config.loss.update(dict(critic_batches='same', critic_steps=1))
  config.model.update(dict(texture_width=2, critic_width=2, encoder_width=4) | model)
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  mask = np.zeros((2, 64, 64, 1), np.float32)
  mask[:, 18:40, 20:44] = 1
  image = rng.random((2, 64, 64, 3), np.float32)
  return dict(image=image, mask=mask, id=np.arange(2, dtype=np.int32))


@pytest.fixture(scope='module')
def made(batch):
  # A StyleGAN2 of 8 latents, three coarse, four middle and a fine one, instead of 10.
  with mock.patch.dict(systems.module('lfr', 'recipe').STAND_IN, size=32):
    recipe = systems.make_recipe(small())
  return recipe, drawn.variables(recipe, batch)


def moved(before, after):
  pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
  return np.mean([(np.asarray(a) != np.asarray(b)).any() for a, b in pairs])


def test_each_phase_trains_its_networks_and_stylegan_never_moves(made, batch):
  recipe, variables = made
  txs = optimizers.make_optimizers(small().optimizers, recipe.optimizers)
  current = drawn.state(recipe, txs, variables)
  train_step = step.make_train_step(recipe, txs)

  @jax.jit
  def each(state, batch):
    return [train_step(state, {}, batch, jax.random.key(1), recipe.plan(i)) for i in (0, 2)]

  before = jax.tree.map(np.asarray, current)
  for (number, trained), (current, metrics) in zip(
    ((0, {'encoder'}), (2, {'texture', 'critic'})), each(before, batch), strict=True
  ):
    assert metrics['finite'], metrics
    for name in recipe.networks:
      share = moved(before.params[name], current.params[name])
      assert share > 0.9 if name in trained else share == 0, (number, name, share)
    # In the second phase the encoder rests, its norms too.
    assert bool(moved(before.stats['encoder'], current.stats['encoder'])) == (number == 0)
    assert not moved(before.stats['stylegan'], current.stats['stylegan'])


def test_predict_keeps_known_pixels_and_takes_other_sizes(made, batch):
  recipe, variables = made
  image, mask = batch['image'][:1, :, :32], batch['mask'][:1, :, :32]
  arguments = (variables, {}, image, mask, jax.random.key(0))
  predict = jax.jit(recipe.inference.predict)
  out = np.asarray(predict(*arguments))
  known = mask[..., 0] == 0
  np.testing.assert_array_equal(out[known], image[known])
  hidden = np.where(mask > 0, 7.0, image)
  again = predict(variables, {}, hidden, mask, jax.random.key(0))
  np.testing.assert_array_equal(out, again)
  assert recipe.inference.networks == ('stylegan', 'encoder', 'texture')
  (name,) = jax.eval_shape(recipe.inference.pictures, *arguments)
  assert 'untrained' in name


def test_a_stand_in_is_said_and_the_ablation_has_none(monkeypatch):
  said = []
  monkeypatch.setattr(logging, 'warning', lambda text, *a: said.append(text % a))
  systems.inference(small()).load_constants()
  assert 'untrained StyleGAN2 of 64 pixels takes the place' in said[0]
  config = small(structure=False, attention_from=(6, 6, 6))
  config.phases.structure = 0
  recipe = systems.make_recipe(config)
  recipe.inference.load_constants()
  assert len(said) == 1 and recipe.networks == ('texture', 'critic')
  assert recipe.inference.pictures is None


def test_training_stops_without_a_stylegan_unless_a_stand_in_is_wanted():
  with pytest.raises(ValueError, match=r'needs a pretrained StyleGAN2.*model\.stand_in=True'):
    systems.make_recipe(small(stand_in=False)).load_constants()
  systems.make_recipe(small(stand_in=False)).load_constants(shapes_only=True)  # to estimate a run
  systems.make_recipe(small()).load_constants()
  with pytest.raises(ValueError, match='set one of the two'):
    systems.make_recipe(small(stylegan_file='a.pt'))


def test_the_same_batch_serves_all_steps_of_the_critic():
  config = small()
  config.loss.critic_steps = 3
  critic, texture = systems.make_recipe(config).phases[1].updates
  assert (critic.repeat, critic.every, texture.repeat, texture.every) == (3, 1, 1, 1)


def test_fresh_critic_batches_step_the_generator_every_so_often():
  config = small()
  config.loss.critic_batches = 'fresh'
  config.loss.critic_steps = 3
  config.phases.texture = 6
  recipe = systems.make_recipe(config)
  plans = [recipe.plan(2 + i).updates for i in range(6)]
  assert plans == [('critic', 'texture'), ('critic',), ('critic',)] * 2


def write_published(path, arrays):
  """A pSp file in the authors' layout."""
  storages, nested = {}, {'opts': {'output_size': 64}, 'state_dict': {}}
  for i, (key, array) in enumerate(arrays.items()):
    array = np.ascontiguousarray(array)
    stride = tuple(s // 4 for s in array.strides)
    made = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    storages[str(i)] = array.tobytes()
    place = nested['state_dict'] if key.startswith('state_dict.') else nested
    place[key.removeprefix('state_dict.')] = made
  torch_bytes.write_zip(path, torch_bytes.emit(nested), storages)


def test_a_psp_file_is_imported_and_training_starts_from_it(tmp_path, monkeypatch):
  own = dict(stylegan_size=64, stylegan_mlp_layers=2, stylegan_channel_multiplier=1)
  config = small(stylegan_file='init_from', stand_in=False, **own)
  recipe = systems.make_recipe(config)
  shapes = recipe.shapes()
  of = lambda value: jax.tree.map(lambda s: np.full(s.shape, value, np.float32), shapes)
  arrays = mapping.export(of(1)._asdict(), published.psp_entries(config.model))
  write_published(tmp_path / 'psp.pt', arrays)
  monkeypatch.setattr(
    systems, 'default_config', lambda system: config.copy_and_resolve_references()
  )
  out = importer.import_file(systems.published('lfr'), tmp_path / 'psp.pt', tmp_path / 'psp')
  assert set(store.load(out).params) == {'encoder', 'stylegan'}
  txs = optimizers.make_optimizers(config.optimizers, recipe.optimizers)
  current = drawn.state(recipe, txs, of(0))
  started = initial.load(out, current, recipe)
  assert (started.stats['stylegan']['buffers']['latent_avg'] == 1).all()
  assert not moved(current.params['texture'], started.params['texture'])
  others = {key: array for key, array in arrays.items() if 'latlayer' not in key}
  write_published(tmp_path / 'other.pt', others)
  with pytest.raises(mapping.MappingError, match='latlayer1'):
    importer.import_file(systems.published('lfr'), tmp_path / 'other.pt', tmp_path / 'x')
  store.save(tmp_path / 't', 'lfr', config, {'texture': current.params['texture']}, {})
  with pytest.raises(ValueError, match=r"holds \['texture'\], but not the stylegan"):
    initial.load(tmp_path / 't.safetensors', current, recipe)


def test_parts_of_networks_are_grafted_and_others_refused(made):
  _, variables = made
  current = state.TrainState(jnp.asarray(0), *variables, {}, {})
  part = lambda **layers: Variables({'encoder': layers}, {})
  bias = np.ones_like(variables.params['encoder']['lateral1']['bias'])
  merged = initial.merge(part(lateral1={'bias': bias}), current)
  assert (merged.params['encoder']['lateral1']['bias'] == 1).all()
  assert merged.params['encoder']['lateral2'] is variables.params['encoder']['lateral2']
  with pytest.raises(ValueError, match='params/encoder has no lateral9'):
    initial.merge(part(lateral9={}), current)
  with pytest.raises(ValueError, match=r'lateral1/bias: \(3,\) in the file'):
    initial.merge(part(lateral1={'bias': np.ones(3)}), current)


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'attention_from', (6, 5, 3), 'attention_from .* must be three of the levels 4 to 6'),
    ('model', 'size', 96, 'model.size 96 must be a power of two'),
    ('model', 'critic_size', 96, 'critic_size 96 must be a multiple of 64'),
    ('model', 'structure', False, 'set config.phases.structure=0 too'),
    ('loss', 'critic_batches', 'new', "critic_batches 'new' must be"),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('lfr')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)
