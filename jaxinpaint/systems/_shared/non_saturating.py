"""The non-saturating losses of inpainters made as StyleGAN2: a critic of [mask, image].

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila: "Analyzing and Improving the Image Quality of
StyleGAN", CVPR 2020. Images are in [-1,1]; a fake is the output in the hole and the image
elsewhere. The forward pass of a phase returns 'raw', the output before it is clipped.
"""

import jax

from jaxinpaint import arrays
from jaxinpaint.layers.stylegan2_networks import judged
from jaxinpaint.losses import adversarial
from jaxinpaint.recipe import Batch, Loss, Outputs, Variables
from jaxinpaint.systems._shared import modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total


def fake(outputs: Outputs, batch: Batch) -> jax.Array:
  """The completed image in [-1,1]."""
  return arrays.compose(outputs['raw'], 2 * batch['image'] - 1, batch['mask'])


def generator_term(
  networks: Networks, variables: Variables, outputs: Outputs, batch: Batch
) -> jax.Array:
  """mean softplus(-critic(fake))."""
  x = judged(fake(outputs, batch), batch['mask'])
  return adversarial.non_saturating.generator(modules.run(networks, 'critic', variables, x))


def critic_loss(networks: Networks) -> Loss:
  """The critic's update: mean softplus(critic(fake)) + mean softplus(-critic(image))."""

  def loss_of(variables, constants, outputs, batch, rng):
    judge = lambda image: modules.run(networks, 'critic', variables, judged(image, batch['mask']))
    drawn = jax.lax.stop_gradient(fake(outputs, batch))
    # Two calls, not one with a double batch: deviations are within groups of one kind.
    terms = adversarial.non_saturating.discriminator(judge(2 * batch['image'] - 1), judge(drawn))
    return total(dict(zip(('real', 'fake'), terms, strict=True)))

  return loss_of
