"""Equal blocks one after another, recomputed in the backward pass where memory is short."""

from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxinpaint.layers.conv import default_form

T = TypeVar('T')


def in_turn(
  parent: nn.Module,
  kind: type[nn.Module],
  names: list[str],
  x: T,
  *,
  remat: bool = False,
  **settings: Any,
) -> T:
  """`x` through the blocks `kind(**settings, name=name)` of a compact module.

  Their parameters are those of separate blocks, whatever the form of the program. With `remat`, on
  one device of a CPU backend, it is a loop over them, because XLA's CPU compiler undoes
  recomputation outside loops. Elsewhere, and where blocks hand out intermediate results, they stand
  one after another: a loop that stores all results copies them, which took AOT-GAN's step longer.

  Args:
    parent: whose children the blocks are.
    kind: of a block that gives what it takes in type and shape, and changes none of its variables.
    names: of the blocks, in order.
    x: the input of the first, an array or a tree of them.
    remat: recompute each block in the backward pass instead of storing its results.
    **settings: of every block.
  """
  apart = parent.is_initializing() or parent.is_mutable_collection('intermediates')
  if apart or not remat or len(names) < 2 or default_form() != 'cpu':
    each = nn.remat(kind) if remat else kind
    for name in names:
      x = each(**settings, name=name)(x)
    return x
  block = kind(**settings, parent=None)
  own = [{k: v[name] for k, v in parent.variables.items() if name in v} for name in names]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)
  run = lambda y, variables: (block.apply(variables, y), None)
  return lax.scan(jax.checkpoint(run, prevent_cse=False), x, stacked)[0]
