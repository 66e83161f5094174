"""What a published system is to the rest of the library: how it is run and how it is trained.

`Inference` runs a system: its networks, one function from a damaged image to an output, and what
images it takes. Evaluation, inpainting and export need nothing else. `Recipe` is an `Inference` and
its training: a sequence of `Phase`s (GLCIC trains in three, most systems in one). A phase is one
forward pass and the `Update`s that follow from it. An update is one loss, the networks that it
trains, and the optimizer that steps them. Nothing here knows devices, files or optimizer states.

  inference = Inference(networks=('generator',), init=init, output=output, multiple=8)
  phase = Phase('joint', steps=-1, forward=forward, updates=(generator, discriminator))
  recipe = Recipe(inference, ('generator', 'discriminator'), init=init_all, phases=(phase,))

The callables are described by protocols (`Init`, `Output`, `Forward`, `Loss`, ...). All of them but
`LoadConstants` and `Start` are pure and are traced by jax. Their arguments are positional.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

import jax
import numpy as np

from jaxinpaint import arrays

# Trees are nested dicts of arrays. Their leaves are arrays or tracers, or ShapeDtypeStructs.
Params = Mapping[str, Any]  # {network: its parameters}
Stats = Mapping[str, Any]  # {network: {collection: tree}}: batch statistics, spectral-norm vectors
Constants = Mapping[str, Any]  # {name: parameters of a frozen network}; never trained or saved
Metrics = Mapping[str, jax.Array]  # {term: f32[]}
# 'image' f32[B,H,W,3] in [0,1], 'mask' f32[B,H,W,1] with 1 = hole, 'id' i32[B], and the extra
# inputs that the system reads, f32[B,H,W,C] each.
Batch = Mapping[str, jax.Array]
Outputs = Mapping[str, Any]  # of a forward pass; losses differentiate with respect to float arrays


class Variables(NamedTuple):
  """The parameters and statistics of several networks; a pytree.

  Attributes:
    params: {network: its parameters}.
    stats: {network: its other collections}; networks without any are absent.
  """

  params: Params
  stats: Stats

  def of(self, network: str) -> dict[str, Any]:
    """{'params': ..., other collections}: what flax's `apply` takes for one network."""
    return {'params': self.params[network], **self.stats.get(network, {})}

  def pick(self, networks: tuple[str, ...]) -> 'Variables':
    """Only these networks, as far as they are here."""
    params, stats = ({n: tree[n] for n in networks if n in tree} for tree in self)
    return Variables(params, stats)

  def with_params(self, params: Params) -> 'Variables':
    """The same with other parameters for the networks in `params`."""
    return self._replace(params={**self.params, **params})

  def with_stats(self, stats: Stats) -> 'Variables':
    """The same after a pass that changed the collections in `stats`; the others stay."""
    changed = {n: {**self.stats.get(n, {}), **collections} for n, collections in stats.items()}
    return self._replace(stats={**self.stats, **changed})

  def at_rest(self, *networks: str) -> 'Variables':
    """The same numbers, but no gradient reaches the parameters of these networks."""
    return self.with_params({n: jax.lax.stop_gradient(self.params[n]) for n in networks})


class Init(Protocol):
  """Random variables of several networks."""

  def __call__(self, rng: jax.Array, batch: Batch, /) -> Variables:
    """Draws them; traced, so it may run sharded or abstractly.

    Args:
      rng: key.
      batch: holds image, mask and id only, of any legal size. Networks that are bound to one image
        size take that size from the config.
    """
    ...


class Output(Protocol):
  """A system's output for damaged images."""

  def __call__(
    self,
    variables: Variables,
    constants: Constants,
    image: jax.Array,
    mask: jax.Array,
    rng: jax.Array,
    /,
    **inputs: jax.Array,
  ) -> jax.Array:
    """The networks' whole output, before the known pixels are pasted back.

    Args:
      variables: of `Inference.networks` at least.
      constants: of `Inference.load_constants` at least.
      image: f32[B,H,W,3] in [0,1]; its values inside the hole must not matter.
      mask: f32[B,H,W,1], 1 = hole.
      rng: key, for systems that sample.
      **inputs: f32[B,H,W,C] for each name in `Inference.inputs`.

    Returns:
      f32[B,H,W,3] in [0,1].
    """
    ...


class Pictures(Protocol):
  """What else a system can show: a coarse result, edges, where attention looks."""

  def __call__(
    self,
    variables: Variables,
    constants: Constants,
    image: jax.Array,
    mask: jax.Array,
    rng: jax.Array,
    /,
    **inputs: jax.Array,
  ) -> Mapping[str, jax.Array]:
    """{name: f32[B,H,W,1 or 3] in [0,1]}; arguments as `Output`."""
    ...


class CheckHole(Protocol):
  """Whether a system can fill a hole; on the host, not traced."""

  def __call__(self, hole: np.ndarray, /) -> None:
    """Raises ValueError, saying what holes are filled, where this one bool[H,W] is not."""
    ...


class Forward(Protocol):
  """One training pass of the networks that a phase's losses judge."""

  def __call__(
    self, variables: Variables, constants: Constants, batch: Batch, rng: jax.Array, /
  ) -> tuple[Outputs, Stats]:
    """(outputs, {network: the collections that this pass changed})."""
    ...


class Aux(TypedDict):
  """What a loss returns beside its value.

  metrics: logged; 'total' is the value itself.
  stats: {network: collections that the loss's own passes changed}; may be left out.
  """

  metrics: Metrics
  stats: NotRequired[Stats]


class Loss(Protocol):
  """What one update minimises."""

  def __call__(
    self,
    variables: Variables,
    constants: Constants,
    outputs: Outputs,
    batch: Batch,
    rng: jax.Array,
    /,
  ) -> tuple[jax.Array, Aux]:
    """(value f32[], what is logged and changed).

    Args:
      variables: of all networks, as the updates before this one left them.
      constants: of `Recipe.load_constants`.
      outputs: of the phase's forward pass. Gradients flow through them into the networks that the
        update trains.
      batch: the batch of that pass.
      rng: key, another one for each update and repeat.
    """
    ...


class LoadConstants(Protocol):
  """Frozen networks that are read from files."""

  def __call__(self, *, shapes_only: bool = False) -> Constants:
    """Reads them; called once, before any compilation.

    Args:
      shapes_only: give jax.ShapeDtypeStructs and read no file, for estimates.

    Raises:
      OSError: a file is missing; the message says where to put it.
    """
    ...


class Start(Protocol):
  """Weights from other files that a new run begins with."""

  def __call__(self) -> Variables:
    """Whole networks or parts of their trees; called once, before the first step.

    Raises:
      OSError: a file is missing.
    """
    ...


def _any_hole(hole: np.ndarray, /) -> None:
  pass


def _no_constants(*, shapes_only: bool = False) -> Constants:
  return {}


def _no_variables() -> Variables:
  return Variables({}, {})


@dataclasses.dataclass(frozen=True)
class Inference:
  """A published system, ready to complete images.

  Attributes:
    networks: the networks that `output` and `pictures` read.
    init: random variables of these networks.
    output: completes images.
    load_constants: frozen networks that `output` reads.
    multiple: image sides must be a multiple of this number ...
    min_side: ... and at least this long.
    pad_mode: how smaller pictures are padded at the bottom and right, see `arrays.pad`.
    side: of networks that take squares of one side alone: this side. Pictures of other sizes are
      resized to it, and outputs back. 0: any size that `multiple` and `min_side` allow.
    inputs: what the system reads beside image and mask, as specs of `data.inputs`. In training they
      are made from the whole image, at inference from its known pixels.
    whole_picture: whether the networks stretch the whole picture to one shape, so that padding a
      picture more than it needs would change what they see of all of it.
    samples: whether `output` depends on rng, and gives another completion for each key.
    pictures: what else is worth seeing; None: nothing.
    refined: an output that takes much longer and looks better at high resolution; None: the system
      has none.
    refined_side: pictures whose shorter side has fewer pixels, as the networks see them, are not
      refined: `refined` gives what `output` does.
    check_hole: refuses holes that the system cannot fill; by default it fills any. `output` is not
      asked: what it makes of such a hole is undefined.
  """

  networks: tuple[str, ...]
  init: Init
  output: Output
  load_constants: LoadConstants = _no_constants
  multiple: int = 1
  min_side: int = 1
  pad_mode: arrays.PadMode = 'reflect'
  side: int = 0
  inputs: tuple[str, ...] = ()
  whole_picture: bool = False
  samples: bool = False
  pictures: Pictures | None = None
  refined: Output | None = None
  refined_side: int = 0
  check_hole: CheckHole = _any_hole

  def shapes(self) -> Variables:
    """jax.ShapeDtypeStructs of `networks`, to check weights against."""
    return jax.eval_shape(self.init, jax.random.key(0), self.small_batch())

  def random(self, seed: int = 0) -> Variables:
    """Random variables of `networks`, as a training begins with, for what no weights matter to."""
    return jax.jit(self.init)(jax.random.key(seed), self.small_batch())

  def seen_size(self, height: int, width: int, pad_to: int = 1) -> tuple[int, int]:
    """(height, width) at which the networks see a picture of this size.

    Args:
      height: of the picture.
      width: likewise.
      pad_to: a further number that padded sides are multiples of; `side` leaves it no choice.
    """
    if self.side:
      return self.side, self.side
    return arrays.padded_size(height, width, math.lcm(self.multiple, pad_to), self.min_side)

  def small_batch(self) -> dict[str, np.ndarray]:
    """A batch of one black image, as small as the networks take but 64 pixels at least."""
    height, width = self.seen_size(64, 64)
    return {
      'image': np.zeros((1, height, width, 3), np.float32),
      'mask': np.zeros((1, height, width, 1), np.float32),
      'id': np.zeros(1, np.int32),
    }

  def predict(
    self,
    variables: Variables,
    constants: Constants,
    image: jax.Array,
    mask: jax.Array,
    rng: jax.Array,
    **inputs: jax.Array,
  ) -> jax.Array:
    """The completed image f32[B,H,W,3]: `output` in the hole, `image` to the bit elsewhere.

    Arguments as `Output`.
    """
    out = self.output(variables, constants, image, mask, rng, **inputs)
    return arrays.compose(out, image, mask)


@dataclasses.dataclass(frozen=True)
class Update:
  """One optimizer step: a loss and the networks that it trains.

  Attributes:
    name: prefix of its metrics ('generator', 'critic').
    trains: networks that get gradients here; all others are constants to this loss.
    loss: what is minimised.
    optimizer: name of an entry of `config.optimizers`; updates that share one train the same
      networks.
    every: run at every n-th step of the phase only (lazy regularisation).
    repeat: run n times in a step (several critic steps), on the same batch.
    fresh_forward: run a forward pass of its own although the phase shares one.
  """

  name: str
  trains: tuple[str, ...]
  loss: Loss
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
    forward: the pass that the updates' losses judge.
    updates: run in this order; an update sees the parameters that the ones before it left.
    share_forward: True: one forward pass, of the parameters before the step, feeds every update.
      False: a fresh one for each (StyleGAN).
  """

  name: str
  steps: int
  forward: Forward
  updates: tuple[Update, ...]
  share_forward: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
  """What one step does; hashable, so that a jitted step is compiled once for each distinct plan."""

  phase: int
  updates: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A published system, ready to be trained.

  Attributes:
    inference: how it is run, during training and after it.
    networks: all networks, those of `inference` and the critics.
    init: random variables of all of them.
    phases: in order of training.
    load_constants: frozen networks that training reads, those of `inference` included.
    start: weights that a new run begins with instead of random ones, a pretrained generator for
      instance. config.init_from is applied after it.
    pretrained: networks that config.init_from must provide; training them from scratch would be
      useless.
  """

  inference: Inference
  networks: tuple[str, ...]
  init: Init
  phases: tuple[Phase, ...]
  load_constants: LoadConstants = _no_constants
  start: Start = _no_variables
  pretrained: tuple[str, ...] = ()

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

  def shapes(self) -> Variables:
    """jax.ShapeDtypeStructs of all networks."""
    return jax.eval_shape(self.init, jax.random.key(0), self.inference.small_batch())

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
