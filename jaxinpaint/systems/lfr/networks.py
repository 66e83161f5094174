"""LFR's second stage: the texture generator with attention between levels, and its critic.

Zhang, Liu:
"Face Image Restoration Based on Latent Feature Reconstruction and Attention Mechanism".
There are six levels of gated convolutions. Scores of the levels 6, 5 and 4 fill the levels 1, 2 and
3, which the decoder reads. The first stage, the structure reconstructor, is pSp's encoder
(encoder.py) and a frozen StyleGAN2 (layers/stylegan2_networks.py). No code is published; C marks
our choices where the paper leaves something open.

C: channels 32, 64, 128, 128, 128, 128; one convolution gives both features and gates; level 4 has
four more, dilated 2 to 16; the 3x3 patches of both sides are normalised; scores are scaled by 10
(the paper's formula has no factor; its softmax over a thousand cosines is nearly uniform); no
norms.

Differs from the paper:
  - the mask is also an input, because the spliced image alone does not show where the hole was;
  - "final output value in [0, 1]" is true only for the gates.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers import level_attention
from jaxinpaint.layers.conv import Conv, torch_init, upsample_nearest
from jaxinpaint.layers.gated_conv import GatedConv, gated_init

LEVELS = 6
MULTIPLE = 2 ** (LEVELS - 1)
SCALES = (1, 2, 4, 4, 4, 4)  # times `width`: channels of the levels
DILATIONS = (2, 4, 8, 16)  # of level 4's additional convolutions


class Texture(nn.Module):
  """The texture generator.

  Attributes:
    width: channels of level 1; see `SCALES`.
    attention_from: the deep levels whose scores fill the levels 1, 2 and 3. (6, 6, 6) is the
      paper's ablation that uses only scores of level 6.
    softmax_scale: factor of the cosines.
    attention_keys: which cells a hole is filled from, see `level_attention.valid_keys`.
    dtype: of the computation; parameters, scores and the result are float32.
  """

  width: int = 32
  attention_from: tuple[int, int, int] = (6, 5, 4)
  softmax_scale: float = 10.0
  attention_keys: level_attention.KeyRule = 'known'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Adds texture.

    Args:
      image: f32[B,H,W,3] in [0, 1], the known pixels and the structure in the hole.
      mask: f32[B,H,W,1], 1 = hole.

    Returns:
      'out' f32[B,H,W,3], the image plus a residual, neither pasted nor clipped; 'filled', the f32
      features of the levels 1 to 3.

    Raises:
      ValueError: a side is not a multiple of 32.
    """
    height, width = image.shape[1:3]
    if height % MULTIPLE or width % MULTIPLE:
      raise ValueError(f'image sides {height} x {width} must be multiples of {MULTIPLE}')
    mask = mask.astype(jnp.float32)
    # C: with PyTorch's own initialisation the residual begins at 0.0006, and training hardly
    # changes it.
    shared = dict(padding='symmetric', kernel_init=gated_init, dtype=self.dtype)
    gated = lambda name, level, **settings: GatedConv(
      self.width * SCALES[level - 1], name=name, **shared, **settings
    )
    x = jnp.concatenate([2 * image - 1, mask], -1).astype(self.dtype)
    levels = [gated('enc1_0', 1, kernel_size=5)(x)]
    for level in range(2, LEVELS + 1):
      x = gated(f'enc{level}_0', level, stride=2)(levels[-1])
      x = gated(f'enc{level}_1', level)(x)
      if level == 4:
        for i, dilation in enumerate(DILATIONS, start=2):
          x = gated(f'enc{level}_{i}', level, dilation=dilation)(x)
      levels.append(x)

    filled = {
      to: level_attention.fill(
        levels[at - 1], levels[to - 1], mask, scale=self.softmax_scale, rule=self.attention_keys
      )
      for to, at in enumerate(self.attention_from, start=1)
    }
    x = levels[-1]
    for level in range(LEVELS - 1, 0, -1):
      x = upsample_nearest(x)
      x = gated(f'dec{level}_0', level)(x)
      if level in filled:
        y = gated(f'att{level}_0', level)(filled[level].astype(self.dtype))
        y = gated(f'att{level}_1', level, dilation=2)(y)
        x = jnp.concatenate([x, y], -1)
      x = gated(f'dec{level}_1', level)(x)
    x = Conv(3, 3, padding=1, kernel_init=torch_init, dtype=self.dtype, name='out')(x)
    return {'out': image + x.astype(jnp.float32) / 2, 'filled': filled}


class Critic(nn.Module):
  """A critic of six strided convolutions and one score (C: DeepFill's, without spectral norm).

  Attributes:
    size: side of its images, a multiple of 64.
    width: channels of the first layer.
    dtype: of the convolutions; the result is float32.
  """

  size: int = 256
  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """f32[B,size,size,3] in [-1, 1] -> f32[B]."""
    if self.size % 64 or image.shape[1:3] != (self.size, self.size):
      raise ValueError(
        f'images of {image.shape[1]} x {image.shape[2]} do not fit the critic, which is built for '
        f'{self.size} x {self.size}: set config.data.size and config.model.critic_size to the same '
        'multiple of 64'
      )
    x = image.astype(self.dtype)
    for i, scale in enumerate((1, 2, 4, 4, 4, 4), start=1):
      x = Conv(
        self.width * scale,
        5,
        stride=2,
        padding=2,
        kernel_init=torch_init,
        dtype=self.dtype,
        name=f'conv{i}',
      )(x)
      x = nn.leaky_relu(x, 0.2)
    x = x.reshape(x.shape[0], -1).astype(jnp.float32)
    return nn.Dense(1, kernel_init=torch_init, name='dense')(x)[:, 0]
