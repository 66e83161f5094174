"""Checks of a system's config.

Each raises ValueError and names the field, its value and the allowed values.

The recipes check everything before they build anything, so that a mistake is reported at once and
not after days of the first phase.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any


def one_of(name: str, value: Any, choices: Iterable[Any]) -> None:
  """`value`, of config.`name`, must be one of `choices`."""
  if value not in choices:
    raise ValueError(f'config.{name} {value!r} must be one of: {", ".join(map(repr, choices))}')


def known_fields(section: str, got: Iterable[str], known: Iterable[str]) -> None:
  """config.`section` must have no fields other than `known`."""
  for name in got:
    if name not in known:
      raise ValueError(f'config.{section} has no {name!r}; it has: {", ".join(sorted(known))}')


def same_fields(section: str, got: Iterable[str], known: Iterable[str]) -> None:
  """config.`section` must have exactly the fields `known`."""
  known_fields(section, got, known)
  missing = sorted(set(known) - set(got))
  if missing:
    raise ValueError(f"config.{section} lacks {missing}: start from the system's default_config()")


def weights(
  loss: Mapping[str, Any], names: Iterable[str], *, needed: bool = True, zero: str = 'not built'
) -> None:
  """The fields `names` of config.loss must be finite numbers >= 0.

  Args:
    loss: config.loss.
    names: the weights to check.
    needed: whether at least one of them must be above 0.
    zero: what a weight of 0 means, for the message.
  """
  for name in names:
    weight = loss[name]
    if isinstance(weight, bool) or not isinstance(weight, int | float):
      raise ValueError(f'config.loss.{name} {weight!r} must be a number (a weight; 0: {zero})')
    if weight < 0 or not math.isfinite(weight):
      raise ValueError(f'config.loss.{name} {weight!r} must be finite and >= 0 (0: {zero})')
  if needed and not any(loss[name] for name in names):
    raise ValueError(f'config.loss: all weights ({", ".join(names)}) are 0: nothing to train')


def stem(name: str, value: Any) -> None:
  """`value`, of config.`name`, must be a whole number of 1 or more: so many pixels are one."""
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise ValueError(f'config.{name} {value!r} must be a whole number of at least 1')


def phases(steps: Mapping[str, int], last: str) -> None:
  """config.phases must be numbers of steps (0: none); for the phase `last`, -1 means to the end."""
  for name, count in steps.items():
    if count < (-1 if name == last else 0):
      end = ', -1: to the end of training' if name == last else ''
      raise ValueError(f'config.phases.{name} {count} must be a number of steps (0: none{end})')
  if not any(steps.values()):
    raise ValueError(f'config.phases: all ({", ".join(steps)}) are 0: nothing to train')


def count(name: str, value: Any) -> None:
  """`value`, of config.`name`, must be an integer of at least 1."""
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise ValueError(f'config.{name} {value!r} must be an integer of at least 1')


def dilations(name: str, rates: Iterable[Any]) -> None:
  """`rates`, of config.`name`, must be one or more integers of at least 1."""
  rates = tuple(rates)
  if not rates or any(isinstance(r, bool) or not isinstance(r, int) or r < 1 for r in rates):
    raise ValueError(f'config.{name} {rates} must be one or more dilations of at least 1')
