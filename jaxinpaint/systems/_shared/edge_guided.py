"""Edges, then colours: how EdgeConnect's networks are trained, in every system that takes them.

Four networks: 'edge_generator' draws the edges of the hole, 'generator' paints the picture along
them, and each has a discriminator. Three phases:

  edge        the edge generator: adversarial + feature matching, on gray pictures with their edges
  inpainting  the generator, along the true edges: the joint loss of `systems.joint_loss`
  joint       the generator, along drawn edges, pasted into the true ones around the hole

loss.joint says what the last one trains:

  inpainting  the generator alone; the edge generator rests
  both        also the edge generator, by its own loss; no gradient crosses over
  end_to_end  both generators by the picture's loss, without the edges' discriminator

Every phase computes its generators' output once for all updates. A generator is stepped first, then
its discriminator, which judges the output that the generator had before its step. A network under
spectral norm takes one power iteration in every training pass: one a step for the edge generator,
three for a discriminator: once for the output in the generator's update, whose feature matching
sees the real edges by the same vectors, and twice in its own.

Logged terms carry their weights and sum to 'total'; 'precision' and 'recall' of the drawn edges in
the hole, thresholded at 1/2, stand beside them.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint.layers import edge_generators
from jaxinpaint.layers.edge_generators import EdgeGenerator, InpaintGenerator, gray
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.losses import adversarial
from jaxinpaint.recipe import Phase, Update
from jaxinpaint.systems._shared import joint_loss

PHASES = ('edge', 'inpainting', 'joint')
JOINT = ('inpainting', 'both', 'end_to_end')
ADVERSARIAL_KINDS = ('non_saturating', 'hinge', 'least_squares', 'least_squares_on_sigmoid')
EDGE_WEIGHTS = ('edge_adversarial', 'edge_feature_matching')
EDGE_FIELDS = (*EDGE_WEIGHTS, 'joint')
PREDICT_NETWORKS = ('edge_generator', 'generator')
MIN_TRAINING_SIDE = 24  # below it the patch discriminators have no output


def default_model() -> dict[str, Any]:
  """The published networks' part of config.model."""
  return dict(
    width=64,
    blocks=8,
    use_spectral_norm=True,  # of the edge generator
    composite_edges=False,  # True: paste the drawn edges into Canny's at inference, too
    sigma=2.0,  # of Canny's detector
    remat=False,  # ours: saves memory, changes no number
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
    perceptual_layers=('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1'),
    style_layers=('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2'),
    style_on_hole=True,
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks in place, drops the terms that need VGG's weights, shortens the phases."""
  config.model.update(dict(width=8, blocks=1))
  config.loss.update(dict(perceptual=0.0, style=0.0, discriminator_width=8))
  config.phases.update({name: 2 if steps else 0 for name, steps in config.phases.items()})
  config.training.steps = sum(config.phases.values())


def inputs(model: ConfigDict) -> tuple[str, ...]:
  """`Recipe.inputs`: Canny's edges."""
  return (f'canny:sigma={model.sigma:g}',)


def make_networks(model: ConfigDict, loss: ConfigDict, dtype: Any) -> dict[str, nn.Module]:
  """The networks by name; a discriminator whose loss has no weight is left out."""
  shared = dict(
    width=model.width,
    blocks=model.blocks,
    remat=model.remat,
    kernel_init=joint_loss.KERNEL_INITS[model.kernel_init],
    dtype=dtype,
  )
  networks = {
    'edge_generator': EdgeGenerator(use_spectral_norm=model.use_spectral_norm, **shared),
    'generator': InpaintGenerator(**shared),
  }
  judge = PatchDiscriminator(width=loss.discriminator_width, dtype=dtype)
  if loss.edge_adversarial or loss.edge_feature_matching:
    networks['edge_discriminator'] = judge
  if loss.adversarial:
    networks['discriminator'] = judge
  return networks


def init(networks: Mapping[str, nn.Module], rng: jax.Array, batch: Mapping[str, Any]):
  """(params, stats) of `make_networks`; of the batch only its height and width matter.

  Raises:
    ValueError: images too small for a discriminator.
  """
  height, width = batch['image'].shape[1:3]
  if min(height, width) < MIN_TRAINING_SIDE and len(networks) > len(PREDICT_NETWORKS):
    raise ValueError(
      f'images of {height} x {width} leave the patch discriminators nothing to judge: train with '
      f'config.data.size >= {MIN_TRAINING_SIDE}'
    )
  of = lambda channels: jnp.zeros((1, height, width, channels))
  arguments = {
    'edge_generator': (of(1), of(1), of(1)),
    'generator': (of(3), of(1), of(1)),
    'edge_discriminator': (of(2),),
    'discriminator': (of(3),),
  }
  params, stats = {}, {}
  for name, key in zip(networks, jax.random.split(rng, len(networks)), strict=True):
    found = networks[name].init(key, *arguments[name])
    params[name] = found['params']
    if 'spectral' in found:
      stats[name] = {'spectral': found['spectral']}
  return params, stats


def _apply(network: nn.Module, name: str, params: Any, stats: Any, *args: Any, train: bool):
  """What the network gives, and {name: its statistics} where it has changed them."""
  own = stats.get(name, {})
  variables = {'params': params[name], **own}
  if not (train and own):
    return network.apply(variables, *args), {}
  found, changed = network.apply(variables, *args, train=True, mutable=list(own))
  return found, {name: changed}


def paint(networks: Mapping[str, nn.Module], *, composite_edges: bool) -> Callable:
  """(params, stats, image, mask, canny) -> (f32[B,H,W,3] in [0,1] not composited, the edges
  f32[B,H,W,1] it follows), by both generators at rest.

  `composite_edges`: around the hole the edges are Canny's; else all of them are drawn.
  """

  def run(params, stats, image, mask, canny):
    draw = functools.partial(_apply, networks['edge_generator'], 'edge_generator', train=False)
    edges = draw(params, stats, gray(image), canny, mask)[0]['edges']
    if composite_edges:
      edges = edge_generators.complete_edges(edges, canny, mask)
    args = (image, edges, mask)
    found, _ = _apply(networks['generator'], 'generator', params, stats, *args, train=False)
    return found['out'], edges

  return run


def make_phases(
  networks: Mapping[str, nn.Module], loss: ConfigDict, lengths: Mapping[str, int], dtype: Any
) -> tuple[Phase, ...]:
  """The phases that have steps, in order."""
  picture_loss = ConfigDict({k: loss[k] for k in joint_loss.LOSS_FIELDS})
  colours = joint_loss.generator_loss(picture_loss, networks, dtype)
  paint_alone = [Update('generator', ('generator',), colours, 'generator')]
  judge = []
  if 'discriminator' in networks:
    judging = joint_loss.discriminator_loss(picture_loss, networks['discriminator'])
    judge.append(Update('discriminator', ('discriminator',), judging, 'discriminator'))
  edges = []
  if 'edge_discriminator' in networks:
    eye = networks['edge_discriminator']
    drawing = _edge_generator_loss(loss, eye)
    judging = _edge_discriminator_loss(loss, eye)
    edges.append(Update('edge_generator', ('edge_generator',), drawing, 'edge_generator'))
    edges.append(
      Update('edge_discriminator', ('edge_discriminator',), judging, 'edge_discriminator')
    )
  both = Update('generators', PREDICT_NETWORKS, colours, 'end_to_end')
  together = {
    'inpainting': [*paint_alone, *judge],
    'both': [*paint_alone, *judge, *edges],
    'end_to_end': [both, *judge],
  }
  updates = {
    'edge': edges,
    'inpainting': [*paint_alone, *judge],
    'joint': together[loss.joint],
  }
  return tuple(
    Phase(name, lengths[name], _forward(networks, name, loss.joint), tuple(updates[name]))
    for name in PHASES
    if lengths[name]
  )


def _forward(networks: Mapping[str, nn.Module], phase: str, joint: str) -> Callable:
  """'edges' f32[B,H,W,1] and 'out' f32[B,H,W,3], where the phase has them."""

  def draw(params, stats, batch, train):
    args = (gray(batch['image']), batch['canny'], batch['mask'])
    network = networks['edge_generator']
    found, changed = _apply(network, 'edge_generator', params, stats, *args, train=train)
    return found['edges'], changed

  def colour(params, stats, batch, edges):
    args = (batch['image'], edges, batch['mask'])
    found, _ = _apply(networks['generator'], 'generator', params, stats, *args, train=True)
    return found['out']

  def edge_forward(params, stats, constants, batch, rng):
    edges, changed = draw(params, stats, batch, True)
    return {'edges': edges}, changed

  def inpainting_forward(params, stats, constants, batch, rng):
    return {'out': colour(params, stats, batch, batch['canny'])}, {}

  def joint_forward(params, stats, constants, batch, rng):
    edges, changed = draw(params, stats, batch, joint != 'inpainting')
    shown = edges if joint == 'end_to_end' else lax.stop_gradient(edges)
    shown = edge_generators.complete_edges(shown, batch['canny'], batch['mask'])
    return {'edges': edges, 'out': colour(params, stats, batch, shown)}, changed

  return {'edge': edge_forward, 'inpainting': inpainting_forward, 'joint': joint_forward}[phase]


def _judge_edges(network: nn.Module, params: Any, stats: Any, batch: Any, edges: Any, train: bool):
  """(logits, features), and the statistics after it; the gray picture is shown undamaged."""
  x = jnp.concatenate([gray(batch['image']), edges], -1)
  found, changed = _apply(network, 'edge_discriminator', params, stats, x, train=train)
  return found, {**stats, **changed}


def _edge_generator_loss(loss: ConfigDict, network: nn.Module) -> Callable:
  gan = adversarial.KINDS[loss.adversarial_kind]

  def loss_of(params, stats, constants, outputs, batch, rng):
    edges = outputs['edges']
    (logits, fake), stats = _judge_edges(network, params, stats, batch, edges, True)
    metrics = {}
    if loss.edge_adversarial:
      metrics['adversarial'] = loss.edge_adversarial * gan.generator(logits)
    if loss.edge_feature_matching:
      (_, real), _ = _judge_edges(network, params, stats, batch, batch['canny'], False)
      value = adversarial.feature_matching(fake, real)
      metrics['feature_matching'] = loss.edge_feature_matching * value
    total = sum(metrics.values())
    metrics |= {'total': total, **precision_and_recall(edges, batch['canny'], batch['mask'])}
    kept = {'edge_discriminator': stats['edge_discriminator']}
    return total, {'metrics': metrics, 'stats': kept}

  return loss_of


def _edge_discriminator_loss(loss: ConfigDict, network: nn.Module) -> Callable:
  gan = adversarial.KINDS[loss.adversarial_kind]

  def loss_of(params, stats, constants, outputs, batch, rng):
    fake_edges = lax.stop_gradient(outputs['edges'])
    (real, _), stats = _judge_edges(network, params, stats, batch, batch['canny'], True)
    (fake, _), stats = _judge_edges(network, params, stats, batch, fake_edges, True)
    terms = gan.discriminator(real, fake)
    metrics = {'real': terms[0] / 2, 'fake': terms[1] / 2}
    total = metrics['real'] + metrics['fake']
    kept = {'edge_discriminator': stats['edge_discriminator']}
    return total, {'metrics': {**metrics, 'total': total}, 'stats': kept}

  return loss_of


def precision_and_recall(
  drawn: jax.Array, true: jax.Array, mask: jax.Array, threshold: float = 0.5
) -> dict[str, jax.Array]:
  """Of the batch's drawn edges in the hole: how many are true, how many true ones are drawn.

  Args:
    drawn: f32[B,H,W,1] in [0,1].
    true: f32[B,H,W,1] in {0,1}.
    mask: f32[B,H,W,1], 1 = hole.
    threshold: above which there is an edge.

  Returns:
    'precision' and 'recall', f32[] in [0,1]; 0 where nothing is drawn, or nothing to be drawn.
  """
  drawn, true = ((x * mask > threshold).astype(jnp.float32) for x in (drawn, true))
  hits = (drawn * true).sum()
  over = lambda count: hits / jnp.maximum(count, 1.0)
  return {'precision': over(drawn.sum()), 'recall': over(true.sum())}


def check(config: ConfigDict, default: ConfigDict) -> None:
  """Raises ValueError, naming the field, for what could only fail later, or train nonsense.

  Args:
    config: reads dtype, model, loss and phases.
    default: the system's, which has every field that there is.
  """
  joint_loss.one_of('dtype', config.dtype, joint_loss.DTYPES)
  for section in ('model', 'loss', 'phases'):
    joint_loss.check_fields(section, config[section], default[section])
    missing = sorted(set(default[section]) - set(config[section]))
    if missing:
      raise ValueError(
        f"config.{section} lacks {missing}: start from the system's default_config()"
      )
  model, loss = config.model, config.loss
  joint_loss.one_of('model.kernel_init', model.kernel_init, joint_loss.KERNEL_INITS)
  if not model.sigma > 0:
    raise ValueError(f'config.model.sigma {model.sigma} must be above 0: 2 as published')
  joint_loss.check_loss(ConfigDict({k: loss[k] for k in joint_loss.LOSS_FIELDS}))
  joint_loss.one_of('loss.adversarial_kind', loss.adversarial_kind, ADVERSARIAL_KINDS)
  joint_loss.one_of('loss.joint', loss.joint, JOINT)
  for name in EDGE_WEIGHTS:
    if not (math.isfinite(loss[name]) and loss[name] >= 0):
      raise ValueError(f'config.loss.{name} {loss[name]!r} must be finite and >= 0')
  *_, last = config.phases
  for name, steps in config.phases.items():
    if steps < (-1 if name == last else 0):
      raise ValueError(f'config.phases.{name} {steps} must be a number of steps (0: none)')
  if not any(config.phases.values()):
    raise ValueError('config.phases: all are 0: nothing to train')
  if not any(loss[name] for name in EDGE_WEIGHTS) and (
    config.phases.edge or (config.phases.joint and loss.joint == 'both')
  ):
    raise ValueError(
      f'config.loss: {" and ".join(EDGE_WEIGHTS)} are 0, so that nothing trains the edges: set '
      "config.phases.edge=0 too, and loss.joint to 'inpainting' or 'end_to_end'"
    )
