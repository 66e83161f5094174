import math

import goldens
import numpy as np
import pytest
from skimage import metrics as reference
from skimage.color import rgb2gray

from jaxinpaint.metrics import pixels


@goldens.cases('psnr_ssim')
def test_golden(case):
  data = case.data()
  a, b = data['A'], data['B']
  gray_a, gray_b = pixels.rgb2gray(a), pixels.rgb2gray(b)
  gray = lambda definition: pixels.ssim(gray_a, gray_b, definition=definition, data_range=1)
  got = {
    'psnr255': pixels.psnr(a, b),
    'psnr01': pixels.psnr(a / 255.0, b / 255.0, data_range=1),
    'psnr_gray01': pixels.psnr_gray(a, b),
    'ssim_gray_win51_dr1': pixels.ssim_gray(a, b),
    'ssim_gray_win11_dr1': gray('uniform11'),
    'ssim_gray_gauss': gray('gaussian'),
    'ssim_rgb_uniform7_u8': pixels.ssim(a, b),
    'ssim_rgb_win51_u8': pixels.ssim(a, b, definition='uniform51'),
    'ssim_rgb_win65_u8': pixels.ssim(a, b, definition='uniform65'),
    'ssim_rgb_gauss_u8': pixels.ssim(a, b, definition='gaussian'),
    'mae_edgeconnect': pixels.mae_edgeconnect(a, b),
    'l1_percent': pixels.l1_percent(a, b),
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
  assert pixels.ssim(a, b, definition=definition) == pytest.approx(want, abs=1e-9)
  hole = np.zeros(a.shape[:2], bool)
  hole[:20, 30:70] = True  # at the border, where the map is mirrored
  got = pixels.ssim_hole(a, b, hole, definition=definition)
  assert got == pytest.approx(full[hole].mean(), abs=1e-9)


def test_psnr_is_scikit_images(pair):
  a, b = pair
  want = reference.peak_signal_noise_ratio(a, b, data_range=255)
  assert pixels.psnr(a, b) == pytest.approx(want, abs=1e-9)


def test_psnr_of_channels_of_gray_and_of_the_training_log(pair):
  a, b = pair
  channels = [reference.peak_signal_noise_ratio(a[..., c], b[..., c]) for c in range(3)]
  assert pixels.psnr_channels(a, b) == pytest.approx(np.mean(channels), abs=1e-9)
  assert pixels.psnr_channels(a, b) > pixels.psnr(a, b)
  green = a.copy()
  green[..., 1] = b[..., 1]  # red and blue are perfect
  want = (100 + channels[1] + 100) / 3
  assert pixels.psnr_channels(a, green) == pytest.approx(want, abs=1e-9)
  assert pixels.psnr_channels(a, a) == 100

  gray_a, gray_b = (rgb2gray(x / np.float32(255)) for x in pair)
  want = reference.peak_signal_noise_ratio(gray_a, gray_b, data_range=1)
  # scikit-image keeps float32, as EdgeConnect's script does.
  assert pixels.psnr_gray(a, b) == pytest.approx(want, abs=1e-5)
  floats = pixels.psnr_gray(a / 255.0, b / 255.0, data_range=1)
  assert floats == pytest.approx(pixels.psnr_gray(a, b), abs=1e-9)

  want = 20 * math.log10(255) - 10 * math.log10(np.mean((a.astype(float) - b) ** 2))
  assert pixels.psnr_training_log(a, b) == pytest.approx(want, abs=1e-9)
  assert pixels.psnr_training_log(a / 255.0, b / 255.0, data_range=1) == pytest.approx(want)
  assert pixels.psnr_training_log(a, a) == 0
  # Cut, not rounded: 0.9 of a level is none.
  assert pixels.psnr_training_log(np.zeros((2, 2)), np.full((2, 2), 0.9)) == 0


def test_psnr_is_mats(pair):
  a, b = (x.astype(np.float64) for x in pair)
  want = 20 * math.log10(255.0 / math.sqrt(np.mean((a - b) ** 2)))
  assert pixels.psnr(*pair) == pytest.approx(want, abs=1e-9)
  assert pixels.l1(*pair) == pytest.approx(np.mean(np.abs(a - b)) / 255, abs=1e-12)


def windows(x):
  """float64[H, W, 11, 11, 3]: each pixel's window, black outside, and the Gaussian's weights."""
  taps = np.exp(-np.square(np.arange(11) - 5) / (2 * 1.5**2))
  weight = np.outer(taps, taps) / taps.sum() ** 2
  padded = np.pad(x, ((5, 5), (5, 5), (0, 0)))
  seen = np.lib.stride_tricks.sliding_window_view(padded, (11, 11), (0, 1))
  return np.moveaxis(seen, 2, -1), weight[..., None]


def test_ssim_zero_padded_is_that_of_windows_with_black_outside(pair):
  a, b = (x[:40, :50] / 255 for x in pair)
  (x, w), (y, _) = windows(a), windows(b)
  mean = lambda z: (z * w).sum((2, 3))
  mx, my = mean(x), mean(y)
  vx, vy, cxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
  c1, c2 = 0.01**2, 0.03**2
  full = (2 * mx * my + c1) * (2 * cxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
  got = pixels.ssim_zero_padded(a, b, data_range=1)
  assert got == pytest.approx(full.mean(), abs=1e-9)
  # The 2004 paper's is the same map without its border.
  inside = pixels.ssim(a, b, definition='gaussian', data_range=1)
  assert inside == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)
  assert abs(inside - got) > 1e-3


def test_ssim_global_is_one_window(pair):
  a, b = (x.astype(np.float64) for x in pair)
  c1, c2, values = 2.55**2, 7.65**2, []
  for c in range(3):
    x, y = a[..., c].ravel(), b[..., c].ravel()
    (vx, cxy), (_, vy) = np.cov(x, y, ddof=0)
    top = (2 * x.mean() * y.mean() + c1) * (2 * cxy + c2)
    values.append(top / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (vx + vy + c2)))
  assert pixels.ssim_global(*pair) == pytest.approx(np.mean(values), abs=1e-12)


def test_ssim_gray_is_scikit_images(pair):
  gray = [rgb2gray(x / 255.0) for x in pair]
  want = reference.structural_similarity(*gray, win_size=51, data_range=1)
  assert pixels.ssim_gray(*pair) == pytest.approx(want, abs=1e-9)


def test_mae_of_edgeconnect_in_gray_and_color(pair):
  a, b = (x.astype(np.float64) for x in pair)
  assert pixels.mae_edgeconnect(*pair) == pytest.approx(np.abs(a - b).sum() / (a + b).sum())
  a, b = (rgb2gray(x / 255) for x in (a, b))
  want = np.abs(a - b).sum() / (a + b).sum()
  assert pixels.mae_edgeconnect_gray(*pair) == pytest.approx(want)


def test_by_hand():
  truth = np.zeros((8, 8, 3), np.uint8)
  output = truth.copy()
  output[:2, :4] = 51  # 8 of 64 pixels, off by a fifth of the range
  hole = np.zeros((8, 8), bool)
  hole[:4, :4] = True  # twice as many
  assert pixels.l1_percent(truth, output) == pytest.approx(100 * 0.2 / 8)
  assert pixels.l1_percent_hole(truth, output, hole) == pytest.approx(100 * 0.2 / 2)
  assert pixels.psnr(truth, output) == pytest.approx(10 * math.log10(25 * 8))
  assert pixels.psnr_hole(truth, output, hole) == pytest.approx(10 * math.log10(25 * 2))
  assert pixels.l1(truth, output) == pytest.approx(0.2 / 8)
  assert pixels.l2_percent(truth, output) == pytest.approx(100 * 0.04 / 8)
  assert pixels.l2_percent_hole(truth, output, hole) == pytest.approx(100 * 0.04 / 2)
  assert pixels.mae_edgeconnect(truth + 1, output + 1) == pytest.approx(8 * 51 / (64 + 56 + 8 * 52))


def test_ssim_of_two_constants_by_hand():
  a, b = np.full((9, 9), 100, np.uint8), np.full((9, 9), 150, np.uint8)
  c1 = (0.01 * 255) ** 2
  want = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
  assert pixels.ssim(a, b) == pytest.approx(want, abs=1e-12)
  # Sample covariance divides by N - 1: a single bright pixel shows it.
  a = np.zeros((7, 7))
  a[3, 3] = 1
  variance = (49 / 48) * (1 / 49 - 1 / 49**2)
  c1, c2 = 0.01**2, 0.03**2
  want = c1 * c2 / ((1 / 49**2 + c1) * (variance + c2))
  assert pixels.ssim(a, np.zeros((7, 7)), data_range=1) == pytest.approx(want, rel=1e-9)


def test_identical_images_and_empty_holes():
  image = np.full((16, 16, 3), 7, np.uint8)
  hole = np.zeros((16, 16), bool)
  assert pixels.psnr(image, image) == math.inf
  assert pixels.ssim(image, image) == pytest.approx(1)
  assert pixels.l1_percent(image, image) == 0
  for name, (function, takes_hole) in pixels.FUNCTIONS.items():
    if takes_hole:
      assert math.isnan(function(image, image, hole)), name


def test_bad_input_is_named():
  image = np.zeros((16, 16, 3), np.uint8)
  with pytest.raises(ValueError, match=r'\(16, 16, 3\) and \(8, 16, 3\)'):
    pixels.psnr(image, image[:8])
  with pytest.raises(ValueError, match='uint8, the other float64'):
    pixels.psnr(image, image / 255)
  with pytest.raises(ValueError, match='at least 51 x 51'):
    pixels.ssim(image, image, definition='uniform51')
  with pytest.raises(ValueError, match="unknown SSIM definition 'uniform8'"):
    pixels.ssim(image, image, definition='uniform8')
