"""How CTSDG is trained: a generator of texture and structure, a discriminator of both.

Guo, Yang, Huang: "Image Inpainting via Conditional Texture and Structure Dual Generation", ICCV
2021, section 3.4; networks.py has the networks. Marks: C, the released code; P, the paper;
O, ours.

  training      300,000 steps  the generator, then the discriminator, with one forward pass
  fine-tuning                  the same with a lower rate and frozen batch norms in the generator

Both networks read edges and gray of the picture. In training these are made from the whole picture
and masked in the hole; at inference they are made from the known part.

Differs from the paper:
  - L1 has weight 60 in the hole and 10 at known pixels (C; the paper has one term of weight 10).

Differs from the released code:
  - gray and edges are made from the picture itself. The code makes them from the normalised
    picture, whose negative values wrap around; `model.wrapped_gray` does this, too. It is set when
    published weights are imported, because they were trained with such inputs only;
  - at inference no edges are detected within one pixel of the hole; the code's test takes edges
    from the undamaged picture;
  - `loss.vgg_normalize`: by default VGG gets images in [-1, 1] unchanged, as in the code.

As in the code, the discriminator's statistics (batch norm, power iterations) are updated once in
the generator's update and twice in its own. Its own update uses the output from before the
generator's step.

Logged terms include their weights, so they sum to 'total'.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint.losses import perceptual
from jaxinpaint.losses.adversarial import binary_cross_entropy
from jaxinpaint.losses.reconstruction import absolute_difference
from jaxinpaint.recipe import (
  Batch,
  Forward,
  Inference,
  Loss,
  Outputs,
  Phase,
  Recipe,
  Update,
)
from jaxinpaint.systems._shared import checks, modules, vgg16_terms
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.ctsdg import networks as networks_lib

WEIGHTS = ('hole', 'valid', 'perceptual', 'style', 'adversarial', 'intermediate')


def default_config() -> ConfigDict:
  """The published settings."""
  model = dict(
    width=64,  # C
    levels=7,  # C; fewer for pictures below 128 pixels
    use_bigff=True,  # P; False: the streams' features are only concatenated
    use_cfa=True,  # P; False: features are not rebuilt from similar patches
    discriminator_width=64,  # C
    canny_sigma=2.0,  # C
    wrapped_gray=False,  # O; C is True
  )
  loss = dict(
    hole=60.0,  # C
    valid=10.0,  # C
    perceptual=0.1,  # P
    style=250.0,  # P
    adversarial=0.1,  # P
    intermediate=1.0,  # P
    vgg_file='',
    vgg_layers=('pool1', 'pool2', 'pool3'),  # C
    vgg_normalize=False,  # C
  )
  phases = dict(training=300_000, finetuning=100_000)  # C; O: the code fine-tunes until stopped
  sections = dict(system='ctsdg', dtype='float32', model=model, loss=loss, phases=phases)
  return ConfigDict(sections)


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  model = _model(config)
  networks = {'generator': _generator(config)}

  def output(variables, constants, image, mask, rng, *, canny, gray):
    return modules.run(networks, 'generator', variables, image, mask, canny, gray)['out']

  def pictures(variables, constants, image, mask, rng, *, canny, gray):
    outputs = modules.run(networks, 'generator', variables, image, mask, canny, gray)
    return {
      'edges': jax.nn.sigmoid(outputs['projected_edge']),
      'texture': outputs['projected_image'],
    }

  wrapped = int(model.wrapped_gray)
  return Inference(
    networks=('generator',),
    init=modules.initializer(networks, _arguments),
    output=output,
    multiple=2**model.levels,
    min_side=2**model.levels,
    inputs=(f'canny:sigma={model.canny_sigma},wrapped={wrapped}', f'gray:wrapped={wrapped}'),
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A term of weight 0 is not built: without `perceptual` and `style` no VGG is loaded, without
  `adversarial` there is no discriminator. A phase of 0 steps is left out.
  """
  running = inference(config)
  _check_training(config)
  loss, dtype = config.loss, modules.DTYPES[config.dtype]
  networks = {'generator': _generator(config)}
  losses = {'generator': _generator_loss(loss, networks, dtype)}
  if loss.adversarial:
    width = _model(config).discriminator_width
    networks['discriminator'] = networks_lib.Discriminator(width, dtype=dtype)
    losses['discriminator'] = _discriminator_loss(networks)

  phases = []
  for name, frozen_norms, suffix in (('training', False, ''), ('finetuning', True, '_finetuning')):
    updates = tuple(Update(n, (n,), loss_of, n + suffix) for n, loss_of in losses.items())
    forward = _forward(networks, frozen_norms=frozen_norms)
    phases.append(Phase(name, config.phases[name], forward, updates))
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, _arguments),
    phases=tuple(phase for phase in phases if phase.steps),
    load_constants=functools.partial(vgg16_terms.load_constants, loss),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks and removes the terms that need VGG's weights; changes `config`."""
  config.model.update(dict(width=8, levels=5, discriminator_width=8))
  config.loss.update(dict(perceptual=0.0, style=0.0))
  config.phases.update({name: 2 if steps else 0 for name, steps in config.phases.items()})
  config.training.steps = sum(config.phases.values())


def _model(config: ConfigDict) -> ConfigDict:
  """config.model, checked."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  if not 2 <= model.levels <= 7:
    raise ValueError(f'config.model.levels {model.levels!r} must be 2 to 7')
  if model.canny_sigma <= 0:
    raise ValueError(f'config.model.canny_sigma {model.canny_sigma!r} must be above 0')
  return model


def _generator(config: ConfigDict) -> nn.Module:
  model = _model(config)
  fields = {name: model[name] for name in ('width', 'levels', 'use_bigff', 'use_cfa')}
  return networks_lib.Generator(**fields, dtype=modules.DTYPES[config.dtype])


def _arguments(height: int, width: int) -> dict[str, tuple[modules.Shape, ...]]:
  image, one = (height, width, 3), (height, width, 1)
  return {'generator': (image, one, one, one), 'discriminator': (image, one)}


def _forward(networks: Networks, *, frozen_norms: bool) -> Forward:
  def forward(variables, constants, batch, rng):
    shown = (batch[name] for name in ('image', 'mask', 'canny', 'gray'))
    outputs, changed = modules.train_pass(
      networks, 'generator', variables, *shown, frozen_norms=frozen_norms
    )
    names = ('out', 'projected_image', 'projected_edge')
    return {name: outputs[name] for name in names}, changed

  return forward


def generator_terms(
  loss: ConfigDict,
  outputs: Outputs,
  batch: Batch,
  features: Callable[[jax.Array], Mapping[str, jax.Array]],
  judged: Mapping[str, jax.Array] | None,
) -> dict[str, jax.Array]:
  """{term: its value without weight}, for images in [-1, 1], as in the code.

  Args:
    loss: config.loss; only terms with a weight are computed.
    outputs: of the generator.
    batch: with 'canny' and 'gray'.
    features: image f32[B,H,W,3] in [-1, 1] -> {VGG layer: features}.
    judged: what the discriminator returns for the output; None without one.
  """
  mask, edges = batch['mask'], batch['canny']
  out, image, projected = (
    2 * x - 1 for x in (outputs['out'], batch['image'], outputs['projected_image'])
  )
  difference = absolute_difference(out, image)
  terms = {}
  if loss.hole:
    terms['hole'] = (mask * difference).mean()
  if loss.valid:
    terms['valid'] = ((1 - mask) * difference).mean()
  if loss.perceptual or loss.style:
    *made, wanted = (features(x) for x in (out, jnp.where(mask > 0, out, image), image))
    for name, function in (('perceptual', perceptual.perceptual), ('style', perceptual.style)):
      if loss[name]:
        terms[name] = sum(function(x, wanted) for x in made)
  if loss.adversarial:
    adversarial = binary_cross_entropy(judged['logits'], 1.0)
    terms['adversarial'] = adversarial + binary_cross_entropy(judged['edges'], edges)
  if loss.intermediate:
    of_edges = binary_cross_entropy(outputs['projected_edge'], edges)
    terms['intermediate'] = of_edges + absolute_difference(projected, image).mean()
  return terms


def _generator_loss(loss: ConfigDict, networks: Networks, dtype: Any) -> Loss:
  normalize = loss.vgg_normalize

  def generator_loss(variables, constants, outputs, batch, rng):
    judged, changed = None, {}
    if loss.adversarial:
      judged, changed = modules.train_pass(
        networks, 'discriminator', variables, outputs['out'], batch['gray']
      )

    def features(image):
      # With `vgg_normalize` VGG expects [0, 1]; otherwise it gets the images unchanged.
      see = vgg16_terms.features(constants, loss, normalize=normalize, dtype=dtype)
      return see((image + 1) / 2 if normalize else image)

    terms = generator_terms(loss, outputs, batch, features, judged)
    return total({name: loss[name] * value for name, value in terms.items()}, changed)

  return generator_loss


def _discriminator_loss(networks: Networks) -> Loss:
  judge = functools.partial(modules.train_pass, networks, 'discriminator')

  def discriminator_loss(variables, constants, outputs, batch, rng):
    gray, edges = batch['gray'], batch['canny']
    real, changed = judge(variables, batch['image'], gray, edges)
    out = lax.stop_gradient(outputs['out'])
    fake, changed = judge(variables.with_stats(changed), out, gray)
    metrics = {
      'real': binary_cross_entropy(real['logits'], 1.0),
      'fake': binary_cross_entropy(fake['logits'], 0.0),
      'edges': binary_cross_entropy(real['edges'], edges)
      + binary_cross_entropy(fake['edges'], edges),
    }
    return total(metrics, changed)

  return discriminator_loss


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  known, loss = default_config(), config.loss
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], known[section])
  checks.weights(loss, WEIGHTS)
  vgg16_terms.check(loss)
  checks.phases(config.phases, last='finetuning')
