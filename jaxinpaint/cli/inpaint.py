"""Fills the holes of image files.

  jaxinpaint inpaint --image photo.jpg --mask hole.png --output out.png
  jaxinpaint inpaint --weights misf.safetensors --image photos/ --mask masks/ --output repaired/
  jaxinpaint inpaint --workdir runs/quickstart --image photos/ --mask hole.png --output repaired/

Without --weights and --workdir, weights that come with the library are used; `jaxinpaint weights
list` names them. White is the hole in a mask. Folders pair by name; one mask file serves all
images. In a clone, `python inpaint.py` is the same command.

A mask without a hole copies its image, with a warning; one that is all hole is refused, because
there is nothing to fill from; one that looks inverted is used, with a warning. A mask of the
image's shape but another size is resized.

Images longer than 1024 pixels are filled in windows around their holes, long scratches in tiles,
and a line says so; --strategy chooses otherwise. Known pixels stay as they are.

The frames of a film are a folder, with a mask for each: `--frames`, and after an interruption
`--resume`, which goes on.

Of a system that draws random numbers (Co-Mod-GAN, MAT, Pluralistic), `--samples 5` writes five
completions of each image: out.1.png, out.2.png, ...

Exit codes: 0; 1 where some files of a folder failed; 2 with a sentence where nothing could be done.
"""

import argparse
import sys
from collections.abc import Sequence

from jaxinpaint.cli import command_line
from jaxinpaint.runtime import activity

COMMAND = 'jaxinpaint inpaint'


def _parser() -> command_line.Parser:
  parser = command_line.Parser(COMMAND, __doc__)
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  add('--weights', type=path, metavar='FILE', help='a weights file, or a name as mesff/box;')
  add('--workdir', type=path, metavar='DIR', help='or the workdir of a training run.')
  add('--step', type=whole(0), metavar='N', help='checkpoint of --workdir; default its result.')
  add('--image', type=path, metavar='PATH', help='image file, or a folder of them.')
  add('--mask', type=path, metavar='PATH', help='mask file, or a folder with one for each image.')
  add('--output', type=path, metavar='PATH', help='output file, or a folder.')
  parser.switch('invert_mask', help='black is the hole.')
  parser.switch('overwrite', help='replace outputs that exist (never an input).')
  parser.switch('resume', help='leave outputs that exist as they are and write the others.')
  parser.switch('frames', help='images of a film: the same random numbers for each.')
  add('--format', help='of an output folder: png, jpg, webp, bmp, tif; default as the input.')
  add('--batch_size', type=whole(), default=8, help='images of equal size at once (default 8).')
  add(
    '--strategy',
    choices=['auto', 'original', 'resize', 'crop', 'boxed', 'tile'],
    default='auto',
    help='images longer than 1024: the whole as it is (memory grows with its pixels), the whole '
    'reduced, windows around holes, one around all (networks of one size), or tiles; auto '
    '(default) chooses and says what.',
  )
  add(
    '--crop_margin',
    '--crop-margin',
    type=whole(0),
    metavar='N',
    help='of auto, crop, boxed: known pixels on each side of a hole in its window (default 128).',
  )
  add('--tile', type=whole(64), metavar='N', help='of auto, tile: side of the tiles (default 512).')
  add(
    '--max_side',
    type=whole(),
    metavar='N',
    help='the longest side that the network sees (default 1024). Alone it means --strategy resize: '
    'longer images are filled at this size and the hole is enlarged again. 0: --strategy original.',
  )
  add(
    '--pad_to',
    type=whole(),
    metavar='N',
    default=1,
    help='pad sides to a multiple of it, as well as of what the network takes.',
  )
  parser.switch(
    'exact_sizes',
    help='fill each image of a folder as if it were alone: images of more than 4 sizes are '
    'otherwise padded to similar ones, which saves compilations and changes what systems that '
    'normalise over the picture put into holes (CHANGELOG.md has figures).',
  )
  add(
    '--pictures',
    type=path,
    metavar='DIR',
    help='for what a system shows besides: a coarse result, edges, attention.',
  )
  add(
    '--blend',
    choices=['none', 'poisson'],
    default='none',
    help='poisson: fit what fills a hole to the colours around it, for any system.',
  )
  parser.switch(
    'refine',
    help='improve large pictures from small ones, for systems that do so (LaMa): many times as '
    'slow. Give --max_side 0, too, or what is longer than 1024 is reduced first.',
  )
  seed = whole(*command_line.SEEDS)
  add('--seed', type=seed, default=0, help='of systems that draw random numbers (default 0).')
  add(
    '--samples',
    type=whole(1),
    default=1,
    metavar='K',
    help='completions per image, of such systems: OUTPUT.1.png, OUTPUT.2.png, ...',
  )
  command_line.add_megapixels(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  missing = [f'--{name}' for name in ('image', 'mask', 'output') if not getattr(given, name)]
  if missing:
    parser.error(f'give {", ".join(missing)}')
  if given.weights is not None and given.workdir is not None:
    parser.error('give either --weights or --workdir, not both')
  if given.step is not None and given.workdir is None:
    parser.error('--step goes with --workdir')
  command_line.setup_logging(quiet=True)
  if given.max_side == 0:
    if given.strategy not in ('auto', 'original'):
      parser.error(f'--max_side 0 means --strategy original, not {given.strategy}')
    given.strategy, given.max_side = 'original', None
  return _run(given)


def _run(given: argparse.Namespace) -> int:
  """The exit code: 0; 1: some files of a folder failed; 2: nothing could be done."""
  chosen = lambda *names: {name: getattr(given, name) for name in names}
  paths = given.image, given.mask, given.output
  weights = given.workdir if given.weights is None else given.weights
  # Here, not above: jax takes a second to import, and a mistaken flag is told at once.
  with activity.shown('Loading jax and the library'):
    from jaxinpaint.inference import files, inpainter, pairs
    from jaxinpaint.masks.files import Inverting
    from jaxinpaint.runtime import compilation_cache, traces
    from jaxinpaint.weights import hub
    from jaxinpaint.weights.store import StoreError

  kept = chosen('overwrite', 'format', 'samples', 'resume')
  try:
    # Paths first: they are checked in no time, and loading takes seconds.
    pairs.find(*paths, **kept)
    # A run's programs are kept beside its workdir, others where fetched files are.
    cache = compilation_cache.use(given.workdir or hub.cache_folder() / 'inpaint')
    with activity.shown('Loading the weights'):
      settings = ('step', 'batch_size', 'max_side', 'pad_to', 'blend', 'seed', 'exact_sizes')
      large = ('strategy', 'crop_margin', 'tile', 'refine')
      options = chosen(*settings, *large)
      painter = inpainter.load(weights, **options, programs=traces.beside(cache))
    what = chosen('invert_mask', 'pictures', 'frames')
    what['inverting'] = Inverting('pass --invert_mask', 'drop --invert_mask')
    report = files.inpaint_files(painter, *paths, **kept, **what)
  except (*files.USER_ERRORS, StoreError) as error:
    command_line.say(COMMAND, files.sentence(error))
    return 2
  if report.failed:
    total = -(-len(report.written) // given.samples) + len(report.failed)
    command_line.say(COMMAND, f'{len(report.failed)} of {total} images failed:')
    for path, reason in report.failed:
      print(f'  {path}: {reason}'.replace(f'{path}: {path}: ', f'{path}: '), file=sys.stderr)
    return 1
  n = len(report.written)
  print(f'{n} image{"" if n == 1 else "s"} written by {painter.name}')
  return 0
