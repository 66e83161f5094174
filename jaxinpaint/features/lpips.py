"""LPIPS: a perceptual distance from deep features, calibrated on human judgements.

Zhang, Isola, Efros, Shechtman, Wang: "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, https://arxiv.org/abs/1801.03924, eq. 1; version 0.1 of
richzhang/PerceptualSimilarity. The trunks are torchvision's AlexNet, VGG16 and SqueezeNet 1.1, the
heads one non-negative weight for each channel of each tapped layer.

  lpips.require('alex')                # before training: fetches the files, or says how to
  params = lpips.load('alex')
  d = lpips.distance(params, a, b, net='alex')

As a loss, papers and pSp use alex. As a metric, the authors recommend alex, but many papers report
vgg: always name the net beside the number.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.features import vgg
from jaxinpaint.layers.conv import Conv
from jaxinpaint.weights import hub, mapping, reader

CHANNELS = {
  'alex': (64, 192, 384, 256, 256),
  'vgg': (64, 128, 256, 512, 512),
  'squeeze': (64, 128, 256, 384, 384, 512, 512),
}
VGG_LAYERS = ('relu1_2', 'relu2_2', 'relu3_3', 'relu4_3', 'relu5_3')
MIN_SIDE = {'alex': 31, 'vgg': 16, 'squeeze': 17}  # smaller pictures vanish in the pooling

# torchvision names its files by the first eight digits of their SHA-256.
TRUNKS = {
  'alex': ('https://download.pytorch.org/models/alexnet-owt-7be5be79.pth', '7be5be79'),
  'vgg': vgg.PUBLISHED[16],
  'squeeze': ('https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth', 'b8a52dc0'),
}
_HEADS_AT = (
  'https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/'
)
# Digests of these files as the package lpips 0.1.4 on PyPI (BSD 2-clause) contains them.
HEADS = {
  'alex': (
    _HEADS_AT + 'alex.pth',
    'df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0',
  ),
  'vgg': (
    _HEADS_AT + 'vgg.pth',
    'a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868',
  ),
  'squeeze': (
    _HEADS_AT + 'squeeze.pth',
    '4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76',
  ),
}
HEADS_FOLDER = 'lpips_v0.1'  # below the cache: their names are too short to lie there alone
# Of images in [-1,1]; ImageNet's mean and deviation in that range.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
_ALEX = (
  (0, 64, 11, 4, 2),
  (3, 192, 5, 1, 2),
  (6, 384, 3, 1, 1),
  (8, 256, 3, 1, 1),
  (10, 256, 3, 1, 1),
)
# Number in torchvision's `features`, squeezed channels, channels of either expansion.
_FIRE = (
  (3, 16, 64),
  (4, 16, 64),
  (6, 32, 128),
  (7, 32, 128),
  (9, 48, 192),
  (10, 48, 192),
  (11, 64, 256),
  (12, 64, 256),
)
_POOL_BEFORE = (3, 6, 9)
_TAPS_AFTER = (4, 7, 9, 10, 11, 12)


class AlexNet(nn.Module):
  """The five convolutions of torchvision's AlexNet; returns the outputs of their activations.

  Krizhevsky: "One weird trick for parallelizing convolutional neural networks", 2014.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> list[jax.Array]:
    """f32[B,H,W,3] -> five of f32[B,h,w,c]."""
    taps = []
    for i, (_, features, size, stride, padding) in enumerate(_ALEX, start=1):
      if i in (2, 3):
        x = nn.max_pool(x, (3, 3), (2, 2))
      conv = Conv(features, size, stride, padding, dtype=self.dtype, name=f'conv{i}')
      x = nn.relu(conv(x))
      taps.append(x.astype(jnp.float32))
    return taps


class SqueezeNet(nn.Module):
  """The convolutional part of torchvision's SqueezeNet 1.1; returns seven of its outputs.

  Iandola et al.: "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> list[jax.Array]:
    """f32[B,H,W,3] -> seven of f32[B,h,w,c]."""
    x = nn.relu(Conv(64, 3, stride=2, dtype=self.dtype, name='conv1')(x))
    taps = [x]
    for number, squeezed, expanded in _FIRE:
      if number in _POOL_BEFORE:
        x = _max_pool_ceil(x)
      conv = lambda features, size, part, number=number: Conv(
        features, size, padding=size // 2, dtype=self.dtype, name=f'fire{number}_{part}'
      )
      x = nn.relu(conv(squeezed, 1, 'squeeze')(x))
      both = [conv(expanded, size, f'expand{size}x{size}')(x) for size in (1, 3)]
      x = nn.relu(jnp.concatenate(both, -1))
      if number in _TAPS_AFTER:
        taps.append(x)
    return [tap.astype(jnp.float32) for tap in taps]


def _max_pool_ceil(x: jax.Array) -> jax.Array:
  """3x3 windows at every second pixel; the last may reach over the edge (PyTorch's ceil_mode)."""
  count = [-(-(n - 3) // 2) + 1 for n in x.shape[1:3]]
  pads = [(0, (c - 1) * 2 + 3 - n) for c, n in zip(count, x.shape[1:3], strict=True)]
  return nn.max_pool(x, (3, 3), (2, 2), pads)


def layer_distances(
  params: Mapping[str, Any],
  a: jax.Array,
  b: jax.Array,
  *,
  net: str = 'alex',
  dtype: Any = jnp.float32,
) -> jax.Array:
  """f32[B,layers], the terms that `distance` adds up; arguments as `distance`."""
  _check_net(net)
  if a.shape != b.shape:
    raise ValueError(f'LPIPS compares images of one shape, not {a.shape} and {b.shape}')
  _check_side(*a.shape[1:3], net)
  terms = []
  for head, x, y in zip(
    range(len(CHANNELS[net])),
    _taps(params, a, net, dtype),
    _taps(params, b, net, dtype),
    strict=True,
  ):
    squares = jnp.square(_unit(x) - _unit(y))
    weights = params['heads'][f'lin{head}']
    terms.append(jnp.dot(squares, weights, precision='highest').mean((1, 2)))
  return jnp.stack(terms, -1)


def distance(
  params: Mapping[str, Any],
  a: jax.Array,
  b: jax.Array,
  *,
  net: str = 'alex',
  dtype: Any = jnp.float32,
) -> jax.Array:
  """LPIPS of each pair of images (Zhang et al., eq. 1); 0 for equal ones.

  Features are scaled to length one at every pixel; their squared difference, weighted by channel,
  is averaged over the pixels of each layer and added over layers. As a loss take its mean over the
  batch.

  Args:
    params: of `load`.
    a: f32[B,H,W,3] in [0,1], RGB; values outside (an output not clipped) are fine.
    b: likewise.
    net: 'alex', 'vgg' or 'squeeze', that of `params`.
    dtype: of the convolutions.

  Returns:
    f32[B].

  Raises:
    ValueError: no such net; images of different shapes, or too small.
  """
  return layer_distances(params, a, b, net=net, dtype=dtype).sum(-1)


def diversity(
  params: Mapping[str, Any],
  samples: jax.Array,
  *,
  net: str = 'alex',
  dtype: Any = jnp.float32,
) -> jax.Array:
  """Mean LPIPS over all pairs of several outputs for one input: how different they are.

  Zhu et al., "Toward Multimodal Image-to-Image Translation", NeurIPS 2017, section 4; for
  inpainting Zheng, Cham, Cai, "Pluralistic Image Completion", CVPR 2019. They draw pairs at random,
  here every pair of the K counts once.

  The squared differences of all pairs add up to K times those from the mean, so K passes through
  the trunk are enough; no pass for each pair is needed.

  Args:
    params: of `load`.
    samples: f32[B,K,H,W,3] in [0,1], K at least 2.
    net: that of `params`.
    dtype: of the convolutions.

  Returns:
    f32[B].

  Raises:
    ValueError: no such net; a single sample; images that are too small.
  """
  b, k, h, w, c = samples.shape
  _check_net(net)
  _check_side(h, w, net)
  if k < 2:
    raise ValueError(f'diversity is between samples: give at least 2 of each input, not {k}')
  total = jnp.zeros(b)
  for head, x in enumerate(_taps(params, samples.reshape(b * k, h, w, c), net, dtype)):
    x = _unit(x).reshape(b, k, *x.shape[1:])
    squares = jnp.square(x - x.mean(1, keepdims=True)).sum(1) * (2 / (k - 1))
    weights = params['heads'][f'lin{head}']
    total += jnp.dot(squares, weights, precision='highest').mean((1, 2))
  return total


def _taps(params: Mapping[str, Any], images: jax.Array, net: str, dtype: Any) -> list[jax.Array]:
  x = (2 * images.astype(jnp.float32) - 1 - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
  features = _trunk(net, dtype).apply({'params': params['trunk']}, x)
  return [features[layer] for layer in VGG_LAYERS] if net == 'vgg' else features


def _trunk(net: str, dtype: Any = jnp.float32) -> nn.Module:
  if net == 'vgg':
    return vgg.VGG(16, VGG_LAYERS, dtype)
  return (AlexNet if net == 'alex' else SqueezeNet)(dtype)


def _unit(x: jax.Array) -> jax.Array:
  """Features of length one at each pixel; where all are zero, they and their gradient stay zero."""
  squares = jnp.square(x).sum(-1, keepdims=True)
  positive = squares > 0
  norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 1.0)
  return x / (norm + 1e-10)


def require(
  net: str,
  trunk_file: str | os.PathLike | None = None,
  heads_file: str | os.PathLike | None = None,
) -> tuple[pathlib.Path, pathlib.Path]:
  """Paths of the trunk's and the heads' weights, fetched if needed; call it before a long run.

  Raises:
    ValueError: no such net.
    FileNotFoundError: a file of your own is not there.
    hub.DownloadError: not in the cache, and it cannot be fetched; gives the address and the folder
      to put the file in.
  """
  _check_net(net)
  paths = []
  for what, file, (url, digest), folder in (
    ('trunk', trunk_file, TRUNKS[net], None),
    ('heads', heads_file, HEADS[net], hub.cache_folder() / HEADS_FOLDER),
  ):
    if file:
      paths.append(pathlib.Path(file).expanduser())
      if not paths[-1].is_file():
        raise FileNotFoundError(f"LPIPS ({net}), the {what}'s weights: {paths[-1]} is not a file")
    else:
      paths.append(hub.download(url, digest, folder=folder))
  return tuple(paths)


def load(
  net: str,
  trunk_file: str | os.PathLike | None = None,
  heads_file: str | os.PathLike | None = None,
  *,
  shapes_only: bool = False,
) -> dict[str, dict]:
  """Parameters {'trunk': ..., 'heads': {'lin0': f32[c], ...}}, float32.

  Args:
    net: 'alex', 'vgg' or 'squeeze'.
    trunk_file: torchvision's file, or the whole state dict of a module lpips.LPIPS
      (net.slice1.0.weight ...); for vgg any file that `features.vgg.load` takes. None:
      torchvision's, from the cache or its address.
    heads_file: lpips/weights/v0.1/NET.pth, or the same whole state dict. None: the authors', from
      the cache or its address.
    shapes_only: give jax.ShapeDtypeStructs and read no file, for estimates.

  Raises:
    ValueError: a file holds something else.
    FileNotFoundError, hub.DownloadError: as `require`.
  """
  if shapes_only:
    return {part: _shapes(net, part) for part in ('trunk', 'heads')}
  trunk_path, heads_path = require(net, trunk_file, heads_file)
  return {
    'trunk': load_part(net, 'trunk', trunk_path),
    'heads': load_part(net, 'heads', heads_path),
  }


def load_part(net: str, part: str, path: str | os.PathLike) -> dict[str, Any]:
  """The 'trunk' or the 'heads' alone, from a file as `load` takes it.

  Raises:
    ValueError: no such net; the file holds something else.
  """
  _check_net(net)
  if part == 'trunk':
    only, entries = r'^(module\.)?(net\.|features\.|conv\d)', trunk_entries(net)
  else:
    only, entries = r'^(module\.)?lin\d', heads_entries(net)
  # A whole state dict puts slices around the layers, which keep torchvision's numbers.
  state = mapping.flatten(reader.read(path, only=lambda key: bool(re.search(only, key))))
  state = {
    re.sub(r'^net\.slice\d+\.', 'features.', k): v for k, v in mapping.strip_module(state).items()
  }
  if net == 'vgg' and part == 'trunk' and 'conv1_1/kernel' in state:
    return vgg.load(16, path)
  try:
    tree = mapping.convert(
      state, entries, expected={'params': {part: _shapes(net, part)}, 'stats': {}}
    )
  except mapping.MappingError as error:
    raise ValueError(f'{path} does not hold the {part} of LPIPS with {net}: {error}') from error
  return tree['params'][part]


def _shapes(net: str, part: str) -> dict[str, Any]:
  """jax.ShapeDtypeStructs of the 'trunk' or the 'heads'."""
  if part == 'heads':
    widths = CHANNELS[net]
    return {f'lin{i}': jax.ShapeDtypeStruct((c,), jnp.float32) for i, c in enumerate(widths)}
  _check_net(net)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  return jax.eval_shape(_trunk(net).init, jax.random.key(0), image)['params']


def trunk_entries(net: str) -> list[mapping.Entry]:
  """Where torchvision's keys go."""
  if net == 'vgg':
    return vgg.torchvision_entries(16, 'trunk')
  if net == 'alex':
    names = {f'features.{row[0]}': f'conv{i}' for i, row in enumerate(_ALEX, start=1)}
  else:
    parts = ('squeeze', 'expand1x1', 'expand3x3')
    names = {'features.0': 'conv1'}
    names |= {f'features.{n}.{p}': f'fire{n}_{p}' for n, _, _ in _FIRE for p in parts}
  return [e for key, name in names.items() for e in mapping.conv(key, 'trunk', (name,))]


def heads_entries(net: str) -> list[mapping.Entry]:
  """Where the keys of lpips/weights/v0.1/NET.pth go."""
  return [
    mapping.Entry(f'lin{i}.model.1.weight', 'heads', (f'lin{i}',), 'channels')
    for i in range(len(CHANNELS[net]))
  ]


def _check_net(net: str) -> None:
  if net not in CHANNELS:
    raise ValueError(f'LPIPS has no net {net!r}; there are: {", ".join(CHANNELS)}')


def _check_side(height: int, width: int, net: str) -> None:
  if min(height, width) < MIN_SIDE[net]:
    raise ValueError(
      f'images of {height} x {width} are too small for LPIPS with {net}, which needs '
      f'{MIN_SIDE[net]} pixels on each side'
    )
