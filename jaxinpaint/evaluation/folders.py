"""Outputs that another program has written, as a row.

The outputs of a bin are in a subfolder with the bin's name, `FOLDER/20-40/NAME.png`, or have the
bin's name after their own, `FOLDER/NAME_20-40.png`. With one bin, `FOLDER/NAME.png` is enough. NAME
is the file name of the test image without folder and ending; for an image that is not a file (of a
tfds set, of the sample) it is its number in the evaluation, `00012`. All files of a bin are named
in the same way: the first of the three that fits is used. Blanks in a bin's name may be written as
underscores. Endings are those of images, in upper or lower case.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxinpaint.evaluation.journal import digest_of_files
from jaxinpaint.masks.bins import Bin
from jaxinpaint.pictures import decode


class Outputs:
  """A row of stored outputs, see `predictors`.

  Args:
    files: {bin: {index of an image: path}}.
  """

  kind = 'files'

  def __init__(self, files: Mapping[Bin, Mapping[int, str]]):
    """See the class."""
    self._files = files

  def load(self, index: int, bin: Bin) -> np.ndarray:
    """uint8[H, W, 3]; raises data.decode.UnreadableImage."""
    return decode.read_image(self._files[bin][index])

  def fingerprint(self) -> str:
    """Changes when a file is replaced."""
    return digest_of_files([path for of in self._files.values() for path in of.values()])


def find(
  name: str,
  folder: str | os.PathLike,
  images: Sequence[str],
  bins: Sequence[Bin],
  size: tuple[int, int],
) -> Outputs:
  """The outputs in a folder for the images of an evaluation; it reads only the pictures' sizes.

  Args:
    name: of the row, for messages.
    folder: see the module.
    images: their paths, in the evaluation's order.
    bins: the measured bins.
    size: (height, width) of the images.

  Raises:
    ValueError: two files with one name, missing outputs, or another size.
    FileNotFoundError: no such folder.
  """
  folder = pathlib.Path(folder).expanduser()
  stems = stems_of(images)
  by_bin = {b: _of_bin(name, folder, b, len(bins) == 1, stems) for b in bins}
  for b, outputs in by_bin.items():
    absent = [i for i in range(len(images)) if i not in outputs]
    if absent:
      raise ValueError(
        f'row {name!r}: {folder} has no output of {b.label} for {len(absent)} of {len(images)} '
        f'images, first {images[absent[0]]}: write it to {_wanted(folder, b, stems[absent[0]])}'
        + (f', or to {folder}/{stems[absent[0]]}.png' if len(bins) == 1 else '')
      )
    check_sizes(outputs.values(), size, f'row {name!r}')
  return Outputs(by_bin)


def stems_of(images: Sequence[str]) -> list[str]:
  """The names of outputs for these images, without ending.

  Raises:
    ValueError: two images have the same name.
  """
  stems = [
    pathlib.Path(path).stem if os.path.exists(path) else f'{i:05d}' for i, path in enumerate(images)
  ]
  seen: dict[str, int] = {}
  for i, stem in enumerate(stems):
    if seen.setdefault(stem, i) != i:
      raise ValueError(
        f'{images[seen[stem]]} and {images[i]} have the same name, so that files cannot be told '
        'apart by it: rename one of them'
      )
  return stems


def list_by_stem(folder: pathlib.Path, what: str) -> dict[str, str]:
  """{name without ending: path} of the images in a folder, without its subfolders.

  Raises:
    ValueError: two files have the same name.
    FileNotFoundError: no such folder.
  """
  if not folder.is_dir():
    near = next((p for p in folder.absolute().parents if p.is_dir()), pathlib.Path('/'))
    raise FileNotFoundError(
      f'{what}: there is no folder {folder} (the path exists up to {near}): correct the path'
    )
  by_stem: dict[str, str] = {}
  for entry in sorted(os.scandir(folder), key=lambda e: e.name):
    path = pathlib.Path(entry.path)
    if path.suffix.lower() not in decode.EXTENSIONS or entry.name.startswith('.'):
      continue
    if path.stem in by_stem:
      raise ValueError(
        f'{what}: {by_stem[path.stem]} and {path} have the same name: keep one of them'
      )
    by_stem[path.stem] = str(path)
  return by_stem


def check_sizes(paths: Sequence[str], size: tuple[int, int], what: str) -> None:
  """Raises ValueError for files of another size; skips files that are not images."""
  for path in paths:
    try:
      got = decode.size_of(path)
    except decode.UnreadableImage:
      continue
    if got != tuple(size):
      raise ValueError(
        f'{what}: {path} is {got[0]} x {got[1]}, the images are {size[0]} x {size[1]} (height '
        'x width): write all of one size'
      )


def _of_bin(
  name: str, folder: pathlib.Path, b: Bin, alone: bool, stems: Sequence[str]
) -> dict[int, str]:
  """{index: path}, by the first of the three ways of naming that fits."""
  what = f'row {name!r}'
  for label in dict.fromkeys((b.label, b.label.replace(' ', '_'))):
    if (folder / label).is_dir():
      files = list_by_stem(folder / label, what)
      return {i: files[stem] for i, stem in enumerate(stems) if stem in files}
  files = list_by_stem(folder, what)
  for label in dict.fromkeys((b.label, b.label.replace(' ', '_'))):
    outputs = {i: files[f'{s}_{label}'] for i, s in enumerate(stems) if f'{s}_{label}' in files}
    if outputs:
      return outputs
  outputs = {i: files[stem] for i, stem in enumerate(stems) if stem in files}
  if outputs and not alone:
    raise ValueError(
      f'{what}: {folder} has one output for each image, but the holes differ from bin to bin: '
      f'write those of {b.label} to {_wanted(folder, b, stems[next(iter(outputs))])}, or measure '
      f'one bin only (--bins)'
    )
  return outputs


def _wanted(folder: pathlib.Path, b: Bin, stem: str) -> pathlib.Path:
  return folder / b.label / f'{stem}.png'
