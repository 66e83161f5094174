"""Turns a system's published checkpoint files into this library's own.

  misf = systems.published('misf')
  importer.import_file(misf, ['places2_InpaintingModel_gen.pth'], 'misf_places2.safetensors')

A system's published.py says in `FORMATS` what its files look like; each format is tried until one
takes every array of the files.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxinpaint.recipe import Recipe
from jaxinpaint.runtime import digest
from jaxinpaint.weights import hub, layouts, mapping, reader, store

Paths = str | os.PathLike | Sequence[str | os.PathLike]


@dataclasses.dataclass(frozen=True)
class Published:
  """What the importer has to know of a system; `systems.published(name)` gives it.

  Attributes:
    name: of the system.
    formats: how its published files look, by name; {} where none are published.
    default_config: () -> its configuration.
    make_recipe: config -> its recipe.
    names: published weights that can be loaded by name, {'places2': ...} for 'SYSTEM/places2'.
  """

  name: str
  formats: Mapping[str, mapping.Format]
  default_config: Callable[[], ConfigDict]
  make_recipe: Callable[[ConfigDict], Recipe]
  names: Mapping[str, hub.Named] = dataclasses.field(default_factory=dict)


def import_file(
  system: Published,
  path: Paths,
  out: str | os.PathLike,
  format: str | None = None,
  *,
  overwrite: bool = False,
) -> pathlib.Path:
  """Reads published files, maps every key and writes a weights file.

  Args:
    system: whose files they are.
    path: the file (for TensorFlow: the prefix or folder of a checkpoint), or several files that
      together hold its networks (generator and discriminator); a .json among them holds settings,
      for formats that have such a file.
    out: NAME or NAME.safetensors to write.
    format: one of `system.formats`; None: each in turn.
    overwrite: replace `out` if it exists.

  Returns:
    Path of the weights file.

  Raises:
    ValueError: no such format, or the system has none.
    FileNotFoundError, FileExistsError, reader.UnsafeFileError: as their names say.
    mapping.MappingError: the files are not this system's; lists keys that are missing or left
      over, and shapes that differ. Nothing is written.
  """
  known = system.formats
  if not known:
    raise ValueError(f'there are no published weights of {system.name!r} to import')
  if format is not None and format not in known:
    raise ValueError(f'{system.name!r} has no format {format!r}; there are: {", ".join(known)}')
  paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
  store.refuse_existing(out, overwrite)
  paths = [pathlib.Path(p) for p in paths]
  beside = [p for p in paths if p.suffix == '.json']
  files = {p: reader.read(p) for p in paths if p not in beside}
  errors = []
  for name in [format] if format else known:
    config = system.default_config()
    with config.unlocked():
      config.model.update(known[name].model)
    try:
      with config.unlocked():
        config.model.update(_settings(beside, known[name]))
      tree, prefixes = _convert(files, known[name], config, system.make_recipe(config))
    except mapping.MappingError as error:
      errors.append(f'format {name!r}: {error}')
      continue
    source = {
      'files': [
        {'name': f.name, 'sha256': digest.of_file(f)} for p in paths for f in reader.files(p)
      ],
      'format': name,
      'note': known[name].note,
      'url': known[name].url,
      'licence': known[name].licence,
      **({'prefix': ', '.join(prefixes)} if prefixes else {}),
    }
    return store.save(
      out,
      system.name,
      config,
      tree['params'],
      tree['stats'],
      source=source,
      overwrite=overwrite,
    )
  names = ', '.join(str(p) for p in paths)
  raise mapping.MappingError(
    f'{names}: this does not give the weights of {system.name!r}.\n' + '\n'.join(errors)
  )


def _settings(beside: Sequence[pathlib.Path], format: mapping.Format) -> dict[str, Any]:
  """Settings of config.model from the JSON files given beside the weights."""
  settings: dict[str, Any] = {}
  for path in beside:
    if format.settings is None:
      raise mapping.MappingError(f'{path.name}: these weights need no JSON file: leave it out')
    try:
      content = json.loads(path.read_text(encoding='utf-8'))
      settings.update(format.settings(content))
    except ValueError as error:  # not text, no JSON, or MappingError
      raise mapping.MappingError(f'{path.name}: {error}') from error
  return settings


def _convert(
  files: Mapping[pathlib.Path, Any], format: mapping.Format, config: ConfigDict, recipe: Recipe
) -> tuple[dict[str, dict], list[str]]:
  """(the trees, what stood before the keys of networks in wrappers)."""
  entries = tuple(format.entries(config.model))
  expected = recipe.shapes()._asdict()
  tree: dict[str, dict] = {'params': {}, 'stats': {}}
  owner: dict[str, pathlib.Path] = {}
  prefixes: list[str] = []
  for path, content in files.items():
    for networks, state, prefix in _states(path, content, format, entries, expected):
      prefixes += [prefix] if prefix else []
      mine = [e for e in entries if e.network in networks]
      try:
        part = mapping.convert(
          state, mine, format.ignore, expected=expected, constants=format.constants
        )
      except mapping.MappingError as error:
        raise mapping.MappingError(f'{path.name}: {error}') from error
      for network in part['params'].keys() | part['stats'].keys():
        if network in owner:
          raise mapping.MappingError(
            f'the {network} is in {owner[network].name} and again in {path.name}: '
            'give one file for each network'
          )
        owner[network] = path
      for kind in tree:
        tree[kind].update(part[kind])
  lacking = [n for n in recipe.inference.networks if n not in tree['params']]
  if lacking and not format.partial:
    raise mapping.MappingError(
      f'the files hold {", ".join(sorted(owner)) or "no network"}, but not the '
      f'{", ".join(lacking)}, without which no image can be completed: give its file too'
    )
  return tree, prefixes


def _states(
  path: pathlib.Path,
  content: Any,
  format: mapping.Format,
  entries: Sequence[mapping.Entry],
  expected: Mapping[str, Any],
) -> list[tuple[set[str], dict[str, np.ndarray], str]]:
  """[(networks, their state dict, the prefix it had)] of one file, as `format.unwrap` says."""
  networks = {e.network for e in entries}
  if format.mixed:
    return _among_others(path, _arrays(content), entries)
  ignore = (*format.ignore, *format.constants)
  nearest = lambda choices, state: _nearest(choices, state, entries, ignore, expected)
  if not format.unwrap:
    state, prefix = _bare(content, entries)
    named = [{n} for pattern, n in format.names.items() if re.search(pattern, path.name)]
    single = [{n} for n in sorted(networks)]
    if len({e.key for e in entries}) == len(entries):  # else no file can hold them all
      single.insert(0, networks)
    return [(nearest(named or single, state), state, prefix)]
  choices: dict[str, list[set[str]]] = {}
  for item in format.unwrap:
    key, _, network = item.partition(':')
    name = network or (key if key in networks else '')
    if not name or name in networks:
      choices.setdefault(key, []).append({name} if name else networks)
  states = []
  for key, wanted in choices.items():
    inner = content
    for name in key.split('.') if key else ():
      inner = inner.get(name) if isinstance(inner, Mapping) else None
    # The whole file is the state dict only if no other key is there.
    if isinstance(inner, Mapping) and (key or len(choices) == 1):
      state, prefix = _bare(inner, entries)
      states.append((nearest(wanted, state), state, prefix))
  if states:
    return states
  # The file may be the state dict of one network without its wrapping.
  state, prefix = _bare(content, entries)
  alone = [
    {network}
    for network in sorted(networks)
    if {e.key for e in entries if e.network == network} <= state.keys()
  ]
  if alone or '' in choices:
    return [(nearest(alone or choices[''], state), state, prefix)]
  top = list(content) if isinstance(content, Mapping) else [type(content).__name__]
  shown = ', '.join(str(k) for k in top[:8]) + (', ...' if len(top) > 8 else '')
  keys = ' or '.join(repr(key) for key in choices)
  raise mapping.MappingError(f'{path.name}: wanted {keys} at the top of the file, found: {shown}')


def _among_others(
  path: pathlib.Path, state: Mapping[str, np.ndarray], entries: Sequence[mapping.Entry]
) -> list[tuple[set[str], dict[str, np.ndarray], str]]:
  """[(network, its state dict, its prefix)] of a file that holds more than the networks."""
  states = []
  for network, keys in _keys(entries).items():
    prefix = mapping.find_prefix(state, keys, whole=False)
    if prefix is not None:
      own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
      states.append(({network}, own, prefix))
  if not states:
    raise mapping.MappingError(f'{path.name}: none of its keys ends as those of the networks do')
  return states


def _nearest(
  choices: Sequence[set[str]],
  state: Mapping[str, np.ndarray],
  entries: Sequence[mapping.Entry],
  ignore: Sequence[str],
  expected: Mapping[str, Any],
) -> set[str]:
  """Whose state dict this is: those networks of `choices` that leave the fewest keys over.

  Two networks may have the same keys, so a shape that does not fit counts as two keys left over,
  the file's and the network's. For a foreign file the first choice is returned, so that the keys of
  all networks are reported as missing and not those of the smallest.
  """
  has_one = lambda names: any(e.key in state for e in entries if e.network in names)
  choices = [names for names in choices if has_one(names)] or list(choices)[:1]
  if len(choices) == 1:
    return choices[0]
  shapes = mapping.flatten(expected, separator='/')

  def left_over(names):
    own = {e.key: e for e in entries if e.network in names}
    problems = len(own.keys() - state.keys())
    for key, array in state.items():
      if key not in own:
        problems += not any(re.search(pattern, key) for pattern in ignore)
      elif (shape := shapes.get('/'.join(own[key].target))) is not None:
        problems += 2 * (layouts.shape_here(own[key].layout, array.shape) != tuple(shape.shape))
    return problems

  return min(choices, key=left_over)


def _bare(content: Any, entries: Sequence[mapping.Entry]) -> tuple[dict[str, np.ndarray], str]:
  """(the arrays of a nested dict by the networks' keys, what a wrapper had put before them)."""
  state, networks = mapping.strip_module(_arrays(content)), _keys(entries)
  for keys in (set().union(*networks.values()), *networks.values()):
    if prefix := mapping.find_prefix(state, keys):
      return {key.removeprefix(prefix): value for key, value in state.items()}, prefix
  return state, ''


def _keys(entries: Sequence[mapping.Entry]) -> dict[str, set[str]]:
  """{network: the keys of its arrays}."""
  keys: dict[str, set[str]] = {}
  for entry in entries:
    keys.setdefault(entry.network, set()).add(entry.key)
  return keys


def _arrays(content: Any) -> dict[str, np.ndarray]:
  """The arrays of a nested dict by dotted key; counters and text beside them are dropped."""
  return {k: v for k, v in mapping.flatten(content).items() if isinstance(v, np.ndarray)}
