"""VGG16 and VGG19 with torchvision's weights, as a frozen network for losses.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015
(configurations D and E, convolutional part). The weights are torchvision's IMAGENET1K_V1.

  path = vgg.require(19)             # before training: fetches the file, or says how to get it
  params = vgg.load(19)
  features = vgg.apply(params, images, ('relu1_1', 'relu5_4'), depth=19)

Layers are named as in the paper's tables: relu1_1 ... relu5_4 after each activation, pool1 ...
pool5 after each 2x2 max pooling; conv1_1 ... conv5_4 are before the activations.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint import arrays
from jaxinpaint.weights import hub, mapping, reader

BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)

# torchvision names its files by the first eight digits of their SHA-256. We know the whole digest
# of VGG16 only; VGG19 is checked by those eight digits, as torch.hub does.
PUBLISHED = {
  16: (
    'https://download.pytorch.org/models/vgg16-397923af.pth',
    '397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0',
  ),
  19: ('https://download.pytorch.org/models/vgg19-dcbb9e9d.pth', 'dcbb9e9d'),
}


def layer_names(depth: int) -> tuple[str, ...]:
  """All layers of VGG`depth` in order: ('relu1_1', 'relu1_2', 'pool1', ...)."""
  _check_depth(depth)
  names = []
  for block, count in enumerate(BLOCKS[depth], start=1):
    names += [f'relu{block}_{i}' for i in range(1, count + 1)] + [f'pool{block}']
  return tuple(names)


def _conv(name: str) -> str:
  """The convolution before an activation: 'relu1_1' -> 'conv1_1'."""
  return name.replace('relu', 'conv')


def _stage(layer: str) -> str:
  """The name of `layer_names` at which a layer's features are complete."""
  return layer.replace('conv', 'relu')


class VGG(nn.Module):
  """The convolutional part, up to the deepest layer asked for.

  Attributes:
    depth: 16 or 19.
    layers: names to return; see `layer_names`.
    dtype: of the convolutions; parameters and returned features are float32.
  """

  depth: int = 19
  layers: tuple[str, ...] = ('relu5_4',)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
    """f32[B,H,W,3], normalised as the weights want it -> {layer: f32[B,h,w,c]}."""
    names = layer_names(self.depth)
    unknown = [layer for layer in self.layers if _stage(layer) not in names]
    if unknown or not self.layers:
      raise ValueError(f'VGG{self.depth} has no layers {unknown}; choose of: {", ".join(names)}')
    last = max(names.index(_stage(layer)) for layer in self.layers)
    outputs = {}
    for name in names[: last + 1]:
      if name.startswith('pool'):
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
      else:
        block = int(name[4])
        x = nn.Conv(
          WIDTHS[block - 1],
          (3, 3),
          padding=((1, 1), (1, 1)),
          dtype=self.dtype,
          name=_conv(name),
        )(x)
        if _conv(name) in self.layers:
          outputs[_conv(name)] = x.astype(jnp.float32)
        x = nn.relu(x)
      if name in self.layers:
        outputs[name] = x.astype(jnp.float32)
    return outputs


def apply(
  params: Mapping[str, Any],
  images: jax.Array,
  layers: Sequence[str],
  *,
  depth: int,
  normalize: bool = True,
  dtype: Any = jnp.float32,
) -> dict[str, jax.Array]:
  """Features of images.

  Args:
    params: of `load`.
    images: f32[B,H,W,3] in [0,1], RGB.
    layers: names; nothing deeper than the deepest of them is computed.
    depth: 16 or 19.
    normalize: subtract ImageNet's mean and divide by its deviation first, as the weights were
      trained; False for systems that feed raw [0,1] images (EdgeConnect and its descendants).
    dtype: of the convolutions.

  Returns:
    {layer: f32[B,h,w,c]}.
  """
  images = images.astype(jnp.float32)
  if normalize:
    images = arrays.standardise(images)
  return VGG(depth, tuple(layers), dtype).apply({'params': params}, images)


def require(depth: int, file: str | None = None) -> pathlib.Path:
  """Path of the weights, fetched into the cache if needed; call it before a long run.

  Args:
    depth: 16 or 19.
    file: a file of your own instead of torchvision's (see `load`).

  Raises:
    FileNotFoundError: `file` is not there.
    hub.DownloadError: not in the cache, and it cannot be fetched; gives the address and the
      folder to put the file in.
  """
  _check_depth(depth)
  if file is not None:
    path = pathlib.Path(file).expanduser()
    if not path.is_file():
      raise FileNotFoundError(f'VGG{depth} weights: {path} is not a file')
    return path
  url, digest = PUBLISHED[depth]
  return hub.download(url, digest)


def load(
  depth: int, file: str | None = None, *, shapes_only: bool = False
) -> dict[str, dict[str, np.ndarray]]:
  """Parameters of VGG`depth`: {'conv1_1': {'kernel': [3,3,in,out], 'bias': [out]}, ...}, float32.

  Args:
    depth: 16 or 19.
    file: any file that `weights.reader` reads with torchvision's keys (features.0.weight, ...;
      classifier.* is not read), or a safetensors file with conv1_1/kernel, conv1_1/bias, ...
      None: torchvision's own, from the cache or its published address, checked by SHA-256.
    shapes_only: give jax.ShapeDtypeStructs and read no file, for estimates.

  Raises:
    ValueError: the file's keys or shapes are not VGG`depth`'s.
    FileNotFoundError, hub.DownloadError: as `require`.
  """
  shapes = jax.eval_shape(
    VGG(depth, (layer_names(depth)[-1],)).init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
  )
  if shapes_only:
    return shapes['params']
  path = require(depth, file)
  convolutions = [_conv(n) for n in layer_names(depth) if n.startswith('relu')]
  state = reader.read(path, only=lambda key: 'classifier.' not in key)
  state = mapping.flatten(state, separator='.')
  converted = {f'{name}/{leaf}' for name in convolutions for leaf in ('kernel', 'bias')}
  if converted & state.keys():
    entries = [mapping.Entry(k, 'vgg', tuple(k.split('/'))) for k in sorted(converted)]
  else:
    entries = torchvision_entries(depth)
  expected = {'params': {'vgg': shapes['params']}, 'stats': {}}
  try:
    tree = mapping.convert(state, entries, (r'^(module\.)?classifier\.',), expected=expected)
  except mapping.MappingError as error:
    raise ValueError(f'{path} does not hold the weights of VGG{depth}: {error}') from error
  return tree['params']['vgg']


def load_down_to(
  layers: Sequence[str], depth: int, file: str | None = None, *, shapes_only: bool = False
) -> dict[str, dict[str, np.ndarray]]:
  """The parameters that the deepest of `layers` needs; arguments and errors as `load`."""
  names = layer_names(depth)
  used = names[: max(names.index(_stage(layer)) for layer in layers) + 1]
  params = load(depth, file, shapes_only=shapes_only)
  return {conv: params[conv] for conv in map(_conv, used) if conv in params}


def torchvision_entries(depth: int, network: str = 'vgg') -> list[mapping.Entry]:
  """Where the keys of torchvision's convolutions go, below `network`."""
  names = [_conv(n) for n in layer_names(depth) if n.startswith('relu')]
  return [
    entry
    for index, name in zip(_torchvision_indices(depth), names, strict=True)
    for entry in mapping.conv(f'features.{index}', network, (name,))
  ]


def _torchvision_indices(depth: int) -> list[int]:
  """Numbers of the convolutions in torchvision's `features` (each conv, relu and pool counts)."""
  indices, at = [], 0
  for count in BLOCKS[depth]:
    indices += [at + 2 * i for i in range(count)]
    at += 2 * count + 1
  return indices


def _check_depth(depth: int) -> None:
  if depth not in BLOCKS:
    raise ValueError(f'VGG depth {depth} is not one of {sorted(BLOCKS)}')
