"""Perceptual and style terms on the pools of VGG16, which PConv introduced and others took over.

A config has `loss.perceptual` and `loss.style`, their weights; `loss.vgg_file`, '' for
torchvision's weights; `loss.vgg_layers`, among pool1 ... pool5. Without both weights no VGG is
loaded.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxinpaint.features import vgg
from jaxinpaint.recipe import Constants

DEPTH = 16
POOLS = tuple(f'pool{i}' for i in range(1, 6))
Features = Callable[[jax.Array], Mapping[str, jax.Array]]


def check(loss: ConfigDict) -> None:
  """Raises ValueError where a term is wanted of layers that are not pools, or of none."""
  layers = set(loss.vgg_layers)
  if (loss.perceptual or loss.style) and not (layers and layers <= set(POOLS)):
    raise ValueError(f'config.loss.vgg_layers {tuple(loss.vgg_layers)} must be among {POOLS}')


def load_constants(loss: ConfigDict, *, shapes_only: bool = False) -> Constants:
  """{'vgg': its parameters}, or {} if no term uses features; `recipe.LoadConstants`."""
  if not (loss.perceptual or loss.style):
    return {}
  file = loss.vgg_file or None
  return {'vgg': vgg.load_down_to(loss.vgg_layers, DEPTH, file, shapes_only=shapes_only)}


def features(constants: Constants, loss: ConfigDict, *, normalize: bool, dtype: Any) -> Features:
  """image f32[B,H,W,3] -> {layer: f32[B,h,w,c]}; other arguments as `features.vgg.apply`."""
  layers = tuple(loss.vgg_layers)
  return lambda image: vgg.apply(
    constants['vgg'], image, layers, depth=DEPTH, normalize=normalize, dtype=dtype
  )
