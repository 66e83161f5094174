"""This library's own weight files: NAME.safetensors with NAME.json beside it.

The safetensors file holds the arrays, named 'params/NETWORK/...' and 'stats/NETWORK/...'. The JSON
holds the format version, system, configuration, source, parameter counts, and the SHA-256 of the
safetensors file. Both are written under a temporary name and then renamed.

  stored = store.load('misf_places2.safetensors')
  config = migrations.migrate(stored.config, systems.default_config)
  inference = systems.inference(config)
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
import safetensors.numpy

import jaxinpaint
from jaxinpaint import migrations
from jaxinpaint.runtime import atomic, digest

FORMAT_VERSION = 1
Path = str | os.PathLike


class StoreError(ValueError):
  """Weights that cannot be used: damaged, incomplete, of a newer version or of other networks."""


class MissingWeights(StoreError, FileNotFoundError):
  """There are no weights at the path that was given."""


@dataclasses.dataclass(frozen=True)
class Stored:
  """What `load` returns.

  Attributes:
    system: name of the published system.
    config: ConfigDict(version, system, dtype, model, loss) as it was stored, of whatever version;
      lists in it come back as tuples.
    params: {network: tree of numpy arrays}.
    stats: {network: {collection: tree}}.
    meta: the whole JSON.
  """

  system: str
  config: ml_collections.ConfigDict
  params: dict[str, Any]
  stats: dict[str, Any]
  meta: dict[str, Any]


def save(
  path: Path,
  system: str,
  config: Any,
  params: Mapping[str, Any],
  stats: Mapping[str, Any] | None = None,
  *,
  source: Mapping[str, Any] | str | None = None,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes NAME.safetensors and NAME.json.

  Args:
    path: NAME or NAME.safetensors; missing folders are made.
    system: name of the system.
    config: ConfigDict or mapping; only dtype, model and loss of it are kept.
    params: {network: tree of arrays}.
    stats: {network: {collection: tree}}.
    source: where the weights come from, kept in the JSON (a sentence or a JSON-able mapping).
    overwrite: replace files that exist.

  Returns:
    Path of the safetensors file.

  Raises:
    FileExistsError: one of the two files exists and `overwrite` is False.
    StoreError: a name holds '/', or there is nothing to save.
  """
  refuse_existing(path, overwrite)
  weights, sidecar = _paths(path)
  arrays = {}
  for part, networks in (('params', params), ('stats', stats or {})):
    for network, tree in networks.items():
      for name, leaf in _leaves(tree, (part, network)):
        arrays[name] = np.ascontiguousarray(leaf)
  if not any(name.startswith('params/') for name in arrays):
    raise StoreError(f'{weights}: there are no parameters to save')
  weights.parent.mkdir(parents=True, exist_ok=True)
  data = safetensors.numpy.save(arrays, metadata={'format': 'jaxinpaint', 'system': system})
  if not isinstance(config, ml_collections.ConfigDict):
    config = ml_collections.ConfigDict(dict(config))
  kept = {k: v for k, v in config.to_dict().items() if k in ('dtype', 'model', 'loss')}
  meta = {
    'format_version': FORMAT_VERSION,
    'created_by': f'jaxinpaint {jaxinpaint.__version__}',
    'system': system,
    'config': {'version': migrations.VERSION, 'system': system, **kept},
    'networks': _counts(arrays),
    'source': {'note': source} if isinstance(source, str) else dict(source or {}),
    'weights': {
      'file': weights.name,
      'bytes': len(data),
      'sha256': digest.of(data),
    },
  }
  atomic.write(weights, data)
  atomic.write(sidecar, json.dumps(meta, indent=2) + '\n')
  return weights


def load(path: Path) -> Stored:
  """Reads what `save` wrote; `path` is NAME, NAME.safetensors or NAME.json.

  Raises:
    MissingWeights: no such weights.
    StoreError: the JSON is missing, not ours or of a newer version, or the two files do not
      belong together.
  """
  weights, sidecar = _paths(path)
  if not weights.exists():
    raise MissingWeights(f'{weights}: no such file')
  meta = _read_sidecar(weights, sidecar)
  data = weights.read_bytes()
  want = meta['weights']['sha256']
  if digest.of(data) != want:
    raise StoreError(
      f'{weights} ({len(data)} bytes) is not the file that {sidecar.name} describes '
      f'({meta["weights"]["bytes"]} bytes, SHA-256 {want[:16]}...): it is damaged, or the two '
      'come from different places. Copy or import both again.'
    )
  arrays = safetensors.numpy.load(data)
  tree: dict[str, dict] = {'params': {}, 'stats': {}}
  for name, array in arrays.items():
    at: dict = tree
    *folders, last = name.split('/')
    for folder in folders:
      at = at.setdefault(folder, {})
    at[last] = array
  return Stored(meta['system'], read_config(meta['config']), tree['params'], tree['stats'], meta)


def read_config(stored: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """The config that a weights file or a checkpoint holds as JSON; lists come back as tuples."""
  return ml_collections.ConfigDict(migrations.tuples(stored))


def refuse_existing(path: Path, overwrite: bool) -> None:
  """Raises FileExistsError when `save` would replace a file and `overwrite` is False."""
  for file in _paths(path):
    if file.exists() and not overwrite:
      raise FileExistsError(f'{file} exists: choose another name, or allow overwriting it')


def _paths(path: Path) -> tuple[pathlib.Path, pathlib.Path]:
  path = pathlib.Path(path)
  if path.suffix in ('.safetensors', '.json'):
    path = path.with_suffix('')
  return path.with_name(path.name + '.safetensors'), path.with_name(path.name + '.json')


def _leaves(tree: Any, path: tuple[str, ...]):
  if isinstance(tree, Mapping):
    for name, value in tree.items():
      if '/' in name:
        raise StoreError(f"the name {name!r} below {'/'.join(path)} holds a '/'")
      yield from _leaves(value, (*path, name))
  else:
    yield '/'.join(path), np.asarray(tree)


def _counts(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
  counts: dict[str, dict[str, int]] = {}
  for name, array in arrays.items():
    part, network = name.split('/')[:2]
    count = counts.setdefault(network, {'arrays': 0, 'parameters': 0})
    count['arrays'] += 1
    count['parameters'] += array.size if part == 'params' else 0
  return counts


def _read_sidecar(weights: pathlib.Path, sidecar: pathlib.Path) -> dict[str, Any]:
  if not sidecar.exists():
    raise StoreError(
      f'{weights} has no {sidecar.name} beside it, which says what the weights are. Copy both '
      'files; a published checkpoint is brought in by `python -m jaxinpaint.weights import`.'
    )
  try:
    meta = json.loads(sidecar.read_text())
    version = meta['format_version']
  except (ValueError, KeyError, TypeError) as error:
    raise StoreError(f'{sidecar} is not a description of jaxinpaint weights: {error!r}') from error
  if version != FORMAT_VERSION:
    raise StoreError(
      f'{sidecar} is of format version {version!r} (by {meta.get("created_by")!r}); this is '
      f'jaxinpaint {jaxinpaint.__version__}, which reads version {FORMAT_VERSION}: update it.'
    )
  missing = {'system', 'config', 'networks', 'weights'} - meta.keys()
  if missing:
    raise StoreError(f'{sidecar} lacks {sorted(missing)}: it is damaged, import the weights again.')
  return meta
