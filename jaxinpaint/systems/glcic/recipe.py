"""How GL (GLCIC) is trained: first the completion network, then the discriminator, then both.

Iizuka, Simo-Serra, Ishikawa: "Globally and Locally Consistent Image Completion", ACM Transactions
on Graphics 36 (4), 2017, https://doi.org/10.1145/3072959.3073659, algorithm 1.

  phase           generator's loss                      discriminator's loss
  completion      MSE
  discriminator                                         (BCE(fake, 0) + BCE(real, 1)) / 2
  joint           (MSE + alpha BCE(fake, 1)) / 2        alpha (BCE(fake, 0) + BCE(real, 1)) / 2

MSE is the mean over all elements of ((out - image) mask)^2 (eq. 2). Each network keeps one Adadelta
state through all its phases. Batch norm uses the batch's statistics in all phases, and every
forward pass updates its running statistics, also in the discriminator phase. Logged terms include
their weights, so they sum to 'total'.

Fakes are the generator's whole output; known pixels are not pasted back. The discriminator's local
part is a square that contains the hole; in real images it is a square at another, independent
place. Its two branches end in dense layers, so it only judges images of config.model.image_size and
parts of local_size; the generator accepts any size.

In the joint phase alpha makes the discriminator's squared gradients smaller than the 1e-6 that
Adadelta adds under its root. So Adadelta there is almost plain gradient descent with small steps.

Differs from the reference code (otenim/GLCIC-PyTorch):
  - for each image, the square around the hole is drawn among those that contain the hole; the code
    draws one square for a batch, then holes in it, and one square for all reals. For masks
    'rectangles;within=...' (masks/shapes.py) one image's hole and square have the same joint
    distribution;
  - the gradient of the generator's adversarial term does not leak into the discriminator's next
    step; in the code it does, and teaches the discriminator to take fakes for reals;
  - binary cross-entropy is computed from logits: it is exact up to its clamp at 100; the code's
    jumps to 100 once its sigmoid has rounded to 0 or 1;
  - biases start at 0.

`model.variant = 'tf'` is shinseung428/GlobalLocalImageCompletion_TF:
  - known pixels are pasted back before any loss; its values are in [-1, 1], so MSE is four times
    that of [0, 1];
  - losses are not halved; alpha also weights the discriminator's loss in the discriminator's phase;
  - the local part is the hole's box, wider by `margin` pixels on each side and stretched to
    `local_size`; in real images it is at the same place;
  - as released, `separate_heads=True` (see networks.py) and `discriminator_in_joint=False`: after
    its own phase the discriminator is never trained again. Both are off by default, because they
    leave the generator without an opponent; the survey's configuration turns them on.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.losses.adversarial import binary_cross_entropy
from jaxinpaint.recipe import Forward, Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules, windows
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.glcic import networks

VARIANTS = ('pytorch', 'tf')
# config.model.discriminator: convolutions of its branch for the whole image.
GLOBAL_LAYERS = {'celeba': 5, 'places2': 6}
_LOCAL_LAYERS = 5
# The smallest sides for which unpadded 5 x 5 convolutions of stride 2 leave one pixel.
_TF_LEAST = {5: 125, 6: 253}
cross_entropy = functools.partial(binary_cross_entropy, limit=100.0)  # PyTorch's clamp


def default_config() -> ConfigDict:
  """The PyTorch variant on CelebA: networks, weights and phases as published."""
  model = dict(
    variant='pytorch',  # or 'tf'
    width=64,  # P, code
    mpv=(0.5061, 0.4254, 0.3828),  # CelebA's mean pixel value; of published weights: config.json's
    norm_first=False,  # code; P: True. Always true in the tf variant
    discriminator='celeba',  # P, code; 'places2': one more convolution; tf has another one
    discriminator_width=64,  # P, code
    discriminator_features=1024,  # P, code
    image_size=160,  # P (CelebA), code: side of the training images
    local_size=96,  # P (CelebA), code: side of the part around the hole
    separate_heads=False,  # tf variant only; as released: True
  )
  loss = dict(
    alpha=4e-4,  # P, code
    margin=10,  # code; tf variant only, pixels
    discriminator_in_joint=True,  # P, code; the tf variant as released: False
  )
  phases = dict(completion=90_000, discriminator=10_000, joint=400_000)  # P, code
  return ConfigDict(dict(system='glcic', dtype='float32', model=model, loss=loss, phases=phases))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  return modules.one_generator(
    _generator(config), multiple=networks.MULTIPLE, min_side=networks.MIN_SIDE
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running = inference(config)
  _check_training(config)
  loss, steps, tf = config.loss, config.phases, config.model.variant == 'tf'
  nets = {'generator': _generator(config)}
  if loss.alpha and (steps.discriminator or steps.joint):
    nets['discriminator'] = _discriminator(config)
  completion = _forward(config, nets, judged=False)
  update = lambda name, loss: Update(name, (name,), loss, name)
  alone = update('generator', _generator_loss(config, nets, scale=1.0, judged=False))
  phases = [Phase('completion', steps.completion, completion, (alone,))]
  if 'discriminator' in nets:
    judged = _forward(config, nets, judged=True)
    judge = update('discriminator', _discriminator_loss(nets, loss.alpha if tf else 0.5))
    phases.append(Phase('discriminator', steps.discriminator, judged, (judge,)))
    half = 1.0 if tf else 0.5
    both = []
    if loss.discriminator_in_joint:
      both.append(update('discriminator', _discriminator_loss(nets, loss.alpha * half)))
    both.append(update('generator', _generator_loss(config, nets, scale=half, judged=True)))
    phases.append(Phase('joint', steps.joint, judged, tuple(both)))
  else:
    phases.append(Phase('joint', steps.joint, completion, (alone,)))
  return Recipe(
    running,
    networks=tuple(nets),
    init=modules.initializer(
      nets, modules.judged_arguments(config.model.local_size, config.model.image_size)
    ),
    phases=tuple(phase for phase in phases if phase.steps),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, and shortens the phases to two steps each, in place."""
  model = config.model
  model.update(dict(width=8, discriminator_width=4, discriminator_features=16))
  if model.variant == 'tf':  # its discriminator does not accept smaller images
    config.data.size = 256
    config.evaluation.batch_size = 2
  else:
    model.local_size = 32
  model.image_size = config.data.size
  config.phases.update({name: 2 for name, steps in config.phases.items() if steps})
  config.training.steps = sum(config.phases.values())


def _generator(config: ConfigDict) -> nn.Module:
  model, dtype = config.model, modules.DTYPES[config.dtype]
  if model.variant == 'tf':
    return networks.TFGenerator(width=model.width, dtype=dtype)
  mpv = tuple(float(v) for v in model.mpv)
  return networks.Generator(width=model.width, mpv=mpv, norm_first=model.norm_first, dtype=dtype)


def _discriminator(config: ConfigDict) -> nn.Module:
  model = config.model
  fields = dict(
    width=model.discriminator_width,
    features=model.discriminator_features,
    dtype=modules.DTYPES[config.dtype],
  )
  if model.variant == 'tf':
    return networks.TFDiscriminator(separate_heads=model.separate_heads, **fields)
  fields['norm_first'] = model.norm_first
  return networks.Discriminator(global_layers=GLOBAL_LAYERS[model.discriminator], **fields)


def _forward(config: ConfigDict, nets: Networks, *, judged: bool) -> Forward:
  """One pass of the generator; with `judged` also the parts that the discriminator sees.

  Outputs: 'out'; 'local', a part of it; 'real_local', a part of the real image.
  """
  model, tf = config.model, config.model.variant == 'tf'

  def forward(variables, constants, batch, rng):
    image, mask = batch['image'], batch['mask']
    if 'discriminator' in nets:  # in every phase, so that the first reports a wrong size
      _check_size(image, model.image_size)
    outputs, changed = modules.train_pass(nets, 'generator', variables, image, mask)
    out = arrays.compose(outputs['out'], image, mask) if tf else outputs['out']
    if not judged:
      return {'out': out}, changed
    if tf:
      box = _widened(windows.hole_box(mask), config.loss.margin, image.shape[1:3])
      cut = lambda x: windows.cut_resized(x, box, model.local_size)
      return {'out': out, 'local': cut(out), 'real_local': cut(image)}, changed
    size, keys = model.local_size, jax.random.split(rng)
    local = windows.cut(out, windows.window_on_hole(keys[0], mask, size), size)
    real_local = windows.cut(image, windows.random_window(keys[1], mask, size), size)
    return {'out': out, 'local': local, 'real_local': real_local}, changed

  return forward


def _widened(box: tuple[jax.Array, ...], margin: int, size: tuple[int, int]) -> tuple:
  top, bottom, left, right = box
  return (
    jnp.maximum(top - margin, 0),
    jnp.minimum(bottom + margin, size[0]),
    jnp.maximum(left - margin, 0),
    jnp.minimum(right + margin, size[1]),
  )


def completion_loss(out: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean over all elements, known ones included, of ((out - image) * mask)^2; f32[]; eq. 2.

  Args:
    out: [B,H,W,3].
    image: [B,H,W,3].
    mask: [B,H,W,1], 1 = hole.
  """
  difference = out.astype(jnp.float32) - image.astype(jnp.float32)
  return jnp.square(difference * mask).mean()


def _discriminator_loss(nets: Networks, weight: float) -> Loss:
  judge = functools.partial(modules.train_pass, nets, 'discriminator')

  def discriminator_loss(variables, constants, outputs, batch, rng):
    fake = jax.lax.stop_gradient(outputs)
    # Two calls, not one with a double batch: each is normalised by its own statistics.
    judged, changed = judge(variables, fake['local'], fake['out'])
    fake_term = weight * cross_entropy(judged['fake'], 0.0)
    variables = variables.with_stats(changed)
    judged, changed = judge(variables, outputs['real_local'], batch['image'])
    return total({'fake': fake_term, 'real': weight * cross_entropy(judged['real'], 1.0)}, changed)

  return discriminator_loss


def _generator_loss(config: ConfigDict, nets: Networks, *, scale: float, judged: bool) -> Loss:
  """scale * MSE; with `judged` also scale * alpha * the discriminator's judgement."""
  mse_weight = scale * (4.0 if config.model.variant == 'tf' else 1.0)  # of values in [-1, 1]
  weight = scale * config.loss.alpha

  def generator_loss(variables, constants, outputs, batch, rng):
    mse = completion_loss(outputs['out'], batch['image'], batch['mask'])
    metrics, changed = {'mse': mse_weight * mse}, {}
    if judged:
      logits, changed = modules.train_pass(
        nets, 'discriminator', variables, outputs['local'], outputs['out']
      )
      metrics['adversarial'] = weight * cross_entropy(logits['fake'], 1.0)
    return total(metrics, changed)

  return generator_loss


def _check_size(image: jax.Array, size: int) -> None:
  if image.shape[1:3] != (size, size):
    raise ValueError(
      f'training images are {image.shape[1]} x {image.shape[2]}, but the discriminator is made for '
      f'config.model.image_size={size}: make config.data.size and config.model.image_size equal'
    )


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.variant', model.variant, VARIANTS)
  checks.one_of('model.discriminator', model.discriminator, GLOBAL_LAYERS)
  mpv = tuple(model.mpv)
  if len(mpv) != 3 or not all(0 <= v <= 1 for v in mpv):
    raise ValueError(f'config.model.mpv {mpv} must be red, green and blue in [0, 1]')
  for name in ('width', 'discriminator_width', 'discriminator_features'):
    if model[name] < 2:
      raise ValueError(f'config.model.{name} {model[name]} must be at least 2')
  _check_sizes(model)


def _check_sizes(model: ConfigDict) -> None:
  layers = 6 if model.variant == 'tf' else GLOBAL_LAYERS[model.discriminator]
  for name, count in (('image_size', layers), ('local_size', _LOCAL_LAYERS)):
    size = model[name]
    if model.variant == 'tf':
      if size < _TF_LEAST[count]:
        raise ValueError(
          f"config.model.{name} {size} must be at least {_TF_LEAST[count]}: the tf variant's "
          f'discriminator shrinks it by {count} unpadded convolutions'
        )
    elif size < 1 or size % 2**count:
      raise ValueError(
        f'config.model.{name} {size} must be a multiple of {2**count}: the discriminator '
        f'{model.discriminator!r} halves it {count} times before a dense layer'
      )
  if model.variant != 'tf' and model.local_size > model.image_size:
    raise ValueError(
      f'config.model.local_size {model.local_size} must not exceed image_size {model.image_size}'
    )


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  known, loss = default_config(), config.loss
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], known[section])
  if loss.alpha < 0:
    raise ValueError(f'config.loss.alpha {loss.alpha} must be >= 0 (0: no discriminator)')
  if loss.margin < 0:
    raise ValueError(f'config.loss.margin {loss.margin} must be >= 0')
  checks.phases(config.phases, last='joint')
  if config.phases.discriminator and not loss.alpha:
    raise ValueError(
      'config.loss.alpha=0 leaves out the discriminator: set config.phases.discriminator=0 too'
    )
