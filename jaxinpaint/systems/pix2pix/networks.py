"""pix2pix: a U-Net that translates pictures, used to fill holes, and its patch critic.

Isola, Zhu, Zhou, Efros: "Image-to-Image Translation with Conditional Adversarial Networks", CVPR
2017, https://arxiv.org/abs/1611.07004. The generator halves the image until one pixel is left and
doubles it back; each level also sees the features of the same size on the way down. The critic
judges patches of 70 x 70 pixels of (damaged image, completed image). Nothing here knows a mask but
the colour that hides the hole.

The networks are those of affinelayer/pix2pix-tensorflow, which a survey (seed 002) measured, and
the default throughout.

The innermost level has a batch norm, too, as in the paper's experiments (its errata say so). For
one image of 256 x 256 this norm's result is its own bias, so that the level carries nothing of it.

Differs from the paper:
  - every convolution has a bias, those before a batch norm, too, where it changes nothing.
Differs from the reference code:
  - images are in [0, 1] outside the modules; the critic returns logits, the sigmoid is part of the
    loss;
  - the code translates one picture to another; here the first of them is the image with its hole
    painted in one colour (`fill`, mid-grey), as the survey does not state its own;
  - batch norm takes the statistics of each image. The code takes those of its batch, also when it
    completes images, but trains and completes with batches of one image, where both are the same.
    With more images in training (`norm_over_batch=True`) the network learns to use statistics, and
    in the innermost level features, that an image alone does not have;
  - moving averages of statistics, which the code stores and never uses, are not kept;
  - `levels` other than 8 make networks for smaller images, which are nobody's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, ConvTranspose
from jaxinpaint.layers.norm import CurrentBatchNorm, normal_scale_init

DROPPED = 3  # levels with dropout, the innermost ones


def keep(rng: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
  """f32 of this shape: 0 with probability `rate`, else 1."""
  kept = lambda key, shape: jax.random.bernoulli(key, 1 - rate, shape)
  return arrays.drawn(kept, rng, shape).astype(jnp.float32)


def _norm(name: str, dtype: Any) -> CurrentBatchNorm:
  return CurrentBatchNorm(scale_init=normal_scale_init, dtype=dtype, name=name)


class Generator(nn.Module):
  """The U-Net.

  Attributes:
    width: channels of the first convolution, 64 as published; the others have 2, 4, 8, 8, ... times
      as many.
    levels: halvings, 8 as published; sides of images are multiples of 2^levels.
    fill: the grey that hides the hole, in [0, 1].
    dropout: probability with which a value of the three innermost levels is dropped.
    norm_over_batch: normalise by the statistics of the whole batch in training.
    dtype: of the computation; parameters, statistics and the output are float32.
  """

  width: int = 64
  levels: int = 8
  fill: float = 0.5
  dropout: float = 0.5
  norm_over_batch: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    rng: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 2^levels. Pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      rng: key of the dropout, which is the network's noise; None: nothing is dropped.
      train: only matters with `norm_over_batch`.

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; 'seen': f32[B,H,W,3] in [0,1], the
      image with the hole painted over, which the critic sees beside it.

    Raises:
      ValueError: the network does not accept this image size.
    """
    arrays.check_multiple(*image.shape[1:3], 2**self.levels)
    settings = dict(stride=2, padding=1, dtype=self.dtype)
    channels = lambda i: self.width * min(2 ** (i - 1), 8)
    over_batch = train and self.norm_over_batch
    normed = lambda x, name: _norm(name, self.dtype)(x, over_batch=over_batch)
    seen = image * (1 - mask) + self.fill * mask
    x = Conv(channels(1), 4, name='encoder1', **settings)((2 * seen - 1).astype(self.dtype))
    skips = [x]
    for i in range(2, self.levels + 1):
      x = Conv(channels(i), 4, name=f'encoder{i}', **settings)(nn.leaky_relu(x, 0.2))
      x = normed(x, f'encoder{i}_bn')
      skips.append(x)
    for i in range(self.levels, 0, -1):
      if i < self.levels:
        x = jnp.concatenate([x, skips[i - 1]], -1)
      out = channels(i - 1) if i > 1 else 3
      x = ConvTranspose(out, 4, name=f'decoder{i}', **settings)(nn.relu(x))
      if i > 1:
        x = normed(x, f'decoder{i}_bn')
      if rng is not None and self.dropout and 1 < i and i > self.levels - DROPPED:
        kept = keep(jax.random.fold_in(rng, i), self.dropout, x.shape)
        x = x * (kept / (1 - self.dropout)).astype(x.dtype)
    return {'out': (jnp.tanh(x.astype(jnp.float32)) + 1) / 2, 'seen': seen}


class Discriminator(nn.Module):
  """PatchGAN: judges patches of 70 x 70 pixels of an image beside what the generator saw.

  Attributes:
    width: channels of the first convolution; the others have 2, 4 and 8 times as many.
    norm_over_batch: as in `Generator`.
    dtype: of the computation; parameters, statistics and logits are float32.
  """

  width: int = 64
  norm_over_batch: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, seen: jax.Array, image: jax.Array, *, train: bool = False) -> jax.Array:
    """Images f32[B,H,W,3] in [0,1], what the generator saw first -> logits f32[B,h,w,1].

    256 x 256 pixels give 30 x 30 logits. `train`: as in `Generator`.
    """
    x = (2 * jnp.concatenate([seen, image], -1) - 1).astype(self.dtype)
    for i, (scale, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1)), start=1):
      layer = Conv(
        self.width * scale, 4, stride=stride, padding=1, dtype=self.dtype, name=f'conv{i}'
      )
      x = layer(x)
      if i > 1:
        x = _norm(f'bn{i}', self.dtype)(x, over_batch=train and self.norm_over_batch)
      x = nn.leaky_relu(x, 0.2)
    return Conv(1, 4, padding=1, dtype=self.dtype, name='conv5')(x).astype(jnp.float32)
