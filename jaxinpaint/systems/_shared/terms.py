"""Losses that are sums of logged terms. Terms include their weights, so they sum to 'total'."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxinpaint.recipe import Aux, Batch, Constants, Loss, Metrics, Outputs, Stats, Variables


class Term(Protocol):
  """One part of a loss: like `recipe.Loss`, but without random numbers."""

  def __call__(
    self, variables: Variables, constants: Constants, outputs: Outputs, batch: Batch, /
  ) -> tuple[Metrics, Stats]:
    """({name: weighted value f32[]}, {network: collections that its passes changed})."""
    ...


def total(
  metrics: Metrics, stats: Stats | None = None, shown: Metrics | None = None
) -> tuple[jax.Array, Aux]:
  """The return value of a loss that is the sum of `metrics`.

  Args:
    metrics: weighted terms.
    stats: the collections that the loss's passes changed.
    shown: metrics to log that are not part of the sum.
  """
  value = jnp.asarray(sum(metrics.values()))
  return value, {'metrics': {**metrics, 'total': value, **(shown or {})}, 'stats': stats or {}}


def sum_of(terms: Sequence[Term]) -> Loss:
  """The loss that is the sum of all values of `terms`."""

  def loss(variables, constants, outputs, batch, rng):
    metrics: dict[str, jax.Array] = {}
    changed: dict[str, Any] = {}
    for term in terms:
      values, stats = term(variables, constants, outputs, batch)
      metrics |= values
      changed |= stats
    return total(metrics, changed)

  return loss
