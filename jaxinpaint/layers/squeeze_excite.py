"""Squeeze and excitation, and a residual block that ends in it.

Hu, Shen, Sun: "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv, Initializer, torch_init
from jaxinpaint.layers.norm import batch_norm


class SqueezeExcite(nn.Module):
  """x * sigmoid(fc2(relu(fc1(mean of x over the picture)))).

  Attributes:
    reduction: the hidden layer has C // reduction channels, at least one.
    kernel_init: of both layers; biases start at zero.
    use_bias: of both layers.
    dtype: of the products; the mean is float32.
  """

  reduction: int = 16
  kernel_init: Initializer = torch_init
  use_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C] in x's dtype."""
    channels = x.shape[-1]
    dense = dict(use_bias=self.use_bias, kernel_init=self.kernel_init, dtype=self.dtype)
    y = x.astype(jnp.float32).mean((1, 2))
    y = nn.relu(nn.Dense(max(1, channels // self.reduction), name='fc1', **dense)(y))
    y = nn.sigmoid(nn.Dense(channels, name='fc2', **dense)(y))
    return x * y[:, None, None].astype(x.dtype)


class SEResnetBlock(nn.Module):
  """relu(SE(bn2(conv2(relu(bn1(conv1 x))))) + shortcut), 3x3 convolutions without biases.

  The shortcut is x itself where the shapes agree, else a 1x1 convolution and its norm
  ('down_conv', 'down_bn').

  Attributes:
    features: output channels.
    stride: of the first convolution and the shortcut.
    reduction: of the squeeze.
    kernel_init: of all kernels.
    dtype: of the computation; parameters and statistics are float32.
  """

  features: int
  stride: int = 1
  reduction: int = 16
  kernel_init: Initializer = torch_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,I] -> [B,ceil(H/stride),ceil(W/stride),features].

    `train` takes the norms' statistics from the batch and moves the running ones.
    """
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    norm = lambda y, name: batch_norm(name, train, self.dtype)(y)
    bare = dict(use_bias=False, **init)
    y = Conv(self.features, 3, stride=self.stride, padding=1, name='conv1', **bare)(x)
    y = nn.relu(norm(y, 'bn1'))
    y = norm(Conv(self.features, 3, padding=1, name='conv2', **bare)(y), 'bn2')
    y = SqueezeExcite(self.reduction, name='se', **init)(y)
    if self.stride != 1 or x.shape[-1] != self.features:
      x = Conv(self.features, 1, stride=self.stride, name='down_conv', **bare)(x)
      x = norm(x, 'down_bn')
    return nn.relu(y + x)
