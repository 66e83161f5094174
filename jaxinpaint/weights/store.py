"""This library's own weight files: NAME.safetensors, which says itself what it holds.

The file holds the arrays, named 'params/NETWORK/...' and 'stats/NETWORK/...', and in its header the
card: JSON with the format version, system, configuration, source and parameter counts, and whatever
else is known of the weights. A SHA-256 of the card and the arrays shows damage.

Format version 1 was a pair, NAME.safetensors with the card in NAME.json beside it, and is still
read.

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

FORMAT_VERSION = 2
DTYPES = ('float32', 'float16')
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
    params: {network: tree of numpy arrays}; what was stored in float16 comes back in float32.
    stats: {network: {collection: tree}}, likewise.
    meta: the card, all that the file says of the weights.
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
  about: Mapping[str, Any] | None = None,
  dtype: str = 'float32',
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes NAME.safetensors.

  Args:
    path: NAME or NAME.safetensors; missing folders are made.
    system: name of the system.
    config: ConfigDict or mapping; only dtype, model and loss of it are kept.
    params: {network: tree of arrays}.
    stats: {network: {collection: tree}}.
    source: where the weights come from, kept in the card (a sentence or a JSON-able mapping).
    about: what else the card says: licence, notes, results; JSON-able.
    dtype: 'float16' halves the file: a number keeps 11 significant bits. 'float32': as they are.
    overwrite: replace a file that exists (and the NAME.json of a pair).

  Returns:
    Path of the file.

  Raises:
    FileExistsError: the file exists and `overwrite` is False.
    StoreError: a name holds '/', there is nothing to save, or a number is too large for `dtype`.
  """
  refuse_existing(path, overwrite)
  weights, sidecar = _paths(path)
  arrays = {}
  for part, networks in (('params', params), ('stats', stats or {})):
    for network, tree in networks.items():
      for name, leaf in _leaves(tree, (part, network)):
        arrays[name] = _stored_as(dtype, name, np.ascontiguousarray(leaf))
  if not any(name.startswith('params/') for name in arrays):
    raise StoreError(f'{weights}: there are no parameters to save')
  if not isinstance(config, ml_collections.ConfigDict):
    config = ml_collections.ConfigDict(dict(config))
  kept = {k: v for k, v in config.to_dict().items() if k in ('dtype', 'model', 'loss')}
  card = {
    **(about or {}),
    'format_version': FORMAT_VERSION,
    'created_by': f'jaxinpaint {jaxinpaint.__version__}',
    'system': system,
    'config': {'version': migrations.VERSION, 'system': system, **kept},
    'networks': _counts(arrays),
    'stored_as': dtype,
    'source': {'note': source} if isinstance(source, str) else dict(source or {}),
  }
  text = json.dumps(card)
  header = {'format': 'jaxinpaint', 'card': text, 'sha256': _digest(text, arrays)}
  pair = weights.exists() and sidecar.exists() and 'card' not in _header(weights.read_bytes())
  weights.parent.mkdir(parents=True, exist_ok=True)
  atomic.write(weights, safetensors.numpy.save(arrays, metadata=header))
  if pair:  # its JSON describes what has just been replaced
    sidecar.unlink()
  return weights


def load(path: Path) -> Stored:
  """Reads what `save` wrote, now or in format version 1.

  Args:
    path: NAME or NAME.safetensors; of a pair NAME.json, too.

  Raises:
    MissingWeights: no such weights.
    StoreError: the file is not this library's, of a newer version or damaged; or it is half of a
      pair, or the two do not belong together.
  """
  weights, sidecar = _paths(path)
  if not weights.exists():
    raise MissingWeights(f'{weights}: no such file')
  data = weights.read_bytes()
  header = _header(data)
  if 'card' in header:
    card = _parse(header['card'], weights, FORMAT_VERSION)
    arrays = _read_arrays(weights, data)
    if _digest(header['card'], arrays) != header.get('sha256'):
      raise _damaged(weights)
  else:
    card = _read_sidecar(weights, sidecar, data)
    arrays = _read_arrays(weights, data)
  tree: dict[str, dict] = {'params': {}, 'stats': {}}
  for name, array in arrays.items():
    at: dict = tree
    *folders, last = name.split('/')
    for folder in folders:
      at = at.setdefault(folder, {})
    at[last] = array.astype(np.float32) if array.dtype == np.float16 else array
  return Stored(card['system'], read_config(card['config']), tree['params'], tree['stats'], card)


def read_config(stored: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """The config that a weights file or a checkpoint holds as JSON; lists come back as tuples."""
  return ml_collections.ConfigDict(migrations.tuples(stored))


def refuse_existing(path: Path, overwrite: bool) -> None:
  """Raises FileExistsError when `save` would replace a file and `overwrite` is False."""
  file, _ = _paths(path)
  if file.exists() and not overwrite:
    raise FileExistsError(
      f'{file} exists: choose another name, or allow overwriting it (--overwrite)'
    )


def _paths(path: Path) -> tuple[pathlib.Path, pathlib.Path]:
  path = pathlib.Path(path)
  if not path.name:
    raise StoreError(f'{str(path)!r} names no file: give NAME.safetensors')
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


def _stored_as(dtype: str, name: str, array: np.ndarray) -> np.ndarray:
  if dtype not in DTYPES:
    raise StoreError(f'dtype {dtype!r} must be one of: {", ".join(DTYPES)}')
  if dtype == 'float32' or not np.issubdtype(array.dtype, np.floating):
    return array
  largest = float(np.abs(array).max(initial=0))
  if not largest <= float(np.finfo(np.float16).max):
    raise StoreError(f'{name} holds {largest:.4g}, which float16 cannot: store float32')
  return array.astype(np.float16)


def _digest(card: str, arrays: Mapping[str, np.ndarray]) -> str:
  """SHA-256 of the card and of each array with its name, type and shape, by name."""
  parts: list[Any] = [card.encode()]
  for name in sorted(arrays):
    array = arrays[name]
    parts += [f'{name} {array.dtype} {array.shape}'.encode(), array]
  return digest.of(*parts)


def _header(data: bytes) -> dict[str, str]:
  """What the header of a safetensors file says besides the arrays; {} where it says nothing."""
  try:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])
    return dict(header.get('__metadata__', {}))
  except (ValueError, AttributeError, TypeError):
    return {}


def _read_arrays(weights: pathlib.Path, data: bytes) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load(data)
  except safetensors.SafetensorError as error:
    raise _damaged(weights) from error


def _damaged(weights: pathlib.Path) -> StoreError:
  return StoreError(f'{weights} is damaged: copy it, or import or export the weights, again.')


def _read_sidecar(weights: pathlib.Path, sidecar: pathlib.Path, data: bytes) -> dict[str, Any]:
  """The card of a pair; `data` is what the safetensors file holds."""
  if not sidecar.exists():
    raise StoreError(
      f'{weights} has no card in it and no {sidecar.name} beside it, so nothing says what the '
      'weights are. Copy both files of a pair; a published checkpoint is brought in by '
      '`jaxinpaint weights import`.'
    )
  card = _parse(sidecar.read_text(), sidecar, 1)
  if 'weights' not in card:
    raise StoreError(f"{sidecar} lacks ['weights']: it is damaged, import the weights again.")
  want = card['weights']['sha256']
  if digest.of(data) != want:
    raise StoreError(
      f'{weights} ({len(data)} bytes) is not the file that {sidecar.name} describes '
      f'({card["weights"]["bytes"]} bytes, SHA-256 {want[:16]}...): it is damaged, or the two '
      'come from different places. Copy or import both again.'
    )
  return card


def _parse(text: str, file: pathlib.Path, known: int) -> dict[str, Any]:
  """The card in `text`, which stands in `file`; `known` is the format version of such files."""
  try:
    card = json.loads(text)
    version = card['format_version']
  except (ValueError, KeyError, TypeError) as error:
    raise StoreError(f'{file} is not a description of jaxinpaint weights: {error!r}') from error
  if version != known:
    raise StoreError(
      f'{file} is of format version {version!r} (by {card.get("created_by")!r}); this is '
      f'jaxinpaint {jaxinpaint.__version__}, which reads version {FORMAT_VERSION}: update it.'
    )
  missing = {'system', 'config', 'networks'} - card.keys()
  if missing:
    raise StoreError(f'{file} lacks {sorted(missing)}: it is damaged, import the weights again.')
  return card
