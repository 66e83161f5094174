"""GL (GLCIC): globally and locally consistent image completion.

Iizuka, Simo-Serra, Ishikawa: "Globally and Locally Consistent Image Completion", ACM Transactions
on Graphics 36 (4), 2017, https://doi.org/10.1145/3072959.3073659. A fully convolutional network
with dilated convolutions in its middle completes the image. In training a discriminator judges the
whole image and, in a second branch, the part around the hole.

The authors' own code is for Torch7 and cannot train. So this module has two released
reimplementations:
  `Generator`, `Discriminator`      otenim/GLCIC-PyTorch, whose weights are published; the default
  `TFGenerator`, `TFDiscriminator`  shinseung428/GlobalLocalImageCompletion_TF, as benchmarked in
                                    surveys under the name GL

Differs from the paper:
  - both: the hole is filled with the training set's mean pixel value (`mpv`), or with white;
  - `Generator`, `Discriminator`: ReLU comes before batch norm, as in their code and as their
    weights need; `norm_first=True` is the paper's order. With ReLU first, a first-layer channel
    that is almost always 0 has almost no variance, and at the rare pixels where it is not 0 the
    running statistics make it very large. So early in training, with small batches, completed
    images can look much worse than the loss suggests, for some hundred steps;
  - `TFGenerator`: no mask channel; dilated convolutions without norm and activation, so that four
    of them are one linear filter; a norm before the final tanh; the output is pasted into the image
    before any further use;
  - `TFDiscriminator`: unpadded convolutions; no ReLU after the dense layers; one output layer for
    fakes and another for reals (`separate_heads`).
Differs from the reference code:
  - discriminators return logits, the sigmoid is part of the loss;
  - running variances use the batch's biased variance; PyTorch's is n / (n - 1) times that;
  - `TFGenerator` leaves out the convolution called conv6, whose result its code discards;
  - `TFGenerator` normalises by the statistics of the whole batch in training (`train=True`), as its
    code always does, and otherwise by those of each image. To complete an image, that code fills a
    batch with copies of it, whose statistics are those of the image. So the results agree, and do
    not depend on the other images of a batch. They do depend on the whole image with its padding.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.conv import Conv, ConvTranspose, torch_init
from jaxinpaint.layers.norm import CurrentBatchNorm, batch_norm

MULTIPLE = 4  # sides of the image: the middle has a quarter of the resolution
MIN_SIDE = 8
EPS = 1e-5  # of all norms


class Generator(nn.Module):
  """The completion network: 17 convolutions, all but the last followed by ReLU and batch norm.

  Attributes:
    width: channels at full resolution, 64 as published; all others scale with it.
    mpv: the colour (red, green, blue) in the hole: the mean pixel value of the training set.
    norm_first: batch norm before ReLU; published weights need the other order.
    dtype: of the computation; parameters, statistics and the output are float32.
  """

  width: int = 64
  mpv: tuple[float, float, float] = (0.5, 0.5, 0.5)
  norm_first: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 4. Pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: normalise by the batch's statistics and update the running ones, which needs
        mutable=['batch_stats'].

    Returns:
      {'out': f32[B,H,W,3] in [0,1]}, not composited with `image`.

    Raises:
      ValueError: the network does not accept this image size.
    """
    arrays.check_multiple(*image.shape[1:3], MULTIPLE)
    w, init = self.width, dict(kernel_init=torch_init, dtype=self.dtype)
    filled = image * (1 - mask) + jnp.asarray(self.mpv, jnp.float32) * mask
    x = jnp.concatenate([filled, mask], -1).astype(self.dtype)

    def block(x, number, layer):
      norm = batch_norm(f'bn{number}', train, self.dtype)
      return nn.relu(norm(layer(x))) if self.norm_first else norm(nn.relu(layer(x)))

    x = block(x, 1, Conv(w, 5, padding=2, name='conv1', **init))
    for number, scale, stride in ((2, 2, 2), (3, 2, 1), (4, 4, 2), (5, 4, 1), (6, 4, 1)):
      layer = Conv(scale * w, 3, stride=stride, padding=1, name=f'conv{number}', **init)
      x = block(x, number, layer)
    for number, rate in ((7, 2), (8, 4), (9, 8), (10, 16), (11, 1), (12, 1)):
      layer = Conv(4 * w, 3, padding=rate, dilation=rate, name=f'conv{number}', **init)
      x = block(x, number, layer)
    x = block(x, 13, ConvTranspose(2 * w, 4, 2, 1, name='deconv13', **init))
    x = block(x, 14, Conv(2 * w, 3, padding=1, name='conv14', **init))
    x = block(x, 15, ConvTranspose(w, 4, 2, 1, name='deconv15', **init))
    x = block(x, 16, Conv(w // 2, 3, padding=1, name='conv16', **init))
    x = Conv(3, 3, padding=1, name='conv17', **init)(x)
    return {'out': nn.sigmoid(x.astype(jnp.float32))}


class _Branch(nn.Module):
  """Convolutions of stride 2, each followed by ReLU and batch norm; then a dense layer."""

  layers: int
  width: int
  features: int
  norm_first: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = x.astype(self.dtype)
    for i in range(1, self.layers + 1):
      channels = self.width * min(2 ** (i - 1), 8)
      init = dict(kernel_init=torch_init, dtype=self.dtype)
      x = Conv(channels, 5, stride=2, padding=2, name=f'conv{i}', **init)(x)
      norm = batch_norm(f'bn{i}', train, self.dtype)
      x = nn.relu(norm(x)) if self.norm_first else norm(nn.relu(x))
    # In PyTorch's order, channels first, so that the rows of its dense layers fit without a change.
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    x = nn.Dense(self.features, kernel_init=torch_init, dtype=self.dtype, name='dense')(x)
    return nn.relu(x)


class Discriminator(nn.Module):
  """Judges an image together with its part around the hole, by one logit.

  Attributes:
    global_layers: convolutions of the branch for the whole image: 5 for 160 x 160 ('celeba'), 6 for
      256 x 256 ('places2'). The other branch has 5.
    width: channels of the first convolution; the others have 2, 4, 8, 8, ... times as many.
    features: number of features that each branch returns.
    norm_first: as in `Generator`.
    dtype: of the computation; parameters, statistics and logits are float32.
  """

  global_layers: int = 5
  width: int = 64
  features: int = 1024
  norm_first: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, local: jax.Array, whole: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Logits.

    Args:
      local: f32[B,h,w,3] in [0,1].
      whole: f32[B,H,W,3] in [0,1]. Both sizes must be those of the initialisation.
      train: as in `Generator`.

    Returns:
      'real' and 'fake': f32[B,1], the same array (they differ in `TFDiscriminator`); 'local' and
      'whole': [B,features], the features of the branches.
    """
    settings = dict(width=self.width, features=self.features, dtype=self.dtype)
    settings['norm_first'] = self.norm_first
    outputs = {
      'local': _Branch(5, name='local', **settings)(local, train=train),
      'whole': _Branch(self.global_layers, name='whole', **settings)(whole, train=train),
    }
    both = jnp.concatenate([outputs['local'], outputs['whole']], -1)
    dense = nn.Dense(1, kernel_init=torch_init, dtype=self.dtype, name='dense')
    logits = dense(both).astype(jnp.float32)
    return outputs | {'real': logits, 'fake': logits}


def _pad_same(x: jax.Array, stride: int) -> tuple[jax.Array, int]:
  """TensorFlow's SAME for 3 x 3: stride 2 on even sides pads below and to the right only."""
  if stride == 1:
    return x, 1
  return jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), 0


class TFGenerator(nn.Module):
  """The TensorFlow variant's completion network; its norms use the statistics of their input.

  Attributes:
    width: channels at full resolution, 64 as released; all others scale with it.
    dtype: of the computation; parameters, statistics and the output are float32.
  """

  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image; arguments, result and errors as in `Generator`.

    `train`: normalise by the statistics of the batch; otherwise by those of each image.
    """
    arrays.check_multiple(*image.shape[1:3], MULTIPLE)
    w, init = self.width, dict(kernel_init=torch_init, dtype=self.dtype)
    x = ((image * 2 - 1) * (1 - mask) + mask).astype(self.dtype)  # white holes

    def normed(x, layer, activation=nn.relu):
      name = f'{layer.name}_bn'
      return activation(CurrentBatchNorm(EPS, self.dtype, name=name)(layer(x), over_batch=train))

    x = normed(x, Conv(w, 5, padding=2, name='conv1', **init))
    for number, scale, stride in ((2, 2, 2), (3, 2, 1), (4, 4, 2), (5, 4, 1)):
      x, padding = _pad_same(x, stride)
      layer = Conv(scale * w, 3, stride=stride, padding=padding, name=f'conv{number}', **init)
      x = normed(x, layer)
    for number, rate in ((1, 2), (2, 4), (3, 8), (4, 16)):
      x = Conv(4 * w, 3, padding=rate, dilation=rate, name=f'dilated{number}', **init)(x)
    for number in (7, 8):
      x = normed(x, Conv(4 * w, 3, padding=1, name=f'conv{number}', **init))
    x = normed(x, ConvTranspose(2 * w, 4, 2, 1, name='deconv1', **init))
    x = normed(x, Conv(2 * w, 3, padding=1, name='conv9', **init))
    x = normed(x, ConvTranspose(w, 4, 2, 1, name='deconv2', **init))
    x = normed(x, Conv(w // 2, 3, padding=1, name='conv10', **init))
    x = normed(x, Conv(3, 3, padding=1, name='conv11', **init), nn.tanh)
    return {'out': (x.astype(jnp.float32) + 1) / 2}


class _TFBranch(nn.Module):
  """Unpadded convolutions of stride 2 with norm and ReLU; then a dense layer, linear."""

  layers: int
  width: int
  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = x.astype(self.dtype)
    for i in range(1, self.layers + 1):
      channels = self.width * min(2 ** (i - 1), 8)
      init = dict(kernel_init=torch_init, dtype=self.dtype)
      x = Conv(channels, 5, stride=2, name=f'conv{i}', **init)(x)
      x = nn.relu(CurrentBatchNorm(EPS, self.dtype, name=f'bn{i}')(x, over_batch=train))
    x = x.reshape(len(x), -1)
    return nn.Dense(self.features, kernel_init=torch_init, dtype=self.dtype, name='dense')(x)


class TFDiscriminator(nn.Module):
  """The TensorFlow variant's discriminator: 5 convolutions for the part, 6 for the whole.

  Attributes:
    width: channels of the first convolution; the others have 2, 4, 8, 8, ... times as many.
    features: number of features that each branch returns.
    separate_heads: as released: one output layer judges fakes and another reals. Each can be right
      by its bias alone, without using its input, so the generator learns little from this.
    dtype: of the computation; parameters, statistics and logits are float32.
  """

  width: int = 64
  features: int = 1024
  separate_heads: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, local: jax.Array, whole: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """As in `Discriminator`; 'real' and 'fake' differ with `separate_heads`."""
    settings = dict(width=self.width, features=self.features, dtype=self.dtype)
    outputs = {
      'local': _TFBranch(5, name='local', **settings)(local * 2 - 1, train=train),
      'whole': _TFBranch(6, name='whole', **settings)(whole * 2 - 1, train=train),
    }
    both = jnp.concatenate([outputs['local'], outputs['whole']], -1)
    head = lambda name: nn.Dense(1, kernel_init=torch_init, dtype=self.dtype, name=name)
    judge = lambda name: head(name)(both).astype(jnp.float32)
    if self.separate_heads:
      return outputs | {'real': judge('dense_real'), 'fake': judge('dense_fake')}
    logits = judge('dense')
    return outputs | {'real': logits, 'fake': logits}
