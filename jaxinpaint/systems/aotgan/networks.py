"""AOT-GAN: aggregated contextual transformations.

Zeng, Fu, Chao, Guo: "Aggregated Contextual Transformations for High-Resolution Image Inpainting",
IEEE Transactions on Visualization and Computer Graphics 2022, https://arxiv.org/abs/2104.01431. The
generator is an encoder, eight AOT blocks at a quarter of the resolution, and a decoder. The
discriminator says for every patch whether it was painted.

Differs from the paper:
  - the gate of a block is normalised before its sigmoid, as in the released code, for which the
    published weights were trained; `gate_norm='none'` is the paper's plain gate.

Differs from the reference code:
  - the gradient of a channel that is constant in the gate is zero; in the code it is NaN.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.aot import RATES, AOTBlock
from jaxinpaint.layers.conv import Conv, normal_init, upsample_bilinear
from jaxinpaint.layers.fills import FILLS
from jaxinpaint.layers.in_turn import in_turn
from jaxinpaint.layers.smooth_fill import (
  clip_with_gradient,
  depth_to_space,
  space_to_depth,
)
from jaxinpaint.layers.spectral_norm import SNConv

MULTIPLE = 4  # sides of the image: the middle has a quarter of the resolution ...


def min_side(rates: tuple[int, ...] = RATES) -> int:
  """... and is mirrored by the largest rate, which must be less than its sides."""
  return MULTIPLE * (max(rates) + 1)


class UpConv(nn.Module):
  """Bilinear doubling with aligned corners, then a 3x3 convolution with zeros around.

  Attributes:
    features: output channels.
    kernel_init: of the kernel.
    dtype: of the computation.
  """

  features: int
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,2H,2W,features]."""
    x = upsample_bilinear(x.astype(self.dtype), align_corners=True)
    settings = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    return Conv(self.features, 3, padding=1, name='conv', **settings)(x)


class Generator(nn.Module):
  """Paints the whole image; only the gates are normalised.

  Attributes:
    width: channels at full resolution, 64 as published; all others scale with it.
    blocks: number of AOT blocks.
    rates: dilations of a block's branches; the branches divide its channels.
    gate_norm: 'aot' (the code's normalised gates) or 'none' (the paper's).
    stem: the network works on squares of stem x stem pixels as channels, at 1/stem of the
      resolution; 1 as published.
    fill: 'none' as published; 'smooth' or 'tension': the hole of the input holds such a fill
      (`layers.smooth_fill`, `layers.tension_fill`), and the network adds to it. Untrained, it
      gives the fill.
    remat: recompute the AOT blocks in the backward pass instead of storing their results.
    kernel_init: of all kernels; biases start at zero.
    dtype: of the convolutions; parameters, gates and the output are float32.
  """

  width: int = 64
  blocks: int = 8
  rates: tuple[int, ...] = RATES
  gate_norm: Literal['aot', 'none'] = 'aot'
  stem: int = 1
  fill: Literal['none', 'smooth', 'tension'] = 'none'
  remat: bool = False
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 4 * stem, at least
        `stem * min_side(rates)` (36 as published). Pixels in the hole are not read: the network
        sees white there, or the fill.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here; taken as every network takes it.

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; and intermediate results:
      'encoded', 'first' and 'middle' (the features [B,H/4,W/4,4*width] before, after the first and
      after the last AOT block) and 'logit' f32[B,H,W,3] (before tanh; added to the fill,
      where there is one).

    Raises:
      ValueError: the network does not accept this image size.
    """
    del train
    stem = self.stem
    arrays.check_multiple(*image.shape[1:3], MULTIPLE * stem, min_side(self.rates) * stem)
    if self.fill not in FILLS and self.fill != 'none':
      raise ValueError(f'fill {self.fill!r} must be one of none, {", ".join(FILLS)}')
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    width = self.width

    if self.fill != 'none':
      x = filled = FILLS[self.fill](2 * image - 1, mask)
      last = init | dict(kernel_init=nn.initializers.zeros)
    else:
      x, last = (2 * image - 1) * (1 - mask) + mask, init
    x = space_to_depth(jnp.concatenate([x, mask], -1).astype(self.dtype), stem)
    reach = 3 if stem == 1 else 1  # 3x3 squares reach as far as 7x7 pixels
    settings = dict(padding=reach, pad_mode='reflect', name='encoder0')
    y = nn.relu(Conv(width, 2 * reach + 1, **settings, **init)(x))
    y = nn.relu(Conv(2 * width, 4, stride=2, padding=1, name='encoder1', **init)(y))
    y = nn.relu(Conv(4 * width, 4, stride=2, padding=1, name='encoder2', **init)(y))
    outputs = {'encoded': y}
    names = [f'middle{i}' for i in range(self.blocks)]
    body = dict(rates=self.rates, gate_norm=self.gate_norm, remat=self.remat, **init)
    outputs['first'] = in_turn(self, AOTBlock, names[:1], y, **body)
    y = outputs['middle'] = in_turn(self, AOTBlock, names[1:], outputs['first'], **body)
    y = nn.relu(UpConv(2 * width, name='decoder0', **init)(y))
    y = nn.relu(UpConv(width, name='decoder1', **init)(y))
    y = Conv(3 * stem**2, 3, padding=1, name='decoder2', **last)(y)
    y = outputs['logit'] = depth_to_space(y.astype(jnp.float32), stem)
    if self.fill != 'none':
      outputs['out'] = clip_with_gradient((filled + y + 1) / 2)
    else:
      outputs['out'] = (jnp.tanh(y) + 1) / 2
    return outputs


class Discriminator(nn.Module):
  """Five 4x4 convolutions, four of them spectrally normalised; a logit for every patch.

  Attributes:
    width: channels of the first layer, 64 as published; the others have 2, 4 and 8 times as many.
    kernel_init: of the kernels.
    dtype: of the computation; parameters, u, v and the logits are float32.
  """

  width: int = 64
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Judges patches.

    Args:
      x: f32[B,H,W,3] in [0,1], sides of at least 24.
      train: advances the power iterations; needs mutable=['spectral'].

    Returns:
      Logits f32[B,h,w,1] (64 x 64 gives 6 x 6), and the five layers' outputs: four after
      LeakyReLU, the fifth the logits.
    """
    settings = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    x = 2 * x - 1
    features = []
    for i, (scale, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1)), start=1):
      layer = SNConv(
        self.width * scale,
        4,
        stride=stride,
        padding=1,
        use_bias=False,
        name=f'conv{i}',
        **settings,
      )
      x = nn.leaky_relu(layer(x, train=train), 0.2)
      features.append(x)
    x = Conv(1, 4, padding=1, name='conv5', **settings)(x).astype(jnp.float32)
    return x, (*features, x)
