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
from collections.abc import Sequence

from jaxinpaint.runtime import locks
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
      for more than tensors. Nothing was written.
  """
  whole, out = f'{system.name}/{name}', names.converted(system.name, name)
  if out.exists() and not sources:
    return out
  wanted = files(system, name)
  paths = hub.fetch(whole, {whole: wanted}, sources)
  out.parent.mkdir(parents=True, exist_ok=True)
  with locks.hold(out.with_name(f'.{out.name}.lock'), f'the conversion of {whole}', math.inf):
    if out.exists() and not sources:  # another process converted it while this one waited
      return out
    print(f'{whole}: converting {", ".join(p.name for p in paths)}', file=sys.stderr)
    try:
      importer.import_file(system, paths, out, system.names[name].format, overwrite=True)
    except ValueError as error:
      raise store.StoreError(
        f'{whole}: {error}\nWhat is in {paths[0].parent} is not what was published: remove it, and '
        'it will be fetched again, or asked for'
      ) from error
  source = store.load(out).meta['source']
  for file in source['files']:
    print(f'{whole}: {file["name"]} has the SHA-256 {file["sha256"]}', file=sys.stderr)
  if 'prefix' in source:
    print(f'{whole}: its keys begin with {source["prefix"]}, removed', file=sys.stderr)
  return out
