"""PConv's network: a U-Net whose convolutions see known pixels only.

Liu, Reda, Shih, Wang, Tao, Catanzaro: "Image Inpainting for Irregular Holes Using Partial
Convolutions", ECCV 2018, https://arxiv.org/abs/1804.07723. Every layer makes up for the
unknown part of its windows. A window counts as known for the next layer if any of it was known, so
holes shrink from layer to layer, and no value has to be put into them at the start.

Pictures are standardised by ImageNet's mean and deviation inside, and so is what the last layer
gives, which has no activation.

Two readings of a layer, `renorm`: 'ratio' (the default; the paper and NVIDIA's code) multiplies by
values / known values of a window and so keeps the size of what it adds up; 'mean' (the port
naoto0804/pytorch-inpainting-with-partial-conv and its weights) divides by the known values alone.
There activations shrink by the window's size in every layer that no batch norm follows, and below
batch norm's epsilon in the others, so training starts slowly. Imported weights set it.

Differs from the paper:
  - 7 levels as in the port, for sides that are multiples of 128; the paper's network for 512 x 512
    has 8 (`levels`).

Differs from the reference code (the port; the authors published the layer and no network):
  - callers pass images in [0, 1] and masks with 1 in the hole; the output is brought back to [0, 1]
    and clipped. Losses see it before that ('standardised');
  - a mask has one channel where all channels of the features share it; the numbers are the same;
  - running variances use the biased estimate (PyTorch: n / (n - 1) times that).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers import partial_conv
from jaxinpaint.layers.conv import upsample_nearest
from jaxinpaint.layers.partial_conv import PartialConv, PartialConvNorm, Renorm

KERNEL_SIZES = (7, 5, 5, 3, 3, 3, 3, 3)  # of the encoder
SCALES = (1, 2, 4, 8, 8, 8, 8, 8)  # times `width`: its channels
SLOPE = 0.2  # of the decoder
kaiming_init = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


class Generator(nn.Module):
  """The U-Net.

  Attributes:
    width: channels of the first level; the deepest have 8 times as many.
    levels: how often the encoder halves the resolution; image sides are multiples of 2**levels.
    renorm: 'ratio' or 'mean', as above.
    dtype: of the computation; parameters, statistics, masks and outputs are float32.
  """

  width: int = 64
  levels: int = 7
  renorm: Renorm = 'ratio'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    *,
    train: bool = False,
    frozen_encoder: bool = False,
  ) -> dict[str, jax.Array]:
    """Paints the whole picture from its known part.

    Args:
      image: f32[B,H,W,3] in [0, 1]; H and W multiples of 2**levels. Pixels in the hole are not
        read.
      mask: f32[B,H,W,1], 1 = hole.
      train: use batch statistics; needs mutable=['batch_stats'].
      frozen_encoder: use the encoder's running statistics in training, too.

    Returns:
      'out' f32[B,H,W,3] in [0, 1]; 'standardised' f32[B,H,W,3], the same before it is clipped and
      brought to [0, 1]; 'valid' f32[B,H,W,1], 0 where even the last layer saw nothing known.

    Raises:
      ValueError: the network does not accept this image size.
    """
    arrays.check_multiple(*image.shape[1:3], 2**self.levels)
    valid = 1 - mask.astype(jnp.float32)
    shown = jnp.where(valid > 0, arrays.standardise(image), 0.0).astype(self.dtype)
    layer = dict(renorm=self.renorm, kernel_init=kaiming_init, dtype=self.dtype)

    levels = [(shown, valid)]
    for i in range(self.levels):
      encode = PartialConvNorm(
        self.width * SCALES[i],
        KERNEL_SIZES[i],
        stride=2,
        norm=i > 0,
        name=f'encoder{i + 1}',
        **layer,
      )
      levels.append(encode(*levels[-1], train=train and not frozen_encoder))

    x, valid = levels[-1]
    for i in range(self.levels, 1, -1):
      joined = partial_conv.join((upsample_nearest(x), upsample_nearest(valid)), levels[i - 1])
      decode = PartialConvNorm(self.width * SCALES[i - 2], slope=SLOPE, name=f'decoder{i}', **layer)
      x, valid = decode(*joined, train=train)
    joined = partial_conv.join((upsample_nearest(x), upsample_nearest(valid)), levels[0])
    x, valid = PartialConv(3, 3, padding=1, name='decoder1', **layer)(*joined)
    x = x.astype(jnp.float32)
    out = x * jnp.asarray(arrays.IMAGENET_STD) + jnp.asarray(arrays.IMAGENET_MEAN)
    return {'out': jnp.clip(out, 0, 1), 'standardised': x, 'valid': valid}
