"""PEN-Net: a U-Net whose encoder is filled from deep to shallow by attention.

Zeng, Fu, Chao, Guo: "Learning Pyramid-Context Encoder Network for High-Quality Image Inpainting",
CVPR 2019, https://arxiv.org/abs/1904.07475. Six convolutions halve the picture six times. From the
deepest level on, an attention transfer network (ATN) compares the patches of one level and rebuilds
the next shallower one by these scores. The decoder joins the rebuilt levels, and paints a picture
at each of them.

The default is the released PyTorch code, for which the published weights were trained. It rebuilds
every place of a level, the known ones too, and compares patches by products in which only one of
the two is divided by its length. `transfer='paper'` is the other reading, said to be that of
section 3.2 and not checked against its text: cosines, weights over known patches alone, and only
the hole is filled.

Differs from the paper:
  - the transfer is the code's, see above;
  - the deepest transfer compares single places instead of 3x3 patches, and nothing follows it (C).
Differs from the reference code:
  - a patch is free of the hole if no sample that its mask is interpolated from lies in it; the code
    asks whether the interpolated mask is exactly 0, which may fail by rounding;
  - callers pass images in [0, 1]; inside the networks they are in [-1, 1];
  - sides are any multiples of 64; the code takes squares.
As in the code, a level whose every patch touches the hole has weights of 1e-8 only: its transfer is
almost 0 everywhere. So holes must leave some patches free even at 1/32 of the resolution.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers import contextual_attention, level_attention
from jaxinpaint.layers.conv import Conv, Initializer, normal_init, upsample_bilinear
from jaxinpaint.layers.region_affinity import transfer
from jaxinpaint.layers.spectral_norm import SNConv

MULTIPLE = 64  # sides of the image: it is halved six times
SCALES = (1, 2, 4, 8, 16, 16)  # times `width`: channels of the encoder's levels
DECODED = (1, 2, 4, 8, 16)  # ... and of the decoder's, from the shallowest on
DILATIONS = (1, 2, 4, 8)  # of the convolutions after a transfer
SLOPE = 0.2
# Interpolated masks are multiples of more than this, up to sides of 4000 pixels.
_LEAST_HOLE = 1e-6

Transfer = Literal['released', 'paper']


def free_keys(mask: jax.Array, height: int, width: int, size: int = 3) -> jax.Array:
  """f32[B,height*width]: 1 where a patch of a level is free of the hole.

  Args:
    mask: f32[B,H,W,1], 1 = hole.
    height: of the level; the mask is sampled there, bilinearly with aligned corners.
    width: likewise.
    size: of the patches.
  """
  sampled = arrays.resize_bilinear(mask.astype(jnp.float32), height, width, align_corners=True)
  hole = (sampled > _LEAST_HOLE).astype(jnp.float32)
  return contextual_attention.valid_keys(hole, size)


class ATN(nn.Module):
  """Attention transfer from one level to the next shallower one (section 3.2).

  Attributes:
    size: of the compared patches, 1 or 3.
    fuse: four convolutions of different dilation follow, each for a quarter of the channels.
    transfer: 'released' or 'paper', see above.
    kernel_init: of the convolutions.
    dtype: likewise; scores are float32.
  """

  size: Literal[1, 3] = 3
  fuse: bool = True
  transfer: Transfer = 'released'
  kernel_init: Initializer = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, shallow: jax.Array, deep: jax.Array, mask: jax.Array) -> jax.Array:
    """[B,2h,2w,C], [B,h,w,D] and the picture's mask f32[B,H,W,1] -> [B,2h,2w,C]."""
    if self.transfer not in ('released', 'paper'):
      raise ValueError(f"transfer {self.transfer!r} must be 'released' or 'paper'")
    if self.transfer == 'paper':
      y = level_attention.fill(deep, shallow, mask)
    else:
      y = transfer(deep, shallow, free_keys(mask, *deep.shape[1:3], self.size), size=self.size)
    y = y.astype(self.dtype)
    if not self.fuse:
      return y
    conv = lambda i, d: Conv(
      shallow.shape[-1] // len(DILATIONS),
      3,
      padding=d,
      dilation=d,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name=f'fuse{i}',
    )
    return jnp.concatenate([nn.relu(conv(i, d)(y)) for i, d in enumerate(DILATIONS)], -1)


class Generator(nn.Module):
  """The pyramid-context encoder and the decoder of several scales.

  Attributes:
    width: channels of the first level, a multiple of 4; 32 as published.
    transfer: 'released' or 'paper', see above.
    kernel_init: of all kernels; biases start at zero.
    dtype: of the convolutions; parameters, scores and pictures are float32.
  """

  width: int = 32
  transfer: Transfer = 'released'
  kernel_init: Initializer = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 64. Pixels in the hole are not read: the
        network sees white there.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here; taken as every network takes it.

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; 'pyramid1' to 'pyramid5', the same
      at 1/2 to 1/32 of the resolution; 'level1' to 'level5': the transferred features there.

    Raises:
      ValueError: the network does not accept this image size.
    """
    del train
    arrays.check_multiple(*image.shape[1:3], MULTIPLE)
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    conv = lambda name, features, size=3, stride=1: Conv(
      features, size, stride=stride, padding=size // 2, name=name, **init
    )
    x = (2 * image - 1) * (1 - mask) + mask
    x = jnp.concatenate([x, mask], -1).astype(self.dtype)
    levels, deepest = [], len(SCALES)
    for i, scale in enumerate(SCALES, start=1):
      x = conv(f'encoder{i}', scale * self.width, stride=2)(x)
      x = nn.relu(x) if i == deepest else nn.leaky_relu(x, SLOPE)
      levels.append(x)

    outputs = {}
    for i in range(deepest - 1, 0, -1):
      first = i == deepest - 1
      settings = dict(transfer=self.transfer, name=f'atn{i}', **init)
      atn = ATN(size=1, fuse=False, **settings) if first else ATN(**settings)
      levels[i - 1] = outputs[f'level{i}'] = atn(levels[i - 1], levels[i], mask)

    unit = lambda y: (jnp.tanh(y.astype(jnp.float32)) + 1) / 2
    double = lambda y: upsample_bilinear(y, align_corners=True)
    y = levels[-1]
    for i in range(deepest - 1, 0, -1):
      y = nn.relu(conv(f'decoder{i}', DECODED[i - 1] * self.width)(double(y)))
      y = jnp.concatenate([y, levels[i - 1]], -1)
      outputs[f'pyramid{i}'] = unit(conv(f'to_rgb{i}', 3, 1)(y))
    y = nn.relu(conv('out1', self.width)(double(y)))
    return outputs | {'out': unit(conv('out2', 3)(y))}


class Discriminator(nn.Module):
  """Five 5x5 convolutions, four of them spectrally normalised; a logit for every patch.

  Attributes:
    width: channels of the first layer, 64 as published; the others have 2, 4 and 8 times as many.
    dtype: of the computation; parameters, u, v and the logits are float32.
  """

  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Judges patches.

    Args:
      x: f32[B,H,W,3] in [0,1], sides of at least 46.
      train: advances the power iterations; needs mutable=['spectral'].

    Returns:
      Logits f32[B,h,w,1] (64 x 64 gives 3 x 3), before any sigmoid, and the five layers' outputs:
      four after LeakyReLU, the fifth the logits.
    """
    x, features = 2 * x - 1, []
    for i, (scale, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1)), start=1):
      layer = SNConv(
        self.width * scale,
        5,
        stride=stride,
        padding=1,
        use_bias=False,
        dtype=self.dtype,
        name=f'conv{i}',
      )
      x = nn.leaky_relu(layer(x, train=train), SLOPE)
      features.append(x)
    x = Conv(1, 5, padding=1, dtype=self.dtype, name='conv5')(x).astype(jnp.float32)
    return x, (*features, x)
