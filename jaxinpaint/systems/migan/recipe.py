"""How MI-GAN is trained: adversarially, and from what Co-Mod-GAN adds at each resolution.

Sargsyan, Navasardyan, Xu, Shi: "MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices",
ICCV 2023; numbers are those of the authors' code.

  generator  mean softplus(-D(fake))
             + distillation * sum over sides of 32 and more of
               mean (hole * |rgb of this side - the teacher's|)
             + l1 * mean |fake - image|
  critic     mean softplus(D(fake)) + mean softplus(-D(image))
  r1         r1_every * r1 / 2 * mean |gradient of D(image, mask)|^2, in every 16th step alone

Images are in [-1, 1]; `fake` is the output in the hole and the image elsewhere, and D sees the
mask, too. The rgb of a side is what its ToRGB layer adds to the upsampled picture of half of it;
the mean is over all pixels, the hole's and the others, which count nothing. What sides below 32 add
is learnt from the critic alone: of 256 pixels three of seven sides, but of 64 three of five. Logged
terms include their weights.

The teacher, `loss.teacher`, is given as all weights are: the name comodgan/places2-512, the workdir
of a run of Co-Mod-GAN, or a weights file. Its z is drawn for each image, its noise is the stored
one. `loss.distillation=0` trains without a teacher, which needs none.

`loss.l1` is ours, and off as published. It is for runs that are too short for a critic alone, which
gain from less of the critic, too: `--config.loss.l1=5 --config.loss.adversarial=0.1`. From a
Co-Mod-GAN of 300 steps, at 64 pixels with 32 channels, the PSNR of the hole then rose from 13.5 dB
at step 50 to 14.5 at step 200. As published it was 12.9 at steps 100 and 200, and 12.4 at 400;
with all sides taught, which is no option, 12.9 at steps 100 and 200, too. The teacher had 13.8.

`model.form` is 'training', whose kernels are sums of nine, or 'merged', which has one kernel of
each, as the published files. `merged` makes the second of the first: `jaxinpaint weights export
WORKDIR OUT --merge`. Both give the same pictures; the merged form takes less time and has a ninth
of the parameters. A merged generator can be trained on, too.

The gradient of R1 is with respect to the image and the mask, as in the code; `loss.r1_of='image'`
takes the image's alone.

Differs from the reference code: the critic's fakes are of the pass that trains the generator, not
of a further one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.losses import reconstruction
from jaxinpaint.recipe import Forward, Inference, Loss, Phase, Recipe, Update, Variables
from jaxinpaint.systems._shared import checks, lazy_r1, modules, non_saturating
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.teacher import Teach, Teacher
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.migan import networks as networks_lib

FORMS = {'training': networks_lib.TENSORS, 'merged': 0}  # tensors of each kernel
LEAST_SIDE = 32  # that is learnt from the teacher
TEACHER = 'comodgan'


def default_config() -> ConfigDict:
  """The networks and weights of the authors' code, at 512 pixels; O marks ours."""
  model = dict(
    size=512,
    max_channels=512,
    form='training',  # 'merged': published files
    noise='stored',  # at inference: 'stored', 'random' or 'none'
  )
  loss = dict(
    adversarial=1.0,
    distillation=2.0,
    teacher='',  # a run, a weights file or a name
    l1=0.0,  # O
    r1=10.0,
    r1_every=16,
    r1_of='input',  # 'image': not of the mask
  )
  return ConfigDict(dict(system='migan', dtype='float32', model=model, loss=loss))


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, fits them to small images, and needs no teacher; changes `config`."""
  config.model.update(dict(size=64, max_channels=8))
  config.loss.distillation = 0.0


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  model, networks = config.model, {'generator': _generator(config)}

  def output(variables, constants, image, mask, rng, /, **inputs):
    run = dict(noise=model.noise, rngs={'noise': rng})
    return modules.run(networks, 'generator', variables, image, mask, **run)['out']

  return Inference(
    networks=('generator',),
    init=modules.initializer(networks, _arguments(model)),
    output=output,
    side=model.size,
    samples=model.noise == 'random',
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running = inference(config)
  _check_loss(config.loss)
  model, loss = config.model, config.loss
  networks: dict[str, Any] = {'generator': _generator(config)}
  teacher = _teacher(config) if loss.distillation else None
  if teacher and model.size < LEAST_SIDE:
    raise ValueError(
      f'config.model.size {model.size} has no side of {LEAST_SIDE} or more to learn from a '
      'teacher: set config.loss.distillation=0'
    )
  generator = Update('generator', ('generator',), _loss(loss, networks, teacher), 'generator')
  updates = [generator]
  if loss.adversarial:
    networks['critic'] = networks_lib.Discriminator(
      model.size, max_channels=model.max_channels, dtype=modules.DTYPES[config.dtype]
    )
    critic_loss = non_saturating.critic_loss(networks)
    updates.append(Update('critic', ('critic',), critic_loss, 'critic'))
    if loss.r1:
      how = dict(gamma=loss.r1, every=loss.r1_every, optimizer='critic')
      whole = loss.r1_of == 'input'
      updates.append(lazy_r1.update(networks, ('critic',), networks_lib.judged, whole=whole, **how))
  recipe = Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, _arguments(model)),
    phases=(Phase('joint', -1, _forward(networks), tuple(updates)),),
  )
  if teacher:
    return dataclasses.replace(recipe, load_constants=teacher.load_constants)
  return recipe


def merged(config: ConfigDict, variables: Variables) -> tuple[ConfigDict, Variables]:
  """The same generator with one kernel of each: its config and its variables."""
  config = config.copy_and_resolve_references()
  if config.model.form == 'merged':
    return config, variables
  with config.unlocked():
    config.model.form = 'merged'
  params = networks_lib.merge(variables.params['generator'])
  return config, variables.with_params({'generator': params})


def rgb_by_side(config: ConfigDict) -> Teach:
  """What a generator of this config shows a student; see `_shared.teacher.Teach`."""
  networks = {'generator': _generator(config)}

  def teach(variables, image, mask, rng, /):
    return modules.run(networks, 'generator', variables, image, mask)['rgb']

  return teach


def _generator(config: ConfigDict) -> networks_lib.Generator:
  model, dtype = config.model, modules.DTYPES[config.dtype]
  return networks_lib.Generator(model.size, model.max_channels, FORMS[model.form], dtype)


def _arguments(model: ConfigDict) -> modules.Arguments:
  size = model.size
  shapes = modules.generator_arguments(size, size) | {'critic': ((size, size, 4),)}
  return lambda height, width: shapes


def _teacher(config: ConfigDict) -> Teacher:
  size = config.model.size
  usual = systems.default_config(TEACHER)
  usual.model.size = size
  published = [f'{TEACHER}/{n}' for n in systems.published(TEACHER).names if n.endswith(f'-{size}')]
  start = (
    f'give {", ".join(published)},' if published else f'none is published for {size} pixels: give'
  )
  hint = (
    f'{start} the workdir or weights of a run of {TEACHER}, or train without one by '
    '--config.loss.distillation=0'
  )
  return Teacher(config.loss.teacher, size, usual, hint)


def _forward(networks: Networks) -> Forward:
  def forward(variables, constants, batch, rng):
    outputs, changed = modules.train_pass(
      networks,
      'generator',
      variables,
      batch['image'],
      batch['mask'],
      noise='random',
      rngs={'noise': rng},
    )
    return {'raw': outputs['raw'], 'rgb': outputs['rgb']}, changed

  return forward


def _loss(loss: ConfigDict, networks: Networks, teacher: Teacher | None) -> Loss:
  """The generator's update; `networks` may get its critic later."""

  def loss_of(variables, constants, outputs, batch, rng):
    metrics = {}
    if loss.adversarial:
      term = non_saturating.generator_term(networks, variables, outputs, batch)
      metrics['adversarial'] = loss.adversarial * term
    if teacher:
      shown = teacher.rgb_by_side(constants, batch['image'], batch['mask'], rng)
      metrics['distillation'] = loss.distillation * distance(outputs['rgb'], shown, batch['mask'])
    if loss.l1:
      fake = non_saturating.fake(outputs, batch)
      metrics['l1'] = loss.l1 * reconstruction.l1(fake, 2 * batch['image'] - 1)
    return total(metrics)

  return loss_of


def distance(
  student: Mapping[int, jax.Array], teacher: Mapping[int, jax.Array], mask: jax.Array
) -> jax.Array:
  """The sum over sides of at least 32 of the mean |difference| within the hole, over all pixels.

  Args:
    student: {side: f32[B,side,side,3]}.
    teacher: likewise; no gradient reaches it.
    mask: f32[B,H,W,1], 1 = hole; of each square of pixels the first one counts.
  """
  terms = []
  for side, rgb in student.items():
    if side >= LEAST_SIDE:
      step = mask.shape[1] // side
      apart = jnp.abs(rgb - jax.lax.stop_gradient(teacher[side]))
      terms.append((apart * mask[:, ::step, ::step]).mean())
  return jnp.stack(terms).sum()


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.form', model.form, FORMS)
  checks.one_of('model.noise', model.noise, networks_lib.NOISES)
  checks.count('model.size', model.size)
  checks.count('model.max_channels', model.max_channels)
  networks_lib.sides(model.size)


def _check_loss(loss: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, ('adversarial', 'distillation', 'l1'))
  checks.weights(loss, ('r1',), needed=False)
  checks.count('loss.r1_every', loss.r1_every)
  checks.one_of('loss.r1_of', loss.r1_of, ('input', 'image'))
