"""A system small enough to know its every output: it paints holes in one colour."""

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.recipe import Phase, Recipe

COLOUR = (0.2, 0.6, 0.8)


def recipe(output=None, **fields) -> Recipe:
  def paint(params, stats, constants, image, mask, rng):
    return jnp.broadcast_to(params['generator']['colour'], image.shape)

  def init(rng, batch):
    return {'generator': {'colour': jnp.zeros(3)}, 'discriminator': {'w': jnp.zeros(2)}}, {}

  phases = (Phase('joint', -1, lambda *a: ({}, {}), ()),)
  return Recipe(('generator', 'discriminator'), init, phases, output or paint, **fields)


def params(colour=COLOUR):
  return {'generator': {'colour': np.asarray(colour, np.float32)}}


def inpainter(output=None, multiple=8, min_side=16, **options) -> Inpainter:
  return Inpainter(
    recipe(output, multiple=multiple, min_side=min_side), params(), {}, {}, name='toy', **options
  )


def hole(height: int, width: int) -> np.ndarray:
  """uint8[H, W], 255 in the lower right quarter or so, which touches the rim."""
  mask = np.zeros((height, width), np.uint8)
  mask[height // 2 :, width // 3 :] = 255
  if height == width == 1:
    mask[:] = 0
  return mask


def save_mask(path, mask) -> None:
  Image.fromarray(mask).save(path)
