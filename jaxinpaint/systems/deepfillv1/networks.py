"""DeepFill v1: coarse-to-fine inpainting with contextual attention.

Yu, Lin, Yang, Shen, Lu, Huang: "Generative Image Inpainting with Contextual Attention", CVPR 2018,
https://arxiv.org/abs/1801.07892. A first dilated encoder-decoder paints a coarse result. A second
one refines it with two encoders: one is dilated, the other attends to known patches. Two critics
judge the whole image and the part of it around the hole.

The default follows the authors' released TensorFlow code, whose outputs the tests compare with; its
published weights and results were not at hand here. `padding='symmetric', resize='floor',
mask_steps=1, key_norm='sum', critic='port'` is daa233/generative-inpainting-pytorch; most PyTorch
results were made with it.

Differs from the paper:
  - this is the released network, with 3,601,542 parameters; the paper counts 2.9 M;
  - attention and the layers of both encoders follow the code, because the text describes only a
    part of them;
  - the text says that attention scores are cosines of foreground and background patches. The code,
    and this, divides only the background patches by their length: scores grow with the features.
Differs from the reference code:
  - every sample has its own mask; the code uses one mask for the whole batch;
  - the network takes RGB, unless `channel_order='bgr'`. The authors' weights need 'bgr': their code
    reads files with OpenCV and does not reorder the channels;
  - height and width are any multiples of 8; the code crops images to such sizes.
Peculiarities of the code, all kept: see layers.contextual_attention (dark borders, masked scores of
0); results are clipped to their range, without tanh, so pixels out of range have no gradient.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers import contextual_attention as ca
from jaxinpaint.layers.same_conv import Padding, SameConv

MULTIPLE = 8  # sides of the image: features have a quarter of the resolution, the keys half of that
MIN_SIDE = 16
ChannelOrder = Literal['rgb', 'bgr']


def _in_order(image: jax.Array, order: ChannelOrder) -> jax.Array:
  if order not in ('rgb', 'bgr'):
    raise ValueError(f"channel_order {order!r} must be 'rgb' or 'bgr'")
  return image[..., ::-1] if order == 'bgr' else image


class _Stage(nn.Module):
  """The layers of both stages.

  Attributes:
    width: channels at full resolution, 32 as published.
    padding: of convolutions with stride 2, as in layers.same_conv.
    dtype: of the computation.
  """

  width: int
  padding: Padding
  dtype: Any

  def conv(self, x, name, features, kernel_size=3, activation=nn.elu, **settings):
    """One named convolution."""
    layer = SameConv(
      features, kernel_size, padding=self.padding, dtype=self.dtype, name=name, **settings
    )
    return activation(layer(x))

  def upsample(self, x, name, features):
    """Nearest neighbour, then a convolution."""
    return self.conv(x.repeat(2, axis=1).repeat(2, axis=2), name, features)

  def atrous(self, x, prefix):
    """Four dilated convolutions."""
    for number, rate in ((7, 2), (8, 4), (9, 8), (10, 16)):
      x = self.conv(x, f'{prefix}conv{number}_atrous', 4 * self.width, dilation=rate)
    return x

  def decode(self, x, prefix):
    """From a quarter of the resolution to an image, clipped to [-1, 1], in float32."""
    w, name = self.width, f'{prefix}conv'
    x = self.conv(x, f'{name}11', 4 * w)
    x = self.conv(x, f'{name}12', 4 * w)
    x = self.upsample(x, f'{name}13_upsample', 2 * w)
    x = self.conv(x, f'{name}14', 2 * w)
    x = self.upsample(x, f'{name}15_upsample', w)
    x = self.conv(x, f'{name}16', w // 2)
    x = self.conv(x, f'{name}17', 3, activation=lambda y: y)
    return jnp.clip(x.astype(jnp.float32), -1.0, 1.0)


class _Coarse(_Stage):
  """The first stage: f32[B,H,W,5] -> f32[B,H,W,3] in [-1,1]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    w = self.width
    x = self.conv(x, 'conv1', w, 5)
    x = self.conv(x, 'conv2_downsample', 2 * w, stride=2)
    x = self.conv(x, 'conv3', 2 * w)
    x = self.conv(x, 'conv4_downsample', 4 * w, stride=2)
    x = self.conv(x, 'conv5', 4 * w)
    x = self.conv(x, 'conv6', 4 * w)
    return self.decode(self.atrous(x, ''), '')


class _Refine(_Stage):
  """The second stage; `valid` is None without attention."""

  attention: Any

  def encode(self, x, prefix, before_last, last_activation):
    """Six convolutions to a quarter of the resolution."""
    w = self.width
    x = self.conv(x, f'{prefix}conv1', w, 5)
    x = self.conv(x, f'{prefix}conv2_downsample', w, stride=2)
    x = self.conv(x, f'{prefix}conv3', 2 * w)
    x = self.conv(x, f'{prefix}conv4_downsample', before_last, stride=2)
    x = self.conv(x, f'{prefix}conv5', 4 * w)
    return self.conv(x, f'{prefix}conv6', 4 * w, activation=last_activation)

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array | None) -> dict[str, jax.Array]:
    w, outputs = self.width, {}
    hallucinated = self.atrous(self.encode(x, 'x', 2 * w, nn.elu), 'x')
    outputs['hallucinated'] = y = hallucinated
    if valid is not None:
      y = self.encode(x, 'pm', 4 * w, nn.relu)
      attended, outputs['index'] = ca.contextual_attention(y, y, valid, **self.attention)
      outputs['attended_from'], outputs['attended'] = y, attended
      y = self.conv(attended, 'pmconv9', 4 * w)
      y = self.conv(y, 'pmconv10', 4 * w)
      y = jnp.concatenate([hallucinated, y], -1)
    outputs['out'] = self.decode(y, 'all')
    return outputs


class Generator(nn.Module):
  """Both stages.

  Attributes:
    width: channels at full resolution, 32 as published; all others scale with it.
    use_attention: False: the paper's baseline, a second stage without the attention encoder.
    fuse: propagate attention to neighbouring patches (paper, section 4.2).
    padding: 'same', as in TensorFlow; 'symmetric', as in the port.
    resize: 'align_corners' or 'floor': how attention halves its maps.
    mask_steps: 2 or 1: how attention reduces the mask.
    key_norm: 'max' or 'sum': how attention normalises patches.
    channel_order: 'rgb' or 'bgr', inside the network; callers always see RGB.
    block_bytes: attention scores that are held at once, in bytes.
    dtype: of the computation. Parameters, scores, softmax and results are float32.
  """

  width: int = 32
  use_attention: bool = True
  fuse: bool = True
  padding: Padding = 'same'
  resize: ca.Resize = 'align_corners'
  mask_steps: int = 2
  key_norm: ca.KeyNorm = 'max'
  channel_order: ChannelOrder = 'rgb'
  block_bytes: int = ca.BLOCK_BYTES
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False, coarse_only: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part, twice.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 8, at least 16. Pixels in the hole are not
        read.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here; taken as every network takes it.
      coarse_only: stop after the first stage; when initialising, the second stage then gets no
        parameters.

    Returns:
      'coarse' and 'out': f32[B,H,W,3] in [0,1], not composited with `image`; also the features of
      the second stage, and with attention 'index' i32[B,H/8,W/8] (see
      layers.contextual_attention). With `coarse_only`, 'out' is the coarse result.

    Raises:
      ValueError: the network does not accept this image size.
    """
    del train
    height, width = image.shape[1:3]
    arrays.check_multiple(height, width, MULTIPLE, MIN_SIDE)
    stage = dict(width=self.width, padding=self.padding, dtype=self.dtype)
    known = (_in_order(image, self.channel_order) * 2 - 1) * (1 - mask)
    planes = jnp.concatenate([jnp.ones_like(mask), mask], -1)
    given = lambda x: jnp.concatenate([x, planes], -1).astype(self.dtype)
    to_image = lambda x: (_in_order(x, self.channel_order) + 1) / 2

    coarse = _Coarse(**stage, name='coarse')(given(known))
    outputs = {'coarse': to_image(coarse)}
    if coarse_only:
      return outputs | {'out': outputs['coarse']}
    settings, valid = {}, None
    if self.use_attention:
      size = (height // 8, width // 8)
      reduced = ca.reduce_mask(mask, *size, resize=self.resize, steps=self.mask_steps)
      valid = ca.valid_keys(reduced)
      settings = dict(fuse=self.fuse, resize=self.resize, key_norm=self.key_norm)
      settings['block_bytes'] = self.block_bytes
    pasted = coarse * mask + known  # known is 0 in the hole
    outputs |= _Refine(**stage, attention=settings, name='refine')(given(pasted), valid)
    outputs['out'] = to_image(outputs['out'])
    return outputs


class Critic(nn.Module):
  """A Wasserstein critic: four 5 x 5 convolutions of stride 2, then one number.

  Attributes:
    width: channels of the first convolution, 64 as published; then 2, 4 and `last` times as many.
    last: 8 for the local critic, 4 for the global one.
    padding: as of `Generator`.
    channels_first: order of the dense layer's rows: True flattens channels first, as PyTorch does.
    channel_order: as of `Generator`.
    dtype: of the computation; parameters and scores are float32.
  """

  width: int = 64
  last: int = 4
  padding: Padding = 'same'
  channels_first: bool = False
  channel_order: ChannelOrder = 'rgb'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f32[B,H,W,3] in [0,1] -> scores f32[B,1]; H and W must be those of the initialisation."""
    x = (_in_order(x, self.channel_order) * 2 - 1).astype(self.dtype)
    for i, scale in enumerate((1, 2, 4, self.last), start=1):
      layer = SameConv(
        self.width * scale, 5, 2, padding=self.padding, dtype=self.dtype, name=f'conv{i}'
      )
      x = nn.leaky_relu(layer(x), 0.2)
    if self.channels_first:
      x = x.transpose(0, 3, 1, 2)
    dense = nn.Dense(
      1, kernel_init=nn.initializers.glorot_uniform(), dtype=jnp.float32, name='dense'
    )
    return dense(x.reshape(len(x), -1).astype(jnp.float32))


def critics(
  critic: Literal['official', 'port'],
  width: int = 64,
  channel_order: ChannelOrder = 'rgb',
  dtype: Any = jnp.float32,
) -> dict[str, Critic]:
  """{'local_critic', 'global_critic'} as in the authors' code, or as in the port.

  Raises:
    ValueError: unknown `critic`.
  """
  forms = {'official': ('same', False, 8), 'port': ('symmetric', True, 4)}
  if critic not in forms:
    raise ValueError(f'critic {critic!r} must be one of: {", ".join(map(repr, forms))}')
  padding, channels_first, last = forms[critic]
  settings = dict(
    width=width,
    padding=padding,
    channels_first=channels_first,
    channel_order=channel_order,
    dtype=dtype,
  )
  return {
    'local_critic': Critic(last=last, **settings),
    'global_critic': Critic(last=4, **settings),
  }
