"""FID: the Fréchet distance between two sets of pictures, in the features of Inception.

Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter: "GANs Trained by a Two Time-Scale Update Rule
Converge to a Local Nash Equilibrium", NeurIPS 2017, https://arxiv.org/abs/1706.08500, eq. 6:

  |mean1 - mean2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

Numbers are those of pytorch-fid (sample covariance); MAT's code uses the population covariance
(`ddof=0`). FID falls with the number of pictures, so only FIDs of equally many pictures can be
compared. With fewer than 2048 pictures the covariance of the 2048 features does not have full rank.
"""

import hashlib
import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable

import numpy as np
import scipy.linalg
from absl import logging

from jaxinpaint.features import inception
from jaxinpaint.runtime import atomic, digest
from jaxinpaint.weights import hub

FULL_RANK = inception.DIMENSIONS
_BLOCK = 512  # how many rows are added up at a time


class Statistics:
  """Number, sum and sum of outer products of rows of features, in float64.

  Rows are added up in blocks of 512, in their order, however many rows a call of `add` brings. So
  the result is the same to the bit for all batch sizes. `merge` differs from one pass only by the
  rounding of float64 (1e-15).
  """

  def __init__(self, dimensions: int = inception.DIMENSIONS):
    """Without any rows."""
    self._n = 0
    self._sum = np.zeros(dimensions)
    self._outer = np.zeros((dimensions, dimensions))
    self._pending: list[np.ndarray] = []

  @property
  def n(self) -> int:
    """How many rows were added."""
    return self._n

  @property
  def dimensions(self) -> int:
    """How many features a row has."""
    return len(self._sum)

  def add(self, features: np.ndarray) -> 'Statistics':
    """Adds rows, [n, dimensions]; returns itself.

    Raises:
      ValueError: another shape; a value that is not finite.
    """
    rows = np.array(features, np.float64)
    if rows.ndim != 2 or rows.shape[1] != self.dimensions:
      raise ValueError(f'features have the shape {rows.shape}, wanted is [n, {self.dimensions}]')
    if not np.isfinite(rows).all():
      raise ValueError('features have NaN or infinity: the weights or the images are damaged')
    self._n += len(rows)
    self._pending.append(rows)
    if sum(map(len, self._pending)) >= _BLOCK:
      rows = np.concatenate(self._pending)
      whole = len(rows) // _BLOCK * _BLOCK
      for start in range(0, whole, _BLOCK):
        block = rows[start : start + _BLOCK]
        self._sum += block.sum(0)
        self._outer += block.T @ block
      self._pending = [rows[whole:]]
    return self

  def merge(self, other: 'Statistics') -> 'Statistics':
    """New statistics, of the rows of both.

    Raises:
      ValueError: their rows have different lengths.
    """
    if other.dimensions != self.dimensions:
      raise ValueError(f'statistics of {self.dimensions} and {other.dimensions} features')
    both = Statistics(self.dimensions)
    both._n = self.n + other.n
    (sum1, outer1), (sum2, outer2) = self._totals(), other._totals()
    both._sum, both._outer = sum1 + sum2, outer1 + outer2
    return both

  def mean(self) -> np.ndarray:
    """f64[dimensions].

    Raises:
      ValueError: no rows.
    """
    if not self.n:
      raise ValueError('no pictures were added: there is no mean')
    return self._totals()[0] / self.n

  def covariance(self, ddof: int = 1) -> np.ndarray:
    """f64[dimensions, dimensions], divided by n - ddof: 1 as pytorch-fid, 0 as MAT.

    Raises:
      ValueError: too few rows.
    """
    if self.n <= ddof:
      raise ValueError(f'a covariance (ddof {ddof}) needs over {ddof} pictures, not {self.n}')
    total, outer = self._totals()
    return (outer - np.outer(total, total) / self.n) / (self.n - ddof)

  def save(self, path: str | os.PathLike) -> None:
    """Writes an npz file atomically."""
    total, outer = self._totals()
    _write(pathlib.Path(path), {'n': np.int64(self.n), 'sum': total, 'outer': outer})

  @classmethod
  def load(cls, path: str | os.PathLike) -> 'Statistics':
    """Reads what `save` wrote; nothing is unpickled.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds something else, or is damaged.
    """
    with _naming(path, 'statistics of features'):
      arrays = _read(pathlib.Path(path), ('n', 'sum', 'outer'))
      total, outer = (arrays[k].astype(np.float64) for k in ('sum', 'outer'))
      if total.ndim != 1 or outer.shape != total.shape * 2 or arrays['n'].shape:
        raise ValueError(f'shapes {total.shape} and {outer.shape} do not belong together')
    statistics = cls(len(total))
    statistics._n, statistics._sum, statistics._outer = int(arrays['n']), total, outer
    return statistics

  def _totals(self) -> tuple[np.ndarray, np.ndarray]:
    """(sum, sum of outer products), with the rows of the last, unfinished block."""
    if not any(map(len, self._pending)):
      return self._sum, self._outer
    rows = np.concatenate(self._pending)
    return self._sum + rows.sum(0), self._outer + rows.T @ rows


def frechet_distance(
  mean1: np.ndarray,
  covariance1: np.ndarray,
  mean2: np.ndarray,
  covariance2: np.ndarray,
  *,
  eps: float = 1e-6,
  method: str = 'symmetric',
) -> float:
  """Fréchet distance of two Gaussians.

  The trace of the root of C1 C2 is computed

  - 'symmetric': from R C2 R with R R = C1, which has the same eigenvalues, real and not negative:
    several times faster, and stable if a covariance does not have full rank;
  - 'sqrtm': as in pytorch-fid, from the matrix root; `eps` is added to both diagonals if the root
    is not finite, and an imaginary part up to 1e-3 is dropped.

  Args:
    mean1: f64[d].
    covariance1: f64[d,d].
    mean2: likewise.
    covariance2: likewise.
    eps: see above.
    method: see above.

  Raises:
    ValueError: shapes that do not belong together; values that are not finite; a root with an
      imaginary part above 1e-3, or an eigenvalue that would give one.
  """
  mean1, mean2 = np.asarray(mean1, np.float64), np.asarray(mean2, np.float64)
  c1, c2 = np.asarray(covariance1, np.float64), np.asarray(covariance2, np.float64)
  d = len(mean1)
  if mean1.shape != mean2.shape or {c1.shape, c2.shape} != {(d, d)}:
    raise ValueError(
      f'means {mean1.shape} and {mean2.shape} with covariances {c1.shape} and {c2.shape}: wanted '
      'are [d] and [d, d], with the same d'
    )
  if not all(np.isfinite(x).all() for x in (mean1, mean2, c1, c2)):
    raise ValueError('a mean or covariance has NaN or infinity')
  if method == 'symmetric':
    trace = _symmetric_trace(c1, c2)
  elif method == 'sqrtm':
    trace = _sqrtm_trace(c1, c2, eps)
  else:
    raise ValueError(f"method {method!r} must be 'symmetric' or 'sqrtm'")
  difference = mean1 - mean2
  return float(difference @ difference + np.trace(c1) + np.trace(c2) - 2 * trace)


def _symmetric_trace(c1: np.ndarray, c2: np.ndarray) -> float:
  root = _root(c1)
  return float(np.sqrt(_not_negative(scipy.linalg.eigvalsh(root @ c2 @ root))).sum())


def _root(c: np.ndarray) -> np.ndarray:
  values, vectors = scipy.linalg.eigh(c)
  return (vectors * np.sqrt(_not_negative(values))) @ vectors.T


def _not_negative(values: np.ndarray) -> np.ndarray:
  """Eigenvalues with those below zero set to 0; refuses more than rounding errors."""
  low, high = values.min(initial=0), np.abs(values).max(initial=0)
  # The root of `low` is the imaginary part that pytorch-fid refuses above 1e-3.
  if low < -max(1e-6, 1e-9 * high):
    raise ValueError(f'a covariance has the eigenvalue {low:.3g}: it is not one')
  return np.maximum(values, 0)


def _sqrtm_trace(c1: np.ndarray, c2: np.ndarray, eps: float) -> float:
  root = scipy.linalg.sqrtm(c1 @ c2)
  if not np.isfinite(root).all():
    logging.warning('FID: the product of the covariances is singular; adding %g to both.', eps)
    offset = eps * np.eye(len(c1))
    root = scipy.linalg.sqrtm((c1 + offset) @ (c2 + offset))
  if np.iscomplexobj(root):
    imaginary = np.abs(np.diagonal(root).imag).max()
    if not imaginary <= 1e-3:
      raise ValueError(f'the root of the covariances has an imaginary part of {imaginary:.3g}')
    root = root.real
  return float(np.trace(root))


def from_statistics(real: Statistics, fake: Statistics, *, ddof: int = 1) -> float:
  """FID of two sets by their statistics; `from_features` is better if the features are at hand.

  Raises:
    ValueError: as `frechet_distance`; too few pictures.
  """
  _warn_few(min(real.n, fake.n), real.dimensions)
  return frechet_distance(real.mean(), real.covariance(ddof), fake.mean(), fake.covariance(ddof))


def from_features(real: np.ndarray, fake: np.ndarray, *, ddof: int = 1) -> float:
  """FID of two sets of features, [n, d] and [m, d].

  With fewer pictures than features the trace of the root is the sum of the singular values of
  X Y^T / sqrt((n - ddof)(m - ddof)), X and Y the rows less their means: a matrix of n x m instead
  of d x d, without the zeros whose roots are only rounding.

  Raises:
    ValueError: shapes; too few pictures; a value that is not finite.
  """
  x, y = np.asarray(real, np.float64), np.asarray(fake, np.float64)
  if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
    raise ValueError(f'features of shapes {x.shape} and {y.shape}: wanted are [n, d] and [m, d]')
  n, m, d = len(x), len(y), x.shape[1]
  if min(n, m) >= d:
    return from_statistics(Statistics(d).add(x), Statistics(d).add(y), ddof=ddof)
  if min(n, m) <= ddof:
    raise ValueError(f'FID (ddof {ddof}) needs over {ddof} pictures in each set, not {min(n, m)}')
  if not (np.isfinite(x).all() and np.isfinite(y).all()):
    raise ValueError('features have NaN or infinity: the weights or the images are damaged')
  _warn_few(min(n, m), d)
  difference = x.mean(0) - y.mean(0)
  x, y = x - x.mean(0), y - y.mean(0)
  # If one set has more than d pictures, its n x m matrix may be larger than d x d.
  y = scipy.linalg.qr(y, mode='r')[0][:d] if m > d else y
  x = scipy.linalg.qr(x, mode='r')[0][:d] if n > d else x
  trace = scipy.linalg.svdvals(x @ y.T).sum() / math.sqrt((n - ddof) * (m - ddof))
  spread = np.square(x).sum() / (n - ddof) + np.square(y).sum() / (m - ddof)
  return float(difference @ difference + spread - 2 * trace)


_WARNED: set[int] = set()


def _warn_few(n: int, dimensions: int) -> None:
  if n < dimensions and n not in _WARNED:
    _WARNED.add(n)  # once, not for every row and bin
    logging.warning(
      'FID of %d pictures: below %d the covariance has not full rank, and the figure depends '
      'strongly on their number; compare it only with figures of as many pictures.',
      n,
      dimensions,
    )


def dataset_key(images: Iterable[np.ndarray], preprocessing: str = inception.IDENTITY) -> str:
  """SHA-256 of the pixels of uint8[H,W,3] pictures in their order, and of `preprocessing`.

  Raises:
    ValueError: a picture of another type or shape.
  """
  key = hashlib.sha256(preprocessing.encode())
  for image in images:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
      raise ValueError(f'a picture is {image.dtype}{list(image.shape)}, wanted is uint8[H, W, 3]')
    key.update(repr(image.shape).encode())
    key.update(np.ascontiguousarray(image))
  return key.hexdigest()


def cached_features(key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
  """Features of a real set, f32[n, d], from the cache; else they are computed and cached.

  They are in `hub.cache_folder()`/statistics/KEY.npz. A damaged file is computed again, with a
  warning; a folder that cannot be written to gives a warning only.

  Args:
    key: of `dataset_key`.
    compute: returns the features.
  """
  path = hub.cache_folder() / 'statistics' / f'{key}.npz'
  if path.exists():
    try:
      with _naming(path, 'features of a data set'):
        arrays = _read(path, ('features', 'sha256'))
        features = arrays['features']
        if _digest(features) != str(arrays['sha256']):
          raise ValueError('its digest is another')
      return features
    except (ValueError, OSError) as error:
      logging.warning('%s; they are computed again.', error)
  features = np.asarray(compute(), np.float32)
  try:
    _write(path, {'features': features, 'sha256': np.array(_digest(features))})
  except OSError as error:
    logging.warning('The features of this data set could not be kept for next time: %s.', error)
  return features


def _digest(features: np.ndarray) -> str:
  return digest.of(repr((features.shape, str(features.dtype))).encode(), features)


def _read(path: pathlib.Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
  with open(path, 'rb') as file, np.load(file, allow_pickle=False) as z:
    return {name: z[name] for name in names}


class _naming:
  """Turns every error of a damaged npz file into a ValueError with its path."""

  def __init__(self, path: str | os.PathLike, what: str):
    self._path, self._what = path, what

  def __enter__(self) -> None:
    return None

  def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
    wrong = (ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile)
    if isinstance(error, wrong):
      raise ValueError(f'{self._path} does not hold {self._what}: {error}') from error


def _write(path: pathlib.Path, values: dict[str, np.ndarray]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  atomic.write(path, lambda file: np.savez(file, **values))
