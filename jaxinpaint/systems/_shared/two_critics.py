"""Two critics, one of the square around the hole and one of the whole image (DeepFill v1, GMCNN).

Both end in dense layers, so each is built for squares of one side: config.model.local_size and
config.model.image_size. Losses see images in [0, 1]; gradient penalties are those of [-1, 1].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.losses import adversarial
from jaxinpaint.recipe import Loss
from jaxinpaint.systems._shared import checks, modules, windows
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total

CRITICS = ('local_critic', 'global_critic')


def short(critic: str) -> str:
  """'local' or 'global', for the names of terms."""
  return critic.partition('_')[0]


def arguments(model: ConfigDict) -> modules.Arguments:
  """Of `modules.initializer`, for a generator of (image, mask) and both critics."""
  sides = (model.local_size, model.image_size)
  judged = {name: ((side, side, 3),) for name, side in zip(CRITICS, sides, strict=True)}
  return lambda height, width: modules.generator_arguments(height, width) | judged


def check_model(model: ConfigDict) -> None:
  """Raises ValueError for sides that do not fit together."""
  for name in ('image_size', 'local_size'):
    checks.count(f'model.{name}', model[name])
  if model.local_size > model.image_size:
    raise ValueError(
      f'config.model.local_size {model.local_size} exceeds model.image_size {model.image_size}'
    )


def check_size(image: jax.Array, model: ConfigDict, *, judged: bool) -> None:
  """Raises ValueError for a batch that the critics (if `judged`), or the squares, do not fit."""
  height, width = image.shape[1:3]
  side, local = model.image_size, model.local_size
  if judged and (height, width) != (side, side):
    raise ValueError(
      f'the critics are built for images of {side} x {side}, the batch has {height} x {width}: set '
      f'config.model.image_size to config.data.size (and model.local_size to half of it)'
    )
  if min(height, width) < local:
    raise ValueError(f'config.model.local_size {local} exceeds the images, {height} x {width}')


def critic_loss(
  networks: Networks,
  model: ConfigDict,
  kind: adversarial.AdversarialLoss,
  *,
  name: str,
  penalty: float = 0.0,
  penalised: Callable[[jax.Array], jax.Array] | None = None,
) -> Loss:
  """Both critics' update, on real images and on fakes pasted into them.

  Args:
    networks: with both critics.
    model: config.model.
    kind: of GAN.
    name: of its terms, NAME_local and NAME_global.
    penalty: the weight of the gradient penalty; 0: none.
    penalised: mask f32[B,H,W,1] -> how much each pixel's squared gradient counts; None: all alike.
  """
  # The gradient penalty is computed in float32.
  exact = {critic: networks[critic].clone(dtype=jnp.float32) for critic in CRITICS}

  def both_critics_loss(variables, constants, outputs, batch, rng):
    image, mask = batch['image'], batch['mask']
    check_size(image, model, judged=True)
    fake = jax.lax.stop_gradient(arrays.compose(outputs['out'], image, mask))
    window = windows.middle_window(mask, model.local_size)
    patch = lambda x: windows.cut(x, window, model.local_size)
    weight = penalised(mask) if penalty and penalised else None
    metrics: dict[str, Any] = {}
    slopes: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    rngs = jax.random.split(rng)
    for critic, crop, key in zip(CRITICS, (patch, lambda x: x), rngs, strict=True):
      real, made = crop(image), crop(fake)
      # Each real image is beside its fake: with all reals first, a batch that is split over devices
      # would have to be moved between them.
      pairs = jnp.stack([real, made], 1).reshape(-1, *real.shape[1:])
      scores, stats = modules.train_pass(networks, critic, variables, pairs)
      changed |= stats
      scores = scores.reshape(len(real), 2, *scores.shape[1:])
      metrics[f'{name}_{short(critic)}'] = sum(kind.discriminator(scores[:, 0], scores[:, 1]))
      if penalty:
        # The networks' own range is [-1, 1]; the gradient there is half the gradient in [0, 1].
        judge = lambda x, critic=critic: modules.run(exact, critic, variables, (x + 1) / 2)
        hole = None if weight is None else crop(weight)
        value, slope = adversarial.gradient_penalty(
          judge, real * 2 - 1, made * 2 - 1, key, mask=hole
        )
        metrics[f'penalty_{short(critic)}'] = penalty * value
        slopes[f'slope_{short(critic)}'] = slope.mean()
    return total(metrics, changed, slopes)

  return both_critics_loss
