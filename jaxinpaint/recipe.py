"""What a system tells the train loop: its networks' forward passes, losses and schedule, as data.

A system is a `Recipe`. A recipe is a sequence of `Phase`s (GLCIC trains three, most train one), a
phase is one forward pass and the `Update`s that follow from it, and an update is one loss, the
networks that it trains and the optimizer that steps them. Nothing here knows of devices, files or
optimizer states.

  phase = Phase('joint', steps=-1, forward=forward, updates=(generator, discriminator))
  recipe = Recipe(networks=('generator', 'discriminator'), init=init, phases=(phase,), ...)

The words used in the signatures below:
  params     {network: its parameters}
  stats      {network: its other collections: batch statistics, spectral-norm vectors}
  constants  {name: parameters of a frozen network}, e.g. {'vgg': ...}; never trained or saved
  batch      {'image': f32[B,H,W,3] in [0,1], 'mask': f32[B,H,W,1] 1 = hole, 'id': i32[B]}, and the
             recipe's further `inputs`, f32[B,H,W,C]
  outputs    whatever `forward` made; differentiable leaves are float arrays
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxinpaint import arrays

Tree = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Update:
  """One optimizer step: a loss and the networks that it trains.

  Attributes:
    name: prefix of its metrics ('generator', 'critic').
    trains: networks that get gradients here; all others are constants to this loss.
    loss: (params, stats, constants, outputs, batch, rng) -> (scalar, {'metrics': {term: scalar},
      'stats': {network: changed collections}}). 'stats' may be left out.
    optimizer: name of an entry of `config.optimizers`; updates that share one train the same
      networks.
    every: run at every n-th step of the phase only (lazy regularisation).
    repeat: run n times in a step (several critic steps), on the same batch.
    fresh_forward: draw a forward pass of its own although the phase shares one.
  """

  name: str
  trains: tuple[str, ...]
  loss: Callable[..., tuple[Any, dict]]
  optimizer: str
  every: int = 1
  repeat: int = 1
  fresh_forward: bool = False

  def __post_init__(self):
    if self.every < 1 or self.repeat < 1:
      raise ValueError(
        f'update {self.name!r}: every={self.every} and repeat={self.repeat} must be >= 1'
      )


@dataclasses.dataclass(frozen=True)
class Phase:
  """A stretch of training with the same forward pass and updates.

  Attributes:
    name: shown in logs.
    steps: its length; -1: to the end of training (the last phase only).
    forward: (params, stats, constants, batch, rng) -> (outputs, {network: changed collections}).
    updates: run in this order; an update sees the parameters that the ones before it left.
    share_forward: True: one forward pass, of the parameters before the step, feeds every update.
      False: a fresh one for each (StyleGAN).
  """

  name: str
  steps: int
  forward: Callable[..., tuple[Any, dict]]
  updates: tuple[Update, ...]
  share_forward: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
  """What one step does; hashable, so that a jitted step is compiled once for each distinct plan."""

  phase: int
  updates: tuple[str, ...]


def _no_constants(training: bool) -> dict:
  return {}


def _nothing() -> dict:
  return {}


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A published system, ready to be trained, evaluated and run.

  Attributes:
    networks: the names under which parameters are kept.
    init: (rng, batch) -> (params, stats); traced, so it may run sharded or abstractly. Of a batch
      it gets image, mask and id only, and of any legal size: networks bound to one image size take
      that size from the config.
    phases: in order of training.
    output: (params, stats, constants, image, mask, rng, **inputs) -> f32[B,H,W,3] in [0,1], the
      networks' whole output, before the known pixels are pasted back (`predict` does that).
    predict_networks: the networks that `output` reads; only these are restored for inference.
    load_constants: (training) -> constants; reads files, so it is called once, before any
      compilation, with training=False where only `predict` is wanted.
    start: () -> {'params': {network: tree}, 'stats': {network: tree}}: weights of other files that
      a new run begins with instead of random ones (a pretrained generator), whole networks or parts
      of their trees; called once, before the first step. config.init_from comes after it.
    pretrained: networks that config.init_from has to bring, where training would be in vain else.
    multiple: image sides that the networks take are multiples of it ...
    min_side: ... and at least this long.
    inputs: what the system reads beside image and mask, as specs of `data.inputs`. In training
      they are made of the whole image, for `predict` of what is known.
    samples: `output` depends on rng, and gives another completion for each key.
    pictures: as `predict` -> {name: f32[B,H,W,1 or 3] in [0,1]}: what else is worth seeing (a
      coarse result, edges, where attention looks), columns of the sample grids.
  """

  networks: tuple[str, ...]
  init: Callable[..., tuple[dict, dict]]
  phases: tuple[Phase, ...]
  output: Callable[..., Any]
  predict_networks: tuple[str, ...] = ('generator',)
  load_constants: Callable[[bool], dict] = _no_constants
  start: Callable[[], dict] = _nothing
  pretrained: tuple[str, ...] = ()
  multiple: int = 1
  min_side: int = 1
  inputs: tuple[str, ...] = ()
  samples: bool = False
  pictures: Callable[..., dict[str, Any]] | None = None

  def __post_init__(self):
    owner: dict[str, tuple[str, ...]] = {}
    for i, phase in enumerate(self.phases):
      if phase.steps < 0 and i != len(self.phases) - 1:
        raise ValueError(
          f'phase {phase.name!r} has no end, yet {len(self.phases) - 1 - i} follow it'
        )
      for update in phase.updates:
        missing = [n for n in update.trains if n not in self.networks]
        if missing:
          raise ValueError(f'update {update.name!r} trains {missing}, not among {self.networks}')
        if owner.setdefault(update.optimizer, update.trains) != update.trains:
          raise ValueError(
            f'updates that share the optimizer {update.optimizer!r} must train the same networks: '
            f'{owner[update.optimizer]} and {update.trains} (update {update.name!r})'
          )

  def shapes(self) -> tuple[Tree, Tree]:
    """jax.ShapeDtypeStructs of (params, stats) of all networks; they are of no image's size."""
    side = -(-max(self.min_side, 64) // self.multiple) * self.multiple
    batch = {
      'image': jax.ShapeDtypeStruct((1, side, side, 3), np.float32),
      'mask': jax.ShapeDtypeStruct((1, side, side, 1), np.float32),
      'id': jax.ShapeDtypeStruct((1,), np.int32),
    }
    return jax.eval_shape(self.init, jax.random.key(0), batch)

  def predict(
    self, params: Tree, stats: Tree, constants: Tree, image: Any, mask: Any, rng: Any, **inputs: Any
  ) -> Any:
    """The completed image: `output` in the hole, `image` to the bit wherever mask == 0.

    Args:
      params: see the module, as the next two.
      stats: of `predict_networks`.
      constants: of `load_constants`.
      image: f32[B,H,W,3] in [0,1].
      mask: f32[B,H,W,1], 1 = hole.
      rng: key of the random numbers of systems that sample.
      **inputs: f32[B,H,W,C], one for each of `inputs`.

    Returns:
      f32[B,H,W,3] in [0,1].
    """
    out = self.output(params, stats, constants, image, mask, rng, **inputs)
    return arrays.compose(out, image, mask)

  @property
  def optimizers(self) -> dict[str, tuple[str, ...]]:
    """{optimizer name: the networks it steps}, over all phases."""
    return {u.optimizer: u.trains for p in self.phases for u in p.updates}

  @property
  def steps(self) -> int | None:
    """Length of all phases together; None when the last one is open."""
    if any(p.steps < 0 for p in self.phases):
      return None
    return sum(p.steps for p in self.phases)

  def plan(self, step: int) -> Plan:
    """The phase of `step` (0-based) and the updates that run in it; decided on the host."""
    start = 0
    for i, phase in enumerate(self.phases):
      if phase.steps < 0 or step < start + phase.steps:
        active = tuple(u.name for u in phase.updates if (step - start) % u.every == 0)
        return Plan(i, active)
      start += phase.steps
    raise ValueError(f'step {step} is past the last phase, which ends at step {start}')
