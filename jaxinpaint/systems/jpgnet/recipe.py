"""How JPGNet is trained: the generative part, then the filtering, then the fusion.

Guo, Li, Juefei-Xu, Yu, Liu, Wang: "JPGNet: Joint Predictive Filtering and Generative Network for
Image Inpainting", ACM Multimedia 2021, https://arxiv.org/abs/2107.04281.

  edge, inpainting, joint  the generative part: EdgeConnect's phases (systems/_shared/
                           edge_guided.py). If it comes from a file (config.init_from), as
                           published, each has zero steps
  kpn1                     only the predictive filtering, of pictures whose hole is black
  kpn2                     the fusion; generative part and filtering are frozen

The loss of kpn1 and kpn2 is L1 of the whole picture minus 0.2 SSIM; their outputs are neither
pasted nor clipped. At inference the output is clipped to [0, 1].

Switches: model.generative='none' leaves out the generative part and the fusion, so that only the
predictive filtering remains; model.fusion='binary' is the paper's baseline without a fusion
network.

Differs from the released code:
  - model.uncertainty='per_image': see networks.py. 'whole_batch' is the code's, with which the
    published weights were trained (the two are the same in the code's fusion loop, which takes
    batches of one picture);
  - model.kpn_init='he_normal', with zero biases. The code starts with kernels of a fiftieth of
    Xavier's deviation and PyTorch's random biases, which at first pass almost nothing of the
    picture on. 'xavier_0.02' is the same except for the biases;
  - the generative part is trained in the same run or comes from a file. Of the three that were
    published (EdgeConnect, StructureFlow, RFR), only EdgeConnect is here.
The lengths of the phases kpn1 and kpn2 are ours.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.losses import reconstruction, structural_similarity
from jaxinpaint.recipe import Constants, Inference, Init, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, edge_guided, joint_loss, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
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


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  model = config.model
  painters, filters = _painters(config), _filters(config)
  networks = {**painters, **filters}
  complete = _complete(networks, model)

  def output(variables, constants, image, mask, rng, **inputs):
    return jnp.clip(complete(variables, image, mask, **inputs)['out'], 0, 1)

  def pictures(variables, constants, image, mask, rng, **inputs):
    outputs = complete(variables, image, mask, **inputs)
    names = ('edges', 'generated', 'filtered', 'uncertainty')
    return {name: jnp.clip(outputs[name], 0, 1) for name in names if name in outputs}

  return Inference(
    networks=tuple(networks),
    init=_initializer(painters, filters),
    output=output,
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.MIN_SIDE,
    inputs=edge_guided.inputs(model) if painters else (),
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running = inference(config)
  _check_training(config)
  model, loss, lengths, dtype = config.model, config.loss, config.phases, _dtype(config)
  painters, filters = _painters(config), _filters(config)
  complete = _complete({**painters, **filters}, model)
  phases: tuple[Phase, ...] = ()
  if painters:
    painters |= edge_guided.make_discriminators(loss, dtype)
    phases += edge_guided.make_phases(painters, loss, lengths, dtype)

  def filtering(variables, constants, batch, rng):
    damaged = batch['image'] * (1 - batch['mask'])
    outputs, changed = modules.train_pass(filters, 'kpn1', variables, damaged, damaged)
    return {'out': outputs['out']}, changed

  def fusion(variables, constants, batch, rng):
    variables = variables.at_rest(*(name for name in variables.params if name != 'kpn2'))
    inputs = {'canny': batch['canny']} if painters else {}
    return {'out': complete(variables, batch['image'], batch['mask'], **inputs)['out']}, {}

  for name, forward in (('kpn1', filtering), ('kpn2', fusion)):
    if name in filters and lengths[name]:
      update = Update(name, (name,), _filtering_loss(loss), name)
      phases += (Phase(name, lengths[name], forward, (update,)),)
  return Recipe(
    running,
    networks=(*painters, *filters),
    init=_initializer(painters, filters),
    phases=phases,
    load_constants=functools.partial(_load_constants, loss, lengths, bool(painters)),
  )


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, removes the terms that need VGG's weights and shortens the phases.

  Changes `config` in place.
  """
  config.model.kpn_width = 8
  edge_guided.quicktest(config)


def _dtype(config: ConfigDict) -> Any:
  return modules.DTYPES[config.dtype]


def _painters(config: ConfigDict) -> dict[str, nn.Module]:
  """The generative part."""
  if config.model.generative == 'none':
    return {}
  return edge_guided.make_generators(config.model, _dtype(config))


def _filters(config: ConfigDict) -> dict[str, nn.Module]:
  """The predictive filtering, and the fusion if it is a network."""
  model = config.model
  network = networks_lib.FilteringNetwork(
    width=model.kpn_width,
    kernel_size=model.kernel_size,
    rates=tuple(model.rates),
    channel_attention=model.channel_attention,
    spatial_attention=model.spatial_attention,
    kernel_init=KPN_INITS[model.kpn_init],
    dtype=_dtype(config),
  )
  fused = model.generative != 'none' and model.fusion == 'predictive'
  return {'kpn1': network, 'kpn2': network} if fused else {'kpn1': network}


def _initializer(painters: Networks, filters: Networks) -> Init:
  taps = filters['kpn1'].kernel_size ** 2

  def arguments(height, width):
    of = lambda channels: (height, width, channels)
    # kpn2 reads two pictures, the first network's kernels and their uncertainty; it filters the
    # two pictures.
    own = {'kpn1': (of(3), of(3)), 'kpn2': (of(2 * 3 + 3 * taps + 1), of(6))}
    return {**edge_guided.arguments(painters, height, width), **own}

  def keys(rng, count):
    rng_painters, *rngs = jax.random.split(rng, 1 + len(filters))
    return [*jax.random.split(rng_painters, len(painters)), *rngs]

  return modules.initializer({**painters, **filters}, arguments, keys)


def _complete(networks: Networks, model: ConfigDict) -> Callable[..., dict[str, jax.Array]]:
  """How all networks together complete a picture; none of them is trained.

  Returns (variables, image, mask, canny) -> 'out' f32[B,H,W,3], neither pasted nor clipped, and the
  intermediate results.
  """
  generative = model.generative != 'none'
  paint = edge_guided.paint(networks, composite_edges=model.composite_edges)

  def run(variables, image, mask, *, canny=None):
    damaged = image * (1 - mask)
    first = modules.run(networks, 'kpn1', variables, damaged, damaged)
    uncertainty = networks_lib.uncertainty_map(first['kernels'], model.uncertainty)
    filtered = arrays.compose(first['out'], image, mask)
    outputs = {'filtered': filtered, 'uncertainty': uncertainty}
    if not generative:
      return {**outputs, 'out': filtered}
    out, edges = paint(variables, image, mask, canny)
    generated = arrays.compose(out, image, mask)
    outputs |= {'edges': edges, 'generated': generated}
    if model.fusion == 'binary':
      return {**outputs, 'out': networks_lib.binary_fusion(generated, filtered, uncertainty)}
    pair = jnp.concatenate([generated, filtered], -1)
    x = jnp.concatenate([pair, first['kernels'], uncertainty], -1)
    return {**outputs, 'out': modules.run(networks, 'kpn2', variables, x, pair)['out']}

  return run


def _filtering_loss(loss: ConfigDict) -> Loss:
  def loss_of(variables, constants, outputs, batch, rng):
    out, image = outputs['out'], batch['image']
    metrics = {}
    if loss.kpn_l1:
      metrics['l1'] = loss.kpn_l1 * reconstruction.l1(out, image)
    if loss.kpn_ssim:
      metrics['ssim'] = -loss.kpn_ssim * structural_similarity.ssim(out, image)
    return total(metrics)

  return loss_of


def _load_constants(
  loss: ConfigDict, lengths: ConfigDict, generative: bool, *, shapes_only: bool = False
) -> Constants:
  """VGG, if a phase with steps uses its features."""
  needed = generative and (lengths.inpainting or lengths.joint)
  return joint_loss.load_constants(loss, shapes_only=shapes_only) if needed else {}


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  edge_guided.check_model(config)
  for name, choices in (
    ('generative', GENERATIVE),
    ('fusion', FUSION),
    ('uncertainty', networks_lib.UNCERTAINTY),
    ('kpn_init', KPN_INITS),
  ):
    checks.one_of(f'model.{name}', model[name], choices)
  if model.kernel_size < 1 or model.kernel_size % 2 == 0:
    raise ValueError(f'config.model.kernel_size {model.kernel_size} must be odd')
  checks.dilations('model.rates', model.rates)


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  model, loss, phases = config.model, config.loss, config.phases
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], default_config()[section])
  edge_guided.check_training(loss, phases, last='kpn2')
  checks.weights(loss, ('kpn_l1', 'kpn_ssim'))
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
