"""PSNR, SSIM and L1 in the definitions that the field uses; each definition has its own name.

All functions take a truth and an output, [H, W, 3] or [H, W] (gray), uint8 or float, and compute in
float64 on the host. `data_range` is the value of white: 255 for uint8, 1 for floats in [0, 1].

| function | what papers and codes call it |
|---|---|
| psnr | "PSNR": most papers, scikit-image, MATLAB, AOT-GAN, PEN-Net, MAT, MMagic: joint mse |
| psnr_channels | "PSNR" of the survey: the mean of the three channels' |
| psnr_gray | "PSNR" of EdgeConnect's script and its followers |
| psnr_training_log | "PSNR" in EdgeConnect's training log: 0 where nothing differs |
| ssim 'uniform7' | "SSIM" of scikit-image by default, AOT-GAN |
| ssim 'uniform51' | "SSIM" of PEN-Net |
| ssim 'gaussian' | "SSIM" of Wang et al. and MATLAB, MAT, MMagic |
| ssim_gray 'uniform51' | "SSIM" of EdgeConnect's script and its followers |
| ssim_zero_padded | "SSIM" of LaMa and of most PyTorch losses |
| ssim_global | "SSIM" by the words of the survey: one window, the whole image |
| l1_percent, l2_percent | "L1", "L2" in percent of the range (of its square) |
| l1 | "MAE" of MAT: the same, not in percent |
| l1_percent_hole | "l1 error" of MMagic's tables |
| mae_edgeconnect[_gray] | "MAE" of EdgeConnect (gray), AOT-GAN, PEN-Net (RGB): sum / sum |

SSIM: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE
TIP 2004, with the constants of that paper (K1 = 0.01, K2 = 0.03).

Functions that measure the hole take `hole`, bool[H, W], True = hole; they give nan without a hole.
"""

import math
import re
from collections.abc import Callable

import cv2
import numpy as np

# Weights of rgb2gray (ITU-R BT.709) in scikit-image, which EdgeConnect's script uses.
_GRAY = np.array([0.2125, 0.7154, 0.0721])


def rgb2gray(image: np.ndarray, data_range: float = 255) -> np.ndarray:
  """[H, W, 3] in [0, data_range] -> float64 [H, W] in [0, 1]."""
  return np.asarray(image, np.float64) / data_range @ _GRAY


def psnr(truth: np.ndarray, output: np.ndarray, *, data_range: float = 255) -> float:
  """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / mse), mse over all pixels, channels.

  Identical images give inf. `evaluate` leaves infinite values out of a mean and counts them.

  >>> black = np.zeros((8, 8, 3), np.uint8)
  >>> round(psnr(black, black + np.uint8(1)), 2)
  48.13
  """
  a, b = _pair(truth, output)
  return _psnr(np.square(a - b).mean(), data_range)


def psnr_channels(
  truth: np.ndarray, output: np.ndarray, *, data_range: float = 255, cap: float = 100
) -> float:
  """Mean over the channels of each channel's PSNR in dB: never less than `psnr` below the cap.

  A channel's PSNR counts as at most `cap`, so that the value is finite.
  """
  a, b = _pair(truth, output)
  errors = np.square(a - b).mean((0, 1)).reshape(-1)
  return float(np.mean([min(_psnr(e, data_range), cap) for e in errors]))


def psnr_gray(truth: np.ndarray, output: np.ndarray, *, data_range: float = 255) -> float:
  """PSNR of both images in gray (`rgb2gray`, without rounding)."""
  a, b = _gray_pair(truth, output, data_range)
  return psnr(a, b, data_range=1)


def psnr_training_log(truth: np.ndarray, output: np.ndarray, *, data_range: float = 255) -> float:
  """`psnr` of the values cut (not rounded) to 8 bits; identical images give 0.

  EdgeConnect's log takes one mean squared error over a batch; this is that of a batch of one.
  """
  a, b = (np.floor(x * (255 / data_range) + 1e-3) for x in _pair(truth, output))
  mse = np.square(a - b).mean()
  return 0.0 if mse == 0 else _psnr(mse, 255)


def psnr_hole(
  truth: np.ndarray, output: np.ndarray, hole: np.ndarray, *, data_range: float = 255
) -> float:
  """PSNR with the mean squared error of the hole's pixels only, over all channels."""
  a, b = _pair(truth, output)
  return _psnr(_hole_mean(np.square(a - b), hole), data_range)


def l1(truth: np.ndarray, output: np.ndarray, *, data_range: float = 255) -> float:
  """mean |a - b| / data_range over all pixels and channels, in [0, 1]."""
  return l1_percent(truth, output, data_range=data_range) / 100


def l1_percent(truth: np.ndarray, output: np.ndarray, *, data_range: float = 255) -> float:
  """100 * mean |a - b| / data_range over all pixels and channels."""
  a, b = _pair(truth, output)
  return float(100 * np.abs(a - b).mean() / data_range)


def l1_percent_hole(
  truth: np.ndarray, output: np.ndarray, hole: np.ndarray, *, data_range: float = 255
) -> float:
  """`l1_percent` over the pixels of the hole only.

  >>> truth = np.zeros((4, 4, 3))
  >>> hole = np.arange(16).reshape(4, 4) < 4
  >>> round(l1_percent_hole(truth, truth + 0.1, hole, data_range=1), 6)
  10.0
  """
  a, b = _pair(truth, output)
  return float(100 * _hole_mean(np.abs(a - b), hole) / data_range)


def l2_percent(truth: np.ndarray, output: np.ndarray, *, data_range: float = 255) -> float:
  """100 * mean (a - b)^2 / data_range^2 over all pixels and channels."""
  a, b = _pair(truth, output)
  return float(100 * np.square(a - b).mean() / data_range**2)


def l2_percent_hole(
  truth: np.ndarray, output: np.ndarray, hole: np.ndarray, *, data_range: float = 255
) -> float:
  """`l2_percent` over the pixels of the hole only."""
  a, b = _pair(truth, output)
  return float(100 * _hole_mean(np.square(a - b), hole) / data_range**2)


def mae_edgeconnect(truth: np.ndarray, output: np.ndarray) -> float:
  """sum |a - b| / sum (a + b): what EdgeConnect's script and its followers call MAE.

  It is relative to the brightness of the pictures, so no mean absolute error. EdgeConnect takes it
  of gray images, PEN-Net and AOT-GAN of RGB. Two black images give nan.
  """
  a, b = _pair(truth, output)
  total = (a + b).sum()
  return float(np.abs(a - b).sum() / total) if total else math.nan


def mae_edgeconnect_gray(
  truth: np.ndarray, output: np.ndarray, *, data_range: float = 255
) -> float:
  """`mae_edgeconnect` of both images in gray."""
  return mae_edgeconnect(*_gray_pair(truth, output, data_range))


def ssim(
  truth: np.ndarray,
  output: np.ndarray,
  *,
  definition: str = 'uniform7',
  data_range: float = 255,
) -> float:
  """Mean structural similarity, over all windows that lie inside the image, then over channels.

  Args:
    truth: [H, W, 3] or [H, W].
    output: likewise.
    definition: 'uniformN', an N x N box with sample covariance, N odd (7 is scikit-image's default,
      51 EdgeConnect's); or 'gaussian', sigma 1.5 cut to 11 taps, population covariance (the 2004
      paper's).
    data_range: see the module.

  Raises:
    ValueError: unknown definition, or an image smaller than the window.
  """
  a, b = _pair(truth, output)
  size = _window(definition)
  _check_size(a, size, definition)
  r = size // 2
  return float(_ssim_map(a, b, definition, data_range)[r:-r, r:-r].mean())


def ssim_gray(
  truth: np.ndarray,
  output: np.ndarray,
  *,
  definition: str = 'uniform51',
  data_range: float = 255,
) -> float:
  """`ssim` of both images in gray (`rgb2gray`, without rounding)."""
  a, b = _gray_pair(truth, output, data_range)
  return ssim(a, b, definition=definition, data_range=1)


def ssim_zero_padded(truth: np.ndarray, output: np.ndarray, *, data_range: float = 255) -> float:
  """SSIM by 11 taps of a Gaussian of sigma 1.5 as PyTorch convolves: the border counts.

  The images are continued by 5 rows and columns of black, each pixel has a window, and the mean is
  over all pixels and channels. Population covariance.
  """
  a, b = _pair(truth, output)
  return float(_ssim_map(a, b, 'gaussian', data_range, cv2.BORDER_CONSTANT).mean())


def ssim_global(truth: np.ndarray, output: np.ndarray, *, data_range: float = 255) -> float:
  """SSIM with one window, the whole image: of each channel, population covariance, then averaged.

  It cannot see where in the image something is wrong.
  """
  a, b = (x.reshape(-1, *x.shape[2:]) for x in _pair(truth, output))
  mean_a, mean_b = a.mean(0), b.mean(0)
  covariance = ((a - mean_a) * (b - mean_b)).mean(0)
  return float(_ssim(mean_a, mean_b, a.var(0), b.var(0), covariance, data_range).mean())


def ssim_hole(
  truth: np.ndarray,
  output: np.ndarray,
  hole: np.ndarray,
  *,
  definition: str = 'uniform7',
  data_range: float = 255,
) -> float:
  """Mean of the SSIM map at the pixels of the hole, then over channels.

  The value at a pixel is that of the window centred on it, so windows at the hole's edge see known
  pixels too; at the border of the image they see it mirrored (scikit-image's `full=True` map).
  """
  a, b = _pair(truth, output)
  _check_size(a, _window(definition), definition)
  return _hole_mean(_ssim_map(a, b, definition, data_range), hole)


# The functions that a protocol may use: {name: (function, whether it takes the hole)}.
FUNCTIONS: dict[str, tuple[Callable[..., float], bool]] = {
  **{
    f.__name__: (f, False)
    for f in (
      psnr,
      psnr_channels,
      psnr_gray,
      psnr_training_log,
      ssim,
      ssim_gray,
      ssim_zero_padded,
      ssim_global,
      l1,
      l1_percent,
      l2_percent,
      mae_edgeconnect,
      mae_edgeconnect_gray,
    )
  },
  **{f.__name__: (f, True) for f in (psnr_hole, ssim_hole, l1_percent_hole, l2_percent_hole)},
}


def _pair(truth: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  truth, output = np.asarray(truth), np.asarray(output)
  if truth.shape != output.shape:
    raise ValueError(f'the images have shapes {truth.shape} and {output.shape}: they must be equal')
  if truth.ndim not in (2, 3):
    raise ValueError(f'images are [H, W, C] or [H, W], got {truth.shape}: give one at a time')
  if (truth.dtype == np.uint8) != (output.dtype == np.uint8):
    raise ValueError(
      f'one image is {truth.dtype}, the other {output.dtype}: bring both to the same range'
    )
  return truth.astype(np.float64), output.astype(np.float64)


def _gray_pair(
  truth: np.ndarray, output: np.ndarray, data_range: float
) -> tuple[np.ndarray, np.ndarray]:
  """Both images in gray, float64 [H, W] in [0, 1]; a gray image is only scaled."""
  a, b = _pair(truth, output)
  if a.ndim == 2:
    return a / data_range, b / data_range
  return rgb2gray(a, data_range), rgb2gray(b, data_range)


def _psnr(mse: float, data_range: float) -> float:
  return math.inf if mse == 0 else float(10 * np.log10(data_range**2 / mse))


def _hole_mean(values: np.ndarray, hole: np.ndarray) -> float:
  hole = np.asarray(hole).astype(bool)
  if hole.shape != values.shape[:2]:
    raise ValueError(f'the hole is {hole.shape}, the image {values.shape}: give bool[H, W]')
  return float(values[hole].mean()) if hole.any() else math.nan


def _window(definition: str) -> int:
  """Side of the window in pixels."""
  if definition == 'gaussian':
    return 11
  match = re.fullmatch(r'uniform(\d+)', definition)
  if not match or int(match[1]) % 2 == 0 or int(match[1]) < 3:
    raise ValueError(
      f"unknown SSIM definition {definition!r}: 'gaussian' or 'uniformN', N odd and at least 3"
    )
  return int(match[1])


def _check_size(image: np.ndarray, size: int, definition: str) -> None:
  if min(image.shape[:2]) < size:
    raise ValueError(
      f'SSIM {definition!r} needs images of at least {size} x {size} pixels, got '
      f'{image.shape[0]} x {image.shape[1]}: use larger images or a smaller window'
    )


def _ssim_map(
  a: np.ndarray,
  b: np.ndarray,
  definition: str,
  data_range: float,
  border: int = cv2.BORDER_REFLECT,
) -> np.ndarray:
  """float64 in the shape of a: SSIM of the window centred on each pixel, for each channel.

  The default border repeats the edge pixel, as scipy's 'reflect' does.
  """
  size = _window(definition)
  if definition == 'gaussian':
    taps = cv2.getGaussianKernel(size, 1.5, cv2.CV_64F)
    blur = lambda x: cv2.sepFilter2D(x, -1, taps, taps, borderType=border)
    unbiased = 1.0
  else:
    blur = lambda x: cv2.boxFilter(x, -1, (size, size), borderType=border)
    unbiased = size**2 / (size**2 - 1)
  mean_a, mean_b = blur(a), blur(b)
  variance_a = unbiased * (blur(a * a) - mean_a * mean_a)
  variance_b = unbiased * (blur(b * b) - mean_b * mean_b)
  covariance = unbiased * (blur(a * b) - mean_a * mean_b)
  return _ssim(mean_a, mean_b, variance_a, variance_b, covariance, data_range)


def _ssim(
  mean_a: np.ndarray,
  mean_b: np.ndarray,
  variance_a: np.ndarray,
  variance_b: np.ndarray,
  covariance: np.ndarray,
  data_range: float,
) -> np.ndarray:
  """Wang et al., eq. 13, element by element."""
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
  return top / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
