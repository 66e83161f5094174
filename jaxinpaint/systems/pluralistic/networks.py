"""Pluralistic (PIC): many plausible completions of one damaged image.

Zheng, Cham, Cai: "Pluralistic Image Completion", CVPR 2019, https://arxiv.org/abs/1903.04227. A
conditional variational autoencoder with two paths. The reconstructive path encodes what the hole
hides as a posterior of z; the generative path infers a prior of z from what is visible. One
generator decodes both, and attends to itself (short term) and to the encoder's features of visible
places (long term). At inference z is drawn from the prior, so each draw is another completion.

Differs from the paper: see recipe.py for the losses. The networks follow the code.
Differs from the reference code:
  - the kernels under spectral norm start as PyTorch's own convolutions (`kernel_init='torch'`).
    The code asks for orthogonal kernels of gain 0.02 ('orthogonal_0.02' here), but its wrapper has
    by then renamed the weights, as the keys of its checkpoints tell. Spectral norm hides the scale
    of a kernel, but the smaller it is, the larger is each step of Adam. The attention's queries,
    which have no spectral norm, start as small as there. Biases start at 0;
  - the power iterations advance in training only. Otherwise one step of the iteration is made from
    the stored vectors and forgotten, so that an output does not depend on those before it. The
    first pass of the code is the same;
  - the discriminators' attention has no residual block, which in the code is never run;
  - `layers` and the widths may be chosen; the attention and the four outputs keep their scales.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, avg_pool, torch_init
from jaxinpaint.layers.norm import InstanceNorm
from jaxinpaint.layers.parameters import parameter
from jaxinpaint.layers.self_attention import attend
from jaxinpaint.layers.spectral_norm import SNConv, SNConvTranspose

SCALES = 4  # outputs, at 1/8, 1/4, 1/2 and all of the image's side
SLOPE = 0.1  # of LeakyReLU
MEMORY = 2  # which of the encoder's features the attention remembers: those at 1/8
KERNEL_INITS = {'torch': torch_init, 'orthogonal_0.02': nn.initializers.orthogonal(0.02)}
# Of the queries: as large as the code's orthogonal kernel of gain 0.02.
_QUERY_INIT = nn.initializers.variance_scaling(0.02**2, 'fan_in', 'normal')


def multiple(layers: int) -> int:
  """Of the sides of an image: the number of its pixels for one of the deepest features."""
  return 2**layers


def min_side(layers: int) -> int:
  """The discriminators end in an unpadded 3x3 convolution of the deepest features."""
  return 3 * 2**layers


def _leaky(x: jax.Array, slope: float = SLOPE) -> jax.Array:
  return nn.leaky_relu(x, slope)


def _channels(width: int, scale: int) -> int:
  """Of the features at 1/2^scale of the side, from scale 1."""
  return width * min(2 ** (scale - 1), 4)


class ResidualBlock(nn.Module):
  """conv(act(conv(act(x)))) + conv1x1(x), all spectrally normalised.

  Attributes:
    features: of the output.
    hidden: channels between the two convolutions.
    down: halve the result by averaging.
    slope: of LeakyReLU.
    kernel_init: of the kernels.
    dtype: of the computation.
  """

  features: int
  hidden: int
  down: bool = False
  slope: float = SLOPE
  kernel_init: Any = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,features], or half of both sides."""
    init = dict(kernel_init=self.kernel_init, always=True, dtype=self.dtype)
    y = SNConv(self.hidden, 3, padding=1, name='conv1', **init)(_leaky(x, self.slope), train=train)
    y = SNConv(self.features, 3, padding=1, name='conv2', **init)(
      _leaky(y, self.slope), train=train
    )
    y += SNConv(self.features, 1, name='bypass', **init)(x, train=train)
    return avg_pool(y) if self.down else y


class FirstBlock(nn.Module):
  """pool(conv(act(conv(x)))) + conv1x1(pool(x)): the block that sees the image.

  Attributes:
    features: of the output.
    kernel_init: of the kernels.
    dtype: of the computation.
  """

  features: int
  kernel_init: Any = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,C] -> [B,H/2,W/2,features]."""
    init = dict(kernel_init=self.kernel_init, always=True, dtype=self.dtype)
    y = SNConv(self.features, 3, padding=1, name='conv1', **init)(x, train=train)
    y = SNConv(self.features, 3, padding=1, name='conv2', **init)(_leaky(y), train=train)
    return avg_pool(y) + SNConv(self.features, 1, name='bypass', **init)(avg_pool(x), train=train)


class UpBlock(nn.Module):
  """up(act(norm(conv(act(norm(x)))))) + up(x); up: a transposed convolution.

  Attributes:
    features: of the output.
    hidden: channels between the two convolutions.
    kernel_init: of the kernels.
    dtype: of the computation.
  """

  features: int
  hidden: int
  kernel_init: Any = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,C] -> [B,2H,2W,features]."""
    init = dict(kernel_init=self.kernel_init, always=True, dtype=self.dtype)

    def up(x, name):
      layer = SNConvTranspose(self.features, 3, 2, 1, 1, rows='in', name=name, **init)
      return layer(x, train=train)

    def normed(x, name):  # instance norm with scale and bias
      return _leaky(InstanceNorm(dtype=self.dtype, name=name)(x))

    y = normed(x, 'norm1')
    y = SNConv(self.hidden, 3, padding=1, name='conv1', **init)(y, train=train)
    return up(normed(y, 'norm2'), 'conv2') + up(x, 'bypass')


class ShortLongAttention(nn.Module):
  """Attention to the features themselves, and with the same weights to the encoder's.

  The paper's section 3.3. gamma and alpha start at 0.

  Attributes:
    kernel_init: of the kernels under spectral norm.
    dtype: of the convolutions; the attention is float32.
  """

  kernel_init: Any = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    memory: jax.Array | None = None,
    valid: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    """Attends.

    Args:
      x: [B,h,w,C].
      memory: [B,h,w,C'], the encoder's features; None: the short term alone, without the block
        that would join both.
      valid: f32[B,h,w,1], 1 where the memory is of visible places; values between are allowed.
      train: advances the power iterations; needs mutable=['spectral'].

    Returns:
      [B,h,w,C].
    """
    c = x.shape[-1]
    scalar = lambda name: parameter(self, name, nn.initializers.zeros, (1,), jnp.float32)
    features = max(1, c // 4)
    query = Conv(features, 1, kernel_init=_QUERY_INIT, dtype=self.dtype, name='query')(x)
    values = x if memory is None else jnp.concatenate([x, memory], -1)
    attended = attend(query, values)
    out = scalar('gamma') * attended[..., :c] + x
    if memory is None:
      return out.astype(self.dtype)
    flow = scalar('alpha') * (1 - valid) * attended[..., c:] + valid * memory
    block = ResidualBlock(
      c, c, slope=0.01, kernel_init=self.kernel_init, dtype=self.dtype, name='block'
    )
    return block(jnp.concatenate([out, flow], -1).astype(self.dtype), train=train)


class Encoder(nn.Module):
  """Features of the visible part, the prior of z, and the posterior that the hidden part gives.

  Attributes:
    width: channels of the first features; the others have 2, 4, 4, ... times as many.
    latent: channels of z.
    layers: halvings.
    prior_blocks: residual blocks between the features and the prior.
    kernel_init: of the kernels.
    dtype: of the computation; parameters and distributions are float32.
  """

  width: int = 32
  latent: int = 128
  layers: int = 5
  prior_blocks: int = 6
  kernel_init: Any = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, hidden: bool = False, train: bool = False
  ) -> dict[str, Any]:
    """Encodes.

    Args:
      image: f32[B,H,W,3] in [0,1]; sides are multiples of 2^layers. Without `hidden`, pixels in the
        hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      hidden: also encode what the hole hides.
      train: advances the power iterations; needs mutable=['spectral'].

    Returns:
      'features': a tuple of [B,h,w,c] at 1/2, 1/4, ... of the visible part. 'prior': mean and
      standard deviation, f32[B,h,w,latent] each. 'posterior': likewise, with `hidden`.

    Raises:
      ValueError: the network does not accept this image size.
    """
    arrays.check_multiple(*image.shape[1:3], multiple(self.layers))
    hidden = hidden or self.is_initializing()
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    scaled = image * 2 - 1
    x = scaled * (1 - mask)
    if hidden:
      # Each hidden part is beside its visible one, so that a split batch stays on its devices.
      x = jnp.stack([x, scaled * mask], 1).reshape(-1, *x.shape[1:])
    x = FirstBlock(self.width, name='block0', **init)(x.astype(self.dtype), train=train)
    features = [x]
    for i in range(self.layers - 1):
      c = _channels(self.width, i + 2)
      block = ResidualBlock(c, x.shape[-1], down=True, name=f'encoder{i}', **init)
      x = block(x, train=train)
      features.append(x)
    if hidden:
      visible, complement = (
        [f.reshape(-1, 2, *f.shape[1:])[:, k] for f in features] for k in (0, 1)
      )
    else:
      visible = features
    c = x.shape[-1]

    def distribution(x, name):
      both = ResidualBlock(2 * self.latent, c, name=name, **init)(x, train=train)
      mean, deviation = jnp.split(both.astype(jnp.float32), 2, -1)
      return mean, nn.softplus(deviation)

    y = visible[-1]
    for i in range(self.prior_blocks):
      y = ResidualBlock(c, c, name=f'infer_prior{i}', **init)(y, train=train)
    outputs = {'features': tuple(visible), 'prior': distribution(y, 'prior')}
    if hidden:
      outputs['posterior'] = distribution(complement[-1], 'posterior')
    return outputs


class Generator(nn.Module):
  """Decodes z at four scales.

  Attributes:
    width: of the encoder, as are ...
    layers: ... the halvings.
    kernel_init: of the kernels.
    dtype: of the computation; parameters and outputs are float32.
  """

  width: int = 32
  layers: int = 5
  kernel_init: Any = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    z: jax.Array,
    feature: jax.Array,
    memory: jax.Array,
    mask: jax.Array,
    *,
    train: bool = False,
  ) -> dict[str, Any]:
    """Decodes.

    Args:
      z: f32[B,h,w,latent], of any number of draws for each image.
      feature: [B,h,w,c], the encoder's deepest features of the visible part.
      memory: [B,H/8,W/8,c], its features there.
      mask: f32[B,H,W,1], 1 = hole.
      train: advances the power iterations; needs mutable=['spectral'].

    Returns:
      'scales': f32[B,H/8,W/8,3], ..., f32[B,H,W,3] in [0,1]; 'out': the last of them.
    """
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    c = _channels(self.width, self.layers)
    x = ResidualBlock(c, c, name='generator', **init)(z.astype(self.dtype), train=train)
    x += feature.astype(self.dtype)
    scales: list[jax.Array] = []
    for i in range(self.layers):
      c = _channels(self.width, max(self.layers - i, 1))
      x = UpBlock(c, c, name=f'decoder{i}', **init)(x, train=train)
      if i == self.layers - SCALES:
        valid = 1 - arrays.resize_bilinear(mask, *x.shape[1:3], align_corners=True)
        x = ShortLongAttention(name='attention', **init)(x, memory, valid, train=train)
      if i >= self.layers - SCALES:
        head = SNConv(3, 3, padding=1, pad_mode='reflect', always=True, name=f'out{i}', **init)
        picture = nn.tanh(head(_leaky(x), train=train).astype(jnp.float32))
        scales.append((picture + 1) / 2)
        x = jnp.concatenate([x, picture.astype(self.dtype)], -1)
    return {'scales': tuple(scales), 'out': scales[-1]}


class Discriminator(nn.Module):
  """Judges patches of an image.

  Attributes:
    width: channels of the first features; the others have 2, 4, 4, ... times as many.
    layers: halvings.
    kernel_init: of the kernels.
    dtype: of the computation; parameters and logits are float32.
  """

  width: int = 32
  layers: int = 5
  kernel_init: Any = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
    """f32[B,H,W,3] in [0,1] -> logits f32[B,H/2^layers-2,W/2^layers-2,1].

    `train` advances the power iterations and needs mutable=['spectral'].
    """
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    x = (image * 2 - 1).astype(self.dtype)
    x = FirstBlock(self.width, name='block0', **init)(x, train=train)
    for i in range(self.layers - 1):
      if i == MEMORY:
        x = ShortLongAttention(name='attention', **init)(x, train=train)
      c = _channels(self.width, i + 2)
      block = ResidualBlock(c, x.shape[-1], down=True, name=f'encoder{i}', **init)
      x = block(x, train=train)
    c = x.shape[-1]
    x = ResidualBlock(c, c, name='block1', **init)(x, train=train)
    logits = SNConv(1, 3, always=True, name='conv', **init)(_leaky(x), train=train)
    return logits.astype(jnp.float32)
