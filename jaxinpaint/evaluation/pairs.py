"""Pictures that are in folders already: a truth and one or more outputs, with or without masks.

  compared = pairs.find('real', {'mine': 'fake'}, 'masks', protocol)
  evaluate(EvaluationSpec(compared.rows, compared.on, compared.protocol))

Files are paired by their names without ending. No model runs. With masks every picture is measured
in the bins that its hole belongs to, and outputs are pasted into the truth if the protocol says so.
Without masks there is one bin, 'all', without metrics of the hole, and outputs are measured as they
are.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from jaxinpaint.evaluation import folders
from jaxinpaint.evaluation.spec import MaskedImages
from jaxinpaint.masks import files as mask_files
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import pixels
from jaxinpaint.metrics.protocols import Metric, Protocol
from jaxinpaint.pictures import decode, listing

# The bin of pictures without masks.
ALL = Bin(0.0, 1.0, name='all')


@dataclasses.dataclass(frozen=True)
class Pictures:
  """The truths, as `spec.Images`."""

  paths: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, i: int) -> tuple[np.ndarray, str]:
    return decode.read_image(self.paths[i]), self.paths[i]

  def path(self, i: int) -> str:
    """Without reading it."""
    return self.paths[i]


@dataclasses.dataclass(frozen=True)
class Pairs:
  """What an `EvaluationSpec` takes.

  Attributes:
    rows: {name: stored outputs}.
    on: the truths, each with a mask in the bins that its hole belongs to.
    protocol: what can be measured of them.
    size: (height, width).
    notes: for the report.
  """

  rows: dict[str, folders.Outputs]
  on: MaskedImages
  protocol: Protocol
  size: tuple[int, int]
  notes: dict[str, str]


def find(
  real: str | os.PathLike,
  fakes: Mapping[str, str | os.PathLike],
  masks: str | os.PathLike | None,
  protocol: Protocol,
  *,
  bins: Sequence[Bin] = (),
  count: int | None = None,
  invert: bool = False,
) -> Pairs:
  """Pairs the files of folders; of pictures it reads only the sizes.

  Args:
    real: folder of the truths, or a .txt list of them.
    fakes: {row: folder of outputs; an output has the name of its truth}.
    masks: folder of masks with the names of the truths, white = hole; None: no masks.
    protocol: its metrics are measured.
    bins: shares of hole; default the protocol's.
    count: how many pairs at most, spread evenly over the folder; None: all.
    invert: black is the hole.

  Raises:
    ValueError: empty folders, missing files, two files with one name, different sizes, or no mask
      in any bin.
    FileNotFoundError: no such folder.
  """
  paths = listing.list_files(real, decode.EXTENSIONS, 'real images')
  stems = folders.stems_of(paths)
  if count is not None and count < len(paths):
    taken = [k * len(paths) // count for k in range(count)]
    paths, stems = [paths[k] for k in taken], [stems[k] for k in taken]
  size = _size(paths)
  files = {
    name: _matched(f'fake images {name!r}', path, stems, paths) for name, path in fakes.items()
  }
  for name, of in files.items():
    folders.check_sizes(of, size, f'fake images {name!r}')
  if masks is None:
    kept = tuple(m for m in protocol.metrics if not _takes_hole(m))
    # Every pixel counts as hole, so no pixel is replaced by the truth.
    whole = np.ones(size, np.uint8)
    by_bin, name = {ALL: lambda i: whole}, 'none, whole pictures'
    notes = {'measured': 'the files as they are, without masks: nothing is pasted'}
    protocol = dataclasses.replace(
      protocol, metrics=kept, bins=(ALL,), masks=protocol.masks or name
    )
  else:
    holes = _matched('masks', masks, stems, paths)
    by_bin, notes = _binned(holes, bins or protocol.bins, size, invert)
    name = f'folder:{masks}' + (', inverted' if invert else '')
    notes['measured'] = (
      'the files, with their known pixels replaced by the truth (the protocol composites)'
      if protocol.composite
      else 'the files as they are (the protocol does not composite)'
    )
  protocol.check_size(*size)
  rows = {
    row: folders.Outputs({b: dict(enumerate(of)) for b in by_bin}) for row, of in files.items()
  }
  on = MaskedImages(Pictures(tuple(paths)), by_bin, len(paths), dataset=str(real), masks_name=name)
  return Pairs(rows, on, protocol, size, notes)


def _takes_hole(metric: Metric) -> bool:
  return not metric.is_deep and pixels.FUNCTIONS[metric.function][1]


def _size(paths: Sequence[str]) -> tuple[int, int]:
  """The size of the first image that can be read; all others must have it."""
  for path in paths:
    try:
      size = decode.size_of(path)
    except decode.UnreadableImage:
      continue
    folders.check_sizes(paths, size, 'real images')
    return size
  raise ValueError(f'none of the {len(paths)} real images can be read; the first: {paths[0]}')


def _matched(
  what: str, folder: str | os.PathLike, stems: Sequence[str], paths: Sequence[str]
) -> list[str]:
  """The file of each stem."""
  folder = pathlib.Path(folder).expanduser()
  files = folders.list_by_stem(folder, what)
  if not files:
    raise ValueError(f'{what}: the folder {folder} holds no image: correct the path')
  absent = [k for k, stem in enumerate(stems) if stem not in files]
  if absent:
    raise ValueError(
      f'{what}: {folder} has no file for {len(absent)} of {len(stems)} real images, first '
      f'{stems[absent[0]]} ({paths[absent[0]]}): add it, or name the images that are to be '
      'measured in a list, --real_dir LIST.txt'
    )
  return [files[stem] for stem in stems]


def _binned(
  paths: Sequence[str], bins: Sequence[Bin], size: tuple[int, int], invert: bool
) -> tuple[dict[Bin, Any], dict[str, str]]:
  """({bin: mask of an image or None}, notes)."""
  folders.check_sizes(paths, size, 'masks')
  # For these masks, a bin that has masks of its own is only a range of shares.
  bins = tuple(dict.fromkeys(Bin(b.low, b.high) if b.masks else b for b in bins))
  read = lambda i: mask_files.read_mask(paths[i], *size, invert=invert, warn=None)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    shares = np.array(list(pool.map(lambda i: read(i).mean(), range(len(paths)))))
  by_bin = {}
  for b in bins:
    here = frozenset(i for i, share in enumerate(shares) if b.holds(share))
    if here:
      by_bin[b] = lambda i, here=here: read(i) if i in here else None
  outside = sum(not any(b.holds(share) for b in bins) for share in shares)
  if not by_bin:
    raise ValueError(
      f'masks: none of the {len(paths)} has a hole of {", ".join(b.label for b in bins)} % of the '
      f'picture; they have {100 * shares.min():.1f} to {100 * shares.max():.1f} %. Choose other '
      'bins (--bins)' + ('' if invert else ', or pass --invert_mask if their holes are black')
    )
  for b in bins:
    if b not in by_bin:
      logging.warning('masks: none has a hole of %s %%; the bin is left out.', b.label)
  notes = {}
  if outside:
    notes['outside of all bins'] = f'{outside} of {len(paths)} pictures, which were not measured'
    logging.warning('%d of %d pictures have a hole in no bin.', outside, len(paths))
  return by_bin, notes
