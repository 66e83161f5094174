"""How fast the averages of parameters follow: a decay for each step, or a half-life in images.

With a half-life of h images an average keeps 0.5 ** (images of a step / h) of itself, so the batch
size does not change what it is an average of. With a ramp-up r, h is at most r times the images so
far: at the start the average follows closely (StyleGAN2-ADA; Karras et al., "Training Generative
Adversarial Networks with Limited Data", NeurIPS 2020, has r = 0.05).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Decay = float | Callable[[jax.Array], jax.Array]  # the second: of the step, i32[] from 0


def networks(training: Mapping[str, Any]) -> tuple[str, ...]:
  """The networks whose average is kept, by config.training."""
  kept = training['ema_decay'] or training.get('ema_half_life')  # absent from older checkpoints
  return tuple(training['ema_networks']) if kept else ()


def decay(training: Mapping[str, Any], batch_size: int) -> Decay:
  """The share that averages keep of themselves, by config.training.

  Args:
    training: config.training.
    batch_size: images of one step.
  """
  half_life, rampup = training['ema_half_life'], training['ema_rampup']
  moved = batch_size * training['accumulate']  # images for each optimizer step
  if not half_life:
    return training['ema_decay']
  if not rampup:
    return 0.5 ** (moved / half_life)

  def ramped(step: jax.Array) -> jax.Array:
    images = rampup * batch_size * step.astype(jnp.float32)
    return jnp.exp2(-moved / jnp.clip(images, 1e-8, half_life))

  return ramped


def check(training: Mapping[str, Any]) -> None:
  """Raises ValueError for settings of averages that mean nothing."""
  if not 0 <= training['ema_decay'] < 1:
    raise ValueError(f'config.training.ema_decay {training["ema_decay"]} must be in [0, 1)')
  for name in ('ema_half_life', 'ema_rampup'):
    if not training[name] >= 0:
      raise ValueError(f'config.training.{name} {training[name]} must be >= 0 (0: none)')
  if training['ema_half_life'] and training['ema_decay']:
    raise ValueError(
      f'config.training.ema_half_life {training["ema_half_life"]} takes the place of '
      f'config.training.ema_decay {training["ema_decay"]}: set one of them to 0'
    )
  if training['ema_rampup'] and not training['ema_half_life']:
    raise ValueError(
      f'config.training.ema_rampup {training["ema_rampup"]} limits config.training.ema_half_life, '
      'which is 0: set it, or no ramp-up'
    )
