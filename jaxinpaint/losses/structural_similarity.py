"""SSIM as a loss: differentiable, of whole batches."""

import jax
import jax.numpy as jnp
import numpy as np


def _blur_matrix(n: int, size: int, sigma: float) -> np.ndarray:
  """f32[n,n]: a Gaussian of `size` taps along n samples, zeros beyond the ends."""
  distance = np.arange(n)[:, None] - np.arange(n)
  offset = np.arange(size) - size // 2
  total = np.exp(-(offset**2) / (2 * sigma**2)).sum()
  taps = np.where(abs(distance) <= size // 2, np.exp(-(distance**2) / (2 * sigma**2)) / total, 0)
  return taps.astype(np.float32)


def ssim(pred: jax.Array, target: jax.Array, *, size: int = 11, sigma: float = 1.5) -> jax.Array:
  """Structural similarity, the mean over all pixels, channels and samples; 1: equal.

  Wang, Bovik, Sheikh, Simoncelli: "Image Quality Assessment: From Error Visibility to Structural
  Similarity", IEEE TIP 2004, eq. 13, with Gaussian windows, K1 = 0.01, K2 = 0.03 and range 1. As in
  pytorch-ssim, windows reach over the border, where everything is zero; the metric in
  `metrics.pixels` leaves those windows out.

  Args:
    pred: [B,H,W,C] in [0,1].
    target: [B,H,W,C] in [0,1].
    size: of the window, odd.
    sigma: of the Gaussian.

  Returns:
    f32[].
  """
  a, b = pred.astype(jnp.float32), target.astype(jnp.float32)
  rows, columns = (jnp.asarray(_blur_matrix(n, size, sigma)) for n in a.shape[1:3])

  def blur(x):
    x = jnp.einsum('oi,biwc->bowc', rows, x, precision='highest')
    return jnp.einsum('oi,bhic->bhoc', columns, x, precision='highest')

  c1, c2 = 0.01**2, 0.03**2
  mean_a, mean_b = blur(a), blur(b)
  var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
  covariance = blur(a * b) - mean_a * mean_b
  luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
  return (luminance * (2 * covariance + c2) / (var_a + var_b + c2)).mean()
