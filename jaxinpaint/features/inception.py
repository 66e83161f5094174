"""The Inception network whose features FID, P-IDS and U-IDS compare.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: "Rethinking the Inception Architecture for Computer
Vision", CVPR 2016, https://arxiv.org/abs/1512.00567, as TensorFlow released it in December 2015
and mseitzer/pytorch-fid converted it: torchvision's inception_v3 without its auxiliary head, with
1008 classes, average pools that do not count the padding, and a max pool in the last block.

  path = inception.require()               # before a long run: fetches it, or says how to get it
  variables = inception.load()
  features = inception.features(variables, images)['pool3']     # f32[B,2048]

torchvision's own ImageNet weights are another network and give other FID values.

Differs from the reference code: the classifier is neither loaded nor computed. StyleGAN2, CoModGAN
and MAT use a TensorFlow graph of the same weights with another resizing; its values differ in the
last digits.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint import arrays
from jaxinpaint.weights import hub, mapping, reader

# pytorch-fid names the file by the first eight digits of its SHA-256, as torch.hub checks it.
PUBLISHED = (
  'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
  'pt_inception-2015-12-05-6726825d.pth',
  '6726825d',
)
SIDE = 299
MIN_SIDE = 75  # of pictures that are not resized: smaller ones vanish in the pooling
DIMENSIONS = 2048
CLASSES = 1008
# Output: channels. pytorch-fid calls them blocks 0 to 3.
OUTPUTS = {'pool1': 64, 'pool2': 192, 'mixed_6e': 768, 'pool3': DIMENSIONS}
# Names this network and what is done to a picture before it, in caches of features.
IDENTITY = 'pt_inception-2015-12-05-6726825d, bilinear 299 without antialias, [-1,1]'


class BasicConv(nn.Module):
  """Convolution without bias, batch norm with stored statistics, ReLU.

  Attributes:
    features: channels.
    size: of the kernel, rows and columns.
    stride: of both axes; above 1 nothing is padded.
    same: pad so that stride 1 keeps the size.
    dtype: of the convolution.
  """

  features: int
  size: tuple[int, int] = (1, 1)
  stride: int = 1
  same: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,h,w,features]."""
    same = self.same and self.stride == 1
    padding = [(n // 2, n // 2) if same else (0, 0) for n in self.size]
    x = nn.Conv(
      self.features,
      self.size,
      (self.stride, self.stride),
      padding,
      use_bias=False,
      dtype=self.dtype,
      name='conv',
    )(x)
    norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3, dtype=self.dtype, name='bn')
    return nn.relu(norm(x))


# A block is a tuple of branches; a branch is a chain of (name, channels, kernel, stride). Two names
# that end in 'a' and 'b' are a fork: both read the same input, and their results are concatenated.
_ONE, _ROW7, _COLUMN7, _ROW3, _COLUMN3 = (1, 1), (1, 7), (7, 1), (1, 3), (3, 1)
_Branches = tuple[tuple[tuple[str, int, tuple[int, int], int], ...], ...]


def _block_a() -> _Branches:
  return (
    (('branch1x1', 64, _ONE, 1),),
    (('branch5x5_1', 48, _ONE, 1), ('branch5x5_2', 64, (5, 5), 1)),
    (
      ('branch3x3dbl_1', 64, _ONE, 1),
      ('branch3x3dbl_2', 96, (3, 3), 1),
      ('branch3x3dbl_3', 96, (3, 3), 1),
    ),
  )


def _block_b() -> _Branches:
  return (
    (('branch3x3', 384, (3, 3), 2),),
    (
      ('branch3x3dbl_1', 64, _ONE, 1),
      ('branch3x3dbl_2', 96, (3, 3), 1),
      ('branch3x3dbl_3', 96, (3, 3), 2),
    ),
  )


def _block_c(width: int) -> _Branches:
  return (
    (('branch1x1', 192, _ONE, 1),),
    (
      ('branch7x7_1', width, _ONE, 1),
      ('branch7x7_2', width, _ROW7, 1),
      ('branch7x7_3', 192, _COLUMN7, 1),
    ),
    (
      ('branch7x7dbl_1', width, _ONE, 1),
      ('branch7x7dbl_2', width, _COLUMN7, 1),
      ('branch7x7dbl_3', width, _ROW7, 1),
      ('branch7x7dbl_4', width, _COLUMN7, 1),
      ('branch7x7dbl_5', 192, _ROW7, 1),
    ),
  )


def _block_d() -> _Branches:
  return (
    (('branch3x3_1', 192, _ONE, 1), ('branch3x3_2', 320, (3, 3), 2)),
    (
      ('branch7x7x3_1', 192, _ONE, 1),
      ('branch7x7x3_2', 192, _ROW7, 1),
      ('branch7x7x3_3', 192, _COLUMN7, 1),
      ('branch7x7x3_4', 192, (3, 3), 2),
    ),
  )


def _block_e() -> _Branches:
  return (
    (('branch1x1', 320, _ONE, 1),),
    (
      ('branch3x3_1', 384, _ONE, 1),
      ('branch3x3_2a', 384, _ROW3, 1),
      ('branch3x3_2b', 384, _COLUMN3, 1),
    ),
    (
      ('branch3x3dbl_1', 448, _ONE, 1),
      ('branch3x3dbl_2', 384, (3, 3), 1),
      ('branch3x3dbl_3a', 384, _ROW3, 1),
      ('branch3x3dbl_3b', 384, _COLUMN3, 1),
    ),
  )


# Name, branches, pooling of the last branch ('average' and 'max' keep the size; no convolution
# follows 'halve'), channels of that branch.
_MIXED = (
  ('Mixed_5b', _block_a(), 'average', 32),
  ('Mixed_5c', _block_a(), 'average', 64),
  ('Mixed_5d', _block_a(), 'average', 64),
  ('Mixed_6a', _block_b(), 'halve', 0),
  ('Mixed_6b', _block_c(128), 'average', 192),
  ('Mixed_6c', _block_c(160), 'average', 192),
  ('Mixed_6d', _block_c(160), 'average', 192),
  ('Mixed_6e', _block_c(192), 'average', 192),
  ('Mixed_7a', _block_d(), 'halve', 0),
  ('Mixed_7b', _block_e(), 'average', 192),
  ('Mixed_7c', _block_e(), 'max', 192),
)


class Mixed(nn.Module):
  """Concatenated branches; the last one is a pooling.

  Attributes:
    branches: see `_MIXED`.
    pooling: 'average', 'max' or 'halve'.
    pooled: channels of the convolution after the pooling.
    dtype: of the convolutions.
  """

  branches: _Branches
  pooling: str
  pooled: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,h,w,c]."""
    conv = lambda name, features, size, stride: BasicConv(
      features, size, stride, dtype=self.dtype, name=name
    )
    outputs = []
    for branch in self.branches:
      y, forks = x, []
      for name, *shape in branch:
        if name[-1] in 'ab':
          forks.append(conv(name, *shape)(y))
        else:
          y = conv(name, *shape)(y)
      outputs.extend(forks or [y])
    if self.pooling == 'halve':
      return jnp.concatenate([*outputs, nn.max_pool(x, (3, 3), (2, 2))], -1)
    if self.pooling == 'average':
      y = nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)
    else:
      y = nn.max_pool(x, (3, 3), (1, 1), 'SAME')
    outputs.append(conv('branch_pool', self.pooled, _ONE, 1)(y))
    return jnp.concatenate(outputs, -1)


class Inception(nn.Module):
  """The network up to the global average pool; layers have the names of the published file.

  Attributes:
    outputs: of `OUTPUTS`; nothing deeper than the deepest of them is computed.
    dtype: of the convolutions; what is returned is float32.
  """

  outputs: tuple[str, ...] = ('pool3',)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
    """f32[B,H,W,3] in [-1,1], 299 x 299 as published -> {output: f32[B,h,w,c] or f32[B,2048]}."""
    names = list(OUTPUTS)
    unknown = [name for name in self.outputs if name not in names]
    if unknown or not self.outputs:
      raise ValueError(f'Inception has no outputs {unknown}; choose of: {", ".join(names)}')
    last = max(names.index(name) for name in self.outputs)
    outputs = {}

    def put(name: str, value: jax.Array) -> bool:
      """Keeps an output; whether it was the deepest one."""
      outputs[name] = value.astype(jnp.float32)
      return names.index(name) == last

    conv = lambda name, features, side, **options: BasicConv(
      features, (side, side), dtype=self.dtype, name=name, **options
    )
    x = conv('Conv2d_1a_3x3', 32, 3, stride=2)(x)
    x = conv('Conv2d_2a_3x3', 32, 3, same=False)(x)
    x = conv('Conv2d_2b_3x3', 64, 3)(x)
    x = nn.max_pool(x, (3, 3), (2, 2))
    if put('pool1', x):
      return {name: outputs[name] for name in self.outputs}
    x = conv('Conv2d_3b_1x1', 80, 1)(x)
    x = conv('Conv2d_4a_3x3', 192, 3, same=False)(x)
    x = nn.max_pool(x, (3, 3), (2, 2))
    if put('pool2', x):
      return {name: outputs[name] for name in self.outputs}
    for name, branches, pooling, pooled in _MIXED:
      x = Mixed(branches, pooling, pooled, self.dtype, name=name)(x)
      if name == 'Mixed_6e' and put('mixed_6e', x):
        return {name: outputs[name] for name in self.outputs}
    put('pool3', x.astype(jnp.float32).mean((1, 2)))
    return {name: outputs[name] for name in self.outputs}


def preprocess(images: jax.Array, resize: bool = True) -> jax.Array:
  """The input that pytorch-fid gives the network: resized to 299 x 299, then in [-1,1].

  The resizing is bilinear with half-pixel centres and without antialiasing, as PyTorch's
  interpolate does it, so a large picture aliases; published FID values include this effect.

  Args:
    images: uint8[B,H,W,3], or float in [0,1]; RGB.
    resize: False leaves the size.

  Returns:
    f32[B,299,299,3].
  """
  images = jnp.asarray(images)
  white = 255.0 if images.dtype == jnp.uint8 else 1.0
  x = images.astype(jnp.float32) / white
  return 2 * (arrays.resize_bilinear(x, SIDE, SIDE) if resize else x) - 1


def features(
  variables: Mapping[str, Any],
  images: jax.Array,
  outputs: Sequence[str] = ('pool3',),
  *,
  resize: bool = True,
) -> dict[str, jax.Array]:
  """Features of images, in full float32 on every backend, since FID takes small differences.

  Args:
    variables: of `load`.
    images: uint8[B,H,W,3], or float in [0,1]; RGB, any size.
    outputs: of `OUTPUTS`.
    resize: False keeps the size of the images.

  Returns:
    {'pool3': f32[B,2048], 'mixed_6e': f32[B,h,w,768], ...}.

  Raises:
    ValueError: no such output; images that are not resized and too small.
  """
  if not resize and min(images.shape[1:3]) < MIN_SIDE:
    raise ValueError(
      f'images of {images.shape[1]} x {images.shape[2]} are too small for Inception, which needs '
      f'{MIN_SIDE} pixels on each side: let them be resized'
    )
  with jax.default_matmul_precision('highest'):  # TF32 or bfloat16 otherwise
    return Inception(tuple(outputs)).apply(variables, preprocess(images, resize))


def require(file: str | os.PathLike | None = None) -> pathlib.Path:
  """Path of the weights, fetched into the cache if needed; call it before a long run.

  Raises:
    FileNotFoundError: `file` is not there.
    hub.DownloadError: not in the cache, and it cannot be fetched; gives the address and the
      folder to put the file in.
  """
  if file is None:
    return hub.download(*PUBLISHED)
  path = pathlib.Path(file).expanduser()
  if not path.is_file():
    raise FileNotFoundError(f'Inception weights: {path} is not a file')
  return path


def shapes() -> dict[str, Any]:
  """{'params': ..., 'batch_stats': ...} of shape structs."""
  side = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  return jax.eval_shape(Inception().init, jax.random.key(0), side)


def entries(network: str = 'inception') -> list[mapping.Entry]:
  """Where the published keys go: 'Mixed_5b.branch1x1.conv.weight' -> Mixed_5b/branch1x1/conv."""
  result: list[mapping.Entry] = []
  for path in mapping.flatten(shapes()['params'], separator='/'):
    *layer, kind, leaf = path.split('/')
    key, where = '.'.join((*layer, kind)), (*layer, kind)
    if kind == 'conv':
      result.extend(mapping.conv(key, network, where, bias=False))
    elif leaf == 'scale':  # one of the two of each norm
      result.extend(mapping.norm(key, network, where, statistics=True))
  return result


def load(file: str | os.PathLike | None = None) -> dict[str, dict[str, Any]]:
  """Variables of the network: {'params': ..., 'batch_stats': ...}, float32.

  Args:
    file: with the keys of pt_inception-2015-12-05-6726825d.pth, in any form that `weights.reader`
      reads; its classifier, fc, may be left out. None: the published file, from the cache or its
      address, checked by SHA-256.

  Raises:
    ValueError: the file holds another network; lists the keys.
    FileNotFoundError, hub.DownloadError: as `require`.
  """
  path = require(file)
  state = mapping.strip_module(mapping.flatten(reader.read(path)))
  classes = np.shape(state.get('fc.weight', np.empty((CLASSES, 0))))[:1]
  if classes != (CLASSES,):
    raise ValueError(
      f'{path} is an Inception with {classes[0] if classes else "no"} classes, not {CLASSES}: '
      "torchvision's weights give another FID; get the right ones with "
      '`jaxinpaint weights fetch fid-inception`'
    )
  shape = shapes()
  expected = {
    'params': {'inception': shape['params']},
    'stats': {'inception': {'batch_stats': shape['batch_stats']}},
  }
  try:
    tree = mapping.convert(state, entries(), (r'^fc\.(weight|bias)$',), expected=expected)
  except mapping.MappingError as error:
    raise ValueError(f"{path} does not hold the weights of FID's Inception: {error}") from error
  return {
    'params': tree['params']['inception'],
    'batch_stats': tree['stats']['inception']['batch_stats'],
  }
