"""Adversarial losses and the penalties that go with them.

A kind of GAN is a pair of functions of the discriminator's raw outputs (logits, no sigmoid):

  real_term, fake_term = non_saturating.discriminator(real_logits, fake_logits)
  term = non_saturating.generator(fake_logits)

The discriminator minimises the sum of its two terms (EdgeConnect and its descendants, and
SN-PatchGAN, half of it). A term is the mean over all samples and patches. Everything is float32
inside, whatever the dtype of the logits.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint import arrays
from jaxinpaint.losses.reconstruction import absolute_difference


class AdversarialLoss(NamedTuple):
  """One kind of GAN.

  Attributes:
    discriminator: (real logits, fake logits) -> (real term f32[], fake term f32[]).
    generator: (fake logits) -> f32[].
  """

  discriminator: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
  generator: Callable[[jax.Array], jax.Array]


def _f32(x: jax.Array) -> jax.Array:
  return x.astype(jnp.float32)


# Goodfellow et al., NeurIPS 2014, with the generator's non-saturating form (section 3). The binary
# cross-entropy of a sigmoid is a softplus: exact for any logit, where PyTorch's BCELoss clamps the
# logarithm at -100.
non_saturating = AdversarialLoss(
  lambda real, fake: (jax.nn.softplus(-_f32(real)).mean(), jax.nn.softplus(_f32(fake)).mean()),
  lambda fake: jax.nn.softplus(-_f32(fake)).mean(),
)

# Lim and Ye, "Geometric GAN", 2017; Miyato et al., "Spectral Normalization for GANs", ICLR 2018,
# eq. 16 and 17.
hinge = AdversarialLoss(
  lambda real, fake: (jax.nn.relu(1 - _f32(real)).mean(), jax.nn.relu(1 + _f32(fake)).mean()),
  lambda fake: -_f32(fake).mean(),
)

# Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, with a = 0, b = c = 1 and
# without the factors 1/2.
least_squares = AdversarialLoss(
  lambda real, fake: (jnp.square(_f32(real) - 1).mean(), jnp.square(_f32(fake)).mean()),
  lambda fake: jnp.square(_f32(fake) - 1).mean(),
)


# The same with a = -1, b = c = 1: targets on both sides of 0, for differences of logits
# (`relativistic`).
signed_least_squares = AdversarialLoss(
  lambda real, fake: (jnp.square(_f32(real) - 1).mean(), jnp.square(_f32(fake) + 1).mean()),
  lambda fake: jnp.square(_f32(fake) - 1).mean(),
)


def _on_sigmoid(loss: AdversarialLoss) -> AdversarialLoss:
  score = lambda x: jax.nn.sigmoid(_f32(x))
  return AdversarialLoss(
    lambda real, fake: loss.discriminator(score(real), score(fake)),
    lambda fake: loss.generator(score(fake)),
  )


# EdgeConnect's 'lsgan': its discriminator ends in a sigmoid, and that score is compared.
least_squares_on_sigmoid = _on_sigmoid(least_squares)

# Arjovsky et al., "Wasserstein GAN", ICML 2017; the critic needs `gradient_penalty`.
wasserstein = AdversarialLoss(
  lambda real, fake: (-_f32(real).mean(), _f32(fake).mean()),
  lambda fake: -_f32(fake).mean(),
)

KINDS = {
  'non_saturating': non_saturating,
  'hinge': hinge,
  'least_squares': least_squares,
  'least_squares_on_sigmoid': least_squares_on_sigmoid,
  'wasserstein': wasserstein,
}


class RelativisticLoss(NamedTuple):
  """A kind of GAN that compares real and fake images with each other.

  Attributes:
    discriminator: (real logits, fake logits) -> f32[].
    generator: likewise; no gradient should reach the discriminator.
  """

  discriminator: Callable[[jax.Array, jax.Array], jax.Array]
  generator: Callable[[jax.Array, jax.Array], jax.Array]


def relativistic(kind: AdversarialLoss, *, average: bool) -> RelativisticLoss:
  """The relativistic form of a kind of GAN.

  Jolicoeur-Martineau, "The relativistic discriminator: a key element missing from standard GAN",
  ICLR 2019.

  Args:
    kind: whose terms are taken.
    average: True: each logit is compared with the mean of the other kind's logits (RaGAN, half the
      sum of both terms). False: with its own counterpart, logits of one shape.
  """
  if not average:
    return RelativisticLoss(
      lambda real, fake: kind.generator(_f32(real) - _f32(fake)),
      lambda real, fake: kind.generator(_f32(fake) - _f32(real)),
    )

  def prefer(good, bad):
    good, bad = _f32(good), _f32(bad)
    return sum(kind.discriminator(good - bad.mean(), bad - good.mean())) / 2

  return RelativisticLoss(prefer, lambda real, fake: prefer(fake, real))


def binary_cross_entropy(
  logits: jax.Array, target: jax.Array | float, *, limit: float | None = None
) -> jax.Array:
  """Mean of the binary cross-entropy of sigmoid(logits) with `target`; f32[].

  Args:
    logits: of any shape.
    target: in [0,1], of the same shape or a number.
    limit: of each element's value; PyTorch's BCELoss clamps the logarithm at -100, so 100. None: no
      limit.
  """
  import optax  # here, so that running a system does not load the libraries of training

  target = jnp.broadcast_to(jnp.asarray(target, jnp.float32), logits.shape)
  values = optax.sigmoid_binary_cross_entropy(_f32(logits), target)
  return (values if limit is None else jnp.minimum(values, limit)).mean()


def _input_gradient(critic: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
  """d critic / d x of every sample, f32[B,...]; samples must not influence each other."""
  return _f32(jax.grad(lambda x: _f32(critic(x)).sum())(_f32(x)))


def gradient_penalty(
  critic: Callable[[jax.Array], jax.Array],
  real: jax.Array,
  fake: jax.Array,
  rng: jax.Array | None = None,
  *,
  alpha: jax.Array | None = None,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Two-sided gradient penalty of WGAN-GP: mean over the batch of (slope - 1)^2.

  Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, eq. 3, without its weight
  (10). The slope is the 2-norm of the critic's gradient at real + alpha * (fake - real). Where a
  gradient is exactly zero, the slope and its derivative are 0, so that nothing becomes NaN. The
  penalty of an image whose `mask` has no hole is 0, because no change of the critic could reduce
  it.

  Args:
    critic: f32[B,H,W,C] -> outputs of any shape [B,...], summed for each sample; it must be free of
      batch statistics and compute in float32.
    real: [B,H,W,C].
    fake: [B,H,W,C]; stop its gradient where only the critic is trained.
    rng: key to draw alpha, one for each sample, uniform in [0, 1).
    alpha: [B] or [B,1,...] instead of drawing it.
    mask: [B,H,W,1], 1 = hole: only the gradient inside counts (Yu et al., CVPR 2018:
      slope = sqrt(sum(gradient^2 * mask))). None: everywhere.

  Returns:
    The penalty f32[] and the slopes f32[B].

  Raises:
    ValueError: neither or both of rng and alpha.
  """
  if (rng is None) == (alpha is None):
    raise ValueError('gradient_penalty takes either rng, to draw alpha, or alpha: give one of them')
  real, fake = _f32(real), _f32(fake)
  batch = real.shape[0]
  if alpha is None:
    alpha = jax.random.uniform(rng, (batch,))
  alpha = _f32(alpha).reshape(batch, *[1] * (real.ndim - 1))
  squares = jnp.square(_input_gradient(critic, real + alpha * (fake - real)))
  counts = jnp.ones(batch)
  if mask is not None:
    squares = squares * _f32(mask)
    counts = _f32((mask > 0).any((1, 2, 3)))
  squared = squares.reshape(batch, -1).sum(-1)
  # sqrt has an infinite derivative at 0, and 0 * inf is NaN: both branches must be harmless.
  positive = squared > 0
  slopes = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
  return (jnp.square(slopes - 1) * counts).mean(), slopes


def r1_penalty(critic: Callable[[jax.Array], jax.Array], real: jax.Array) -> jax.Array:
  """Mean over the batch of the squared 2-norm of the critic's gradient at real images.

  Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018, eq. 9,
  without its weight gamma / 2.

  Args:
    critic: as in `gradient_penalty`.
    real: [B,H,W,C].
  """
  squares = jnp.square(_input_gradient(critic, real))
  return squares.reshape(real.shape[0], -1).sum(-1).mean()


def feature_matching(fake: Sequence[jax.Array], real: Sequence[jax.Array]) -> jax.Array:
  """Sum over the discriminator's layers of the mean absolute difference of their features.

  Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
  CVPR 2018, eq. 4. EdgeConnect sums all five layers, logits included. No gradient flows into
  `real`.

  Args:
    fake: features of each layer, [B,h,w,c].
    real: the same of the real images.
  """
  pairs = zip(fake, real, strict=True)
  return sum(absolute_difference(f, jax.lax.stop_gradient(r)).mean() for f, r in pairs)


def soft_mask(mask: jax.Array, size: int = 71, sigma: float = 10.0) -> jax.Array:
  """The mask blurred by a Gaussian, with zeros beyond the border (so it fades there, as published).

  Args:
    mask: [B,H,W,1], 1 = hole.
    size: of the kernel, odd; it sums to 1.
    sigma: of the Gaussian, in pixels.

  Returns:
    f32[B,H,W,1].
  """
  offset = np.arange(size) - size // 2
  kernel = np.exp(-(offset**2) / (2 * sigma**2))
  kernel = jnp.asarray(kernel / kernel.sum(), jnp.float32)
  x, pad = _f32(mask), size // 2
  for shape, padding in (((size, 1), ((pad, pad), (0, 0))), ((1, size), ((0, 0), (pad, pad)))):
    x = jax.lax.conv_general_dilated(
      x,
      kernel.reshape(*shape, 1, 1),
      (1, 1),
      padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision='highest',
    )
  return x


SMVariant = Literal['paper', 'released']


def _at_mask_size(logits: jax.Array, mask: jax.Array) -> jax.Array:
  return arrays.resize_bilinear(_f32(logits), *mask.shape[1:3], align_corners=True)


def _check_variant(variant: str) -> None:
  if variant not in ('paper', 'released'):
    raise ValueError(f"SM-PatchGAN variant {variant!r} must be 'paper' or 'released'")


def sm_gan_discriminator(
  real: jax.Array,
  fake: jax.Array,
  mask: jax.Array,
  *,
  variant: SMVariant = 'paper',
  size: int = 71,
  sigma: float = 10.0,
) -> tuple[jax.Array, jax.Array]:
  """SM-PatchGAN: the discriminator predicts the blurred hole of the completed image.

  Zeng et al., "Aggregated Contextual Transformations for High-Resolution Image Inpainting", TVCG
  2022. Outputs are resized to the mask (bilinear, aligned corners) and compared by
  mean squares over every pixel: 'paper' wants 1 of real images and 1 - soft_mask of completed ones.
  'released' is the authors' code, whose labels are reversed: 0 and soft_mask.

  Args:
    real: outputs for real images, [B,h,w,1].
    fake: outputs for completed images (known pixels pasted back), [B,h,w,1].
    mask: [B,H,W,1], 1 = hole.
    variant: of the labels.
    size: of `soft_mask`.
    sigma: of `soft_mask`.

  Returns:
    The real and the fake term, f32[] each.

  Raises:
    ValueError: unknown variant.
  """
  _check_variant(variant)
  real, fake = _at_mask_size(real, mask), _at_mask_size(fake, mask)
  soft = soft_mask(mask, size, sigma)
  real_label, fake_label = (1.0, 1 - soft) if variant == 'paper' else (0.0, soft)
  return jnp.square(real - real_label).mean(), jnp.square(fake - fake_label).mean()


def sm_gan_generator(
  fake: jax.Array, mask: jax.Array, *, variant: SMVariant = 'paper'
) -> jax.Array:
  """The generator's side of `sm_gan_discriminator`; arguments as there.

  'paper': mean over the hole's pixels of (fake - 1)^2, 0 without any. 'released': mean over all
  pixels, since the code multiplies by the mask after the mean is taken; with its labels this
  rewards completions that are recognised as such.

  Raises:
    ValueError: unknown variant.
  """
  _check_variant(variant)
  squares = jnp.square(_at_mask_size(fake, mask) - 1)
  if variant == 'released':
    return squares.mean()
  mask = _f32(mask)
  return (squares * mask).sum() / jnp.maximum(mask.sum(), 1.0)
