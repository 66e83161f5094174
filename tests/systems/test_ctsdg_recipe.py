import drawn
import edge_guided_cases as cases
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_bytes

from jaxinpaint import systems
from jaxinpaint.features import vgg
from jaxinpaint.losses import adversarial
from jaxinpaint.systems.ctsdg import networks, published, recipe
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, step
from jaxinpaint.weights import importer, mapping, store


def small():
  config = config_lib.base('ctsdg')
  with config.unlocked():
    for suffix in ('', '_finetuning'):
      for network in ('generator', 'discriminator'):
        config.optimizers[network + suffix] = dict(name='sgd', learning_rate=0.1)
  recipe.quicktest(config)
  config.model.update(dict(width=4, levels=2, discriminator_width=4))
  return config


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  draw = lambda *s: rng.random(s, np.float32)
  mask = np.zeros((2, 32, 32, 1), np.float32)
  mask[:, 8:20, 10:24] = 1
  edges = (draw(2, 32, 32, 1) > 0.8).astype(np.float32)
  gray = draw(2, 32, 32, 1)
  ids = np.arange(2, dtype=np.int32)
  return dict(image=draw(2, 32, 32, 3), mask=mask, id=ids, canny=edges, gray=gray)


@pytest.fixture(scope='module')
def made(batch):
  recipe = systems.make_recipe(small())
  return recipe, drawn.variables(recipe, batch)


@goldens.cases('ctsdg_losses')
def test_losses_and_gradients(case):
  state_dict, data = case.state(), case.data()
  trunk = {k: v for k, v in state_dict.items() if k.startswith('features.')}
  judge = {k[4:]: v for k, v in state_dict.items() if k.startswith('dis.')}
  tree = mapping.convert(judge, published.discriminator_entries())
  variables = {'params': tree['params']['discriminator'], **tree['stats']['discriminator']}
  get = lambda name: goldens.nhwc(data[name])
  unit = lambda x: (x + 1) / 2
  mask = 1 - get('mask')
  batch = dict(image=unit(get('ground_truth')), mask=mask, canny=get('edge'))
  layers = ('pool1', 'pool2', 'pool3')
  loss = recipe.default_config().loss
  logit = lambda p: jnp.log(p) - jnp.log1p(-p)

  run = jax.jit(networks.Discriminator().apply)

  def terms(out, image, edge, variables, params):
    features = lambda x: vgg.apply(params, x, layers, depth=16, normalize=False)
    judged = run(variables, unit(out), get('gray'))
    outputs = dict(out=unit(out), projected_image=unit(image), projected_edge=logit(edge))
    return recipe.generator_terms(loss, outputs, batch, features, judged)

  def total(*x):
    found = terms(*x)
    return sum(loss[name] * value for name, value in found.items()), found

  inputs = tuple(get(n) for n in ('output', 'projected_image', 'projected_edge'))
  gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))
  (value, found), grads = gradients(*inputs, variables, vgg_params(trunk))
  for name, got in found.items():
    goldens.assert_close(got, data[f'loss_{name}'], what=name)
  goldens.assert_close(value / data['total'], 1.0, 1e-5, 'total')
  for name, grad in zip(('output', 'projected_image', 'projected_edge'), grads, strict=True):
    want = data[f'grad_{name}']
    # Relative to the largest entry: kinks of ReLU and L1 move single ones.
    scale = np.abs(want).max()
    goldens.assert_close(goldens.nchw(grad) / scale, want / scale, 1e-3, name)

  real = run(variables, batch['image'], get('gray'), get('edge'))
  fake = run(variables, unit(get('output')), get('gray'))
  entropy = adversarial.binary_cross_entropy
  judged = entropy(real['logits'], 1.0) + entropy(fake['logits'], 0.0)
  judged += entropy(real['edges'], get('edge')) + entropy(fake['edges'], get('edge'))
  goldens.assert_close(judged, data['dis_loss'], what='discriminator')


def vgg_params(trunk):
  indices = sorted({int(k.split('.')[1]) for k in trunk})
  names = [n for n in vgg.layer_names(16) if n.startswith('conv')][: len(indices)]
  names = names or [
    f'conv{b}_{i}' for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)
  ]
  return {
    name: {
      'kernel': trunk[f'features.{i}.weight'].transpose(2, 3, 1, 0),
      'bias': trunk[f'features.{i}.bias'],
    }
    for name, i in zip(names, indices, strict=False)
  }


def test_parameter_counts_are_the_published_ones():
  made = systems.make_recipe(systems.default_config('ctsdg'))
  shape = lambda *s: jax.ShapeDtypeStruct(s, np.float32)
  batch = dict(image=shape(1, 128, 128, 3), mask=shape(1, 128, 128, 1))
  params, _ = jax.eval_shape(made.init, jax.random.key(0), batch)
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert count(params['generator']) == 52_147_789
  assert made.inference.multiple == made.inference.min_side == 128


def test_a_step_trains_both_networks_and_moves_their_statistics(made, batch):
  recipe, variables = made
  txs = optimizers.make_optimizers(small().optimizers, recipe.optimizers)
  current = drawn.state(recipe, txs, variables)
  before = jax.tree.map(np.asarray, current)
  current, metrics = step.make_train_step(recipe, txs)(
    current, {}, batch, jax.random.key(1), recipe.plan(0)
  )
  current = jax.tree.map(np.asarray, current)
  assert metrics.pop('finite') and {m.split('/')[0] for m in metrics} == set(recipe.networks)
  for kind in ('generator', 'discriminator'):
    moved = jax.tree.map(lambda a, b: (a != b).any(), before.params[kind], current.params[kind])
    still = [jax.tree_util.keystr(k) for k, v in jax.tree.leaves_with_path(moved) if not v]
    # The fusion's gates wait for their factor, 0 at first; a softmax may not move in so small a
    # network.
    still = [k for k in still if '_gate' not in k and "['cfa']['weight" not in k]
    assert not still, f'{kind}: {still} stand still'
  pairs = zip(*(jax.tree.leaves(s.stats) for s in (before, current)), strict=True)
  assert np.mean([(a != b).any() for a, b in pairs]) > 0.9


def test_norms_rest_while_fine_tuning(made, batch):
  recipe, variables = made
  forward = jax.jit(lambda v: recipe.phases[1].forward(v, {}, batch, None)[1])
  changed = forward(variables)['generator']
  pairs = zip(jax.tree.leaves(changed), jax.tree.leaves(variables.stats['generator']), strict=True)
  assert not any((np.asarray(a) != b).any() for a, b in pairs)
  assert {u.optimizer for u in recipe.phases[1].updates} == {
    'generator_finetuning',
    'discriminator_finetuning',
  }


def test_predict_keeps_known_pixels_and_shows_its_streams(made, batch):
  recipe, variables = made
  further = {name: batch[name] for name in ('canny', 'gray')}
  arguments = (variables, {}, batch['image'], batch['mask'], jax.random.key(0))
  out = np.asarray(jax.jit(recipe.inference.predict)(*arguments, **further))
  known = batch['mask'][..., 0] == 0
  np.testing.assert_array_equal(out[known], batch['image'][known])
  assert np.isfinite(out).all() and (out[~known] != batch['image'][~known]).any()
  shown = jax.eval_shape(recipe.inference.pictures, *arguments, **further)
  assert {n: p.shape[-1] for n, p in shown.items()} == {'edges': 1, 'texture': 3}


@pytest.mark.parametrize(
  'section, field, value, message',
  [
    ('model', 'levels', 8, 'levels 8 must be 2 to 7'),
    ('model', 'canny_sigma', 0.0, 'canny_sigma 0.0 must be above 0'),
    ('loss', 'hole', -1.0, r'loss.hole -1.0 must be finite and >= 0'),
    ('loss', 'vgg_layers', ('relu1_1',), 'vgg_layers .* must be among'),
    ('phases', 'training', -1, 'training -1 must be a number of steps'),
  ],
)
def test_bad_settings_are_named(section, field, value, message):
  config = systems.default_config('ctsdg')
  config[section][field] = value
  with pytest.raises(ValueError, match=message):
    systems.make_recipe(config)


def test_without_an_adversary_there_is_no_discriminator():
  config = small()
  config.loss.adversarial = 0.0
  assert systems.make_recipe(config).networks == ('generator',)


def test_published_files_are_imported_and_others_refused(tmp_path, monkeypatch):
  entries, narrow = published.entries({}), dict(width=4, discriminator_width=4)
  cases.narrow_format(monkeypatch, 'ctsdg', narrow)
  config = systems.default_config('ctsdg')
  config.model.update(narrow)
  made = systems.make_recipe(config)
  shape = lambda *s: jax.ShapeDtypeStruct(s, np.float32)
  one = dict(image=shape(1, 128, 128, 3), mask=shape(1, 128, 128, 1))
  variables = jax.eval_shape(made.init, jax.random.key(0), one)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), variables._asdict())
  file = {k: np.array(v) for k, v in mapping.export(zeros, entries).items()}
  file['texture_branch.features.0.0.weight_orig'] = np.zeros(3, np.float32)
  write(tmp_path / 'ctsdg.pt', file)
  stored = store.load(
    importer.import_file(systems.published('ctsdg'), tmp_path / 'ctsdg.pt', tmp_path / 'o')
  )
  assert set(stored.params) == {'generator', 'discriminator'}
  assert stored.config.model.wrapped_gray, 'published weights have seen wrapped maps only'
  del file['bigff.texture_gamma']
  write(tmp_path / 'other.pt', file)
  with pytest.raises(mapping.MappingError, match=r'bigff\.texture_gamma'):
    importer.import_file(systems.published('ctsdg'), tmp_path / 'other.pt', tmp_path / 'x')


def write(path, file):
  """As the authors save it: {'n_iter', 'generator', 'discriminator'}."""
  storages, theirs = {}, {'generator': {}, 'discriminator': {}}
  for i, (key, array) in enumerate(file.items()):
    judge = key.split('.')[0].endswith(('branch', 'detector'))
    stride = tuple(s // 4 for s in np.ascontiguousarray(array).strides)
    made = torch_bytes.tensor(str(i), array.size, array.shape, stride)
    theirs['discriminator' if judge else 'generator'][key] = made
    storages[str(i)] = array.tobytes()
  torch_bytes.write_zip(path, torch_bytes.emit({'n_iter': 7, **theirs}), storages)
