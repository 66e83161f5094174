"""Makes and looks at sets of masks: `python -m jaxinpaint.data.masks freeze | inspect`.

freeze --spec irregular --count 500 --size 256 --output masks/irregular
    writes the masks that `evaluate.py --masks irregular` draws, as PNG files with a manifest;
    `evaluate.py --masks masks/irregular` checks every pixel and hands them out in that order
inspect DIR [--sheet OUT.png]
    says which value is the hole, and counts shares, sizes, grey pixels, repeats, broken files
inspect --spec irregular:0.1-0.4 [--sheet OUT.png]
    the same of masks that are drawn
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import tqdm
from PIL import Image

from jaxinpaint.masks import (
  inspect as mask_inspect,
)
from jaxinpaint.masks import (
  manifest as mask_manifest,
)
from jaxinpaint.masks import (
  spec,
)
from jaxinpaint.runtime import atomic

# Those of the protocol seed000, which evaluate.py follows by default.
_BINS = '0-20,10-20,20-40,40-60'


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status: 0 done, 1 with a sentence, 2 wrong arguments."""
  args = _parser().parse_args(argv)
  try:
    return (_freeze if args.command == 'freeze' else _inspect)(args)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('interrupted: nothing was written', file=sys.stderr)
    return 130


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m jaxinpaint.data.masks',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest='command', required=True)
  freeze = commands.add_parser('freeze', help='write masks that are drawn as files')
  freeze.add_argument('--spec', default='', help="as in docs/data.md: 'irregular', 'strokes' ...")
  freeze.add_argument('--count', type=int, required=True, help='masks in each bin')
  freeze.add_argument('--size', type=int, required=True, help='side of the masks')
  freeze.add_argument('--output', required=True, help='a new or empty folder')
  freeze.add_argument('--seed', type=int, default=0, help='as of evaluate.py (default 0)')
  freeze.add_argument(
    '--bins',
    default=_BINS,
    help='percent of hole, or NAME=SPEC, separated by commas: '
    f"'10-20,20-40', 'center 10=center:0.10,random 10=survey_random:0.10' (default {_BINS})",
  )
  freeze.add_argument('--workers', type=int, default=0, help='processes that draw (default: none)')
  inspect = commands.add_parser('inspect', help='say what is in a folder of masks')
  inspect.add_argument('folder', nargs='?', default='', help='folder, or .txt list of files')
  inspect.add_argument('--spec', default='', help='draw masks of this specification instead')
  inspect.add_argument('--sheet', default='', help='picture to write: masks by share')
  inspect.add_argument('--count', type=int, default=100, help='with --spec: masks (default 100)')
  inspect.add_argument('--size', type=int, default=256, help='with --spec: side (default 256)')
  inspect.add_argument('--seed', type=int, default=0, help='with --spec (default 0)')
  return parser


def _freeze(args: argparse.Namespace) -> int:
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
    found = mask_inspect.samples(sampler.name, drawn)
    read = lambda k: drawn[k] * np.uint8(255)
    make_sheet = lambda: mask_inspect.sheet(found.shares(), read)
  else:
    found = mask_inspect.inspect(args.folder)
    make_sheet = lambda: mask_inspect.folder_sheet(found)
  print(mask_inspect.describe(found))
  if args.sheet and found.files:
    _save(make_sheet(), args.sheet)
    print(f'sheet: {args.sheet}')
  return 1 if found.trouble or not found.files else 0


def _check_sheet(path: str) -> None:
  """Raises before the folder is read."""
  if pathlib.Path(path).suffix.lower() not in Image.registered_extensions():
    raise ValueError(f'--sheet {path} must end as a picture does, as sheet.png')
  parent = pathlib.Path(path).expanduser().parent
  if not parent.is_dir():
    raise FileNotFoundError(f'--sheet {path}: there is no folder {parent}: make it first')


def _save(picture: Image.Image, path: str) -> None:
  target = pathlib.Path(path).expanduser()
  kind = Image.registered_extensions()[target.suffix.lower()]
  atomic.write(target, lambda file: picture.save(file, format=kind))
