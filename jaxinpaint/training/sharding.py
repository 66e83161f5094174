"""Where arrays live: the device mesh, and the placement of states and batches on it.

Parallelism is `jax.jit` with shardings pinned on a mesh with two axes. The batch is split over
both; along `fsdp` the large arrays of the state are split as well. The compiler inserts the
collectives, so statistics and gradients are those of the global batch whatever the mesh is.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp')
# Below this many elements splitting an array costs more in messages than it saves in memory.
_FSDP_MIN_SIZE = 2**14


def make_mesh(data: int = -1, fsdp: int = 1, devices: Any = None) -> Mesh:
  """A mesh of `data` x `fsdp` devices with Auto axes.

  Args:
    data: devices along the batch; -1: all that remain.
    fsdp: devices that share one copy of the state.
    devices: default `jax.devices()`.

  Raises:
    ValueError: the product is not the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  if fsdp < 1 or len(devices) % fsdp:
    raise ValueError(f'mesh.fsdp {fsdp} must divide the number of devices, {len(devices)}')
  data = len(devices) // fsdp if data == -1 else data
  if data * fsdp > len(devices) or data < 1:
    raise ValueError(
      f'mesh data={data} x fsdp={fsdp} needs {data * fsdp} devices; there are {len(devices)}. '
      'Set config.training.mesh.data=-1 to use all of them'
    )
  return Mesh(
    np.asarray(devices[: data * fsdp]).reshape(data, fsdp),
    AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """One whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows of a batch over all devices."""
  return NamedSharding(mesh, PartitionSpec(AXES))


def state_sharding(state: Any, mesh: Mesh) -> Any:
  """A tree of shardings for `state` (arrays or shapes): replicated, or split along `fsdp`.

  With fsdp > 1 an array of at least 2**14 elements is split along its largest axis that fsdp
  divides; parameters, optimizer states and averages of equal shape are thereby split alike.
  """
  fsdp = mesh.shape['fsdp']

  def place(x: jax.Array) -> NamedSharding:
    axes = [i for i, n in enumerate(x.shape) if n % fsdp == 0]
    if fsdp == 1 or not axes or np.prod(x.shape) < _FSDP_MIN_SIZE:
      return replicated(mesh)
    axis = max(axes, key=lambda i: x.shape[i])
    return NamedSharding(
      mesh, PartitionSpec(*['fsdp' if i == axis else None for i in range(x.ndim)])
    )

  return jax.tree.map(place, state)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
  """Raises ValueError unless the global batch splits evenly over the mesh."""
  if batch_size % mesh.size:
    raise ValueError(
      f'config.data.batch_size {batch_size} (the global batch) must be a multiple of the '
      f'{mesh.size} devices of the mesh: take {-(-batch_size // mesh.size) * mesh.size}, '
      f'or fewer devices with config.training.mesh.data'
    )


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """This process's rows of a batch -> global arrays split over the mesh."""
  sharding = batch_sharding(mesh)
  return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
