"""MISF: multi-level interactive siamese filtering.

Li, Guo, Lin, Li, Feng, Wang: "MISF: Multi-level Interactive Siamese Filtering for High-Fidelity
Image Inpainting", CVPR 2022, https://arxiv.org/abs/2203.06304. One branch (KPB) predicts per-pixel
kernels from the damaged image and a feature of the other branch. The other branch (SIFB) encodes
the image, filters its deep feature by some of these kernels, has residual blocks, decodes, and
filters the decoded image by the other kernels.

Differs from the reference code:
  - any height and width; the code swaps the two in the size of the feature kernels, so it only
    runs on squares;
  - `conv_final` is left out; the checkpoints hold it, but nothing uses it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, ConvTranspose, normal_init
from jaxinpaint.layers.filtering import predicted_kernel_filter
from jaxinpaint.layers.in_turn import in_turn
from jaxinpaint.layers.kernel_prediction import KernelPrediction
from jaxinpaint.layers.norm import instance_norm
from jaxinpaint.layers.resnet import ResnetBlock

MULTIPLE = 4  # sides of the image: the middle has a quarter of the resolution ...
MIN_SIDE = 12  # ... and its features are mirrored by 2 pixels
SHARED = 4  # feature channels that share one set of predicted values


class Generator(nn.Module):
  """Both branches and the two filterings.

  Attributes:
    width: channels at full resolution, 64 as published; all others scale with it.
    blocks: number of residual blocks.
    kernel_size: side of the predicted filters, 3 as published.
    remat: recompute the residual blocks in the backward pass instead of storing their results.
    kernel_init: of all kernels; biases start at zero.
    dtype: of the computation. Parameters, statistics, the filtering of the image and the output
      are float32.
  """

  width: int = 64
  blocks: int = 8
  kernel_size: int = 3
  remat: bool = False
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 4, at least 12. Pixels in the hole are
        not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here; taken as every network takes it.

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; and intermediate results: 'raw'
      (before filtering), 'kernels', 'filtered_feature'.

    Raises:
      ValueError: the network does not accept this image size.
    """
    del train
    arrays.check_multiple(*image.shape[1:3], MULTIPLE, MIN_SIDE)
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    width, taps = self.width, self.kernel_size**2
    normed = lambda y: nn.relu(instance_norm(y))

    x = jnp.concatenate([image * (1 - mask), mask], -1).astype(self.dtype)
    y = normed(Conv(width, 7, padding=3, pad_mode='reflect', name='encoder0', **init)(x))
    y = normed(Conv(2 * width, 4, stride=2, padding=1, name='encoder1', **init)(y))
    branch = KernelPrediction(
      width, 3 * taps, feature_kernels=4 * width // SHARED * taps, name='kpb', **init
    )
    predicted = branch(x, y)
    y = normed(Conv(4 * width, 4, stride=2, padding=1, name='encoder2', **init)(y))
    # The reference stretches the values along the channel axis before it reads them as
    # [channel, tap], so tap t of channel c is value (c * taps + t) // SHARED.
    kernels = jnp.repeat(predicted['feature'], SHARED, axis=-1)
    y = predicted_kernel_filter(y, kernels, self.kernel_size)
    outputs = {'filtered_feature': y, 'kernels': predicted['image'].astype(jnp.float32)}
    names = [f'middle{i}' for i in range(self.blocks)]
    y = in_turn(self, ResnetBlock, names, y, remat=self.remat, **init)
    y = normed(ConvTranspose(2 * width, 4, 2, 1, name='decoder0', **init)(y))
    y = normed(ConvTranspose(width, 4, 2, 1, name='decoder1', **init)(y))
    raw = Conv(3, 7, padding=3, pad_mode='reflect', name='decoder2', **init)(y)
    outputs['raw'] = raw.astype(jnp.float32)
    y = predicted_kernel_filter(outputs['raw'], outputs['kernels'], self.kernel_size)
    outputs['out'] = (jnp.tanh(y) + 1) / 2
    return outputs
