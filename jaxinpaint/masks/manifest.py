"""Frozen sets of masks: PNG files with a manifest that says how they were made.

A set's SHA-256 is `masks.mask_set_hash` of its masks in the order of the manifest: for each mask
its height and width as 8-byte little-endian integers, then its pixels row by row, eight to a byte,
the first in the highest bit, 1 = hole. How the PNG files are encoded does not enter it.
"""

import concurrent.futures
import dataclasses
import errno
import json
import multiprocessing
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

import jaxinpaint
from jaxinpaint.masks import draw as mask_draw
from jaxinpaint.masks import spec as masks
from jaxinpaint.masks.files import read_mask
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.runtime import atomic

NAME = 'manifest.json'
_FORMAT = 'jaxinpaint masks'
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Bin:
  """A part of a set.

  Attributes:
    label: its name, as '10-20'.
    low: shares of the hole lie in (low, high].
    high: likewise.
    masks: own specification; '': the set's.
  """

  label: str
  low: float
  high: float
  masks: str = ''

  @property
  def folder(self) -> str:
    """Of its files, below the set's."""
    return re.sub(r'[^A-Za-z0-9.-]+', '_', self.label)


@dataclasses.dataclass(frozen=True)
class File:
  """One mask: its path below the set's folder, its bin's label, hole share, SHA-256 of pixels."""

  name: str
  bin: str
  hole_share: float
  sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a frozen set is.

  Attributes:
    spec: specification of the masks.
    seed: of the draws.
    size: side of the masks.
    count: of masks in each bin.
    bins: in order.
    files: in order: by bin, then by image.
    sha256: of the set, see the module's text.
    library: version that drew it.
  """

  spec: str
  seed: int
  size: int
  count: int
  bins: tuple[Bin, ...]
  files: tuple[File, ...]
  sha256: str
  library: str

  def files_of(self, label: str) -> tuple[File, ...]:
    """Of a bin: the i-th belongs to image i."""
    return tuple(f for f in self.files if f.bin == label)


def parse_bins(text: str) -> tuple[Bin, ...]:
  """'10-20,20-40' in percent, or 'NAME=SPEC', as 'center 10=center:0.10' -> bins.

  Raises:
    ValueError: neither, or one is there twice.
  """
  bins = []
  for part in (p.strip() for p in text.split(',')):
    label, equals, spec = (x.strip() for x in part.partition('='))
    if equals:
      sampler = masks.make(spec)
      if not label:
        raise ValueError(f"bin {part!r} must be NAME=SPEC, as 'random 10=survey_random:0.10'")
      area = sampler.area or (0.0, 1.0)
      bins.append(Bin(label, *area, spec))
      continue
    try:
      low, high = (float(x) / 100 for x in part.rstrip('%').split('-'))
    except ValueError as error:
      raise ValueError(
        f'bin {part!r} must be LOW-HIGH in percent of hole, as 10-20, or NAME=SPEC'
      ) from error
    if not 0 <= low < high <= 1:
      raise ValueError(f'bin {part!r} must satisfy 0 <= LOW < HIGH <= 100')
    bins.append(Bin(f'{100 * low:g}-{100 * high:g}', low, high))
  if len({b.folder for b in bins}) != len(bins):
    raise ValueError(f'bins {text!r} must each be there once, with names that differ as folders')
  return tuple(bins)


def freeze(
  spec: str,
  bins: Sequence[Bin],
  count: int,
  size: int,
  output: str | os.PathLike,
  *,
  seed: int = 0,
  workers: int = 0,
  progress: Callable[[int, int], object] = lambda done, of: None,
) -> Manifest:
  """Draws `count` masks for each bin and writes them with a manifest; all or nothing.

  They are the masks that `evaluation.mask_sets.make(spec, bins, size, size, seed=seed)` hands out
  to the images 0 ... count - 1.

  Args:
    spec: of the masks; may be '' where every bin has its own.
    bins: see `parse_bins`.
    count: of masks in each bin.
    size: side.
    output: a new or empty folder. Where the same set is there already, it is checked and left.
    seed: of the draws.
    workers: processes that draw; 0 or 1: this one.
    progress: gets the numbers of masks done and in all.

  Raises:
    ValueError: wrong specification, a bin that it cannot reach, masks that are files.
    FileExistsError: something else is in `output`, or another set.
    OSError: it cannot be written.
  """
  for name, value, least in (('count', count, 1), ('seed', seed, 0)):
    if value < least:
      raise ValueError(f'{name} {value} must be at least {least}')
  output = pathlib.Path(output).expanduser()
  draws = {b.label: _drawn(b, spec, size, seed) for b in bins}
  for draw in draws.values():
    draw(0)  # a bin that this size cannot reach fails here
  _check_output(output)
  existing = read(output) if (output / NAME).is_file() else None
  if existing:
    _check_same(existing, output, (spec, seed, size, count, tuple(bins)))
    verify(output, existing)
    return existing

  output.parent.mkdir(parents=True, exist_ok=True)
  try:
    with atomic.folder(output) as partial:
      jobs = []
      for b in bins:
        (partial / b.folder).mkdir()
        jobs += [(b, i, draws[b.label], partial / b.folder / f'{i:05d}.png') for i in range(count)]
      files, digest = [], masks.SetHash()
      for (b, _, _, path), mask in zip(jobs, _written(jobs, workers), strict=True):
        digest.add(mask)
        name = path.relative_to(partial).as_posix()
        files.append(File(name, b.label, float(mask.mean()), masks.mask_set_hash([mask])))
        progress(len(files), len(jobs))
      manifest = Manifest(
        spec,
        seed,
        size,
        count,
        tuple(bins),
        tuple(files),
        digest.hexdigest(),
        jaxinpaint.__version__,
      )
      (partial / NAME).write_text(json.dumps(_to_json(manifest), indent=1) + '\n')
  except OSError as error:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # somebody has filled `output` meanwhile
      _check_output(output)
    raise
  return manifest


def _drawn(b: Bin, spec: str, size: int, seed: int) -> mask_draw.Drawn:
  if not (b.masks or spec):
    raise ValueError(f'bin {b.label!r} has no masks of its own: give --spec')
  rule = mask_draw.of_bin if b.masks else mask_draw.in_range
  drawn = rule(b.masks or spec, b.low, b.high, size, size, seed)
  if isinstance(drawn.sampler, masks.FileMasks):
    raise ValueError(
      f'masks {b.masks or spec!r} are files already: only masks that are drawn can be frozen'
    )
  return drawn


def _check_output(output: pathlib.Path) -> None:
  if not output.exists():
    return
  if not output.is_dir():
    raise FileExistsError(f'{output} is a file: choose another --output')
  if any(output.iterdir()) and not (output / NAME).is_file():
    raise FileExistsError(
      f'the folder {output} is not empty and holds no frozen masks: choose another --output'
    )


def _check_same(existing: Manifest, output: pathlib.Path, wanted: tuple) -> None:
  have = (existing.spec, existing.seed, existing.size, existing.count, existing.bins)
  names = ('spec', 'seed', 'size', 'count', 'bins')
  shown = lambda x: ','.join(b.label for b in x) if isinstance(x, tuple) else x
  other = [
    f'{name} {shown(h)} instead of {shown(w)}'
    for name, h, w in zip(names, have, wanted, strict=True)
    if h != w
  ]
  if other:
    raise FileExistsError(
      f'{output} holds another frozen set ({"; ".join(other)}): choose another --output'
    )


def _written(jobs: Sequence[tuple], workers: int) -> Iterator[np.ndarray]:
  """Draws and writes in order; yields the masks."""
  if workers < 2:
    yield from map(_write, jobs)
    return
  # spawn: a process that has started JAX must not be forked
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
    yield from pool.map(_write, jobs, chunksize=max(1, min(32, len(jobs) // workers)))


def _write(job: tuple[Bin, int, mask_draw.Drawn, pathlib.Path]) -> np.ndarray:
  _, index, draw, path = job
  mask = draw(index)
  path.write_bytes(cv2.imencode('.png', mask * np.uint8(255))[1].tobytes())
  return mask


def _to_json(manifest: Manifest) -> dict[str, Any]:
  return {'format': _FORMAT, 'version': _VERSION, **dataclasses.asdict(manifest)}


def read(folder: str | os.PathLike) -> Manifest | None:
  """The manifest of a folder; None where there is none of this library.

  Raises:
    ValueError: it is one, but damaged or of a later version.
  """
  path = pathlib.Path(folder).expanduser() / NAME
  if not path.is_file():
    return None
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{path} cannot be read ({error}): restore it, or freeze the masks again'
    ) from error
  if not isinstance(content, dict) or content.get('format') != _FORMAT:
    return None  # of another program
  if content.get('version') != _VERSION:
    raise ValueError(
      f'{path} is of version {content.get("version")}, this library reads {_VERSION}: update it'
    )
  try:
    fields = {f.name: content[f.name] for f in dataclasses.fields(Manifest)}
    fields['bins'] = tuple(Bin(**b) for b in content['bins'])
    fields['files'] = tuple(File(**f) for f in content['files'])
    return Manifest(**fields)
  except (KeyError, TypeError) as error:
    raise ValueError(
      f'{path} is damaged ({error!r}): restore it, or freeze the masks again'
    ) from error


def verify(folder: str | os.PathLike, manifest: Manifest) -> None:
  """Reads every file of a set.

  Raises:
    ValueError: a file is missing, cannot be read or has other pixels, or the set's SHA-256 or the
      counts are not those of the manifest; names the files.
  """
  folder = pathlib.Path(folder).expanduser()
  trouble, digest = [], masks.SetHash()
  for file in manifest.files:
    try:
      mask = read_mask(folder / file.name, warn=None)
    except UnreadableImage as error:
      trouble.append(
        f'{file.name} ({"missing" if not (folder / file.name).exists() else error.why})'
      )
      continue
    digest.add(mask)
    if masks.mask_set_hash([mask]) != file.sha256:
      trouble.append(f'{file.name} (other pixels)')
  if trouble:
    raise ValueError(
      f'masks {folder} are not as they were frozen: {", ".join(trouble[:5])}'
      + (f' and {len(trouble) - 5} more' if len(trouble) > 5 else '')
      + ': restore the files, or freeze the masks again'
    )
  wrong = [b.label for b in manifest.bins if len(manifest.files_of(b.label)) != manifest.count]
  if digest.hexdigest() != manifest.sha256 or wrong or not manifest.files:
    raise ValueError(
      f'masks {folder}: {NAME} was altered, its files and its SHA-256 {manifest.sha256[:12]}... do '
      'not belong together: restore it, or freeze the masks again'
    )
