"""A dilated ResNet-50, trained to segment scenes, as a frozen network for losses.

Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022,
section 2.2: a perceptual loss whose features see large parts of the picture. The network is the
encoder of CSAILVision/semantic-segmentation-pytorch (Zhou et al., "Semantic Understanding of Scenes
through the ADE20K Dataset", IJCV 2019): three 3x3 convolutions as the stem, and dilations in the
last two stages in place of strides.

  variables = resnet_dilated.load('encoder_epoch_20.pth')
  loss = resnet_dilated.perceptual(variables, out, target)

No checksum of the file is published, so it is never fetched automatically: `require` says how to
get it.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint import arrays
from jaxinpaint.features import state_dicts
from jaxinpaint.layers.conv import Conv
from jaxinpaint.layers.norm import batch_norm
from jaxinpaint.weights import hub, mapping

MODEL = 'ade20k-resnet50dilated-ppm_deepsup'
FOLDER = f'ade20k/{MODEL}'  # below the cache
FILE = 'encoder_epoch_20.pth'
ADDRESS = f'http://sceneparsing.csail.mit.edu/model/pytorch/{MODEL}/{FILE}'
# (blocks, stride of the first, dilation of its 3x3 convolution, dilation of the others) of a stage.
STAGES = ((3, 1, 1, 1), (4, 2, 1, 1), (6, 1, 1, 2), (3, 1, 2, 4))
EXPANSION = 4  # a block gives so many times the channels of its 3x3 convolution


class Bottleneck(nn.Module):
  """relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1 x))))))) + shortcut), 1x1, 3x3 and 1x1.

  Attributes:
    features: of the 3x3 convolution.
    stride: of the 3x3 convolution.
    dilation: of the 3x3 convolution.
    shortcut: a 1x1 convolution and its norm, in place of x itself.
    dtype: of the computation.
  """

  features: int
  stride: int = 1
  dilation: int = 1
  shortcut: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,I] -> [B,H/stride,W/stride,4*features]."""
    d = self.dilation
    plain = dict(use_bias=False, dtype=self.dtype)
    norm = lambda name: batch_norm(name, False, self.dtype)
    y = nn.relu(norm('bn1')(Conv(self.features, 1, name='conv1', **plain)(x)))
    how = dict(stride=self.stride, padding=d, dilation=d)
    y = nn.relu(norm('bn2')(Conv(self.features, 3, name='conv2', **how, **plain)(y)))
    y = norm('bn3')(Conv(EXPANSION * self.features, 1, name='conv3', **plain)(y))
    if self.shortcut:
      down = Conv(EXPANSION * self.features, 1, stride=self.stride, name='down', **plain)
      x = norm('down_bn')(down(x))
    return nn.relu(x + y)


class ResNetDilated(nn.Module):
  """The encoder, with the statistics of its training.

  Attributes:
    width: channels of the first convolution, 64 as published.
    stages: as `STAGES`.
    dtype: of the computation; parameters and returned features are float32.
  """

  width: int = 64
  stages: tuple[tuple[int, int, int, int], ...] = STAGES
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
    """f32[B,H,W,3], normalised as for ImageNet -> f32[B,h,w,C] of each stage, h = H/4, H/8, ..."""
    x = x.astype(self.dtype)
    for i, (scale, stride) in enumerate(((1, 2), (1, 1), (2, 1)), start=1):
      how = dict(stride=stride, padding=1, use_bias=False, dtype=self.dtype, name=f'conv{i}')
      x = nn.relu(batch_norm(f'bn{i}', False, self.dtype)(Conv(scale * self.width, 3, **how)(x)))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    features = []
    for i, (blocks, stride, first, others) in enumerate(self.stages, start=1):
      for j in range(blocks):
        x = Bottleneck(
          self.width * 2 ** (i - 1),
          1 if j else stride,
          others if j else first,
          shortcut=not j,
          dtype=self.dtype,
          name=f'layer{i}_{j}',
        )(x)
      features.append(x.astype(jnp.float32))
    return tuple(features)


def entries(network: str = 'resnet') -> tuple[mapping.Entry, ...]:
  """Where the keys of encoder_epoch_20.pth go."""
  result: list[mapping.Entry] = []

  def add(conv: str, norm: str, path: tuple[str, ...], name: str, name_bn: str) -> None:
    result.extend(mapping.conv(conv, network, (*path, name), bias=False))
    result.extend(mapping.norm(norm, network, (*path, name_bn), statistics=True))

  for i in (1, 2, 3):
    add(f'conv{i}', f'bn{i}', (), f'conv{i}', f'bn{i}')
  for stage, (blocks, *_) in enumerate(STAGES, start=1):
    for j in range(blocks):
      key, path = f'layer{stage}.{j}.', (f'layer{stage}_{j}',)
      for i in (1, 2, 3):
        add(f'{key}conv{i}', f'{key}bn{i}', path, f'conv{i}', f'bn{i}')
      if not j:
        add(f'{key}downsample.0', f'{key}downsample.1', path, 'down', 'down_bn')
  return tuple(result)


def require(file: str | os.PathLike | None = None) -> pathlib.Path:
  """Path of the weights; call it before a long run.

  Args:
    file: None or '' looks for encoder_epoch_20.pth in the cache.

  Raises:
    FileNotFoundError: it is not there; the message says how to get it.
  """
  path = pathlib.Path(file).expanduser() if file else hub.cache_folder() / FOLDER / FILE
  if path.is_file():
    return path
  raise FileNotFoundError(
    f'weights of the perceptual loss: {path} is not a file. Get {FOLDER}/{FILE} with '
    f'"mkdir -p {path.parent} && curl -L {ADDRESS} -o {path}" (the encoder of '
    'CSAILVision/semantic-segmentation-pytorch), or train without that loss: '
    '--config.loss.perceptual=0'
  )


def _shapes() -> dict[str, dict]:
  """jax.ShapeDtypeStructs of the variables."""
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  return jax.eval_shape(ResNetDilated().init, jax.random.key(0), image)


def convert(state: Mapping[str, np.ndarray]) -> dict[str, dict]:
  """Variables of a state dict with the keys of encoder_epoch_20.pth; see `load`."""
  return state_dicts.convert(state, entries, _shapes(), ignore=(r'^fc\.',))


def load(file: str | os.PathLike | None = None, *, shapes_only: bool = False) -> dict[str, dict]:
  """Variables of the network: {'params': ..., 'batch_stats': ...}, float32.

  Args:
    file: with the keys of encoder_epoch_20.pth, in any form that `weights.reader` reads; None or
      '': from the cache.
    shapes_only: give jax.ShapeDtypeStructs and read no file, for estimates.

  Raises:
    ValueError: the file holds another network.
    FileNotFoundError: as `require`.
  """
  if shapes_only:
    return _shapes()
  return state_dicts.read(require(file), 'the encoder', convert)


def apply(
  variables: Mapping[str, Any], images: jax.Array, dtype: Any = jnp.float32
) -> tuple[jax.Array, ...]:
  """Features f32[B,h,w,C] of the four stages, of images f32[B,H,W,3] in [0,1], RGB."""
  images = arrays.standardise(images.astype(jnp.float32))
  return ResNetDilated(dtype=dtype).apply(variables, images)


def perceptual(
  variables: Mapping[str, Any], out: jax.Array, target: jax.Array, dtype: Any = jnp.float32
) -> jax.Array:
  """Sum over the stages of the mean squared difference of features; no gradient reaches `target`.

  Args:
    variables: of `load`.
    out: f32[B,H,W,3] in [0,1].
    target: likewise.
    dtype: of the convolutions.
  """
  wanted = apply(variables, jax.lax.stop_gradient(target), dtype)
  pairs = zip(apply(variables, out, dtype), wanted, strict=True)
  return sum(jnp.square(a - b).mean() for a, b in pairs)
