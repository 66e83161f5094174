"""The recipe of GL: its three phases, local parts and losses, both variants."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinpaint import systems
from jaxinpaint.systems.glcic import networks, recipe
from jaxinpaint.training import state as state_lib
from jaxinpaint.training import step as step_lib


def small(variant='pytorch', **sections):
  config = systems.default_config('glcic')
  config.model.update(
    dict(variant=variant, width=4, discriminator_width=2, discriminator_features=8)
    | dict(image_size=32, local_size=32 if variant == 'pytorch' else 125)
  )
  if variant == 'tf':
    config.model.image_size = 256
  for section, values in sections.items():
    config[section].update(values)
  return config


@goldens.cases('glcic_losses')
def test_completion_loss(case):
  data = case.data()
  arrays = [goldens.nhwc(data[name]) for name in ('output', 'image', 'mask')]
  goldens.assert_close(recipe.completion_loss(*arrays), data['completion_loss'], what='MSE')
