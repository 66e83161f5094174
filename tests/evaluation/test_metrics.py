import math

import goldens
import numpy as np
import pytest
from skimage import metrics as reference

from jaxinpaint.evaluation import metrics


@goldens.cases('psnr_ssim')
def test_golden(case):
  data = case.data()
  a, b = data['A'], data['B']
  gray_a, gray_b = metrics.rgb2gray(a), metrics.rgb2gray(b)
  gray = lambda definition: metrics.ssim(gray_a, gray_b, definition=definition, data_range=1)
  got = {
    'psnr255': metrics.psnr(a, b),
    'psnr01': metrics.psnr(a / 255.0, b / 255.0, data_range=1),
    'psnr_gray01': metrics.psnr(gray_a, gray_b, data_range=1),
    'ssim_gray_win51_dr1': gray('uniform51'),
    'ssim_gray_win11_dr1': gray('uniform11'),
    'ssim_gray_gauss': gray('gaussian'),
    'ssim_rgb_uniform7_u8': metrics.ssim(a, b),
    'ssim_rgb_win51_u8': metrics.ssim(a, b, definition='uniform51'),
    'ssim_rgb_win65_u8': metrics.ssim(a, b, definition='uniform65'),
    'ssim_rgb_gauss_u8': metrics.ssim(a, b, definition='gaussian'),
    'mae_edgeconnect': metrics.mae_edgeconnect(a, b),
    'l1_percent': metrics.l1_percent(a, b),
  }
  wanted = {k: v for k, v in data.items() if k not in ('A', 'B')}
  assert wanted.keys() <= got.keys()
  for name, value in wanted.items():
    np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-8, err_msg=name)


@pytest.fixture(scope='module')
def pair(photographs):
  truth = photographs[0]
  noise = np.random.default_rng(0).normal(0, 20, truth.shape)
  return truth, np.clip(truth + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize('definition', ['uniform7', 'uniform11', 'uniform51', 'gaussian'])
def test_ssim_and_its_map_are_scikit_images(pair, definition):
  a, b = pair
  options = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
  if definition != 'gaussian':
    options = {'win_size': int(definition.removeprefix('uniform'))}
  want, full = reference.structural_similarity(
    a, b, channel_axis=2, data_range=255, full=True, **options
  )
  assert metrics.ssim(a, b, definition=definition) == pytest.approx(want, abs=1e-9)
  hole = np.zeros(a.shape[:2], bool)
  hole[:20, 30:70] = True  # at the border, where the map is mirrored
  got = metrics.ssim_hole(a, b, hole, definition=definition)
  assert got == pytest.approx(full[hole].mean(), abs=1e-9)


def test_psnr_is_scikit_images(pair):
  a, b = pair
  want = reference.peak_signal_noise_ratio(a, b, data_range=255)
  assert metrics.psnr(a, b) == pytest.approx(want, abs=1e-9)


def test_by_hand():
  truth = np.zeros((8, 8, 3), np.uint8)
  output = truth.copy()
  output[:2, :4] = 51  # 8 of 64 pixels, off by a fifth of the range
  hole = np.zeros((8, 8), bool)
  hole[:4, :4] = True  # twice as many
  assert metrics.l1_percent(truth, output) == pytest.approx(100 * 0.2 / 8)
  assert metrics.l1_percent_hole(truth, output, hole) == pytest.approx(100 * 0.2 / 2)
  assert metrics.psnr(truth, output) == pytest.approx(10 * math.log10(25 * 8))
  assert metrics.psnr_hole(truth, output, hole) == pytest.approx(10 * math.log10(25 * 2))
  assert metrics.mae_edgeconnect(truth + 1, output + 1) == pytest.approx(
    8 * 51 / (64 + 56 + 8 * 52)
  )


def test_ssim_of_two_constants_by_hand():
  a, b = np.full((9, 9), 100, np.uint8), np.full((9, 9), 150, np.uint8)
  c1 = (0.01 * 255) ** 2
  want = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
  assert metrics.ssim(a, b) == pytest.approx(want, abs=1e-12)
  # Sample covariance divides by N - 1: a single bright pixel shows it.
  a = np.zeros((7, 7))
  a[3, 3] = 1
  variance = (49 / 48) * (1 / 49 - 1 / 49**2)
  c1, c2 = 0.01**2, 0.03**2
  want = c1 * c2 / ((1 / 49**2 + c1) * (variance + c2))
  assert metrics.ssim(a, np.zeros((7, 7)), data_range=1) == pytest.approx(want, rel=1e-9)


def test_identical_images_and_empty_holes():
  image = np.full((16, 16, 3), 7, np.uint8)
  hole = np.zeros((16, 16), bool)
  assert metrics.psnr(image, image) == math.inf
  assert metrics.ssim(image, image) == pytest.approx(1)
  assert metrics.l1_percent(image, image) == 0
  for name, (function, takes_hole) in metrics.FUNCTIONS.items():
    if takes_hole:
      assert math.isnan(function(image, image, hole)), name


def test_bad_input_is_named():
  image = np.zeros((16, 16, 3), np.uint8)
  with pytest.raises(ValueError, match=r'\(16, 16, 3\) and \(8, 16, 3\)'):
    metrics.psnr(image, image[:8])
  with pytest.raises(ValueError, match='uint8, the other float64'):
    metrics.psnr(image, image / 255)
  with pytest.raises(ValueError, match='at least 51 x 51'):
    metrics.ssim(image, image, definition='uniform51')
  with pytest.raises(ValueError, match="unknown SSIM definition 'uniform8'"):
    metrics.ssim(image, image, definition='uniform8')
