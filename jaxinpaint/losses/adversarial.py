"""Adversarial losses on logits, and gradient penalties. Everything is computed in float32.

A kind is a pair of functions: the discriminator's loss of its scores of real and fake images, and
the generator's of its fakes. Scores are patch maps [B, h, w, 1] or vectors; means run over all of
their entries.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.losses.reconstruction import absolute

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Adversarial:
  """One kind of adversarial game.

  Attributes:
    real: scores of real images -> f32[], the discriminator's first term.
    fake: scores of generated images -> f32[], its second term.
    generator: scores of generated images -> f32[], the generator's loss.
    discriminator_scale: factor of the sum of the first two.
  """

  real: Callable[[Array], Array]
  fake: Callable[[Array], Array]
  generator: Callable[[Array], Array]
  discriminator_scale: float = 1.0

  def discriminator(self, real: Array, fake: Array) -> Array:
    """f32[], the discriminator's loss of logits [B, ...]."""
    return self.discriminator_scale * (self.real(_f32(real)) + self.fake(_f32(fake)))


def _f32(x: Array) -> Array:
  return x.astype(jnp.float32)


def _softplus(x: Array) -> Array:
  return jax.nn.softplus(_f32(x)).mean()


# Goodfellow et al. (NeurIPS 2014), the generator's non-saturating form. BCE of sigmoid(x) with
# label 1 is softplus(-x), with label 0 softplus(x): the same numbers, finite for every logit. The
# discriminator halves its sum, as EdgeConnect, MISF and their followers do.
non_saturating = Adversarial(
  real=lambda x: _softplus(-_f32(x)),
  fake=_softplus,
  generator=lambda x: _softplus(-_f32(x)),
  discriminator_scale=0.5,
)

# The same without the half: AOT-GAN's alternative, StyleGAN2's logistic loss.
logistic = dataclasses.replace(non_saturating, discriminator_scale=1.0)

# Lim & Ye (2017), Miyato et al. (ICLR 2018).
hinge = Adversarial(
  real=lambda x: jax.nn.relu(1 - _f32(x)).mean(),
  fake=lambda x: jax.nn.relu(1 + _f32(x)).mean(),
  generator=lambda x: -_f32(x).mean(),
  discriminator_scale=0.5,
)

# Mao et al. (ICCV 2017) on raw scores.
least_squares = Adversarial(
  real=lambda x: jnp.square(_f32(x) - 1).mean(),
  fake=lambda x: jnp.square(_f32(x)).mean(),
  generator=lambda x: jnp.square(_f32(x) - 1).mean(),
  discriminator_scale=0.5,
)

# EdgeConnect's 'lsgan': the same on sigmoid(logits), its discriminator keeping the sigmoid.
least_squares_sigmoid = Adversarial(
  real=lambda x: jnp.square(jax.nn.sigmoid(_f32(x)) - 1).mean(),
  fake=lambda x: jnp.square(jax.nn.sigmoid(_f32(x))).mean(),
  generator=lambda x: jnp.square(jax.nn.sigmoid(_f32(x)) - 1).mean(),
  discriminator_scale=0.5,
)

# Arjovsky et al. (ICML 2017); the critic's Lipschitz bound is `gradient_penalty`'s business.
wasserstein = Adversarial(
  real=lambda x: -_f32(x).mean(), fake=lambda x: _f32(x).mean(), generator=lambda x: -_f32(x).mean()
)

KINDS = {
  'non_saturating': non_saturating,
  'logistic': logistic,
  'hinge': hinge,
  'least_squares': least_squares,
  'least_squares_sigmoid': least_squares_sigmoid,
  'wasserstein': wasserstein,
}


def kind(name: str) -> Adversarial:
  """The adversarial game of that name; ValueError lists the names there are."""
  if name not in KINDS:
    raise ValueError(f'unknown adversarial kind {name!r}; there are: {", ".join(KINDS)}')
  return KINDS[name]


def _safe_norm(squares: Array) -> Array:
  """sqrt with gradient 0 at 0, where the plain one has an infinite gradient (and then NaN)."""
  positive = squares > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def gradient_penalty(
  critic: Callable[[Array], Array],
  real: Array,
  fake: Array,
  alpha: Array,
  mask: Array | None = None,
) -> tuple[Array, Array]:
  """WGAN-GP's penalty, mean over samples of (|gradient| - 1)^2 (Gulrajani et al., NeurIPS 2017).

  The gradient is the critic's with respect to x = real + alpha * (fake - real). It is computed in
  float32 whatever the critic's dtype, and its derivative is finite where it vanishes.

  Args:
    critic: images f32[B, H, W, C] -> scores [B, ...]; samples must not mix (no batch norm).
    real: [B, H, W, C].
    fake: [B, H, W, C].
    alpha: [B], uniform in [0, 1]: `jax.random.uniform(rng, (B,))`.
    mask: [B, H, W, 1] (1 = hole): the norm runs over the hole alone, each squared entry weighted
      by the mask (Yu et al., CVPR 2018); None: over the whole image.

  Returns:
    (f32[] penalty, f32[B] norms); multiply the penalty by 10 as the papers do.
  """
  alpha = _f32(alpha).reshape((-1,) + (1,) * (real.ndim - 1))
  x = _f32(real) + alpha * (_f32(fake) - _f32(real))
  gradient = _f32(jax.grad(lambda v: _f32(critic(v)).sum())(x))
  squares = jnp.square(gradient)
  if mask is not None:
    squares = squares * _f32(mask)
  norms = _safe_norm(squares.sum(axis=tuple(range(1, real.ndim))))
  return jnp.square(norms - 1).mean(), norms


def r1_penalty(critic: Callable[[Array], Array], real: Array) -> Array:
  """Mean over samples of the squared norm of the critic's gradient at real images.

  R1 of Mescheder et al. (ICML 2018), without its factor gamma / 2. f32[].
  """
  gradient = _f32(jax.grad(lambda v: _f32(critic(v)).sum())(_f32(real)))
  return jnp.square(gradient).sum(axis=tuple(range(1, real.ndim))).mean()


def feature_matching(fake: list[Array], real: list[Array]) -> Array:
  """Sum over layers of the mean absolute difference of discriminator features (Wang et al., 2018).

  Args:
    fake: features [B, h, w, c] of the generated images.
    real: of the real ones; no gradient flows into them.

  Returns:
    f32[], unweighted (EdgeConnect multiplies by 10 and counts the raw logit as the fifth layer).
  """
  terms = [
    absolute(_f32(f) - jax.lax.stop_gradient(_f32(r))).mean()
    for f, r in zip(fake, real, strict=True)
  ]
  return jnp.stack(terms).sum()


def gaussian_kernel(size: int, sigma: float) -> Array:
  """f32[size], a normalised sampled gaussian."""
  x = jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2
  weights = jnp.exp(-jnp.square(x) / (2 * sigma**2))
  return weights / weights.sum()


def soft_mask(mask: Array, size: int = 71, sigma: float = 10.0) -> Array:
  """The mask blurred with zero padding, so that it darkens at the border (AOT-GAN's soft labels).

  Args:
    mask: [B, H, W, 1].
    size: of the gaussian window; odd.
    sigma: in pixels.

  Returns:
    f32[B, H, W, 1].
  """
  weights = gaussian_kernel(size, sigma)
  rows, columns = (_band(n, weights) for n in mask.shape[1:3])
  x = jnp.einsum('oh,bhwc->bowc', rows, _f32(mask), precision='highest')
  return jnp.einsum('ow,bhwc->bhoc', columns, x, precision='highest')


def _band(n: int, weights: Array) -> Array:
  """f32[n, n] with weights[j - i + reach] at (i, j): convolution with zero padding as a matrix."""
  reach = weights.shape[0] // 2
  offset = jnp.arange(n)[None, :] - jnp.arange(n)[:, None] + reach
  inside = (offset >= 0) & (offset < weights.shape[0])
  return jnp.where(inside, weights[jnp.clip(offset, 0, weights.shape[0] - 1)], 0.0)


SMGAN_VARIANTS = ('paper', 'released')


def smgan_discriminator(
  real: Array, fake: Array, mask: Array, variant: str = 'paper', size: int = 71, sigma: float = 10.0
) -> Array:
  """Loss of AOT-GAN's soft mask-guided discriminator (Zeng et al., TVCG 2022, section 3.2).

  Scores are resized to the mask (bilinear, aligned corners) and compared with per-pixel labels:
  real 1, composited image 1 outside the hole falling to 0 inside it by the blurred mask. The
  released code has all labels reversed ('released': real 0, composite the blurred mask).

  Args:
    real: [B, h, w, 1] scores of the real images.
    fake: [B, h, w, 1] scores of the composited images.
    mask: [B, H, W, 1], 1 = hole.
    variant: 'paper' or 'released'.
    size: of the blur's window.
    sigma: of the blur, in pixels.

  Returns:
    f32[], the sum of two mean squared errors.
  """
  blurred = jax.lax.stop_gradient(soft_mask(mask, size, sigma))
  real, fake = (
    arrays.resize_bilinear(_f32(s), *mask.shape[1:3], align_corners=True) for s in (real, fake)
  )
  if _variant(variant) == 'released':
    return jnp.square(fake - blurred).mean() + jnp.square(real).mean()
  return jnp.square(fake - (1 - blurred)).mean() + jnp.square(real - 1).mean()


def smgan_generator(fake: Array, mask: Array, variant: str = 'paper') -> Array:
  """The generator's side of `smgan_discriminator`: scores of the composite towards 1.

  'paper' averages over the hole alone. 'released' averages over the whole map: its weighting by
  mask / mean(mask) is applied to a mean already taken and cancels. f32[].
  """
  fake = arrays.resize_bilinear(_f32(fake), *mask.shape[1:3], align_corners=True)
  squares = jnp.square(fake - 1)
  if _variant(variant) == 'released':
    return squares.mean()
  m = _f32(mask)
  return (squares * m).sum() / jnp.maximum(m.sum(), 1.0)


def _variant(name: str) -> str:
  if name not in SMGAN_VARIANTS:
    raise ValueError(f'unknown smgan variant {name!r}; there are: {", ".join(SMGAN_VARIANTS)}')
  return name
