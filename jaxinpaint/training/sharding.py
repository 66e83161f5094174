"""Where arrays live: the device mesh, and the placement of states and batches on it.

Parallelism is `jax.jit` with fixed shardings on a mesh of three axes. The batch is split over
`data` and `fsdp`. Along `fsdp` the large arrays of the state are split, too. Along `spatial` the
rows of every image are split, for sizes that one device cannot hold. The compiler inserts the
collectives (and exchanges the rows that a convolution needs from neighbouring devices), so
statistics and gradients are those of the global batch on any mesh.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'spatial')
BATCH_AXES = ('data', 'fsdp')
# For arrays with fewer elements, splitting costs more in messages than it saves in memory.
FSDP_MIN_SIZE = 2**14


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  spatial: int = 1,
  *,
  fsdp_min_size: int = FSDP_MIN_SIZE,
  devices: Any = None,
) -> Mesh:
  """A mesh of `data` x `fsdp` x `spatial` devices with Auto axes.

  Neighbours along `spatial` are the nearest devices, then those along `fsdp`.

  Args:
    data: number of devices, or groups of devices, that each take their own images. One of the three
      axes may be -1: all remaining devices.
    fsdp: number of devices that share one copy of the state.
    spatial: number of devices that share each image.
    fsdp_min_size: not used here; see `state_sharding`. A config keeps it beside the axes.
    devices: default `jax.devices()`.

  Raises:
    ValueError: the product is not the number of devices. (In a run of one process it may be
      smaller; the other devices then stay idle.)
  """
  del fsdp_min_size
  devices = list(jax.devices() if devices is None else devices)
  sizes = dict(data=data, fsdp=fsdp, spatial=spatial)
  for axis, size in sizes.items():
    if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
      raise ValueError(
        f'config.training.mesh.{axis} {size!r} must be an integer of at least 1, or -1: all that '
        'remain'
      )
  free = [axis for axis, size in sizes.items() if size == -1]
  if len(free) > 1:
    raise ValueError(
      f'config.training.mesh has {" and ".join(free)} = -1; only one axis can take what remains'
    )
  fixed = int(np.prod([size for size in sizes.values() if size != -1]))
  if free:
    if len(devices) % fixed:
      raise ValueError(
        f'config.training.mesh {_product(sizes)}: {fixed} must divide the number of devices, '
        f'{len(devices)}'
      )
    sizes[free[0]] = len(devices) // fixed
  needed = int(np.prod(list(sizes.values())))
  if needed > len(devices) or (needed < len(devices) and jax.process_count() > 1):
    raise ValueError(
      f'config.training.mesh {_product(sizes)} needs {needed} devices; there are {len(devices)}. '
      'Set config.training.mesh.data=-1 to use all of them'
    )
  return jax.make_mesh(
    tuple(sizes.values()),
    AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * len(AXES),
    devices=devices[:needed],
  )


def _product(sizes: Mapping[str, int]) -> str:
  return ' x '.join(f'{axis}={size}' for axis, size in sizes.items())


def replicated(mesh: Mesh) -> NamedSharding:
  """A complete copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, ndim: int = 1) -> NamedSharding:
  """The sharding of an array in a batch: first axis over data and fsdp, image rows over spatial.

  Args:
    mesh: of `make_mesh`.
    ndim: 4 for arrays with rows and columns, [B, H, W, C]; others are only split by images.
  """
  rows = ('spatial',) if ndim == 4 and mesh.shape['spatial'] > 1 else ()
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES, *rows))


def state_sharding(state: Any, mesh: Mesh, min_size: int = FSDP_MIN_SIZE) -> Any:
  """A tree of shardings for `state` (arrays or shapes): replicated, or split along `fsdp`.

  With fsdp > 1, an array of at least `min_size` elements is split along its largest axis that fsdp
  divides. So parameters, optimizer states and averages of equal shape are split in the same way.
  """
  fsdp = mesh.shape['fsdp']

  def place(x: jax.Array) -> NamedSharding:
    axes = [i for i, n in enumerate(x.shape) if n % fsdp == 0]
    if fsdp == 1 or not axes or np.prod(x.shape) < min_size:
      return replicated(mesh)
    axis = max(axes, key=lambda i: x.shape[i])
    return NamedSharding(
      mesh, PartitionSpec(*['fsdp' if i == axis else None for i in range(x.ndim)])
    )

  return jax.tree.map(place, state)


def check_batch(batch_size: int, size: int, mesh: Mesh) -> None:
  """Raises ValueError unless the global batch and the rows of its images split evenly.

  Args:
    batch_size: images in the global batch.
    size: rows of an image.
    mesh: of `make_mesh`.
  """
  groups = mesh.size // mesh.shape['spatial']
  if batch_size % groups:
    raise ValueError(
      f'config.data.batch_size {batch_size} (the global batch) must be a multiple of {groups}, the '
      f'devices along data and fsdp: take {-(-batch_size // groups) * groups}, or fewer devices '
      'with config.training.mesh.data'
    )
  spatial = mesh.shape['spatial']
  if size % spatial:
    raise ValueError(
      f'config.data.size {size} must be a multiple of config.training.mesh.spatial {spatial}: each '
      f'device takes as many rows of an image; take {-(-size // spatial) * spatial}'
    )


@functools.lru_cache(maxsize=8)
def local_rows(batch_size: int, mesh: Mesh) -> tuple[int, ...]:
  """The rows of the global batch that this process's devices hold, ascending.

  If `spatial` crosses processes, several of them hold parts of the same images.
  """
  indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  return tuple(
    sorted({i for rows in indices.values() if rows for i in range(*rows[0].indices(batch_size))})
  )


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """This process's rows of a batch (`local_rows`, in that order) -> global arrays on the mesh."""
  groups = mesh.size // mesh.shape['spatial']
  own = len(local_rows(groups, mesh))

  def place(x: np.ndarray) -> jax.Array:
    total = len(x) * groups // own
    position = {row: i for i, row in enumerate(local_rows(total, mesh))}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
      assert index is not None  # this process holds a part of the batch
      start, stop, _ = index[0].indices(total)
      first = position[start]
      return x[(slice(first, first + stop - start), *index[1:])]

    sharding = batch_sharding(mesh, x.ndim)
    return jax.make_array_from_callback((total, *x.shape[1:]), sharding, part)

  return {k: place(np.asarray(v)) for k, v in batch.items()}
