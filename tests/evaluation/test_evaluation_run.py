"""From weights or a workdir to the report's files, with a toy system and real photographs."""

import csv
import dataclasses
import json
import pathlib
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from asked import flags, measured

from jaxinpaint import arrays, systems
from jaxinpaint.cli import evaluation as command
from jaxinpaint.cost import resources
from jaxinpaint.evaluation import classical, watch
from jaxinpaint.evaluation.evaluate import evaluate
from jaxinpaint.evaluation.spec import ImagesSpec
from jaxinpaint.masks import sets
from jaxinpaint.metrics import protocols
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Inference, Variables
from jaxinpaint.report import published, tables
from jaxinpaint.runtime import locks
from jaxinpaint.training import checkpoints
from jaxinpaint.training.state import TrainState
from jaxinpaint.weights import store

SIZE = 30  # not a multiple of what the toy's network takes


def toy_inference(config=None):
  def init(rng, batch):
    return Variables({'generator': {'colour': jnp.zeros(3)}}, {})

  def output(variables, constants, image, mask, rng):
    arrays.check_multiple(*image.shape[1:3], 8, 32)
    colour = 0.5 + variables.params['generator']['colour']
    return arrays.compose(jnp.broadcast_to(colour, image.shape), image, mask)

  return Inference(('generator',), init, output, multiple=8, min_side=32)


def toy_config():
  return ml_collections.ConfigDict(
    dict(
      system='toy',
      dtype='float32',
      model={},
      loss={},
      data=dict(
        source='sample', split='train', eval_source='', eval_split='test', data_dir='', size=SIZE,
        crop='random',
      ),
      training=dict(evaluate_every=1, sample_every=1, sample_count=3, patience=0),
      evaluation=dict(
        protocol='seed000', masks='irregular', count=5, batch_size=2, quick_count=4, at_end=True
      ),
    )
  )  # fmt: skip


PARAMS = {'generator': {'colour': np.zeros(3, np.float32)}}


@pytest.fixture
def toy(monkeypatch):
  monkeypatch.setattr(systems, 'inference', toy_inference)
  sections = ('system', 'dtype', 'model', 'loss')
  monkeypatch.setattr(
    systems,
    'default_config',
    lambda system: ml_collections.ConfigDict({k: toy_config()[k] for k in sections}),
  )
  return toy_config()


@pytest.fixture
def weights(tmp_path):
  return store.save(tmp_path / 'toy.safetensors', 'toy', toy_config(), PARAMS)


@pytest.fixture
def folder(tmp_path, photographs):
  """A folder of four photographs and a file that is none."""
  path = tmp_path / 'photos'
  path.mkdir()
  for k, photograph in enumerate([*photographs, photographs[0][::-1]]):
    cv2.imwrite(str(path / f'{k}.png'), photograph[..., ::-1])
  (path / '2b.png').write_bytes(b'no image')
  return path


def request(weights, folder, **others):
  defaults = dict(data=f'folder:{folder}', split='', size=SIZE, batch_size=3)
  return flags(weights=weights, **defaults | others)


def test_weights_to_report(toy, weights, folder, tmp_path, capsys):
  output = tmp_path / 'out' / 'toy'
  ask = request(
    weights,
    folder,
    output=output,
    published='Places2',
    masks='strokes:0-0.9',
    bins=['10-20', '20-40'],
  )
  results = command.prepare(ask).run()
  assert sorted(p.name for p in output.iterdir()) == [
    'grid_10-20.png',
    'grid_20-40.png',
    'metrics.json',
    'per_image.csv',
    'pictures.npz',
    'report.html',
    'report.md',
  ]
  assert [p.name for p in output.parent.iterdir()] == ['toy'], 'nothing temporary is left'

  found = json.loads((output / 'metrics.json').read_text())
  assert found['protocol']['id'] == 'seed000'
  assert found['dataset']['count'] == 4
  assert found['dataset']['skipped'][0]['file'].endswith('2b.png')
  assert found['masks'] == {'name': 'strokes', 'seed': 0, 'sha256': results.mask_sha256}
  assert {'commit', 'jax', 'devices', 'numpy'} <= found['environment'].keys()
  assert found['deviations'] == [
    'images of 30 x 30 instead of 256 x 256',
    '4 images instead of 500',
    'hole shares 10-20, 20-40 % instead of 0-20, 10-20, 20-40, 40-60 %',
    'masks strokes instead of irregular',
  ]
  assert {r['predictor'] for r in found['results']} == {'toy', *classical.PREDICTORS}
  assert len(found['results']) == 4 * 2 * 6

  with open(output / 'per_image.csv') as f:
    lines = list(csv.DictReader(f))
  assert len(lines) == 4 * 2 * 4
  for row in found['results']:
    values = np.array(
      [float(x[row['metric']]) for x in lines
       if (x['predictor'], x['bin']) == (row['predictor'], row['bin'])]
    )  # fmt: skip
    assert row['mean'] == pytest.approx(values.mean(), rel=1e-6)
    assert row['standard_error'] == pytest.approx(values.std(ddof=1) / 2, rel=1e-5)
    assert row['n'] == 4

  text, printed = (output / 'report.md').read_text(), capsys.readouterr().out
  for shown in (text, printed):
    assert 'MESFF + SFI' in shown and '30.809' in shown and '0.8355' in shown
    assert 'published, other images and masks' in shown
    assert 'protocol seed000' in shown and results.mask_sha256[:12] in shown
  assert '19.714' not in text, 'bins that were not measured have no published rows'

  # A second report keeps the first.
  (output / 'report.md').write_text('mine')
  command.prepare(ask).run()
  assert (output.with_name('toy.bak') / 'report.md').read_text() == 'mine'
  assert (output / 'report.md').read_text() == text


def test_several_completions_bring_their_best_and_a_system_without_any_does_not(
  toy, weights, folder, monkeypatch
):
  ask = request(weights, folder, samples=3, bins=['20-40'], fills=['mean'])
  plain = command.prepare(ask).spec
  assert plain.protocol == protocols.get('seed000')

  def noise(variables, constants, image, mask, rng):
    return jax.random.uniform(rng, image.shape)

  drawing = dataclasses.replace(toy_inference(), output=noise, samples=True)
  monkeypatch.setattr(systems, 'inference', lambda config: drawing)
  spec = command.prepare(ask).spec
  assert spec.samples == 3 and len(spec.protocol.metrics) == len(plain.protocol.metrics) + 3
  results = evaluate(spec, progress=False)
  toys = [r.values for r in results.records if r.predictor == 'toy']
  assert len(toys) == 4 and all(v['best_psnr'] >= v['psnr'] for v in toys)
  assert any(v['best_psnr'] > v['psnr'] for v in toys)
  assert all('best_psnr' not in r.values for r in results.records if r.predictor != 'toy')
  assert 'lpips-alex' in results.not_computed['diversity']  # its weights are not here


def test_workdir_and_its_own_data(toy, tmp_path, caplog):
  saver = checkpoints.Checkpoints(tmp_path)
  for step in (3, 7):
    saver.save(TrainState(jnp.int32(step), PARAMS, {}, {}, {}), toy_config(), {})
  saver.close()
  results = command.prepare(flags(workdir=tmp_path, step=3)).run()
  assert results.dataset == 'sample/test' and results.count == 5
  assert (tmp_path / 'evaluation' / '3' / 'metrics.json').exists()
  # Another config's data holds, the checkpoint's networks stay.
  other = toy_config()
  other.evaluation.count = 2
  with other.unlocked():
    other.model.width = 3
  results = command.prepare(flags(workdir=tmp_path), other).run()
  assert 'another model section' in caplog.text
  assert results.count == 2 and (tmp_path / 'evaluation' / '7').is_dir()
  other.system = 'misf'
  with pytest.raises(command.EvaluationError, match="of the system 'toy', wanted is 'misf'"):
    command.prepare(flags(workdir=tmp_path), other)


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    (dict(weights=None), 'give either --workdir'),
    (dict(workdir='.'), 'not both'),
    (dict(weights='nowhere.safetensors'), 'there are no weights at nowhere.safetensors'),
    (dict(weights=None, workdir='nowhere'), 'there are no weights at nowhere'),
    (dict(step=3), '--step 3 belongs to --workdir'),
    (dict(row=['x']), "--row 'x' must be NAME=PATH"),
    (dict(row=['x=a', 'x=b']), 'two rows have this name, a and b'),
    (dict(row=['toy=a']), 'has this name already'),
    (dict(row=['x=/nowhere']), '--row x: there are no weights at /nowhere'),
    (dict(row=['x=/nowhere@7']), '--row x: there are no weights at /nowhere'),
    (dict(row=['x=/nowhere@new']), "must be the step of a checkpoint, not 'new'"),
    (dict(fills=['telea', 'blur']), "--fills: unknown fill 'blur'"),
    (dict(fills=['all', 'ns']), "'all' and 'none' stand alone"),
    (dict(baseline='best'), "--baseline 'best' must be one of the rows: toy, mean fill"),
    (dict(samples=0), '--samples 0'),
    (dict(on_unreadable='cry'), "--on_unreadable 'cry'"),
    (dict(system='misf'), "of the system 'toy', wanted is 'misf'"),
    (dict(data='folder:/nowhere'), '/nowhere'),
    (dict(data=''), 'give the images to evaluate on'),
    (dict(masks='/nowhere/masks'), '/nowhere/masks'),
    (dict(masks='blobs'), "unknown masks 'blobs'"),
    (dict(invert_mask=True), 'only mask files can be inverted'),
    (dict(bins=['20-10']), "bin '20-10'"),
    (dict(protocol='seed9'), "unknown protocol 'seed9'"),
    (dict(protocol='survey', bins=['10-20']), 'give --masks with --bins'),
    (dict(protocol='edgeconnect', size=48), 'at least 51 x 51'),
    (dict(size=5), 'at least 7 x 7'),
    (dict(count=0), '--count 0'),
    (dict(batch_size=0), '--batch_size 0'),
    (dict(seed=-1), '--seed -1'),
    (dict(published='Mars'), "--published 'Mars' must be one of 'CelebA'"),
  ],
)
def test_bad_input_is_named_before_anything_is_computed(toy, weights, folder, changes, sentence):
  ask = flags(
    **{'weights': weights, 'data': f'folder:{folder}', 'split': '', 'size': SIZE} | changes
  )
  with pytest.raises(command.EvaluationError) as caught:
    command.prepare(ask)
  assert sentence in str(caught.value)


def test_a_protocol_brings_its_own_images_and_holes(toy, weights, folder):
  """The config's holes and counts were chosen for the protocol that it names."""
  given = toy_config()
  given.evaluation = dict(protocol='seed000', masks='strokes', count=5)
  given.data.crop = 'resize'  # of the training: every system is measured on the same pictures
  own = command.prepare(request(weights, folder), given).spec
  assert (own.on.images.crop, own.on.images.resize) == ('center', 'area')
  assert own.on.count == 5 and own.on.masks_name == 'strokes'
  survey = command.prepare(request(weights, folder, protocol='survey', size=256), given).spec
  assert (survey.on.images.crop, survey.on.images.resize) == ('center', 'bilinear_antialias')
  assert survey.on.count == 1000 and survey.on.masks_name == ''
  assert [b.label for b in survey.on.masks] == [b.name for b in protocols.get('survey').bins]


def test_the_report_says_the_share_that_was_drawn(toy, weights, folder):
  """The bins of seed000 decide the shares, whatever share was asked for."""
  ask = request(weights, folder, masks='center:0.25', bins=['10-20'], count=3, fills=['mean'])
  spec = command.prepare(ask).spec
  assert spec.on.masks_name == 'center'
  results = evaluate(spec, progress=False)
  (b,) = results.bins
  shares = [spec.on.masks[b](i).mean() for i in sorted({r.index for r in results.records})]
  mean, low, high = results.hole_share(b)
  np.testing.assert_allclose((mean, low, high), (np.mean(shares), min(shares), max(shares)))
  assert 0.1 < low < high <= 0.2
  said = f'drawn: {100 * mean:.1f} % on average, {100 * low:.1f} to {100 * high:.1f}'
  assert f'hole 10-20 % ({said})' in tables.terminal_table(results)


def test_several_systems_and_their_names(toy, weights, folder, tmp_path):
  other = {'generator': {'colour': np.full(3, 0.25, np.float32)}}
  bright = store.save(tmp_path / 'bright.safetensors', 'toy', toy_config(), other)
  ask = request(
    None, folder, row=[f'gray={weights}', f'bright={bright}'], fills=['mean'], baseline='gray',
    bins=['20-40'], output=tmp_path / 'out',
  )  # fmt: skip
  prepared = command.prepare(ask)
  assert list(prepared.spec.rows) == ['gray', 'bright', 'mean fill']
  image, mask = np.zeros((1, SIZE, SIZE, 3), np.float32), np.ones((1, SIZE, SIZE, 1), np.float32)
  colours = [prepared.spec.rows[n](image, mask, np.zeros(1)).mean() for n in ('gray', 'bright')]
  assert colours == [0.5, 0.75]
  assert prepared.spec.about.baseline == 'gray'
  assert set(prepared.spec.about.notes) == {'gray', 'bright'}
  # Without --output several rows get a folder of their own names.
  several = command.prepare(flags(**vars(ask) | dict(output=None)))
  assert several.output == pathlib.Path('runs/evaluation/gray_bright')


def test_what_rows_cost_is_measured_of_what_was_given(toy, weights, folder, tmp_path, monkeypatch):
  asked = []

  def measure(paths, fills, *, size):
    asked.append((dict(paths), list(fills), size))
    found = {'toy': {'seconds_per_image': 0.125}, 'mean fill': {'seconds_per_image': 0.25}}
    return resources.Measured(found, {'toy': {'training': 'no run'}}, {})

  monkeypatch.setattr(command.resources, 'measure', measure)
  ask = request(
    weights, folder, fills=['mean'], bins=['20-40'], resources=True, output=tmp_path / 'out'
  )
  results = command.prepare(ask).run()
  assert asked == [({'toy': str(weights)}, ['mean'], SIZE)]
  assert results.resources['toy'] == {'seconds_per_image': 0.125}
  assert '0.125' in (tmp_path / 'out' / 'report.md').read_text()
  monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
  with pytest.raises(command.EvaluationError, match='--resources measures on one machine'):
    command.prepare(flags(**vars(ask) | dict(output=tmp_path / 'other')))


def test_a_report_folder_takes_one_evaluation_at_a_time(toy, weights, folder, tmp_path):
  prepared = command.prepare(request(weights, folder, bins=['20-40'], output=tmp_path / 'out'))
  with locks.hold(tmp_path / '.out.lock', 'it'):
    with pytest.raises(command.USER_ERRORS, match='/out is in use by process'):
      prepared.run()
  assert not (tmp_path / 'out').exists() and not (tmp_path / '.out.partial').exists()
  prepared.run()
  assert (tmp_path / 'out' / 'metrics.json').exists() and not (tmp_path / '.out.lock').exists()


def test_empty_mask_folder_and_foreign_output(toy, weights, folder, tmp_path):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(command.EvaluationError, match='empty'):
    command.prepare(request(weights, folder, masks=str(tmp_path / 'empty')))
  with pytest.raises(command.EvaluationError, match='holds other files'):
    command.prepare(request(weights, folder, output=folder))
  assert len(list(folder.iterdir())) == 5


def test_weights_that_do_not_fit_the_networks(toy, folder, tmp_path):
  params = {'generator': {'colour': np.zeros(4, np.float32)}}
  path = store.save(tmp_path / 'other', 'toy', toy_config(), params)
  with pytest.raises(command.EvaluationError, match='do not fit the networks'):
    command.prepare(request(path, folder))


def test_a_model_compiles_once_and_takes_sharded_weights(photographs):
  inference, traced = toy_inference(), []

  def output(variables, constants, image, mask, rng):
    traced.append(image.shape)
    return inference.output(variables, constants, image, mask, rng)

  predictor = Predictor(dataclasses.replace(inference, output=output), Variables({}, {}))
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ('data',))
  images = np.stack([p[:30, :40] for p in photographs]).astype(np.float32) / 255
  mask = np.zeros((3, 30, 40, 1), np.float32)
  mask[:, 5:9, 5:9] = 1
  for value in (0.0, 0.25):
    colour = jax.device_put(np.full(3, value, np.float32), jax.NamedSharding(mesh, jax.P()))
    other = jax.device_put(np.zeros((8, 2), np.float32), jax.NamedSharding(mesh, jax.P('data')))
    params = {'generator': {'colour': colour, 'other': other}, 'critic': {}}
    bound = predictor.with_weights(Variables(params, {}), {})
    output = bound(images, mask, np.arange(3, dtype=np.int32))
    np.testing.assert_array_equal(output, np.where(mask > 0, np.float32(0.5 + value), images))
  assert traced == [(3, 32, 40, 3)], 'three images on three of eight devices'


STATE = TrainState(
  step=jnp.int32(4),
  params={'generator': {'colour': jnp.full(3, 9.0)}},
  stats={},
  opt={},
  ema={'generator': {'colour': jnp.zeros(3)}},
)


def test_watch(toy, tmp_path, capsys, monkeypatch):
  watcher = watch.Watch(toy_inference(), toy, tmp_path)
  means = watcher.evaluate(4, STATE, {})
  assert {'psnr', 'ssim', 'l1_percent', 'hole_psnr'} <= means.keys()
  # The averaged parameters paint the hole gray; the others would paint it white.
  images = dataclasses.replace(ImagesSpec.of_config(toy), count=4).load().images
  masks = watch.quick_masks(sets.make('irregular', protocols.SEED000.bins, SIZE, SIZE))
  gray = lambda image, mask, ids: np.where(mask > 0, np.float32(0.5), image)
  fill = measured({'m': gray}, images, masks, protocols.SEED000, count=4)
  (b,) = fill.bins
  assert b.label == '0-60'
  assert means['psnr'] == pytest.approx(fill.summary('m', b, 'psnr').mean, rel=1e-12)
  # The fills are measured on the same images and holes, once.
  rows = {name: classical.FILLS[name].function for name in ('mean', 'telea', 'ns')}
  fills = measured(rows, images, masks, protocols.SEED000, count=4)
  for name in rows:
    expected = fills.summary(name, b, 'hole_psnr').mean
    assert means[f'{name}/hole_psnr'] == pytest.approx(expected, rel=1e-12)
  with monkeypatch.context() as patched:
    patched.setattr(classical, 'FILLS', {name: classical.Fill(name, None) for name in rows})
    assert watcher.evaluate(5, STATE, {}) == means

  shown = watcher.samples(4, STATE, {})
  picture = cv2.imread(str(tmp_path / 'samples' / '0000004.png'))[..., ::-1]
  np.testing.assert_array_equal(picture, shown)

  results = watcher.final(4, STATE.averaged, {})
  assert results.count == 5 and (tmp_path / 'evaluation' / '4' / 'report.md').exists()
  printed = capsys.readouterr().out
  assert 'Telea' in printed and 'toy beats all classical fills in none of the 24 means.' in printed


@pytest.mark.parametrize(
  ('field', 'value', 'sentence'),
  [
    ('evaluation.protocol', 'seed9', "unknown protocol 'seed9'"),
    ('evaluation.count', 0, 'config.evaluation.count 0'),
    ('evaluation.masks', 'blobs', "unknown masks 'blobs'"),
    ('data.eval_source', 'folder:/nowhere', '/nowhere'),
  ],
)
def test_check_of_a_config(toy, field, value, sentence):
  toy.update_from_flattened_dict({field: value})
  with pytest.raises((ValueError, OSError)) as caught:
    watch.check(toy)
  assert sentence in str(caught.value)


def test_verdict_says_plainly_where_a_model_loses(photographs):
  class Images(list):
    pass

  images = Images([(p[:32, :32], f'{k}') for k, p in enumerate(photographs)])
  bins = protocols.parse_bins(['10-20', '20-40'])
  truth = np.stack([i for i, _ in images]).astype(np.float32) / 255
  predictors = {
    'good': lambda i, m, ids: np.where(m > 0, 0.99 * truth[ids], i),
    'part': lambda i, m, ids: np.where(
      m > 0, np.where(m.mean((1, 2, 3), keepdims=True) > 0.2, 0.99 * truth[ids], 1), i
    ),
    'bad': lambda i, m, ids: np.where(m > 0, np.float32(1), i),
  } | classical.PREDICTORS
  masks = sets.make('strokes', bins, 32, 32)
  results = measured(predictors, images, masks, protocols.SEED000, batch_size=3)
  good, part, bad = tables.verdicts(results)
  assert good == 'good beats every classical fill in all 12 means.'
  assert part == (
    'part beats every classical fill in 6 of 12 means, not in PSNR, SSIM, L1 %, hole PSNR, '
    'hole SSIM, hole L1 % at 10-20 %.'
  )
  assert bad == 'bad beats all classical fills in none of the 12 means.'


def test_published_rows():
  rows = published.published_rows('seed000', 'CelebA')
  assert len(rows) == 5 * 3 * 3
  value = {(r['method'], r['percent'], r['metric']): float(r['value']) for r in rows}
  assert value['MESFF + SFI', '10-20', 'PSNR'] == 36.857
  assert value['JPGNet', '40-60', 'L1'] == 3.26
  assert published.published_datasets('seed000') == ['CelebA', 'Places2', 'real photographs']
  nearest = lambda name: published.nearest_dataset(name, 'seed000')
  assert nearest('tfds:places365_small/validation') == 'Places2'
  assert nearest('tfds:celeb_a/test') == 'CelebA'
  assert nearest('folder:photos/') == 'real photographs'


def test_the_command_fails_with_a_sentence(tmp_path):
  done = subprocess.run(
    [sys.executable, 'evaluate.py', '--workdir', str(tmp_path / 'nowhere')],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
  )
  assert done.returncode == 1
  assert 'give the workdir of a run' in done.stderr
  assert 'Traceback' not in done.stderr
