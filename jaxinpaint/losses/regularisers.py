"""Terms that look at the prediction alone, or at the generator that makes it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.losses.reconstruction import absolute_difference


def total_variation(image: jax.Array, hole: jax.Array | None = None) -> jax.Array:
  """Anisotropic total variation: mean |x - right neighbour| + mean |x - neighbour below|.

  Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018, eq. 6.

  Args:
    image: [B,H,W,C], the composited picture.
    hole: None: each mean runs over all pairs of neighbours in the batch, as published code does.
      f32[B,H,W,1], 1 = hole: pairs count only where both pixels lie in the hole dilated by one
      pixel (3x3), the paper's region P; the sum over those pairs is divided by the number of
      elements of `image` (N_comp).

  >>> steps = jnp.array([[0.0, 1.0], [0.0, 1.0]])
  >>> float(total_variation(steps[None, :, :, None]))
  1.0
  """
  across = absolute_difference(image[:, :, 1:], image[:, :, :-1])
  down = absolute_difference(image[:, 1:], image[:, :-1])
  if hole is None:
    return across.mean() + down.mean()
  inside = jax.lax.reduce_window(
    hole.astype(jnp.float32), -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME'
  )
  across = across * inside[:, :, 1:] * inside[:, :, :-1]
  down = down * inside[:, 1:] * inside[:, :-1]
  return (across.sum() + down.sum()) / image.size


def corner_variation(image: jax.Array, weight: jax.Array) -> jax.Array:
  """Mean over all elements of |pixel above + pixel to the left - 2 x pixel|, times `weight`.

  The total variation of DFNet's code (Hong et al., "Deep Fusion Network for Image Completion", ACM
  Multimedia 2019): both differences are summed before the magnitude is taken, so an edge that
  rises to one side and falls as much to the other costs nothing. Pixels outside the picture are 0.

  Args:
    image: [B,H,W,C].
    weight: f32[B,H,W,1], e.g. the mask of known pixels.
  """
  x = jnp.pad(image.astype(jnp.float32), ((0, 0), (1, 0), (1, 0), (0, 0)))
  around = x[:, :-1, 1:] + x[:, 1:, :-1]
  return (absolute_difference(around, 2 * x[:, 1:, 1:]) * weight.astype(jnp.float32)).mean()


def squared_total_variation(image: jax.Array) -> jax.Array:
  """Twice the sum of mean (x - right neighbour)^2 and mean (x - neighbour below)^2; f32[].

  The form of much PyTorch code for Johnson et al., ECCV 2016, section 3.2. Each mean runs over all
  pairs of neighbours in the batch and all channels.

  Args:
    image: [B,H,W,C].
  """
  x = image.astype(jnp.float32)
  across, down = jnp.square(x[:, :, 1:] - x[:, :, :-1]), jnp.square(x[:, 1:] - x[:, :-1])
  return 2 * (across.mean() + down.mean())


def path_lengths(draw: Callable[[jax.Array], jax.Array], w: jax.Array, rng: jax.Array) -> jax.Array:
  """How fast images change with their latents, in a random direction of images; f32[B].

  Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, eq. 4: the
  2-norm of the transposed Jacobian times normal noise, which is divided by sqrt(H * W); with
  several latents of an image, the root of the mean of their squares.

  Args:
    draw: w -> images [B,H,W,C]; samples must not influence each other.
    w: f32[B,n,D].
    rng: key of the noise.
  """

  def against_noise(w):
    images = draw(w).astype(jnp.float32)
    height, width = images.shape[1:3]
    noise = arrays.drawn(jax.random.normal, rng, images.shape)
    return (images * noise).sum() / (height * width) ** 0.5

  squares = jnp.square(jax.grad(against_noise)(w)).sum(-1).mean(-1)
  # The root's derivative at 0 has no bound.
  positive = squares > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
