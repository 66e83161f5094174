"""CE: the context encoder, which predicts the middle square of an image.

Pathak, Krahenbuhl, Donahue, Darrell, Efros: "Context Encoders: Feature Learning by Inpainting",
CVPR 2016, https://arxiv.org/abs/1604.07379. An encoder shrinks the image, whose middle is missing,
to a bottleneck of a few cells with many channels. A decoder draws the middle square from it, half
as high and as wide as the image. In training a critic of the DCGAN kind judges this square alone.

The networks are those of BoyuanJiang/context_encoder_pytorch, the code that a survey (seed 002)
measured under the name CE. They are the default throughout, since the published weights need them;
the switches are `overlap` and `hide_square`.

Differs from the paper:
  - the square overlaps the known pixels by 4 pixels; the paper says 7 (`overlap=7`);
  - no channel-wise fully connected layer: that one belongs to the paper's network for learning
    features, which is not here; this is its network for inpainting, all convolutions.
Differs from the reference code:
  - images are in [0, 1] outside the modules; the critic returns logits, the sigmoid is part of the
    loss;
  - the code knows no mask. Here the mask's hole is hidden as well as the square that the code
    always hides, so pixels of the hole are never read. `hide_square=False` hides the hole alone,
    for networks that are trained with smaller holes;
  - an image of another size is stretched to the training images' size, and the square back
    (`image_size`). The code runs at 128 x 128 alone. The networks are convolutions and take larger
    images as they are (`image_size=None`), but then several cells of the bottleneck overlap in each
    pixel, where training has one, and the published kind of network draws nothing sensible;
  - running variances use the batch's biased variance; PyTorch's is n / (n - 1) times that;
  - `levels` other than 5 make networks for smaller images, which are nobody's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, ConvTranspose
from jaxinpaint.layers.norm import batch_norm, normal_scale_init

# What hides the hole, red, green, blue. Caffe's mean colour is (123, 117, 104); the code has it in
# another order, and the weights were trained so.
FILL = (117 / 255, 104 / 255, 123 / 255)
KERNEL = 4  # side of all kernels, and of the square of cells that the bottleneck sees at once

Box = tuple[int, int, int, int]  # (top, bottom, left, right), the ends excluded


def least_side(levels: int = 5) -> int:
  """The shortest side that the encoder takes: 128 of the published one."""
  return KERNEL * 2**levels


def square(height: int, width: int) -> Box:
  """Where the predicted square lies in an image: its middle half, in whole pixels."""
  return height // 4, -(-3 * height // 4), width // 4, -(-3 * width // 4)


def check_hole(hole: np.ndarray) -> None:
  """Raises ValueError unless the hole, bool[H,W], lies within the predicted square."""
  top, bottom, left, right = square(*hole.shape)
  inside = np.zeros_like(hole)
  inside[top:bottom, left:right] = True
  if (hole & ~inside).any():
    rows, columns = (np.flatnonzero(hole.any(axis)) for axis in (1, 0))
    raise ValueError(
      'a context encoder fills holes in the middle of the image only: of '
      f'{hole.shape[0]} x {hole.shape[1]} pixels rows {top} to {bottom - 1} and columns {left} to '
      f'{right - 1}. This hole spans rows {rows[0]} to {rows[-1]} and columns {columns[0]} to '
      f"{columns[-1]}: use masks such as 'center:0.25', crop the image around its hole, or take "
      'another system'
    )


class Generator(nn.Module):
  """The encoder, the bottleneck and the decoder.

  Attributes:
    width: channels of the first convolution, 64 as published; the others scale with it.
    bottleneck: channels of the bottleneck, 4000 as published.
    levels: halvings before the bottleneck, 5 as published: it needs images of 128 pixels.
    overlap: pixels by which the predicted square overlaps what is known around the hidden one.
    image_size: images of another size are stretched to this square; None: they are taken as they
      are, with sides that are multiples of 2^levels.
    hide_square: hide the middle square, `overlap` smaller on each side than the predicted one,
      whatever the mask says of it; False: hide the mask's hole alone.
    dtype: of the computation; parameters, statistics and the outputs are float32.
  """

  width: int = 64
  bottleneck: int = 4000
  levels: int = 5
  overlap: int = 4
  image_size: int | None = 128
  hide_square: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Predicts the middle square.

    Args:
      image: f32[B,H,W,3] in [0,1]. Pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole, within the predicted square (`check_hole`).
      train: normalise by the batch's statistics and update the running ones, which needs
        mutable=['batch_stats'].

    Returns:
      'out': f32[B,H,W,3] in [0,1], the known image with the whole predicted square pasted in, also
      over the known pixels of its border, as the code does; and 'square', f32[B,h,w,3] in [0,1],
      the square as the network draws it, half of the (stretched) image's sides.

    Raises:
      ValueError: the network does not accept this image size.
    """
    top, bottom, left, right = square(*image.shape[1:3])
    known = image * (1 - mask) + jnp.asarray(FILL, jnp.float32) * mask
    x = known
    if self.image_size is not None:
      x = _resize(known, self.image_size, self.image_size)
    arrays.check_multiple(*x.shape[1:3], 2**self.levels, least_side(self.levels))
    if self.hide_square:
      x = _hide_middle(x, self.overlap)
    y = self._decode(self._encode(2 * x.astype(self.dtype) - 1, train), train)
    y = (nn.tanh(y.astype(jnp.float32)) + 1) / 2
    pasted = _resize(y, bottom - top, right - left)
    return {'out': known.at[:, top:bottom, left:right].set(pasted), 'square': y}

  def _encode(self, x: jax.Array, train: bool) -> jax.Array:
    """[B,H,W,3] -> [B,H/2^levels-3,W/2^levels-3,bottleneck]."""
    x = nn.leaky_relu(self._conv(self.width, 'conv1')(x), 0.2)
    for i in range(2, self.levels + 1):
      channels = self.width * min(2 ** (i - 2), 8)
      x = nn.leaky_relu(self._norm(f'bn{i}', train)(self._conv(channels, f'conv{i}')(x)), 0.2)
    x = self._conv(self.bottleneck, 'bottleneck', stride=1, padding=0)(x)
    return nn.leaky_relu(self._norm('bottleneck_bn', train)(x), 0.2)

  def _decode(self, x: jax.Array, train: bool) -> jax.Array:
    """[B,h,w,bottleneck] -> [B,2^(levels-1)*(h+3),2^(levels-1)*(w+3),3], before tanh."""
    for i in range(1, self.levels + 1):
      settings = dict(use_bias=False, dtype=self.dtype, name=f'deconv{i}')
      if i == 1:
        settings.update(stride=1, padding=0)
      channels = self.width * min(2 ** (self.levels - i - 1), 8) if i < self.levels else 3
      x = ConvTranspose(channels, KERNEL, **settings)(x)
      if i < self.levels:
        x = nn.relu(self._norm(f'deconv{i}_bn', train)(x))
    return x

  def _conv(self, channels: int, name: str, stride: int = 2, padding: int = 1) -> Conv:
    settings = dict(stride=stride, padding=padding, use_bias=False, dtype=self.dtype)
    return Conv(channels, KERNEL, name=name, **settings)

  def _norm(self, name: str, train: bool) -> nn.BatchNorm:
    return batch_norm(name, train, self.dtype, normal_scale_init)


def _resize(x: jax.Array, height: int, width: int) -> jax.Array:
  """[B,h,w,C] -> [B,height,width,C], bilinear, with antialiasing where it shrinks."""
  if x.shape[1:3] == (height, width):
    return x
  return jax.image.resize(x, (x.shape[0], height, width, x.shape[3]), 'linear')


def _hide_middle(x: jax.Array, overlap: int) -> jax.Array:
  """The fill colour in the middle square, which is `overlap` pixels smaller on each side."""
  low, high = ([n * k // 4 for n in x.shape[1:3]] for k in (1, 3))
  rows, columns = (slice(a + overlap, b - overlap) for a, b in zip(low, high, strict=True))
  return x.at[:, rows, columns].set(jnp.asarray(FILL, x.dtype))


class Discriminator(nn.Module):
  """The critic of the square: strided convolutions as in DCGAN (Radford et al., ICLR 2016).

  Attributes:
    width: channels of the first convolution; the others have 2, 4, 8 times as many.
    levels: halvings before the last convolution, one less than the generator's: 4 as published.
    dtype: of the computation; parameters, statistics and logits are float32.
  """

  width: int = 64
  levels: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Squares f32[B,h,w,3] in [0,1] -> logits f32[B,h',w',1]; 64 x 64 gives one each.

    `train`: as in `Generator`.
    """
    settings = dict(use_bias=False, dtype=self.dtype)
    x = 2 * x.astype(self.dtype) - 1
    for i in range(1, self.levels + 1):
      channels = self.width * min(2 ** (i - 1), 8)
      x = Conv(channels, KERNEL, stride=2, padding=1, name=f'conv{i}', **settings)(x)
      if i > 1:
        x = batch_norm(f'bn{i}', train, self.dtype, normal_scale_init)(x)
      x = nn.leaky_relu(x, 0.2)
    x = Conv(1, KERNEL, name=f'conv{self.levels + 1}', **settings)(x)
    return x.astype(jnp.float32)
