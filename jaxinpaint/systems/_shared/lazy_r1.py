"""The R1 penalty in every n-th step, as StyleGAN2 has it.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila: "Analyzing and Improving the Image Quality of
StyleGAN", CVPR 2020, section 3.1. The penalty is an update of its own, after the critic's, with the
critic's optimizer and n times its weight. Steps in between contain nothing of it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxinpaint.losses import adversarial
from jaxinpaint.recipe import Loss, Update, Variables
from jaxinpaint.systems._shared import modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total

# (image f32[B,H,W,3] in [-1,1], mask f32[B,H,W,1], 1 = hole) -> what a critic is called with.
Judged = Callable[[jax.Array, jax.Array], jax.Array]


def update(
  networks: Networks,
  critics: tuple[str, ...],
  judged: Judged,
  *,
  gamma: float,
  every: int,
  optimizer: str,
) -> Update:
  """The update 'r1' of the critics: gamma / 2 * every * the sum of their penalties.

  Gradients are with respect to the images alone, in float32.

  Args:
    networks: with the critics.
    critics: their names.
    judged: what they are called with.
    gamma: weight of the penalty.
    every: n.
    optimizer: of the critics' own update.
  """
  exact = {name: networks[name].clone(dtype=jnp.float32) for name in critics}
  return Update('r1', critics, _loss(exact, judged, gamma / 2 * every), optimizer, every=every)


def _loss(critics: Networks, judged: Judged, weight: float) -> Loss:
  def loss_of(variables, constants, outputs, batch, rng):
    judge = functools.partial(_judge, critics, judged, variables, batch['mask'])
    real = 2 * batch['image'] - 1
    penalties = {
      name: weight * adversarial.r1_penalty(functools.partial(judge, name), real)
      for name in critics
    }
    return total(penalties)

  return loss_of


def _judge(
  critics: Networks,
  judged: Judged,
  variables: Variables,
  mask: jax.Array,
  name: str,
  image: jax.Array,
) -> jax.Array:
  return modules.run(critics, name, variables, judged(image, mask))
