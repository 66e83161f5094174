"""Files in, files out.

  report = inpaint_files(inpainter, 'photos', 'masks', 'repaired')

The pixels outside the hole are stored exactly as they were: at the same depth, in the same mode,
with alpha, colour profile and EXIF. The exceptions:
  - JPEG stores every pixel with loss. It is written at quality 100 without chroma subsampling, so
    known pixels change by a few levels of 255 at most; a warning says by how many. `format='png'`,
    or an output that ends in .png, keeps them exact.
  - Palettes become RGB(A) and bilevel images grey, because the hole needs new colours.
  - Lossy WebP becomes lossless WebP, and lossy TIFF lossless TIFF.
  - EXIF previews are dropped: they would show what was painted over.
  - 16-bit colour TIFF keeps its profile, but not its other tags, and is written upright.
  - Metadata that a format cannot hold is left out, and a warning says what: EXIF or XMP above 64 KB
    in JPEG, all but the resolution in BMP.
Animations are refused.
"""

import dataclasses
import functools
import io
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

import numpy as np
import tqdm
from PIL import Image

from jaxinpaint.inference import pairs as pairs_lib
from jaxinpaint.inference import picture as picture_lib
from jaxinpaint.inference import repair
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.inpainter import Inpainter, unrefined_sentence
from jaxinpaint.inference.pairs import Pair
from jaxinpaint.inference.picture import Picture
from jaxinpaint.inference.strategies import Plan
from jaxinpaint.masks import spec
from jaxinpaint.masks.files import Inverting
from jaxinpaint.pictures import decode
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.runtime import atomic

# What a wrong file, mask or path raises; anything else is a bug in this program.
USER_ERRORS = (InpaintError, UnreadableImage, OSError, MemoryError)

Say = Callable[[str], object]

_INVERTING = Inverting('pass invert_mask=True', 'drop invert_mask=True')


@dataclasses.dataclass
class Report:
  """The result of a run over files.

  Attributes:
    written: the outputs on disk.
    failed: (image, the reason in a sentence) for each image that could not be filled.
    warnings: the warnings, each once.
    plans: (image, a sentence) for each image with a hole: how it was completed.
  """

  written: list[pathlib.Path] = dataclasses.field(default_factory=list)
  failed: list[tuple[pathlib.Path, str]] = dataclasses.field(default_factory=list)
  warnings: list[str] = dataclasses.field(default_factory=list)
  plans: list[tuple[pathlib.Path, str]] = dataclasses.field(default_factory=list)


def inpaint_files(
  inpainter: Inpainter,
  image: str | os.PathLike,
  mask: str | os.PathLike,
  output: str | os.PathLike,
  *,
  invert_mask: bool = False,
  inverting: Inverting = _INVERTING,
  overwrite: bool = False,
  format: str | None = None,
  progress: bool | None = None,
  say: Say | None = None,
  pictures: str | os.PathLike | None = None,
  samples: int = 1,
  resume: bool = False,
  frames: bool = False,
) -> Report:
  """Fills one image file, or a folder of them.

  Args:
    inpainter: of `jaxinpaint.load`.
    image: file or folder (with its subfolders).
    mask: file (for all images), or a folder with a mask for each by name (see `pairs`); white is
      the hole.
    output: file or folder; files in a folder keep name and format.
    invert_mask: black is the hole.
    inverting: how the caller's user asks for it, for messages.
    overwrite: replace outputs that exist; an input is never replaced.
    format: 'png', 'jpg', 'webp', 'bmp' or 'tif' of all files in an output folder; None: as the
      image.
    progress: show a bar; None: only on a terminal.
    say: is called with each warning, each failure and what is done with each image that is not
      completed whole, sentences; None: they go to standard error.
    pictures: folder for the other pictures that the system can show (see `Inpainter.pictures`),
      written as OUTPUTSTEM.NAME.png in the same subfolders as the outputs; None: none are written.
    samples: completions of each image, of a system that draws random numbers; several are written
      as OUTPUTSTEM.1.png, OUTPUTSTEM.2.png, ...
    resume: leave outputs that exist as they are, and write the others; an output appears only when
      it is complete.
    frames: the images are those of a film: a system that draws random numbers gets the same for
      all of them, so that what it fills in flickers less.

  Returns:
    A Report. In a folder a bad pair is reported and the others are filled; a single file's error is
    raised.

  Raises:
    FileNotFoundError, FileExistsError, InpaintError, UnreadableImage, MemoryError: all before
      anything is written.
  """
  where = dict(overwrite=overwrite, format=format, samples=samples, resume=resume)
  pairs = pairs_lib.find(image, mask, output, **where)
  report = Report()
  if samples > 1 and not inpainter.predictor.samples:
    raise InpaintError(
      f'{inpainter.name} draws no random numbers, so all {samples} completions would be equal: '
      'ask for one'
    )
  if pictures is not None and not inpainter.predictor.inference.pictures:
    raise InpaintError(f'{inpainter.name} has no pictures to show besides its output')
  say = say or functools.partial(tqdm.tqdm.write, file=sys.stderr)

  def warn(sentence: str) -> None:
    if sentence not in report.warnings:
      report.warnings.append(sentence)
      say(f'warning: {sentence}')

  def fail(pair: Pair, error: Exception) -> None:
    if not pairs.folder:
      raise error
    bar.update()
    failure = pair.image, sentence(error)
    if failure in report.failed:  # of another sample
      return
    report.failed.append(failure)
    say(f'error: {failure[1]}')

  if pairs.unused:
    names = ', '.join(p.name for p in pairs.unused[:5])
    more = ', ...' if len(pairs.unused) > 5 else ''
    warn(f'{len(pairs.unused)} masks belong to no image and are not used: {names}{more}')
  number_of = lambda i: 0 if frames else i // samples
  tasks = [(number_of(i), pair) for i, pair in enumerate(pairs.pairs) if pair.mask is not None]
  # Equal sizes in a row fill whole batches, which compile once. Those of images that are finished
  # count, too, so that the others are padded as if none was.
  sizes = {pair.image: _size_of(pair.image) for _, pair in tasks}
  inpainter = inpainter.for_sizes(sizes.values())
  finished = {pair for _, pair in tasks if resume and pair.output.exists()}
  if finished:
    say(f'{len(finished)} of {len(tasks)} outputs are there already and are left as they are')
  tasks = [(number, pair) for number, pair in tasks if pair not in finished]
  tasks.sort(key=lambda item: (inpainter.padded_size(*sizes[item[1].image]), str(item[1].image)))
  disable = None if progress is None else not progress
  with tqdm.tqdm(total=len(pairs.pairs), unit='img', disable=disable) as bar:
    bar.update(len(finished))
    for pair in pairs.pairs:
      if pair.mask is None:
        fail(pair, InpaintError(f'{pair.image}: no mask has its name, in {mask}'))
    read_mask = _MaskReader(invert_mask, inverting, warn)
    changes: list[int] = []
    left_out: dict[str, list[pathlib.Path]] = {}  # {metadata: outputs without it}
    reduced = unrefined = 0
    strategy, predictor = inpainter.strategy, inpainter.predictor

    def planned(key: _Key, plan: Plan) -> None:
      if key.pair.sample:
        return
      report.plans.append((key.pair.image, plan.sentence))
      if plan.kind != 'original' and not strategy.completes_whole(key.parts[3].shape):
        say(f'{key.pair.image}: {plan.sentence}')

    refused = lambda key, error: fail(key.pair, error)
    streams = []
    for k in range(samples):
      own = [(number, pair) for number, pair in tasks if pair.sample == k]
      jobs = _jobs(own, read_mask, warn, fail)
      streams.append(inpainter.stream(jobs, sample=k, refused=refused, planned=planned))
    for key, rgb in itertools.chain.from_iterable(streams):
      pair, number, picture, hole = key
      try:
        change = _write(pair, picture, hole, rgb, left_out)
        if pictures is not None and hole.any() and not pair.sample:
          place = pair.output.relative_to(output) if pairs.folder else pair.output.name
          drawn = inpainter.pictures(picture.rgb(), hole, number)
          _write_pictures(drawn, pathlib.Path(pictures, place), overwrite)
      except USER_ERRORS as error:
        fail(pair, error)
        continue
      report.written.append(pair.output)
      if change is not None:
        changes.append(change)
      reduced += hole.any() and strategy.reduces(hole.shape)
      unrefined += predictor.refine and hole.any() and not inpainter.refines(hole)
      bar.update()
  total = len(report.written)
  for name, outputs in left_out.items():
    warn(repair.left_out_sentence(name, outputs, total))
  if changes:
    warn(repair.jpeg_sentence(changes, total))
  if reduced:
    warn(repair.reduced_sentence(reduced, total, strategy.limit))
  if unrefined:
    warn(unrefined_sentence(unrefined, total, predictor.inference.refined_side))
  return report


class _Key:
  """A job's key in the stream: compared by identity, since arrays do not hash."""

  def __init__(self, *parts):
    self.parts = parts
    self.pair: Pair = parts[0]

  def __iter__(self):
    return iter(self.parts)


def _jobs(
  tasks: list[tuple[int, Pair]], read_mask: '_MaskReader', warn: Say, fail: Callable
) -> Iterator:
  for number, pair in tasks:
    try:
      picture = picture_lib.read(pair.image)
      picture.check_holdable(pair.format)
      hole = read_mask(pair.mask, picture)
      repair.warn_of_hidden_hole(picture, hole, warn)
    except USER_ERRORS as error:
      fail(pair, error)
      continue
    yield _Key(pair, number, picture, hole), number, picture.rgb(), hole


class _MaskReader:
  """Reads masks for pictures; keeps the last one, in case all pictures use the same mask."""

  def __init__(self, invert: bool, inverting: Inverting, warn: Say):
    self._how, self._warn = dict(invert=invert, inverting=inverting), warn
    self._path: pathlib.Path | None = None
    self._mask = np.zeros((0, 0), bool)

  def __call__(self, path: pathlib.Path, picture: Picture) -> np.ndarray:
    """bool[H, W] of the picture's upright size, True = hole."""
    if path != self._path:
      sentences: list[str] = []
      mask = spec.read_mask(path, **self._how, warn=sentences.append).astype(bool)
      self._path, self._mask = path, mask
      for sentence in sentences if not mask.all() else ():  # a full one is an error, told below
        self._warn(sentence)
    return repair.fit_mask(self._mask, path, picture, self._warn, **self._how)


def _write(
  pair: Pair,
  picture: Picture,
  hole: np.ndarray,
  rgb: np.ndarray,
  left_out: dict[str, list[pathlib.Path]],
) -> int | None:
  """Writes the output; returns, for a JPEG, the largest change of a known pixel (of 255 levels).

  Metadata that the output cannot hold is added to `left_out`.
  """
  data, change, lost = repair.encode(picture, pair.format, rgb, hole)
  pair.output.parent.mkdir(parents=True, exist_ok=True)
  atomic.write(pair.output, data)
  for name in lost:
    left_out.setdefault(name, []).append(pair.output)
  return change


def _write_pictures(pictures: dict[str, np.ndarray], place: pathlib.Path, overwrite: bool) -> None:
  for name, drawn in pictures.items():
    path = place.with_name(f'{place.stem}.{name}.png')
    if path.exists() and not overwrite:
      raise InpaintError(f'{path} exists: choose another folder for pictures, or --overwrite')
    data = io.BytesIO()
    Image.fromarray(drawn[..., 0] if drawn.shape[-1] == 1 else drawn).save(data, format='PNG')
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, data.getvalue())


def _size_of(path: pathlib.Path) -> tuple[int, int]:
  """(height, width) from the file's header; (1, 1) if it has none, which reading will report."""
  try:
    return decode.size_of(path)
  except UnreadableImage:  # this only decides an order and how sizes are gathered
    return 1, 1


def sentence(error: Exception) -> str:
  """An error as one line for the user."""
  if isinstance(error, OSError) and error.strerror and error.filename:
    return f'{error.filename}: {error.strerror}'
  return ' '.join(str(error).split()) or 'memory does not suffice'
