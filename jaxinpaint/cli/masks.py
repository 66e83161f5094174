"""Makes and looks at sets of masks.

  jaxinpaint masks freeze --spec irregular --count 500 --size 256 --output masks/irregular
  jaxinpaint masks inspect DIR [--sheet OUT.png]
  jaxinpaint masks inspect --spec irregular:0.1-0.4 [--sheet OUT.png]
  jaxinpaint masks make --image scan.png --lines white --output hole.png [--preview SHOWN.png]
  jaxinpaint masks make --image photo.jpg --box 40,30,120,60 --text boxes.json --output hole.png

freeze writes the masks that `evaluate --masks irregular` draws, as PNG files with a manifest;
`evaluate --masks masks/irregular` checks every pixel and hands them out in that order. inspect says
which value is the hole, and counts shares, sizes, grey pixels, repeats and broken files; with
--spec, of masks that are drawn. make writes the hole of one picture: from boxes, a colour,
scratches, boxes of text, another picture of the scene, or other masks. What is given is united,
then dilated, then what is to be subtracted is taken out. `python -m jaxinpaint.data.masks` is the
same command.

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
    'make': ('make the mask of one picture: boxes, a colour, scratches, text', _make_command),
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


def _make_command(argv: Sequence[str]) -> int:
  from jaxinpaint.masks import make

  parser = command_line.Parser('jaxinpaint masks make', 'Makes the mask of one picture.')
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  several = dict(action='append', default=[])
  add('--image', type=path, required=True, metavar='FILE', help='the picture.')
  add('--output', type=path, required=True, metavar='FILE', help='the mask to write, a PNG file.')
  add('--box', type=_box, metavar='X0,Y0,X1,Y1', help='a box; may be repeated.', **several)
  add('--colour', metavar='C', help="pixels like it: '#ff0000', white; may be repeated.", **several)
  add('--tolerance', type=float, default=12, help='how like, in CIELAB (default 12).')
  add('--lines', choices=make.LINES, help='scratches, narrower than --line_width.')
  add('--line_width', type=whole(2), default=9, metavar='N', help='in pixels (default 9).')
  add('--line_length', type=whole(1), default=25, metavar='N', help='at least (default 25).')
  add('--text', type=path, metavar='FILE', help='boxes or corners, CSV or JSON; see docs/data.md.')
  add('--difference', type=path, metavar='FILE', help='where this picture of the scene differs.')
  add('--threshold', type=float, help='of --lines (default 10) and --difference (default 6).')
  add('--close', type=whole(0), default=3, help='gaps that --difference closes (default 3).')
  add('--mask', type=path, metavar='FILE', help='a mask; may be repeated.', **several)
  add('--dilate', type=whole(0), default=0, metavar='N', help='then grow by so many pixels.')
  add('--subtract_box', type=_box, metavar='X0,Y0,X1,Y1', help='then take out.', **several)
  add('--subtract_mask', type=path, metavar='FILE', help='then take out.', **several)
  add('--preview', type=path, metavar='FILE', help='picture to write: the hole in red, a PNG file.')
  parser.switch('overwrite', help='replace files that exist (of inputs only a --mask).')
  command_line.add_megapixels(parser)
  return _run(parser, _make, argv)


def _box(text: str) -> tuple[float, ...]:
  try:
    x0, y0, x1, y1 = map(float, text.split(','))
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{text!r} must be four numbers x0,y0,x1,y1, as in 40,30,120,60'
    ) from None
  return x0, y0, x1, y1


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


def _make(args: argparse.Namespace) -> int:
  from jaxinpaint.masks import files, make
  from jaxinpaint.pictures import decode

  for flag, path in (('output', args.output), ('preview', args.preview)):
    _check_png(flag, path, args.overwrite)
  _check_inputs(args)
  image = decode.read_image(args.image)
  height, width = size = image.shape[:2]
  given = [make.colour(image, colour, args.tolerance) for colour in args.colour]
  if args.box:
    given.append(make.boxes(args.box, *size))
  least = {} if args.threshold is None else {'threshold': args.threshold}
  if args.lines:
    given.append(make.lines(image, args.lines, args.line_width, length=args.line_length, **least))
  if args.text:
    given.append(make.quads(make.read_regions(args.text), *size))
  if args.difference:
    other = decode.read_image(args.difference)
    given.append(make.difference(image, other, close=args.close, **least))
  given += [files.read_mask(path) for path in args.mask]
  if not given:
    raise ValueError('give --box, --colour, --lines, --text, --difference or --mask')
  taken_out = [files.read_mask(path) for path in args.subtract_mask]
  if args.subtract_box:
    taken_out.append(make.boxes(args.subtract_box, *size))
  mask = make.combined([make.dilated(make.combined(given), args.dilate)], taken_out)
  if mask.shape != size:
    rows, columns = mask.shape
    raise ValueError(f'the masks are {columns} x {rows} pixels, {args.image} {width} x {height}')
  if not mask.any():
    raise ValueError('no pixel is hole: raise --tolerance, or lower --threshold')
  if mask.all():
    raise ValueError('every pixel is hole: lower --tolerance, or raise --threshold')
  _save(Image.fromarray(mask * np.uint8(255)), args.output)
  share = 100 * float(mask.mean())
  print(f'{args.output}: {share:.2f} % of {width} x {height} pixels is hole')
  if args.preview:
    _save(Image.fromarray(make.overlay(image, mask)), args.preview)
    print(f'preview: {args.preview}')
  return 0


def _check_png(flag: str, path: str | None, overwrite: bool) -> None:
  """Raises before the picture is read."""
  if path is None:
    return
  if pathlib.Path(path).suffix.lower() != '.png':
    raise ValueError(f'--{flag} {path} must end in .png, which stores masks without loss')
  _check_folder(flag, path)
  if pathlib.Path(path).exists() and not overwrite:
    raise FileExistsError(f'--{flag} {path} exists: choose another name, or --overwrite')


def _check_inputs(args: argparse.Namespace) -> None:
  """Raises where a file would be lost: one that is read, or the mask under the preview.

  A mask may be changed in its place: --mask hole.png --dilate 3 --output hole.png --overwrite.
  """
  read = [args.image, args.text, args.difference, *args.subtract_mask]
  for flag, path, inputs in (
    ('output', args.output, read),
    ('preview', args.preview, [*read, *args.mask]),
  ):
    for source in inputs:
      if path and source and _same_file(path, source):
        raise ValueError(
          f'--{flag} {path} is the input {source}, which is never overwritten: choose another name'
        )
  if args.preview and pathlib.Path(args.preview).resolve() == pathlib.Path(args.output).resolve():
    raise ValueError(f'--preview {args.preview} is the file of --output: choose another name')


def _same_file(a: str, b: str) -> bool:
  return pathlib.Path(a).exists() and pathlib.Path(b).exists() and pathlib.Path(a).samefile(b)


def _check_folder(flag: str, path: str) -> None:
  parent = pathlib.Path(path).parent
  if not parent.is_dir():
    raise FileNotFoundError(f'--{flag} {path}: there is no folder {parent}: make it first')


def _check_sheet(path: str) -> None:
  """Raises before the folder is read."""
  if pathlib.Path(path).suffix.lower() not in Image.registered_extensions():
    raise ValueError(f'--sheet {path} must end as a picture does, as sheet.png')
  _check_folder('sheet', path)


def _save(picture: Image.Image, path: str) -> None:
  target = pathlib.Path(path)
  kind = Image.registered_extensions()[target.suffix.lower()]
  atomic.write(target, lambda file: picture.save(file, format=kind))
