"""The survey's study: rows on its two data sets and eight kinds of holes, as its tables show them.

  jaxinpaint study --config survey_study --row glcic=runs/gl
      --row edgeconnect@celeba=runs/ec --celeba folder:faces --places2 folder:places --output DIR

The reports of its evaluations lie in DIR/DATASET; study.md and study.json put their numbers beside
the published ones. An interrupted study goes on with the same command.

Exit codes: 0; 1 with a sentence; 2 wrong flags; 130 interrupted.
"""

from collections.abc import Sequence

from jaxinpaint.cli import command_line, experiments


def _parser() -> command_line.Parser:
  parser = command_line.Parser('jaxinpaint study', __doc__)
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  parser.config('survey_study.')
  add(
    '--row',
    metavar='NAME=PATH',
    action='append',
    default=[],
    type=path,
    help='again and again: NAME=PATH, or NAME@DATASET=PATH for one data set.',
  )
  add('--celeba', type=path, default='', help="its images: 'folder:DIR', 'files:LIST.txt'.")
  add('--places2', type=path, default='', help='its validation images, likewise.')
  add('--output', type=path, metavar='DIR', help='of the study.')
  add('--count', type=whole(), metavar='N', help='images of each set; default 1,000.')
  add('--size', type=whole(), metavar='N', help='all rows at this size.')
  add('--batch_size', type=whole(), metavar='N', help='images at a time; changes rounding at most.')
  parser.switch('resources', help='measure what each row costs, too.')
  parser.switch('train', True, help='with --resources: training too (default).')
  parser.switch('full_size', help="with --resources: of each system's published networks.")
  add('--train_batch', type=whole(), default=0, metavar='N', help='of a training step.')
  add('--max_batch', type=whole(), default=0, metavar='N', help='the largest batch tried.')
  parser.switch('resume', True, help='go on with an interrupted study (default).')
  command_line.add_megapixels(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  config = experiments.load(parser, given, 'tables')
  if config is None or given.output is None:
    parser.error('give --config survey_study and --output DIR')
  # Here, not above: jax takes seconds to import, and a mistaken flag is told at once.
  from jaxinpaint.runtime import locks
  from jaxinpaint.study import study

  command_line.setup_logging()
  for name in ('count', 'batch_size'):
    if getattr(given, name) is not None:
      config[name] = getattr(given, name)
  wanted = dict(training=given.train, train_batch=given.train_batch, max_batch=given.max_batch)
  request = study.Request(
    config=config,
    rows=given.row,
    data={'celeba': given.celeba, 'places2': given.places2},
    output=given.output,
    size=given.size,
    resources=wanted if given.resources else None,
    full_size=experiments.named if given.full_size else None,
    resume=given.resume,
  )
  try:
    measured = study.measure_resources(request)
    study.prepare(request).run(measured)
  except (ValueError, locks.InUse) as error:
    command_line.say(parser.prog, error)
    return 1
  except KeyboardInterrupt:
    command_line.say(parser.prog, 'interrupted; the same command goes on')
    return 130
  return 0
