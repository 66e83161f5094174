"""Shapes of frozen networks in the place of their weights, whose files need not be here.

  with shapes.only():
    params = vgg.load(19)  # jax.ShapeDtypeStructs

The modules of `features` heed it that losses read: vgg, lpips and arcface.
"""

import contextlib
import contextvars
from collections.abc import Iterator

_only: contextvars.ContextVar[bool] = contextvars.ContextVar('shapes_only', default=False)


@contextlib.contextmanager
def only() -> Iterator[None]:
  """While it is open, their `load` reads no file and fetches none."""
  token = _only.set(True)
  try:
    yield
  finally:
    _only.reset(token)


def wanted() -> bool:
  """Whether `load` has to return jax.ShapeDtypeStructs."""
  return _only.get()
