"""CSA: coherent semantic attention, a rough and a refining network.

Liu, Jiang, Xiao, Yang: "Coherent Semantic Attention for Image Inpainting", ICCV 2019,
https://arxiv.org/abs/1905.12384. The first network, a U-Net, paints the picture roughly. The second
gets its picture, pasted into the hole, and refines it. At an eighth of the resolution its encoder
fills the features of the hole by `layers.coherent_attention`. In training one critic judges patches
of the picture, another one patches of its VGG16 features.

Differs from the paper:
  - the attention's gradient is by default what the code defines, which is not the derivative of its
    formula; `gradient='true'` is. Sizes and scales are the code's throughout.
Differs from the reference code:
  - any batch, each picture with its own hole; the code takes one picture at a time, and by default
    keeps the hole of the first one for all others;
  - the attention's gradient is right for any map; the code's takes a height for a width, so there
    it is right on squares only;
  - sides are multiples of 2^levels, so that no feature has to be resized. The code resizes where
    they are not;
  - images go in and come out as [0, 1]; 'out' is clipped to it, as the second network's last layer
    is linear. 'raw' is not, and it is what losses compare, as in the code;
  - `levels` below 8 and `deep_width` are ours, for small pictures and networks.
The code's LeakyReLU changes its input in place, and with it what the decoder gets from the encoder.
Nothing depends on that: the decoder's ReLU comes first, and gives the same of both.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.coherent_attention import Gradient, coherent_attention, feature_hole
from jaxinpaint.layers.conv import Conv, ConvTranspose, conv2d, normal_init
from jaxinpaint.layers.norm import InstanceNorm, instance_norm
from jaxinpaint.layers.parameters import parameter

HOLE_COLOR = (123 / 255, 104 / 255, 117 / 255)  # red, green, blue in the hole
ATTENTION_LEVEL = 3  # halvings before the attention: it works at an eighth of the resolution
MIN_LEVELS = ATTENTION_LEVEL + 1
_SLOPE = 0.2  # of LeakyReLU


def fill_hole(image: jax.Array, mask: jax.Array) -> jax.Array:
  """`image` in [0,1] with `HOLE_COLOR` in the hole."""
  return jnp.where(mask > 0, jnp.asarray(HOLE_COLOR, jnp.float32), image)


class RoughGenerator(nn.Module):
  """The first network: a U-Net of convolutions that halve the map `levels` times.

  Attributes:
    width: channels after the first convolution, 64 as published; then 2, 4, 8, 8, ... times as
      many.
    levels: halvings, 8 as published.
    dtype: of the computation; parameters, statistics and the output are float32.
  """

  width: int = 64
  levels: int = 8
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 2^levels. Pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here; taken as every network takes it.

    Returns:
      {'out': f32[B,H,W,3] in [0,1]}, not composited with `image`.

    Raises:
      ValueError: the network does not accept this image size.
    """
    del train
    arrays.check_multiple(*image.shape[1:3], 2**self.levels)
    width = lambda level: self.width * min(2 ** (level - 1), 8)
    down = lambda level: Conv(
      width(level), 4, stride=2, padding=1, dtype=self.dtype, name=f'down{level}'
    )
    up = lambda level: ConvTranspose(
      width(level - 1) if level > 1 else 3, dtype=self.dtype, name=f'up{level}'
    )
    normed = lambda layer, x: _norm(f'{layer.name}_norm', self.dtype)(layer(x))

    x = down(1)((2 * fill_hole(image, mask) - 1).astype(self.dtype))
    skips = [x]
    for level in range(2, self.levels):
      x = normed(down(level), _leaky(x))
      skips.append(x)
    x = down(self.levels)(_leaky(x))
    x = normed(up(self.levels), nn.relu(x))
    for level in range(self.levels - 1, 0, -1):
      x = nn.relu(jnp.concatenate([x, skips.pop()], -1))
      x = normed(up(level), x) if level > 1 else up(level)(x)
    return {'out': (jnp.tanh(x.astype(jnp.float32)) + 1) / 2}


class RefinementGenerator(nn.Module):
  """The second network: a U-Net whose encoder has the attention at an eighth of the resolution.

  Attributes:
    width: channels at full resolution, 64 as published; at 1/2 and 1/4 2 and 4 times as many.
    deep_width: channels at 1/8 and below: 512 as published, those of VGG16's relu4_3, with which
      the consistency loss compares them.
    levels: halvings, 8 as published.
    gradient: of the attention, 'reference' or 'true', as in `layers.coherent_attention`.
    dtype: of the computation. Parameters, statistics, the attention and the output are float32.
  """

  width: int = 64
  deep_width: int = 512
  levels: int = 8
  gradient: Gradient = 'reference'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, synthesis: jax.Array, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from a first guess.

    Args:
      synthesis: f32[B,H,W,3] in [0,1]: the first network's output in the hole, `image` elsewhere.
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 2^levels. Pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here; taken as every network takes it.

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; 'raw': the same, not clipped;
      at an eighth of the resolution 'hole' [B,h,w,1], 'attention_input', 'attention' (what the
      attention returns) and 'decoded' (of the same place in the decoder), f32[B,h,w,deep_width].

    Raises:
      ValueError: the network does not accept this image size.
    """
    del train
    arrays.check_multiple(*image.shape[1:3], 2**self.levels)
    width = lambda level: self.width * 2**level if level < ATTENTION_LEVEL else self.deep_width
    conv3 = dict(kernel_size=3, padding=1, dtype=self.dtype)
    normed = lambda layer, x: _norm(f'{layer.name}_norm', self.dtype)(layer(x))
    outputs = {'hole': feature_hole(mask, ATTENTION_LEVEL)}

    x = jnp.concatenate([synthesis, fill_hole(image, mask)], -1) * 2 - 1
    x = Conv(self.width, name='first', **conv3)(x.astype(self.dtype))
    skips = [x]
    for level in range(1, self.levels):
      x = normed(_SpacedConv(width(level - 1), self.dtype, name=f'down{level}'), _leaky(x))
      x = Conv(width(level), name=f'encoder{level}', **conv3)(_leaky(x))
      if level == ATTENTION_LEVEL:
        outputs['attention_input'] = x.astype(jnp.float32)
        x = coherent_attention(x, outputs['hole'], gradient=self.gradient)
        outputs['attention'] = x
      x = _norm(f'encoder{level}_norm', self.dtype)(x)
      skips.append(x)
    for level in range(self.levels, 0, -1):
      outer = width(level - 1)
      if level == self.levels:
        x = _SpacedConv(outer, self.dtype, name=f'down{level}')(_leaky(x))
      else:
        x = nn.relu(jnp.concatenate([x, skips.pop()], -1))
        x = normed(ConvTranspose(outer, stride=1, name=f'decoder{level}', **conv3), x)
      x = normed(ConvTranspose(outer, dtype=self.dtype, name=f'up{level}'), nn.relu(x))
      if level == ATTENTION_LEVEL + 1:
        outputs['decoded'] = x.astype(jnp.float32)
    x = nn.relu(jnp.concatenate([x, skips.pop()], -1))
    x = ConvTranspose(3, stride=1, name='last', **conv3)(x)
    outputs['raw'] = (x.astype(jnp.float32) + 1) / 2
    return outputs | {'out': jnp.clip(outputs['raw'], 0, 1)}


class Critic(nn.Module):
  """Judges patches of 70 x 70 pixels (PatchGAN; Isola et al., CVPR 2017).

  Attributes:
    width: channels of the first convolution, 64 as published; the others have 2, 4 and 8 times as
      many.
    dtype: of the computation; parameters, statistics and the logits are float32.
  """

  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """f32[B,H,W,3] in [0,1] -> logits f32[B,h,w,1]; 64 x 64 gives 6 x 6."""
    del train
    x = (2 * x - 1).astype(self.dtype)
    for i, (scale, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1)), start=1):
      name = f'conv{i}'
      x = Conv(self.width * scale, 4, stride=stride, padding=1, dtype=self.dtype, name=name)(x)
      x = _leaky(_norm(f'{name}_norm', self.dtype)(x) if i > 1 else x)
    return Conv(1, 4, padding=1, dtype=self.dtype, name='conv5')(x).astype(jnp.float32)


class FeatureCritic(nn.Module):
  """Judges patches of VGG16's pool3.

  Attributes:
    width: channels, 512 as published.
    dtype: of the computation; parameters, statistics and the logits are float32.
  """

  width: int = 512
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """f32[B,H,W,256] -> logits f32[B,H/8,W/8,width]."""
    del train
    conv = lambda name: Conv(self.width, 4, stride=2, padding=1, dtype=self.dtype, name=name)
    x = _leaky(conv('conv1')(x.astype(self.dtype)))
    x = _leaky(instance_norm(conv('conv2')(x)))
    return conv('conv3')(x).astype(jnp.float32)


class _SpacedConv(nn.Module):
  """4 x 4 convolution of stride 2 and dilation 2 with padding 3; parameters as `layers.conv.Conv`.

  All its taps are on odd rows and columns. So it is a dense convolution of these alone.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C], H and W even -> [B,H/2,W/2,features] in `dtype`."""
    odd = jnp.pad(x[:, 1::2, 1::2], ((0, 0), (2, 1), (2, 1), (0, 0)))
    shape = (4, 4, x.shape[-1], self.features)
    kernel = parameter(self, 'kernel', normal_init, shape, jnp.float32).astype(self.dtype)
    bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    return conv2d(odd.astype(self.dtype), kernel) + bias.astype(self.dtype)


def _norm(name: str, dtype: Any) -> InstanceNorm:
  return InstanceNorm(dtype=dtype, name=name)


def _leaky(x: jax.Array) -> jax.Array:
  return nn.leaky_relu(x, _SLOPE)
