"""The loop beyond one number per image: variants, networks of features, samples, devices."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asked import measured

from jaxinpaint import arrays
from jaxinpaint.evaluation import classical
from jaxinpaint.evaluation.spec import EvaluationError
from jaxinpaint.masks import sets
from jaxinpaint.metrics import protocols
from jaxinpaint.metrics.protocols import Metric
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Inference, Variables

BINS = protocols.parse_bins(['10-20', '20-40'])
PSNR = Metric('psnr', 'PSNR', 'psnr', {'data_range': 255}, 'higher', 3)


def protocol_of(*metrics, composite=True):
  return dataclasses.replace(protocols.get('seed000'), metrics=metrics, composite=composite)


def images_of(photographs, n=5, side=24):
  crops = [p[k : k + side, 7 * k : 7 * k + side] for k in range(4) for p in photographs]
  return [(crop, f'{k}') for k, crop in enumerate(crops[:n])]


def masks_of(bins=BINS, side=24):
  return sets.make('strokes', bins, side, side)


def bound(output, devices=None, params=None, **fields):
  inference = Inference(('generator',), None, output, **fields)
  variables = Variables({'generator': params or {}}, {})
  return Predictor(inference, variables, seed=5, devices=devices)


def half(variables, constants, image, mask, rng):
  return 0.5 * image + 0.25 * mask


def values(results, name, metric, b=BINS[0]):
  return np.array(results.values(name, b, metric))


def test_raw_and_composite_of_one_output(photographs):
  raw = dataclasses.replace(PSNR, name='raw_psnr', of='raw')
  pasted = dataclasses.replace(PSNR, name='pasted_psnr', of='composite')
  rows = {'half': bound(half), 'fill': classical.mean_fill}
  images, masks = images_of(photographs), masks_of()
  for composite in (True, False):
    protocol = protocol_of(PSNR, raw, pasted, composite=composite)
    results = measured(rows, images, masks, protocol, batch_size=2, examples=2)
    same = 'pasted_psnr' if composite else 'raw_psnr'
    np.testing.assert_array_equal(values(results, 'half', 'psnr'), values(results, 'half', same))
    truth, hole = images[3][0], masks[BINS[0]](3)
    known = arrays.to_float(truth) * (hole == 0)[..., None]
    output = arrays.to_uint8(0.5 * known + 0.25 * hole[..., None])
    pasted_output = np.where(hole[..., None] > 0, output, truth)
    psnr = lambda x, truth=truth: 10 * np.log10(255**2 / np.mean((x - truth.astype(float)) ** 2))
    assert values(results, 'half', 'raw_psnr')[3] == pytest.approx(psnr(output))
    assert values(results, 'half', 'pasted_psnr')[3] == pytest.approx(psnr(pasted_output))
    # A fill has no raw output.
    np.testing.assert_array_equal(
      values(results, 'fill', 'raw_psnr'), values(results, 'fill', 'pasted_psnr')
    )
    assert results.kinds == {'half': 'system', 'fill': 'fill'}
    shown = next(e for e in results.examples if e.index == 0).outputs['half']
    assert (
      shown[masks[BINS[0]](0) == 0] == images[0][0][masks[BINS[0]](0) == 0]
    ).all() == composite


def test_a_raw_output_must_be_finite(photographs):
  broken = bound(lambda v, c, image, mask, rng: image + jnp.where(mask == 0, jnp.nan, 0))
  with pytest.raises(EvaluationError, match='NaN or infinity'):
    measured({'x': broken}, images_of(photographs), masks_of(), protocol_of(PSNR))


class Networks:
  """Stands for networks of features: means and histograms."""

  def __init__(self, missing=()):
    self.missing = {name: f'get {name} with COMMAND' for name in missing}
    self.shapes = []

  def pair(self, metric, truth, output):
    self.shapes.append(truth.shape)
    assert truth.dtype == output.dtype == np.uint8
    return np.abs(truth.astype(float) - output).mean((1, 2, 3)) + metric.options['plus']

  def features(self, images):
    self.shapes.append(images.shape)
    return np.stack([np.resize(i, 2048) for i in images]).astype(np.float32)

  def features_of_set(self, images):
    return self.features(np.stack(images))

  def set_value(self, metric, real, fake):
    weights = np.arange(1, len(real) + 1)  # the order counts
    return float(((real - fake) ** 2).mean(1).astype(float) @ weights)

  def of_samples(self, metric, truth, samples):
    return samples.astype(float).std(0).mean((1, 2, 3))


LPIPS = Metric('near', 'near', 'lpips', {'plus': 2}, 'lower', 3)
FID = Metric('far', 'far', 'fid', {}, 'lower', 3)
FID_RAW = Metric('far_raw', 'far', 'fid', {}, 'lower', 3, of='raw')
SPREAD = Metric('spread', 'spread', 'lpips_diversity', {}, 'higher', 3)


@pytest.fixture
def deep():
  return Networks()


def test_metrics_of_networks(deep, photographs):
  protocol = protocol_of(PSNR, LPIPS, FID, FID_RAW)
  rows = {'half': bound(half), 'fill': classical.mean_fill}
  images, masks = images_of(photographs), masks_of()
  runs = [
    measured(rows, images, masks, protocol, batch_size=n, networks=deep, examples=5)
    for n in (1, 2, 8)
  ]
  for other in runs[1:]:
    assert other.set_values == runs[0].set_values
    assert [r.values for r in other.records] == [r.values for r in runs[0].records]
  assert deep.shapes[-1] == (8, 24, 24, 3), 'batches of outputs have one shape, whatever is left'
  results = runs[0]
  outputs = {(e.bin, e.index): e.outputs['half'] for e in results.examples}
  for b in BINS:
    pair = [
      np.abs(truth.astype(float) - outputs[b, i]).mean() + 2 for i, (truth, _) in enumerate(images)
    ]
    np.testing.assert_allclose(values(results, 'half', 'near', b), pair)
  features = lambda pictures: deep.features(np.stack(pictures))
  real = features([i for i, _ in images])
  found = {(v.predictor, v.bin, v.metric): v for v in results.set_values}
  assert len(found) == 2 * 2 * 2 and all(v.n == 5 for v in results.set_values)
  for b in BINS:
    want = deep.set_value(FID, real, features([outputs[b, i] for i in range(5)]))
    assert found['half', b, 'far'].value == pytest.approx(want, rel=1e-12)
    assert found['half', b, 'far_raw'].value > want, 'known pixels count too'
    assert found['fill', b, 'far_raw'].value == found['fill', b, 'far'].value


def test_missing_networks_leave_no_number(photographs):
  networks = Networks(missing=('near', 'far'))
  protocol = protocol_of(PSNR, LPIPS, FID, SPREAD)
  results = measured(
    {'fill': classical.mean_fill}, images_of(photographs), masks_of(), protocol, networks=networks
  )
  assert {k: results.not_computed[k] for k in ('near', 'far')} == networks.missing
  assert 'none of the rows draws' in results.not_computed['spread']
  assert all(set(r.values) == {'psnr'} for r in results.records) and not results.set_values


def uniform(variables, constants, image, mask, rng):
  return jax.random.uniform(rng, image.shape)


def test_a_system_that_samples(deep, photographs):
  protocol = protocol_of(PSNR, SPREAD)
  images, masks = images_of(photographs), masks_of()
  runs = [
    measured(
      {'draws': bound(uniform, devices, samples=True), 'fill': classical.mean_fill},
      images, masks, protocol, batch_size=n, networks=deep, samples=k,
    )
    for n, k, devices in ((5, 3, jax.devices()[:1]), (2, 3, None), (3, 1, None))
  ]  # fmt: skip
  first = values(runs[0], 'draws', 'psnr')
  assert len(set(first)) == 5, 'each image has numbers of its own'
  for other in runs[1:]:  # neither the batch, nor the devices, nor more samples change the first
    np.testing.assert_array_equal(values(other, 'draws', 'psnr'), first)
  spread = values(runs[0], 'draws', 'spread')
  np.testing.assert_array_equal(spread, values(runs[1], 'draws', 'spread'))
  share = np.array([masks[BINS[0]](i).mean() for i in range(5)])
  # The mean standard deviation of three uniform draws on 0..255; known pixels have none.
  np.testing.assert_allclose(spread / share, 54.8, atol=3)
  assert 'spread' not in runs[0].records[-1].values, 'a fill has one output'
  assert runs[2].not_computed['spread'].endswith('pass --samples 5')


def convolutions(variables, constants, image, mask, rng):
  x = jnp.concatenate([image, mask], -1)
  for k in variables.params['generator']:
    x = jnp.tanh(jax.lax.conv_general_dilated(
      x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    ))  # fmt: skip
  return 0.5 + 0.5 * x


def test_one_device_and_eight_give_the_same_numbers(photographs):
  """The same for a published system in test_evaluation_processes."""
  rng, widths = np.random.default_rng(0), (4, 16, 16, 3)
  kernels = [
    rng.normal(0, (9 * i) ** -0.5, (3, 3, i, o)).astype(np.float32)
    for i, o in itertools.pairwise(widths)
  ]
  rows = [
    {'net': bound(convolutions, devices, kernels)} for devices in (jax.devices()[:1], jax.devices())
  ]
  protocol = protocols.get('seed000')
  runs = [measured(r, images_of(photographs), masks_of(), protocol, batch_size=3) for r in rows]
  one, eight = (np.array([list(r.values.values()) for r in run.records]) for run in runs)
  assert one.shape == (10, 6)
  np.testing.assert_allclose(eight, one, rtol=0, atol=1e-6)
  assert runs[0].mask_sha256 == runs[1].mask_sha256


def test_an_image_may_be_in_one_bin_only(photographs, deep):
  images = images_of(photographs)
  drawn = masks_of()
  masks = {b: lambda i, b=b, k=k: drawn[b](i) if i % 2 == k else None for k, b in enumerate(BINS)}
  protocol = protocol_of(PSNR, FID)
  runs = [
    measured({'fill': classical.telea}, images, masks, protocol, batch_size=n, networks=deep)
    for n in (1, 3)
  ]
  whole = measured({'fill': classical.telea}, images, drawn, protocol, networks=deep)
  for results in runs:
    for k, b in enumerate(BINS):
      np.testing.assert_array_equal(
        values(results, 'fill', 'psnr', b), values(whole, 'fill', 'psnr', b)[k::2]
      )
      assert [e.index for e in results.examples if e.bin == b] == list(range(k, 5, 2))[:4]
    assert [v.n for v in results.set_values] == [3, 2]
  assert runs[0].set_values == runs[1].set_values
  assert runs[0].mask_sha256 == runs[1].mask_sha256 != whole.mask_sha256


def test_an_unreadable_image_may_end_it(photographs):
  from jaxinpaint.pictures import decode

  class Broken(list):
    def __getitem__(self, i):
      if i == 3:
        raise decode.UnreadableImage('photo3.jpg', 'truncated')
      return list.__getitem__(self, i)

  images = Broken(images_of(photographs))
  rows = {'fill': classical.mean_fill}
  assert measured(rows, images, masks_of(), protocol_of(PSNR), batch_size=2).count == 4
  with pytest.raises(EvaluationError, match=r'photo3.jpg: truncated: .* --on_unreadable=skip'):
    measured(rows, images, masks_of(), protocol_of(PSNR), batch_size=2, on_unreadable='fail')
