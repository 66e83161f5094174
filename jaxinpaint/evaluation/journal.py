"""What an evaluation has measured so far, in files, so that it can go on after a kill.

`.NAME.partial/`, beside the folder of the report:

  fingerprint.json          what is measured, on what and how; the journal is used only if this
                            has not changed
  PROCESS-TIME.jsonl        one line for each batch: [Entry, ...]
  PROCESS-TIME-N.npy        float32 [n, k, 2048], features of the batch N of that file, for FID
  PROCESS-TIME-N.npz        its pictures, where some are wanted for the grids

Each process writes its own files and reads the files of all, so the number of processes may change
between two attempts. A line is written after its arrays. A line that was cut off when its process
ended is ignored, and its batch is measured again.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from jaxinpaint.runtime import atomic


@dataclasses.dataclass(frozen=True)
class Entry:
  """What was measured of one image; JSON-able by `dataclasses.asdict`.

  Attributes:
    index: of the image.
    file: its path or name.
    why: the reason why it could not be read; '' if it was read.
    size: (height, width).
    shares: share of the hole in each bin; None if the image has no mask in that bin.
    values: {row: ({metric: number} in each bin)}, {} without a mask.
    changed: {row: in each bin the largest difference, of 255, between known pixels of a stored
      output and the truth}, for rows that have any.
    features: index of its features in the array of its batch; None: it has none.
    pictures: index of its pictures, likewise.
  """

  index: int
  file: str
  why: str = ''
  size: tuple[int, int] = (0, 0)
  shares: tuple[float | None, ...] = ()
  values: Mapping[str, Sequence[Mapping[str, float]]] = dataclasses.field(default_factory=dict)
  changed: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
  features: int | None = None
  pictures: int | None = None


def entries_to_json(entries: Sequence[Entry]) -> str:
  """One line; `entries_from_json` gives back every float exactly, infinities and nan too."""
  return json.dumps([dataclasses.asdict(e) for e in entries])


def entries_from_json(text: str | bytes) -> list[Entry]:
  """The entries of `entries_to_json`.

  Raises:
    ValueError: the text is cut off, or is not of entries.
  """
  try:
    read = [Entry(**fields) for fields in json.loads(text)]
  except (TypeError, KeyError) as error:
    raise ValueError(str(error)) from error
  pair = lambda x: (x[0], x[1])
  return [dataclasses.replace(e, size=pair(e.size), shares=tuple(e.shares)) for e in read]


# Reads the arrays of one batch: (features, pictures).
_Loaded = tuple[Callable[[], np.ndarray | None], Callable[[], Mapping[str, np.ndarray]]]


class Journal:
  """Entries of images with their arrays; in files if it has a folder, else in memory.

  Attributes:
    entries: {index of the image: entry}, also of earlier attempts.
  """

  def __init__(self, folder: pathlib.Path | None = None):
    """See the class; `open` is for folders."""
    self.folder = folder
    self.entries: dict[int, Entry] = {}
    self._arrays: dict[int, _Loaded] = {}
    self._name = f'{jax.process_index()}-{time.time_ns()}'
    self._batches = 0

  def add(
    self,
    entries: Sequence[Entry],
    features: np.ndarray | None = None,
    pictures: Mapping[str, np.ndarray] | None = None,
  ) -> None:
    """Adds a batch.

    Args:
      entries: of its images.
      features: f32[n, k, 2048], rows as `Entry.features` says.
      pictures: {name: array[n, ...]}, rows as `Entry.pictures` says.
    """
    arrays = (lambda: features), (lambda: pictures or {})
    if self.folder is not None:
      path = self.folder / f'{self._name}-{self._batches}'
      if features is not None:
        np.save(path.with_suffix('.npy'), features)
      if pictures:
        np.savez(path.with_suffix('.npz'), **pictures)
      with open(self.folder / f'{self._name}.jsonl', 'a', encoding='utf-8') as file:
        file.write(entries_to_json(entries) + '\n')
      arrays = _files(path)
    self._batches += 1
    self._keep(entries, arrays)

  def features(self, index: int) -> np.ndarray:
    """f32[k, 2048] of an image."""
    return self._arrays[index][0]()[self.entries[index].features]

  def pictures(self, index: int) -> dict[str, np.ndarray]:
    """{name: array} of an image; {} if none were kept."""
    row = self.entries[index].pictures
    return {} if row is None else {k: v[row] for k, v in self._arrays[index][1]().items()}

  def forget(self, indices: Sequence[int]) -> None:
    """Drops entries from memory, because another process has them too."""
    for i in indices:
      del self.entries[i], self._arrays[i]

  def remove(self) -> None:
    """Deletes the files: the report is written."""
    if self.folder is not None:
      shutil.rmtree(self.folder, ignore_errors=True)

  def _keep(self, entries: Sequence[Entry], arrays: _Loaded) -> None:
    for entry in entries:
      self.entries[entry.index] = entry
      self._arrays[entry.index] = arrays

  def _read(self) -> None:
    for path in sorted(self.folder.glob('*.jsonl')):
      lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
      for number, line in enumerate(lines):
        arrays = path.with_name(f'{path.stem}-{number}')
        try:
          entries = entries_from_json(line)
          _check_arrays(entries, arrays)
        except (ValueError, OSError):
          continue  # cut off: that batch is measured again
        self._keep(entries, _files(arrays))


def _files(path: pathlib.Path) -> _Loaded:
  def pictures() -> Mapping[str, np.ndarray]:
    with np.load(path.with_suffix('.npz'), allow_pickle=False) as file:
      return dict(file)

  features = lambda: np.load(path.with_suffix('.npy'), mmap_mode='r', allow_pickle=False)
  return features, pictures


def _check_arrays(entries: Sequence[Entry], path: pathlib.Path) -> None:
  """Raises OSError or ValueError if a line's arrays are missing or cut off."""
  features, pictures = _files(path)
  if any(e.features is not None for e in entries):
    features()
  if any(e.pictures is not None for e in entries) and not pictures():
    raise ValueError('no pictures')


def digest_of_files(paths: Sequence[str]) -> str:
  """SHA-256 of the files' names, sizes and times of change: it changes if a file is replaced."""
  digest = hashlib.sha256()
  for path in paths:
    try:
      stat = os.stat(path)
      digest.update(os.fsencode(f'{path} {stat.st_size} {stat.st_mtime_ns}\n'))
    except OSError:  # an image inside a data set has a name but no file
      digest.update(os.fsencode(f'{path}\n'))
  return digest.hexdigest()


def place(output: str | os.PathLike) -> pathlib.Path:
  """The folder of the journal that belongs to a report's folder."""
  output = pathlib.Path(output).absolute()
  return output.with_name(f'.{output.name}.partial')


def open_journal(
  folder: pathlib.Path, fingerprint: Mapping[str, Any] | None, resume: bool
) -> Journal:
  """The journal in a folder: of an interrupted evaluation if its fingerprint is this, else empty.

  With several processes the first opens it before the others, see `processes.wait`.

  Args:
    folder: of `place`.
    fingerprint: JSON-able; None: a row cannot say what its outputs depend on, so nothing is resumed
      and no file is written.
    resume: False: an earlier attempt is deleted.
  """
  if fingerprint is None:
    shutil.rmtree(folder, ignore_errors=True)
    return Journal()
  wanted = json.loads(json.dumps(fingerprint))
  path = folder / 'fingerprint.json'
  if folder.exists():
    try:
      stored = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
      stored = None
    if stored != wanted or not resume:
      if not resume:
        why = 'as --noresume asks'
      elif not isinstance(stored, dict):
        why = 'since it does not say what it was of'
      else:
        names = [k for k in wanted.keys() | stored.keys() if wanted.get(k) != stored.get(k)]
        why = f'since it differs in: {", ".join(sorted(names))}'
      logging.info('An interrupted evaluation in %s is thrown away, %s.', folder, why)
      shutil.rmtree(folder)
  folder.mkdir(parents=True, exist_ok=True)
  if not path.exists():
    atomic.write(path, json.dumps(wanted, indent=1))
  journal = Journal(folder)
  journal._read()
  return journal
