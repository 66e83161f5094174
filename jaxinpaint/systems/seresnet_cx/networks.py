"""GLCIC's networks with SE-ResNet blocks in the encoder and in both discriminators.

Lin, Wang: "Image Inpainting Based on New Encoder and Similarity Constraint", Computer Systems &
Applications 30(1), 2021, http://c-s-a.org.cn/html/2021/1/7742.html. It describes the structure of
the networks; no code or weights exist. What it leaves open follows GLCIC (Iizuka, Simo-Serra,
Ishikawa: "Globally and Locally Consistent Image Completion", SIGGRAPH 2017) in its PyTorch port
(otenim/GLCIC-PyTorch), because the paper's own numbers are those of the port (160 and 96 pixels,
90,000 / 10,000 / 400,000 steps, weight 0.0004). These parts are from GLCIC:
conv1, conv11, conv12, conv14, conv16, conv17, the rates 2, 4, 8, 16, kernels of 5 in the
discriminators, ReLU after the 1024 features, concatenation (local, global), sigmoid output, and
conv -> ReLU -> BatchNorm in plain layers.

Differs from the paper, or reads it in one of several ways:
  - squeeze and excitation has SENet's two dense layers; the paper mentions one;
  - the excitation scales the block's features; the paper says the block's input, whose number of
    channels does not fit;
  - one block replaces each of conv2 ... conv6 in GLCIC's encoder;
  - `disc_tail_stride`: the paper gives stride 2 only for the first four layers of a discriminator.
    This leaves 10 x 10 (global) and 12 x 12 (local) cells before the dense layers, and 156 M
    parameters. With 2, both have 3 x 3 cells, nearly as in GLCIC, and 39 M;
  - `mask_channel`: the input has three channels; in GLCIC the mask is the fourth;
  - the local discriminator is the global one without its first layer, so its first layer has 128
    channels and not GLCIC's 64.

No reference code was released, so there are no bugs of it to reproduce.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, ConvTranspose, torch_init
from jaxinpaint.layers.edge_generators import gray
from jaxinpaint.layers.norm import batch_norm
from jaxinpaint.layers.squeeze_excite import SEResnetBlock

MULTIPLE = 4  # sides of the image: the middle has a quarter of the resolution
DILATIONS = (2, 4, 8, 16)


def edge_map(image: jax.Array) -> jax.Array:
  """How strong the edges are, for pictures: Sobel's magnitude of the gray image.

  The paper's figure 7 compares edge maps of originals and outputs, and names no detector.

  Args:
    image: f32[B,H,W,3] in [0,1].

  Returns:
    f32[B,H,W,1] in [0,1]; 1 is a step from black to white.
  """
  x = jnp.pad(gray(image), ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  rows = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
  columns = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
  across, down = rows[:, :, 2:] - rows[:, :, :-2], columns[:, 2:] - columns[:, :-2]
  return jnp.clip(jnp.hypot(across, down) / 4, 0, 1)


class Generator(nn.Module):
  """Completion network.

  Attributes:
    width: channels at full resolution, 64 as in GLCIC; all others scale with it.
    use_se_resnet: False: layers 2 to 6 are GLCIC's convolutions.
    se_reduction: channels of a block, divided by those of its squeeze.
    mask_channel: True: the mask (1 = hole) is a fourth input channel.
    dtype: of the computation. Parameters, statistics and the output are float32.
  """

  width: int = 64
  use_se_resnet: bool = True
  se_reduction: int = 16
  mask_channel: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 4. Pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: norms use the batch's statistics and update the running ones ('batch_stats').

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; and intermediate results at a
      quarter of the resolution: 'encoder' (after layer 6) and 'middle' (after layer 12).

    Raises:
      ValueError: the network does not accept this image size.
    """
    arrays.check_multiple(*image.shape[1:3], MULTIPLE)
    init = dict(kernel_init=torch_init, dtype=self.dtype)
    width, outputs = self.width, {}

    def plain(y, i, features, kernel=3, stride=1, dilation=1):
      padding = dilation * (kernel // 2)
      layer = Conv(features, kernel, stride, padding, dilation, name=f'conv{i}', **init)
      return batch_norm(f'bn{i}', train, self.dtype)(nn.relu(layer(y)))

    def up(y, i, features):
      y = nn.relu(ConvTranspose(features, 4, 2, 1, name=f'deconv{i}', **init)(y))
      return batch_norm(f'bn{i}', train, self.dtype)(y)

    def encode(y, i, features, stride=1):
      if not self.use_se_resnet:
        return plain(y, i, features, stride=stride)
      block = SEResnetBlock(features, stride, self.se_reduction, name=f'block{i}', **init)
      return block(y, train=train)

    y = jnp.where(mask == 1, 0.0, image * (1 - mask))
    if self.mask_channel:
      y = jnp.concatenate([y, mask], -1)
    y = plain(y.astype(self.dtype), 1, width, kernel=5)
    y = encode(y, 2, 2 * width, stride=2)
    y = encode(y, 3, 2 * width)
    y = encode(y, 4, 4 * width, stride=2)
    y = encode(y, 5, 4 * width)
    outputs['encoder'] = y = encode(y, 6, 4 * width)
    for i, rate in enumerate(DILATIONS, start=7):
      y = plain(y, i, 4 * width, dilation=rate)
    y = plain(y, 11, 4 * width)
    outputs['middle'] = y = plain(y, 12, 4 * width)
    y = up(y, 13, 2 * width)
    y = plain(y, 14, 2 * width)
    y = up(y, 15, width)
    y = plain(y, 16, max(1, width // 2))
    y = Conv(3, 3, padding=1, name='conv17', **init)(y)
    outputs['out'] = nn.sigmoid(y.astype(jnp.float32))
    return outputs


class Branch(nn.Module):
  """One of the two discriminators, up to its features: layers `first` to 6 and a dense one.

  Attributes:
    first: 1 for the global one, 2 for the local one.
    width: channels of layer 1.
    features: of the dense layer.
    use_se_resnet: False: layers 4 to 6 are GLCIC's convolutions, all of stride 2.
    se_reduction: as in the generator.
    tail_stride: stride of layers 5 and 6 if they are blocks.
    dtype: of the computation; parameters and statistics are float32.
  """

  first: int
  width: int = 64
  features: int = 1024
  use_se_resnet: bool = True
  se_reduction: int = 16
  tail_stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,3] -> [B,features]."""
    init = dict(kernel_init=torch_init, dtype=self.dtype)
    x = x.astype(self.dtype)
    for i in range(self.first, 7):
      features = min(2 ** (i - 1), 8) * self.width
      if i >= 4 and self.use_se_resnet:
        stride = 2 if i == 4 else self.tail_stride
        block = SEResnetBlock(features, stride, self.se_reduction, name=f'block{i}', **init)
        x = block(x, train=train)
      else:
        x = nn.relu(Conv(features, 5, stride=2, padding=2, name=f'conv{i}', **init)(x))
        x = batch_norm(f'bn{i}', train, self.dtype)(x)
    # Channels first, as PyTorch flattens, so that a dense kernel's rows are a checkpoint's columns.
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    return nn.relu(nn.Dense(self.features, name='linear', **init)(x))


class Discriminator(nn.Module):
  """Judges a picture together with an area of it; its dense layers allow only one size of each.

  Attributes:
    width: channels of the global branch's first layer.
    features: number of features that each branch returns.
    use_se_resnet: see Branch.
    se_reduction: see Branch.
    tail_stride: see Branch.
    dtype: of the computation; parameters, statistics and logits are float32.
  """

  width: int = 64
  features: int = 1024
  use_se_resnet: bool = True
  se_reduction: int = 16
  tail_stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, local: jax.Array, whole: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Logits of 'real'.

    Args:
      local: [B,h,w,3] in [0,1], an area of `whole`.
      whole: [B,H,W,3] in [0,1].
      train: norms use the batch's statistics and update the running ones ('batch_stats').

    Returns:
      'logits' f32[B,1], and the branches' features 'local' and 'global' [B,features].
    """
    fields = dict(
      width=self.width,
      features=self.features,
      use_se_resnet=self.use_se_resnet,
      se_reduction=self.se_reduction,
      tail_stride=self.tail_stride,
      dtype=self.dtype,
    )
    outputs = {
      'local': Branch(2, name='local', **fields)(local, train=train),
      'global': Branch(1, name='global', **fields)(whole, train=train),
    }
    both = jnp.concatenate([outputs['local'], outputs['global']], -1)
    logits = nn.Dense(1, kernel_init=torch_init, dtype=self.dtype, name='linear')(both)
    return outputs | {'logits': logits.astype(jnp.float32)}
