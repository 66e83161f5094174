"""What happens when a step's numbers are not finite: config.training.nan.

The step itself (`training.step`) checks every term, gradient, change of parameters and statistic.
If one is NaN or infinite, the step is called sick and returns the state it was given. So a sick
step never changes the parameters, under any policy. `Guard` reads the results of these checks a few
steps late, so that the device never waits, but always before anything is saved. Then the policy

  stop      ends the run (`faults.Diverged`); the newest checkpoint is from before the sick step.
  skip      goes on with the next batch.
  rollback  goes back to the last checkpoint and goes on with other images, crops, masks and random
            numbers. With the same ones, the run would reach the same sick step again. The new ones
            are derived from (config.seed, number of returns). Checkpoints keep this number, so a
            run that is killed and resumed gets the same images.

Every sick batch is written to WORKDIR/sick/STEP/ (the first `_KEEP`).
"""

import collections
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from PIL import Image

from jaxinpaint.report import grids
from jaxinpaint.runtime import atomic
from jaxinpaint.runtime.faults import Diverged
from jaxinpaint.training import step

POLICIES = ('stop', 'skip', 'rollback')

# How many steps may be running before the host checks whether the oldest was finite.
_LAG = 2
# Folders in WORKDIR/sick: a run that skips some steps for weeks must not fill the disk.
_KEEP = 50
_ROWS = 16  # of the picture


class Rollback(Exception):
  """The guard asks the loop to go back to the last checkpoint."""


class Guard:
  """Checks, a few steps late, whether steps were finite, and applies the policy.

  Args:
    policy: one of POLICIES.
    limit: the run ends after this many sick steps in a row ('skip'), or after more than this many
      returns to one checkpoint ('rollback').
    workdir: gets sick/STEP/.
    record: an earlier `Guard.record`, from the checkpoint that the run resumes from.
    draw_masks: as in `step.make_train_step`, for batches without masks.
  """

  def __init__(
    self,
    policy: str,
    limit: int,
    workdir: pathlib.Path,
    record: Mapping[str, int] | None = None,
    draw_masks: Callable | None = None,
  ):
    """See the class."""
    self._draw_masks = draw_masks
    self._policy, self._limit, self._workdir = policy, limit, workdir
    self._pending: collections.deque = collections.deque()
    self._in_a_row = (record or {}).get('in_a_row', 0)
    self.rollbacks = (record or {}).get('rollbacks', 0)
    self._attempts = 0

  @property
  def record(self) -> dict[str, int]:
    """What a checkpoint keeps, so that a resumed run decides like an uninterrupted one."""
    return {'in_a_row': self._in_a_row, 'rollbacks': self.rollbacks}

  @property
  def under_way(self) -> int:
    """The number of steps that were started and not yet checked."""
    return len(self._pending)

  def add(self, number: int, metrics: Mapping[str, jax.Array], batch: Mapping[str, Any]) -> None:
    """Records that step `number` was taken on `batch` (this process's rows, on the host)."""
    self._pending.append((number, metrics, batch))
    while len(self._pending) > _LAG:
      self._check(*self._pending.popleft())

  def drain(self) -> None:
    """Checks every step that was taken; called before anything is saved."""
    while self._pending:
      self._check(*self._pending.popleft())

  def saved(self) -> None:
    """Called when a checkpoint after the last sick step begins: counts returns from zero again."""
    self._attempts = 0

  def _check(self, number: int, metrics: Mapping[str, jax.Array], batch: Mapping[str, Any]) -> None:
    if bool(metrics['finite']):
      self._in_a_row = 0
      return
    values = {k: float(v) for k, v in jax.device_get(dict(metrics)).items() if k != 'finite'}
    names = step.nonfinite_terms(values)
    terms = ', '.join(f'{k} = {values[k]}' for k in names) or 'the statistics of a network'
    ids = _ids(batch)
    name = f'{number}-{self.rollbacks}' if self.rollbacks else str(number)
    if self._draw_masks:
      mask = self._draw_masks(jax.numpy.asarray(batch['mask_key']), *batch['image'].shape[1:3])
      batch = {**batch, 'mask': np.asarray(mask)}
    place = write(
      self._workdir,
      name,
      batch,
      {'step': number, 'policy': self._policy, 'sick': names, 'terms': values, 'ids': ids},
    )
    sentence = (
      f'step {number}: {terms}: not finite; its changes were dropped. Images {_shown(ids)}'
      + (f'; the batch is in {place}' if place else '')
    )
    if self._policy == 'rollback':
      self._pending.clear()
      self._attempts += 1
      self.rollbacks += 1
      if self._attempts > self._limit:
        raise Diverged(
          f'{sentence}. {self._limit} returns to the checkpoint before did not help '
          '(config.training.nan_limit): lower the learning rate or set '
          'config.optimizers.*.clip_norm'
        )
      logging.error('%s. Return %d to the checkpoint before.', sentence, self._attempts)
      raise Rollback(number)
    if self._policy == 'stop':
      raise Diverged(
        f'{sentence}. Training stops; the checkpoints are untouched. Lower the learning rate, set '
        'config.optimizers.*.clip_norm, or go on past such steps with '
        '--config.training.nan=skip (or rollback)'
      )
    self._in_a_row += 1
    logging.error('%s (%d in a row).', sentence, self._in_a_row)
    if self._in_a_row >= self._limit:
      raise Diverged(
        f'{sentence}. It is number {self._in_a_row} in a row (config.training.nan_limit)'
      )


def seed_after(seed: int, rollbacks: int) -> int:
  """The seed of the data after this many returns; `seed` itself before the first."""
  if not rollbacks:
    return seed
  return int(np.random.SeedSequence([seed, rollbacks]).generate_state(1)[0])


def key_after(key: jax.Array, rollbacks: int) -> jax.Array:
  """The key of the steps after this many returns; `key` itself before the first."""
  return jax.random.fold_in(key, rollbacks) if rollbacks else key


def write(
  workdir: pathlib.Path, name: str, batch: Mapping[str, Any], report: Mapping[str, Any]
) -> pathlib.Path | None:
  """WORKDIR/sick/NAME/: batch.npz, batch.png (input, mask, truth of the first rows), report.json.

  With several processes each writes its own rows, batch-PROCESS.npz and .png.

  Args:
    workdir: of the run.
    name: of the folder.
    batch: {'image', 'mask', 'id', inputs ...} on the host.
    report: contents of report.json; the names of arrays in the batch that are not finite are added.

  Returns:
    The folder; None if enough were already written, or if it cannot be written (which is logged).
  """
  folder = workdir / 'sick' / name
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists() and len(list(folder.parent.iterdir())) >= _KEEP:
      return None
    folder.mkdir(exist_ok=True)
    own = f'-{jax.process_index()}' if jax.process_count() > 1 else ''
    batch = {k: np.asarray(v) for k, v in batch.items()}
    np.savez_compressed(folder / f'batch{own}.npz', **batch)
    Image.fromarray(picture(batch)).save(folder / f'batch{own}.png')
    if jax.process_index() == 0:
      sick = [k for k, v in batch.items() if not np.isfinite(v).all()]
      atomic.write(folder / 'report.json', json.dumps({**report, 'sick_inputs': sick}, indent=2))
  except OSError as error:
    logging.error('The sick batch cannot be written: %s', error)
    return None
  return folder


def picture(batch: Mapping[str, np.ndarray]) -> np.ndarray:
  """The batch's first rows, each as input | mask | truth, uint8[H, W, 3], and their ids."""
  images, masks = batch['image'][:_ROWS], batch['mask'][:_ROWS]
  if images.dtype != np.uint8:
    images = (255 * np.clip(np.nan_to_num(images), 0, 1)).round().astype(np.uint8)
  rows = grids.rows_of(list(images), list(masks[..., 0]), [[]] * len(images))
  captions = [[f'image {i}', '', ''] for i in batch['id'][:_ROWS]]
  return grids.draw(rows, ['input', 'mask', 'truth'], captions)


def _ids(batch: Mapping[str, Any]) -> list[int]:
  """The ids of the global batch.

  All processes call it at the same step, because all see the same results of the checks.
  """
  ids = np.asarray(batch['id'])
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    ids = np.asarray(multihost_utils.process_allgather(ids))
  return [int(i) for i in ids.reshape(-1)]


def _shown(ids: list[int]) -> str:
  """The first of many."""
  return ', '.join(map(str, ids[:16])) + (f' and {len(ids) - 16} more' if len(ids) > 16 else '')
