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

from jaxinpaint.layers import coarse_to_fine
from jaxinpaint.layers import contextual_attention as ca
from jaxinpaint.layers.coarse_to_fine import ChannelOrder, in_order
from jaxinpaint.layers.same_conv import Padding, SameConv

MULTIPLE, MIN_SIDE = coarse_to_fine.MULTIPLE, coarse_to_fine.MIN_SIDE


def _clip(x: jax.Array) -> jax.Array:
  return jnp.clip(x, -1.0, 1.0)


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
    attention = None
    if self.use_attention:
      attention = dict(fuse=self.fuse, resize=self.resize, key_norm=self.key_norm)
      attention['block_bytes'] = self.block_bytes
    return coarse_to_fine.paint(
      image,
      mask,
      width=self.width,
      bound=_clip,
      channel_order=self.channel_order,
      padding=self.padding,
      mask_steps=self.mask_steps,
      attention=attention,
      coarse_only=coarse_only,
      dtype=self.dtype,
    )


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
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """f32[B,H,W,3] in [0,1] -> scores f32[B,1]; H and W must be those of the initialisation."""
    del train  # for critics with statistics
    x = (in_order(x, self.channel_order) * 2 - 1).astype(self.dtype)
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
