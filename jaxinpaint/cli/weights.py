"""Weights: what comes with the library, published files imported, runs exported.

  jaxinpaint weights list [misf | misf/places2 | fid-inception]
  jaxinpaint weights show NAME | FILE
  jaxinpaint weights import misf GEN.pth [DIS.pth] OUT [--format NAME] [--overwrite]
  jaxinpaint weights export WORKDIR[@STEP] OUT [--dtype float16] [--merge] [--licence TEXT]
  jaxinpaint weights inspect FILE
  jaxinpaint weights fetch misf/places2 | fid-inception [--from FILE]
  jaxinpaint weights fetch --list [misf | misf/places2 | fid-inception]

FILE may be the prefix, or the folder, of a TensorFlow checkpoint. `python -m jaxinpaint.weights` is
the same command.

Exit codes: 0; 1 with a sentence; 2 wrong flags.

commands:"""

import argparse
import difflib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from jaxinpaint.cli import command_line

_FOREIGN = ('.pth', '.pt', '.ckpt', '.bin', '.tar')


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  commands = {
    'list': ('weights by name, in the library and published: places, licences', _list_command),
    'show': ('the card of weights: training, results, licence, limits', _show_command),
    'import': ('published checkpoint files -> OUT.safetensors', _import_command),
    'export': (
      "a run's averaged weights -> OUT.safetensors, with their card",
      _export_command,
    ),
    'inspect': ('keys, shapes and types in a weight file', _inspect_command),
    'fetch': ("published weights by name -> this library's cache", _fetch_command),
  }
  return command_line.choose('jaxinpaint weights', __doc__, commands, argv)


def _import_command(argv: Sequence[str]) -> int:
  parser = command_line.Parser(
    'jaxinpaint weights import',
    'Published checkpoint files -> OUT.safetensors.',
    'SYSTEM FILE [FILE2 ...] OUT [flags]',
  )
  add, path = parser.add_argument, command_line.path
  add('system', metavar='SYSTEM', help='its name; see `jaxinpaint weights list`.')
  add('paths', type=path, nargs='+', metavar='FILE', help='files to read, then OUT to write.')
  add('--format', metavar='NAME', help='which published format; default whichever fits.')
  parser.switch('overwrite', help='replace OUT if it exists.')
  return _run(parser, _import, argv)


def _export_command(argv: Sequence[str]) -> int:
  parser = command_line.Parser(
    'jaxinpaint weights export',
    "A run's averaged weights -> OUT.safetensors, with their card.",
    'WORKDIR[@STEP] OUT [flags]',
  )
  add, path = parser.add_argument, command_line.path
  add('run', type=path, metavar='WORKDIR[@STEP]', help='a training run; default its result.')
  add('out', type=path, metavar='OUT', help='the file to write.')
  add('--dtype', choices=['float32', 'float16'], default='float32', help='float16: half the size.')
  parser.switch('merge', help='of kernels that are trained as sums: the sums (MI-GAN).')
  add('--licence', default='', metavar='TEXT', help='of the weights.')
  add('--note', action='append', default=[], metavar='TEXT', help='for the card; several times.')
  add('--results', type=path, metavar='FOLDER', help="of an evaluation's report, for the card.")
  add('--row', default='', metavar='NAME', help='of the run, in a report about several systems.')
  parser.switch('overwrite', help='replace OUT if it exists.')
  return _run(parser, _export, argv)


def _show_command(argv: Sequence[str]) -> int:
  parser = command_line.Parser('jaxinpaint weights show', 'The card of weights.', 'NAME | FILE')
  add = parser.add_argument
  add('path', type=command_line.path, metavar='NAME', help='as mesff/box, or a weights file.')
  return _run(parser, _show, argv)


def _inspect_command(argv: Sequence[str]) -> int:
  parser = command_line.Parser(
    'jaxinpaint weights inspect', 'Keys, shapes and types in a weight file.', 'FILE'
  )
  parser.add_argument('file', type=command_line.path, metavar='FILE', help='of any known kind.')
  return _run(parser, _inspect, argv)


def _list_command(argv: Sequence[str]) -> int:
  parser = command_line.Parser(
    'jaxinpaint weights list',
    'Weights by name (in the library, here, fetched at first use, by hand), and importable files.',
    '[NAME]',
  )
  parser.add_argument(
    'name', metavar='NAME', nargs='?', help='of weights or a system: these alone.'
  )
  return _run(parser, _list, argv)


def _fetch_command(argv: Sequence[str]) -> int:
  parser = command_line.Parser(
    'jaxinpaint weights fetch',
    "Published weights, and networks that metrics and losses need -> this library's cache.",
    '[NAME] [flags]',
  )
  add = parser.add_argument
  add('name', metavar='NAME', nargs='?', help='of the weights; see --list.')
  parser.switch('list', help='names, places and addresses; of NAME, or a system, alone if given.')
  add(
    '--from',
    action='append',
    default=[],
    dest='sources',
    type=command_line.path,
    metavar='FILE',
    help='a published file that is here already, to copy instead; for several files several times.',
  )
  return _run(parser, _fetch, argv)


def _run(
  parser: command_line.Parser, work: Callable[[argparse.Namespace], None], argv: Sequence[str]
) -> int:
  given = parser.parse_args(argv)
  try:
    work(given)
  except BrokenPipeError:  # `inspect FILE | head`: the reader has ended
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except (OSError, ValueError) as error:
    command_line.say(parser.prog, error)
    return 1
  except KeyboardInterrupt:
    command_line.say(parser.prog, 'interrupted: what was there is as it was')
    return 130
  return 0


def _import(given: argparse.Namespace) -> None:
  from jaxinpaint import systems
  from jaxinpaint.weights import importer, store

  *files, out = given.paths
  if not files or pathlib.Path(out).suffix in _FOREIGN:
    raise ValueError(
      f'the last argument is the file to write, and {out!r} looks like one to read: '
      f'import {given.system} FILE [FILE2 ...] OUT.safetensors'
    )
  path = importer.import_file(
    systems.published(given.system), files, out, given.format, overwrite=given.overwrite
  )
  meta = store.load(path).meta
  print(f'wrote {path}')
  for network, count in meta['networks'].items():
    print(f'  {network}: {count["parameters"]:,} parameters in {count["arrays"]} arrays')
  source = meta['source']
  print(f'  format {source["format"]}, licence: {source["licence"] or "not stated"}')
  if 'prefix' in source:
    print(f'  its keys begin with {source["prefix"]}, which was removed')


def _export(given: argparse.Namespace) -> None:
  from jaxinpaint.cli import cards

  path = cards.export(
    given.run,
    given.out,
    dtype=given.dtype,
    licence=given.licence,
    notes=given.note,
    results=given.results,
    row=given.row,
    merge=given.merge,
    overwrite=given.overwrite,
  )
  print(f'wrote {path} ({path.stat().st_size / 1e6:.1f} MB)')
  if not given.licence:
    print('  licence: not stated; --licence says it to those who get the file')


def _show(given: argparse.Namespace) -> None:
  from jaxinpaint.cli import cards

  print('\n'.join(cards.describe(given.path)))


def _inspect(given: argparse.Namespace) -> None:
  from jaxinpaint import trained
  from jaxinpaint.weights import reader

  file = trained.find(given.file)
  rows = [(k, 'x'.join(map(str, shape)), dtype) for k, shape, dtype in reader.describe(file)]
  if not rows:
    print(f'{given.file} is empty')
    return
  widths = [max(len(row[i]) for row in rows) for i in range(2)]
  for key, shape, dtype in rows:
    print(f'{key:<{widths[0]}}  {shape:<{widths[1]}}  {dtype}')


def _fetch(given: argparse.Namespace) -> None:
  from jaxinpaint import systems
  from jaxinpaint.features import published
  from jaxinpaint.weights import fetching, hub, names

  if given.list and given.sources:
    raise ValueError('--list fetches nothing, and --from is a file to fetch: leave one of them out')
  if given.list:
    print('\n'.join(_listing(given.name or '')))
    return
  if not given.name:
    raise ValueError(f'give a name, or --list: {", ".join(published.FILES)}')
  if given.name in names.FILES:
    if given.sources:
      raise ValueError(f'{given.name} comes with the library: leave --from out')
    print(_in_library(given.name))
    return
  if named := systems.named(given.name):
    print(f'{given.name}: {fetching.require(*named, given.sources)}')
    return
  if given.name not in published.FILES:
    raise ValueError(_unknown(given.name, [*published.FILES, *systems.published_names()]))
  for path in hub.fetch(given.name, published.FILES, given.sources):
    print(f'{given.name}: {path}')


def _listing(name: str) -> list[str]:
  """Lines of what can be fetched: all, a name's with the addresses of its files, or a system's.

  Raises:
    ValueError: a name of nothing that can be fetched; says which are near.
  """
  from jaxinpaint import systems
  from jaxinpaint.features import published
  from jaxinpaint.weights import fetching, hub, names

  if not name:
    return hub.listing(published.FILES) + _published()
  if name in names.FILES:
    return [_in_library(name)]
  if name in published.FILES:
    return hub.listing({name: published.FILES[name]})
  lines = [line for line in _published() if name in (line.split()[0], line.partition('/')[0])]
  if not lines:
    known = systems.published_names()
    alone = dict.fromkeys(whole.partition('/')[0] for whole in known)
    raise ValueError(_unknown(name, [*published.FILES, *known, *alone]))
  if named := systems.named(name):
    lines += hub.listing({name: fetching.files(*named)})
  return lines


def _in_library(name: str) -> str:
  from jaxinpaint.weights import names

  return f'{name}: {names.find(name)}, which comes with the library'


def _unknown(name: str, known: Sequence[str]) -> str:
  """What is said of a name that is not among those of what can be fetched."""
  system = name.partition('/')[0]
  near = [other for other in known if other.startswith(f'{system}/')]
  near = near or difflib.get_close_matches(name, known, n=5)
  meant = f'; near names: {", ".join(near)}' if near else ''
  return f'nothing to fetch is called {name!r}{meant}; `jaxinpaint weights list` lists all'


def _published() -> list[str]:
  """A line for each name of published weights: where they are, size, licence."""
  from jaxinpaint import systems
  from jaxinpaint.weights import fetching, hub

  lines = []
  for system in map(systems.published, systems.list_systems()):
    for name in system.names:
      files = fetching.files(system, name)
      size = hub.megabytes(sum(file.size for file in files))
      licence = files[0].licence or 'not stated'
      whole, state = f'{system.name}/{name}', fetching.state(system, name)
      lines.append(f'{whole:<28} {state:<20} {size:<15} licence: {licence}')
  return lines


def _list(given: argparse.Namespace) -> None:
  from jaxinpaint import systems
  from jaxinpaint.features import published
  from jaxinpaint.weights import hub, names

  if given.name:
    print('\n'.join(_listing(given.name)))
    return
  for name, file in names.FILES.items():
    there = 'in the library' if (names.FOLDER / file).exists() else 'missing in this installation'
    default = ', used where none are given' if name == names.DEFAULT else ''
    print(f'{name}: {there}{default}; `jaxinpaint weights show {name}`')
  print(
    '\nPublished weights (`jaxinpaint weights fetch NAME` fetches, or says what to get by hand):'
  )
  print('\n'.join(_published()))
  print('\nNetworks that metrics and losses need:')
  print('\n'.join(hub.listing(published.FILES)))
  print('\nFiles that can be imported:')
  for system in systems.list_systems():
    known = systems.published(system).formats
    if not known:
      print(f'{system}: no published weights')
    for name, format in known.items():
      print(f'{system} ({name}): {format.note}')
      print(f'  address: {format.url or "none"}')
      print(f'  licence: {format.licence or "not stated"}')
