"""A system small enough to know its every output: it paints holes in one colour."""

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Inference, Variables

COLOUR = (0.2, 0.6, 0.8)


def inference(output=None, **fields) -> Inference:
  def paint(variables, constants, image, mask, rng):
    return jnp.broadcast_to(variables.params['generator']['colour'], image.shape)

  def init(rng, batch):
    return Variables({'generator': {'colour': jnp.zeros(3)}}, {})

  return Inference(('generator',), init, output or paint, **fields)


def variables(colour=COLOUR) -> Variables:
  return Variables({'generator': {'colour': np.asarray(colour, np.float32)}}, {})


def inpainter(output=None, multiple=8, min_side=16, samples=False, **options) -> Inpainter:
  system = inference(output, multiple=multiple, min_side=min_side, samples=samples)
  how = {k: options.pop(k) for k in ('seed', 'pad_to') if k in options}
  return Inpainter(Predictor(system, variables(), **how), name='toy', **options)


def hole(height: int, width: int) -> np.ndarray:
  """uint8[H, W], 255 in the lower right quarter or so, which touches the rim."""
  mask = np.zeros((height, width), np.uint8)
  mask[height // 2 :, width // 3 :] = 255
  if height == width == 1:
    mask[:] = 0
  return mask


def save_mask(path, mask) -> None:
  Image.fromarray(mask).save(path)
