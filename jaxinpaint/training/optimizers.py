"""Optimisers and schedules from optax by name, with clipping and accumulation, as config.

config.optimizers.generator = dict(name='adam', learning_rate=1e-4, b1=0.0, b2=0.9,
                                   schedule='constant', schedule_args={}, clip_norm=0.0)
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import optax

_OWN_KEYS = ('name', 'learning_rate', 'schedule', 'schedule_args', 'clip_norm')


def _call(function: Any, arguments: Mapping[str, Any], what: str) -> Any:
  known = [p for p in inspect.signature(function).parameters if p != 'learning_rate']
  unknown = sorted(set(arguments) - set(known))
  if unknown:
    raise ValueError(f'{what} takes no {", ".join(unknown)}; it takes: {", ".join(known)}')
  return function(**arguments)


def make_schedule(learning_rate: float, name: str = 'constant', arguments: Any = None) -> Any:
  """step -> learning rate.

  Args:
    learning_rate: the peak.
    name: 'constant' or an optax schedule; 'cosine_decay' and 'cosine_decay_schedule' are the same.
    arguments: of that schedule, without its peak; counts are optimizer steps.

  Raises:
    ValueError: unknown name or argument, or a negative rate.
  """
  if not learning_rate >= 0:
    raise ValueError(f'learning_rate {learning_rate} must be >= 0')
  if name in ('constant', 'constant_schedule'):
    return learning_rate
  schedule = getattr(optax.schedules, name, None) or getattr(
    optax.schedules, f'{name}_schedule', None
  )
  if schedule is None or not callable(schedule):
    choices = [n for n in dir(optax.schedules) if re.match('[a-z].*(_schedule|decay)', n)]
    raise ValueError(f'unknown schedule {name!r}; optax has: {", ".join(choices)}')
  arguments = dict(arguments or {})
  peak = next(
    (p for p in ('init_value', 'peak_value') if p in inspect.signature(schedule).parameters), None
  )
  if 'peak_value' in inspect.signature(schedule).parameters:
    peak = 'peak_value'
  if peak is not None:
    arguments.setdefault(peak, learning_rate)
  return _call(schedule, arguments, f'optax.schedules.{schedule.__name__}')


def make_optimizer(
  name: str,
  learning_rate: float,
  schedule: str = 'constant',
  schedule_args: Mapping[str, Any] | None = None,
  clip_norm: float = 0.0,
  accumulate: int = 1,
  **arguments: Any,
) -> optax.GradientTransformation:
  """One optimizer.

  Args:
    name: a function in optax that takes a learning rate: 'adam', 'adamw', 'lion', 'sgd', ...
    learning_rate: the peak rate.
    schedule: see `make_schedule`.
    schedule_args: see `make_schedule`.
    clip_norm: gradients longer than this (global norm) are scaled down to it; 0: never.
    accumulate: average the gradients of this many steps into one optimizer step.
    **arguments: of the optax function: b1, b2, eps, weight_decay, ...

  Raises:
    ValueError: an unknown name or argument, with the known ones.
  """
  factory = getattr(optax, name, None)
  if not callable(factory) or 'learning_rate' not in inspect.signature(factory).parameters:
    choices = [
      n
      for n, f in vars(optax).items()
      if inspect.isfunction(f)
      and 'learning_rate' in inspect.signature(f).parameters
      and not n.startswith(('_', 'scale_by'))
    ]
    raise ValueError(f'unknown optimizer {name!r}; optax has: {", ".join(sorted(choices))}')
  if accumulate < 1:
    raise ValueError(f'config.training.accumulate {accumulate} must be >= 1')
  known = inspect.signature(factory).parameters
  unknown = sorted(set(arguments) - set(known))
  if unknown:
    raise ValueError(f'optax.{name} takes no {", ".join(unknown)}; it takes: {", ".join(known)}')
  rate = make_schedule(learning_rate, schedule, schedule_args)
  optimizer = factory(learning_rate=rate, **arguments)
  if clip_norm:
    optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
  if accumulate > 1:
    optimizer = optax.MultiSteps(optimizer, accumulate).gradient_transformation()
  return optimizer


def make_optimizers(
  config: Any, names: Any, accumulate: int = 1
) -> dict[str, optax.GradientTransformation]:
  """{name: optimizer} for each of `names`, from `config.optimizers`.

  Raises:
    ValueError: config.optimizers lacks one that the recipe uses.
  """
  missing = sorted(set(names) - set(config))
  if missing:
    raise ValueError(
      f'config.optimizers lacks {", ".join(missing)}, which the recipe uses; it has: '
      f'{", ".join(sorted(config))}'
    )
  return {
    name: make_optimizer(accumulate=accumulate, **_plain(config[name])) for name in sorted(names)
  }


def _plain(config: Any) -> dict[str, Any]:
  return config.to_dict() if hasattr(config, 'to_dict') else dict(config)
