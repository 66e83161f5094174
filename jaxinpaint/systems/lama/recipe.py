"""How LaMa is trained: a critic with R1, its features, and a perceptual loss of wide view.

Suvorov et al.: "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022,
https://arxiv.org/abs/2109.07161, section 2.2; numbers are those of the authors' code (Big LaMa).

  generator  known * mean |out - image| outside the hole
             + adversarial * mean softplus(-D(out))
             + feature_matching * mean over D's five features of mean (D_k(out) - D_k(image))^2
             + perceptual * sum over four stages of mean (f_k(out) - f_k(image))^2
  critic     mean softplus(-D(image)) + r1 * mean |gradient of D(image)|^2
             + mean of softplus(D(out)) where the hole is, and of softplus(-D(out)) elsewhere

Images are in [0, 1]; `out` is the whole output, known pixels not pasted, and D sees no mask. The
mean over known pixels is divided by the number of all pixels. Patches of the output that see known
pixels count as real for the critic (the hole in its size by the nearest pixel), and all count for
the generator. f is a dilated ResNet-50 that segments scenes (`features/resnet_dilated.py`), whose
weights a run needs: `loss.resnet_file`, or the cache. Without `perceptual` it does not. R1 is in
every step. Logged terms include their weights.

Batch norms take the statistics of the batch in training, in both networks, and R1 differentiates
through them, as in the code.

Differs from the paper: nothing known; where its text leaves something open, the code is followed.

Differs from the reference code:
  - critic and generator learn from one pass of the generator; the code makes another one for the
    critic, with the generator after its step;
  - pictures without a known pixel are logged and train nothing;
  - statistics of batch norms move once in a pass, and not with the generator's look at the critic.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.features import resnet_dilated
from jaxinpaint.losses import adversarial, reconstruction
from jaxinpaint.recipe import Constants, Forward, Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.lama import networks as networks_lib
from jaxinpaint.systems.lama import refinement

WEIGHTS = ('known', 'hole', 'adversarial', 'feature_matching', 'perceptual')


def default_config() -> ConfigDict:
  """Big LaMa's networks and weights."""
  model = dict(
    width=64,
    blocks=18,  # LaMa-Fourier: 9
    global_share=0.75,
    local_fourier=False,
  )
  loss = dict(
    known=10.0,
    hole=0.0,
    adversarial=10.0,
    feature_matching=100.0,
    perceptual=30.0,
    r1=0.001,
    mask_as_fake=True,  # False: all patches of the output count as fake
    resnet_file='',
    discriminator_width=64,
  )
  return ConfigDict(dict(system='lama', dtype='float32', model=model, loss=loss))


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and removes the loss that needs the ResNet's weights; changes `config`."""
  config.model.update(dict(width=8, blocks=2))
  config.loss.update(dict(perceptual=0.0, discriminator_width=8))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  generator = _generator(config)

  def refined(variables, constants, image, mask, rng, /, **inputs):
    return refinement.refine(generator, variables.of('generator'), image, mask)[0]

  return modules.one_generator(
    generator,
    refined=refined,
    refined_side=refinement.LEAST_SIDE,
    pad_mode='symmetric',
    multiple=networks_lib.multiple(config.model.local_fourier),
    min_side=networks_lib.MIN_SIDE,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A term of weight 0 is not built. Without `adversarial` and `feature_matching` there is no critic.
  """
  running, loss = inference(config), config.loss
  _check_loss(loss)
  dtype = modules.DTYPES[config.dtype]
  networks = {'generator': _generator(config)}
  updates = [
    Update('generator', ('generator',), _generator_loss(loss, networks, dtype), 'generator')
  ]
  if loss.adversarial or loss.feature_matching:
    networks['discriminator'] = networks_lib.Discriminator(loss.discriminator_width, dtype=dtype)
    judging = _discriminator_loss(loss, networks)
    updates.append(Update('discriminator', ('discriminator',), judging, 'discriminator'))
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, _arguments),
    phases=(Phase('joint', -1, _forward(networks), tuple(updates)),),
    load_constants=functools.partial(_load_constants, loss),
  )


def _generator(config: ConfigDict) -> networks_lib.Generator:
  """The network of config.model, which is checked."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  for name in ('width', 'blocks'):
    checks.count(f'model.{name}', model[name])
  if not 0 < model.global_share < 1:
    raise ValueError(f'config.model.global_share {model.global_share!r} must be > 0 and < 1')
  return networks_lib.Generator(**model, dtype=modules.DTYPES[config.dtype])


def _arguments(height: int, width: int) -> dict[str, tuple[modules.Shape, ...]]:
  shapes = modules.generator_arguments(height, width)
  return shapes | {'discriminator': ((height, width, 3),)}


def _load_constants(loss: ConfigDict, *, shapes_only: bool = False) -> Constants:
  if not loss.perceptual:
    return {}
  return {'resnet': resnet_dilated.load(loss.resnet_file, shapes_only=shapes_only)}


def _forward(networks: Networks) -> Forward:
  def forward(variables, constants, batch, rng):
    image, mask = batch['image'], batch['mask']
    outputs, changed = modules.train_pass(networks, 'generator', variables, image, mask)
    return {'out': modules.only_of_known(outputs['out'], mask)}, changed

  return forward


def _generator_loss(loss: ConfigDict, networks: Networks, dtype: Any) -> Loss:
  """The update of the generator; `networks` may get its critic later."""

  def loss_of(variables, constants, outputs, batch, rng):
    out, image, mask = outputs['out'], batch['image'], batch['mask']
    metrics = {}
    for name, region in (('known', 1 - mask), ('hole', mask)):
      if loss[name]:
        metrics[name] = loss[name] * reconstruction.masked_l1(out, image, region)
    if loss.adversarial or loss.feature_matching:
      judge = lambda x: modules.train_pass(networks, 'discriminator', variables, x)[0]
      logits, features = judge(out)
      if loss.adversarial:
        metrics['adversarial'] = loss.adversarial * adversarial.non_saturating.generator(logits)
      if loss.feature_matching:
        matched = feature_distance(features, judge(image)[1])
        metrics['feature_matching'] = loss.feature_matching * matched
    if loss.perceptual:
      seen = resnet_dilated.perceptual(constants['resnet'], out, image, dtype)
      metrics['perceptual'] = loss.perceptual * seen
    return total(metrics)

  return loss_of


def feature_distance(fake: tuple[jax.Array, ...], real: tuple[jax.Array, ...]) -> jax.Array:
  """Mean over the critic's features of their mean squared differences; f32[]."""
  square = lambda a, b: jnp.square(a.astype(jnp.float32) - b.astype(jnp.float32)).mean()
  values = [square(a, jax.lax.stop_gradient(b)) for a, b in zip(fake, real, strict=True)]
  return sum(values) / len(values)


def _discriminator_loss(loss: ConfigDict, networks: Networks) -> Loss:
  # Derivatives of derivatives, in the precision that they need.
  exact = {'discriminator': networks['discriminator'].clone(dtype=jnp.float32)}

  def loss_of(variables, constants, outputs, batch, rng):
    image, out = batch['image'], jax.lax.stop_gradient(outputs['out'])
    judge = functools.partial(modules.train_pass, networks, 'discriminator')
    (real, _), changed = judge(variables, image)
    (fake, _), changed = judge(variables.with_stats(changed), out)
    metrics = critic_terms(real, fake, batch['mask'] if loss.mask_as_fake else None)
    if loss.r1:
      slope = lambda x: modules.train_pass(exact, 'discriminator', variables, x)[0][0]
      metrics['r1'] = loss.r1 * adversarial.r1_penalty(slope, image)
    return total(metrics, changed)

  return loss_of


def critic_terms(real: jax.Array, fake: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
  """{'real', 'fake': f32[]} of the logits f32[B,h,w,1].

  Args:
    real: of images.
    fake: of outputs.
    mask: f32[B,H,W,1], 1 = hole: patches that are known at the nearest pixel count as real; None:
      none do.
  """
  of_real, of_fake = adversarial.non_saturating.discriminator(real, fake)
  if mask is not None:
    hole = arrays.resize_nearest(mask, *fake.shape[1:3])
    of_fake = (hole * jax.nn.softplus(fake) + (1 - hole) * jax.nn.softplus(-fake)).mean()
  return {'real': of_real, 'fake': of_fake}


def _check_loss(loss: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, WEIGHTS)
  checks.weights(loss, ('r1',), needed=False)
  checks.count('loss.discriminator_width', loss.discriminator_width)
