"""The spectrally normalised patch discriminator of EdgeConnect and its descendants.

Nazeri et al., "EdgeConnect: Generative Image Inpainting with Adversarial Edge Learning", ICCV
Workshops 2019; after the 70 x 70 PatchGAN of Isola et al., CVPR 2017, which has norms and biases.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv
from jaxinpaint.layers.norm import InstanceNorm, batch_norm
from jaxinpaint.layers.spectral_norm import SNConv

Norm = Literal['none', 'instance', 'batch']


class PatchDiscriminator(nn.Module):
  """Five 4x4 convolutions, by default without bias and with spectral norm; LeakyReLU(0.2) between.

  Attributes:
    width: channels of the first layer; the others have 2, 4 and 8 times as many.
    kernel_init: of the kernels.
    dtype: of the computation; parameters, u, v and the logits are float32.
    norm: 'instance' or 'batch': of the inner three layers' results, with scale and bias.
    use_bias: of the convolutions; before a batch norm there is none.
    spectral: False: plain kernels.
    scale_init: of the norms' scales.
  """

  width: int = 64
  kernel_init: Any = nn.initializers.normal(0.02)
  dtype: Any = jnp.float32
  norm: Norm = 'none'
  use_bias: bool = False
  spectral: bool = True
  scale_init: Any = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Judges patches.

    Args:
      x: f32[B,H,W,C].
      train: advances the power iterations; needs mutable=['spectral']. Batch norms use the batch's
        statistics, and need mutable=['batch_stats'].

    Returns:
      Logits f32[B,h,w,1] (64 x 64 gives 6 x 6), before any sigmoid, and the five layers'
      features: four after LeakyReLU, the fifth the logits.
    """
    layers = ((1, 2), (2, 2), (4, 2), (8, 1), (0, 1))
    features = []
    for i, (scale, stride) in enumerate(layers, start=1):
      normed = 1 < i < 5 and self.norm != 'none'
      fields = dict(
        stride=stride,
        padding=1,
        use_bias=self.use_bias and not (normed and self.norm == 'batch'),
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name=f'conv{i}',
      )
      features_out = self.width * scale or 1
      if self.spectral:
        x = SNConv(features_out, 4, **fields)(x, train=train)
      else:
        x = Conv(features_out, 4, **fields)(x)
      if normed and self.norm == 'instance':
        x = InstanceNorm(self.scale_init, self.dtype, name=f'norm{i}')(x)
      elif normed:
        x = batch_norm(f'norm{i}', train, self.dtype, self.scale_init)(x)
      x = nn.leaky_relu(x, 0.2) if scale else x.astype(jnp.float32)
      features.append(x)
    return x, tuple(features)
