"""The recipe of JPGNet; its generative part is tested in test_edgeconnect_recipe.py."""

import edge_guided_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import arrays, systems
from jaxinpaint.losses import structural_similarity
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import edge_guided
from jaxinpaint.systems.jpgnet import networks, published
from jaxinpaint.weights import importer, mapping, store

GENERATIVE = {'edge_generator', 'edge_discriminator', 'generator', 'discriminator'}


def small(phases=(0, 0, 0, 1, 1), **model):
  config = systems.default_config('jpgnet')
  config.model.update(dict(width=4, blocks=0, kpn_width=4) | model)
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=4))
  config.phases.update(dict(zip((*edge_guided.PHASES, 'kpn1', 'kpn2'), phases, strict=True)))
  return config


@pytest.fixture(scope='module')
def pieces():
  recipe = systems.make_recipe(small())
  return recipe, cases.weights(recipe, cases.batch())


def test_default_config_is_the_released_one():
  config = systems.default_config('jpgnet')
  kpn = networks.FilteringNetwork()
  assert (kpn.width, kpn.kernel_size, kpn.rates) == (64, 3, (1, 2, 3, 4))
  shown = {k: config.model[k] for k in ('kernel_size', 'rates')}
  assert shown == dict(kernel_size=3, rates=(1, 2, 3, 4)) and config.model.kpn_width == 64
  assert not config.model.channel_attention and not config.model.spatial_attention
  assert (config.loss.kpn_l1, config.loss.kpn_ssim) == (1.0, 0.2)
  recipe = systems.make_recipe(config)
  assert [p.name for p in recipe.phases] == ['edge', 'inpainting', 'joint', 'kpn1', 'kpn2']
  made = recipe.inference
  assert set(made.networks) == {'edge_generator', 'generator', 'kpn1', 'kpn2'}
  assert made.inputs == ('canny:sigma=2',) and (made.multiple, made.min_side) == (16, 16)


def test_the_last_phase_trains_the_fusion_and_the_others_rest():
  recipe, data = systems.make_recipe(small()), cases.batch()
  state, step = cases.start(recipe, data)
  params, stats, metrics, _ = cases.moved(recipe, state, step, data, 1)
  assert params == {'kpn2'} and not stats
  total = metrics['kpn2/l1'] + metrics['kpn2/ssim']
  np.testing.assert_allclose(metrics['kpn2/total'], total, rtol=1e-5)


def test_the_loss_is_l1_less_a_fifth_of_ssim(pieces):
  data = cases.batch()
  (update,) = pieces[0].phases[0].updates
  out = data['image'] + 0.25
  total, aux = update.loss(Variables({}, {}), {}, {'out': out}, data, None)
  want = 0.25 - 0.2 * structural_similarity.ssim(out, data['image'])
  np.testing.assert_allclose([total, aux['metrics']['l1']], [want, 0.25], rtol=1e-5)


def test_the_generative_part_is_trained_by_its_own_phases():
  recipe = systems.make_recipe(small((1, 1, 1, 1, 1)))
  trained = [{n for u in p.updates for n in u.trains} for p in recipe.phases]
  edges = {'edge_generator', 'edge_discriminator'}
  assert trained == [edges, GENERATIVE - edges, GENERATIVE - edges, {'kpn1'}, {'kpn2'}]


def test_completion_is_the_fusion_of_both_results(pieces):
  recipe, variables = pieces
  data = cases.batch()
  image, mask = data['image'], data['mask']
  kpn = networks.FilteringNetwork(4)

  @jax.jit
  def run(variables, image, mask, canny):
    call = lambda f, image: f(variables, {}, image, mask, None, canny=canny)
    shown = call(recipe.inference.pictures, image)
    damaged = image * (1 - mask)
    first = kpn.apply(variables.of('kpn1'), damaged, damaged)
    filtered = arrays.compose(first['out'], image, mask)
    pair = jnp.concatenate([shown['generated'], filtered], -1)
    x = jnp.concatenate([pair, first['kernels'], networks.uncertainty_map(first['kernels'])], -1)
    out = kpn.apply(variables.of('kpn2'), x, pair)['out']
    return shown, filtered, out, call(recipe.inference.predict, image)

  shown, filtered, out, got = run(variables, image, mask, data['canny'])
  *_, other = run(variables, jnp.where(mask == 1, 0.5, image), mask, data['canny'])
  assert set(shown) == {'edges', 'generated', 'filtered', 'uncertainty'}
  np.testing.assert_allclose(shown['filtered'], jnp.clip(filtered, 0, 1), atol=1e-5)
  np.testing.assert_allclose(got, arrays.compose(jnp.clip(out, 0, 1), image, mask), atol=1e-4)
  known = np.broadcast_to(np.asarray(mask) == 0, got.shape)
  np.testing.assert_array_equal(np.asarray(got)[known], np.asarray(image)[known])
  hole = np.broadcast_to(np.asarray(mask) == 1, got.shape)
  np.testing.assert_array_equal(np.asarray(got)[hole], np.asarray(other)[hole])


@pytest.mark.parametrize('over', networks.UNCERTAINTY)
def test_the_uncertainty_is_stretched_as_the_config_says(over, pieces, monkeypatch):
  _, variables = pieces
  data, asked = cases.batch(), []
  monkeypatch.setattr(
    networks, 'uncertainty_map', lambda kernels, over: asked.append(over) or kernels[..., :1]
  )
  predict = systems.make_recipe(small(uncertainty=over)).inference.predict
  run = lambda image: predict(variables, {}, image, data['mask'], None, canny=data['canny'])
  jax.eval_shape(run, data['image'])
  assert asked == [over]


def test_parts_can_be_left_out():
  alone = systems.make_recipe(small((0, 0, 0, 1, 0), generative='none'))
  assert alone.networks == alone.inference.networks == ('kpn1',) and alone.inference.inputs == ()
  data = cases.batch()
  variables = jax.eval_shape(alone.init, jax.random.key(0), data)
  args = (variables, {}, data['image'], data['mask'], jax.random.key(0))
  assert jax.eval_shape(alone.inference.predict, *args).shape == data['image'].shape
  assert set(jax.eval_shape(alone.inference.pictures, *args)) == {'filtered', 'uncertainty'}
  binary = systems.make_recipe(small((0, 0, 0, 1, 0), fusion='binary'))
  assert set(binary.networks) == GENERATIVE | {'kpn1'}
  for model in (dict(generative='none'), dict(fusion='binary')):
    with pytest.raises(ValueError, match=r'nothing to train in kpn2'):
      systems.make_recipe(small(**model))


def test_binary_fusion_takes_the_generated_picture_but_at_the_least_uncertainty():
  uncertainty = jnp.asarray([0.0, 0.1, 1.0]).reshape(1, 1, 3, 1)
  got = networks.binary_fusion(jnp.ones((1, 1, 3, 3)), jnp.zeros((1, 1, 3, 3)), uncertainty)
  np.testing.assert_array_equal(got[0, 0, :, 0], [0, 1, 1])


@pytest.mark.parametrize(
  'model, why',
  [
    (dict(generative='rfr'), r"model\.generative 'rfr' must be one of: 'edgeconnect'"),
    (dict(uncertainty='mean'), r"model\.uncertainty 'mean'"),
    (dict(kernel_size=4), r'model\.kernel_size 4 must be odd'),
    (dict(rates=(1, 0)), r'model\.rates \(1, 0\)'),
  ],
)
def test_settings_without_sense_are_refused(model, why):
  with pytest.raises(ValueError, match=why):
    systems.make_recipe(small(**model))


@pytest.mark.parametrize('attention', [False, True])
def test_every_parameter_and_vector_is_mapped_once(attention):
  config = systems.default_config('jpgnet')
  config.model.update(dict(blocks=1, channel_attention=attention, spatial_attention=attention))
  init = systems.make_recipe(config).init
  variables = jax.eval_shape(init, jax.random.key(0), cases.abstract_batch())
  path = lambda p: tuple(k.key for k in p)
  leaves = jax.tree_util.tree_leaves_with_path
  want = {('params', *path(p)) for p, _ in leaves(variables.params)}
  want |= {('stats', *path(p)) for p, _ in leaves(variables.stats)}
  found = [e.target for e in published.entries(config.model)]
  assert len(found) == len(set(found)) and set(found) == want


def test_published_files_are_told_apart_and_others_refused(tmp_path, monkeypatch):
  cases.narrow_format(monkeypatch, 'jpgnet', dict(width=4, blocks=0, kpn_width=4))
  config = small()
  init = systems.make_recipe(config).init
  entries = published.entries(config.model)
  unused = mapping.conv('conv_fusion', 'kpn1', ('final',))  # in the published file, used by nothing
  write = lambda name, network, key: cases.write_published(
    tmp_path / name, init, (*entries, *unused), network, key
  )
  paths = [
    write('1_KPN_bs_8.pth', 'kpn1', None),
    write('2_KPN_bs_8.pth', 'kpn2', None),
    write('EdgeModel_gen.pth', 'edge_generator', 'generator'),
    write('InpaintingModel_gen.pth', 'generator', 'generator'),
  ]
  stored = store.load(importer.import_file(systems.published('jpgnet'), paths, tmp_path / 'all'))
  assert set(stored.params) == {'kpn1', 'kpn2', 'edge_generator', 'generator'}
  assert stored.params['kpn1']['conv1']['conv1']['kernel'].shape == (3, 3, 3, 4)
  assert stored.params['kpn2']['conv1']['conv1']['kernel'].shape == (3, 3, 34, 4)
  with pytest.raises(mapping.MappingError, match='not the kpn2'):
    importer.import_file(systems.published('jpgnet'), [paths[0], *paths[2:]], tmp_path / 'x')
  bare = write('bare_dis.pth', 'discriminator', None)
  with pytest.raises(mapping.MappingError, match=r'bare_dis\.pth'):
    importer.import_file(systems.published('jpgnet'), [bare], tmp_path / 'x')
