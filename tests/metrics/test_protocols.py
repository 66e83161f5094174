"""Every protocol: its numbers are the cited formulas', its rows the papers', its page true."""

import csv
import dataclasses
import importlib.util
import json
import pathlib
import types

import numpy as np
import pytest
from skimage import color
from skimage import metrics as reference

from benchmarks import protocols as page
from jaxinpaint import arrays
from jaxinpaint.data import pipeline, resizing
from jaxinpaint.evaluation import classical
from jaxinpaint.evaluation.evaluate import evaluate
from jaxinpaint.evaluation.spec import EvaluationSpec, MaskedImages
from jaxinpaint.masks import sets, spec
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import deep, pixels, protocols
from jaxinpaint.metrics.protocol import DEEP, Metric
from jaxinpaint.report import published

ROOT = pathlib.Path(protocols.__file__).parent
SIDE = 64


@pytest.fixture(scope='module')
def pair(photographs):
  """uint8[64, 64, 3] truth and composite, and the hole, bool[64, 64]."""
  truth = photographs[0][16 : 16 + SIDE, 30 : 30 + SIDE]
  hole = np.zeros((SIDE, SIDE), bool)
  hole[20:44, 12:50] = True
  noise = np.random.default_rng(1).integers(-60, 61, truth.shape)
  output = np.clip(truth + np.where(hole[..., None], noise, 0), 0, 255).astype(np.uint8)
  return truth, output, hole


# The cited formulas, of scikit-image or written out; a, b are float64 in [0, 255].
def _joint(a, b):
  return 20 * np.log10(255 / np.sqrt(np.mean((a - b) ** 2)))


def _per_channel(a, b):
  return np.mean([min(100, _joint(a[..., c], b[..., c])) for c in range(3)])


def _skimage_ssim(a, b, **options):
  return reference.structural_similarity(a, b, channel_axis=-1, data_range=255, **options)


def _uniform7(a, b):
  return _skimage_ssim(a, b)


def _gaussian(a, b):
  return _skimage_ssim(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)


def _zero_padded(a, b):
  pad = lambda x: np.pad(x, ((10, 10), (10, 10), (0, 0)))
  _, full = _skimage_ssim(
    pad(a), pad(b), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
  )
  return full[10:-10, 10:-10].mean()


def _one_window(a, b):
  c1, c2, found = 2.55**2, 7.65**2, []
  for x, y in zip(np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0), strict=True):
    covariance = np.mean(x * y) - x.mean() * y.mean()
    top = (2 * x.mean() * y.mean() + c1) * (2 * covariance + c2)
    found.append(top / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var() + y.var() + c2)))
  return np.mean(found)


def _gray(formula):
  return lambda a, b: formula(color.rgb2gray(a / 255), color.rgb2gray(b / 255))


def _gray_psnr(a, b):
  return reference.peak_signal_noise_ratio(a, b, data_range=1)


def _gray_ssim51(a, b):
  return reference.structural_similarity(a, b, win_size=51, data_range=1)


def _sums(a, b):
  return np.abs(a - b).sum() / (a + b).sum()


def _mean(a, b):
  return np.abs(a - b).mean() / 255


def _square(a, b):
  return 100 * np.mean((a - b) ** 2) / 255**2


def _percent(a, b):
  return 100 * _mean(a, b)


def _hole(formula):
  return lambda a, b, hole: formula(a[hole], b[hole])


def _hole_ssim(a, b, hole):
  return _skimage_ssim(a, b, full=True)[1][hole].mean()


HOLE = {'hole_psnr': _hole(_joint), 'hole_l1_percent': _hole(_percent)}
RGB_L = {'l1_percent': _percent, 'l2_percent': _square}
HOLE_L = {'hole_l1_percent': _hole(_percent), 'hole_l2_percent': _hole(_square)}
FORMULAS = {
  'seed000': {
    'psnr': _joint, 'ssim': _uniform7, 'l1_percent': _percent, 'hole_ssim': _hole_ssim, **HOLE
  },
  'seed001': {'psnr': _joint, 'ssim': _gaussian, **HOLE},
  'survey': {
    'psnr': _per_channel, 'ssim': _gaussian, 'ssim_global': _one_window,
    'raw_psnr': _per_channel, 'raw_ssim': _gaussian, 'raw_ssim_global': _one_window,
  },
  'seed003': {'psnr': _joint, 'ssim': _gaussian, 'fid': None, **HOLE},
  'seed004': {**RGB_L, **HOLE_L, 'psnr': _joint, 'hole_psnr': _hole(_joint)},
  'edgeconnect': {
    'psnr_gray': _gray(_gray_psnr), 'ssim_gray': _gray(_gray_ssim51), 'mae_gray': _gray(_sums),
    'fid': None,
  },
  'aotgan': {'psnr': _joint, 'ssim': _uniform7, 'mae_rgb': _sums, 'fid': None},
  'mat': {
    'fid': None, 'p_ids': None, 'u_ids': None, 'lpips': None, 'psnr': _joint, 'ssim': _gaussian,
    'l1': _mean,
  },
  'lama': {'fid': None, 'lpips': None, 'ssim': _zero_padded},
  'migan': {'fid': None, 'lpips': None, 'psnr': _joint, 'hole_psnr': _hole(_joint)},
  'mmagic': {'hole_l1_percent': _hole(_percent), 'psnr': _joint, 'ssim': _gaussian},
  'deepfill': {**RGB_L, **HOLE_L, 'psnr': _joint},
}  # fmt: skip


@pytest.mark.parametrize('name', protocols.PROTOCOLS)
def test_each_number_is_the_cited_formulas(name, pair):
  protocol, wanted = protocols.get(name), FORMULAS[name]
  assert {m.name for m in protocol.metrics} == set(wanted)
  assert {m.name for m in protocol.deep_metrics} == {k for k, f in wanted.items() if f is None}
  truth, output, hole = pair
  a, b = truth.astype(np.float64), output.astype(np.float64)
  for metric in protocol.host_metrics:
    formula = wanted[metric.name]
    takes_hole = 'hole' in metric.function
    want = formula(a, b, hole) if takes_hole else formula(a, b)
    assert metric(truth, output, hole) == pytest.approx(want, abs=1e-9), metric.name
    worse = metric(truth, truth, hole)
    assert (worse > want) == (metric.better == 'higher'), metric.name


def test_what_is_raw_and_what_is_deep():
  raw = [m.name for p in protocols.PROTOCOLS.values() for m in p.metrics if m.of == 'raw']
  assert raw == ['raw_psnr', 'raw_ssim', 'raw_ssim_global']
  assert all(p.composite for p in protocols.PROTOCOLS.values())
  for p in protocols.PROTOCOLS.values():  # a published number stands in one column
    names = [m.published for m in p.metrics if m.published]
    assert len(set(names)) == len(names) > 0, p.id
  nets = {
    (p.id, m.options['net'])
    for p in protocols.PROTOCOLS.values()
    for m in p.deep_metrics
    if m.function == 'lpips'
  }
  assert nets == {('mat', 'alex'), ('lama', 'vgg'), ('migan', 'alex')}
  deep = protocols.get('lama').deep_metrics[0]
  with pytest.raises(ValueError, match="'fid' needs a network of features"):
    deep(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool))


def test_the_deep_functions_are_those_of_the_module():
  if importlib.util.find_spec('jaxinpaint.metrics.deep') is None:
    pytest.skip('jaxinpaint.metrics.deep is not there')
  from jaxinpaint.metrics import deep

  assert {name: f.kind for name, f in deep.FUNCTIONS.items()} == DEEP


@pytest.mark.parametrize(
  ('name', 'size', 'count', 'crop', 'kernel', 'rounding'),
  [
    ('seed000', 256, 500, 'center', 'area', 'nearest'),
    ('seed001', 160, 128, 'window', 'area', 'nearest'),
    ('survey', 256, 1000, 'center', 'bilinear_antialias', 'nearest'),
    ('seed003', 256, 2000, 'center', 'area', 'nearest'),
    ('seed004', 256, 36500, 'center', 'area', 'nearest'),
    ('edgeconnect', 256, 10000, 'center', 'bilinear_antialias', 'nearest'),
    ('aotgan', 512, 36500, 'center', 'bilinear_antialias', 'truncate'),
    ('mat', 512, 36500, 'center', 'area', 'nearest'),
    ('lama', 512, 30000, 'center', 'area', 'truncate'),
    ('migan', 512, 36500, 'center', 'area', 'truncate'),
    ('mmagic', 256, 36500, 'center', 'bilinear', 'nearest'),
    ('deepfill', 256, 36500, 'center', 'area', 'truncate'),
  ],
)
def test_images_are_prepared_as_the_protocol_says(name, size, count, crop, kernel, rounding):
  protocol = protocols.get(name)
  assert (protocol.size, protocol.count) == (size, count)
  assert protocol.image_options == {'crop': crop, 'resize': kernel}
  assert protocol.rounding == rounding and protocol.round_to_uint8
  pipeline.evaluation_set('sample', 'test', size=16, count=1, **protocol.image_options)[0]


def test_the_surveys_holes():
  protocol = protocols.get('survey')
  kinds = [(b.name, b.low, b.high) for b in protocol.bins]
  percents = [('center', p) for p in (10, 15, 20, 25)] + [('random', p) for p in (10, 20, 30, 40)]
  for (name, low, high), (kind, percent) in zip(kinds, percents, strict=True):
    assert name == f'{kind} {percent}'
    assert (low, high) == pytest.approx((percent / 100 - 0.005, percent / 100 + 0.005))
  sides = []
  for b in protocol.bins[:4]:
    mask = spec.make(b.masks)(np.random.default_rng(0), 256, 256)
    (rows,) = np.nonzero(mask.any(1))
    side = len(rows)
    assert rows[0] == (256 - side) // 2 and mask.sum() == side**2 and b.holds(mask.mean())
    sides.append(side)
  assert sides == [81, 99, 114, 128]


def test_the_centre_holes_of_seed001():
  found = []
  *centres, random = protocols.get('seed001').bins
  assert random.label == 'random' and random.masks.endswith('within=96;reference=160')
  for b in centres:
    mask = spec.make(b.masks)(np.random.default_rng(0), 160, 160)
    assert b.holds(mask.mean())
    found.append(int(mask[80].sum()))
  assert found == [80, 92]


@pytest.mark.parametrize('name', protocols.PROTOCOLS)
def test_a_protocol_is_followed_end_to_end(name):
  """On two windows of the sample photographs, at the protocol's own size and with its own holes."""
  protocol = protocols.get(name)
  images = pipeline.evaluation_set(
    'sample', 'test', size=protocol.size, count=2, **protocol.image_options
  )
  holes = sets.make(protocol.masks, protocol.bins, protocol.size, protocol.size, seed=0)
  assert tuple(holes) == protocol.bins
  fills = {'mean fill': classical.mean_fill}
  # Weights of feature networks are large; without them their columns are named as missing.
  missing = {m.name: 'no weights' for m in protocol.deep_metrics}
  networks = types.SimpleNamespace(missing=missing)
  spec = EvaluationSpec(
    fills, MaskedImages(images, holes), protocol, batch_size=2, networks=networks
  )
  results = evaluate(spec, examples=0, progress=False)
  assert results.count == 2 and results.not_computed == missing
  for b in protocol.bins:
    for metric in protocol.host_metrics:
      summary = results.summary('mean fill', b, metric.name)
      assert summary.n == 2 and np.isfinite(summary.mean), (b.label, metric.name)
  for record in results.records:
    assert record.bin.holds(record.hole_share), (record.bin.label, record.hole_share)
  json.dumps(protocol.description(), allow_nan=False)


def test_truncation_reaches_the_output():
  lama = dataclasses.replace(
    protocols.get('lama'), metrics=(Metric('psnr', 'PSNR', 'psnr', {}, 'higher', 2),)
  )
  almost = lambda image, mask, ids: np.where(mask > 0, np.float32(100.9 / 255), image)
  seen = {}
  for rounding in ('nearest', 'truncate'):
    protocol = dataclasses.replace(lama, rounding=rounding)
    images = pipeline.evaluation_set('sample', 'test', size=64, count=1)
    holes = {Bin(0, 1): lambda i: np.pad(np.ones((20, 20), np.uint8), 22)}
    spec = EvaluationSpec({'m': almost}, MaskedImages(images, holes), protocol, batch_size=1)
    results = evaluate(spec, progress=False)
    seen[rounding] = results.examples[0].outputs['m'][32, 32].tolist()
  assert seen == {'nearest': [101] * 3, 'truncate': [100] * 3}


def rows():
  return list(csv.DictReader((ROOT.parent / 'report' / 'published.csv').read_text().splitlines()))


def test_the_published_rows():
  found = rows()
  counts = {name: sum(r['protocol'] == name for r in found) for name in protocols.PROTOCOLS}
  assert {k: v for k, v in counts.items() if v} == {
    'seed000': 135, 'seed001': 4, 'seed003': 18, 'seed004': 6, 'survey': 408, 'mat': 24,
  }  # fmt: skip
  assert sum(counts.values()) == len(found)
  values = {tuple(list(r.values())[:-1]): r['value'] for r in found}
  key = lambda text: tuple(text.split('|'))
  for text, value in {
    'seed000|1|MESFF + SFI|Places2|irregular|10-20|PSNR': '30.809',
    'seed000|2|MESFF + SFI|real photographs|irregular|20-40|SSIM': '0.8573',
    'seed000|2|JPGNet|real photographs|irregular|40-60|L1': '4.74',
    'seed001|1|SE-ResNet + CX|CelebA|center|1/4 and 1/3 (not separated)|PSNR': '36.90',
    'seed003|1|LFR|CelebA-HQ|square||FID': '15.077',
    'seed004|text sec. 5|DeepFill v1|Places2|box||L1': '8.6',
    'survey|2|CE|CelebA|center|25|PSNR': '30.75',
    'survey|3|GMCNN|Places2|||train_hours': '220.0',
    'survey|15|GConv|CelebA|||test_seconds_per_image': '0.234',
    'mat|repository|MAT (8 M images)|Places2|large||P-IDS': '23.42',
  }.items():
    assert values[key(text)] == value, text
  # Sums over each paper's tables, taken of the papers: no number may change unnoticed.
  sums: dict[tuple[str, str], float] = {}
  for r in found:
    key = (r['protocol'], r['metric'])
    sums[key] = sums.get(key, 0) + float(r['value'])
  assert sums == pytest.approx(
    {
      ('seed000', 'PSNR'): 1100.465,
      ('seed000', 'SSIM'): 37.1214,
      ('seed000', 'L1'): 180.89,
      ('seed001', 'PSNR'): 67.08,
      ('seed001', 'SSIM'): 1.72,
      ('seed003', 'PSNR'): 209.379,
      ('seed003', 'SSIM'): 5.8,
      ('seed003', 'FID'): 258.313,
      ('seed004', 'L1'): 18.0,
      ('seed004', 'PSNR'): 37.06,
      ('seed004', 'parameters'): 2900000.0,
      ('seed004', 'seconds_per_image'): 0.2,
      ('survey', 'PSNR'): 3881.03,
      ('survey', 'SSIM'): 135.951,
      ('survey', 'train_hours'): 5782.4,
      ('survey', 'test_seconds_per_image'): 16.137,
      ('survey', 'memory_GB'): 51.69,
      ('survey', 'gpu_memory_GB'): 132.77,
      ('mat', 'FID'): 14.69,
      ('mat', 'P-IDS'): 184.06,
      ('mat', 'U-IDS'): 309.97,
    }
  )
  # The survey: 32 cells, CE and GMCNN without random holes; four resources of each, twice.
  methods = {r['method'] for r in found if r['protocol'] == 'survey'}
  assert len(methods) == 11
  resources = {'train_hours', 'test_seconds_per_image', 'memory_GB', 'gpu_memory_GB'}
  for method in methods:
    of = [r for r in found if (r['protocol'], r['method']) == ('survey', method)]
    cells = [r for r in of if r['metric'] in ('PSNR', 'SSIM')]
    assert len(cells) == (16 if method in ('CE', 'GMCNN') else 32), method
    assert {(r['metric'], r['dataset']) for r in of if r not in cells} == {
      (m, d) for m in resources for d in ('CelebA', 'Places2')
    }, method


def test_published_rows_find_their_bins_and_columns():
  resources = {
    'train_hours', 'test_seconds_per_image', 'memory_GB', 'gpu_memory_GB', 'parameters',
    'seconds_per_image',
  }  # fmt: skip
  reached = set()
  for row in rows():
    protocol = protocols.get(row['protocol'])
    bins = [b.label for b in protocol.bins if b.matches(row['mask'], row['percent'])]
    if row['metric'] in resources:
      assert bins == [], row
      continue
    both = 'not separated' in row['percent']
    assert len(bins) == (2 if both else 1), row
    columns = [m for m in protocol.metrics if m.published == row['metric']]
    assert len(columns) == 1, row
    reached |= {(protocol.id, label) for label in bins}
  missing = {(p, b.label) for p in ('survey', 'seed000') for b in protocols.get(p).bins} - reached
  assert missing == {('seed000', '0-20')}


def test_the_nearest_data_set_of_the_paper():
  of = lambda name, protocol: published.nearest_dataset(name, protocol)
  assert of('tfds:celeb_a_hq/256/train', 'seed003') == 'CelebA-HQ'
  assert of('tfds:celeb_a/test', 'survey') == 'CelebA'
  assert of('tfds:places365_small/validation', 'seed004') == 'Places2'
  assert of('folder:photos', 'survey') == of('folder:photos', 'edgeconnect') == ''


def test_protocols_that_cannot_be_followed_are_refused():
  good = protocols.get('survey')
  first = good.metrics[0]
  for changes, message in (
    ({'crop': 'random'}, "crop 'random' must be one of"),
    ({'resize': 'nearest'}, "resize 'nearest' must be one of .*'lanczos'"),
    ({'rounding': 'up'}, "rounding 'up' must be one of"),
    ({'samples': 0}, 'samples 0 must be at least 1'),
    ({'bins': (Bin(0, 0.5),)}, 'it must have masks'),
    ({'bins': good.bins * 2}, 'names of its bins'),
    ({'metrics': (first, first)}, 'names of its metrics'),
    ({'metrics': (dataclasses.replace(first, function='psrn'),)}, "unknown functions \\['psrn'\\]"),
  ):
    with pytest.raises(ValueError, match=f"protocol 'survey': .*{message}"):
      dataclasses.replace(good, **changes)


def test_the_description_names_the_bins_masks():
  found = protocols.get('survey').description()
  assert found['bins'][0] == 'center 10' and found['bin_masks']['random 40'].endswith('0.4')
  assert found['crop'] == 'center' and found['resize'] == 'bilinear_antialias'
  assert protocols.get('seed000').description()['bin_masks'] == {}


def test_the_page_of_protocols_is_that_of_the_code():
  measured = json.loads((page.DOCS / 'protocols.json').read_text())
  assert (page.DOCS / 'protocols.md').read_text() == page.render(measured), (
    'run python -m benchmarks.protocols'
  )
  # Every definition of the host is among those compared, but for what differs only in scale.
  shown = {function for _, _, function, _ in page.DEFINITIONS.values()}
  assert shown == set(pixels.FUNCTIONS) - {
    'l1', 'l2_percent', 'l2_percent_hole', 'psnr_training_log',
  }  # fmt: skip
  assert set(measured['kernels']) == set(resizing.KERNELS)


def test_the_pages_numbers_are_measured():
  stored = json.loads((page.DOCS / 'protocols.json').read_text())['definitions']
  cheap = ('psnr', 'psnr_channels', 'ssim_global', 'l1_percent', 'mae_rgb')
  found = page._means('area', cheap)
  # Another release of OpenCV may fill a pixel otherwise.
  assert found == pytest.approx({k: stored[k] for k in cheap}, rel=2e-3)


def test_known_pixels_survive_both_roundings():
  levels = np.arange(256, dtype=np.uint8)
  for rounding in ('nearest', 'truncate'):
    np.testing.assert_array_equal(arrays.to_uint8(arrays.to_float(levels), rounding), levels)


def test_several_completions_bring_columns_of_their_own():
  survey = protocols.get('survey')
  assert protocols.with_samples(survey, 1) == survey
  several = protocols.with_samples(survey, 5)
  added = several.metrics[len(survey.metrics) :]
  assert several.metrics[: len(survey.metrics)] == survey.metrics
  assert [(m.label, m.better) for m in added] == [
    ('best PSNR of 5', 'higher'),
    ('best LPIPS of 5', 'lower'),
    ('diversity of 5', 'higher'),
  ]
  assert all(DEEP[m.function] == 'samples' and deep.options(m) for m in added)
  assert protocols.with_samples(several, 3) == several
