"""DeepFill v2: free-form inpainting with gated convolutions.

Yu, Lin, Yang, Shen, Lu, Huang: "Free-Form Image Inpainting with Gated Convolution", ICCV 2019,
https://arxiv.org/abs/1806.03589. Two stages as in DeepFill v1 (layers/coarse_to_fine.py), with
gated convolutions everywhere, and one spectrally normalised critic whose every output value judges
a part of the image (SN-PatchGAN). Optionally a sketch in the hole says where edges shall be.

The default follows the authors' released TensorFlow code, whose outputs the tests compare with.
`padding='symmetric', resize='floor', mask_steps=1` is the plain network of
nipponjo/deepfillv2-pytorch; that port's other network (networks_tf.py) is the default with
`fuse=False, mask_steps=1`.

Differs from the paper:
  - the layers' widths and the attention branch are those of the code; 4,052,478 parameters, the
    paper's 4.1 M.
Differs from the reference code:
  - every sample has its own mask; the code uses one mask for the whole batch;
  - the networks take RGB, unless `channel_order='bgr'`. The authors' weights need 'bgr': their code
    reads files with OpenCV and does not reorder the channels;
  - height and width are any multiples of 8;
  - a sketch counts only inside the hole, and the critic sees it as well (ours: no published weights
    take a sketch);
  - gated convolutions start with kernels of a larger variance (`kernel_init='gated'`, ours), since
    gates near one half halve the features: with 'glorot', TensorFlow's own, small features shrink
    to about 0.4 of their size in every layer. Which of the two trains better is not measured;
  - the vectors of spectral norm are constants to the gradient. They are stored in training only.
    The port divides its kernels in place, which gives the same outputs.
Peculiarities of the code, all kept: the second stage sees neither the mask nor the plane of ones;
the critic's last layer ends in a LeakyReLU, too; see also layers.contextual_attention.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers import coarse_to_fine
from jaxinpaint.layers import contextual_attention as ca
from jaxinpaint.layers.coarse_to_fine import ChannelOrder, in_order
from jaxinpaint.layers.gated_conv import gated_init
from jaxinpaint.layers.same_conv import Padding
from jaxinpaint.layers.spectral_norm import SNConv

MULTIPLE, MIN_SIDE = coarse_to_fine.MULTIPLE, coarse_to_fine.MIN_SIDE
KERNEL_INITS = {'gated': gated_init, 'glorot': coarse_to_fine.glorot_init}


class Generator(nn.Module):
  """Both stages.

  Attributes:
    width: channels at full resolution, 24 as published (the code's cnum, 48, counts the gates,
      too); all others scale with it.
    sketch: there is a sketch among the arguments.
    fuse: propagate attention to neighbouring patches.
    padding: 'same', as in TensorFlow; 'symmetric', as in the plain port.
    resize: 'align_corners' or 'floor': how attention halves its maps.
    mask_steps: 2 or 1: how attention reduces the mask.
    channel_order: 'rgb' or 'bgr', inside the network; callers always see RGB.
    block_bytes: attention scores that are held at once, in bytes.
    kernel_init: of the gated convolutions, 'gated' or 'glorot'; see the module's text.
    dtype: of the computation. Parameters, scores, softmax and results are float32.
  """

  width: int = 24
  sketch: bool = False
  fuse: bool = True
  padding: Padding = 'same'
  resize: ca.Resize = 'align_corners'
  mask_steps: int = 2
  channel_order: ChannelOrder = 'rgb'
  block_bytes: int = ca.BLOCK_BYTES
  kernel_init: Literal['gated', 'glorot'] = 'gated'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    sketch: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part, twice.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 8, at least 16. Pixels in the hole are not
        read.
      mask: f32[B,H,W,1], 1 = hole.
      sketch: f32[B,H,W,1], 1 = a line; only its part in the hole is read. Where `sketch` is False:
        None.
      train: changes nothing here; taken as every network takes it.

    Returns:
      'coarse' and 'out': f32[B,H,W,3] in [0,1], not composited with `image`; also the features of
      the second stage, and 'index' i32[B,H/8,W/8] (see layers.contextual_attention).

    Raises:
      ValueError: the network does not accept this image size, or wants a sketch and has none.
    """
    del train
    _check_sketch(self.sketch, sketch)
    return coarse_to_fine.paint(
      image,
      mask,
      width=self.width,
      bound=jnp.tanh,
      gated=True,
      planes=() if sketch is None else (sketch * mask,),
      planes_again=False,
      channel_order=self.channel_order,
      padding=self.padding,
      mask_steps=self.mask_steps,
      attention=dict(
        fuse=self.fuse, resize=self.resize, key_norm='max', block_bytes=self.block_bytes
      ),
      kernel_init=KERNEL_INITS[self.kernel_init],
      dtype=self.dtype,
    )


class Critic(nn.Module):
  """SN-PatchGAN: six 5 x 5 convolutions of stride 2 under spectral norm, LeakyReLU after each.

  Attributes:
    width: channels of the first convolution, 64 as published; then 2, 4, 4, 4 and 4 times as many.
    sketch: as of `Generator`, as padding and channel_order.
    padding: of all convolutions.
    channel_order: inside the network.
    dtype: of the computation; parameters and scores are float32.
  """

  width: int = 64
  sketch: bool = False
  padding: Padding = 'same'
  channel_order: ChannelOrder = 'rgb'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    sketch: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    """Judges parts of an image, each value another one.

    Args:
      image: f32[B,H,W,3] in [0,1].
      mask: f32[B,H,W,1], 1 = hole.
      sketch: as of `Generator`.
      train: stores the power iterations; needs mutable=['spectral'].

    Returns:
      f32[B,ceil(H/64),ceil(W/64),4*width].

    Raises:
      ValueError: a sketch is missing.
    """
    _check_sketch(self.sketch, sketch)
    parts = [in_order(image, self.channel_order) * 2 - 1, mask]
    parts += [] if sketch is None else [sketch * mask]
    x = jnp.concatenate(parts, -1).astype(self.dtype)
    for i, scale in enumerate((1, 2, 4, 4, 4, 4), start=1):
      layer = SNConv(
        self.width * scale,
        5,
        stride=2,
        padding='same' if self.padding == 'same' else 2,
        kernel_init=nn.initializers.glorot_uniform(),
        always=True,
        keep_v=False,
        dtype=self.dtype,
        name=f'conv{i}',
      )
      x = nn.leaky_relu(layer(x, train=train), 0.2)
    return x.astype(jnp.float32)


def _check_sketch(wanted: bool, sketch: jax.Array | None) -> None:
  if wanted != (sketch is not None):
    raise ValueError(
      'the network takes a sketch, which is missing'
      if wanted
      else 'the network takes no sketch: set config.model.sketch=True to train one that does'
    )
