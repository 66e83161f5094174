"""On which devices a traced function will run, for the three operations that must know it.

jax traces a function without saying where it will run. A convolution chooses its form by the
devices (`layers.conv.default_form`). Where images are split by rows it pins them (`pinned`). A loop
over the images of a batch takes one image of each device in every turn (`map_images`).

Why a context variable and no argument: the three are at the bottom of every network, below modules
whose fields are a paper's numbers. As an argument the placement would pass through every module,
recipe and loss of every system, and none of them would do anything with it. It is set once, by the
train step around all that it traces.

XLA's partitioner (of jax 0.10.2) makes wrong kernel gradients of convolutions whose rows are split
over some devices and repeated on others, or are split unevenly, or are fewer on a device than a
kernel reaches: it sums over the repetitions too, so they are several times too large. Nothing in a
program tells, and the propagation of shardings arrives there by itself. So where rows are split,
every convolution pins its input and its output: images over all of the batch's axes, and rows over
all of `spatial` where they are many and even, else over none. Kernels of one channel each come out
wrong even so, where rows are split over none (`conv.depthwise_conv2d` has another form for them).
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Form = Literal['plain', 'cpu']  # of convolutions and what is built of them, see `conv.default_form`


@dataclasses.dataclass(frozen=True)
class Placement:
  """Where a function runs. The default: on one device of the default backend.

  Attributes:
    form: that convolutions take; None: the form for the default backend. 'plain' is needed for
      other devices than the default ones, and for several CPU devices: the CPU's forms loop over
      samples, so a split batch would be gathered, and where rows are split XLA's partitioner (jax
      0.10.2) gives wrong weight gradients (DeepFill v1's was 0.7 % too long; the plain form's
      equals one device's). 'cpu' is for a program that is exported for a CPU from another machine.
    groups: the batch is split into this many equal parts, one per device.
    rows: the mesh whose axis `spatial` splits images by rows; None: rows are whole.
  """

  form: Form | None = None
  groups: int = 1
  rows: Mesh | None = None

  @classmethod
  def on(cls, mesh: Mesh | None) -> 'Placement':
    """On the devices of a mesh of `training.sharding.make_mesh`; None: the default."""
    if mesh is None:
      return cls()
    if mesh.size == 1:
      return cls(form=None if mesh.devices.flat[0].platform == 'cpu' else 'plain')
    spatial = mesh.shape['spatial']
    return cls(form='plain', groups=mesh.size // spatial, rows=mesh if spatial > 1 else None)


_DEFAULT = Placement()
_current: contextvars.ContextVar[Placement] = contextvars.ContextVar('placement', default=_DEFAULT)


def current() -> Placement:
  """The placement of what is being traced."""
  return _current.get()


@contextlib.contextmanager
def use(placement: Placement) -> Iterator[None]:
  """Around the tracing of a function that runs there; one without a form keeps the outer one's."""
  form = placement.form or current().form
  token = _current.set(dataclasses.replace(placement, form=form))
  try:
    yield
  finally:
    _current.reset(token)


def pinned(function: Callable[[jax.Array], jax.Array], x: jax.Array, reach: int) -> jax.Array:
  """A convolution of [B,H,W,C] between two pinned arrays; nothing else where rows are not split.

  Args:
    function: the convolution.
    x: its input.
    reach: rows of the input from the first to the last tap of the kernel.
  """
  mesh = current().rows
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


def map_images(function: Callable[..., Any], batch: Any) -> Any:
  """`jax.lax.map` over the images of a batch, for what would take too much memory for all at once.

  A loop over an axis that is split over devices would gather the whole batch on each of them, and
  each would go through all of it. So every turn takes one image of each device's part: each device
  goes through its own images.

  Args:
    function: of a tree like `batch` without the batch's axis.
    batch: tree of [B, ...].

  Returns:
    Tree of [B, ...].
  """
  count, groups = jax.tree.leaves(batch)[0].shape[0], current().groups
  if groups == 1 or count % groups:
    return jax.lax.map(function, batch)
  turns = lambda x: jnp.swapaxes(x.reshape(groups, count // groups, *x.shape[1:]), 0, 1)
  results = jax.lax.map(jax.vmap(function), jax.tree.map(turns, batch))
  return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(count, *x.shape[2:]), results)
