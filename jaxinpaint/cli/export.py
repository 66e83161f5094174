"""Writes a system with its weights as one file for other programs.

  jaxinpaint export --weights mesff/box --to stablehlo --size 512 --output box.stablehlo
  jaxinpaint export --weights runs/misf --to stablehlo --output misf.stablehlo
  jaxinpaint export --weights mesff/box --to onnx --size 512 --output box.onnx
  jaxinpaint export --weights runs/misf@100000 --to savedweights --output misf.safetensors

  stablehlo     a program for CPU, CUDA and TPU, weights inside, which jax alone runs
  onnx          for onnxruntime and browsers; needs pip install 'jaxinpaint[export]'
  savedweights  averaged weights, config and card, for jaxinpaint

Programs take image f32[B,H,W,3] in [0,1] and mask f32[B,H,W,1], 1 = hole, and return the filled
image; known pixels are pasted inside. Their files hold a card that says so, with sizes, licence and
results. docs/export.md shows how to load each.

Exit codes: 0; 2 with a sentence where nothing was written.

flags:"""

import argparse
import importlib
import pathlib
import re
from collections.abc import Sequence

from jaxinpaint.cli import command_line
from jaxinpaint.runtime import activity

COMMAND = 'jaxinpaint export'
_SUFFIXES = {'stablehlo': '.stablehlo', 'onnx': '.onnx', 'savedweights': '.safetensors'}
_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
_LARGEST = 2**14  # pixels of a side


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  missing = [f'--{name}' for name in ('to', 'output') if not getattr(given, name)]
  if missing:
    parser.error(f'give {", ".join(missing)}')
  of_programs = {'size': given.size, 'batch': given.batch, 'seed': given.seed}
  if given.to == 'savedweights':
    for name, value in of_programs.items():
      if value is not None:
        parser.error(f'--{name} goes with --to stablehlo and onnx, not with savedweights')
  if given.platforms is not None and given.to != 'stablehlo':
    parser.error(f'--platforms goes with --to stablehlo, not with {given.to}')
  command_line.setup_logging(quiet=True)
  return _run(given)


def _parser() -> command_line.Parser:
  parser = command_line.Parser(COMMAND, __doc__)
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  add(
    '--weights',
    type=path,
    metavar='PATH',
    help='a name as mesff/box (the default), a weights file, WORKDIR or WORKDIR@STEP of a run.',
  )
  add('--to', choices=list(_SUFFIXES), help='the format.')
  suffixes = ', '.join(_SUFFIXES.values())
  add('--output', type=path, metavar='FILE', help=f'the file to write: {suffixes}.')
  parser.switch('overwrite', help='replace the file if it exists.')
  add(
    '--size',
    type=_size,
    metavar='HxW',
    help='of the images, 512 or 384x512; default any, where the system allows it.',
  )
  add('--batch', type=whole(1), metavar='N', help='images at once; default any number.')
  add(
    '--platforms',
    type=_platforms,
    metavar='P,P',
    help='of stablehlo: some of cpu, cuda, rocm, tpu (default cpu,cuda,tpu).',
  )
  add(
    '--seed',
    type=whole(*command_line.SEEDS),
    metavar='N',
    help='of systems that draw random numbers; it is part of the program (default 0).',
  )
  return parser


def _run(given: argparse.Namespace) -> int:
  with activity.shown('Loading jax and the library'):
    from jaxinpaint.weights.store import StoreError
  try:
    output = _checked_output(given)
    run = _save_weights if given.to == 'savedweights' else _write_program
    lines = run(given, output)
  except (StoreError, OSError, ValueError) as error:
    command_line.say(COMMAND, command_line.sentence(error))
    return 2
  print('\n'.join([f'wrote {output} ({output.stat().st_size / 1e6:.1f} MB)', *lines]))
  return 0


def _checked_output(given: argparse.Namespace) -> pathlib.Path:
  """The file to write; raises ValueError or OSError where it cannot be it."""
  output, suffix = pathlib.Path(given.output), _SUFFIXES[given.to]
  if output.suffix != suffix:
    raise ValueError(
      f'--output {output} must end in {suffix} for --to {given.to}: give {output.stem}{suffix}'
    )
  if output.is_dir():
    raise IsADirectoryError(f'--output {output} is a folder: give a file in it')
  if output.exists() and not given.overwrite:
    raise FileExistsError(f'{output} exists: choose another name, or add --overwrite')
  return output


def _write_program(given: argparse.Namespace, output: pathlib.Path) -> list[str]:
  # A missing package is told before weights are loaded.
  format_ = _module(given.to)
  from jaxinpaint import trained
  from jaxinpaint.exporting import function

  with activity.shown('Loading the weights'):
    exportable = function.build(trained.load(given.weights), seed=given.seed or 0)
  more = {'platforms': given.platforms} if given.platforms else {}
  with activity.shown('Exporting'):
    card = format_.write(exportable, output, size=given.size, batch=given.batch, **more)
  shape = ', '.join(card['shape'][:3])
  return [
    f'  image f32[{shape}, 3] in [0, 1], mask f32[{shape}, 1] with 1 = hole',
    *([f'  for {", ".join(card["platforms"])}'] if 'platforms' in card else []),
    f'  licence: {card["licence"]}',
  ]


def _module(name: str):
  """The module that writes a format; raises ValueError where packages that it needs are missing."""
  try:
    return importlib.import_module(f'jaxinpaint.exporting.{name}')
  except ModuleNotFoundError as error:
    raise ValueError(
      f"--to {name} needs {error.name}, which is not here: pip install 'jaxinpaint[export]'"
    ) from error


def _save_weights(given: argparse.Namespace, output: pathlib.Path) -> list[str]:
  from jaxinpaint.cli import cards
  from jaxinpaint.weights import store

  cards.export(given.weights, output, overwrite=given.overwrite)
  card = store.load(output).meta
  networks = [f'{name}, {n["parameters"]:,} parameters' for name, n in card['networks'].items()]
  licence = card['licence'] or card['source'].get('licence') or 'not stated'
  return [f'  {"; ".join(networks)}', f'  licence: {licence}']


def _size(text: str) -> tuple[int, int]:
  """'512' -> (512, 512), '384x512' -> (384, 512)."""
  match = re.fullmatch(r'(\d+)(?:[xX](\d+))?', text.strip())
  size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
  if not all(1 <= n <= _LARGEST for n in size):
    raise argparse.ArgumentTypeError(
      f'{text!r} must be a side or HEIGHTxWIDTH in pixels, 512 or 384x512, up to {_LARGEST}'
    )
  return size


def _platforms(text: str) -> tuple[str, ...]:
  chosen = tuple(dict.fromkeys(command_line.words(text)))
  if not chosen or not set(chosen) <= set(_PLATFORMS):
    raise argparse.ArgumentTypeError(f'{text!r} must be some of {",".join(_PLATFORMS)}')
  return chosen
