"""LaMa: large masks by fast Fourier convolutions.

Suvorov, Logacheva, Mashikhin, Remizova, Ashukha, Silvestrov, Kong, Goka, Park, Lempitsky:
"Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022,
https://arxiv.org/abs/2109.07161. The generator halves the picture three times, passes it through
residual blocks of fast Fourier convolutions (`layers/fourier_conv.py`), of which every one sees the
whole picture, and doubles it back. The defaults are Big LaMa's; LaMa-Fourier has nine blocks.

Differs from the paper: nothing known; where its text leaves something open, the code is followed.
Differs from the reference code: nothing known.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, ConvTranspose, Initializer, torch_init
from jaxinpaint.layers.fourier_conv import FFC, FFCResnetBlock
from jaxinpaint.layers.in_turn import in_turn
from jaxinpaint.layers.norm import batch_norm

MULTIPLE = 8  # sides of the image: the blocks have an eighth of the resolution ...
MIN_SIDE = 16  # ... and mirror their borders, for which they need two pixels
LEVELS = 3


def multiple(local_fourier: bool) -> int:
  """That sides of the image must be multiples of: quarters need even sides of the features."""
  return 2 * MULTIPLE if local_fourier else MULTIPLE


Features = tuple[jax.Array, jax.Array]  # local and global, [B,H/8,W/8,...]


class Front(nn.Module):
  """The image in features at an eighth of the resolution; attributes as of `Generator`."""

  width: int = 64
  global_share: float = 0.75
  kernel_init: Initializer = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, mask: jax.Array, *, train: bool = False) -> Features:
    """f32[B,H,W,3] in [0,1], f32[B,H,W,1] -> the local and the global features."""
    shared = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    x = jnp.concatenate([image * (1 - mask), mask], -1).astype(self.dtype)
    stem = FFC(self.width, global_out=0.0, kernel_size=7, name='stem', **shared)
    y = stem((x, None), train=train)
    for i in range(1, LEVELS + 1):
      share = self.global_share if i == LEVELS else 0.0
      down = FFC(self.width * 2**i, global_out=share, stride=2, name=f'down{i}', **shared)
      y = down(y, train=train)
    return y


class Rear(nn.Module):
  """The features through all blocks, and back to an image; attributes as of `Generator`.

  With `remat` the blocks are recomputed in the backward pass, where norms do not train.
  """

  width: int = 64
  blocks: int = 18
  global_share: float = 0.75
  local_fourier: bool = False
  remat: bool = False
  kernel_init: Initializer = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, features: Features, *, train: bool = False) -> dict[str, jax.Array]:
    """-> {'out': f32[B,H,W,3] in [0,1], 'middle': what the blocks give, local channels first}."""
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    body = dict(global_share=self.global_share, local_fourier=self.local_fourier, **init)
    names = [f'block{i}' for i in range(self.blocks)]
    if self.remat and not train:
      features = in_turn(self, FFCResnetBlock, names, features, remat=True, **body)
    else:
      for name in names:
        features = FFCResnetBlock(name=name, **body)(features, train=train)
    y = middle = jnp.concatenate(features, -1)
    for i in reversed(range(LEVELS)):
      up = ConvTranspose(self.width * 2**i, 3, output_padding=1, name=f'up{i}', **init)
      y = nn.relu(batch_norm(f'up{i}_bn', train, self.dtype)(up(y)))
    y = Conv(3, 7, padding=3, pad_mode='reflect', name='out', **init)(y)
    return {'out': nn.sigmoid(y.astype(jnp.float32)), 'middle': middle}


class Generator(nn.Module):
  """Paints the whole image.

  Attributes:
    width: channels at full resolution, 64 as published; the blocks have eight times as many.
    blocks: residual blocks: 18 of Big LaMa, 9 of LaMa-Fourier.
    global_share: of the blocks' channels.
    local_fourier: Fourier units of quarters of the picture, too; for pictures whose sides are
      multiples of 16.
    kernel_init: of all kernels; biases start at zero.
    dtype: of the computation; parameters, statistics, spectra and the output are float32.
  """

  width: int = 64
  blocks: int = 18
  global_share: float = 0.75
  local_fourier: bool = False
  kernel_init: Initializer = torch_init
  dtype: Any = jnp.float32

  @property
  def front(self) -> Front:
    """The part before the blocks; its variables are those below 'front'."""
    settings = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    return Front(self.width, self.global_share, parent=None, **settings)

  @property
  def rear(self) -> Rear:
    """The part from the blocks on; its variables are those below 'rear'."""
    settings = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    shape = self.width, self.blocks, self.global_share, self.local_fourier
    return Rear(*shape, parent=None, **settings)

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 8, at least 16. Pixels in the hole are not
        read.
      mask: f32[B,H,W,1], 1 = hole.
      train: normalise by the batch's statistics; needs mutable=['batch_stats'].

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; 'middle' [B,H/8,W/8,8*width]: what
      the blocks give.

    Raises:
      ValueError: the network does not accept this image size.
    """
    arrays.check_multiple(*image.shape[1:3], multiple(self.local_fourier), MIN_SIDE)
    features = self.front.clone(parent=self, name='front')(image, mask, train=train)
    return self.rear.clone(parent=self, name='rear')(features, train=train)


class Discriminator(nn.Module):
  """Judges patches of the whole output: pix2pixHD's, with four halvings.

  Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
  CVPR 2018.

  Attributes:
    width: channels of the first convolution; the others have 2, 4, 8 and 8 times as many.
    kernel_init: of the kernels; biases start at zero.
    dtype: of the computation; parameters, statistics and logits are float32.
  """

  width: int = 64
  kernel_init: Initializer = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """f32[B,H,W,3] in [0,1] -> logits f32[B,h,w,1] (256 x 256 pixels: 19 x 19), five features.

    `train`: normalise by the batch's statistics; needs mutable=['batch_stats'].
    """
    settings = dict(padding=2, kernel_init=self.kernel_init, dtype=self.dtype)
    x, features = x.astype(self.dtype), []
    for i, (scale, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 2), (8, 1)), start=1):
      x = Conv(self.width * scale, 4, stride=stride, name=f'conv{i}', **settings)(x)
      if i > 1:
        x = batch_norm(f'bn{i}', train, self.dtype)(x)
      x = nn.leaky_relu(x, 0.2)
      features.append(x)
    return Conv(1, 4, name='conv6', **settings)(x).astype(jnp.float32), tuple(features)
