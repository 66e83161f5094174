"""Networks of metrics: what is missing, what rows see, every kind of metric on small ones."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinpaint.evaluation import classical, run
from jaxinpaint.evaluation.spec import EvaluationSpec, MaskedImages
from jaxinpaint.features import inception, lpips
from jaxinpaint.masks import sets
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import (
  deep,
  fid,
  inception_scores,
  pixels,
  protocols,
)
from jaxinpaint.metrics.protocol import DEEP, Metric
from jaxinpaint.runtime import digest
from jaxinpaint.weights import mapping


@pytest.fixture
def optimised(monkeypatch):
  """At the suite's level 0, AlexNet on dozens of images runs far longer than it compiles."""
  options = {'xla_backend_optimization_level': 1}
  monkeypatch.setattr(jax, 'jit', functools.partial(jax.jit, compiler_options=options))


def metric(function, name='', **options):
  return Metric(name or function, name or function.upper(), function, options, 'lower', 3)


FID, P_IDS, U_IDS = metric('fid'), metric('p_ids'), metric('u_ids')
LPIPS = metric('lpips', net='alex')
PSNR = Metric('psnr', 'PSNR', 'psnr', {'data_range': 255}, 'higher', 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  return tmp_path


@pytest.fixture(scope='module')
def networks(alex):
  """AlexNet, and in place of Inception a function of two weights."""
  return deep.Networks({'lpips-alex': alex, 'fid-inception': {'scale': np.float32(3)}}, {})


@pytest.fixture
def toy_inception(monkeypatch):
  def features(variables, images):
    x = images.astype(jnp.float32) * variables['scale']
    return {'pool3': jnp.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], -1)}

  monkeypatch.setattr(inception, 'features', features)


def pictures(n, side=40, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


def test_protocols_and_functions_agree():
  assert {name: function.kind for name, function in deep.FUNCTIONS.items()} == DEEP


def test_what_is_not_here_is_missing_with_the_command(monkeypatch):
  monkeypatch.setattr(inception_scores, 'available', lambda: False)
  squeeze = metric('lpips', 'lpips_squeeze', net='squeeze')
  best = metric('best_of_k', 'best', of='psnr')
  networks = deep.Networks.load([PSNR, FID, P_IDS, LPIPS, squeeze, best])
  assert networks.missing.keys() == {'fid', 'p_ids', 'lpips', 'lpips_squeeze'}
  assert networks.missing['fid'] == (
    'its weights are not here; get them with `jaxinpaint weights fetch fid-inception`'
  )
  assert 'weights fetch lpips-squeeze`' in networks.missing['lpips_squeeze']
  for wrong in (
    lambda: networks.pair(LPIPS, pictures(1), pictures(1)),
    lambda: networks.set_value(FID, np.zeros((4, 2)), np.zeros((4, 2))),
  ):
    with pytest.raises(ValueError, match='is not computed: its weights are not here'):
      wrong()
  with pytest.raises(ValueError, match='fetch fid-inception'):
    networks.features(pictures(1))


def test_weights_without_scikit_learn_and_damaged_ones(monkeypatch, cache):
  monkeypatch.setattr(inception_scores, 'available', lambda: False)
  monkeypatch.setattr(deep, '_load', lambda name, files: ({}, ''))
  networks = deep.Networks.load([FID, P_IDS])
  assert networks.missing.keys() == {'p_ids'}
  assert 'pip install "jaxinpaint[metrics]"' in networks.missing['p_ids']
  monkeypatch.undo()
  monkeypatch.setenv('JAXINPAINT_CACHE', str(cache))
  (cache / 'pt_inception-2015-12-05-6726825d.pth').write_text('half of it')
  assert 'it is damaged or another file' in deep.Networks.load([FID]).missing['fid']


def test_files_of_ones_own(alex, cache):
  state = mapping.export(
    {'params': alex, 'stats': {}}, [*lpips.trunk_entries('alex'), *lpips.heads_entries('alex')]
  )
  save_file(state, cache / 'mine')
  files = {'lpips_alex_trunk': cache / 'mine', 'lpips_alex_heads': cache / 'mine', 'inception': ''}
  networks = deep.Networks.load([LPIPS], files)
  assert not networks.missing
  whence = f'{cache / "mine"} (SHA-256 {digest.of_file(cache / "mine")[:12]})'
  assert networks.origins == {'lpips-alex': f'{whence}, {whence}'}
  small = deep.Networks.load([LPIPS], files, size=(24, 64))
  assert '24 x 64 are too small' in small.missing['lpips']
  # The heads are not in the cache: a trunk alone is no LPIPS.
  assert 'lpips' in deep.Networks.load([LPIPS], {'lpips_alex_trunk': cache / 'mine'}).missing
  with pytest.raises(
    ValueError, match=r"file \['resnet'\]; there are: inception, lpips_alex_trunk"
  ):
    deep.Networks.load([LPIPS], {'resnet': cache / 'mine'})
  with pytest.raises(ValueError, match="does not hold the weights of FID's Inception"):
    deep.Networks.load([FID], {'inception': cache / 'mine'})
  with pytest.raises(FileNotFoundError, match='nowhere is not a file'):
    deep.Networks.load([FID], {'inception': cache / 'nowhere'})


@pytest.mark.parametrize(
  ('function', 'options', 'message'),
  [
    ('lpips', {'net': 'resnet'}, "net 'resnet' is not one of alex, vgg, squeeze"),
    ('fid', {'net': 'alex'}, r"fid has no option \['net'\]; there are: ddof"),
    ('fid', {'ddof': 2}, 'ddof 2 is not one of 0, 1'),
    ('best_of_k', {'of': 'fid'}, "of 'fid' is not one of lpips"),
  ],
)
def test_wrong_options_are_named(function, options, message):
  with pytest.raises(ValueError, match=message):
    deep.Networks.load([metric(function, **options)])


def test_a_row_does_not_depend_on_its_batch(optimised, networks, alex):
  assert jax.device_count() == 8
  a, b = pictures(19), pictures(19, seed=1)
  whole = networks.pair(LPIPS, a, b)
  assert whole.shape == (19,) and whole.dtype == np.float64
  distance = jax.jit(functools.partial(lpips.distance, net='alex'))
  alone = distance(alex, a[:3] / np.float32(255), b[:3] / np.float32(255))
  np.testing.assert_allclose(whole[:3], alone, rtol=1e-5)
  parts = np.concatenate(
    [networks.pair(LPIPS, a[i : i + 5], b[i : i + 5]) for i in range(0, 19, 5)]
  )
  # Convolutions add up in another order at another place of the batch.
  np.testing.assert_allclose(parts, whole, rtol=1e-6)
  np.testing.assert_allclose(networks.pair(LPIPS, a[::-1], b[::-1])[::-1], whole, rtol=1e-6)
  as_float = networks.pair(LPIPS, a, b.astype(np.float64) / 255)
  np.testing.assert_allclose(as_float, whole, rtol=1e-5)
  assert networks.pair(LPIPS, a[:0], b[:0]).shape == (0,)
  with pytest.raises(ValueError, match='not equal'):
    networks.pair(LPIPS, a, b[:3])
  with pytest.raises(ValueError, match="of the kind 'pair', not 'set'"):
    networks.set_value(LPIPS, a, b)


def test_long_batches_run_in_pieces_and_none_is_compiled_twice(
  networks, toy_inception, monkeypatch
):
  monkeypatch.setattr(deep, '_MOST_ROWS', 2)
  images = pictures(37, side=8)
  want = np.stack([images.mean((1, 2, 3)), images[:, 0, 0, 0]], -1) * 3
  for n in (37, 20, 3):
    np.testing.assert_allclose(networks.features(images[:n]), want[:n], rtol=1e-6)
  assert networks._functions['fid-inception', 'pool3']._cache_size() == 1
  assert networks.features(images[:0]).shape == (0, 2)


def test_set_values(networks, monkeypatch, caplog):
  rng = np.random.default_rng(2)
  real = rng.standard_normal((30, 4)).astype(np.float32)
  fake = real + np.float32(1)
  assert networks.set_value(FID, real, fake) == pytest.approx(4, rel=1e-5)
  population = networks.set_value(metric('fid', ddof=0), real, 2 * fake)
  assert population == fid.from_features(real, 2 * fake, ddof=0)
  calls = []
  score = inception_scores.scores
  monkeypatch.setattr(inception_scores, 'scores', lambda *a: calls.append(0) or score(*a))
  assert networks.set_value(P_IDS, real, fake) == score(real, fake)[0]
  assert networks.set_value(U_IDS, real, fake) == score(real, fake)[1]
  assert len(calls) == 1  # one fit gives both
  networks.set_value(U_IDS, real, 2 * fake)
  assert len(calls) == 2
  assert np.isnan(networks.set_value(FID, real[:1], fake[:1]))
  assert 'at least 2 images' in caplog.text


def test_real_features_are_computed_once(networks, toy_inception, monkeypatch, cache):
  images = list(pictures(5, side=8))
  first = networks.features_of_set(images, batch_size=2)
  np.testing.assert_allclose(first[:, 0], np.mean(images, (1, 2, 3)) * 3, rtol=1e-6)
  monkeypatch.setattr(deep.Networks, 'features', None)
  np.testing.assert_array_equal(networks.features_of_set(images), first)
  other = deep.Networks({'fid-inception': {'scale': np.float32(4)}}, {})
  with pytest.raises(TypeError):  # other weights: there is nothing in the cache
    other.features_of_set(images)
  assert len(list((cache / 'statistics').iterdir())) == 1


def test_an_evaluation_is_that_of_its_weights(tmp_path, monkeypatch):
  """Numbers of other weights, or of when some were missing, are not taken up again."""
  seen = []
  keep = run._open_journal
  monkeypatch.setattr(
    run,
    '_open_journal',
    lambda place, found, resume: seen.append(found) or keep(place, found, resume),
  )
  protocol = dataclasses.replace(
    protocols.get('seed000'), size=16, count=1, metrics=(PSNR, LPIPS), bins=(Bin(0.1, 0.6),)
  )
  masks = sets.make('irregular', protocol.bins, 16, 16, seed=0)
  for number, (missing, origins) in enumerate(
    (({'lpips': 'no'}, {}), ({}, {'lpips-alex': 'a'}), ({}, {'lpips-alex': 'b'}))
  ):
    networks = deep.Networks({}, missing, origins)
    monkeypatch.setattr(networks, 'pair', lambda metric, truth, output: np.zeros(len(truth)))
    on = MaskedImages([(pictures(1, side=16)[0], 'a.png')], masks)
    spec = EvaluationSpec({'fill': classical.mean_fill}, on, protocol, networks=networks)
    results = run.evaluate_and_report(spec, tmp_path / str(number))
    assert origins.items() <= results.notes.items()
  assert len({json.dumps([x['networks'], x['missing']]) for x in seen}) == 3


def test_samples(optimised, networks):
  truth = pictures(3)
  samples = np.stack([pictures(3, seed=k) for k in (1, 2, 3)])
  samples[1, 0] = truth[0]
  found = networks.of_samples(metric('lpips_diversity'), truth, samples)
  pairs = [networks.pair(LPIPS, samples[i], samples[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
  np.testing.assert_allclose(found, np.mean(pairs, 0), rtol=1e-5)

  by_hand = lambda function, **options: np.array(
    [[function(t, x, **options) for t, x in zip(truth, one, strict=True)] for one in samples]
  )
  best = lambda **options: networks.of_samples(metric('best_of_k', **options), truth, samples)
  np.testing.assert_array_equal(best(of='psnr'), by_hand(pixels.psnr).max(0))
  assert best(of='psnr')[0] == np.inf
  ssim = by_hand(pixels.ssim, definition='gaussian').max(0)
  np.testing.assert_array_equal(best(of='ssim', definition='gaussian'), ssim)
  np.testing.assert_array_equal(best(of='l1_percent'), by_hand(pixels.l1_percent).min(0))
  distances = np.stack([networks.pair(LPIPS, truth, one) for one in samples])
  np.testing.assert_array_equal(best(of='lpips'), distances.min(0))
  mixed = networks.of_samples(metric('best_of_k', of='l1_percent'), truth, samples / 255)
  np.testing.assert_allclose(mixed, best(of='l1_percent'), rtol=1e-9)
  with pytest.raises(ValueError, match='at least 2 of each input'):
    networks.of_samples(metric('lpips_diversity'), truth, samples[:1])
  with pytest.raises(ValueError, match='wanted is K of each'):
    networks.of_samples(metric('best_of_k'), truth, samples[0])
