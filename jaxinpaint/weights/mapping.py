"""How the keys of a published PyTorch checkpoint become parameters here, and back.

A system's `published.py` gives one `Entry` for each array of the reference's state dict. `convert`
applies the entries and insists that every key on both sides is used, so a file of another system,
another version or another width is never loaded in part.

  entries = (
    *conv('encoder0.1', 'generator', ('encoder0',)),
    *conv_transpose('decoder.0', 'generator', ('decoder0',)),
    *sn_conv('conv1.0', 'discriminator', ('conv1',), bias=False),
  )
  tree = convert(state, entries, ignore=(r'conv_final\\.',))
  tree['params']['generator'], tree['stats']['discriminator']['spectral']
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxinpaint.weights import layouts

# Counters that PyTorch keeps beside running statistics; they are not used here.
ALWAYS_IGNORED = (r'(^|\.)num_batches_tracked$',)
_SHOWN = 12  # names listed of each kind in an error, before '... and N more'

Constants = Mapping[str, Callable[[tuple[int, ...]], np.ndarray]]  # see `Format.constants`


class MappingError(ValueError):
  """A checkpoint does not fit the networks it is meant for; the message lists what is left over."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """One array: where the reference keeps it, and where it goes.

  Attributes:
    key: in the reference's state dict, e.g. 'encoder0.1.weight'.
    network: 'generator', 'discriminator', ...
    path: below the network and collection, e.g. ('encoder0', 'kernel').
    layout: one of `layouts.LAYOUTS`.
    collection: 'params', or the flax collection of a statistic ('spectral', 'batch_stats').
  """

  key: str
  network: str
  path: tuple[str, ...]
  layout: str = 'same'
  collection: str = 'params'

  def __post_init__(self):
    if self.layout not in layouts.LAYOUTS:
      known = list(layouts.LAYOUTS)
      raise ValueError(f'entry {self.key!r}: layout {self.layout!r} is not one of {known}')

  @property
  def target(self) -> tuple[str, ...]:
    """Path in the tree that `convert` returns."""
    if self.collection == 'params':
      return ('params', self.network, *self.path)
    return ('stats', self.network, self.collection, *self.path)


@dataclasses.dataclass(frozen=True)
class Paper:
  """Where a system was published.

  Attributes:
    title: as printed.
    authors: family names; 'and others' after the third of many.
    venue: conference or journal; '': not known.
    year: of publication; None: not known.
    url: of the paper; '': none.
    idea: what the system is, in a phrase, for the README.
    reference: what the stored reference outputs of its tests were made with, for the README and the
      zoo: "authors' code", 'port' (others' reimplementation), 'transcribed from the paper' (by this
      project, as no code is published), or these words for each part; '': there are none.
  """

  title: str
  authors: str
  venue: str = ''
  year: int | None = None
  url: str = ''
  idea: str = ''
  reference: str = ''


@dataclasses.dataclass(frozen=True)
class Format:
  """One published kind of checkpoint file of a system.

  Attributes:
    entries: (config.model) -> the entries of all its networks.
    unwrap: where the state dicts sit in the file: 'KEY' or 'KEY:NETWORK', KEY a dotted path into
      the file's nested dicts. The arrays below KEY, named relative to it, feed the entries of
      NETWORK; without ':NETWORK', of the network called KEY, or of all if there is none such.
      Several files may bring one KEY each; where several items have the same KEY, keys and shapes
      tell whose state dict it is. An empty KEY (':NETWORK') stands for a file that has none of the
      others. (): the file itself is the state dict of all networks, or of one of them.
    ignore: regular expressions (`re.search`) of keys that nothing here uses.
    constants: {regular expression (`re.search`) of keys: (shape) -> the array that it must be}, for
      arrays of the file that are constants of the networks here.
    note: which files these are and how to get them.
    licence: of the published weights.
    url: where they are published.
    partial: the files bring only some of the networks that `predict` reads; what is imported is a
      start for training.
    model: settings of config.model that these files were trained with, where they differ from
      the system's default.
    settings: (content of a JSON file that lies beside the weights) -> further such settings; None:
      no such file belongs to them.
    names: {regular expression (`re.search`) of a file's name: the network that is in it}, for
      networks whose state dicts look alike. Content decides where none fits.
    mixed: the files hold more than the networks (losses, an evaluator): only what has the prefix
      that the keys of a network have (see `find_prefix`) is read.
  """

  entries: Callable[[Any], Iterable[Entry]]
  unwrap: tuple[str, ...] = ()
  ignore: tuple[str, ...] = ()
  constants: Constants = dataclasses.field(default_factory=dict)
  note: str = ''
  licence: str = ''
  url: str = ''
  model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  partial: bool = False
  settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
  names: Mapping[str, str] = dataclasses.field(default_factory=dict)
  mixed: bool = False


# The entries of one layer, as `conv`: (key, network, path) -> its entries.
Layer = Callable[[str, str, tuple[str, ...]], tuple[Entry, ...]]


def conv(key: str, network: str, path: tuple[str, ...], bias: bool = True) -> tuple[Entry, ...]:
  """Entries of a Conv2d: KEY.weight -> path/kernel, KEY.bias -> path/bias."""
  return _weight(key, network, path, 'conv', bias)


def conv_transpose(
  key: str, network: str, path: tuple[str, ...], bias: bool = True
) -> tuple[Entry, ...]:
  """Entries of a ConvTranspose2d: KEY.weight -> path/kernel, KEY.bias -> path/bias."""
  return _weight(key, network, path, 'conv_transpose', bias)


def dense(key: str, network: str, path: tuple[str, ...], bias: bool = True) -> tuple[Entry, ...]:
  """Entries of a Linear: KEY.weight -> path/kernel, KEY.bias -> path/bias."""
  return _weight(key, network, path, 'dense', bias)


def sn_conv(
  key: str,
  network: str,
  path: tuple[str, ...],
  bias: bool = True,
  *,
  v: bool = True,
  layout: str = 'conv',
  weight: str = 'weight_orig',
) -> tuple[Entry, ...]:
  """Entries of a spectrally normalised Conv2d (torch.nn.utils.spectral_norm).

  KEY.weight_orig -> path/kernel, KEY.bias -> path/bias, and in the collection 'spectral'
  KEY.weight_u -> path/u f32[out] and KEY.weight_v -> path/v f32[in*kh*kw], both in PyTorch's
  order (the matrix they belong to is [out, in*kh*kw]).

  Args:
    key: of the module.
    network: that it belongs to.
    path: of the layer.
    bias: False where the reference has none.
    v: False for implementations that keep only u.
    layout: 'conv_transpose' for a transposed convolution.
    weight: name of the weight; older implementations say 'weight_bar'.
  """
  entries = [Entry(f'{key}.{weight}', network, (*path, 'kernel'), layout)]
  if bias:
    entries.append(Entry(f'{key}.bias', network, (*path, 'bias')))
  entries.append(Entry(f'{key}.weight_u', network, (*path, 'u'), collection='spectral'))
  if v:
    entries.append(Entry(f'{key}.weight_v', network, (*path, 'v'), collection='spectral'))
  return tuple(entries)


def norm(
  key: str, network: str, path: tuple[str, ...], *, statistics: bool = False
) -> tuple[Entry, ...]:
  """Entries of an affine norm: KEY.weight -> path/scale, KEY.bias -> path/bias.

  With `statistics` (BatchNorm) also KEY.running_mean and KEY.running_var -> path/mean and
  path/var in the collection 'batch_stats'.
  """
  entries = [
    Entry(f'{key}.weight', network, (*path, 'scale')),
    Entry(f'{key}.bias', network, (*path, 'bias')),
  ]
  if statistics:
    for theirs, ours in (('running_mean', 'mean'), ('running_var', 'var')):
      entries.append(Entry(f'{key}.{theirs}', network, (*path, ours), collection='batch_stats'))
  return tuple(entries)


def flatten(tree: Any, prefix: str = '', separator: str = '.') -> dict[str, Any]:
  """{'a': {'b': x}} -> {'a.b': x}; lists count by index; scalars and strings stay leaves.

  >>> flatten({'encoder': [{'bias': 1}, {'bias': 2}]})
  {'encoder.0.bias': 1, 'encoder.1.bias': 2}
  """
  if isinstance(tree, Mapping):
    items = tree.items()
  elif isinstance(tree, (list, tuple)):
    items = enumerate(tree)
  else:
    return {prefix: tree}
  flat = {}
  for key, value in items:
    flat.update(flatten(value, f'{prefix}{separator}{key}' if prefix else str(key), separator))
  return flat


def strip_module(state: Mapping[str, Any]) -> dict[str, Any]:
  """Removes the prefix 'module.' that multi-GPU training puts before every key, if all have it."""
  state = dict(state)
  while state and all(key.startswith('module.') for key in state):
    state = {key.removeprefix('module.'): value for key, value in state.items()}
  return state


def find_prefix(state: Iterable[str], keys: Iterable[str], *, whole: bool = True) -> str | None:
  """What a wrapper around a network has put before the network's keys in a file.

  Args:
    state: the file's keys.
    keys: of the network.
    whole: all of them have to be behind the prefix. False: it is the prefix that most are behind,
      so that `convert` can say which ones are missing.

  Returns:
    'model.generator.'; '' where one of `keys` is in the file as it is; None: there is no prefix.

  Raises:
    MappingError: all keys are there behind several prefixes.
  """
  state, keys = set(state), set(keys)
  if state & keys:
    return ''
  behind: collections.Counter[str] = collections.Counter()
  for key in state:
    dots = (i + 1 for i, letter in enumerate(key) if letter == '.')
    behind.update(key[:i] for i in dots if key[i:] in keys)
  most = max(behind.values(), default=0)
  prefixes = sorted(prefix for prefix, count in behind.items() if count == most)
  if len(prefixes) > 1 and most == len(keys):
    raise MappingError(f'the network is in the file several times, below {", ".join(prefixes)}')
  return prefixes[0] if prefixes and (most == len(keys) or not whole) else None


def convert(
  state: Mapping[str, np.ndarray],
  entries: Iterable[Entry],
  ignore: Iterable[str] = (),
  *,
  expected: Mapping[str, Any] | None = None,
  constants: Constants | None = None,
) -> dict[str, dict]:
  """A reference's state dict as this library's trees.

  Args:
    state: {key: array in PyTorch's layout}; a 'module.' before every key is removed.
    entries: where every key goes.
    ignore: regular expressions (`re.search`) of keys of `state` to leave out.
    expected: {'params': {network: tree}, 'stats': {network: tree}} of arrays or shape structs, as
      `jax.eval_shape(recipe.init, ...)` gives, to hold the result against.
    constants: of `Format`; a key that is one is left out when it is as it must be.

  Returns:
    {'params': {network: tree}, 'stats': {network: {collection: tree}}}, floating-point arrays in
    float32.

  Raises:
    MappingError: keys are left over or missing on either side, or shapes differ; lists them.
  """
  state, entries = strip_module(state), tuple(entries)
  constants = constants or {}
  skip = [re.compile(pattern) for pattern in (*ignore, *ALWAYS_IGNORED, *constants)]
  wanted: dict[str, Entry] = {}
  for entry in entries:
    if entry.key in wanted:
      raise ValueError(f'two entries read {entry.key!r}: {wanted[entry.key]} and {entry}')
    wanted[entry.key] = entry
  unused = [k for k in state if k not in wanted and not any(p.search(k) for p in skip)]
  missing = [k for k in wanted if k not in state]
  problems = _listed('in the file, but nothing here takes it', unused)
  problems += _listed('wanted here, but not in the file', missing)

  other = [
    key
    for pattern, wanted_array in constants.items()
    for key, array in state.items()
    if re.search(pattern, key) and not np.allclose(array, wanted_array(np.shape(array)), atol=1e-6)
  ]
  problems += _listed('constant here, but another in the file', other)

  tree: dict[str, dict] = {'params': {}, 'stats': {}}
  wrong = []
  for key, entry in wanted.items():
    if key not in state:
      continue
    array = np.asarray(state[key])
    if array.dtype.kind == 'f' or array.dtype.name == 'bfloat16':
      array = array.astype(np.float32)
    try:
      _put(tree, entry.target, layouts.to_ours(entry.layout, array))
    except layouts.LayoutError as error:
      wrong.append(f'{key}: {error}')
  problems += _listed('of another rank', wrong)
  for entry in entries:
    if entry.layout == 'rows' and expected is not None and not missing:
      _repeat_rows(tree, expected, entry.target)
  if expected is not None:
    names = {'/'.join(e.target): e.key for e in entries}
    problems += compare(tree, expected, names=names, missing=not missing)
  if problems:
    raise MappingError(
      f'the checkpoint does not fit ({len(state)} arrays in the file, {len(wanted)} wanted):\n'
      + '\n'.join(problems)
    )
  return tree


def _repeat_rows(tree: Any, expected: Any, target: tuple[str, ...]) -> None:
  """In place: [C] at `target` becomes the [n, C] that is expected there."""
  for name in target[:-1]:
    tree, expected = tree.get(name, {}), expected.get(name, {})
  wanted = getattr(expected.get(target[-1]), 'shape', ())
  value = tree[target[-1]]
  if value.ndim == 1 and wanted[1:] == value.shape:
    tree[target[-1]] = np.broadcast_to(value, wanted).copy()


def export(tree: Mapping[str, dict], entries: Iterable[Entry]) -> dict[str, np.ndarray]:
  """The inverse of `convert`: {key: array in PyTorch's layout} for the entries' networks.

  Raises:
    MappingError: an entry's path is not in `tree`.
  """
  state, missing = {}, []
  for entry in entries:
    value: Any = tree
    for name in entry.target:
      value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
      missing.append(f'{"/".join(entry.target)} (for {entry.key})')
      continue
    state[entry.key] = layouts.to_theirs(entry.layout, np.asarray(value))
  if missing:
    raise MappingError('\n'.join(_listed('wanted by the entries, but not in the tree', missing)))
  return state


def compare(
  got: Mapping[str, Any],
  expected: Mapping[str, Any],
  *,
  names: Mapping[str, str] | None = None,
  missing: bool = True,
) -> list[str]:
  """Differences between two trees of arrays, as lines for an error; [] when they agree.

  Only networks that are in `got` are compared, so that a generator alone may be loaded.

  Args:
    got: {'params': {network: tree}, 'stats': {network: tree}}, or any nested dict of these.
    expected: the same of arrays or shape structs.
    names: {'params/generator/...': the name that the file has for it}, shown beside it.
    missing: also report what is in `expected` but not in `got`.
  """
  networks = {n for part in got.values() for n in part}
  ours = flatten(got, separator='/')
  theirs = {
    key: leaf
    for key, leaf in flatten(expected, separator='/').items()
    if key.split('/')[1] in networks
  }
  label = lambda key: f'{key} (from {names[key]})' if names and key in names else key
  shapes = []
  for key in ours.keys() & theirs.keys():
    if tuple(np.shape(ours[key])) != tuple(theirs[key].shape):
      shapes.append(
        f'{label(key)}: {tuple(np.shape(ours[key]))} in the file, '
        f'{tuple(theirs[key].shape)} in the network'
      )
  problems = _listed('of another shape', sorted(shapes))
  extra = sorted(label(k) for k in ours.keys() - theirs.keys())
  problems += _listed('given, but the network has no such parameter', extra)
  if missing:
    lacking = sorted(label(k) for k in theirs.keys() - ours.keys())
    problems += _listed('a parameter of the network that nothing fills', lacking)
  return problems


def _weight(key, network, path, layout, bias) -> tuple[Entry, ...]:
  entries = (Entry(f'{key}.weight', network, (*path, 'kernel'), layout),)
  return entries + ((Entry(f'{key}.bias', network, (*path, 'bias')),) if bias else ())


def _put(tree: dict, path: tuple[str, ...], value: np.ndarray) -> None:
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  if path[-1] in tree:
    raise ValueError(f'two entries write {"/".join(path)}')
  tree[path[-1]] = value


def _listed(what: str, names: list[str]) -> list[str]:
  if not names:
    return []
  lines = [f'  {len(names)} {what}:'] + [f'    {name}' for name in names[:_SHOWN]]
  if len(names) > _SHOWN:
    lines.append(f'    ... and {len(names) - _SHOWN} more')
  return lines
