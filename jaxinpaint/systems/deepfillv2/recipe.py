"""How DeepFill v2 is trained: L1 of both stages and the hinge loss of SN-PatchGAN.

Yu, Lin, Yang, Shen, Lu, Huang: "Free-Form Image Inpainting with Gated Convolution", ICCV 2019,
sections 3.2 to 3.5. Weights are those of the authors' code:

  generator = ae * (ae_coarse * mean |coarse - image| + mean |out - image|)
              + adversarial * (-mean D(completed))
  critic    = (mean relu(1 - D(image)) + mean relu(1 + D(completed))) / 2

All of this is for images in [-1, 1], the L1 over every pixel of results that are not pasted. The
critic also sees the mask. A step is one step of the critic and then one of the generator, on one
batch and one output of the generator.

With `model.sketch` a line drawing of the hole guides both networks (the paper's user guidance). In
training it is made of Canny's edges of the whole picture (data/inputs.py). Where nobody draws one,
as in an evaluation, the hole has no lines. `Inference.predict(..., canny=drawing)` takes one by
hand.

Differs from the paper:
  - the weights of the losses are from the code;
  - sketches come from Canny's detector, those of the paper from a network (HED) and, of faces, from
    landmarks.
Differs from the reference code:
  - each sample has its own hole;
  - one power iteration of spectral norm for each pass of the critic, one pass in each update;
  - with `loss.sketch_left_out` some sketches are left out in training (ours), so that the network
    can also do without.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.layers import contextual_attention
from jaxinpaint.losses import adversarial, reconstruction
from jaxinpaint.recipe import Batch, Forward, Inference, Loss, Outputs, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.deepfillv2 import networks as networks_lib

WEIGHTS = ('ae', 'ae_coarse', 'adversarial')


def default_config() -> ConfigDict:
  """The networks and weights of the authors' code."""
  model = dict(
    width=24,  # the code's cnum 48 counts features and gates
    sketch=False,
    sigma=2.0,  # ours: of Canny's detector, in pixels; used for sketches only
    fuse=True,
    padding='same',
    resize='align_corners',
    mask_steps=2,
    channel_order='rgb',  # ours; the authors' weights are imported with 'bgr'
    block_bytes=contextual_attention.BLOCK_BYTES,  # ours: limits memory, not the numbers
    kernel_init='gated',  # ours
    critic_width=64,
  )
  loss = dict(
    ae=1.0,
    ae_coarse=1.0,  # factor of the coarse result's L1
    adversarial=1.0,
    sketch_left_out=0.0,  # ours: probability that a sample has no sketch
  )
  return ConfigDict(dict(system='deepfillv2', dtype='float32', model=model, loss=loss))


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks; in place."""
  config.model.update(dict(width=8, critic_width=8))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  networks = {'generator': _generator(config)}
  run = lambda variables, *args: modules.run(networks, 'generator', variables, *args)

  def output(variables, constants, image, mask, rng, /, **inputs):
    return run(variables, image, mask, *inputs.values())['out']

  def pictures(variables, constants, image, mask, rng, /, **inputs):
    outputs = run(variables, image, mask, *inputs.values())
    shown = {'coarse': arrays.compose(outputs['coarse'], image, mask)}
    size = image.shape[1:3]
    return shown | {'attention': contextual_attention.offset_picture(outputs['index'], *size)}

  return Inference(
    networks=('generator',),
    init=modules.initializer(networks, _arguments(config)),
    output=output,
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.MIN_SIDE,
    inputs=(f'canny:sigma={config.model.sigma:g}',) if config.model.sketch else (),
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running, loss = inference(config), config.loss
  _check_training(config)
  networks: dict[str, Any] = {'generator': _generator(config)}
  updates = [Update('generator', ('generator',), _generator_loss(loss, networks), 'generator')]
  if loss.adversarial:
    model = config.model
    networks['critic'] = networks_lib.Critic(
      model.critic_width,
      model.sketch,
      model.padding,
      model.channel_order,
      modules.DTYPES[config.dtype],
    )
    updates.insert(0, Update('critic', ('critic',), _critic_loss(networks), 'critic'))
  left_out = loss.sketch_left_out if config.model.sketch else None
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, _arguments(config)),
    phases=(Phase('joint', -1, _forward(networks, left_out), tuple(updates)),),
  )


def _generator(config: ConfigDict) -> networks_lib.Generator:
  fields = {k: v for k, v in config.model.items() if k not in ('critic_width', 'sigma')}
  return networks_lib.Generator(**fields, dtype=modules.DTYPES[config.dtype])


def _arguments(config: ConfigDict) -> modules.Arguments:
  def arguments(height, width):
    image, plane = (height, width, 3), (height, width, 1)
    seen = (image, plane, plane) if config.model.sketch else (image, plane)
    return {'generator': seen, 'critic': seen}

  return arguments


def _forward(networks: Networks, left_out: float | None) -> Forward:
  """'coarse', 'out' and, unless `left_out` is None, the 'sketch' that was shown."""

  def forward(variables, constants, batch, rng):
    image, mask, shown = batch['image'], batch['mask'], {}
    if left_out is not None:
      sketch = batch['canny']
      if left_out:
        kept = jax.random.bernoulli(rng, 1 - left_out, (len(sketch), 1, 1, 1))
        sketch = sketch * kept
      shown['sketch'] = sketch
    outputs, changed = modules.train_pass(
      networks, 'generator', variables, image, mask, *shown.values()
    )
    return {name: outputs[name] for name in ('coarse', 'out')} | shown, changed

  return forward


def _conditions(outputs: Outputs, batch: Batch) -> tuple[jax.Array, ...]:
  """What the critic sees beside an image: the mask and, if there is one, the sketch."""
  return (batch['mask'], outputs['sketch']) if 'sketch' in outputs else (batch['mask'],)


def _generator_loss(loss: ConfigDict, networks: Networks) -> Loss:
  def generator_loss(variables, constants, outputs, batch, rng):
    image, mask = batch['image'], batch['mask']
    metrics, changed = {}, {}
    for name, factor in (('coarse', loss.ae_coarse), ('out', 1.0)):
      if loss.ae and factor:
        # The error in [-1, 1] is twice that in [0, 1].
        value = reconstruction.absolute_difference(outputs[name], image).mean()
        metrics[f'ae_{name}'] = 2 * loss.ae * factor * value
    if loss.adversarial:
      fake = arrays.compose(outputs['out'], image, mask)
      conditions = _conditions(outputs, batch)
      scores, changed = modules.train_pass(networks, 'critic', variables, fake, *conditions)
      metrics['adversarial'] = loss.adversarial * adversarial.hinge.generator(scores)
    return total(metrics, changed)

  return generator_loss


def _critic_loss(networks: Networks) -> Loss:
  def critic_loss(variables, constants, outputs, batch, rng):
    image, mask = batch['image'], batch['mask']
    fake = jax.lax.stop_gradient(arrays.compose(outputs['out'], image, mask))
    twice = lambda x: jnp.concatenate([x, x])
    both = jnp.concatenate([image, fake])
    conditions = map(twice, _conditions(outputs, batch))
    scores, changed = modules.train_pass(networks, 'critic', variables, both, *conditions)
    real_term, fake_term = adversarial.hinge.discriminator(*jnp.split(scores, 2))
    return total({'real': real_term / 2, 'fake': fake_term / 2}, changed)

  return critic_loss


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  for name, choices in (
    ('sketch', (False, True)),
    ('fuse', (False, True)),
    ('padding', ('same', 'symmetric')),
    ('resize', ('align_corners', 'floor')),
    ('mask_steps', (1, 2)),
    ('channel_order', ('rgb', 'bgr')),
    ('kernel_init', networks_lib.KERNEL_INITS),
  ):
    checks.one_of(f'model.{name}', model[name], choices)
  for name in ('width', 'critic_width', 'block_bytes'):
    checks.count(f'model.{name}', model[name])
  if model.width % 2:
    raise ValueError(f'config.model.width {model.width} must be even: conv16 has half as many')
  if not model.sigma > 0:
    raise ValueError(f'config.model.sigma {model.sigma} must be above 0')


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  loss = config.loss
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, WEIGHTS, needed=False)
  if not (loss.ae or loss.adversarial):
    raise ValueError('config.loss: ae and adversarial are 0: nothing to train')
  if not 0 <= loss.sketch_left_out < 1:
    raise ValueError(
      f'config.loss.sketch_left_out {loss.sketch_left_out!r} must be a probability below 1'
    )
  if loss.sketch_left_out and not config.model.sketch:
    raise ValueError('config.loss.sketch_left_out is of sketches: set config.model.sketch=True')
