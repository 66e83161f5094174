"""Pixel-wise reconstruction losses: L1 over the picture, a region, with weights by place; PSNR.

Every function takes images of any float dtype, computes in float32 and returns f32[]. Values and
gradients are finite for every hole, an empty one, one pixel and the whole picture included.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Of a batch's pixels; `l1_over_mask_mean` divides by no less.
LEAST_SHARE = 0.01
# Of the window in GMCNN's code: it takes 65 bins of a normal distribution, from -v to v deviations
# with v = 1/40 + (1 + 2/40) / (2 * 65), and then the square root of their outer product.
CONFIDENCE_SIGMA = 2**0.5 * 65 / (2 * (1 / 40 + (1 + 2 / 40) / (2 * 65)))


def absolute_difference(a: jax.Array, b: jax.Array) -> jax.Array:
  """|a - b| in float32, whose derivative is 0 where the two are equal, as in PyTorch.

  The derivative of jnp.abs is 1 there. It would push pixels and features away from a target that
  they have reached, and flat areas away from their total variation of zero.
  """
  difference = a.astype(jnp.float32) - b.astype(jnp.float32)
  return difference * jax.lax.stop_gradient(jnp.sign(difference))


def l1(pred: jax.Array, target: jax.Array, weight: jax.Array | None = None) -> jax.Array:
  """Mean over all elements of |pred - target|, times `weight` where given.

  The divisor is the number of elements of `pred`, whatever the weight; see `masked_l1` for a mean
  over a region.

  Args:
    pred: [B,H,W,C].
    target: [B,H,W,C].
    weight: broadcastable to them, e.g. a mask [B,H,W,1] or a discount [H,W,1].

  >>> truth, mask = jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1)).at[:, 0, 0].set(1)
  >>> float(l1(truth + 1, truth)), float(l1(truth + 1, truth, mask))
  (1.0, 0.25)
  """
  error = absolute_difference(pred, target)
  if weight is not None:
    error = error * weight.astype(jnp.float32)
  return error.mean()


def l1_over_mask_mean(pred: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
  """`l1` over the whole picture, divided by the mean of the batch's masks.

  As in EdgeConnect's and MISF's code: the error runs over every pixel, but a batch of small holes
  counts for more. Their code divides by zero if a batch has no hole, and a single pixel of hole
  multiplies the loss by the number of pixels. Here a batch without a hole has the plain `l1`, and
  holes of less than `LEAST_SHARE` of a batch (1 %) count as that share.

  Args:
    pred: [B,H,W,C].
    target: [B,H,W,C].
    mask: [B,H,W,1], 1 = hole.
  """
  share = mask.astype(jnp.float32).mean()
  return l1(pred, target) / jnp.where(share > 0, jnp.maximum(share, LEAST_SHARE), 1.0)


def masked_l1(
  pred: jax.Array, target: jax.Array, region: jax.Array, *, over_region: bool = False
) -> jax.Array:
  """L1 inside a region: the hole (`region=mask`) or what is known (`region=1 - mask`).

  Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018, L_hole
  and L_valid, which divide by the number of all elements.

  Args:
    pred: [B,H,W,C].
    target: [B,H,W,C].
    region: [B,H,W,1], 1 inside.
    over_region: divide by the region's elements instead. Without any, loss and gradient are 0.
  """
  loss = l1(pred, target, region)
  if over_region:
    region = region.astype(jnp.float32)
    loss = loss / jnp.maximum(region.mean(), 1.0 / region.size)
  return loss


def negative_psnr(pred: jax.Array, target: jax.Array, region: jax.Array) -> jax.Array:
  """Minus the PSNR of a region in decibels, of each image by itself, then the mean over images.

  Chen, Lu, Zhang, Chu, Chen: "HINet: Half Instance Normalization Network for Image Restoration",
  CVPR Workshops 2021, section 3.3, which takes the whole picture. Unlike the mean squared error, it
  gives easy and difficult images the same weight.

  Args:
    pred: [B,H,W,C] in [0,1].
    target: [B,H,W,C] in [0,1].
    region: [B,H,W,1], 1 inside. Images that have no region are left out (0 where all have none).

  Returns:
    f32[], at least -40: 1e-4 is added to the mean squared error, so that gradients stay bounded.
  """
  region = region.astype(jnp.float32)
  squares = jnp.square(pred.astype(jnp.float32) - target.astype(jnp.float32)) * region
  pixels = region.sum((1, 2, 3))
  error = squares.sum((1, 2, 3)) / (pred.shape[-1] * jnp.maximum(pixels, 1))
  counts = (pixels > 0).astype(jnp.float32)
  decibels = 10 * jnp.log10(error + 1e-4)
  return (decibels * counts).sum() / jnp.maximum(counts.sum(), 1)


def spatial_discount_mask(height: int, width: int, gamma: float = 0.9) -> np.ndarray:
  """f32[height, width, 1]: pixels near the border of the hole, next to known pixels, count most.

  Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, section 3, as in
  the authors' code: max(gamma^min(i, height - i), gamma^min(j, width - j)) with i and j from 0. The
  first row and column have the weight 1, the last ones gamma. Use it as the weight of `l1`.
  """
  rows, columns = (gamma ** np.minimum(np.arange(n), n - np.arange(n)) for n in (height, width))
  return np.maximum(rows[:, None], columns[None, :]).astype(np.float32)[..., None]


def discounted_l1(pred: jax.Array, target: jax.Array, gamma: float = 0.9) -> jax.Array:
  """`l1` of hole patches [B,h,w,C] under `spatial_discount_mask`; divides by all elements."""
  return l1(pred, target, jnp.asarray(spatial_discount_mask(*pred.shape[1:3], gamma)))


def confidence_mask(
  mask: jax.Array, *, sigma: float = CONFIDENCE_SIGMA, size: int = 65, iterations: int = 7
) -> jax.Array:
  """Weights in the hole that fall from its border, next to known pixels, to its middle.

  Wang et al., "Image Inpainting via Generative Multi-column Convolutional Neural Networks", NeurIPS
  2018, section 3.3. Known pixels have the confidence 1. Again and again the confidence is blurred,
  and what lies in the hole is kept:

    c_0 = 0;  c_i = blur(c_{i-1} + 1 - mask) * mask

  Args:
    mask: f32[B,H,W,1], 1 = hole.
    sigma: of the Gaussian, in pixels. The default is that of the authors' code, whose window is
      flat within 0.06 %; the paper: 40.
    size: of the Gaussian's window, odd, whatever the image's size. Borders are mirrored.
    iterations: how often.

  Returns:
    f32[B,H,W,1] in [0,1], 0 at known pixels; not normalised.
  """
  mask = mask.astype(jnp.float32)
  rows, columns = (jnp.asarray(_mirrored_blur(n, size, sigma)) for n in mask.shape[1:3])
  confidence = jnp.zeros_like(mask)
  for _ in range(iterations):
    x = jnp.einsum('oi,biwc->bowc', rows, confidence + 1 - mask, precision='highest')
    confidence = mask * jnp.einsum('oi,bhic->bhoc', columns, x, precision='highest')
  return jax.lax.stop_gradient(confidence)


def _mirrored_blur(n: int, size: int, sigma: float) -> np.ndarray:
  """f32[n,n]: blurs n samples, mirrored about both ends, by a Gaussian of `size` taps."""
  reach = size // 2
  taps = np.exp(-np.square(np.arange(-reach, reach + 1) / sigma) / 2)
  read = np.pad(np.arange(n), reach, mode='reflect')
  matrix = np.zeros((n, n))
  for i in range(n):
    np.add.at(matrix[i], read[i : i + size], taps / taps.sum())
  return matrix.astype(np.float32)


def confidence_l1(
  pred: jax.Array, target: jax.Array, mask: jax.Array, confidence: jax.Array
) -> jax.Array:
  """L1 of the hole under `confidence_mask`, divided by the hole's share of the batch.

  Args:
    pred: [B,H,W,C].
    target: [B,H,W,C].
    mask: [B,H,W,1], 1 = hole. A batch without a hole has the loss 0.
    confidence: [B,H,W,1], 0 outside the hole.
  """
  share = jnp.maximum(mask.astype(jnp.float32).mean(), 1.0 / mask.size)
  return l1(pred, target, confidence) / share
