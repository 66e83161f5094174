"""Published weights by name: fetched once, converted once, then read as this library's own.

  path = fetching.require(systems.published('misf'), 'places2')     # MISF's weights 'misf/places2'

In the cache (`hub.cache_folder`), the files as they were published lie in published/SYSTEM/NAME,
and what they were converted to in weights/SYSTEM/SYSTEM_NAME.safetensors. Only the latter is read
from the second use on. Its card holds the SHA-256 of the published files.
"""

import dataclasses
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from jaxinpaint.runtime import atomic, locks
from jaxinpaint.weights import hub, importer, names, store


def files(system: importer.Published, name: str) -> tuple[hub.File, ...]:
  """The published files of a name, with the address and licence of their format."""
  named = system.names[name]
  format = system.formats[named.format]
  return tuple(
    dataclasses.replace(
      file,
      url=file.url or format.url,
      licence=file.licence or format.licence,
      folder=f'published/{system.name}/{name}',
    )
    for file in named.files
  )


def state(system: importer.Published, name: str) -> str:
  """'here', 'fetched at first use' or 'by hand'."""
  if names.converted(system.name, name).exists():
    return 'here'
  lacking = any(f.by_hand and not f.path.exists() for f in files(system, name))
  return 'by hand' if lacking else 'fetched at first use'


def require(
  system: importer.Published, name: str, sources: Sequence[str | os.PathLike] = ()
) -> pathlib.Path:
  """Path of published weights in this library's form; fetched and converted at their first use.

  Processes that ask for the same weights at once wait for the first of them.

  Args:
    system: whose weights they are.
    name: one of `system.names`.
    sources: published files that are here already and are used instead of fetched ones.

  Raises:
    hub.DownloadError: a file cannot be fetched, or has to be by hand; says how.
    ValueError, FileNotFoundError: a source is not one of the files, or not there.
    store.StoreError: a file is not what was published: its keys or shapes are others, or it asks
      for more than tensors. Sources are copied into the cache only when all is converted, so that
      a wrong one replaces nothing.
  """
  whole, out = f'{system.name}/{name}', names.converted(system.name, name)
  if out.exists() and not sources:
    return out
  wanted = files(system, name)
  given = hub.recognise(whole, wanted, sources)
  hub.fetch(whole, {whole: tuple(file for file in wanted if file not in given)})
  place = wanted[0].path.parent
  try:
    with atomic.no_empty_folders(out.parent, place):
      out.parent.mkdir(parents=True, exist_ok=True)
      place.mkdir(parents=True, exist_ok=True)
      with locks.hold(out.with_name(f'.{out.name}.lock'), f'the conversion of {whole}', math.inf):
        if out.exists() and not sources:  # another process converted it while this one waited
          return out
        with tempfile.TemporaryDirectory(prefix='.', dir=place) as staging:
          source = _convert(system, name, given, pathlib.Path(staging), out)
  except hub.DownloadError:
    raise
  except OSError as error:
    raise hub.unusable(f'{whole} cannot be converted', error) from error
  for file in source['files']:
    print(f'{whole}: {file["name"]} has the SHA-256 {file["sha256"]}', file=sys.stderr)
  if 'prefix' in source:
    print(f'{whole}: its keys begin with {source["prefix"]}, removed', file=sys.stderr)
  return out


def _convert(
  system: importer.Published,
  name: str,
  given: Mapping[hub.File, pathlib.Path],
  staging: pathlib.Path,
  out: pathlib.Path,
) -> Mapping[str, Any]:
  """Converts in the folder `staging`, then moves everything to its place; what the card says."""
  whole, wanted = f'{system.name}/{name}', files(system, name)
  copies = {file: staging / file.path.name for file in given}
  for file, path in copies.items():
    hub.copy(given[file], path)
  paths = [copies.get(file, file.path) for file in wanted]
  print(f'{whole}: converting {", ".join(p.name for p in paths)}', file=sys.stderr)
  try:
    made = importer.import_file(system, paths, staging / 'converted', system.names[name].format)
  except ValueError as error:
    reason = str(error)
    for file, path in copies.items():  # the person knows it by its own name
      reason = reason.replace(str(path), str(given[file]))
    advice = (
      'What was given is not what was published; nothing was replaced by it'
      if given
      else f'What is in {paths[0].parent} is not what was published: remove it, and it will be '
      'fetched again, or asked for'
    )
    raise store.StoreError(f'{whole}: {reason}\n{advice}') from error
  source = store.load(made).meta['source']
  for file, path in copies.items():
    if file.path.exists() and (file.path.is_dir() or path.is_dir()):  # renaming replaces files only
      file.path.rename(path.with_name(f'{path.name}.former'))
    path.replace(file.path)
  made.replace(out)
  return source
