"""Measures systems on a data set with a set of masks, beside the classical fills; or files.

  jaxinpaint evaluate --workdir runs/quickstart
  jaxinpaint evaluate --workdir runs/mesff --step 350000 --data folder:photos --masks folder:holes
  jaxinpaint evaluate --weights misf_places2.safetensors --data tfds:places365_small \\
    --split validation --count 500
  jaxinpaint evaluate --row mesff=runs/mesff --row before=runs/mesff@100000 \\
    --row misf=misf.safetensors --row theirs=outputs/ --baseline misf --output out/compared
  jaxinpaint evaluate --real_dir photos --fake_dir mine=outputs [--mask_dir holes]

The report (metrics.json, per_image.csv, report.md, grids) goes to WORKDIR/evaluation/STEP or to
--output; docs/evaluation.md says what its numbers mean. In a clone, `python evaluate.py` is the
same command.

Exit codes: 0; 1 with a sentence; 2 wrong flags.
"""

from collections.abc import Sequence

from jaxinpaint.cli import command_line, experiments
from jaxinpaint.runtime import activity


def _parser() -> command_line.Parser:
  parser = command_line.Parser('jaxinpaint evaluate', __doc__)
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  several = dict(action='append', default=[], type=path)
  add('--workdir', type=path, metavar='DIR', help='a training run;')
  add('--step', type=whole(), metavar='N', help='its checkpoint; default its result.')
  add('--weights', type=path, metavar='FILE', help='or a weights file, or a name as mesff/box.')
  add(
    '--row',
    metavar='NAME=PATH',
    help='again and again: WORKDIR, WORKDIR@STEP, a .safetensors file, a folder of outputs.',
    **several,
  )
  add('--system', default='', help='refuse weights of another system.')
  add('--data', type=path, default='', help="'folder:PATH', 'files:LIST.txt', 'tfds:NAME'.")
  add('--split', help="of --data; '' takes a folder as it is.")
  add('--count', type=whole(), metavar='N', help='how many images, spread over the set.')
  add('--size', type=whole(), metavar='N', help='side of the images: centre squares, resized.')
  add('--masks', type=path, default='', help="'irregular', 'strokes', ..., or a folder of files.")
  parser.switch('invert_mask', help='the mask files have black holes.')
  add('--bins', type=command_line.words, default=[], help='hole shares in percent: 10-20,20-40.')
  add('--seed', type=whole(), default=0, help='of the masks (default 0).')
  add('--batch_size', type=whole(), metavar='N', help='images at a time; changes rounding at most.')
  add(
    '--fills',
    type=command_line.words,
    default=['mean', 'telea', 'ns'],
    help='classical fills beside it: mean, telea, ns, biharmonic, patchmatch, all or none '
    '(default mean,telea,ns).',
  )
  parser.switch('classical', True, help='on by default; --noclassical: as --fills none.')
  add('--baseline', default='', metavar='ROW', help='the row that the others are compared with.')
  add('--samples', type=whole(), metavar='N', help='outputs per image, of systems that sample.')
  add('--protocol', default='', help='what is measured and how: docs/protocols.md.')
  add('--published', help="data set whose published rows stand beside: Places2, ..., 'none'.")
  add(
    '--on_unreadable',
    choices=['skip', 'fail'],
    default='skip',
    help='what becomes of images that cannot be read (default skip).',
  )
  parser.switch('resume', True, help='go on with an interrupted evaluation (default).')
  add('--real_dir', type=path, metavar='DIR', help='files, no models: the true pictures,')
  add('--fake_dir', metavar='NAME=DIR', help='outputs of the same names,', **several)
  add('--mask_dir', type=path, metavar='DIR', help='and their masks, if there are any.')
  add(
    '--network',
    metavar='NAME=FILE',
    help="weights of one's own for FID or LPIPS: inception=FILE, lpips_alex_trunk=FILE, ...",
    **several,
  )
  parser.switch('resources', help='also what each row costs: time, memory, FLOPs.')
  add('--output', type=path, metavar='DIR', help='of the report; an earlier one is kept.')
  parser.config("the experiment whose data and evaluation settings hold; default the checkpoint's.")
  command_line.add_processes(parser)
  command_line.add_megapixels(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  config = experiments.load(parser, given)
  # Here, not above: jax takes seconds to import, and a mistaken flag is told at once.
  with activity.shown('Loading jax and the library'):
    from absl import logging

    from jaxinpaint.cli import evaluation
    from jaxinpaint.runtime import distributed

  command_line.setup_logging()
  try:
    distributed.initialize(given.coordinator, given.num_processes, given.process_id)
    evaluation.prepare(given, config).run()
  except (distributed.ClusterError, *evaluation.USER_ERRORS) as error:
    logging.debug('traceback', exc_info=True)
    command_line.say(parser.prog, error)
    return 1
  return 0
