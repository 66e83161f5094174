"""Trains a system.

  python train.py --config configs/quickstart.py
  python train.py --config configs/places2_mesff.py --workdir runs/mesff --config.data.batch_size=16
  python train.py --config configs/places2_mesff.py:quicktest
  python train.py --config ... --estimate [--probe=20 | --devices=8 | --devices=v5e:4x4]
  python train.py --config ... --profile=100:110
  python train.py --config ... --coordinator=HOST:PORT --num_processes=2 --process_id=0

`--estimate` says what a run would take and starts none (docs/scaling.md); `--profile` traces steps
100 to 110 (docs/monitoring.md). The last line is one of two processes; Cloud TPU, Slurm and Open
MPI need none of its flags (docs/pods.md). Run the same command again to go on from the newest
checkpoint.

Exit codes: 0 every step is done; 75 stopped by SIGTERM, SIGUSR1 or Ctrl-C and saved, 69 a process
or data worker died: run it again; 74 the disk is full or read-only: run it again when that is
mended; 65 numbers not finite, 78 config or data, 2 command line: something has to be changed; 1 an
unforeseen error. See docs/faults.md.
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from jaxinpaint.cli import command_line

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Experiment, a file of configs/; any field can be set: --config.data.size=128.'
)
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, of several.')
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many there are.', lower_bound=1)
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which this is, from 0.', lower_bound=0)
ESTIMATE = flags.DEFINE_boolean(
  'estimate', False, 'Only say what it would take: parameters, FLOPs, memory of a device.'
)
DEVICES = flags.DEFINE_string(
  'devices', '', '--estimate for others than are here: 8 (CPU devices), v5e:4x4 (a TPU slice).'
)
PROBE = flags.DEFINE_integer(
  'probe', 0, '--estimate takes so many real steps of each kind: 20.', lower_bound=0
)
PROFILE = flags.DEFINE_string(
  'profile', None, 'START:STOP: trace the steps between, into profile/ of the workdir.'
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where checkpoints, logs and pictures go; default runs/NAME-OF-THE-CONFIG.'
)


flags.register_validator(PROFILE, command_line.check_span)


@flags.multi_flags_validator(
  ['estimate', 'devices', 'probe'],
  '--devices and --probe belong to --estimate, and only one of them: a probe takes steps on the '
  'devices that are here',
)
def _estimates(given: dict) -> bool:
  devices, probe = bool(given['devices']), bool(given['probe'])
  return devices + probe <= given['estimate']


def main(argv: list[str]) -> None:
  """Parses flags and trains."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  # jax takes seconds to import: flags are checked before.
  from jaxinpaint.runtime import compilation_cache, distributed, faults
  from jaxinpaint.training import loop

  workdir = WORKDIR.value
  if workdir is None:
    name = flags.FLAGS['config'].config_filename
    file, _, variant = str(name).partition(':')
    workdir = pathlib.Path('runs') / '-'.join(filter(None, [pathlib.Path(file).stem, variant]))
  command_line.setup_logging()
  try:
    distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if ESTIMATE.value:
      from jaxinpaint.cost import estimate

      estimate.run(CONFIG.value, DEVICES.value, PROBE.value)
    else:
      compilation_cache.use(workdir)
      loop.train(CONFIG.value, workdir, profile=command_line.span(PROFILE.value))
  except distributed.ClusterError as error:
    faults.leave(faults.ConfigurationError(str(error)))
  except Exception as error:
    faults.leave(error)


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=command_line.parse_flags)
