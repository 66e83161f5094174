"""The training of PConv, which RFR took over: five terms, and a second phase at a lower rate.

Liu, Reda, Shih, Wang, Tao, Catanzaro: "Image Inpainting for Irregular Holes Using Partial
Convolutions", ECCV 2018, section 3.3. config.loss has their weights (`WEIGHTS`), the fields of
vgg16_terms, and `tv_region`, which pixels the total variation is of:

  'picture'  the whole composite
  'hole'     pairs of pixels within one pixel of the hole, the PConv paper's region
  'masked'   the whole composite with zeros at known pixels, as RFR's code has it
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.losses import perceptual, reconstruction, regularisers
from jaxinpaint.recipe import Forward, Inference, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules, vgg16_terms
from jaxinpaint.systems._shared.terms import total

WEIGHTS = ('valid', 'hole', 'perceptual', 'style', 'tv')
TV_REGIONS = ('picture', 'hole', 'masked')


def make(
  config: ConfigDict,
  running: Inference,
  generator: nn.Module,
  *,
  frozen: str,
  out: str,
  prepare: Callable[[jax.Array], jax.Array] = lambda image: image,
) -> Recipe:
  """The phases 'training' and 'finetuning'; one of 0 steps is left out.

  Both have the same loss. In the second one some batch norms rest, and the optimizer is
  'generator_finetuning'. Without `perceptual` and `style` no VGG is loaded.

  Args:
    config: of the system, checked.
    running: how it is run.
    generator: called with (image, mask).
    frozen: its keyword argument that lets norms rest.
    out: its output that the terms are of.
    prepare: image f32[B,H,W,3] in [0,1] -> the picture that `out` is compared with.
  """
  networks = {'generator': generator}
  loss, dtype = config.loss, modules.DTYPES[config.dtype]

  def forward(rest: bool) -> Forward:
    def run(variables, constants, batch, rng):
      outputs, changed = modules.train_pass(
        networks, 'generator', variables, batch['image'], batch['mask'], **{frozen: rest}
      )
      return {out: outputs[out]}, changed

    return run

  def generator_loss(variables, constants, outputs, batch, rng):
    features = vgg16_terms.features(constants, loss, normalize=False, dtype=dtype)
    image = prepare(batch['image'])
    return total(generator_terms(loss, outputs[out], image, batch['mask'], features))

  phases = []
  for name, rest, optimizer in (
    ('training', False, 'generator'),
    ('finetuning', True, 'generator_finetuning'),
  ):
    update = Update('generator', ('generator',), generator_loss, optimizer)
    phases.append(Phase(name, config.phases[name], forward(rest), (update,)))
  return Recipe(
    running,
    networks=('generator',),
    init=running.init,
    phases=tuple(phase for phase in phases if phase.steps),
    load_constants=functools.partial(vgg16_terms.load_constants, loss),
  )


def quicktest(config: ConfigDict, **model: int) -> None:
  """Sets config.model's fields, short phases, and no terms that need VGG; changes `config`."""
  config.model.update(model)
  config.loss.update(dict(perceptual=0.0, style=0.0))
  config.phases.update({name: 2 if steps else 0 for name, steps in config.phases.items()})
  config.training.steps = sum(config.phases.values())


def check_training(config: ConfigDict, known: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful.

  Args:
    config: of the system.
    known: its default config.
  """
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], known[section])
  check(config.loss)
  checks.phases(config.phases, last='finetuning')


def check(loss: ConfigDict) -> None:
  """Raises ValueError for weights, layers or a region that `generator_terms` cannot use."""
  checks.weights(loss, WEIGHTS)
  checks.one_of('loss.tv_region', loss.tv_region, TV_REGIONS)
  vgg16_terms.check(loss)


def generator_terms(
  loss: ConfigDict,
  out: jax.Array,
  image: jax.Array,
  mask: jax.Array,
  features: vgg16_terms.Features,
) -> dict[str, jax.Array]:
  """{term: its value with its weight}; only terms with a weight are computed.

  Args:
    loss: config.loss.
    out: f32[B,H,W,3], the network's output before it is clipped, in the range that VGG gets.
    image: f32[B,H,W,3], the whole picture, likewise.
    mask: f32[B,H,W,1], 1 = hole.
    features: of images like these.
  """
  composite = arrays.compose(out, image, mask)
  terms = {}
  if loss.valid:
    terms['valid'] = loss.valid * reconstruction.masked_l1(out, image, 1 - mask)
  if loss.hole:
    terms['hole'] = loss.hole * reconstruction.masked_l1(out, image, mask)
  if loss.perceptual or loss.style:
    of_out, of_composite, wanted = (features(x) for x in (out, composite, image))
    if loss.perceptual:
      both = (perceptual.perceptual(x, wanted) for x in (of_out, of_composite))
      terms['perceptual'] = loss.perceptual * sum(both)
    if loss.style:
      terms['style_out'] = loss.style * perceptual.style(of_out, wanted)
      terms['style_composite'] = loss.style * perceptual.style(of_composite, wanted)
  if loss.tv:
    hole = mask if loss.tv_region == 'hole' else None
    seen = composite * mask if loss.tv_region == 'masked' else composite
    terms['tv'] = loss.tv * regularisers.total_variation(seen, hole)
  return terms
