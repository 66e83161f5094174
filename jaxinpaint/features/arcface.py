"""ArcFace's IR-SE50 as a frozen network that compares identities, and the identity loss of pSp.

Deng, Guo, Xue, Zafeiriou: "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR
2019, https://arxiv.org/abs/1801.07698, in the form of TreB1eN/InsightFace_Pytorch. The loss is that
of Richardson et al., "Encoding in Style", CVPR 2021, https://arxiv.org/abs/2008.00951.

  variables = arcface.load('model_ir_se50.pth')
  loss = arcface.id_loss(variables, out, target)

The published file is model_ir_se50.pth. It is on a drive that offers no checksum, so it is never
fetched automatically: `require` says how to get it.

Differs from the reference code: the dropout before the last layer is left out (the network is never
trained here); faces of other sizes than 256 pixels are cut at the same proportions.
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
from jaxinpaint.features import state_dicts
from jaxinpaint.layers.irse import DEPTHS, IRSEBody
from jaxinpaint.layers.squeeze_excite import batch_norm
from jaxinpaint.weights import hub, mapping

SIDE = 112  # of the pictures that the network was trained on
FILE = 'model_ir_se50.pth'
ADDRESS = 'https://drive.google.com/uc?id=1KW7bjndL3QG3sxBbZxreGHigcCCpsDgn'
# Rows and columns of an aligned face of 256 pixels that show the face itself.
CROP_OF = 256
CROP_ROWS, CROP_COLUMNS = (35, 223), (32, 220)


class Backbone(nn.Module):
  """IR-SE50, from a face to a unit vector of 512 numbers.

  Attributes:
    width: channels of the first stage; 64 as published.
    depths: units of the four stages; 50 layers as published.
    features: of the vector.
    dtype: of the convolutions; the vector is float32.
  """

  width: int = 64
  depths: tuple[int, ...] = DEPTHS
  features: int = 512
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f32[B,112,112,3] in [-1,1] -> f32[B,features] of length one."""
    y = IRSEBody(self.width, self.depths, dtype=self.dtype, name='body')(x.astype(self.dtype))[-1]
    y = batch_norm('out_bn', False, jnp.float32)(y.astype(jnp.float32))
    y = jnp.moveaxis(y, -1, 1).reshape(y.shape[0], -1)  # PyTorch's order
    y = batch_norm('embed_bn', False, jnp.float32)(nn.Dense(self.features, name='out_dense')(y))
    # The maximum keeps the derivative finite at zero, which no face gives.
    return y * jax.lax.rsqrt(jnp.maximum(jnp.square(y).sum(-1, keepdims=True), 1e-24))


def body_entries(
  network: str, path: tuple[str, ...] = ('body',), prefix: str = '', depths: Sequence[int] = DEPTHS
) -> tuple[mapping.Entry, ...]:
  """Where the keys PREFIXinput_layer.* and PREFIXbody.* go: below `path` of `network`."""
  result: list[mapping.Entry] = []

  def add(kind, key, name, **options):
    result.extend(kind(f'{prefix}{key}', network, (*path, *name), **options))

  def put(key, name, layout='same'):
    result.append(mapping.Entry(f'{prefix}{key}', network, (*path, *name), layout))

  add(mapping.conv, 'input_layer.0', ('input_conv',), bias=False)
  add(mapping.norm, 'input_layer.1', ('input_bn',), statistics=True)
  put('input_layer.2.weight', ('input_prelu', 'slope'))
  starts = np.cumsum([0, *depths[:-1]])
  for k in range(sum(depths)):
    unit, key = (f'unit{k}',), f'body.{k}.res_layer'
    add(mapping.norm, f'{key}.0', (*unit, 'bn1'), statistics=True)
    add(mapping.conv, f'{key}.1', (*unit, 'conv1'), bias=False)
    put(f'{key}.2.weight', (*unit, 'prelu', 'slope'))
    add(mapping.conv, f'{key}.3', (*unit, 'conv2'), bias=False)
    add(mapping.norm, f'{key}.4', (*unit, 'bn2'), statistics=True)
    put(f'{key}.5.fc1.weight', (*unit, 'se', 'fc1', 'kernel'), 'pointwise')
    put(f'{key}.5.fc2.weight', (*unit, 'se', 'fc2', 'kernel'), 'pointwise')
    if k and k in starts:  # the first stage keeps its number of channels
      add(mapping.conv, f'body.{k}.shortcut_layer.0', (*unit, 'shortcut_conv'), bias=False)
      add(mapping.norm, f'body.{k}.shortcut_layer.1', (*unit, 'shortcut_bn'), statistics=True)
  return tuple(result)


def entries(network: str = 'arcface', depths: Sequence[int] = DEPTHS) -> tuple[mapping.Entry, ...]:
  """Where the keys of model_ir_se50.pth go."""
  return (
    *body_entries(network, depths=depths),
    *mapping.norm('output_layer.0', network, ('out_bn',), statistics=True),
    *mapping.dense('output_layer.3', network, ('out_dense',)),
    *mapping.norm('output_layer.4', network, ('embed_bn',), statistics=True),
  )


def require(file: str | os.PathLike | None = None) -> pathlib.Path:
  """Path of the weights; call it before a long run.

  Args:
    file: None looks for model_ir_se50.pth in the cache.

  Raises:
    FileNotFoundError: it is not there; the message says how to get it.
  """
  path = pathlib.Path(file).expanduser() if file else hub.cache_folder() / FILE
  if path.is_file():
    return path
  raise FileNotFoundError(
    f'ArcFace weights: {path} is not a file. Get it with "pip install gdown && '
    f'mkdir -p {path.parent} && gdown {ADDRESS} -O {path}" (IR-SE50 of '
    'TreB1eN/InsightFace_Pytorch, linked in the README of eladrich/pixel2style2pixel), or do '
    'without the identity loss'
  )


def _shapes() -> dict[str, dict]:
  """jax.ShapeDtypeStructs of the variables."""
  return jax.eval_shape(
    Backbone().init, jax.random.key(0), jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  )


def convert(state: Mapping[str, np.ndarray]) -> dict[str, dict]:
  """Variables of a state dict with the keys of model_ir_se50.pth; see `load`."""
  return state_dicts.convert(state, entries, _shapes())


def load(file: str | os.PathLike | None = None, *, shapes_only: bool = False) -> dict[str, dict]:
  """Variables of the network: {'params': ..., 'batch_stats': ...}, float32.

  Args:
    file: with the keys of model_ir_se50.pth, in any form that `weights.reader` reads; None: from
      the cache.
    shapes_only: give jax.ShapeDtypeStructs and read no file, for estimates.

  Raises:
    ValueError: the file holds another network.
    FileNotFoundError: as `require`.
  """
  if shapes_only:
    return _shapes()
  return state_dicts.read(require(file), 'IR-SE50', convert)


def apply(variables: Mapping[str, Any], images: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
  """Unit vectors of faces that are already cut to `SIDE` pixels.

  Args:
    variables: of `load`.
    images: f32[B,112,112,3] in [0,1], RGB, aligned faces.
    dtype: of the convolutions.

  Returns:
    f32[B,512].
  """
  return Backbone(dtype=dtype).apply(variables, 2 * images.astype(jnp.float32) - 1)


def cut_face(images: jax.Array) -> jax.Array:
  """[B,H,W,3] of an aligned face, as FFHQ's and CelebA-HQ's are -> [B,112,112,3] of its middle.

  Rows 35 to 223 and columns 32 to 220 of 256 (in proportion for other sizes), averaged down like
  PyTorch's AdaptiveAvgPool2d.
  """
  h, w = images.shape[1:3]
  (top, bottom), (left, right) = (
    [round(at * n / CROP_OF) for at in ends] for ends, n in ((CROP_ROWS, h), (CROP_COLUMNS, w))
  )
  return arrays.adaptive_avg_pool(images[:, top:bottom, left:right], SIDE, SIDE)


def embed(variables: Mapping[str, Any], images: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
  """f32[B,H,W,3] in [0,1], aligned faces -> f32[B,512], unit vectors."""
  return apply(variables, cut_face(images.astype(jnp.float32)), dtype)


def id_loss(
  variables: Mapping[str, Any], out: jax.Array, target: jax.Array, dtype: Any = jnp.float32
) -> jax.Array:
  """Mean over the batch of 1 - <f(out), f(target)>; no gradient reaches `target`.

  Args:
    variables: of `load`.
    out: f32[B,H,W,3] in [0,1], an aligned face; values outside (an output not clipped) are fine.
    target: likewise.
    dtype: of the convolutions.
  """
  wanted = jax.lax.stop_gradient(embed(variables, target, dtype))
  return (1 - (embed(variables, out, dtype) * wanted).sum(-1)).mean()
