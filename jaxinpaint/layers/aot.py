"""The AOT block: aggregated contextual transformations with a gated residual.

Zeng et al., "Aggregated Contextual Transformations for High-Resolution Image Inpainting", TVCG
2022 (AOT-GAN), section 3.1. The gate follows the authors' code, which normalises its input
(`gate_norm`); the text has a plain sigmoid.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers.conv import Conv, normal_init

RATES = (1, 2, 4, 8)


def gate_norm(x: jax.Array) -> jax.Array:
  """5 * (2 * (x - mean) / (std + 1e-9) - 1), per sample and channel over H and W.

  The standard deviation is unbiased (divided by H*W - 1). The gate's logit then has mean -5 and
  deviation 10: it is nearly binary, and about a third of it is open.

  Args:
    x: [B,H,W,C].

  Returns:
    f32[B,H,W,C].
  """
  x = x.astype(jnp.float32)
  n = x.shape[1] * x.shape[2]
  centred = x - x.mean((1, 2), keepdims=True)
  variance = jnp.square(centred).sum((1, 2), keepdims=True) / (n - 1)
  # A constant channel has deviation zero, where sqrt has no finite gradient.
  flat = variance == 0
  std = jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, variance)))
  return 5.0 * (2.0 * centred / (std + 1e-9) - 1.0)


class AOTBlock(nn.Module):
  """x * (1 - gate) + fused * gate, where `fused` joins branches at several dilations.

  Attributes:
    rates: dilations, one branch each; they share the channels equally.
    gate_norm: 'aot' (the code's normalised gate) or 'none' (the text's plain sigmoid).
    kernel_init: of all kernels.
    dtype: of the convolutions; the gate is float32.
  """

  rates: tuple[int, ...] = RATES
  gate_norm: Literal['aot', 'none'] = 'aot'
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C]; H and W above the largest rate.

    Raises:
      ValueError: C does not divide among the branches, or an unknown `gate_norm`.
    """
    channels = x.shape[-1]
    if channels % len(self.rates):
      raise ValueError(f'{channels} channels do not divide among {len(self.rates)} AOT branches')
    if self.gate_norm not in ('aot', 'none'):
      raise ValueError(f"gate_norm {self.gate_norm!r} must be 'aot' or 'none'")

    def conv(features, rate, name):
      settings = dict(padding=rate, dilation=rate, pad_mode='reflect', name=name)
      return Conv(features, 3, kernel_init=self.kernel_init, dtype=self.dtype, **settings)

    x = x.astype(self.dtype)
    branches = [
      nn.relu(conv(channels // len(self.rates), rate, f'branch{i}')(x))
      for i, rate in enumerate(self.rates)
    ]
    fused = conv(channels, 1, 'fuse')(jnp.concatenate(branches, -1))
    gate = conv(channels, 1, 'gate')(x).astype(jnp.float32)
    gate = jax.nn.sigmoid(gate_norm(gate) if self.gate_norm == 'aot' else gate)
    self.sow('intermediates', 'opening', gate)
    gate = gate.astype(self.dtype)
    return x * (1 - gate) + fused * gate
