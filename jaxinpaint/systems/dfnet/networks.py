"""DFNet's network: a U-Net that completes pictures at six scales and fuses them with what is known.

Hong, Xiong, Ji, Fan: "Deep Fusion Network for Image Completion", ACM Multimedia 2019,
https://arxiv.org/abs/1904.08060. An encoder halves the picture eight times, and a decoder with skip
connections brings it back. After each of the last six layers of the decoder a fusion block predicts
a picture and an alpha map, and blends that picture with the damaged one, reduced to the same size.
So each scale is trained to complete the picture, and the seams are learned.

Differs from the paper: nothing known; where its text leaves something open, the code is followed.

Differs from the reference code (hughplay/DFNet):
  - callers pass masks with 1 in the hole; inside, masks are 1 at known pixels, as in the code;
  - the network takes RGB, unless `channel_order='bgr'`. The published weights need 'bgr': the test
    code reads files with OpenCV and does not reorder the channels;
  - running variances use the biased estimate (PyTorch: n / (n - 1) times that); biases start at 0;
  - `levels` < 8 leaves out the deepest levels, for pictures smaller than 256 pixels (ours).
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, resize_bilinear, torch_init, upsample_nearest
from jaxinpaint.layers.norm import batch_norm
from jaxinpaint.layers.same_conv import SameConv

ChannelOrder = Literal['rgb', 'bgr']
KERNEL_SIZES = (7, 5, 5, 3, 3, 3, 3, 3)  # of the encoder
SCALES = (1, 2, 4, 8, 8, 8, 8, 8)  # times `width`: its channels
SLOPE = 0.2  # of the decoder and the fusion blocks
FUSIONS = 6  # scales with a fusion block, from full resolution down
BLEND_WIDTH = 32


class FusionBlock(nn.Module):
  """Predicts a picture and an alpha map of three channels, and blends it with the damaged one."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, shown: jax.Array, features: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Blends at the size of the features.

    Args:
      shown: f32[B,H,W,3] in [0, 1], the damaged picture, 0 in the hole.
      features: [B,h,w,C].
      train: use batch statistics; needs mutable=['batch_stats'].

    Returns:
      The blend, the alpha map (1: the prediction) and the prediction, f32[B,h,w,3] in [0, 1] each.
    """
    layer = dict(kernel_init=torch_init, dtype=self.dtype)
    act = lambda name, x: nn.leaky_relu(batch_norm(name, train, self.dtype)(x), SLOPE)
    unit = lambda x: nn.sigmoid(x.astype(jnp.float32))
    shown = resize_bilinear(shown, *features.shape[1:3])
    raw = unit(Conv(3, 1, name='raw', **layer)(features))
    x = jnp.concatenate([shown, raw], -1)
    x = act('blend0_bn', Conv(BLEND_WIDTH, 1, name='blend0', **layer)(x))
    x = act('blend1_bn', Conv(3, 3, padding=1, name='blend1', **layer)(x))
    alpha = unit(Conv(3, 1, name='alpha', **layer)(x))
    return alpha * raw + (1 - alpha) * shown, alpha, raw


class Generator(nn.Module):
  """The U-Net and its fusion blocks.

  Attributes:
    width: channels of the first level; the deepest have 8 times as many.
    levels: how often the encoder halves the resolution; image sides are multiples of 2**levels.
      There are `FUSIONS` fusion blocks, or one for each level if these are fewer.
    channel_order: 'rgb' or 'bgr', inside the network; callers always see RGB.
    dtype: of the computation; parameters, statistics and outputs are float32.
  """

  width: int = 64
  levels: int = 8
  channel_order: ChannelOrder = 'rgb'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, mask: jax.Array, *, train: bool = False) -> dict[str, Any]:
    """Completes pictures.

    Args:
      image: f32[B,H,W,3] in [0, 1]; H and W multiples of 2**levels. Pixels in the hole are not
        read.
      mask: f32[B,H,W,1], 1 = hole.
      train: use batch statistics; needs mutable=['batch_stats'].

    Returns:
      'out' f32[B,H,W,3] in [0, 1], the completion at full resolution; 'results', 'alphas' and
      'raws', of each fusion block f32[B,h,w,3] in [0, 1], from full resolution down.

    Raises:
      ValueError: an unknown `channel_order`, or an image size that the network does not accept.
    """
    arrays.check_multiple(*image.shape[1:3], 2**self.levels)
    if self.channel_order not in ('rgb', 'bgr'):
      raise ValueError(f"channel_order {self.channel_order!r} must be 'rgb' or 'bgr'")
    ordered = lambda x: x[..., ::-1] if self.channel_order == 'bgr' else x
    layer = dict(kernel_init=torch_init, dtype=self.dtype)
    known = 1 - mask.astype(jnp.float32)
    shown = ordered(jnp.where(known > 0, image * known, 0.0))

    x = jnp.concatenate([shown, known], -1).astype(self.dtype)
    skips = [x]
    for i in range(self.levels):
      encode = SameConv(
        self.width * SCALES[i], KERNEL_SIZES[i], stride=2, name=f'encoder{i}', **layer
      )
      x = encode(x)
      if i:
        x = nn.relu(batch_norm(f'encoder{i}_bn', train, self.dtype)(x))
      skips.append(x)

    fused = []
    for i in range(self.levels - 1, -1, -1):
      x = jnp.concatenate([upsample_nearest(x), skips[i]], -1)
      x = Conv(skips[i].shape[-1], 3, padding=1, name=f'decoder{i}', **layer)(x)
      x = nn.leaky_relu(batch_norm(f'decoder{i}_bn', train, self.dtype)(x), SLOPE)
      if i < FUSIONS:
        block = FusionBlock(dtype=self.dtype, name=f'fusion{i}')
        fused.append(tuple(map(ordered, block(shown, x, train=train))))
    results, alphas, raws = zip(*reversed(fused), strict=True)
    return {'out': results[0], 'results': results, 'alphas': alphas, 'raws': raws}
