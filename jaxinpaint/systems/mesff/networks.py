"""MESFF + SFI: predictive filtering with an external spatial prior and perceptual inference.

Wu Peng, Zhang Sunjie, Wang Yongxiong, Chen Yuanfeng, Qin Haiwang: "Image Inpainting Based on
Perceptual Inference and External Spatial Prior Features" (University of Shanghai for Science and
Technology). Two branches interact. IFKPB predicts a filter for every pixel and a semantic prior.
FIIFB encodes the masked image, receives the prior through MESFF, has six SFI blocks and decodes;
the predicted kernels filter its result.

No code is published. Where the paper leaves something open, the overall structure follows its
predecessor MISF (Li et al., CVPR 2022), the multi-scale fusion follows CTSDG (Guo et al., ICCV
2021), and the AOT block follows AOT-GAN's code.

Differs from the paper, where the paper contradicts itself or cannot be built as written:
  - the prior enters the encoder (sections 2.1 and 2.3), not the decoder (abstract);
  - the SFI blocks are between encoder and decoder (the text swaps the two);
  - eq. 3: the key acts along the height, the value along the width;
  - eq. 3: "built on an activation and two linear layers, independent of the input query" allows two
    readings. Here key and value are small networks applied to the feature. In the other one they
    are matrices that such networks make (`attention_memory='matrix'`), and attention is linear in
    the feature. Trained here alike, once each (500 steps of 8 at 64 px, width 16, 2 blocks, L1
    alone, one seed), both have on 152 held-out photographs, in holes of 10-20 / 20-40 / 40-60 %:
    'mlp' 16.03 / 15.86 / 15.29 dB of the hole, 'matrix' 16.38 / 15.88 / 15.40;
  - MESFF resizes its feature to `attention_size` and back, because key and value have a fixed size;
  - eq. 8: the gate is 1 - k, normalised as in AOT-GAN's code (`gate_norm='none'`: as in the text);
  - eq. 9 and 10: 1x1 convolutions make the one-channel map and bring the widths together;
  - kernels are 3x3 with one rate, one for each colour channel, without softmax (MISF).
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.aot import RATES, AOTBlock
from jaxinpaint.layers.attention import ExternalSpatialAttention
from jaxinpaint.layers.conv import Conv, ConvTranspose, normal_init, resize_bilinear
from jaxinpaint.layers.fills import FILLS
from jaxinpaint.layers.filtering import filter_by_taps
from jaxinpaint.layers.in_turn import in_turn
from jaxinpaint.layers.kernel_prediction import KernelPrediction
from jaxinpaint.layers.norm import instance_norm
from jaxinpaint.layers.resnet import ResnetBlock
from jaxinpaint.layers.smooth_fill import (
  clip_with_gradient,
  depth_to_space,
  space_to_depth,
  standardisation,
  without_grid,
)

MULTIPLE = 4  # sides of the image: the bottleneck has a quarter of the resolution ...
MIN_SIDE = 36  # ... and its features are mirrored by 8 pixels


class MESFF(nn.Module):
  """Multi-scale external spatial feature fusion: from a decoder's feature to a semantic prior.

  Section 2.3 of the paper, eq. 3 to 7; scales and weights as CTSDG's multi-scale aggregation.

  Attributes:
    dim: channels inside.
    size: side of the square to which features are resized for attention.
    hidden: memory size of key and value.
    memory: how key and value act, see `ExternalSpatialAttention`.
    dilations: of the scales.
    skip: 'add': the attention's input is added to its result; 'concat': the two are concatenated
      and merged by a 3x3 convolution; 'none': the input is not used again.
    kernel_init: of all kernels.
    dtype: of the computation; the softmax is float32.
  """

  dim: int = 64
  size: int = 256
  hidden: int = 64
  memory: Literal['mlp', 'matrix'] = 'mlp'
  dilations: tuple[int, ...] = (1, 3, 5)
  skip: Literal['add', 'concat', 'none'] = 'add'
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C], any H and W.

    Raises:
      ValueError: unknown `skip`.
    """
    if self.skip not in ('add', 'concat', 'none'):
      raise ValueError(f"MESFF's skip {self.skip!r} must be 'add', 'concat' or 'none'")
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    height, width, channels = x.shape[1:]
    feature = Conv(self.dim, 3, padding=1, name='conv_in', **init)(x)
    feature = resize_bilinear(feature, self.size, self.size)
    attend = ExternalSpatialAttention(self.size, self.hidden, self.memory, name='attention', **init)
    attended = attend(feature)
    scales = [
      nn.relu(Conv(self.dim, 3, padding=rate, dilation=rate, name=f'scale{i}', **init)(attended))
      for i, rate in enumerate(self.dilations)
    ]
    weights = nn.relu(Conv(self.dim, 3, padding=1, name='weight1', **init)(attended))
    weights = nn.relu(Conv(len(scales), 1, name='weight2', **init)(weights))
    weights = jax.nn.softmax(weights.astype(jnp.float32), -1)
    fused = sum(s * weights[..., i : i + 1].astype(self.dtype) for i, s in enumerate(scales))
    for name, value in dict(
      feature=feature, attended=attended, weights=weights, fused=fused
    ).items():
      self.sow('intermediates', name, value)
    if self.skip == 'add':
      fused = fused + feature
    elif self.skip == 'concat':
      fused = jnp.concatenate([fused, feature], -1)
      fused = Conv(self.dim, 3, padding=1, name='merge', **init)(fused)
    fused = resize_bilinear(fused, height, width)
    return Conv(channels, 3, padding=1, name='conv_out', **init)(fused)


class SFI(nn.Module):
  """Spatial feature-aware inference: finds disturbing features, removes them, enhances the rest.

  Section 2.4 of the paper: F_n = sigmoid(to_map(AOT(F))) (eq. 9), F_q = AOT(merge[F, F_n])
  (eq. 10), D = F - F_q and F_t = D + AOT(D) (eq. 11). The three AOT blocks are separate ones.

  Attributes:
    rates: dilations of the AOT blocks.
    gate_norm: of the AOT blocks.
    residual_scale: factor of AOT(D) in eq. 11; 1 as published. With 1, activations grow by a factor
      of about 1.7 per block at the start of training.
    kernel_init: of all kernels.
    dtype: of the convolutions.
  """

  rates: tuple[int, ...] = RATES
  gate_norm: Literal['aot', 'none'] = 'aot'
  residual_scale: float = 1.0
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C]; H and W above the largest rate."""
    init = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    aot = lambda name: AOTBlock(self.rates, self.gate_norm, name=name, **init)
    x = x.astype(self.dtype)
    noise_map = jax.nn.sigmoid(Conv(1, 1, name='to_map', **init)(aot('noise_map')(x)))
    merged = Conv(x.shape[-1], 1, name='merge', **init)(jnp.concatenate([x, noise_map], -1))
    noise = aot('noise')(merged)
    self.sow('intermediates', 'map', noise_map)
    self.sow('intermediates', 'distraction', noise)
    kept = x - noise
    return kept + self.residual_scale * aot('enhance')(kept)


class Generator(nn.Module):
  """Both branches, their exchange and the final filtering.

  Attributes:
    width: channels at full resolution, 64 in the paper's predecessor; all others scale with it.
    use_mesff: False removes MESFF, and the encoder gets no prior (table 3, w/o MESFF).
    bottleneck: 'sfi'; 'none' removes the blocks (w/o SFI); 'resnet' puts MISF's residual blocks in
      their place.
    blocks: number of SFI blocks.
    resnet_blocks: number of residual blocks if bottleneck is 'resnet'.
    kernel_size: side of the predicted image filters.
    filter_rates: distances between their taps; if there are several, a 3x3 convolution merges the
      filtered images, as in JPGNet.
    attention_size: side of the square to which MESFF resizes its features.
    attention_hidden: memory size of its key and value.
    attention_memory: 'mlp': key and value are small networks applied to the feature; 'matrix': they
      are matrices that such networks make, see `ExternalSpatialAttention`.
    mesff_skip: see `MESFF`.
    gate_norm: of the AOT blocks.
    sfi_residual_scale: see `SFI`.
    stem: the network works on squares of stem x stem pixels as channels, at 1/stem of the
      resolution; only the filtering stays at full resolution. 1 as published.
    fill: 'none' as published; 'smooth' or 'tension': the hole of the input holds such a fill
      (`layers.smooth_fill`, `layers.tension_fill`), the network's image is added to it before
      filtering, and the kernels to the kernel that changes nothing. Untrained, it gives the fill.
    standardise: with a fill, the network works on pictures whose known pixels have mean 0 and
      deviation 1/4 (`layers.smooth_fill.standardisation`), and its result is brought back.
    without_grid: with a fill and a stem, the difference from the fill is a moving average over the
      stem's squares (`layers.smooth_fill.without_grid`), so that none of their borders is seen.
    norm: 'instance', after the convolutions of FIIFB, as its ancestor; 'none': no normalisation
      but in the gates. Instance norms take the absolute colour away.
    encoder_skips: add FIIFB's encoder features to its decoder's of the same size.
    remat: recompute the bottleneck's blocks in the backward pass instead of storing their results:
      less memory, more time (docs/monitoring.md).
    kernel_init: of all kernels; biases start at zero.
    dtype: of the computation. Parameters, statistics, the softmax, the filtering and the output
      are float32.
  """

  width: int = 64
  use_mesff: bool = True
  bottleneck: Literal['sfi', 'none', 'resnet'] = 'sfi'
  blocks: int = 6
  resnet_blocks: int = 8
  kernel_size: int = 3
  filter_rates: tuple[int, ...] = (1,)
  attention_size: int = 256
  attention_hidden: int = 64
  attention_memory: Literal['mlp', 'matrix'] = 'mlp'
  mesff_skip: Literal['add', 'concat', 'none'] = 'add'
  gate_norm: Literal['aot', 'none'] = 'aot'
  sfi_residual_scale: float = 1.0
  stem: int = 1
  fill: Literal['none', 'smooth', 'tension'] = 'none'
  standardise: bool = False
  without_grid: bool = False
  norm: Literal['instance', 'none'] = 'instance'
  encoder_skips: bool = False
  remat: bool = False
  kernel_init: Any = normal_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: jax.Array, mask: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Paints the whole image from its known part.

    Args:
      image: f32[B,H,W,3] in [0,1]; H and W multiples of 4 * stem, at least 36 * stem. Pixels in
        the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      train: changes nothing here; taken as every network takes it.

    Returns:
      'out': f32[B,H,W,3] in [0,1], not composited with `image`; and intermediate results: 'raw'
      (before filtering), 'kernels', 'dec2' (IFKPB's second decoder layer), 'prior' (with MESFF),
      'enc2', 'bottleneck'.

    Raises:
      ValueError: the network does not accept this image size, or an unknown switch.
    """
    del train
    stem = self.stem
    arrays.check_multiple(*image.shape[1:3], MULTIPLE * stem, MIN_SIDE * stem)
    if self.bottleneck not in ('sfi', 'none', 'resnet'):
      raise ValueError(f"bottleneck {self.bottleneck!r} must be 'sfi', 'none' or 'resnet'")
    if self.fill not in FILLS and self.fill != 'none':
      raise ValueError(f'fill {self.fill!r} must be one of none, {", ".join(FILLS)}')
    if self.standardise and self.fill == 'none':
      raise ValueError("standardise=True needs a fill, as 'tension': tanh has a range of its own")
    if self.without_grid and self.fill == 'none':
      raise ValueError("without_grid=True needs a fill, as 'tension': it is what is added to one")
    if self.norm not in ('instance', 'none'):
      raise ValueError(f"norm {self.norm!r} must be 'instance' or 'none'")
    init = last = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    width = self.width
    normed = (lambda y: nn.relu(instance_norm(y))) if self.norm == 'instance' else nn.relu

    x, fill = image * (1 - mask), None
    mean, scale = 0.0, 1.0
    if self.fill != 'none':
      x = 2 * image - 1
      if self.standardise:
        mean, scale = standardisation(x, mask)
      x = fill = FILLS[self.fill]((x - mean) / scale, mask)
      last = init | dict(kernel_init=nn.initializers.zeros)
    x = space_to_depth(jnp.concatenate([x, mask], -1).astype(self.dtype), stem)
    reach = 3 if stem == 1 else 1  # 3x3 squares reach as far as 7x7 pixels
    wide = dict(kernel_size=2 * reach + 1, padding=reach, pad_mode='reflect')
    enc0 = normed(Conv(width, name='enc0', **wide, **init)(x))
    enc1 = normed(Conv(2 * width, 4, stride=2, padding=1, name='enc1', **init)(enc0))
    taps = self.kernel_size**2
    settings = dict(taps=taps, last_init=last['kernel_init'], name='ifkpb', **init)
    predicted = KernelPrediction(width, 3 * taps * stem**2, **settings)(x, enc1)
    kernels = predicted['image'].astype(jnp.float32)
    outputs = {'dec2': predicted['dec2'], 'kernels': self._pixel_kernels(kernels, fill)}
    if self.use_mesff:
      outputs['prior'] = MESFF(
        width,
        self.attention_size,
        self.attention_hidden,
        self.attention_memory,
        skip=self.mesff_skip,
        name='mesff',
        **init,
      )(predicted['dec2'])
      joined = jnp.concatenate([enc1, outputs['prior']], -1)
    else:
      joined = enc1
    y = normed(Conv(4 * width, 4, stride=2, padding=1, name='enc2', **init)(joined))
    outputs['enc2'] = y
    y = self._body(y, init)
    outputs['bottleneck'] = y
    for name, encoded in (('dec0', enc1), ('dec1', enc0)):
      y = normed(ConvTranspose(encoded.shape[-1], 4, 2, 1, name=name, **init)(y))
      if self.encoder_skips:
        y += encoded
    raw = Conv(3 * stem**2, name='dec2', **wide, **last)(y).astype(jnp.float32)
    raw = depth_to_space(raw, stem)
    if fill is not None:
      raw += fill
    outputs['raw'] = raw
    y = filter_by_taps(raw, kernels, self.kernel_size, self.filter_rates, stem)
    if fill is not None:
      y += jnp.tile(raw, len(self.filter_rates))
    if len(self.filter_rates) > 1:
      merge = Conv(3, 3, padding=1, kernel_init=self.kernel_init, name='merge_rates')
      y = merge(y)
    if fill is None:
      outputs['out'] = (jnp.tanh(y) + 1) / 2
    else:
      if self.without_grid:
        y = fill + without_grid(y - fill, mask, stem)
      outputs['out'] = clip_with_gradient((y * scale + mean + 1) / 2)
    return outputs

  def _pixel_kernels(self, kernels: jax.Array, fill: jax.Array | None) -> jax.Array:
    """[B,H,W,colour and tap] of the kernels that lie tap by tap, with the one that does nothing."""
    taps = self.kernel_size**2
    kernels = [depth_to_space(tap, self.stem) for tap in jnp.split(kernels, taps, -1)]
    if fill is not None:
      kernels[taps // 2] += 1
    return jnp.stack(kernels, -1).reshape(*kernels[0].shape[:3], -1)

  def _body(self, y: jax.Array, init: dict) -> jax.Array:
    """The bottleneck's blocks."""
    if self.bottleneck == 'sfi':
      kind, count = SFI, self.blocks
      settings = dict(gate_norm=self.gate_norm, residual_scale=self.sfi_residual_scale)
    else:
      kind, count = ResnetBlock, self.resnet_blocks if self.bottleneck == 'resnet' else 0
      settings = dict(dilation=2)
    names = [f'body{i}' for i in range(count)]
    return in_turn(self, kind, names, y, remat=self.remat, **settings, **init)
