"""Trains a system.

  jaxinpaint train --config quickstart
  jaxinpaint train --config places2_mesff --workdir runs/mesff --config.data.batch_size=16
  jaxinpaint train --config places2_mesff:quicktest
  jaxinpaint train --workdir runs/mesff
  jaxinpaint train --config ... --estimate [--probe=20 | --devices=8 | --devices=v5e:4x4]
  jaxinpaint train --config ... --profile=100:110
  jaxinpaint train --config ... --watch
  jaxinpaint train --config ... --coordinator=HOST:PORT --num_processes=2 --process_id=0

--estimate says what a run would take and starts none (docs/scaling.md). --profile traces steps 100
to 110, and --watch shows the run on a page while it trains (docs/monitoring.md). The last line is
one of two processes; Cloud TPU, Slurm and Open MPI need none of its flags (docs/pods.md). Run the
same command again to go on from the newest checkpoint; without --config, the workdir of a run goes
on with the config that is stored in it. In a clone, `python train.py` is the same command.

Exit codes: 0 every step is done, or an early stop; 75 stopped by SIGTERM, SIGUSR1 or Ctrl-C and
saved, 69 a process or data worker died: run it again; 74 the disk is full or read-only: run it
again when that is mended; 65 numbers not finite, 78 config or data, 2 command line: something has
to be changed; 1 an unforeseen error. See docs/faults.md.
"""

import contextlib
import faulthandler
import os
import shlex
from collections.abc import Sequence

from jaxinpaint.cli import command_line, experiments, listening, watch
from jaxinpaint.runtime import activity


def _parser() -> command_line.Parser:
  parser = command_line.Parser('jaxinpaint train', __doc__)
  parser.config('the experiment: a name, as places2_mesff, or a file.')
  parser.add_argument(
    '--workdir',
    type=command_line.path,
    metavar='DIR',
    help='for checkpoints, logs and pictures; default runs/NAME of the config.',
  )
  parser.switch('estimate', help='only say what a run would take: parameters, FLOPs, memory.')
  parser.add_argument(
    '--devices',
    default='',
    help='with --estimate: for devices that are not here: 8 (CPUs), v5e:4x4 (a TPU slice).',
  )
  parser.add_argument(
    '--probe',
    type=command_line.whole(0),
    default=0,
    metavar='STEPS',
    help='with --estimate: take so many real steps of each kind, as 20.',
  )
  parser.add_argument(
    '--profile',
    type=command_line.span,
    metavar='START:STOP',
    help='trace the steps between, into profile/ of the workdir.',
  )
  parser.add_argument(
    '--watch',
    type=command_line.whole(0, 65535),
    nargs='?',
    const=0,
    metavar='PORT',
    help='show the run on a page of this machine while it trains; without a port on any free one. '
    '`jaxinpaint watch` shows it at any time.',
  )
  command_line.add_processes(parser)
  command_line.add_megapixels(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  if given.config is None and given.workdir is None:
    parser.error('give --config, or the --workdir of a run to go on with')
  if bool(given.devices) + bool(given.probe) > given.estimate:
    parser.error(
      '--devices and --probe belong to --estimate, and only one of them: a probe takes steps on '
      'the devices that are here'
    )
  try:
    os.path.abspath(given.workdir or '').encode()
  except UnicodeEncodeError:  # tensorstore, which writes the checkpoints, takes no other paths
    parser.error(f'the path of --workdir {given.workdir} must be UTF-8: choose another folder')
  if given.watch is not None and (missing := listening.missing(watch.NEEDED)):
    parser.error(f'--watch: {missing}')
  faulthandler.enable()
  # Here, not above: jax takes seconds to import, and a mistaken flag is told at once.
  with activity.shown('Loading jax and the library'):
    from jaxinpaint.evaluation.watch import Watch
    from jaxinpaint.runtime import atomic, compilation_cache, distributed, faults
    from jaxinpaint.training import checkpoints, loop

  config = experiments.load(parser, given) if given.config else None
  workdir = given.workdir or os.path.join('runs', experiments.name(given.config))
  command_line.setup_logging()
  try:
    distributed.initialize(given.coordinator, given.num_processes, given.process_id)
    if config is None:  # not before: reading a checkpoint asks jax which process this is
      stored = checkpoints.stored_config(workdir)
      if stored is None:
        parser.error(f'--workdir {workdir} has no checkpoint to go on from: give --config, too')
      config = experiments.load(parser, given, stored=stored)
    if given.estimate:
      from jaxinpaint.cost import estimate

      estimate.run(config, given.devices, given.probe)
    else:
      cache = compilation_cache.use(workdir)
      empty = atomic.no_empty_folders(workdir, *filter(None, [cache]))
      with empty, _watched(workdir, given.watch):
        loop.train(config, workdir, watch=Watch, profile=given.profile)
  except distributed.ClusterError as error:
    faults.leave(faults.ConfigurationError(str(error)))
  except Exception as error:
    faults.leave(error)
  return 0


def _watched(workdir: str, port: int | None) -> contextlib.AbstractContextManager[None]:
  """Says how to watch the run; with a port the page is there while the block goes on."""
  import jax
  from absl import logging

  if jax.process_index() != 0:
    return contextlib.nullcontext()
  tell = lambda where: logging.info('Watch it: %s', where)
  if port is not None:
    return watch.beside(workdir, port, tell)
  tell(f'jaxinpaint watch {shlex.quote(workdir)}')
  return contextlib.nullcontext()
