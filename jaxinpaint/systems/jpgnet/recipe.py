"""How JPGNet is trained: the generative part, then the filtering, then the fusion.

Guo, Li, Juefei-Xu, Yu, Liu, Wang: "JPGNet: Joint Predictive Filtering and Generative Network for
Image Inpainting", ACM Multimedia 2021, https://arxiv.org/abs/2107.04281.

  edge, inpainting, joint  EdgeConnect's phases (systems/edge_guided.py): the generative part. Zero
                           steps each where it comes from a file (config.init_from), as published
  kpn1                     the predictive filtering alone, from pictures whose hole is black
  kpn2                     the fusion; generative part and filtering rest

The loss of both is L1 of the whole picture minus 0.2 SSIM, of an output that is neither pasted nor
clipped. What is completed is clipped to [0, 1].

Switches: model.generative='none' leaves the generative part and the fusion out: predictive
filtering alone; model.fusion='binary' is the paper's baseline, which trains no fusion network.

Differs from the released code:
  - model.uncertainty='per_image': see networks.py; 'whole_batch' is the code's, and what published
    weights were trained with (with the code's fusion loop, which takes batches of one picture, the
    two are the same);
  - model.kpn_init='he_normal', with zero biases: the code starts from kernels of a fiftieth of
    Xavier's deviation and PyTorch's random biases, through which hardly any of the picture passes
    at first. 'xavier_0.02' is that, but for the biases;
  - the generative part is a phase of the same run, or comes from a file; of those that were
    published (EdgeConnect, StructureFlow, RFR) it is EdgeConnect.
The lengths of the phases kpn1 and kpn2 are ours.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.losses import reconstruction, structural_similarity
from jaxinpaint.recipe import (
  Phase,
  Recipe,
  Update,
)
from jaxinpaint.systems._shared import edge_guided, joint_loss
from jaxinpaint.systems.jpgnet import networks as networks_lib

GENERATIVE = ('edgeconnect', 'none')
FUSION = ('predictive', 'binary')
KPN_INITS = {
  'he_normal': nn.initializers.he_normal(),
  'xavier_0.02': nn.initializers.variance_scaling(0.02**2, 'fan_avg', 'normal'),
}


def default_config() -> ConfigDict:
  """The published networks and weights; O marks ours."""
  model = edge_guided.default_model() | dict(
    generative='edgeconnect',
    fusion='predictive',
    uncertainty='per_image',  # O
    kpn_width=64,
    kernel_size=3,
    rates=(1, 2, 3, 4),
    channel_attention=False,
    spatial_attention=False,
    kpn_init='he_normal',  # O
  )
  loss = edge_guided.default_loss() | dict(kpn_l1=1.0, kpn_ssim=0.2)
  phases = dict(edge=2_000_000, inpainting=2_000_000, joint=2_000_000)  # EdgeConnect's
  phases |= dict(kpn1=500_000, kpn2=500_000)  # O
  sections = dict(system='jpgnet', dtype='float32', model=model, loss=loss, phases=phases)
  return ConfigDict(sections)


def make(config: ConfigDict) -> Recipe:
  """The recipe of `config`; raises ValueError for fields and values that make no sense."""
  _check(config)
  model, loss, lengths = config.model, config.loss, config.phases
  dtype = joint_loss.DTYPES[config.dtype]
  generative = model.generative != 'none'
  painters = edge_guided.make_networks(model, loss, dtype) if generative else {}
  kpn = networks_lib.FilteringNetwork(
    width=model.kpn_width,
    kernel_size=model.kernel_size,
    rates=tuple(model.rates),
    channel_attention=model.channel_attention,
    spatial_attention=model.spatial_attention,
    kernel_init=KPN_INITS[model.kpn_init],
    dtype=dtype,
  )
  fused = generative and model.fusion == 'predictive'
  filters = ('kpn1', 'kpn2') if fused else ('kpn1',)
  complete = _complete(painters, kpn, model)

  def output(params, stats, constants, image, mask, rng, **inputs):
    found = complete(params, stats, image, mask, **inputs)
    return jnp.clip(found['out'], 0, 1)

  def pictures(params, stats, constants, image, mask, rng, **inputs):
    found = complete(params, stats, image, mask, **inputs)
    names = ('edges', 'generated', 'filtered', 'uncertainty')
    return {name: jnp.clip(found[name], 0, 1) for name in names if name in found}

  def filtering(params, stats, constants, batch, rng):
    damaged = batch['image'] * (1 - batch['mask'])
    return {'out': kpn.apply({'params': params['kpn1']}, damaged, damaged, train=True)['out']}, {}

  def fusion(params, stats, constants, batch, rng):
    resting = {name: p for name, p in params.items() if name != 'kpn2'}
    params = {**lax.stop_gradient(resting), 'kpn2': params['kpn2']}
    inputs = {'canny': batch['canny']} if generative else {}
    return {'out': complete(params, stats, batch['image'], batch['mask'], **inputs)['out']}, {}

  phases = ()
  if generative:
    phases += edge_guided.make_phases(painters, loss, lengths, dtype)
  for name, forward in (('kpn1', filtering), ('kpn2', fusion)):
    if name in filters and lengths[name]:
      update = Update(name, (name,), _filtering_loss(loss), name)
      phases += (Phase(name, lengths[name], forward, (update,)),)
  return Recipe(
    networks=(*painters, *filters),
    init=_init(painters, kpn, filters),
    phases=phases,
    output=output,
    predict_networks=(*(edge_guided.PREDICT_NETWORKS if generative else ()), *filters),
    load_constants=functools.partial(_load_constants, loss, lengths, generative),
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.MIN_SIDE,
    inputs=edge_guided.inputs(model) if generative else (),
    pictures=pictures,
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks in place, drops the terms that need VGG's weights, shortens the phases."""
  config.model.kpn_width = 8
  edge_guided.quicktest(config)


def _init(painters: Mapping[str, nn.Module], kpn: nn.Module, filters: tuple[str, ...]) -> Callable:
  def init(rng, batch):
    height, width = batch['image'].shape[1:3]
    rng_painters, *rngs = jax.random.split(rng, 1 + len(filters))
    params, stats = edge_guided.init(painters, rng_painters, batch) if painters else ({}, {})
    of = lambda channels: jnp.zeros((1, height, width, channels))
    taps = kpn.kernel_size**2
    # Two pictures, the kernels of the first network and their uncertainty; filtered are the two.
    arguments = {'kpn1': (of(3), of(3)), 'kpn2': (of(2 * 3 + 3 * taps + 1), of(6))}
    for name, key in zip(filters, rngs, strict=True):
      params[name] = kpn.init(key, *arguments[name])['params']
    return params, stats

  return init


def _complete(painters: Mapping[str, nn.Module], kpn: nn.Module, model: ConfigDict) -> Callable:
  """(params, stats, image, mask, canny) -> 'out' f32[B,H,W,3], neither pasted nor clipped, and what
  it came from; all networks at rest."""
  paint = edge_guided.paint(painters, composite_edges=model.composite_edges) if painters else None

  def run(params, stats, image, mask, *, canny=None):
    damaged = image * (1 - mask)
    first = kpn.apply({'params': params['kpn1']}, damaged, damaged)
    uncertainty = networks_lib.uncertainty_map(first['kernels'], model.uncertainty)
    filtered = arrays.compose(first['out'], image, mask)
    found = {'filtered': filtered, 'uncertainty': uncertainty}
    if not paint:
      return {**found, 'out': filtered}
    out, edges = paint(params, stats, image, mask, canny)
    generated = arrays.compose(out, image, mask)
    found |= {'edges': edges, 'generated': generated}
    if model.fusion == 'binary':
      return {**found, 'out': networks_lib.binary_fusion(generated, filtered, uncertainty)}
    pair = jnp.concatenate([generated, filtered], -1)
    x = jnp.concatenate([pair, first['kernels'], uncertainty], -1)
    return {**found, 'out': kpn.apply({'params': params['kpn2']}, x, pair)['out']}

  return run


def _filtering_loss(loss: ConfigDict) -> Callable:
  def loss_of(params, stats, constants, outputs, batch, rng):
    out, image = outputs['out'], batch['image']
    metrics = {}
    if loss.kpn_l1:
      metrics['l1'] = loss.kpn_l1 * reconstruction.l1(out, image)
    if loss.kpn_ssim:
      metrics['ssim'] = -loss.kpn_ssim * structural_similarity.ssim(out, image)
    total = sum(metrics.values())
    return total, {'metrics': {**metrics, 'total': total}}

  return loss_of


def _load_constants(
  loss: ConfigDict, lengths: ConfigDict, generative: bool, training: bool
) -> dict[str, Any]:
  """VGG, if a phase is trained that looks at its features."""
  needed = generative and (lengths.inpainting or lengths.joint)
  return joint_loss.load_constants(loss, training and bool(needed))


def _check(config: ConfigDict) -> None:
  """Raises ValueError for what could only fail later, or train nonsense."""
  edge_guided.check(config, default_config())
  model, loss, phases = config.model, config.loss, config.phases
  for name, choices in (
    ('generative', GENERATIVE),
    ('fusion', FUSION),
    ('uncertainty', networks_lib.UNCERTAINTY),
    ('kpn_init', KPN_INITS),
  ):
    joint_loss.one_of(f'model.{name}', model[name], choices)
  if model.kernel_size < 1 or model.kernel_size % 2 == 0:
    raise ValueError(f'config.model.kernel_size {model.kernel_size} must be odd')
  rates = tuple(model.rates)
  if not rates or any(isinstance(r, bool) or not isinstance(r, int) or r < 1 for r in rates):
    raise ValueError(f'config.model.rates {rates} must be dilations of 1 or more, at least one')
  for name in ('kpn_l1', 'kpn_ssim'):
    if not 0 <= loss[name] < float('inf'):
      raise ValueError(f'config.loss.{name} {loss[name]!r} must be finite and >= 0')
  if not (loss.kpn_l1 or loss.kpn_ssim):
    raise ValueError('config.loss: kpn_l1 and kpn_ssim are 0: nothing to train')
  absent = []
  if model.generative == 'none':
    absent = [*edge_guided.PHASES, 'kpn2']
  elif model.fusion == 'binary':
    absent = ['kpn2']
  present = [name for name in absent if phases[name]]
  if present:
    raise ValueError(
      f'config.model.generative={model.generative!r} and fusion={model.fusion!r} leave nothing to '
      f'train in {", ".join(present)}: set these of config.phases to 0'
    )
