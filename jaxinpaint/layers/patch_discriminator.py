"""The spectrally normalised patch discriminator of EdgeConnect and its descendants.

Nazeri et al., "EdgeConnect: Generative Image Inpainting with Adversarial Edge Learning", ICCV
Workshops 2019; after the 70 x 70 PatchGAN of Isola et al., CVPR 2017.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.spectral_norm import SNConv


class PatchDiscriminator(nn.Module):
  """Five 4x4 convolutions without bias, all with spectral norm, LeakyReLU(0.2) between them.

  Attributes:
    width: channels of the first layer; the others have 2, 4 and 8 times as many.
    kernel_init: of the kernels.
    dtype: of the computation; parameters, u, v and the logits are float32.
  """

  width: int = 64
  kernel_init: Any = nn.initializers.normal(0.02)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Judges patches.

    Args:
      x: f32[B,H,W,C].
      train: advances the power iterations; needs mutable=['spectral'].

    Returns:
      Logits f32[B,h,w,1] (64 x 64 gives 6 x 6), before any sigmoid, and the five layers'
      features: four after LeakyReLU, the fifth the logits.
    """
    layers = ((1, 2), (2, 2), (4, 2), (8, 1), (0, 1))
    features = []
    for i, (scale, stride) in enumerate(layers, start=1):
      x = SNConv(
        self.width * scale or 1,
        4,
        stride=stride,
        padding=1,
        use_bias=False,
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name=f'conv{i}',
      )(x, train=train)
      x = nn.leaky_relu(x, 0.2) if scale else x.astype(jnp.float32)
      features.append(x)
    return x, tuple(features)
