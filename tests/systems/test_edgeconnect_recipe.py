"""The recipe of EdgeConnect; what its second phase shares is tested in test_joint_loss.py."""

import functools

import edge_guided_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.layers import edge_generators
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.losses import adversarial
from jaxinpaint.systems._shared import (
  edge_guided,
  edge_guided_files,
  joint_loss,
)
from jaxinpaint.weights import importer, mapping, store


def small(phases=(1, 1, 1), model=(), **loss):
  config = systems.default_config('edgeconnect')
  config.model.update(dict(width=4, blocks=0) | dict(model))
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=4) | loss)
  config.phases.update(dict(zip(edge_guided.PHASES, phases, strict=True)))
  return config


@pytest.fixture(scope='module')
def pieces():
  recipe = systems.make_recipe(small())
  return recipe, cases.weights(recipe, cases.batch())


def test_default_config_is_the_released_one():
  config = systems.default_config('edgeconnect')
  loss = config.loss
  weights = {name: loss[name] for name in (*joint_loss.WEIGHTS, *edge_guided.EDGE_WEIGHTS)}
  assert weights == dict(
    l1=1.0,
    l1_hole=0.0,
    psnr_hole=0.0,
    adversarial=0.1,
    perceptual=0.1,
    style=250.0,
    edge_adversarial=1.0,
    edge_feature_matching=10.0,
  )
  assert loss.vgg == 'vgg19' and not loss.vgg_normalize and loss.style_on_hole
  assert loss.l1_over_mask_mean and loss.joint == 'inpainting'
  assert not config.model.composite_edges
  recipe = systems.make_recipe(config)
  made = recipe.inference
  assert made.inputs == ('canny:sigma=2',) and (made.multiple, made.min_side) == (4, 12)
  assert [p.name for p in recipe.phases] == ['edge', 'inpainting', 'joint']


EDGES, COLOURS = ('edge_generator', 'edge_discriminator'), ('generator', 'discriminator')


def test_each_phase_trains_its_own():
  trained = {}
  for joint in edge_guided.JOINT:
    phases = systems.make_recipe(small(joint=joint)).phases
    names = [[(u.trains, u.optimizer) for u in p.updates] for p in phases]
    edges, colours = ([((n,), n) for n in names] for names in (EDGES, COLOURS))
    assert names[:2] == [edges, colours]
    trained[joint] = names[2]
  assert trained == {
    'inpainting': colours,
    'both': colours + edges,
    'end_to_end': [(('edge_generator', 'generator'), 'end_to_end'), colours[1]],
  }
  phases = systems.make_recipe(small((0, 0, -1))).phases
  assert [p.name for p in phases] == ['joint'] and phases[0].steps == -1


def test_a_phase_paints_what_it_trains(pieces):
  recipe, variables = pieces
  data = cases.batch()
  for phase, made, turned in zip(
    recipe.phases,
    ({'edges'}, {'out'}, {'edges', 'out'}),
    ({'edge_generator'}, set(), set()),
    strict=True,
  ):
    outputs, changed = jax.eval_shape(phase.forward, variables, {}, data, None)
    assert set(outputs) == made and set(changed) == turned


def test_a_step_moves_all_networks_and_their_vectors():
  recipe, data = systems.make_recipe(small((0, 0, 1), joint='both')), cases.batch()
  state, step = cases.start(recipe, data)
  params, stats, metrics, _ = cases.moved(recipe, state, step, data, 0)
  assert params == {*EDGES, *COLOURS} and stats == {*EDGES, 'discriminator'}
  terms = ('adversarial', 'feature_matching')
  total = sum(metrics[f'edge_generator/{name}'] for name in terms)
  np.testing.assert_allclose(metrics['edge_generator/total'], total, rtol=1e-6)


def test_gradients_reach_the_edge_generator_only_end_to_end(pieces):
  _, variables = pieces
  data = cases.batch()
  reached = {}
  for joint in edge_guided.JOINT:
    phase = systems.make_recipe(small((0, 0, 1), joint=joint)).phases[0]
    out = lambda p, run=phase.forward: run(variables.with_params(p), {}, data, None)[0]['out'].sum()
    gradient = jax.jit(lambda p, out=out: jax.grad(out)(p)['edge_generator'])(variables.params)
    reached[joint] = any(np.asarray(g).any() for g in jax.tree.leaves(gradient))
  assert reached == {'inpainting': False, 'both': False, 'end_to_end': True}


def test_edge_losses_are_of_the_gray_picture_with_its_edges(pieces):
  recipe, variables = pieces
  network = PatchDiscriminator(width=4)

  @jax.jit
  def run(variables, data, drawn):
    losses = [u.loss for u in recipe.phases[0].updates]
    got = [f(variables, {}, {'edges': drawn}, data, None)[1]['metrics'] for f in losses]
    own = variables.of('edge_discriminator')
    gray = edge_generators.gray(data['image'])

    def see(edges, train):
      x = jnp.concatenate([gray, edges], -1)
      found, changed = network.apply(own, x, train=train, mutable=['spectral'])
      own.update(changed)
      return found

    logits, fake = see(drawn, True)
    _, real = see(data['canny'], False)
    matching = 10 * sum(jnp.abs(f - r).mean() for f, r in zip(fake, real, strict=True))
    drawing = adversarial.non_saturating.generator(logits), matching
    own.update(variables.stats['edge_discriminator'])
    judged = see(data['canny'], True)[0], see(drawn, True)[0]
    return got, drawing, adversarial.non_saturating.discriminator(*judged)

  data = cases.batch()
  (got, judged), drawing, judging = run(variables, data, np.full_like(data['canny'], 0.25))
  got = [got['adversarial'], got['feature_matching']]
  np.testing.assert_allclose(got, drawing, rtol=1e-5)
  np.testing.assert_allclose([judged['real'], judged['fake']], np.asarray(judging) / 2, rtol=1e-5)


def test_precision_and_recall_are_those_of_the_hole():
  drawn = jnp.asarray([0.9, 0.9, 0.4, 0.9, 0.9]).reshape(1, 1, 5, 1)
  true = jnp.asarray([1.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 5, 1)
  mask = jnp.asarray([1.0, 1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 5, 1)
  got = edge_guided.precision_and_recall(drawn, true, mask)
  np.testing.assert_allclose([got['precision'], got['recall']], [2 / 3, 2 / 3], rtol=1e-6)
  got = edge_guided.precision_and_recall(drawn, true, 0 * mask)
  assert got == {'precision': 0, 'recall': 0}


def test_at_inference_edges_are_drawn_everywhere_unless_asked(pieces):
  recipe, variables = pieces
  data = cases.batch()
  plain = recipe.inference
  composited = systems.inference(small(model={'composite_edges': True}))
  image, mask, canny = (data[k][:, :20] for k in ('image', 'mask', 'canny'))

  @jax.jit
  def run(image):
    call = lambda f, image: f(variables, {}, image, mask, None, canny=canny)
    shown = [call(r.pictures, image)['edges'] for r in (plain, composited)]
    other = jnp.where(mask == 1, 0.5, image)
    return *shown, *(
      call(f, x)
      for f, x in (
        (plain.predict, image),
        (composited.predict, image),
        (plain.predict, other),
      )
    )

  drawn, pasted, first, second, other = map(np.asarray, run(image))
  known = np.asarray(mask) == 0
  np.testing.assert_array_equal(pasted[known], np.asarray(canny)[known])
  np.testing.assert_array_equal(pasted[~known], drawn[~known])
  assert (drawn[known] != np.asarray(canny)[known]).all()
  assert np.abs(first - second).max() > 0
  known = np.broadcast_to(known, image.shape)
  np.testing.assert_array_equal(first[known], np.asarray(image)[known])
  hole = np.broadcast_to(np.asarray(mask) == 1, image.shape)
  np.testing.assert_array_equal(first[hole], other[hole])  # what the hole holds is not read


def test_the_hole_is_white_to_the_generators(pieces):
  _, variables = pieces
  data = cases.batch()
  white = jnp.where(data['mask'] == 1, 1.0, data['image'])
  network = edge_generators.InpaintGenerator(4, 0)

  @jax.jit
  def run():
    args = ((data['image'], data['mask']), (white, 0 * data['mask']))
    return [
      network.apply(variables.of('generator'), image, data['canny'], mask)['out']
      for image, mask in args
    ]

  np.testing.assert_array_equal(*run())


@pytest.mark.parametrize(
  'change, why',
  [
    (dict(joint='all'), r"loss\.joint 'all' must be one of: 'inpainting'"),
    (dict(adversarial_kind='soft_mask'), r'adversarial_kind'),
    (dict(edge_adversarial=-1.0), r'edge_adversarial -1\.0'),
    (dict(edge_adversarial=0.0, edge_feature_matching=0.0), r'phases\.edge=0'),
    (dict(phases=(0, 0, 0)), r'phases: all \(edge, inpainting, joint\) are 0'),
    (dict(phases=(1, -1, 1)), r'phases\.inpainting -1'),
    (dict(model={'sigma': 0.0}), r'model\.sigma 0\.0'),
  ],
)
def test_settings_without_sense_are_refused(change, why):
  with pytest.raises(ValueError, match=why):
    systems.make_recipe(small(**change))


def test_images_too_small_for_the_discriminators_are_refused(pieces):
  with pytest.raises(ValueError, match=r'16 x 16 .*config.data.size >= 24'):
    jax.eval_shape(pieces[0].init, jax.random.key(0), cases.batch(16))
  jax.eval_shape(pieces[0].init, jax.random.key(0), cases.batch(24))


def test_published_files_are_told_apart_and_others_refused(tmp_path, monkeypatch):
  narrow = dict(width=4, blocks=0)
  cases.narrow_format(monkeypatch, 'edgeconnect', narrow)
  config = small(discriminator_width=64)
  init = systems.make_recipe(config).init
  entries = edge_guided_files.entries(config.model)
  write = lambda name, network, key: cases.write_published(
    tmp_path / name, init, entries, network, key
  )
  paths = [
    write('EdgeModel_gen.pth', 'edge_generator', 'generator'),
    write('InpaintingModel_gen.pth', 'generator', 'generator'),
    write('EdgeModel_dis.pth', 'edge_discriminator', 'discriminator'),
    write('InpaintingModel_dis.pth', 'discriminator', 'discriminator'),
  ]
  stored = store.load(
    importer.import_file(systems.published('edgeconnect'), paths, tmp_path / 'all')
  )
  assert set(stored.params) == {*EDGES, *COLOURS}
  shape = lambda name, *path: functools.reduce(dict.get, path, stored.params[name]).shape
  assert shape('edge_discriminator', 'conv1', 'kernel')[2] == 2
  assert shape('generator', 'body', 'decoder2', 'bias') == (3,)
  np.testing.assert_array_equal(stored.params['edge_generator']['body']['decoder2']['bias'], [1])
  with pytest.raises(mapping.MappingError, match='not the edge_generator'):
    importer.import_file(systems.published('edgeconnect'), paths[1], tmp_path / 'x')
  misf, config = systems.module('misf', 'published'), systems.default_config('misf')
  config.model.update(narrow)
  init = systems.make_recipe(config).init
  other = cases.write_published(
    tmp_path / 'misf.pth', init, misf.entries(narrow), 'generator', 'generator'
  )
  with pytest.raises(mapping.MappingError, match=r'nothing here takes it[^:]*:\s+encoder0\.1\.'):
    importer.import_file(systems.published('edgeconnect'), [paths[0], other], tmp_path / 'x')
