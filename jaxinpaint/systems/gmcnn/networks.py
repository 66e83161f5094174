"""GMCNN: three columns of different reach, side by side, and two critics.

Wang, Tao, Qi, Shen, Jia: "Image Inpainting via Generative Multi-column Convolutional Neural
Networks", NeurIPS 2018, https://arxiv.org/abs/1810.08771. Three encoder-decoders with kernels of 7,
5 and 3 see the same damaged image. Two convolutions merge what they found at full resolution. There
is no second stage and no search for patches when an image is filled.

The default generator is that of the authors' PyTorch code, whose outputs the tests compare with.
The critics are by default the paper's (WGAN-GP); `Critic(spectral_norm=True)` are the code's.

Differs from the paper:
  - the text says that a column decodes by transposed or resized features without saying how; here,
    as in the code, by bilinear or nearest upsampling, chosen for each column and place;
  - the output is clipped to its range, as in the code; the text does not say how it is bounded.
Differs from the reference code:
  - height and width are any multiples of 4 from `min_side` on; the code crops images to such sizes;
  - `dilations` can be smaller than published, so that small images can be filled: a feature map
    must be larger than its reflected border (published: images of 196 pixels).
Peculiarities of the code, all kept: upsampling is not followed by an activation; two of the three
columns use bilinear upsampling once, with aligned corners; pixels out of range have no gradient.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers import conv
from jaxinpaint.layers.conv import Conv
from jaxinpaint.layers.spectral_norm import SNConv, SNDense

MULTIPLE = 4  # sides of the image: the columns' deepest features have a quarter of the resolution
KERNELS = (7, 5, 3)  # one column each
DILATIONS = (2, 4, 8, 16)
# Convolutions 0 to 5 of a column: number, channels in units of `width`, stride.
_ENCODER = ((0, 1, 1), (1, 2, 2), (2, 2, 1), (3, 4, 2), (4, 4, 1), (5, 4, 1))


def min_side(dilations: Sequence[int] = DILATIONS) -> int:
  """The shortest side of an image: a quarter of it must exceed the widest reflected border."""
  return MULTIPLE * (KERNELS[0] // 2 * max(dilations) + 1)


class _Column(nn.Module):
  """One encoder-decoder: f32[B,H,W,4] -> [B,H,W,C] with C = 4, 2 or 1 times `width`.

  Attributes:
    kernel_size: of all its convolutions: 7, 5 or 3.
    width: channels at full resolution.
    dilations: of convolutions 6 to 9, at a quarter of the resolution.
    dtype: of the computation.
  """

  kernel_size: int
  width: int
  dilations: tuple[int, ...]
  dtype: Any

  def conv(self, x, number, features, stride=1, dilation=1):
    """The convolution of that number in the code's list, and ELU."""
    layer = Conv(
      features * self.width,
      self.kernel_size,
      stride,
      self.kernel_size // 2 * dilation,
      dilation,
      pad_mode='reflect',
      dtype=self.dtype,
      name=f'conv{number}',
    )
    return nn.elu(layer(x))

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    height, width = x.shape[1:3]
    for number, features, stride in _ENCODER:
      x = self.conv(x, number, features, stride)
    for number, dilation in enumerate(self.dilations, start=6):
      x = self.conv(x, number, 4, dilation=dilation)
    x = self.conv(x, 10, 4)
    x = self.conv(x, 11, 4)
    if self.kernel_size == 7:
      return arrays.resize_bilinear(x, height, width, align_corners=True)
    x = self.conv(_repeated(x), 13, 2)  # the code counts an upsampling as a layer: no 12, no 15
    x = self.conv(x, 14, 2)
    if self.kernel_size == 5:
      return conv.upsample_bilinear(x, align_corners=True)
    x = self.conv(_repeated(x), 16, 1)
    return self.conv(x, 17, 1)


def _repeated(x: jax.Array) -> jax.Array:
  return x.repeat(2, axis=1).repeat(2, axis=2)


class Generator(nn.Module):
  """The three columns and the decoder that merges them.

  Attributes:
    width: channels at full resolution, 32 as published; all others scale with it.
    dilations: of four convolutions in the middle of each column; they also set `min_side`.
    dtype: of the computation. Parameters and the result are float32.
  """

  width: int = 32
  dilations: tuple[int, ...] = DILATIONS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 4, at least `min_side(dilations)`. Pixels
        in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here; taken as every network takes it.

    Returns:
      {'out': f32[B,H,W,3] in [0,1]}, not composited with `image`.

    Raises:
      ValueError: the network does not accept this image size, or not four dilations.
    """
    del train
    if len(self.dilations) != 4:
      raise ValueError(f'dilations {tuple(self.dilations)} must be four, of convolutions 6 to 9')
    arrays.check_multiple(*image.shape[1:3], MULTIPLE, min_side(self.dilations))
    known = (image * 2 - 1) * (1 - mask)
    x = jnp.concatenate([known, mask], -1).astype(self.dtype)
    settings = dict(width=self.width, dilations=tuple(self.dilations), dtype=self.dtype)
    x = jnp.concatenate([_Column(k, **settings, name=f'column{k}')(x) for k in KERNELS], -1)
    last = dict(padding=1, pad_mode='reflect', dtype=self.dtype)
    x = nn.elu(Conv(max(1, self.width // 2), 3, **last, name='merge0')(x))
    x = Conv(3, 3, **last, name='merge1')(x).astype(jnp.float32)
    return {'out': (jnp.clip(x, -1.0, 1.0) + 1) / 2}


class Critic(nn.Module):
  """Four 5 x 5 convolutions of stride 2, then one number; local and global critic have this form.

  Attributes:
    width: channels of the first convolution, 64 as published; then 2, 4 and 4 times as many.
    spectral_norm: normalise all five layers, as the PyTorch code does.
    dtype: of the computation; parameters, u, v and scores are float32.
  """

  width: int = 64
  spectral_norm: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Scores images.

    Args:
      x: f32[B,H,W,3] in [0,1]; H and W must be those of the initialisation.
      train: with spectral norm, advances the power iterations; needs mutable=['spectral'].

    Returns:
      f32[B,1], unbounded.
    """
    again = dict(train=train) if self.spectral_norm else {}
    layer = SNConv if self.spectral_norm else Conv
    x = (x * 2 - 1).astype(self.dtype)
    for i, scale in enumerate((1, 2, 4, 4)):
      x = layer(self.width * scale, 5, 2, 2, dtype=self.dtype, name=f'conv{i}')(x, **again)
      x = nn.elu(x)
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1).astype(jnp.float32)  # channels first: the code
    if self.spectral_norm:
      return SNDense(1, name='dense')(x, train=train)
    return nn.Dense(1, kernel_init=conv.normal_init, name='dense')(x)


def critics(
  width: int = 64, *, spectral_norm: bool = False, dtype: Any = jnp.float32
) -> dict[str, Critic]:
  """{'local_critic', 'global_critic'}; fields as of `Critic`."""
  one = Critic(width, spectral_norm, dtype)
  return {'local_critic': one, 'global_critic': one.clone()}
