"""CTSDG's networks: texture and structure are generated in parallel, each from the other.

Guo, Yang, Huang: "Image Inpainting via Conditional Texture and Structure Dual Generation", ICCV
2021, https://arxiv.org/abs/2108.09760. There are two U-Nets of partial convolutions, one for the
picture, one for edges and gray. The decoder of each starts from the other's deepest features and
uses its own skip connections. A bi-directional gated fusion (Bi-GFF) exchanges their last features,
and a contextual feature aggregation (CFA) rebuilds these from similar patches.

As in the released code: in Bi-GFF the structure is updated from the texture that is already
updated; in CFA only the keys are normalised, and the weights of the scales pass a ReLU before their
softmax.

Differs from the released code:
  - callers pass images in [0, 1] and masks with 1 in the hole; inside the networks images are in
    [-1, 1] and masks are 1 at known pixels;
  - the known share of a window is computed once for all channels, because it is equal in all;
  - running variances use the biased estimate (PyTorch: n / (n - 1) times that);
  - `levels` < 7 leaves out the deepest levels, for pictures smaller than 128 pixels (ours).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.layers import partial_conv
from jaxinpaint.layers.conv import Conv, upsample_bilinear, upsample_nearest
from jaxinpaint.layers.norm import batch_norm, normal_scale_init
from jaxinpaint.layers.parameters import parameter
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.layers.region_affinity import region_affinity

KERNEL_SIZES = (7, 5, 5, 3, 3, 3, 3)  # of the encoders
SCALES = (1, 2, 4, 8, 8, 8, 8)  # times `width`: their channels
SLOPE = 0.2
DILATIONS = (1, 2, 4, 8)


PartialConvNorm = functools.partial(partial_conv.PartialConvNorm, scale_init=normal_scale_init)


class Projection(nn.Module):
  """The output of one stream by itself: a residual bottleneck and a 1x1 layer on its last features.

  Returns the values before tanh (texture) or sigmoid (structure).
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,C] -> f32[B,H,W,features]."""
    c = x.shape[-1]
    conv = lambda features, name: Conv(
      features, 3, padding=1, use_bias=False, dtype=self.dtype, name=name
    )
    y = nn.relu(
      batch_norm('bn1', train, self.dtype, normal_scale_init)(conv(max(c // 4, 1), 'conv1')(x))
    )
    y = batch_norm('bn2', train, self.dtype, normal_scale_init)(conv(c, 'conv2')(y))
    y = Conv(self.features, 1, dtype=self.dtype, name='out')(nn.relu(y + x))
    return y.astype(jnp.float32)


class BiGFF(nn.Module):
  """Bi-directional gated feature fusion (section 3.3); its gammas start at 0: no exchange."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, texture: jax.Array, structure: jax.Array) -> jax.Array:
    """Two [B,H,W,C] -> [B,H,W,2C], texture first."""
    both = jnp.concatenate([texture, structure], -1)
    gate = lambda name: nn.sigmoid(
      Conv(texture.shape[-1], 3, padding=1, dtype=self.dtype, name=name)(both)
    )
    gamma = lambda name: parameter(self, name, nn.initializers.zeros, (1,)).astype(self.dtype)
    texture += gamma('texture_gamma') * (gate('structure_gate') * structure)
    structure += gamma('structure_gamma') * (gate('texture_gate') * texture)
    return jnp.concatenate([texture, structure], -1)


class CFA(nn.Module):
  """Contextual feature aggregation: region affinity, then a weighted mean of four dilations."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
    """[B,H,W,C] -> 'out' [B,H,W,C], 'affinity' f32[B,H,W,C], 'weights' f32[B,H,W,4]."""
    c = x.shape[-1]
    affinity = region_affinity(x)
    y = affinity.astype(self.dtype)
    conv = lambda features, name, k=3, d=1: Conv(
      features, k, padding=d * (k // 2), dilation=d, dtype=self.dtype, name=name
    )
    scores = nn.relu(conv(4, 'weight2', 1)(nn.relu(conv(c, 'weight1')(y))))
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
    scales = [nn.relu(conv(c, f'dilated{i}', d=d)(y)) for i, d in enumerate(DILATIONS)]
    out = sum(weights[..., i : i + 1].astype(self.dtype) * s for i, s in enumerate(scales))
    return {'out': out, 'affinity': affinity, 'weights': weights}


class Generator(nn.Module):
  """Both streams, their fusion and the output.

  Attributes:
    width: channels of the first level; the deepest have 8 times as many.
    levels: how often the encoders halve the resolution; image sides are multiples of 2**levels.
    use_bigff: False: the streams' last features are only concatenated (the paper's ablation).
    use_cfa: False: the fused features are not aggregated (likewise).
    dtype: of the computation; parameters, statistics and outputs are float32.
  """

  width: int = 64
  levels: int = 7
  use_bigff: bool = True
  use_cfa: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    canny: jax.Array,
    gray: jax.Array,
    *,
    train: bool = False,
    frozen_norms: bool = False,
  ) -> dict[str, jax.Array]:
    """Completes pictures.

    Args:
      image: f32[B,H,W,3] in [0, 1]; pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      canny: f32[B,H,W,1] in {0, 1}, edges; likewise.
      gray: f32[B,H,W,1] in [0, 1]; likewise.
      train: use batch statistics; needs mutable=['batch_stats'].
      frozen_norms: use running statistics in training (the fine-tuning of the released code).

    Returns:
      'out' f32[B,H,W,3] in [0, 1]; 'projected_image' likewise, from the texture stream alone;
      'projected_edge' f32[B,H,W,1], logits, from the structure stream alone; and the features
      'bigff', 'fusion' and, with `use_cfa`, 'affinity'.

    Raises:
      ValueError: a side is not a multiple of 2**levels.
    """
    height, width = image.shape[1:3]
    if height % 2**self.levels or width % 2**self.levels:
      raise ValueError(f'image sides {height} x {width} must be multiples of {2**self.levels}')
    norms = train and not frozen_norms
    valid = 1 - mask.astype(jnp.float32)
    show = lambda x: jnp.where(valid > 0, x, 0.0).astype(self.dtype)
    texture = self._encode('texture', show(2 * image - 1), valid, norms)
    structure = self._encode('structure', show(jnp.concatenate([canny, gray], -1)), valid, norms)
    t = self._decode('texture', structure[-1], texture, norms)
    s = self._decode('structure', texture[-1], structure, norms)

    fuse = BiGFF(dtype=self.dtype, name='bigff') if self.use_bigff else _concatenate
    both = fuse(t, s)
    conv = lambda name, stride=1: Conv(
      self.width, 3, stride=stride, padding=1, dtype=self.dtype, name=name
    )
    fusion = nn.leaky_relu(conv('fusion1', 2)(both), SLOPE)
    y, shown = fusion, {}
    if self.use_cfa:
      aggregated = CFA(dtype=self.dtype, name='cfa')(fusion)
      y = jnp.concatenate([fusion, aggregated['out']], -1)
      shown = {'affinity': aggregated['affinity']}
    y = upsample_bilinear(nn.leaky_relu(conv('fusion2')(y), SLOPE))
    y = Conv(3, 1, dtype=self.dtype, name='out')(jnp.concatenate([y, both], -1))
    project = lambda features, name: Projection(features, dtype=self.dtype, name=name)
    unit = lambda x: (jnp.tanh(x.astype(jnp.float32)) + 1) / 2
    return {
      'out': unit(y),
      'projected_image': unit(project(3, 'texture_projection')(t, train=norms)),
      'projected_edge': project(1, 'structure_projection')(s, train=norms),
      'bigff': both,
      'fusion': fusion,
      **shown,
    }

  def _encode(self, kind: str, x: jax.Array, valid: jax.Array, norms: bool) -> list[tuple]:
    """[(features, mask)] of the input and of every level."""
    levels = [(x, valid)]
    for i in range(self.levels):
      layer = PartialConvNorm(
        self.width * SCALES[i],
        KERNEL_SIZES[i],
        stride=2,
        norm=i > 0,
        dtype=self.dtype,
        name=f'{kind}_encoder{i + 1}',
      )
      levels.append(layer(*levels[-1], train=norms))
    return levels

  def _decode(
    self, kind: str, deepest: tuple[jax.Array, jax.Array], skips: list[tuple], norms: bool
  ) -> jax.Array:
    """[B,H,W,width], decoded from `deepest` with the skips of all levels except the deepest."""
    x, valid = deepest
    for i in range(self.levels, 0, -1):
      layer = PartialConvNorm(
        self.width * SCALES[max(i - 2, 0)],
        slope=SLOPE,
        dtype=self.dtype,
        name=f'{kind}_decoder{i}',
      )
      upsampled = upsample_bilinear(x), upsample_nearest(valid)
      x, valid = layer(*partial_conv.join(upsampled, skips[i - 1]), train=norms)
    return x


def _concatenate(texture: jax.Array, structure: jax.Array) -> jax.Array:
  return jnp.concatenate([texture, structure], -1)


class EdgeDetector(nn.Module):
  """Finds the edges of a picture. The structure branch judges these edges for an output."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
    """[B,H,W,3] in [-1, 1] -> f32[B,H,W,1], logits."""
    conv = lambda name: Conv(16, 3, padding=1, dtype=self.dtype, name=name)
    norm = lambda name: batch_norm(name, train, self.dtype)
    x = nn.relu(norm('bn0')(conv('conv0')(image)))
    y = nn.relu(norm('bn1')(conv('conv1')(x)))
    y = norm('bn2')(conv('conv2')(y))
    y = Conv(1, 1, dtype=self.dtype, name='out')(nn.relu(x + y))
    return y.astype(jnp.float32)


class Discriminator(nn.Module):
  """A patch discriminator of the picture, one of its edges and gray, and the edge detector.

  Attributes:
    width: channels of the first layers.
    dtype: of the computation.
  """

  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    gray: jax.Array,
    edges: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> dict[str, jax.Array]:
    """Judges pictures.

    Args:
      image: f32[B,H,W,3] in [0, 1].
      gray: f32[B,H,W,1] of the truth.
      edges: f32[B,H,W,1], the true edges of a real picture; None, for an output: the detected ones.
      train: use batch statistics, take power iterations; needs mutable=['batch_stats', 'spectral'].

    Returns:
      'logits' f32[B,h,w,2], of texture and structure; 'edges' f32[B,H,W,1], logits of the detected
      edges.
    """
    image = 2 * image - 1
    detected = EdgeDetector(dtype=self.dtype, name='edge_detector')(image, train=train)
    shown = nn.sigmoid(detected) if edges is None else edges
    judge = lambda name: PatchDiscriminator(self.width, dtype=self.dtype, name=name)
    texture, _ = judge('texture')(image, train=train)
    structure, _ = judge('structure')(jnp.concatenate([shown, gray], -1), train=train)
    return {'logits': jnp.concatenate([texture, structure], -1), 'edges': detected}
