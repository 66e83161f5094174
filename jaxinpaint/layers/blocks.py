"""Work on some rows at a time, for scores of all pairs of places that would not fit in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def map_rows(function: Callable[[Any], Any], rows: Any, size: int) -> Any:
  """The results of `function` for all rows; memory is that of `size` of them.

  Args:
    function: tree of [size, ...] -> tree of [size, ...], where each row's result depends on that
      row alone. Wrapped in `jax.checkpoint`, a block's intermediate results are computed again for
      the gradient.
    rows: tree of [N, ...] arrays. The last block is filled up with zeros.
    size: rows in a block; at least 1 and at most N are taken.

  Returns:
    The tree of [N, ...] arrays.
  """
  n = jax.tree.leaves(rows)[0].shape[0]
  size = max(1, min(n, size))
  count = -(-n // size)

  def cut(x: jax.Array) -> jax.Array:
    padding = ((0, count * size - n), *((0, 0),) * (x.ndim - 1))
    return jnp.pad(x, padding).reshape(count, size, *x.shape[1:])

  found = lax.map(function, jax.tree.map(cut, rows))
  return jax.tree.map(lambda x: x.reshape(count * size, *x.shape[2:])[:n], found)
