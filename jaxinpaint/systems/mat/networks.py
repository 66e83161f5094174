"""MAT: large holes are filled by a transformer that reads valid tokens only, then refined.

Li, Lin, Zhou, Qi, Wang, Jia: "MAT: Mask-Aware Transformer for Large Hole Image Inpainting", CVPR
2022, https://arxiv.org/abs/2203.15270. Stage 1 reduces the picture to a map of tokens by partial
convolutions, and five stages of windowed attention (layers.windowed_attention) spread what is
known; stage 2 is a U-Net at full resolution. Decoders of both are modulated as StyleGAN2's, by a
latent w and by the picture itself. Half of the deepest features, chosen at random, are replaced by
a picture of w, so that another key gives another completion.

The critics are two of layers.stylegan2_networks, of stage 1 with half of the channels.

Differs from the paper: nothing that we know of; the networks follow the code.
Differs from the reference code:
  - `tokens` may be fewer than 64 x 64, for pictures below 128 pixels; the style of stage 1 then has
    fewer convolutions;
  - for pictures larger than `size` the stored noise is repeated. The code's is for one size.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint import arrays
from jaxinpaint.layers.stylegan2 import EqualConv, EqualDense, StyledConv, ToRGB
from jaxinpaint.layers.stylegan2_networks import (
  MappingNetwork,
  channel_count,
  choose_noises,
  truncate,
)
from jaxinpaint.layers.windowed_attention import PartialEqualConv, WindowStage

DEPTHS = (2, 3, 4, 3, 2)  # transformer blocks of stage 1's stages
WINDOWS = (8, 16, 16, 16, 8)
DOWN = (0, 1, 2, 1, 0)  # log2 of how much smaller a stage's map is than that of the tokens
SQUARE = 16  # side of the picture that is made of w, and of stage 2's deepest features at `size`
AVERAGING = 0.995  # decay of the average latent


def latent_count(size: int) -> int:
  """How many latents stage 2 takes: 12 for 512 pixels, 10 for 256."""
  return 2 * int(math.log2(size)) - 6


def noise_sides(size: int) -> list[int]:
  """Sides of stage 2's noise pictures: 16, then two of each of 32, 64, ... `size`."""
  count = int(math.log2(size // SQUARE))
  return [SQUARE] + [SQUARE << i for i in range(1, count + 1) for _ in range(2)]


def check_size(size: int, tokens: int) -> None:
  """Raises ValueError, saying what sizes there are, where these two are not possible."""
  power = lambda n: n > 0 and not n & (n - 1)
  if not (power(size) and power(tokens) and 16 <= tokens <= 64 and tokens < size and size >= 32):
    raise ValueError(
      f'pictures of {size} pixels and {tokens} x {tokens} tokens: both must be powers of two, the '
      'tokens 16 to 64 and fewer than the pixels; 512 and 256 have 64 as published'
    )


def square_of(dense: EqualDense, w: jax.Array) -> jax.Array:
  """f32[B,D] -> [B,16,16,1]."""
  return dense(w).reshape(-1, SQUARE, SQUARE, 1)


class DecoderBlock(nn.Module):
  """Two modulated convolutions, the first doubling the resolution, and the image so far.

  Attributes:
    features: output channels.
    noisy: whether noise is added.
    dtype: of the convolutions; the image is float32.
  """

  features: int
  noisy: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    skip: jax.Array,
    styles: tuple[jax.Array, jax.Array, jax.Array],
    image: jax.Array | None,
    noises: tuple[jax.Array | None, jax.Array | None] = (None, None),
  ) -> tuple[jax.Array, jax.Array]:
    """Decodes.

    Args:
      x: [B,H,W,C].
      skip: [B,2H,2W,features], of the encoder.
      styles: f32[B,D] of both convolutions and the image.
      image: f32[B,H,W,3]; None: none yet.
      noises: [B or 1,2H,2W,1] of both convolutions; None: none.

    Returns:
      [B,2H,2W,features] and f32[B,2H,2W,3].
    """
    options = dict(noisy=self.noisy, dtype=self.dtype)
    x = StyledConv(self.features, up=True, name='conv0', **options)(x, styles[0], noises[0])
    x = StyledConv(self.features, name='conv1', **options)(x + skip, styles[1], noises[1])
    return x, ToRGB(dtype=self.dtype, name='rgb')(x, styles[2], image)


class FirstStage(nn.Module):
  """Tokens, attention, and a decoder: the picture of stage 1; attributes as `Generator`."""

  size: int = 512
  tokens: int = 64
  features: int = 180
  depths: tuple[int, ...] = DEPTHS
  heads: int = 6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, valid: jax.Array, w: jax.Array, keep: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Draws what is missing at first.

    Args:
      x: f32[B,H,W,4], the mask minus 1/2 and the known pixels.
      valid: f32[B,H,W,1], 1 = known.
      w: f32[B,D], the last latent.
      keep: f32[B,h,w,features], 1 where the deepest tokens stay.

    Returns:
      f32[B,H,W,3] about [-1,1], and the tokens after the deepest stage, for tests.
    """
    options = dict(dtype=self.dtype)
    x, valid = PartialEqualConv(self.features, name='first', **options)(x, valid)
    skips = []
    for i in range(int(math.log2(self.size // self.tokens))):
      skips.append(x)
      conv = PartialEqualConv(self.features, down=True, name=f'encoder{i}', **options)
      x, valid = conv(x, valid)

    kept, middle = [], len(DOWN) // 2
    for i, (depth, window, down) in enumerate(zip(self.depths, WINDOWS, DOWN, strict=True)):
      side = self.tokens >> down
      stage = WindowStage(
        depth,
        min(window, side),
        shifted=side > window,
        resample='' if not i else 'down' if i <= middle else 'up',
        heads=self.heads,
        name=f'transformer{i}',
        **options,
      )
      x, valid = stage(x, valid if i < middle else None)
      if i < middle:
        kept.append(x)
      elif i > middle:
        x = x + kept[2 * middle - i]
      else:
        deepest = x
        x, style = self._styled(x, w, keep)

    image = None
    for i, skip in enumerate(reversed(skips)):
      block = DecoderBlock(self.features, noisy=False, name=f'decoder{i}', **options)
      x, image = block(x, skip, (style,) * 3, image)
    return image, deepest

  def _styled(self, x: jax.Array, w: jax.Array, keep: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens partly replaced by a picture of w; and the style f32[B,3 * features]."""
    w = EqualDense(self.features, activate=True, name='w_style')(w)
    drawn = square_of(EqualDense(SQUARE**2, activate=True, name='to_square'), w)
    # As the code, which lays all tokens in one row, and stretches the row for larger pictures.
    b, height, width, c = x.shape
    row = arrays.resize_bilinear(drawn.reshape(b, 1, -1, 1), 1, height * width)
    x = jnp.where(keep > 0, x, row.reshape(b, height, width, 1).astype(x.dtype))
    y = x
    for i in range(int(math.log2(self.tokens >> max(DOWN)))):
      y = EqualConv(c, down=True, dtype=self.dtype, name=f'style{i}')(y)
    pooled = y.astype(jnp.float32).mean((1, 2))
    style = EqualDense(2 * self.features, activate=True, name='to_style')(pooled)
    return x, jnp.concatenate([style, w], -1)


class SecondStage(nn.Module):
  """The U-Net at full resolution; attributes as `Generator`."""

  size: int = 512
  channel_multiplier: int = 2
  max_channels: int = 512
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    w: jax.Array,
    keep: jax.Array,
    noises: list[jax.Array | None],
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Refines.

    Args:
      x: f32[B,H,W,7], the mask minus 1/2, the picture of stage 1 and the known pixels.
      w: f32[B,n,D], n = `latent_count(size)`.
      keep: f32[B,h,w,max_channels], 1 where the deepest features stay.
      noises: as `noise_sides`, or None in their place.

    Returns:
      f32[B,H,W,3] about [-1,1]; the deepest features and the picture's style, for tests.
    """
    options = dict(dtype=self.dtype)
    channels = lambda r: channel_count(r, self.channel_multiplier, self.max_channels)
    skips, r = {}, self.size
    while r >= SQUARE:
      start = dict(kernel_size=1) if r == self.size else dict(down=True)
      x = EqualConv(channels(r), name=f'encoder{r}_0', **start, **options)(x)
      x = EqualConv(channels(r), name=f'encoder{r}_1', **options)(x)
      skips[r] = x
      r //= 2

    deepest = x
    drawn = square_of(EqualDense(SQUARE**2, activate=True, name='to_square'), w[:, 0])
    drawn = arrays.resize_bilinear(drawn, *x.shape[1:3]).astype(x.dtype)
    x = skips[SQUARE] = jnp.where(keep > 0, x, drawn)
    y = x
    for i in range(3):
      y = EqualConv(self.max_channels, down=True, name=f'style{i}', **options)(y)
    pooled = y.astype(jnp.float32).mean((1, 2))
    picture = EqualDense(2 * self.max_channels, activate=True, name='to_style')(pooled)
    style = lambda i: jnp.concatenate([w[:, i], picture], -1)

    x = EqualConv(channels(SQUARE), name=f'decoder{SQUARE}_0', **options)(x) + skips[SQUARE]
    conv = StyledConv(channels(SQUARE), name=f'decoder{SQUARE}_1', **options)
    x = conv(x, style(0), noises[0])
    image = ToRGB(name=f'decoder{SQUARE}_rgb', **options)(x, style(1))
    for i, r in enumerate(list(skips)[-2::-1]):
      styles = tuple(style(2 * i + k) for k in (1, 2, 3))
      block = DecoderBlock(channels(r), name=f'decoder{r}', **options)
      x, image = block(x, skips[r], styles, image, tuple(noises[2 * i + 1 : 2 * i + 3]))
    return image, {'deepest': deepest, 'style': picture}


class Generator(nn.Module):
  """Both stages ('stage1', 'stage2') and the mapping of z to w ('mapping').

  The collection 'buffers' holds the fixed noise pictures 'noise0' ... f32[r,r,1] and 'w_avg'
  f32[style_dim], the average latent.

  Attributes:
    size: of the pictures it is made for, a power of two. Others have sides of its multiples.
    tokens: side of the map that the transformer sees at `size`; 64 as published.
    features: channels of stage 1.
    depths: transformer blocks of its five stages.
    heads: of the attention.
    style_dim: of z and w.
    mlp_layers: of the mapping.
    channel_multiplier: of stage 2, as StyleGAN2's.
    max_channels: likewise.
    dtype: of the computation; latents, scores and pictures are float32.
  """

  size: int = 512
  tokens: int = 64
  features: int = 180
  depths: tuple[int, ...] = DEPTHS
  heads: int = 6
  style_dim: int = 512
  mlp_layers: int = 8
  channel_multiplier: int = 2
  max_channels: int = 512
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Builds the parts and the buffers."""
    check_size(self.size, self.tokens)
    self.mapping = MappingNetwork(self.style_dim, self.mlp_layers)
    self.stage1 = FirstStage(
      self.size, self.tokens, self.features, tuple(self.depths), self.heads, self.dtype
    )
    self.stage2 = SecondStage(self.size, self.channel_multiplier, self.max_channels, self.dtype)
    draw = lambda side: jax.random.normal(self.make_rng('params'), (side, side, 1))
    self.stored = [
      self.variable('buffers', f'noise{i}', draw, side)
      for i, side in enumerate(noise_sides(self.size))
    ]
    self.w_avg = self.variable('buffers', 'w_avg', jnp.zeros, (self.style_dim,))

  def latents(self, z: jax.Array, truncation: float = 1.0, *, train: bool = False) -> jax.Array:
    """f32[B,style_dim], normal -> w f32[B,style_dim], drawn towards the average below 1.

    With `train` the average moves (needs mutable=['buffers']).
    """
    w = self.mapping(z)
    if train:
      mean = jax.lax.stop_gradient(w).mean(0)
      self.w_avg.value = AVERAGING * self.w_avg.value + (1 - AVERAGING) * mean
    return truncate(w, self.w_avg.value, truncation) if truncation != 1 else w

  def __call__(
    self,
    image: jax.Array,
    mask: jax.Array,
    w: jax.Array,
    noise: str = 'stored',
    keep: tuple[jax.Array, jax.Array] | None = None,
  ) -> dict[str, jax.Array]:
    """Completes pictures.

    Args:
      image: f32[B,H,W,3] in [0,1], sides multiples of `size`; pixels in the hole are not read.
      mask: f32[B,H,W,1], 1 = hole.
      w: f32[B,style_dim], or f32[B,n,style_dim] with n = `latent_count(size)`.
      noise: 'stored', 'random' (needs an rng called 'noise') or 'none'.
      keep: which of the deepest features of both stages stay, f32[B,h,w,C] of 0 and 1 each. None:
        half of them, by chance (needs an rng called 'keep').

    Returns:
      'out' f32[B,H,W,3], known pixels pasted, about [0,1] and not clipped; 'stage1', likewise;
      'deepest1', 'deepest2' and 'style2', features for tests.

    Raises:
      ValueError: sides that are not multiples of `size`, a wrong number of latents, an unknown
        noise.
    """
    b, height, width, _ = image.shape
    arrays.check_multiple(height, width, self.size)
    count = latent_count(self.size)
    if w.ndim == 2:
      w = jnp.repeat(w[:, None], count, axis=1)
    if w.shape[1] != count:
      raise ValueError(f'{w.shape[1]} latents for a network of {self.size} pixels, not {count}')
    if self.is_initializing():
      self.mapping(w[:, 0])
    more = (height // self.size, width // self.size)
    coarse = [tuple(side * n for n in more) for side in (self.tokens >> max(DOWN), SQUARE)]
    depths = (self.features, self.max_channels)
    if keep is None:
      shapes = [(b, *side, c) for side, c in zip(coarse, depths, strict=True)]
      keep = [self._chance(shape) for shape in shapes]
    valid = 1 - mask.astype(jnp.float32)
    known = jnp.where(valid > 0, 2 * image - 1, 0.0)
    paste = lambda out: jnp.where(valid > 0, known, out)
    mark = valid - 0.5
    out, deepest = self.stage1(jnp.concatenate([mark, known], -1), valid, w[:, -1], keep[0])
    first = paste(out)
    x = jnp.concatenate([mark, first, known], -1)
    repeated = [jnp.tile(picture.value, (*more, 1)) for picture in self.stored]
    noises = choose_noises(self, noise, repeated, b)
    out, seen = self.stage2(x, w, keep[1], noises)
    return {
      'out': (paste(out) + 1) / 2,
      'stage1': (first + 1) / 2,
      'deepest1': deepest,
      'deepest2': seen['deepest'],
      'style2': seen['style'],
    }

  def _chance(self, shape: tuple[int, ...]) -> jax.Array:
    """f32 of 0 and 1, both as likely."""
    if self.is_initializing():
      return jnp.ones(shape)
    either = lambda key, shape: jax.random.bernoulli(key, shape=shape)
    return arrays.drawn(either, self.make_rng('keep'), shape).astype(jnp.float32)
