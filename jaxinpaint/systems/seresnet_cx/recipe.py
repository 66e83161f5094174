"""How the SE-ResNet completion network is trained: three phases, with a contextual loss.

Lin, Wang: "Image Inpainting Based on New Encoder and Similarity Constraint", Computer Systems &
Applications 30(1), 2021, http://c-s-a.org.cn/html/2021/1/7742.html.

  completion      90,000 steps  the generator alone, L_res
  discriminator   10,000 steps  the discriminators alone
  joint          400,000 steps  the discriminators, then the generator: L_res + 0.0004 L_adv +
                                0.004 L_CX (eq. 4), both of one forward pass of the generator

What the paper leaves open follows GLCIC's PyTorch port, because the paper's numbers are those of
the port: see networks.py. Norms always use the batch's statistics, those of the generator also
while it is not trained. Losses and discriminators use the generator's whole output, not pasted into
the image.

Differs from the paper, or reads it in one of several ways:
  - L_res (eq. 2) is printed with a minus, and over the known pixels. Minimising this would make the
    error infinitely large, and the hole would never be supervised. Here it is the mean over all
    elements of the squared difference in the hole (as in GLCIC); loss.content_region='known' reads
    the mask literally, 'all' uses every pixel;
  - L_adv (eq. 1) is -D, where D is the probability; loss.adv_form='log' is -log D, as in eq. 5;
  - L_dis (eq. 5) uses D's logits; its G(x) is read as G of the damaged image;
  - L_CX (eq. 6): the roles of output and target are those of the contextual loss's own paper, in
    which every feature of the target should find a match; loss.cx_roles='paper' exchanges them.
    Layers (relu3_2, relu4_2 of VGG16), bandwidth 0.5 and weights 1 are those of its authors' code;
  - phase one has only L_res; loss.contextual_in_completion adds L_CX;
  - for an output, the local discriminator sees an area that contains the hole, drawn for each image
    among all such areas (around the middle of the hole if it is too large); for a photograph it
    sees an independently drawn area.

Differs from GLCIC's port: the gradient of the generator's adversarial loss does not leak into the
discriminators' next step; eq. 5 is not halved or weighted, which hardly matters with Adadelta.

Pictures beside the output (samples, `inpaint --pictures`) have the completed image's edge map, as
figure 7; that of the original is the same picture with an empty mask.

Logged terms include their weights, so they sum to 'total'.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.features import vgg
from jaxinpaint.losses import adversarial, contextual
from jaxinpaint.recipe import Constants, Forward, Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules, windows
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import Term, sum_of, total
from jaxinpaint.systems.seresnet_cx import networks as networks_lib

VGG_DEPTH = 16
CHOICES = {
  'adv_form': ('paper', 'log'),
  'content_region': ('hole', 'known', 'all'),
  'cx_roles': ('reference', 'paper'),
  'cx_layers': vgg.layer_names(VGG_DEPTH),
}


def default_config() -> ConfigDict:
  """The published settings; O marks ours, with the reason in the module's text."""
  model = dict(
    width=64,  # O
    use_se_resnet=True,
    se_reduction=16,  # O: SENet's
    mask_channel=False,
    discriminator_width=64,
    discriminator_features=1024,
    disc_tail_stride=1,
    global_size=160,  # side of the training images; the discriminators accept no other size
    local_size=96,  # side of the local areas; likewise
  )
  loss = dict(
    content_region='hole',  # O
    adversarial=0.0004,
    adv_form='paper',
    contextual=0.004,
    contextual_in_completion=False,  # O
    cx_roles='reference',  # O
    cx_h=0.5,  # O: that of the contextual loss's code
    cx_layers=('relu3_2', 'relu4_2'),  # O: likewise
    vgg_file='',  # '': torchvision's VGG16
  )
  phases = dict(completion=90_000, discriminator=10_000, joint=400_000)
  sections = dict(system='seresnet_cx', dtype='float32', model=model, loss=loss, phases=phases)
  return ConfigDict(sections)


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  generator = _generator(config)

  def pictures(variables, constants, image, mask, rng):
    out = modules.run({'generator': generator}, 'generator', variables, image, mask)['out']
    return {'edges': networks_lib.edge_map(arrays.compose(out, image, mask))}

  return modules.one_generator(
    generator,
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.MULTIPLE,
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A loss of weight 0 is not built: without `adversarial` there is no discriminator, without
  `contextual` no VGG. A phase of 0 steps is left out.
  """
  running = inference(config)
  _check_training(config)
  loss, dtype = config.loss, modules.DTYPES[config.dtype]
  networks = {'generator': _generator(config)}
  if loss.adversarial:
    networks['discriminator'] = _discriminator(config)

  judging: tuple[Update, ...] = ()
  if loss.adversarial:
    judge = _discriminator_loss(networks)
    judging = (Update('discriminator', ('discriminator',), judge, 'discriminator'),)
  painting = lambda terms: Update('generator', ('generator',), sum_of(terms), 'generator')
  content = [_content_term(loss)]
  context = [_contextual_term(loss, dtype)] if loss.contextual else []
  adversary = [_adversarial_term(loss, networks)] if loss.adversarial else []
  early = content + (context if loss.contextual_in_completion else [])
  updates = {
    'completion': (painting(early),),
    'discriminator': judging,
    'joint': (*judging, painting(content + adversary + context)),
  }
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(
      networks, modules.judged_arguments(config.model.local_size, config.model.global_size)
    ),
    phases=tuple(
      Phase(name, config.phases[name], _forward(networks, config.model, name), updates[name])
      for name in updates
      if config.phases[name]
    ),
    load_constants=functools.partial(_load_constants, loss),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, removes the term that needs VGG's weights and shortens the phases.

  Changes `config` in place.
  """
  config.model.update(dict(width=8, discriminator_width=8, discriminator_features=16))
  config.model.update(dict(global_size=64, local_size=40))
  config.loss.contextual = 0.0
  config.phases.update({name: 2 if steps else 0 for name, steps in config.phases.items()})
  config.training.steps = sum(config.phases.values())


def _generator(config: ConfigDict) -> nn.Module:
  model = config.model
  return networks_lib.Generator(
    width=model.width,
    mask_channel=model.mask_channel,
    use_se_resnet=model.use_se_resnet,
    se_reduction=model.se_reduction,
    dtype=modules.DTYPES[config.dtype],
  )


def _discriminator(config: ConfigDict) -> nn.Module:
  model = config.model
  return networks_lib.Discriminator(
    width=model.discriminator_width,
    features=model.discriminator_features,
    tail_stride=model.disc_tail_stride,
    use_se_resnet=model.use_se_resnet,
    se_reduction=model.se_reduction,
    dtype=modules.DTYPES[config.dtype],
  )


def _forward(networks: Networks, model: ConfigDict, phase: str) -> Forward:
  """The generator's pass, and the areas for the local discriminator."""
  judged = 'discriminator' in networks

  def forward(variables, constants, batch, rng):
    image, mask = batch['image'], batch['mask']
    if phase == 'discriminator':
      variables = variables.at_rest('generator')
    generated, changed = modules.train_pass(networks, 'generator', variables, image, mask)
    outputs = {'out': generated['out']}
    if judged:
      size = model.global_size
      # Checked in every phase, so that the first one already reports a wrong size.
      if image.shape[1:3] != (size, size):
        raise ValueError(
          f'images of {image.shape[1]} x {image.shape[2]} do not fit the global discriminator, '
          f'which is built for {size} x {size}: set config.data.size and config.model.global_size '
          'to the same number, and config.model.local_size to about 0.6 of it'
        )
    if judged and phase != 'completion':
      key_fake, key_real = jax.random.split(rng)
      outputs['fake_area'] = windows.window_on_hole_or_middle(key_fake, mask, model.local_size)
      last = size - model.local_size
      drawn = jax.random.randint(key_real, (2, image.shape[0]), 0, last + 1)
      outputs['real_area'] = (drawn[0], drawn[1])
      outputs['fake_local'] = windows.cut(generated['out'], outputs['fake_area'], model.local_size)
      outputs['real_local'] = windows.cut(image, outputs['real_area'], model.local_size)
    return outputs, changed

  return forward


def _discriminator_loss(networks: Networks) -> Loss:
  """Eq. 5; fakes first, so that the running statistics are updated in the port's order."""
  judge = functools.partial(modules.train_pass, networks, 'discriminator')

  def loss(variables, constants, outputs, batch, rng):
    fake_local, fake = lax.stop_gradient((outputs['fake_local'], outputs['out']))
    fakes, changed = judge(variables, fake_local, fake)
    reals, changed = judge(variables.with_stats(changed), outputs['real_local'], batch['image'])
    real_term, fake_term = adversarial.non_saturating.discriminator(
      reals['logits'], fakes['logits']
    )
    return total({'real': real_term, 'fake': fake_term}, changed)

  return loss


def _content_term(loss: ConfigDict) -> Term:
  """Eq. 2: the mean over all elements of the image, for any size of the region."""
  region = {
    'hole': lambda mask: mask,
    'known': lambda mask: 1 - mask,
    'all': jnp.ones_like,
  }[loss.content_region]

  def term(variables, constants, outputs, batch):
    error = (outputs['out'] - batch['image']) * region(batch['mask'])
    return {'content': jnp.square(error).mean()}, {}

  return term


def _adversarial_term(loss: ConfigDict, networks: Networks) -> Term:
  """Eq. 1."""
  gan = {
    'paper': lambda logits: -jax.nn.sigmoid(logits).mean(),
    'log': adversarial.non_saturating.generator,
  }[loss.adv_form]

  def term(variables, constants, outputs, batch):
    judged, changed = modules.train_pass(
      networks, 'discriminator', variables, outputs['fake_local'], outputs['out']
    )
    return {'adversarial': loss.adversarial * gan(judged['logits'])}, changed

  return term


def _contextual_term(loss: ConfigDict, dtype: Any) -> Term:
  """Eq. 6, the sum over the layers."""
  layers = tuple(loss.cx_layers)

  def features(constants, image):
    return vgg.apply(constants['vgg'], image, layers, depth=VGG_DEPTH, dtype=dtype)

  def term(variables, constants, outputs, batch):
    made, wanted = features(constants, outputs['out']), features(constants, batch['image'])
    pair = (made, wanted) if loss.cx_roles == 'reference' else (wanted, made)
    values = (contextual.contextual_loss(pair[0][n], pair[1][n], h=loss.cx_h) for n in layers)
    return {'contextual': loss.contextual * sum(values)}, {}

  return term


def _load_constants(loss: ConfigDict, *, shapes_only: bool = False) -> Constants:
  """{'vgg': its parameters up to the deepest layer in use}, or {}."""
  if not loss.contextual:
    return {}
  file = loss.vgg_file or None
  return {'vgg': vgg.load_down_to(loss.cx_layers, VGG_DEPTH, file, shapes_only=shapes_only)}


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  if model.disc_tail_stride not in (1, 2):
    raise ValueError(f'config.model.disc_tail_stride {model.disc_tail_stride!r} must be 1 or 2')
  if not 16 <= model.local_size <= model.global_size:
    raise ValueError(
      f'config.model.local_size {model.local_size} must be at least 16 and at most global_size '
      f'({model.global_size})'
    )


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  known, loss = default_config(), config.loss
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], known[section])
  for name, choices in CHOICES.items():
    value = loss[name]
    for one in (value,) if isinstance(value, str) else value:
      checks.one_of(f'loss.{name}', one, choices)
  checks.weights(loss, ('adversarial', 'contextual', 'cx_h'), needed=False)
  if loss.contextual and not (loss.cx_layers and loss.cx_h):
    raise ValueError('config.loss.contextual needs cx_layers and a positive cx_h, or to be 0')
  checks.phases(config.phases, last='joint')
  if not loss.adversarial and config.phases.discriminator:
    raise ValueError(
      'config.loss.adversarial=0 leaves out the discriminators: set '
      'config.phases.discriminator=0 too'
    )
