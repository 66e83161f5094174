"""Runs that start from weights: those of `config.init_from` and of `Recipe.start`."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from jaxinpaint import trained
from jaxinpaint.recipe import Recipe, Variables
from jaxinpaint.training.state import TrainState
from jaxinpaint.weights import mapping


def load(path: str | os.PathLike, state: TrainState, recipe: Recipe) -> TrainState:
  """`state` with the parameters and statistics that are stored at `path`.

  Networks that it does not have keep their initial values, which is logged (a published
  generator often comes without its discriminator). Averages start from the loaded parameters.

  Args:
    path: of a run or a weights file, or a name: what `trained.load` takes.
    state: the initial state.
    recipe: the recipe of the state.

  Raises:
    ValueError: no network fits, or a network has other parameters; lists the first of them.
    OSError: no such file; a name whose file this installation lacks.
  """
  opened = trained.open_weights(path)
  loaded = opened.read(None)
  advice = (
    f'It holds weights of the system {opened.config.system!r}; `--config finetune:{path}` takes '
    'system and networks from them.'
  )
  shared = [n for n in recipe.networks if n in loaded.params]
  if not shared:
    raise ValueError(
      f'config.init_from {path} holds {sorted(loaded.params)}, none of the networks of this '
      f'system: {sorted(recipe.networks)}. {advice}'
    )
  lacking = [n for n in recipe.pretrained if n not in shared]
  if lacking:
    raise ValueError(
      f'config.init_from {path} holds {sorted(loaded.params)}, but not the {", ".join(lacking)}, '
      'which this config expects from it'
    )
  new = {'params': {n: loaded.params[n] for n in shared}}
  new['stats'] = {n: loaded.stats[n] for n in shared if n in loaded.stats and n in state.stats}
  old = {'params': state.params, 'stats': {n: state.stats[n] for n in new['stats']}}
  problems = mapping.compare(new, old)
  if problems:
    raise ValueError(
      f'config.init_from {path} is of other networks:\n'
      + '\n'.join(problems)
      + f'\nSet config.system and config.model as they were when it was trained. {advice}'
    )
  for n in recipe.networks:
    logging.info('%s: %s', n, f'from {path}' if n in shared else 'new')
  return merge(Variables(new['params'], new['stats']), state)


def merge(loaded: Variables, state: TrainState) -> TrainState:
  """`state` with the parts of its parameters and statistics that `loaded` has.

  Args:
    loaded: of `Recipe.start`, or of stored weights.
    state: the initial state. Averages start from the merged parameters.

  Raises:
    ValueError: `loaded` has an array that the state lacks, or one of another shape.
  """
  if not (loaded.params or loaded.stats):
    return state
  params = _graft(state.params, loaded.params, 'params')
  stats = _graft(state.stats, loaded.stats, 'stats')
  ema = {n: jax.tree.map(lambda x: x.copy(), params[n]) for n in state.ema}
  return state.replace(params=params, stats=stats, ema=ema)


def _graft(tree: Any, loaded: Any, name: str) -> Any:
  if not isinstance(loaded, Mapping):
    if np.shape(loaded) != np.shape(tree):
      raise ValueError(f'{name}: {np.shape(loaded)} in the file, {np.shape(tree)} here')
    return jax.device_put(np.asarray(loaded, tree.dtype), tree.sharding)
  unknown = sorted(set(loaded) - set(tree))
  if unknown:
    raise ValueError(f'{name} has no {", ".join(unknown[:8])}, which the file holds')
  return {**tree, **{k: _graft(tree[k], v, f'{name}/{k}') for k, v in loaded.items()}}
