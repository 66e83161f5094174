"""How pix2pix is trained: an L1 distance and a critic that sees the damaged image, too.

Isola, Zhu, Zhou, Efros: "Image-to-Image Translation with Conditional Adversarial Networks", CVPR
2017, https://arxiv.org/abs/1611.07004, eq. 4; as affinelayer/pix2pix-tensorflow trains it.

  critic     mean(-log D(seen, real)) + mean(-log(1 - D(seen, fake)))
  generator  adversarial mean(-log D(seen, fake)) + l1 mean|fake - real|

Images are in [-1, 1]; means run over the whole image, as there is no mask in it. `seen` is the
image with its hole painted over. The critic is stepped first; the generator's loss meets the
critic after that step. Dropout is on in training and, as in the paper, when images are completed:
it is the network's noise, so that every key gives another completion (`model.sample`; False: none
when images are completed). Logged terms include their weights, so they sum to 'total'.

Differs from the paper:
  - the critic's loss is not halved.
Differs from the reference code:
  - pictures without a known pixel are logged and train nothing;
  - cross-entropies are computed from logits; the code adds 1e-12 inside its logarithms, which
    limits them to 27.6.
"""

import jax
from ml_collections import ConfigDict

from jaxinpaint.losses import adversarial, reconstruction
from jaxinpaint.recipe import Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, joint_loss, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.pix2pix import networks


def default_config() -> ConfigDict:
  """The networks and weights of the paper and of the code."""
  model = dict(
    width=64,
    levels=8,  # ours: fewer for images below 256 pixels
    fill=0.5,  # ours: mid-grey; the survey does not state its own
    dropout=0.5,
    norm_over_batch=False,  # code: True, which is the same with its batches of one image
    sample=True,  # paper, code; False: no dropout when images are completed
    discriminator_width=64,
  )
  loss = dict(l1=100.0, adversarial=1.0)
  return ConfigDict(dict(system='pix2pix', dtype='float32', model=model, loss=loss))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  generator = _generator(config)
  nets, samples = {'generator': generator}, bool(config.model.sample and config.model.dropout)

  def output(variables, constants, image, mask, rng, /, **inputs):
    noise = rng if samples else None
    return modules.run(nets, 'generator', variables, image, mask, noise)['out']

  return Inference(
    networks=('generator',),
    init=modules.initializer(nets, modules.generator_arguments),
    output=output,
    multiple=2**generator.levels,
    samples=samples,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running, loss = inference(config), config.loss
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, ('l1', 'adversarial'))
  nets = {'generator': _generator(config)}
  updates = [Update('generator', ('generator',), _generator_loss(loss, nets), 'generator')]
  if loss.adversarial:
    nets['discriminator'] = networks.Discriminator(
      config.model.discriminator_width,
      config.model.norm_over_batch,
      modules.DTYPES[config.dtype],
    )
    judging = _discriminator_loss(nets)
    updates = [Update('discriminator', ('discriminator',), judging, 'discriminator'), *updates]

  def forward(variables, constants, batch, rng):
    args = batch['image'], batch['mask'], rng
    outputs, changed = modules.train_pass(nets, 'generator', variables, *args)
    return modules.only_of_known(outputs, batch['mask']), changed

  return Recipe(
    running,
    networks=tuple(nets),
    init=modules.initializer(nets, _arguments),
    phases=(Phase('joint', -1, forward, tuple(updates)),),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, and fits them to small images; changes `config`."""
  config.model.update(dict(width=8, levels=6, discriminator_width=8))


def _arguments(height: int, width: int) -> dict[str, tuple[modules.Shape, ...]]:
  joint_loss.check_judged(height, width)
  image = (height, width, 3)
  return modules.generator_arguments(height, width) | {'discriminator': (image, image)}


def _discriminator_loss(nets: Networks) -> Loss:
  def loss_of(variables, constants, outputs, batch, rng):
    fake, seen = jax.lax.stop_gradient((outputs['out'], outputs['seen']))
    # Two calls, not one with a double batch: each is normalised by its own statistics.
    logits = [
      modules.train_pass(nets, 'discriminator', variables, seen, image)[0]
      for image in (batch['image'], fake)
    ]
    # What the network makes of nothing is one colour, of which instance norms have no bound.
    logits = modules.only_of_known(logits, batch['mask'])
    real_term, fake_term = adversarial.non_saturating.discriminator(*logits)
    return total({'real': real_term, 'fake': fake_term})

  return loss_of


def _generator_loss(loss: ConfigDict, nets: Networks) -> Loss:
  def loss_of(variables, constants, outputs, batch, rng):
    metrics = {}
    if loss.l1:  # 2: values in [-1, 1]
      metrics['l1'] = loss.l1 * 2 * reconstruction.l1(outputs['out'], batch['image'])
    if loss.adversarial:
      logits, _ = modules.train_pass(
        nets, 'discriminator', variables, outputs['seen'], outputs['out']
      )
      metrics['adversarial'] = loss.adversarial * adversarial.non_saturating.generator(logits)
    return total(metrics)

  return loss_of


def _generator(config: ConfigDict) -> networks.Generator:
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.levels', model.levels, range(4, 10))
  for name in ('width', 'discriminator_width'):
    checks.count(f'model.{name}', model[name])
  if not 0 <= model.fill <= 1:
    raise ValueError(f'config.model.fill {model.fill} must be a grey in [0, 1]')
  if not 0 <= model.dropout < 1:
    raise ValueError(f'config.model.dropout {model.dropout} must be in [0, 1)')
  fields = ('width', 'levels', 'fill', 'dropout', 'norm_over_batch')
  return networks.Generator(
    **{name: model[name] for name in fields}, dtype=modules.DTYPES[config.dtype]
  )
