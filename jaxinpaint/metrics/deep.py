"""Metrics that need a network of features, and these networks on the devices.

  networks = deep.Networks.load(protocol.metrics)
  networks.missing                                      # {metric: why not, and what to do}
  networks.pair(metric, truth, output)                  # f64[B]
  features = networks.features(images)                  # f32[B,2048]
  networks.set_value(metric, real, fake)                # one number

Without its network a metric is not computed; nothing replaces the network.

Images are divided over all local devices. The first call with an image size fixes how many images
each device gets; later calls with fewer images are filled up, and the extra results are dropped. So
every image runs through the same compiled program, and its numbers depend on its place in the batch
in the last digit of float32 at most.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinpaint.features import inception, lpips, published
from jaxinpaint.metrics import (
  fid,
  inception_scores,
  pixels,
)
from jaxinpaint.metrics.protocol import DEEP, Metric
from jaxinpaint.runtime import digest
from jaxinpaint.weights import hub

_MOST_ROWS = 16  # on a device at a time


@dataclasses.dataclass(frozen=True)
class Function:
  """How a metric is computed.

  Attributes:
    kind: of `protocol.DEEP`: 'pair': a number for each image, from truth and output; 'set': a
      number for each bin, from the Inception features of all its images; 'samples': a number for
      each image, from its truth and several outputs of one system.
    options: {name: default} of the options that a protocol may set.
  """

  kind: str
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# 'best_of_k' uses `net` if it chooses by 'lpips', and `definition` if it chooses by 'ssim'.
FUNCTIONS: dict[str, Function] = {
  'lpips': Function(DEEP['lpips'], {'net': 'alex'}),
  'fid': Function(DEEP['fid'], {'ddof': 1}),
  'p_ids': Function(DEEP['p_ids']),
  'u_ids': Function(DEEP['u_ids']),
  'lpips_diversity': Function(DEEP['lpips_diversity'], {'net': 'alex'}),
  'best_of_k': Function(
    DEEP['best_of_k'], {'of': 'lpips', 'net': 'alex', 'definition': 'uniform7'}
  ),
}
# The metrics that `best_of_k` may choose by, and how the best value is found.
BEST_OF: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'lpips': lambda values: values.min(0),
  'l1_percent': lambda values: values.min(0),
  'psnr': lambda values: values.max(0),
  'ssim': lambda values: values.max(0),
}
FILES = ('inception',) + tuple(f'lpips_{n}_{p}' for n in lpips.CHANNELS for p in ('trunk', 'heads'))


def options(metric: Metric) -> dict[str, Any]:
  """The metric's options, with defaults.

  Raises:
    ValueError: an unknown function or option, or a wrong value.
  """
  function = FUNCTIONS.get(metric.function)
  if function is None:
    raise ValueError(
      f'metric {metric.name!r}: no function {metric.function!r}; there are: {", ".join(FUNCTIONS)}'
    )
  unknown = metric.options.keys() - function.options.keys() - {'data_range'}
  if unknown:
    raise ValueError(
      f'metric {metric.name!r}: {metric.function} has no option {sorted(unknown)}; '
      f'there are: {", ".join(function.options) or "none"}'
    )
  chosen = dict(function.options) | dict(metric.options)
  chosen.pop('data_range', None)
  for name, choices in (('net', lpips.CHANNELS), ('of', BEST_OF), ('ddof', (0, 1))):
    if name in chosen and chosen[name] not in choices:
      raise ValueError(
        f'metric {metric.name!r}: {name} {chosen[name]!r} is not one of '
        f'{", ".join(map(str, choices))}'
      )
  return chosen


def network(metric: Metric) -> str:
  """The network that a metric needs, by its name in `weights fetch`; '': none."""
  chosen = options(metric)
  if FUNCTIONS[metric.function].kind == 'set':
    return 'fid-inception'
  if metric.function == 'best_of_k' and chosen['of'] != 'lpips':
    return ''
  return f'lpips-{chosen["net"]}'


def files_of(network: str) -> tuple[str, ...]:
  """The names in `FILES` of a network's weights: 'fid-inception' -> ('inception',), '' -> ()."""
  if network.startswith('lpips-'):
    net = network.removeprefix('lpips-')
    return f'lpips_{net}_trunk', f'lpips_{net}_heads'
  return ('inception',) if network else ()


class Networks:
  """The networks of some metrics; each is on all local devices.

  Attributes:
    missing: {name of a metric: why it is not computed, and which command helps}.
    origins: {name of a network: the files of its weights, with their SHA-256}.
  """

  def __init__(
    self,
    variables: Mapping[str, Any],
    missing: Mapping[str, str],
    origins: Mapping[str, str] | None = None,
  ):
    """See `load`; `variables`: {name of `weights fetch`: what the feature's `load` gives}."""
    self.missing, self.origins = dict(missing), dict(origins or {})
    self._mesh = Mesh(np.asarray(jax.local_devices()), ('rows',))
    self._whole = NamedSharding(self._mesh, PartitionSpec())
    self._split = NamedSharding(self._mesh, PartitionSpec('rows'))
    self._variables = {k: jax.device_put(v, self._whole) for k, v in variables.items()}
    self._functions: dict[tuple[str, str], Callable] = {}
    self._rows: dict[tuple, int] = {}
    self._digest: str | None = None  # of the Inception's weights
    self._scores: tuple[str, tuple[float, float]] = ('', (math.nan, math.nan))

  @classmethod
  def load(
    cls,
    wanted: Sequence[Metric],
    files: Mapping[str, str | os.PathLike] | None = None,
    *,
    size: tuple[int, int] | None = None,
  ) -> 'Networks':
    """The networks that metrics need; metrics that need none are ignored.

    Nothing is downloaded: `missing` names the metrics whose weights are not in the cache, with the
    command that fetches them.

    Args:
      wanted: metrics of a protocol.
      files: of one's own instead of those in the cache: {one of `FILES`: path}.
      size: height and width of the images; metrics that cannot see such small ones are missing.

    Raises:
      ValueError: a metric's options; a name or content of `files`.
      FileNotFoundError: a file of `files` is not there.
    """
    files = {k: v for k, v in (files or {}).items() if v}
    if unknown := files.keys() - set(FILES):
      raise ValueError(f'no network wants a file {sorted(unknown)}; there are: {", ".join(FILES)}')
    variables: dict[str, Any] = {}
    origins: dict[str, str] = {}
    reasons: dict[str, str] = {}
    missing: dict[str, str] = {}
    for metric in wanted:
      if metric.function not in FUNCTIONS:
        continue
      name = network(metric)
      if name and name not in variables and name not in reasons:
        try:
          variables[name], origins[name] = _load(name, files)
        except _NotHere as error:
          reasons[name] = str(error)
      if why := reasons.get(name, '') or _lacking(metric) or _too_small(name, size):
        missing[metric.name] = why
    return cls(variables, missing, origins)

  def pair(self, metric: Metric, truth: np.ndarray, output: np.ndarray) -> np.ndarray:
    """A number for each pair of images, f64[B].

    Args:
      metric: of the kind 'pair'.
      truth: uint8[B,H,W,3], or float in [0,1]; RGB.
      output: likewise; the types may differ.

    Raises:
      ValueError: a metric of another kind, or one that is missing; shapes that differ.
    """
    chosen = self._options(metric, 'pair')
    return self._lpips(chosen['net'], truth, output)

  def features(self, images: np.ndarray) -> np.ndarray:
    """f32[B,2048] of uint8[B,H,W,3], or float in [0,1]; RGB.

    Raises:
      ValueError: no metric in use needs features, or their weights are missing.
    """
    return self._run(
      'fid-inception', 'pool3', lambda v, x: inception.features(v, x)['pool3'], images
    )

  def features_of_set(self, images: Sequence[np.ndarray], batch_size: int = 64) -> np.ndarray:
    """`features` of a whole set of real images, from the cache if possible (`fid.cached_features`).

    The key in the cache is a hash of the pixels, the weights and the preprocessing.

    Args:
      images: uint8[H,W,3] each, all of one size; read once for the key, and again to compute.
      batch_size: how many images are read at a time.
    """
    if self._digest is None:
      weights = jax.tree.leaves(self._weights('fid-inception'))
      self._digest = digest.of(*map(np.asarray, weights))
    count = range(len(images))

    def compute() -> np.ndarray:
      parts = [count[i : i + batch_size] for i in count[::batch_size]]
      if not parts:
        return np.zeros((0, inception.DIMENSIONS), np.float32)
      return np.concatenate([self.features(np.stack([images[i] for i in p])) for p in parts])

    identity = f'{inception.IDENTITY}, {self._digest}'
    return fid.cached_features(fid.dataset_key((images[i] for i in count), identity), compute)

  def set_value(self, metric: Metric, real: np.ndarray, fake: np.ndarray) -> float:
    """One number from two sets of features; nan, with a warning, if there are fewer than two.

    Args:
      metric: of the kind 'set'.
      real: f32[N,2048], of the truths.
      fake: f32[N,2048], of the outputs; for P-IDS row i belongs to row i of `real`.

    Raises:
      ValueError: a metric of another kind, or one that is missing; shapes.
    """
    chosen = self._options(metric, 'set')
    if min(len(real), len(fake)) < 2:
      logging.warning('%s needs at least 2 images in a bin.', metric.label)
      return math.nan
    if metric.function == 'fid':
      return fid.from_features(real, fake, ddof=chosen['ddof'])
    both = digest.of(real) + digest.of(fake)
    if self._scores[0] != both:  # one fit gives both
      self._scores = both, inception_scores.scores(real, fake)
    return self._scores[1][0 if metric.function == 'p_ids' else 1]

  def of_samples(self, metric: Metric, truth: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """f64[B]: a number for each image, from several outputs.

    Args:
      metric: of the kind 'samples'.
      truth: uint8[B,H,W,3], or float in [0,1]; RGB.
      samples: [K,B,H,W,3] likewise.

    Raises:
      ValueError: a metric of another kind, or one that is missing; shapes; a single sample's
        diversity.
    """
    chosen = self._options(metric, 'samples')
    truth, samples = np.asarray(truth), np.asarray(samples)
    if samples.ndim != 5 or samples.shape[1:] != truth.shape or not len(samples):
      raise ValueError(
        f'samples have the shape {samples.shape}, the truth {truth.shape}: wanted is K of each'
      )
    if metric.function == 'lpips_diversity':
      net = chosen['net']
      run = lambda v, x: lpips.diversity(v, _to_float(x), net=net)
      return self._run(f'lpips-{net}', 'diversity', run, np.moveaxis(samples, 0, 1)).astype(
        np.float64
      )
    return BEST_OF[chosen['of']](np.stack([self._number(chosen, truth, one) for one in samples]))

  def _number(self, chosen: Mapping[str, Any], truth: np.ndarray, output: np.ndarray) -> np.ndarray:
    """f64[B]: the number that `best_of_k` chooses by."""
    if chosen['of'] == 'lpips':
      return self._lpips(chosen['net'], truth, output)
    function, _ = pixels.FUNCTIONS[chosen['of']]
    if truth.dtype != output.dtype:
      truth, output = (x / 255 if x.dtype == np.uint8 else x for x in (truth, output))
    more = {'data_range': 255 if output.dtype == np.uint8 else 1}
    if chosen['of'] == 'ssim':
      more['definition'] = chosen['definition']
    return np.array([function(a, b, **more) for a, b in zip(truth, output, strict=True)])

  def _lpips(self, net: str, truth: np.ndarray, output: np.ndarray) -> np.ndarray:
    if np.shape(truth) != np.shape(output):
      raise ValueError(f'images have shapes {np.shape(truth)} and {np.shape(output)}: not equal')
    run = lambda v, a, b: lpips.distance(v, _to_float(a), _to_float(b), net=net)
    return self._run(f'lpips-{net}', 'distance', run, truth, output).astype(np.float64)

  def _options(self, metric: Metric, kind: str) -> dict[str, Any]:
    chosen = options(metric)
    if FUNCTIONS[metric.function].kind != kind:
      raise ValueError(
        f'metric {metric.name!r} is of the kind {FUNCTIONS[metric.function].kind!r}, not {kind!r}'
      )
    if metric.name in self.missing:
      raise ValueError(f'{metric.label} is not computed: {self.missing[metric.name]}')
    return chosen

  def _weights(self, name: str) -> Any:
    if name not in self._variables:
      raise ValueError(
        f'the weights of {name} are not loaded: name a metric that needs them, and get them with '
        f'`jaxinpaint weights fetch {name}`'
      )
    return self._variables[name]

  def _run(self, name: str, part: str, function: Callable, *images: np.ndarray) -> np.ndarray:
    """f32[B,...]: a function of (weights, *images), run on all devices."""
    weights = self._weights(name)
    images = [np.asarray(x) for x in images]
    images = [x if x.dtype == np.uint8 else x.astype(np.float32) for x in images]
    if any(x.shape[-1] != 3 or x.ndim < 4 for x in images):
      raise ValueError(f'images have the shape {images[0].shape}, wanted is [B, H, W, 3]')
    if (name, part) not in self._functions:
      self._functions[name, part] = jax.jit(
        _precisely(function),
        in_shardings=(self._whole, *[self._split] * len(images)),
        out_shardings=self._split,
      )
    run = self._functions[name, part]
    n, devices = len(images[0]), self._mesh.size
    shape = (name, part, *images[0].shape[1:])
    rows = max(self._rows.get(shape, 1), min(_MOST_ROWS, -(-n // devices)))
    self._rows[shape] = rows
    step, results = rows * devices, []
    for start in range(0, max(n, 1), step):
      piece = [_fill_up(x[start : start + step], step) for x in images]
      results.append(run(weights, *jax.device_put(piece, self._split)))
      if len(results) > 1:  # one part runs while the next is copied to the devices
        results[-2] = np.asarray(results[-2])
    return np.concatenate([np.asarray(x) for x in results])[:n]


class _NotHere(Exception):
  """Weights are missing; the message says why, and what to do."""


def _load(name: str, files: Mapping[str, str | os.PathLike]) -> tuple[Any, str]:
  """(variables of the network, where they are from), from given files or from the cache."""
  own = [files.get(file) for file in files_of(name)]
  command = f'`jaxinpaint weights fetch {name}`'
  if not all(own):
    try:
      cached = hub.find(name, published.FILES, need=[w is None for w in own])
    except OSError as error:
      raise _NotHere(str(error)) from error
    if cached is None:
      raise _NotHere(f'its weights are not here; get them with {command}')
    own = [w or c for w, c in zip(own, cached, strict=True)]
  net = name.removeprefix('lpips-')
  variables = inception.load(own[0]) if net == name else lpips.load(net, *own)
  return variables, ', '.join(f'{path} (SHA-256 {digest.of_file(path)[:12]})' for path in own)


def _lacking(metric: Metric) -> str:
  if metric.function in ('p_ids', 'u_ids') and not inception_scores.available():
    return inception_scores.MISSING
  return ''


def _too_small(name: str, size: tuple[int, int] | None) -> str:
  net = name.removeprefix('lpips-')
  if size is None or net == name or min(size) >= lpips.MIN_SIDE[net]:
    return ''
  return (
    f'images of {size[0]} x {size[1]} are too small for it: LPIPS with {net} needs '
    f'{lpips.MIN_SIDE[net]} pixels on each side'
  )


def _precisely(function: Callable) -> Callable:
  """The function in full float32; GPUs and TPUs else round the factors of products."""

  def run(*arguments: Any) -> jax.Array:
    with jax.default_matmul_precision('highest'):
      return function(*arguments)

  return run


def _to_float(x: jax.Array) -> jax.Array:
  return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x


def _fill_up(rows: np.ndarray, count: int) -> np.ndarray:
  lacking = count - len(rows)
  return np.concatenate([rows, np.zeros((lacking, *rows.shape[1:]), rows.dtype)])
