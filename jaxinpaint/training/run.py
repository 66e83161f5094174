"""A run that is ready to take steps: its state, its data, its checkpoints."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxinpaint.data import pipeline
from jaxinpaint.recipe import Recipe, Variables
from jaxinpaint.runtime import faults
from jaxinpaint.training import early_stop, numerics, sharding
from jaxinpaint.training.checkpoints import CheckpointError, Checkpoints
from jaxinpaint.training.early_stop import Best
from jaxinpaint.training.state import TrainState

# How often the decoding workers are restarted for one batch before the run gives up.
_RESTARTS = 3


class Watch(Protocol):
  """What the loop asks for to see how good the model is; `evaluation.watch.Watch` is one.

  All processes call each method at the same step.
  """

  def evaluate(self, step: int, state: TrainState, constants: Any) -> dict[str, float]:
    """{metric: mean over a few test images}."""

  def samples(self, step: int, state: TrainState, constants: Any) -> np.ndarray | None:
    """A picture of a few test images, uint8[H, W, 3]; None on all processes but the first."""

  def final(
    self, step: int, result: Variables, constants: Any, before: Variables | None = None
  ) -> Any:
    """The whole evaluation of a run's result, the weights of `step`, after the last step.

    Args:
      step: of the result.
      result: averaged where the run keeps averages.
      constants: of the recipe.
      before: what the run started from, where config.init_from named it.
    """


@dataclasses.dataclass
class Run:
  """A run that is ready to take steps.

  Attributes:
    config: of the run.
    workdir: of the run.
    recipe: of the config's system.
    mesh: the devices.
    constants: frozen networks, on the devices.
    state: after `done` steps.
    train_step: of `step.make_train_step`.
    checkpoints: of the workdir.
    batches: the stream of this process's rows, from batch `done` on.
    rng: the key of all steps.
    guard: what happens when a step's numbers are not finite.
    watch: evaluations and pictures; None: there are none.
    total: how many steps the run has.
    done: how many of them are taken. (`state.step` is the same number, but on the device.)
    best: of the evaluations so far; None: there was none, or config.checkpoint.best is ''.
  """

  config: ConfigDict
  workdir: pathlib.Path
  recipe: Recipe
  mesh: jax.sharding.Mesh
  constants: Any
  state: TrainState
  train_step: jax.stages.Wrapped
  checkpoints: Checkpoints
  batches: pipeline.Batches
  rng: jax.Array
  guard: numerics.Guard
  watch: Watch | None
  total: int
  done: int
  best: Best | None = None

  @property
  def stopped_early(self) -> bool:
    """Whether the last config.training.patience evaluations found nothing better."""
    patience = self.config.training.patience
    return bool(patience and self.best and self.best.since >= patience)

  @property
  def ended(self) -> bool:
    """Whether no step is left to take."""
    return self.done >= self.total or self.stopped_early

  @property
  def result(self) -> int:
    """The step whose weights the run leaves: the best one with config.training.patience."""
    return self.best.step if self.config.training.patience and self.best else self.done

  def next_batch(self) -> dict[str, np.ndarray]:
    """This process's rows of the next batch; workers that died are started again.

    A batch depends on its number alone, so new workers continue where the old ones were.

    Raises:
      WorkerLost: the workers die again and again.
      StorageError: the data cannot be read.
    """
    for attempt in range(_RESTARTS + 1):
      try:
        return next(self.batches)
      except RuntimeError as error:  # what grain raises when a worker is gone
        cause, workers = str(error).splitlines()[0], self.config.data.workers
        if not workers:
          raise
        if attempt == _RESTARTS:
          raise faults.WorkerLost(
            f'the {workers} processes that decode images died {attempt + 1} times at batch '
            f'{self.done} ({cause}). Exit code -9 is usually the kernel, out of memory: set fewer '
            'config.data.workers. The checkpoints are untouched; the same command goes on'
          ) from error
        logging.error('A process that decodes images died (%s); all are started again.', cause)
        self._restart_data()
      except (ValueError, OSError) as error:
        raise faults.StorageError(
          f'batch {self.done} cannot be read: {error}. The checkpoints are untouched; the same '
          'command goes on when the data is back'
        ) from error
    raise AssertionError('unreachable')

  def evaluated(self, means: Mapping[str, float]) -> None:
    """Compares an evaluation of this state with the earlier ones.

    Raises:
      ValueError: it lacks config.checkpoint.best.
    """
    name = self.config.checkpoint.best
    if not name:
      return
    if name not in means:
      raise ValueError(
        f'config.checkpoint.best {name!r} is not measured; there are: {", ".join(means)}'
      )
    self.best = early_stop.update(self.best, self.done, means[name])
    if self.config.training.patience and self.best.since:
      logging.info(
        'No better %s than %.4g, of step %d, in %d evaluations; config.training.patience is %d.',
        name, self.best.value, self.best.step, self.best.since, self.config.training.patience,
      )  # fmt: skip

  def save(self) -> None:
    """Begins to write a checkpoint; all steps taken must have been checked by the guard."""
    position = {  # the step is enough; the rest lets a resumed run notice a change
      'next_batch': self.done,
      'seed': self.config.seed,
      'batch_size': self.config.data.batch_size,
      'length': pipeline.source_length(self.config.data),
      'sick': self.guard.record,
      'best': dataclasses.asdict(self.best) if self.best else None,
    }
    if self.config.training.patience and self.best:
      position['result'] = self.best.step  # what `weights.checkpoints.find` gives for the workdir
    kept = [self.best.step] if self.best else []
    if self.config.init_from:
      kept.append(0)  # the evaluation at the end compares the result with it
    self.checkpoints.save(self.state, self.config, position, kept)
    self.guard.saved()

  def roll_back(self) -> None:
    """Goes back to the newest whole checkpoint, and takes other data from there on.

    Raises:
      CheckpointError: there is none.
    """
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.state
    )
    self.checkpoints.wait()
    restored = self.checkpoints.restore(abstract, self.config)
    if restored is None:
      raise CheckpointError(f'{self.checkpoints.folder} holds no checkpoint any more to go back to')
    self.state, meta = restored
    self.done, self.best = int(self.state.step), early_stop.stored(meta['data'])
    self._restart_data()
    self.rng = step_key(self.config, self.mesh, self.guard.rollbacks)
    logging.warning(
      'Back at step %d, with other images and random numbers from here on.', self.done
    )

  def _restart_data(self) -> None:
    self.batches.close()
    self.batches = stream(self.config, self.recipe, self.mesh, self.done, self.guard.rollbacks)


def stream(
  config: ConfigDict, recipe: Recipe, mesh: jax.sharding.Mesh, start: int, rollbacks: int
) -> pipeline.Batches:
  """This process's rows of the batches from `start` on; other ones after each roll-back."""
  return pipeline.make(
    config.data,
    numerics.seed_after(config.seed, rollbacks),
    start_step=start,
    inputs=recipe.inference.inputs,
    rows=sharding.local_rows(config.data.batch_size, mesh),
  )


def step_key(config: ConfigDict, mesh: jax.sharding.Mesh, rollbacks: int) -> jax.Array:
  """The key of all steps, made on every device: a key cannot be sent to other processes."""

  def make() -> jax.Array:
    return numerics.key_after(jax.random.fold_in(jax.random.key(config.seed), 1), rollbacks)

  return jax.jit(make, out_shardings=sharding.replicated(mesh))()
