"""Systems as small as they get, to be exported."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxinpaint.layers import conv
from jaxinpaint.recipe import Inference, Variables
from jaxinpaint.trained import Trained


def init(rng, batch):
  kernel = jax.random.normal(rng, (4, 4, 3, 3)) / 10
  return Variables({'net': {'kernel': kernel}}, {})


def output(variables, constants, image, mask, rng):
  """A convolution with stride 2 and its transpose."""
  kernel = variables.params['net']['kernel']
  small = conv.conv2d(image + mask, kernel, stride=2, padding=1)
  return jax.nn.sigmoid(conv.conv_transpose2d(small, kernel, padding=1))


def noisy(variables, constants, image, mask, rng):
  return image + jax.random.uniform(rng, image.shape)


def by_size(variables, constants, image, mask, rng):
  return image if image.shape[1] > 100 else 1 - image


def by_count(variables, constants, image, mask, rng):
  return image if image.shape[0] > 2 else 1 - image


def trained(output=output, card=None, **options):
  """A system that fills holes by `output`."""
  options = {'init': init, 'multiple': 2, 'min_side': 6, **options}
  inference = Inference(networks=('net',), output=output, **options)
  config = ConfigDict({'version': 2, 'system': 'toy', 'dtype': 'float32', 'model': {'width': 3}})
  variables = jax.tree.map(np.asarray, inference.random())
  return Trained(
    pathlib.Path('toy.safetensors'), None, config, inference, variables, {}, card or {}
  )


def pictures(count, height, width, seed=0):
  """f32[B,H,W,3] and f32[B,H,W,1] with scattered holes."""
  rng = np.random.default_rng(seed)
  image = rng.random((count, height, width, 3), np.float32)
  return image, (rng.random((count, height, width, 1)) < 0.3).astype(np.float32)


def numbers(shape):
  """Weights of this shape that differ from one another."""
  return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape) / 8, jnp.float32)
