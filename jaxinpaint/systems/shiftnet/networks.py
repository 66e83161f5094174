"""Shift-Net's networks: a U-Net whose decoder gets encoder features of known places in the hole.

Yan, Li, Li, Zuo, Shan: "Shift-Net: Image Inpainting via Deep Feature Rearrangement", ECCV 2018,
https://arxiv.org/abs/1801.09392. At an eighth of the resolution the decoder has a first idea of the
hole. Each of its features there chooses the known encoder feature that is most like it, and the
next layer sees all three: decoder, encoder and shifted features (layers/shift.py). A patch
discriminator judges the hole.

`variant='face'` is the code's network for faces. The hole also chooses among features of the
mirrored picture, as a face has two eyes.

Differs from the paper:
  - the input's fourth channel, 1 at known pixels, is the code's; without: `mask_channel=False`.
Differs from the reference code (Zhaoyi-Yan/Shift-Net_pytorch), in the numbers of no published file:
  - samples of a batch may have holes of different sizes, and faces come in batches;
  - an encoder feature of length 0 is like nothing; in the code its cosine is NaN, which wins;
  - with a hole everywhere nothing is shifted; the code stops;
  - in the face variant, each place in the hole has the one most similar feature of the picture and
    the mirrored picture, whose own hole is left out. In the code the places of the hole's mirror
    image choose among the latter; the n-th place of the hole, row by row, compares its best cosine
    with that of the n-th of those places, and gets the sum of all features, each once, that any
    place chose on the side that wins. The hole's mirror image is that of the features' hole, not
    the hole of the mirrored picture's features: where a hole ends within a feature, they differ.
    The picture's first place is never filled. Published weights were trained with this, and
    `mirror='released'` does it;
  - running variances use the biased estimate (PyTorch: n / (n - 1) times that);
  - the code's switchable norm, its spectral norm in the generator and its DenseNet discriminator
    are left out;
  - `levels` < 8 leaves out the deepest levels, for pictures smaller than 256 pixels (ours).
As in the code: a feature counts as hole if the first pixel of its 8 x 8 is; where sides are no
multiples of 256, a level that comes back one pixel short is resized.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, ConvTranspose, resize_bilinear
from jaxinpaint.layers.norm import InstanceNorm, batch_norm
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.layers.shift import nearest, shift

SCALES = (1, 2, 4, 8, 8, 8, 8, 8)  # times `width`: channels of the encoder's levels
SHIFT_LEVEL = 2  # whose features, an eighth of the image's size, are shifted
MULTIPLE = 8  # features of whole cells of the mask
SLOPE = 0.2

Norm = Literal['instance', 'batch']
Variant = Literal['unet', 'face']
Mirror = Literal['best', 'released']


def scale_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
  """N(1, 0.02): how the released code initialises the scales of norms."""
  return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def feature_hole(mask: jax.Array) -> jax.Array:
  """f32[B,H,W,1] -> f32[B,H/8,W/8,1] in {0, 1}: the mask of the shifted features."""
  height, width = (n // MULTIPLE for n in mask.shape[1:3])
  return (arrays.resize_nearest(mask, height, width) >= 1).astype(jnp.float32)


class Generator(nn.Module):
  """The U-Net with its shift layer.

  Attributes:
    width: channels of the first level.
    levels: how often the encoder halves the resolution; sides are at least 2**levels.
    variant: 'unet', or 'face', which also looks at the mirrored picture.
    norm: 'instance' or 'batch'.
    mask_channel: whether the network sees the mask besides the picture.
    mirror: of the face variant: 'best', or 'released', see the module's text.
    dtype: of the computation; parameters, statistics and outputs are float32.
  """

  width: int = 64
  levels: int = 8
  variant: Variant = 'unet'
  norm: Norm = 'instance'
  mask_channel: bool = True
  mirror: Mirror = 'best'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    truth: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> dict[str, jax.Array]:
    """Completes pictures.

    Args:
      image: f32[B,H,W,3] in [0, 1]; pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      truth: f32[B,H,W,3], the whole picture, if its features are wanted.
      train: use batch statistics; needs mutable=['batch_stats'].

    Returns:
      'out' f32[B,H,W,3] in [0, 1]; at an eighth of the size 'former' and 'latter'
      f32[B,h,w,4 width], of the decoder and of the encoder; 'shifted', features of the same shape,
      and 'index' i32[B,h,w] as of `layers.shift` (not with mirror='released'); with `truth` also
      'target', the 'latter' of the true picture, without gradient.

    Raises:
      ValueError: a side is no multiple of 8 or is below 2**levels.
    """
    arrays.check_multiple(*image.shape[1:3], MULTIPLE, 2**self.levels)
    mask = mask.astype(jnp.float32)
    encoder = self._encoder(train)
    decoder = self._decoder(train)

    def see(image: jax.Array, mask: jax.Array, hole: jax.Array) -> jax.Array:
      x = jnp.where(hole > 0, 0.0, 2 * image - 1)
      return jnp.concatenate([x, 1 - mask], -1) if self.mask_channel else x

    def deep(x: jax.Array) -> jax.Array:
      """The encoder's features that are shifted."""
      for layer in encoder[: SHIFT_LEVEL + 1]:
        x = layer(x)
      return nn.relu(x.astype(jnp.float32))

    found = {}
    if truth is not None:
      found['target'] = jax.lax.stop_gradient(deep(see(truth, mask, jnp.zeros_like(mask))))
    mirrored = None
    if self.variant == 'face':
      turned = see(image[:, :, ::-1], mask[:, :, ::-1], mask[:, :, ::-1])
      mirrored = jax.lax.stop_gradient(deep(turned))

    x, skips = see(image, mask, mask), []
    for layer in encoder:
      x = layer(x)
      skips.append(x)
    for level in reversed(range(self.levels)):
      if level == SHIFT_LEVEL:
        found['former'] = nn.relu(x.astype(jnp.float32))
        found['latter'] = nn.relu(skips[level].astype(jnp.float32))
        hole = feature_hole(mask)
        found |= self._shift(found['former'], found['latter'], hole, mirrored, mask)
        parts = [found['former'], found['latter'], found['shifted']]
      else:
        parts = [x] if level == self.levels - 1 else [x, skips[level]]
      x = decoder[level](jnp.concatenate(parts, -1))
      if level and x.shape[1:3] != skips[level - 1].shape[1:3]:
        x = resize_bilinear(x, *skips[level - 1].shape[1:3])
    return {'out': (jnp.tanh(x.astype(jnp.float32)) + 1) / 2, **found}

  def _encoder(self, train: bool) -> list[Callable[[jax.Array], jax.Array]]:
    """A function for each level."""

    def layer(i):
      six = self.variant == 'face' and i == SHIFT_LEVEL
      conv = Conv(
        self.width * SCALES[i],
        6 if six else 4,
        stride=2,
        padding=2 if six else 1,
        dtype=self.dtype,
        name=f'down{i}',
      )
      norm = self._norm(f'down_norm{i}', train) if 0 < i < self.levels - 1 else lambda x: x
      return lambda x: norm(conv(nn.leaky_relu(x, SLOPE) if i else x))

    return [layer(i) for i in range(self.levels)]

  def _decoder(self, train: bool) -> list[Callable[[jax.Array], jax.Array]]:
    """A function for each level; level i doubles the resolution to that of the skip i - 1."""

    def layer(i):
      features = self.width * SCALES[i - 1] if i else 3
      conv = ConvTranspose(features, 4, stride=2, padding=1, dtype=self.dtype, name=f'up{i}')
      norm = self._norm(f'up_norm{i}', train) if i else lambda x: x
      return lambda x: norm(conv(nn.relu(x)))

    return [layer(i) for i in range(self.levels)]

  def _norm(self, name: str, train: bool) -> Callable[[jax.Array], jax.Array]:
    if self.norm == 'batch':
      return batch_norm(name, train, self.dtype, scale_init)
    return InstanceNorm(scale_init, self.dtype, name=name)

  def _shift(
    self,
    former: jax.Array,
    latter: jax.Array,
    hole: jax.Array,
    mirrored: jax.Array | None,
    mask: jax.Array,
  ) -> dict[str, jax.Array]:
    if mirrored is None:
      others = None
    elif self.mirror == 'best':
      others = (mirrored, feature_hole(mask[:, :, ::-1]))
    else:
      return {'shifted': released_mirror_shift(former, latter, mirrored, hole)}
    shifted, index = shift(former, latter, hole, others)
    return {'shifted': shifted, 'index': index}


def released_mirror_shift(
  former: jax.Array, latter: jax.Array, mirrored: jax.Array, hole: jax.Array
) -> jax.Array:
  """What the code's shift layer for faces gives; see the module's text.

  Args:
    former: f32[B,h,w,C], of the decoder.
    latter: f32[B,h,w,C], of the encoder.
    mirrored: f32[B,h,w,C], of the encoder, for the mirrored picture.
    hole: f32[B,h,w,1], 1 = hole; turned over, it also stands for that of `mirrored`.

  Returns:
    f32[B,h,w,C], 0 outside the hole.
  """
  b, h, w, c = former.shape
  flat = lambda x: x.reshape(b, h * w, -1)
  former, latter, mirrored = map(flat, (former, latter, mirrored))
  wanted, wanted_mirrored = (flat(x)[..., 0] >= 1 for x in (hole, hole[:, :, ::-1]))
  own, of_own = nearest(former, latter, ~wanted, wanted)
  other, of_other = nearest(former, mirrored, ~wanted_mirrored, wanted_mirrored)
  # The n-th place of the hole looks at the n-th of the mirrored one.
  order = jnp.argsort(~wanted_mirrored, axis=1, stable=True)
  partner = jnp.take_along_axis(order, jnp.cumsum(wanted, 1) - 1, 1)
  first = of_own >= jnp.take_along_axis(of_other, partner, 1)
  filled = wanted & (jnp.arange(h * w) > 0) & ~wanted.all(1, keepdims=True)

  def total(index: jax.Array, by: jax.Array, values: jax.Array) -> jax.Array:
    """[B,1,C], the sum of all features that any of the places `by` chose, each once."""
    rows = jnp.arange(b)[:, None]
    chosen = jnp.zeros((b, h * w + 1)).at[rows, jnp.where(by, index, h * w)].set(1)
    return jnp.einsum('bn,bnc->bc', chosen[:, :-1], values, precision='highest')[:, None]

  of_picture, of_mirror = total(own, wanted, latter), total(other, wanted_mirrored, mirrored)
  shifted = jnp.where(first[..., None], of_picture, of_mirror) * filled[..., None]
  return shifted.reshape(b, h, w, c)


class Discriminator(PatchDiscriminator):
  """A patch discriminator with norms and biases, of pictures or their holes in [0, 1].

  Fields as there; without `spectral` the code's `use_spectral_norm_D=0`.
  """

  norm: Norm = 'instance'
  use_bias: bool = True
  scale_init: Any = scale_init

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """f32[B,H,W,3] -> logits f32[B,h,w,1]; `train` as of `PatchDiscriminator`."""
    return super().__call__(2 * x - 1, train=train)[0]
