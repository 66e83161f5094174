"""Makes and looks at sets of masks.

  jaxinpaint masks freeze --spec irregular --count 500 --size 256 --output masks/irregular
  jaxinpaint masks inspect DIR [--sheet OUT.png]
  jaxinpaint masks inspect --spec irregular:0.1-0.4 [--sheet OUT.png]

freeze writes the masks that `evaluate --masks irregular` draws, as PNG files with a manifest;
`evaluate --masks masks/irregular` checks every pixel and hands them out in that order. inspect says
which value is the hole, and counts shares, sizes, grey pixels, repeats and broken files; with
--spec, of masks that are drawn. `python -m jaxinpaint.data.masks` is the same command.

Exit codes: 0; 1 with a sentence, or where inspect has found a fault; 2 wrong flags.

commands:"""

import argparse
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tqdm
from PIL import Image

from jaxinpaint.cli import command_line
from jaxinpaint.runtime import atomic

# Those of the protocol seed000, which `evaluate` follows by default.
_BINS = '0-20,10-20,20-40,40-60'


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  commands = {
    'freeze': ('write masks that are drawn as files', _freeze_command),
    'inspect': ('say what is in a folder of masks', _inspect_command),
  }
  return command_line.choose('jaxinpaint masks', __doc__, commands, argv)


def _freeze_command(argv: Sequence[str]) -> int:
  parser = command_line.Parser('jaxinpaint masks freeze', 'Writes masks that are drawn as files.')
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  add('--spec', type=path, default='', help="as in docs/data.md: 'irregular', 'strokes' ...")
  add('--count', type=whole(), required=True, help='masks in each bin.')
  add('--size', type=whole(), required=True, help='side of the masks.')
  add('--output', type=path, required=True, metavar='DIR', help='a new or empty folder.')
  add('--seed', type=whole(), default=0, help='as of evaluate (default 0).')
  add(
    '--bins',
    default=_BINS,
    help='percent of hole, or NAME=SPEC, separated by commas: '
    f"'10-20,20-40', 'center 10=center:0.10,random 10=survey_random:0.10' (default {_BINS}).",
  )
  add('--workers', type=whole(), default=0, help='processes that draw (default: none).')
  return _run(parser, _freeze, argv)


def _inspect_command(argv: Sequence[str]) -> int:
  parser = command_line.Parser(
    'jaxinpaint masks inspect', 'Says what is in a folder of masks.', '[DIR] [flags]'
  )
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  add('folder', type=path, nargs='?', default='', help='folder, or .txt list of files.')
  add('--spec', type=path, default='', help='draw masks of this specification instead.')
  add('--sheet', type=path, default='', metavar='FILE', help='picture to write: masks by share.')
  add('--count', type=whole(), default=100, help='with --spec: masks (default 100).')
  add('--size', type=whole(), default=256, help='with --spec: side (default 256).')
  add('--seed', type=whole(), default=0, help='with --spec (default 0).')
  command_line.add_megapixels(parser)
  return _run(parser, _inspect, argv)


def _run(
  parser: command_line.Parser, work: Callable[[argparse.Namespace], int], argv: Sequence[str]
) -> int:
  given = parser.parse_args(argv)
  try:
    return work(given)
  except (ValueError, OSError) as error:
    command_line.say(parser.prog, error)
    return 1
  except KeyboardInterrupt:
    command_line.say(parser.prog, 'interrupted: nothing was written')
    return 130


def _freeze(args: argparse.Namespace) -> int:
  from jaxinpaint.masks import manifest as mask_manifest

  bins = mask_manifest.parse_bins(args.bins)
  with tqdm.tqdm(total=args.count * len(bins), unit='mask', disable=None) as bar:
    manifest = mask_manifest.freeze(
      args.spec,
      bins,
      args.count,
      args.size,
      args.output,
      seed=args.seed,
      workers=args.workers,
      progress=lambda done, of: bar.update(done - bar.n),
    )
  labels = ', '.join(b.label for b in bins)
  print(f'{args.output}: {manifest.count} masks in each of {len(bins)} bins: {labels}')
  print(f'SHA-256: {manifest.sha256}')
  return 0


def _inspect(args: argparse.Namespace) -> int:
  from jaxinpaint.masks import inspect as mask_inspect
  from jaxinpaint.masks import spec

  if bool(args.folder) == bool(args.spec):
    raise ValueError('inspect takes either a folder, or --spec')
  if args.sheet:
    _check_sheet(args.sheet)
  if args.spec:
    if args.count < 1:
      raise ValueError(f'--count {args.count} must be at least 1')
    sampler = spec.make(args.spec)
    draw = lambda i: sampler(np.random.default_rng([args.seed, i]), args.size, args.size)
    drawn = [draw(i) for i in range(args.count)]
    inspected = mask_inspect.samples(sampler.name, drawn)
    read = lambda k: drawn[k] * np.uint8(255)
    make_sheet = lambda: mask_inspect.sheet(inspected.shares(), read)
  else:
    inspected = mask_inspect.inspect(args.folder)
    make_sheet = lambda: mask_inspect.folder_sheet(inspected)
  print(mask_inspect.describe(inspected))
  if args.sheet and inspected.files:
    _save(make_sheet(), args.sheet)
    print(f'sheet: {args.sheet}')
  return 1 if inspected.trouble or not inspected.files else 0


def _check_sheet(path: str) -> None:
  """Raises before the folder is read."""
  if pathlib.Path(path).suffix.lower() not in Image.registered_extensions():
    raise ValueError(f'--sheet {path} must end as a picture does, as sheet.png')
  parent = pathlib.Path(path).parent
  if not parent.is_dir():
    raise FileNotFoundError(f'--sheet {path}: there is no folder {parent}: make it first')


def _save(picture: Image.Image, path: str) -> None:
  target = pathlib.Path(path)
  kind = Image.registered_extensions()[target.suffix.lower()]
  atomic.write(target, lambda file: picture.save(file, format=kind))
