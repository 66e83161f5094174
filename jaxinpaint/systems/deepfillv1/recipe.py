"""How DeepFill v1 is trained: spatially discounted L1 and two Wasserstein critics.

Yu, Lin, Yang, Shen, Lu, Huang: "Generative Image Inpainting with Contextual Attention", CVPR 2018,
sections 3 and 4.3. Weights and details are those of the authors' code (its release v1.0.0):

  generator = l1 * L1 of the hole's box, discounted + ae * L1 of known pixels
              + adversarial * (-mean D_local - global_weight * mean D_global)
  critics   = sum of both of mean D(completed) - mean D(real) + gradient_penalty * penalty

All of this is for images in [-1, 1]. The box is a square of `model.local_size` around the hole, so
a mask must be one hole of at most that size ('box' masks are). For other masks only the middle is
judged.

A step uses one batch. With `critic_batches='fresh'` (as the authors: five critic steps on five
batches for each step of the generator), the critics are stepped in every step and the generator in
every `critic_steps`-th one. So one iteration of the authors' code is `critic_steps` steps here.
With 'same', each step takes `critic_steps` critic steps on one batch and then one generator step,
which needs fewer forward passes of the generator. The port trains in this way, with other batches.

The phase 'coarse', 0 steps as published, trains only the first stage, without critics
(PRETRAIN_COARSE_NETWORK in the code).

Differs from the paper:
  - the weights of the losses and the factor of the coarse result are from the code; the text does
    not give them;
  - the L1 of known pixels (`ae`) is added by default, as in the code; the text leaves this open;
  - the discount is gamma^l with l the distance to the nearest known pixel and, in the paper, gamma
    0.99. The code, and this, has 0.9, and counts l from the border of the box of `local_size`, also
    where the hole is smaller than the box.
Differs from the reference code:
  - each sample has its own hole;
  - the square root in the slope has derivative 0 at 0; in the code it has none;
  - the first step of the generator follows one critic step, not five (fresh batches);
  - `gp_masked=False, l1_on='comp', ae_over_known=False` are the port's readings.
"""

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.layers import contextual_attention
from jaxinpaint.losses import adversarial, reconstruction
from jaxinpaint.recipe import Forward, Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules, two_critics, windows
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.deepfillv1 import networks as networks_lib

WEIGHTS = ('l1', 'l1_coarse', 'ae', 'adversarial', 'global_weight', 'gradient_penalty')


def default_config() -> ConfigDict:
  """The networks and weights of the authors' code."""
  model = dict(
    width=32,
    use_attention=True,
    fuse=True,
    padding='same',
    resize='align_corners',
    mask_steps=2,
    key_norm='max',
    channel_order='rgb',  # ours; the authors' weights are imported with 'bgr'
    block_bytes=contextual_attention.BLOCK_BYTES,  # ours: limits memory, not the numbers
    critic='official',
    critic_width=64,
    image_size=256,  # that the critics are built for ...
    local_size=128,  # ... and of the box around the hole
  )
  loss = dict(
    l1=1.2,
    l1_coarse=1.2,  # factor of the coarse result's L1, in the hole and outside
    ae=1.2,
    adversarial=0.001,
    global_weight=1.0,
    gradient_penalty=10.0,
    gp_masked=True,  # the penalty's slope is that of pixels in the hole
    discount=0.9,  # per pixel from the box's border; 1: none; the paper: 0.99
    l1_on='out',  # 'comp': of results pasted into the image
    ae_over_known=True,  # divide by the share of known pixels
    critic_batches='fresh',  # or 'same'; see the module's text
    critic_steps=5,
  )
  phases = dict(coarse=0, joint=-1)
  return ConfigDict(
    dict(system='deepfillv1', dtype='float32', model=model, loss=loss, phases=phases)
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and shortens the phases: two generator steps in the second; in place."""
  config.model.update(dict(width=8, critic_width=8, image_size=64, local_size=32))
  config.loss.critic_steps = 2
  config.phases.update(dict(coarse=2, joint=3))
  config.training.steps = 5


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  networks = {'generator': _generator(config)}

  def pictures(variables, constants, image, mask, rng):
    outputs = modules.run(networks, 'generator', variables, image, mask)
    drawn = {'coarse': arrays.compose(outputs['coarse'], image, mask)}
    if config.model.use_attention:
      size = image.shape[1:3]
      drawn['attention'] = contextual_attention.offset_picture(outputs['index'], *size)
    return drawn

  return modules.one_generator(
    networks['generator'],
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.MIN_SIDE,
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running = inference(config)
  _check_training(config)
  model, loss, steps = config.model, config.loss, config.phases
  networks = {'generator': _generator(config)}
  if loss.adversarial:
    networks |= networks_lib.critics(
      model.critic, model.critic_width, model.channel_order, modules.DTYPES[config.dtype]
    )
  fresh = loss.critic_batches == 'fresh'
  painting = _generator_loss(config, networks, coarse_only=False)
  every = loss.critic_steps if fresh and loss.adversarial else 1
  joint = [Update('generator', ('generator',), painting, 'generator', every=every)]
  if loss.adversarial:
    repeat = 1 if fresh else loss.critic_steps
    joint.insert(
      0,
      Update(
        'critic', two_critics.CRITICS, _critic_loss(config, networks), 'critic', repeat=repeat
      ),
    )
  coarse_loss = _generator_loss(config, networks, coarse_only=True)
  coarse = Update('coarse', ('generator',), coarse_loss, 'generator')
  phases = (
    Phase('coarse', steps.coarse, _forward(networks, coarse_only=True), (coarse,)),
    Phase('joint', steps.joint, _forward(networks, coarse_only=False), tuple(joint)),
  )
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, two_critics.arguments(model)),
    phases=tuple(phase for phase in phases if phase.steps),
  )


def _generator(config: ConfigDict) -> nn.Module:
  of_critics = ('critic', 'critic_width', 'image_size', 'local_size')
  fields = {name: value for name, value in config.model.items() if name not in of_critics}
  return networks_lib.Generator(**fields, dtype=modules.DTYPES[config.dtype])


def _forward(networks: Networks, *, coarse_only: bool) -> Forward:
  def forward(variables, constants, batch, rng):
    outputs, changed = modules.train_pass(
      networks, 'generator', variables, batch['image'], batch['mask'], coarse_only=coarse_only
    )
    return {name: outputs[name] for name in ('coarse', 'out')}, changed

  return forward


def _generator_loss(config: ConfigDict, networks: Networks, *, coarse_only: bool) -> Loss:
  """The generator's update; with `coarse_only` the first stage's terms, without the critics."""
  loss, size = config.loss, config.model.local_size
  judged = bool(loss.adversarial) and not coarse_only
  stages = [('coarse', loss.l1_coarse)] + ([] if coarse_only else [('out', 1)])

  def generator_loss(variables, constants, outputs, batch, rng):
    image, mask = batch['image'], batch['mask']
    two_critics.check_size(image, config.model, judged=judged)
    known = 1 - mask
    window = windows.middle_window(mask, size)
    patch = lambda x: windows.cut(x, window, size)
    # The error in [-1, 1] is twice that in [0, 1]. Without known pixels the term is 0.
    share = jnp.maximum(known.mean(), 1 / known.size) if loss.ae_over_known else 1.0
    metrics = {}
    for name, factor in stages:
      out = outputs[name]
      if loss.l1:
        shown = arrays.compose(out, image, mask) if loss.l1_on == 'comp' else out
        value = reconstruction.discounted_l1(patch(shown), patch(image), loss.discount)
        metrics[f'l1_{name}'] = 2 * loss.l1 * factor * value
      if loss.ae:
        value = reconstruction.l1(out, image, known) / share
        metrics[f'ae_{name}'] = 2 * loss.ae * factor * value
    if judged:
      fake = arrays.compose(outputs['out'], image, mask)
      for name, x, weight in (
        ('local_critic', patch(fake), 1.0),
        ('global_critic', fake, loss.global_weight),
      ):
        scores = modules.run(networks, name, variables, x)
        value = adversarial.wasserstein.generator(scores)
        metrics[f'adversarial_{two_critics.short(name)}'] = loss.adversarial * weight * value
    return total(metrics)

  return generator_loss


def _critic_loss(config: ConfigDict, networks: Networks) -> Loss:
  """Both critics' update."""
  loss = config.loss
  return two_critics.critic_loss(
    networks,
    config.model,
    adversarial.wasserstein,
    name='wasserstein',
    penalty=loss.gradient_penalty,
    penalised=(lambda mask: mask) if loss.gp_masked else None,
  )


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  for name, choices in (
    ('padding', ('same', 'symmetric')),
    ('resize', ('align_corners', 'floor')),
    ('mask_steps', (1, 2)),
    ('key_norm', ('max', 'sum')),
    ('channel_order', ('rgb', 'bgr')),
    ('critic', ('official', 'port')),
  ):
    checks.one_of(f'model.{name}', model[name], choices)
  for name in ('width', 'critic_width'):
    checks.count(f'model.{name}', model[name])
  two_critics.check_model(model)


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  known, loss = default_config(), config.loss
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], known[section])
  checks.one_of('loss.l1_on', loss.l1_on, ('out', 'comp'))
  checks.one_of('loss.critic_batches', loss.critic_batches, ('fresh', 'same'))
  checks.weights(loss, WEIGHTS, needed=False)
  if not (loss.l1 or loss.ae or loss.adversarial):
    raise ValueError('config.loss: l1, ae and adversarial are 0: nothing to train')
  if not 0 < loss.discount <= 1:
    raise ValueError(f'config.loss.discount {loss.discount!r} must be in (0, 1] (1: no discount)')
  checks.count('loss.critic_steps', loss.critic_steps)
  checks.phases(config.phases, last='joint')
