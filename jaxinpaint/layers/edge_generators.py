"""EdgeConnect's two generators: one draws the missing edges, the other fills in the colours.

Nazeri, Ng, Joseph, Qureshi, Ebrahimi: "EdgeConnect: Generative Image Inpainting with Adversarial
Edge Learning", ICCV Workshops 2019, https://arxiv.org/abs/1901.00212. Both are an encoder of three
convolutions, residual blocks at a quarter of the resolution, and a decoder, after Johnson et al.,
ECCV 2016. JPGNet takes the pair as its generative part.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, ConvTranspose, normal_init
from jaxinpaint.layers.norm import instance_norm
from jaxinpaint.layers.resnet import ResnetBlock
from jaxinpaint.layers.spectral_norm import SNConv, SNConvTranspose

MULTIPLE = 4  # sides of the image: the middle has a quarter of the resolution ...
MIN_SIDE = 12  # ... and its features are mirrored by 2 pixels
# Weights of red, green and blue in the gray picture: ITU-R BT.709 as scikit-image rounds it, whose
# Canny detector reads the same gray.
GRAY_WEIGHTS = (0.2125, 0.7154, 0.0721)


def gray(image: jax.Array) -> jax.Array:
  """f32[B,H,W,3] -> f32[B,H,W,1]: the gray picture in which edges are detected."""
  return (image * jnp.asarray(GRAY_WEIGHTS)).sum(-1, keepdims=True)


def complete_edges(drawn: jax.Array, known: jax.Array, mask: jax.Array) -> jax.Array:
  """Drawn edges in the hole, Canny's edges outside; all f32[B,H,W,1], mask 1 = hole."""
  return drawn * mask + known * (1 - mask)


class EncoderDecoder(nn.Module):
  """The body of both generators, up to the last activation.

  Attributes:
    features: of the output.
    width: channels at full resolution; 2 and 4 times as many below.
    blocks: number of residual blocks.
    spectral_norm: normalise every kernel but the last; the blocks then have no biases.
    remat: recompute the residual blocks in the backward pass.
    kernel_init: of all kernels; biases start at zero.
    dtype: of the computation; the output is float32.
  """

  features: int
  width: int = 64
  blocks: int = 8
  spectral_norm: bool = False
  remat: bool = False
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
    """[B,H,W,I] -> 'logit' f32[B,H,W,features], and the features before it: 'encoded', 'middle'.

    With spectral norm, `train` does one power iteration and needs mutable=['spectral'].
    """
    arrays.check_multiple(*x.shape[1:3], MULTIPLE, MIN_SIDE)
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    conv, transpose, how = Conv, ConvTranspose, {}
    if self.spectral_norm:
      conv, transpose, how = SNConv, SNConvTranspose, {'train': train}
    block = nn.remat(ResnetBlock, static_argnums=(2,)) if self.remat else ResnetBlock
    normed = lambda y: nn.relu(instance_norm(y))
    w = self.width

    y = conv(w, 7, padding=3, pad_mode='reflect', name='encoder0', **init)(x, **how)
    y = conv(2 * w, 4, stride=2, padding=1, name='encoder1', **init)(normed(y), **how)
    y = conv(4 * w, 4, stride=2, padding=1, name='encoder2', **init)(normed(y), **how)
    y = normed(y)
    outputs = {'encoded': y}
    for i in range(self.blocks):
      y = block(spectral_norm=self.spectral_norm, name=f'middle{i}', **init)(y, train)
    outputs['middle'] = y
    y = normed(transpose(2 * w, 4, 2, 1, name='decoder0', **init)(y, **how))
    y = normed(transpose(w, 4, 2, 1, name='decoder1', **init)(y, **how))
    y = Conv(self.features, 7, padding=3, pad_mode='reflect', name='decoder2', **init)(y)
    outputs['logit'] = y.astype(jnp.float32)
    return outputs


class EdgeGenerator(nn.Module):
  """G1: the edges of the whole picture, from the known part of its gray version and its edges.

  Attributes:
    width: as in `EncoderDecoder`, like all fields not listed here.
    use_spectral_norm: False leaves it out; the residual blocks then have biases.
  """

  width: int = 64
  blocks: int = 8
  use_spectral_norm: bool = True
  remat: bool = False
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, gray: jax.Array, edges: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Draws edges.

    Args:
      gray: f32[B,H,W,1] in [0,1]; H and W multiples of 4, at least 12. The hole is not read.
      edges: f32[B,H,W,1] in {0,1}, Canny's. The hole is not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: does one power iteration; needs mutable=['spectral'].

    Returns:
      'edges': f32[B,H,W,1] in [0,1], in the hole and around it; 'logit', 'encoded', 'middle'.
    """
    x = jnp.concatenate([gray * (1 - mask) + mask, edges * (1 - mask), mask], -1)
    body = EncoderDecoder(
      1,
      self.width,
      self.blocks,
      self.use_spectral_norm,
      self.remat,
      self.kernel_init,
      self.dtype,
      name='body',
    )
    outputs = body(x, train=train)
    return {**outputs, 'edges': jax.nn.sigmoid(outputs['logit'])}


class InpaintGenerator(nn.Module):
  """G2: the picture, from its known part and all of its edges.

  Attributes:
    width: as in `EncoderDecoder`, like all other fields.
  """

  width: int = 64
  blocks: int = 8
  remat: bool = False
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, edges: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole picture.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 4, at least 12. The hole is not read: it
        is painted white, which is the network's only sign of where it is.
      edges: f32[B,H,W,1] in [0,1], of the hole too.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here.

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; 'logit', 'encoded', 'middle'.
    """
    x = jnp.concatenate([image * (1 - mask) + mask, edges], -1)
    body = EncoderDecoder(
      3,
      self.width,
      self.blocks,
      remat=self.remat,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name='body',
    )
    outputs = body(x, train=train)
    return {**outputs, 'out': (jnp.tanh(outputs['logit']) + 1) / 2}
