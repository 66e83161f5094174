"""Convolutions of images whose rows are split over devices (the mesh axis `spatial`).

XLA's partitioner (of jax 0.10.2) makes wrong kernel gradients of convolutions whose rows are split
over some devices and repeated on others, or come out uneven, or are fewer on a device than a kernel
reaches: they are summed over repetitions too, and come out several times too large. Nothing in a
program says so, and the propagation of shardings arrives there by itself. So where rows are split
at all, every convolution pins its input and its output: images over all of the batch's axes, and
rows over all of `spatial` where they are many and even, else over none.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar('rows_mesh', default=None)


@contextlib.contextmanager
def split_over(mesh: Mesh | None) -> Iterator[None]:
  """While a function is traced: images are split by rows over `mesh`'s axis `spatial`.

  Args:
    mesh: of `training.sharding.make_mesh`; None, or one whose `spatial` is 1: nothing happens.
  """
  token = _mesh.set(mesh if mesh is not None and mesh.shape['spatial'] > 1 else None)
  try:
    yield
  finally:
    _mesh.reset(token)


def pinned(function: Callable[[jax.Array], jax.Array], x: jax.Array, reach: int) -> jax.Array:
  """A convolution of [B,H,W,C] between two pinned arrays; nothing else where rows are not split.

  Args:
    function: the convolution.
    x: its input.
    reach: rows of the input from the first to the last tap of the kernel.
  """
  mesh = _mesh.get()
  if mesh is None:
    return function(x)
  spatial = mesh.shape['spatial']
  out = jax.eval_shape(function, x)
  fits = lambda rows: rows % spatial == 0 and rows // spatial >= reach
  # A single image of a loop over them is not split either.
  even = x.shape[0] % (mesh.size // spatial) == 0
  rows = 'spatial' if even and fits(x.shape[1]) and fits(out.shape[1]) else None
  images = tuple(a for a in mesh.axis_names if a != 'spatial') if even else None
  at = NamedSharding(mesh, PartitionSpec(images, rows))
  pin = lambda a: jax.lax.with_sharding_constraint(a, at)
  return pin(function(pin(x)))
