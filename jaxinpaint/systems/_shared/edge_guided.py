"""Edges, then colours: how EdgeConnect's networks are trained, in every system that uses them.

Four networks: 'edge_generator' draws the edges of the hole, 'generator' paints the picture along
them, and each has a discriminator. Three phases:

  edge        the edge generator: adversarial + feature matching, on gray pictures with their edges
  inpainting  the generator, along the true edges: the joint loss of `_shared.joint_loss`
  joint       the generator, along drawn edges, pasted into the true ones around the hole

loss.joint says what the last phase trains:

  inpainting  only the generator; the edge generator is frozen
  both        also the edge generator, by its own loss; no gradient passes between the two
  end_to_end  both generators by the picture's loss, without the edges' discriminator

Every phase computes its generators' output once for all updates. First the generator is stepped,
then its discriminator, which judges the output from before the generator's step. A network under
spectral norm takes one power iteration in every training pass. For the edge generator this is one
per step. For a discriminator it is three: one for the output in the generator's update (its feature
matching uses the same vectors for the real edges), and two in its own update.

Logged terms include their weights and sum to 'total'; 'precision' and 'recall' of the drawn edges
in the hole, thresholded at 1/2, are logged beside them.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint.layers import edge_generators
from jaxinpaint.layers.edge_generators import EdgeGenerator, InpaintGenerator, gray
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.losses import adversarial
from jaxinpaint.recipe import Batch, Forward, Loss, Phase, Update, Variables
from jaxinpaint.systems._shared import checks, joint_loss, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total

PHASES = ('edge', 'inpainting', 'joint')
JOINT = ('inpainting', 'both', 'end_to_end')
ADVERSARIAL_KINDS = ('non_saturating', 'hinge', 'least_squares', 'least_squares_on_sigmoid')
EDGE_WEIGHTS = ('edge_adversarial', 'edge_feature_matching')
EDGE_FIELDS = (*EDGE_WEIGHTS, 'joint')
GENERATORS = ('edge_generator', 'generator')


def default_model() -> dict[str, Any]:
  """The published networks' part of config.model."""
  return dict(
    width=64,
    blocks=8,
    use_spectral_norm=True,  # of the edge generator
    composite_edges=False,  # True: also at inference, paste the drawn edges into Canny's
    sigma=2.0,  # of Canny's detector
    remat=False,  # ours: saves memory, does not change the numbers
    kernel_init='normal_0.02',
  )


def default_loss() -> dict[str, Any]:
  """The published weights, those of the example configuration (config.yml.example)."""
  return dict(
    edge_adversarial=1.0,
    edge_feature_matching=10.0,
    joint='inpainting',
    l1=1.0,
    l1_hole=0.0,
    psnr_hole=0.0,
    adversarial=0.1,
    perceptual=0.1,
    style=250.0,
    adversarial_kind='non_saturating',
    discriminator_input='out',
    discriminator_width=64,
    l1_over_mask_mean=True,
    vgg='vgg19',
    vgg_file='',
    vgg_normalize=False,  # images go in as [0, 1]
    vgg_input='out',
    perceptual_layers=('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1'),
    style_layers=('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2'),
    style_on_hole=True,
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, removes the terms that need VGG's weights and shortens the phases.

  Changes `config` in place.
  """
  config.model.update(dict(width=8, blocks=1))
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=8))
  config.phases.update({name: 2 if steps else 0 for name, steps in config.phases.items()})
  config.training.steps = sum(config.phases.values())


def inputs(model: ConfigDict) -> tuple[str, ...]:
  """`Inference.inputs`: Canny's edges."""
  return (f'canny:sigma={model.sigma:g}',)


def make_generators(model: ConfigDict, dtype: Any) -> dict[str, Any]:
  """The networks that complete pictures, by name."""
  shared = dict(
    width=model.width,
    blocks=model.blocks,
    remat=model.remat,
    kernel_init=joint_loss.KERNEL_INITS[model.kernel_init],
    dtype=dtype,
  )
  return {
    'edge_generator': EdgeGenerator(use_spectral_norm=model.use_spectral_norm, **shared),
    'generator': InpaintGenerator(**shared),
  }


def make_discriminators(loss: ConfigDict, dtype: Any) -> dict[str, Any]:
  """Their discriminators by name, without those whose loss has weight 0."""
  networks = {}
  discriminator = PatchDiscriminator(width=loss.discriminator_width, dtype=dtype)
  if loss.edge_adversarial or loss.edge_feature_matching:
    networks['edge_discriminator'] = discriminator
  if loss.adversarial:
    networks['discriminator'] = discriminator
  return networks


def arguments(networks: Networks, height: int, width: int) -> dict[str, tuple[modules.Shape, ...]]:
  """{network: shapes of its arguments}, for `modules.initializer`.

  Raises:
    ValueError: images too small for a discriminator.
  """
  if {'edge_discriminator', 'discriminator'} & set(networks):
    joint_loss.check_judged(height, width)
  of = lambda channels: (height, width, channels)
  return {
    'edge_generator': (of(1), of(1), of(1)),
    'generator': (of(3), of(1), of(1)),
    'edge_discriminator': (of(2),),
    'discriminator': (of(3),),
  }


def paint(
  networks: Networks, *, composite_edges: bool
) -> Callable[[Variables, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
  """How both generators complete a picture.

  Args:
    networks: of `make_generators`.
    composite_edges: True: the edges around the hole are Canny's; False: all edges are drawn.

  Returns:
    (variables, image, mask, canny) -> (output f32[B,H,W,3] in [0,1], not pasted into the image; the
    edges f32[B,H,W,1] that it follows).
  """

  def run(variables, image, mask, canny):
    drawn = modules.run(networks, 'edge_generator', variables, gray(image), canny, mask)
    edges = drawn['edges']
    if composite_edges:
      edges = edge_generators.complete_edges(edges, canny, mask)
    return modules.run(networks, 'generator', variables, image, edges, mask)['out'], edges

  return run


def make_phases(
  networks: Networks, loss: ConfigDict, lengths: Mapping[str, int], dtype: Any
) -> tuple[Phase, ...]:
  """The phases that have steps, in order.

  Args:
    networks: of `make_generators` and `make_discriminators`.
    loss: config.loss.
    lengths: {phase: steps}; may contain other phases, too.
    dtype: of the computation.
  """
  picture_loss = ConfigDict({k: loss[k] for k in joint_loss.LOSS_FIELDS})
  painting = joint_loss.generator_loss(picture_loss, networks, dtype)
  picture = [Update('generator', ('generator',), painting, 'generator')]
  judging = []
  if 'discriminator' in networks:
    judge = joint_loss.discriminator_loss(picture_loss, networks)
    judging.append(Update('discriminator', ('discriminator',), judge, 'discriminator'))
  edges = []
  if 'edge_discriminator' in networks:
    draw, judge = _edge_generator_loss(loss, networks), _edge_discriminator_loss(loss, networks)
    edges.append(Update('edge_generator', ('edge_generator',), draw, 'edge_generator'))
    edges.append(Update('edge_discriminator', ('edge_discriminator',), judge, 'edge_discriminator'))
  end_to_end = Update('generators', GENERATORS, painting, 'end_to_end')
  joint = {
    'inpainting': [*picture, *judging],
    'both': [*picture, *judging, *edges],
    'end_to_end': [end_to_end, *judging],
  }
  updates = {
    'edge': edges,
    'inpainting': [*picture, *judging],
    'joint': joint[loss.joint],
  }
  return tuple(
    Phase(name, lengths[name], _forward(networks, name, loss.joint), tuple(updates[name]))
    for name in PHASES
    if lengths[name]
  )


def _forward(networks: Networks, phase: str, joint: str) -> Forward:
  """'edges' f32[B,H,W,1] and 'out' f32[B,H,W,3], if the phase has them."""

  def draw(variables, batch, train):
    args = ('edge_generator', variables, gray(batch['image']), batch['canny'], batch['mask'])
    if not train:
      return modules.run(networks, *args)['edges'], {}
    outputs, changed = modules.train_pass(networks, *args)
    return outputs['edges'], changed

  def paint_along(variables, batch, edges):
    outputs, _ = modules.train_pass(
      networks, 'generator', variables, batch['image'], edges, batch['mask']
    )
    return outputs['out']

  def edge_forward(variables, constants, batch, rng):
    edges, changed = draw(variables, batch, True)
    return {'edges': edges}, changed

  def inpainting_forward(variables, constants, batch, rng):
    return {'out': paint_along(variables, batch, batch['canny'])}, {}

  def joint_forward(variables, constants, batch, rng):
    edges, changed = draw(variables, batch, joint != 'inpainting')
    shown = edges if joint == 'end_to_end' else lax.stop_gradient(edges)
    shown = edge_generators.complete_edges(shown, batch['canny'], batch['mask'])
    return {'edges': edges, 'out': paint_along(variables, batch, shown)}, changed

  return {'edge': edge_forward, 'inpainting': inpainting_forward, 'joint': joint_forward}[phase]


def _beside_gray(batch: Batch, edges: jax.Array) -> jax.Array:
  """What the edge discriminator sees: the undamaged gray picture, and edges."""
  return jnp.concatenate([gray(batch['image']), edges], -1)


def _edge_generator_loss(loss: ConfigDict, networks: Networks) -> Loss:
  gan = adversarial.KINDS[loss.adversarial_kind]

  def loss_of(variables, constants, outputs, batch, rng):
    edges = outputs['edges']
    (logits, fake), changed = modules.train_pass(
      networks, 'edge_discriminator', variables, _beside_gray(batch, edges)
    )
    metrics = {}
    if loss.edge_adversarial:
      metrics['adversarial'] = loss.edge_adversarial * gan.generator(logits)
    if loss.edge_feature_matching:
      _, real = modules.run(
        networks,
        'edge_discriminator',
        variables.with_stats(changed),
        _beside_gray(batch, batch['canny']),
      )
      value = adversarial.feature_matching(fake, real)
      metrics['feature_matching'] = loss.edge_feature_matching * value
    shown = precision_and_recall(edges, batch['canny'], batch['mask'])
    return total(metrics, changed, shown)

  return loss_of


def _edge_discriminator_loss(loss: ConfigDict, networks: Networks) -> Loss:
  gan = adversarial.KINDS[loss.adversarial_kind]

  def loss_of(variables, constants, outputs, batch, rng):
    drawn = lax.stop_gradient(outputs['edges'])
    judge = functools.partial(modules.train_pass, networks, 'edge_discriminator')
    (real, _), changed = judge(variables, _beside_gray(batch, batch['canny']))
    (fake, _), changed = judge(variables.with_stats(changed), _beside_gray(batch, drawn))
    real_term, fake_term = gan.discriminator(real, fake)
    return total({'real': real_term / 2, 'fake': fake_term / 2}, changed)

  return loss_of


def precision_and_recall(
  drawn: jax.Array, true: jax.Array, mask: jax.Array, threshold: float = 0.5
) -> dict[str, jax.Array]:
  """Precision and recall of a batch's drawn edges in the hole.

  Args:
    drawn: f32[B,H,W,1] in [0,1].
    true: f32[B,H,W,1] in {0,1}.
    mask: f32[B,H,W,1], 1 = hole.
    threshold: a larger value counts as an edge.

  Returns:
    'precision', the share of drawn edges that are true, and 'recall', the share of true edges that
    are drawn; f32[] in [0,1], 0 if no edges are drawn or no true edges exist.
  """
  drawn, true = ((x * mask > threshold).astype(jnp.float32) for x in (drawn, true))
  hits = (drawn * true).sum()
  over = lambda count: hits / jnp.maximum(count, 1.0)
  return {'precision': over(drawn.sum()), 'recall': over(true.sum())}


def check_model(config: ConfigDict) -> None:
  """Raises ValueError, which names the field, for an invalid dtype or invalid networks."""
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.kernel_init', config.model.kernel_init, joint_loss.KERNEL_INITS)
  if not config.model.sigma > 0:
    raise ValueError(f'config.model.sigma {config.model.sigma} must be above 0: 2 as published')


def check_training(loss: ConfigDict, phases: ConfigDict, last: str = 'joint') -> None:
  """Raises ValueError, which names the field, for settings that would fail later or train nothing.

  Args:
    loss: config.loss.
    phases: config.phases.
    last: name of the last phase.
  """
  joint_loss.check_loss(ConfigDict({k: loss[k] for k in joint_loss.LOSS_FIELDS}))
  checks.one_of('loss.adversarial_kind', loss.adversarial_kind, ADVERSARIAL_KINDS)
  checks.one_of('loss.joint', loss.joint, JOINT)
  checks.weights(loss, EDGE_WEIGHTS, needed=False)
  checks.phases(phases, last)
  if not any(loss[name] for name in EDGE_WEIGHTS) and (
    phases.edge or (phases.joint and loss.joint == 'both')
  ):
    raise ValueError(
      f'config.loss: {" and ".join(EDGE_WEIGHTS)} are 0, so that nothing trains the edges: set '
      "config.phases.edge=0 too, and loss.joint to 'inpainting' or 'end_to_end'"
    )
