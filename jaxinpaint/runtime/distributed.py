"""Several processes, one program: how a process finds the others, and how it describes itself.

Only jax's own runtime is used: a coordinator (process 0) that all connect to, and the collectives
that the compiler puts into a program. Every process runs the same command; each sees its own
devices as local and those of all as global.
"""

import itertools
import os
import socket
from collections.abc import Mapping

import jax
import numpy as np
from absl import logging

# Seconds that a process waits for the others at the start; clusters may start nodes minutes apart.
_TIMEOUT = 300


class ClusterError(Exception):
  """The processes cannot find each other; the message says what to change."""


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  timeout: int = _TIMEOUT,
) -> None:
  """Joins the other processes, if there are any; call it before anything uses a device.

  Without arguments jax finds them by itself on Cloud TPU, and under Slurm (srun) and Open MPI
  (mpirun) if these started more than one process; anywhere else nothing happens. A second call
  does nothing.

  Args:
    coordinator: 'HOST:PORT' of process 0.
    num_processes: how many processes there are; may be left out under Slurm and Open MPI.
    process_id: the number of this process, from 0; may be left out likewise.
    timeout: seconds to wait for the others.

  Raises:
    ClusterError: arguments that do not fit together, a device was used before, or the
      coordinator's port is taken. (If the others do not come in time, jax aborts the process.)
  """
  if jax.distributed.is_initialized():
    return
  given = (coordinator, num_processes, process_id)
  arguments = {}
  if any(v is not None for v in given):
    arguments = _by_hand(*given)
    _check_address(coordinator, arguments)
  elif launcher := _detect(os.environ):
    arguments = dict(cluster_detection_method=launcher)
  elif 'tpu' not in (jax.config.jax_platforms or ''):  # jax sets it when imported on a TPU machine
    return
  if arguments.get('num_processes') == 1:
    return
  # jax ends the process itself if the others do not come; this line then tells what it waited for.
  logging.info(
    'Waiting up to %d s for the other processes at %s.', timeout, coordinator or 'the coordinator'
  )
  try:
    jax.distributed.initialize(initialization_timeout=timeout, **arguments)
  except ValueError as error:
    if arguments or 'coordinator_address' not in str(error):
      raise ClusterError(f'jax.distributed: {error}') from error
    logging.debug('A single TPU machine: one process.')  # jax found no others to join
  except RuntimeError as error:
    if 'must be called before' in str(error):
      raise ClusterError(
        'jaxinpaint.runtime.distributed.initialize() came after a device was used: call it first'
      ) from error
    raise ClusterError(
      f'the processes cannot meet at {coordinator or "the coordinator"} ({_first_line(error)}): '
      'check that process 0 is on that host, and that the port is free and open'
    ) from error
  _connect()


def _by_hand(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> dict[str, object]:
  """Arguments of jax.distributed.initialize, from the flags, else from the launcher."""
  launcher = _launcher(os.environ)
  if launcher is not None:
    count, rank, _ = launcher
    num_processes = count if num_processes is None else num_processes
    process_id = rank if process_id is None else process_id
  lacking = [
    name
    for name, value in (
      ('--coordinator=HOST:PORT', coordinator),
      ('--num_processes=N', num_processes),
      ('--process_id=I', process_id),
    )
    if value is None
  ]
  if num_processes == 1 and process_id in (0, None):
    return dict(num_processes=1)
  if lacking:
    raise ClusterError(
      f'several processes need {" and ".join(lacking)} too (no Slurm or Open MPI launcher was '
      'found to take it from)'
    )
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdigit() or not 0 < int(port) < 2**16:
    raise ClusterError(f'--coordinator={coordinator} must be HOST:PORT, as in 10.0.0.1:8476')
  if not 0 <= process_id < num_processes:
    raise ClusterError(
      f'--process_id={process_id} must be from 0 to {num_processes - 1}, one below '
      f'--num_processes={num_processes}'
    )
  arguments = dict(
    coordinator_address=coordinator,
    num_processes=num_processes,
    process_id=process_id,
    cluster_detection_method='deactivate',
  )
  if launcher is not None and launcher[0] > 1:
    # As jax does under a launcher: on GPUs each process on a host takes one.
    arguments['local_device_ids'] = [launcher[2]]
  return arguments


def _check_address(coordinator: str | None, arguments: Mapping[str, object]) -> None:
  """Checks that process 0 can open its port, and that the others know a host of that name.

  Raises:
    ClusterError: another program has the port. (jax would crash, or wait for ever.)
  """
  if arguments.get('num_processes') == 1:
    return
  host, _, port = coordinator.rpartition(':')
  if arguments['process_id'] == 0:
    try:
      socket.create_server(('', int(port))).close()
    except OSError as error:
      raise ClusterError(
        f'process 0 cannot listen at port {port} of --coordinator={coordinator} '
        f'({error.strerror}): if another process or an earlier run is still there, end it; else '
        'give all processes another port'
      ) from error
  try:
    socket.getaddrinfo(host.strip('[]'), int(port))
  except OSError as error:  # in a cluster that is just starting, the name may still appear
    logging.warning('No address is known (yet) for %r of --coordinator: %s.', host, error.strerror)


def _detect(environment: Mapping[str, str]) -> str | None:
  """jax's name of the launcher that started more than one process, if one did.

  Raises:
    ClusterError: Open MPI 5, which does not tell its processes where to meet.
  """
  launcher = _launcher(environment)
  if launcher is None or launcher[0] < 2:
    return None
  if 'OMPI_COMM_WORLD_SIZE' not in environment:
    return 'slurm'
  if 'OMPI_MCA_orte_hnp_uri' in environment:
    return 'ompi'
  raise ClusterError(
    f'this mpirun started {launcher[0]} processes but does not say where they can meet (Open MPI 5 '
    'does not): add --coordinator=HOST:PORT with the host of process 0 and a free port'
  )


def _launcher(environment: Mapping[str, str]) -> tuple[int, int, int] | None:
  """(processes, this one's number, its number on its host) of Open MPI or a Slurm step."""
  names = ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK')
  if not all(n in environment for n in names):
    # SLURM_NTASKS alone is the allocation's: a shell in it (salloc, sbatch) is no task of a step.
    names = ('SLURM_STEP_NUM_TASKS', 'SLURM_PROCID', 'SLURM_LOCALID')
    if not all(n in environment for n in (*names, 'SLURM_JOB_ID', 'SLURM_STEP_NODELIST')):
      return None
  count, rank, local = (int(environment[n]) for n in names)
  return count, rank, local


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def describe(mesh: jax.sharding.Mesh | None = None) -> str:
  """'process 1 of 2 on HOST: 4 of 8 devices (cpu 4-7)', and the mesh: 'mesh data 8'.

  Args:
    mesh: axes of one device are left out.
  """
  local, everywhere = jax.local_devices(), jax.devices()
  ids = sorted(d.id for d in local)
  numbers = f'{ids[0]}-{ids[-1]}' if ids == list(range(ids[0], ids[-1] + 1)) and ids[1:] else ''
  numbers = numbers or ','.join(map(str, ids))
  text = (
    f'process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}: '
    f'{len(local)} of {len(everywhere)} devices ({local[0].device_kind} {numbers})'
  )
  if mesh is not None:
    axes = [f'{axis} {size}' for axis, size in mesh.shape.items() if size > 1]
    text += f'; mesh {" x ".join(axes) or "of one device"}'
  return text


def _connect(mesh: jax.sharding.Mesh | None = None) -> None:
  """Opens the connections that programs on the mesh, or gathers over processes, will need.

  On CPU each group of devices connects at its first collective and waits only 30 s for the others.
  (Compiled collectives have no such limit.) The first step may compile for minutes, and the
  processes may be minutes apart, since only process 0 finds programs in jax's cache on CPU. So all
  connect at the start, when they arrive together.
  """
  if jax.process_count() == 1 or jax.default_backend() != 'cpu':
    return
  from jax.experimental import multihost_utils

  if mesh is None:
    multihost_utils.process_allgather(np.zeros((), np.int32))
    return
  axes = [axis for axis, size in mesh.shape.items() if size > 1]
  for n in range(1, len(axes) + 1):
    for some in itertools.combinations(axes, n):
      total = lambda some=some: jax.lax.psum(jax.lax.axis_index(some), some)
      spec = jax.P()
      jax.jit(jax.shard_map(total, mesh=mesh, in_specs=(), out_specs=spec, check_vma=False))()


def announce(mesh: jax.sharding.Mesh | None = None) -> None:
  """Logs `describe(mesh)`; after that, processes other than 0 log warnings and errors only.

  With several processes all have to call it, since it connects them.
  """
  logging.info('%s', describe(mesh))
  if mesh is not None:
    _connect(mesh)
  if jax.process_index() != 0:
    logging.set_verbosity(logging.WARNING)
