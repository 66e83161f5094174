"""RFR: features whose hole is closed from its border inwards, by the same module in every step.

Li, Wang, Zhang, Du, Tao: "Recurrent Feature Reasoning for Image Inpainting", CVPR 2020,
https://arxiv.org/abs/2008.03737. Partial convolutions find what of the features can be told from
known ones, a U-Net with attention fills that area, and so on six times with the same weights. The
attention keeps the steps consistent (layers/knowledge_attention.py). The features of all steps are
merged by a mean over the steps that know a place, and decoded.

`smaller_hole=True` is the released variant for smaller holes: the partial convolutions inside take
5x5 instead of 7x7 windows, so that the area grows more slowly.

Differs from the paper:
  - attention is as in the released code: see layers/knowledge_attention.py.

Differs from the reference code:
  - callers pass images in [0, 1] and masks with 1 in the hole; 'out' is clipped to [0, 1]. The
    losses see it before that ('raw');
  - a mask has one channel where all channels of the features share it; the numbers are the same;
  - running variances use the biased estimate (PyTorch: n / (n - 1) times that).
As in the code, the statistics of the norms inside the recurrence move once in every step, and a
place that no step knows has features of 0.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers import knowledge_attention, partial_conv
from jaxinpaint.layers.conv import Conv, ConvTranspose, torch_init, upsample_nearest
from jaxinpaint.layers.norm import batch_norm
from jaxinpaint.layers.parameters import parameter
from jaxinpaint.layers.partial_conv import PartialConv, PartialConvNorm

MULTIPLE = 16  # sides of the image: the deepest features have a sixteenth of the resolution
SCALES = (2, 4, 8, 8, 8, 8)  # times `width`: channels of the module's encoder
DECODED = (1, 4, 8, 8, 8)  # ... and of its decoder, from the shallowest on
DILATED = 4  # the first encoder layer that is dilated instead of strided
ATTENDED = 3  # the decoder layer that attention follows
_SLOPE = 0.01  # of the outer LeakyReLUs
_SLOPE_INSIDE = 0.2  # ... and of those of the module's decoder
_EPS = 1e-7

Pair = tuple[jax.Array, jax.Array]


class Attention(nn.Module):
  """Knowledge-consistent attention, joined with its input by a 1x1 convolution.

  Attributes:
    dtype: of the convolution; scores are float32.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, known: jax.Array, memory: knowledge_attention.Memory
  ) -> tuple[jax.Array, knowledge_attention.Memory]:
    """[B,h,w,C], f32[B,H,W,1] of a multiple of the size -> [B,h,w,C] and the next memory."""
    ratio = parameter(self, 'ratio', nn.initializers.ones, (1,))
    known = arrays.resize_nearest(known, *x.shape[1:3])
    y, memory = knowledge_attention.attend(x, known, memory, ratio)
    both = jnp.concatenate([y.astype(self.dtype), x], -1)
    combine = Conv(x.shape[-1], 1, kernel_init=torch_init, dtype=self.dtype, name='combiner')
    return combine(both), memory


class Module(nn.Module):
  """The U-Net that completes features; it halves them three times.

  Attributes:
    width: channels of its input and output.
    dtype: of the computation.
  """

  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    known: jax.Array,
    memory: knowledge_attention.Memory,
    *,
    train: bool = False,
  ) -> tuple[jax.Array, jax.Array, knowledge_attention.Memory]:
    """[B,h,w,C], their mask f32[B,h,w,1] -> [B,h,w,C], the attended features, the memory."""
    settings = dict(use_bias=False, kernel_init=torch_init, dtype=self.dtype)
    levels = []
    for i, scale in enumerate(SCALES, start=1):
      name, features = f'encoder{i}', scale * self.width
      strided = i < DILATED
      how = dict(stride=2, padding=1) if strided else dict(padding=2, dilation=2)
      x = Conv(features, 3, name=name, **how, **settings)(x)
      x = nn.relu(batch_norm(f'{name}_bn', train, self.dtype)(x))
      levels.append(x)
    for i in range(len(DECODED), 0, -1):
      name, features = f'decoder{i}', DECODED[i - 1] * self.width
      y = jnp.concatenate([x, levels[i - 1]], -1)
      if i < DILATED:
        x = ConvTranspose(features, name=name, **settings)(y)
      else:
        x = Conv(features, 3, padding=2, dilation=2, name=name, **settings)(y)
      x = nn.leaky_relu(batch_norm(f'{name}_bn', train, self.dtype)(x), _SLOPE_INSIDE)
      if i == ATTENDED:
        x, memory = Attention(dtype=self.dtype, name='attention')(x, known, memory)
        attended = x
    return x, attended, memory


class Step(nn.Module):
  """One recurrence: two partial convolutions find the next area, the module fills it.

  Attributes:
    width: channels.
    kernel_size: of the partial convolutions.
    train: use batch statistics.
    dtype: of the computation.
  """

  width: int
  kernel_size: int
  train: bool
  dtype: Any

  @nn.compact
  def __call__(self, carry: tuple, _: None) -> tuple[tuple, dict[str, jax.Array]]:
    """(features, mask, memory, sum of features, sum of masks) -> the next, and what is shown."""
    x, known, memory, features, masks = carry
    size, layer = self.kernel_size, dict(kernel_init=torch_init, dtype=self.dtype)
    x, known = PartialConv(
      self.width, size, padding=size // 2, use_bias=False, name='pconv21', **layer
    )(x, known)
    closing = PartialConvNorm(self.width, size, slope=_SLOPE, name='pconv22', **layer)
    x, known = closing(x, known, train=self.train)
    module = Module(self.width, dtype=self.dtype, name='module')
    y, attended, memory = module(x, known, memory, train=self.train)
    x = y * known.astype(self.dtype)
    carry = x, known, memory, features + x.astype(jnp.float32), masks + known
    return carry, {'module': y, 'attended': attended, 'known': known}


class Bottleneck(nn.Module):
  """A residual block of 1x1, 3x3 and 1x1 convolutions, a quarter of the channels inside."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C]."""
    y, channels = x, x.shape[-1]
    settings = dict(use_bias=False, kernel_init=torch_init, dtype=self.dtype)
    for i, (features, size) in enumerate(((channels // 4, 1), (channels // 4, 3), (channels, 1))):
      y = Conv(features, size, padding=size // 2, name=f'conv{i + 1}', **settings)(y)
      y = batch_norm(f'bn{i + 1}', train, self.dtype)(y)
      y = nn.relu(y) if i < 2 else nn.relu(y + x)
    return y


class Generator(nn.Module):
  """The whole network.

  Attributes:
    width: channels of the recurrent features, a multiple of 8; 64 as published.
    recurrences: how often the module runs; 6 as published.
    smaller_hole: the variant for smaller holes, see above.
    attention_form: of layers.knowledge_attention; None: chosen by the size.
    dtype: of the convolutions; parameters, statistics, masks, scores and outputs are float32.
  """

  width: int = 64
  recurrences: int = 6
  smaller_hole: bool = False
  attention_form: knowledge_attention.Form | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    *,
    train: bool = False,
    frozen_norms: bool = False,
  ) -> dict[str, jax.Array]:
    """Paints the whole picture from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 16. Pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: use batch statistics; needs mutable=['batch_stats'].
      frozen_norms: use running statistics in training, too (fine-tuning).

    Returns:
      'out' f32[B,H,W,3] in [0,1], not composited with `image`; 'raw', the same before it is
      clipped; and of each recurrence 'module' [T,B,H/2,W/2,C], 'attended' [T,B,H/8,W/8,8C] and
      'known' f32[T,B,H/2,W/2,1], the area that it knows.

    Raises:
      ValueError: the network does not accept this image size.
    """
    b, height, width, _ = image.shape
    arrays.check_multiple(height, width, MULTIPLE)
    norms = train and not frozen_norms
    inner = 5 if self.smaller_hole else 7
    first_known = 1 - mask.astype(jnp.float32)
    shown = jnp.where(first_known > 0, image, 0.0).astype(self.dtype)
    layer = dict(kernel_init=torch_init, dtype=self.dtype)
    x, known = PartialConvNorm(self.width, 7, stride=2, name='pconv1', **layer)(
      shown, first_known, train=norms
    )
    x, known = PartialConvNorm(self.width, inner, name='pconv2', **layer)(x, known, train=norms)
    attended = (b, height // 8, width // 8, 8 * self.width)
    memory = knowledge_attention.empty(attended, self.recurrences, self.attention_form)
    carry = x, known, memory, x.astype(jnp.float32) * known, known
    (_, known, _, features, masks), steps = self._recur(carry, inner, norms)
    count = self.recurrences + 1
    x = ((features / count) / (masks / count + _EPS)).astype(self.dtype)

    x = ConvTranspose(self.width, use_bias=False, name='tconv', **layer)(x)
    x = nn.leaky_relu(batch_norm('bn3', norms, self.dtype)(x), _SLOPE)
    both = partial_conv.join((shown, first_known), (x, upsample_nearest(known)))
    tail = PartialConv(self.width // 2, 3, padding=1, use_bias=False, name='tail1', **layer)
    x, _ = tail(*both)
    x = nn.leaky_relu(x, _SLOPE)
    y = Bottleneck(dtype=self.dtype, name='tail2')(x, train=norms)
    raw = Conv(3, 3, padding=1, use_bias=False, name='out', **layer)(jnp.concatenate([x, y], -1))
    raw = raw.astype(jnp.float32)
    return {'out': jnp.clip(raw, 0, 1), 'raw': raw, **steps}

  def _recur(self, carry: tuple, kernel_size: int, norms: bool) -> tuple[tuple, dict]:
    """Runs `Step` so many times as a loop, which is compiled once."""
    fields = dict(width=self.width, kernel_size=kernel_size, train=norms, dtype=self.dtype)
    if self.is_initializing():  # a loop could not make what it carries
      carry, shown = Step(**fields, name='step')(carry, None)
      return carry, jax.tree.map(lambda x: x[None], shown)
    carried = 'batch_stats' if norms else False
    shared = ('params',) if norms else ('params', 'batch_stats')
    loop = nn.scan(
      Step,
      variable_broadcast=shared,
      variable_carry=carried,
      split_rngs={'params': False},
      length=self.recurrences,
    )
    return loop(**fields, name='step')(carry, None)
