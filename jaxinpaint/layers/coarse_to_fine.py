"""The two stages of DeepFill: a coarse result, then a finer one with contextual attention.

Yu, Lin, Yang, Shen, Lu, Huang: "Generative Image Inpainting with Contextual Attention", CVPR 2018,
https://arxiv.org/abs/1801.07892, and "Free-Form Image Inpainting with Gated Convolution", ICCV
2019, https://arxiv.org/abs/1806.03589. Both have the same layers, the second with gates:

  coarse   encoder to a quarter of the resolution, four dilated convolutions, decoder
  refine   two encoders, one with dilated convolutions, the other with attention, then one decoder

Layers are called as in the authors' code: conv1 ..., xconv1 ..., pmconv1 ..., allconv11 ...
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers import contextual_attention as ca
from jaxinpaint.layers.conv import Initializer, upsample_nearest
from jaxinpaint.layers.gated_conv import GatedConv
from jaxinpaint.layers.same_conv import Padding, SameConv

MULTIPLE = 8  # sides of the image: features have a quarter of the resolution, the keys half of that
MIN_SIDE = 16
ChannelOrder = Literal['rgb', 'bgr']
Bound = Callable[[jax.Array], jax.Array]
glorot_init = nn.initializers.glorot_uniform()  # TensorFlow's own


def in_order(image: jax.Array, order: ChannelOrder) -> jax.Array:
  """[B,H,W,3] from RGB to `order`, or back.

  Raises:
    ValueError: unknown order.
  """
  if order not in ('rgb', 'bgr'):
    raise ValueError(f"channel_order {order!r} must be 'rgb' or 'bgr'")
  return image[..., ::-1] if order == 'bgr' else image


class _Stage(nn.Module):
  """The layers of both stages.

  Attributes:
    width: channels at full resolution.
    padding: of convolutions with stride 2, as in layers.same_conv.
    gated: all convolutions but the last are gated.
    bound: brings results to [-1, 1].
    kernel_init: of all kernels but the last, which is glorot's.
    dtype: of the computation.
  """

  width: int
  padding: Padding
  gated: bool
  bound: Bound
  kernel_init: Initializer
  dtype: Any

  def conv(self, x, name, features, kernel_size=3, activation=nn.elu, **settings):
    """One named convolution with its activation."""
    settings |= dict(padding=self.padding, kernel_init=self.kernel_init, dtype=self.dtype)
    if self.gated:
      layer = GatedConv(features, kernel_size, activation=activation, name=name, **settings)
      return layer(x)
    return activation(SameConv(features, kernel_size, name=name, **settings)(x))

  def upsample(self, x, name, features):
    """Nearest neighbour, then a convolution."""
    return self.conv(upsample_nearest(x), name, features)

  def atrous(self, x, prefix):
    """Four dilated convolutions."""
    for number, rate in ((7, 2), (8, 4), (9, 8), (10, 16)):
      x = self.conv(x, f'{prefix}conv{number}_atrous', 4 * self.width, dilation=rate)
    return x

  def decode(self, x, prefix):
    """From a quarter of the resolution to an image in [-1, 1], in float32."""
    w, name = self.width, f'{prefix}conv'
    x = self.conv(x, f'{name}11', 4 * w)
    x = self.conv(x, f'{name}12', 4 * w)
    x = self.upsample(x, f'{name}13_upsample', 2 * w)
    x = self.conv(x, f'{name}14', 2 * w)
    x = self.upsample(x, f'{name}15_upsample', w)
    x = self.conv(x, f'{name}16', w // 2)
    x = SameConv(3, dtype=self.dtype, name=f'{name}17')(x)
    return self.bound(x.astype(jnp.float32))


class _Coarse(_Stage):
  """The first stage: f32[B,H,W,C] -> f32[B,H,W,3] in [-1,1]."""

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


def paint(
  image: jax.Array,
  mask: jax.Array,
  *,
  width: int,
  bound: Bound,
  gated: bool = False,
  planes: tuple[jax.Array, ...] = (),
  planes_again: bool = True,
  channel_order: ChannelOrder = 'rgb',
  padding: Padding = 'same',
  mask_steps: int = 2,
  attention: Mapping[str, Any] | None = None,
  kernel_init: Initializer = glorot_init,
  coarse_only: bool = False,
  dtype: Any = jnp.float32,
) -> dict[str, jax.Array]:
  """Both stages, as submodules 'coarse' and 'refine' of the module that calls this.

  Args:
    image: f32[B,H,W,3] in [0,1]; H and W multiples of 8, at least 16. Pixels in the hole are not
      read.
    mask: f32[B,H,W,1], 1 = hole.
    width: channels at full resolution; all others scale with it.
    bound: brings results to [-1, 1].
    gated: all convolutions but the last of each stage are gated.
    planes: f32[B,H,W,C] each, what the first stage sees besides the image; it also sees ones and
      the mask, which come last.
    planes_again: the second stage sees all these planes, too, and not only the coarse result.
    channel_order: inside the networks; image and results are RGB.
    padding: of convolutions with stride 2, as in layers.same_conv.
    mask_steps: how attention reduces the mask, see `contextual_attention.reduce_mask`.
    attention: arguments of `contextual_attention`; None: a second stage without attention.
    kernel_init: of all kernels but the last ones, which are glorot's.
    coarse_only: stop after the first stage; when initialising, the second stage then gets no
      parameters.
    dtype: of the computation. Parameters, scores, softmax and results are float32.

  Returns:
    'coarse' and 'out': f32[B,H,W,3] in [0,1], not composited with `image`; also the features of
    the second stage, and with attention 'index' i32[B,H/8,W/8] (see
    layers.contextual_attention). With `coarse_only`, 'out' is the coarse result.

  Raises:
    ValueError: the networks do not accept this image size.
  """
  height, columns = image.shape[1:3]
  arrays.check_multiple(height, columns, MULTIPLE, MIN_SIDE)
  stage = dict(width=width, padding=padding, gated=gated, bound=bound)
  stage |= dict(kernel_init=kernel_init, dtype=dtype)
  known = (in_order(image, channel_order) * 2 - 1) * (1 - mask)
  planes = (*planes, jnp.ones_like(mask), mask)
  join = lambda *parts: jnp.concatenate(parts, -1).astype(dtype)
  to_image = lambda x: (in_order(x, channel_order) + 1) / 2

  coarse = _Coarse(**stage, name='coarse')(join(known, *planes))
  outputs = {'coarse': to_image(coarse)}
  if coarse_only:
    return outputs | {'out': outputs['coarse']}
  settings, valid = dict(attention or {}), None
  if attention is not None:
    resize = settings.get('resize', 'align_corners')
    reduced = ca.reduce_mask(mask, height // 8, columns // 8, resize=resize, steps=mask_steps)
    valid = ca.valid_keys(reduced)
  pasted = coarse * mask + known  # known is 0 in the hole
  second = join(pasted, *(planes if planes_again else ()))
  outputs |= _Refine(**stage, attention=settings, name='refine')(second, valid)
  outputs['out'] = to_image(outputs['out'])
  return outputs
