"""Commands on weight files.

python -m jaxinpaint.weights import misf GEN.pth [DIS.pth] OUT [--format NAME] [--overwrite]
python -m jaxinpaint.weights inspect FILE
python -m jaxinpaint.weights list
python -m jaxinpaint.weights fetch fid-inception | --list [--from FILE]

FILE may be the prefix, or the folder, of a TensorFlow checkpoint.
"""

import argparse
import os
import pathlib
import sys

from jaxinpaint import systems
from jaxinpaint.weights import fetch, importer, reader, store

_FOREIGN = ('.pth', '.pt', '.ckpt', '.bin', '.tar')


def main(arguments: list[str] | None = None) -> int:
  """Runs one command; returns its exit status: 1, and a sentence on stderr, for a wrong input."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxinpaint.weights', description='Import and look into weight files.'
  )
  commands = parser.add_subparsers(dest='command', required=True)
  importing = commands.add_parser(
    'import', help='published checkpoint files -> OUT.safetensors and OUT.json'
  )
  importing.add_argument('system', help='name of the system; see `list`')
  importing.add_argument(
    'paths', nargs='+', metavar='FILE', help='one or more files to read, then OUT to write'
  )
  importing.add_argument('--format', help='which published format (default: whichever fits)')
  importing.add_argument('--overwrite', action='store_true', help='replace OUT if it exists')
  inspecting = commands.add_parser('inspect', help='keys, shapes and types in a weight file')
  inspecting.add_argument('file')
  commands.add_parser('list', help='systems, their published weights, addresses and licences')
  fetching = commands.add_parser(
    'fetch', help="networks that metrics and losses need -> this library's cache, checked"
  )
  fetching.add_argument('name', nargs='?', help='of the network; see --list')
  fetching.add_argument('--list', action='store_true', help='names, places and addresses')
  fetching.add_argument(
    '--from',
    action='append',
    default=[],
    dest='sources',
    metavar='FILE',
    help='a published file that is here already, to copy instead; for several files several times',
  )
  given = parser.parse_args(arguments)
  try:
    if given.command == 'import':
      _import(given)
    elif given.command == 'inspect':
      _inspect(given.file)
    elif given.command == 'fetch':
      _fetch(given)
    else:
      _list()
  except BrokenPipeError:  # `inspect FILE | head`: nobody reads on
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except (OSError, ValueError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


def _import(given: argparse.Namespace) -> None:
  *files, out = given.paths
  if not files or pathlib.Path(out).suffix in _FOREIGN:
    raise ValueError(
      f'the last argument is the file to write, and {out!r} looks like one to read: '
      f'import {given.system} FILE [FILE2 ...] OUT.safetensors'
    )
  path = importer.import_file(given.system, files, out, given.format, overwrite=given.overwrite)
  meta = store.load(path).meta
  print(f'wrote {path} and {path.with_suffix(".json").name}')
  for network, count in meta['networks'].items():
    print(f'  {network}: {count["parameters"]:,} parameters in {count["arrays"]} arrays')
  print(
    f'  format {meta["source"]["format"]}, licence: {meta["source"]["licence"] or "not stated"}'
  )


def _inspect(file: str) -> None:
  rows = [(k, 'x'.join(map(str, shape)), dtype) for k, shape, dtype in reader.describe(file)]
  if not rows:
    print(f'{file} is empty')
    return
  widths = [max(len(row[i]) for row in rows) for i in range(2)]
  for key, shape, dtype in rows:
    print(f'{key:<{widths[0]}}  {shape:<{widths[1]}}  {dtype}')


def _fetch(given: argparse.Namespace) -> None:
  if given.list:
    print('\n'.join(fetch.table()))
    return
  if not given.name:
    raise ValueError(f'give a name, or --list: {", ".join(fetch.NAMES)}')
  for path in fetch.fetch(given.name, given.sources):
    print(f'{given.name}: {path}')


def _list() -> None:
  for system in systems.list_systems():
    known = importer.formats(system)
    if not known:
      print(f'{system}: no published weights')
    for name, format in known.items():
      print(f'{system} ({name}): {format.note}')
      print(f'  address: {format.url or "none"}')
      print(f'  licence: {format.licence or "not stated"}')


if __name__ == '__main__':
  sys.exit(main())
