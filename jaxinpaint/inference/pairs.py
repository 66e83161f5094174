"""Which mask and which output belong to an image file, decided before anything is computed.

  pairs = find(image, mask, output)

Files pair by name: the mask of `a/photo.jpg` is `a/photo.png` (any image ending), or
`a/photo_mask.png`, `photo-mask.png`, `photo_mask001.png`, below the folder of masks. This may also
be the folder of images.
"""

import dataclasses
import os
import pathlib
import re

from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.picture import FORMATS
from jaxinpaint.masks import files as mask_files
from jaxinpaint.pictures import listing

Path = str | os.PathLike
_MASK_NAME = re.compile(r'^(?P<stem>.+?)[_-]mask\d*$', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Pair:
  """One image file to fill.

  Attributes:
    image: its path.
    mask: its mask's path; None: no mask has its name.
    output: where the result goes.
    format: of the output, a value of FORMATS.
    sample: number of the completion, from 0.
  """

  image: pathlib.Path
  mask: pathlib.Path | None
  output: pathlib.Path
  format: str
  sample: int = 0


@dataclasses.dataclass(frozen=True)
class Pairs:
  """All files of a run.

  Attributes:
    pairs: all images, also those without a mask; `samples` neighbours for each.
    unused: masks that belong to no image.
    folder: whether the image was given as a folder.
  """

  pairs: tuple[Pair, ...]
  unused: tuple[pathlib.Path, ...]
  folder: bool


def find(
  image: Path,
  mask: Path,
  output: Path,
  *,
  overwrite: bool = False,
  format: str | None = None,
  samples: int = 1,
  resume: bool = False,
) -> Pairs:
  """Pairs images, masks and outputs; changes nothing on disk.

  Args:
    image: a file, or a folder with all its subfolders.
    mask: a file, used for all images, or a folder.
    output: a file (one image only), or a folder; a path without an ending is a folder.
    overwrite: outputs that exist may be replaced; inputs never are.
    format: 'png', 'jpg', 'webp', 'bmp' or 'tif' for all outputs in a folder; None: as the image.
    samples: completions of each image. Several are OUTPUTSTEM.1, OUTPUTSTEM.2, ... with the ending.
    resume: outputs that exist stay.

  Raises:
    FileNotFoundError: no such image or mask.
    FileExistsError: an output exists.
    InpaintError: files and folders do not go together, or an output is an input.
  """
  image, mask, output = (pathlib.Path(p).expanduser() for p in (image, mask, output))
  for path, what in ((image, 'image'), (mask, 'mask')):
    _must_exist(path, what)
  if format is not None and '.' + format.lower().lstrip('.') not in FORMATS:
    raise InpaintError(f'format {format!r} is not written; there are: png, jpg, webp, bmp, tif')
  if image.is_dir():
    pairs = _folder(image, mask, output, format)
  else:
    pairs = _file(image, mask, output, format)
  if samples < 1:
    raise InpaintError(f'samples {samples} must be at least 1')
  if samples > 1:
    pairs = dataclasses.replace(
      pairs, pairs=tuple(_numbered(p, k) for p in pairs.pairs for k in range(samples))
    )
  if resume and overwrite:
    raise InpaintError('resume keeps outputs that exist and overwrite replaces them: choose one')
  _protect(pairs, overwrite or resume)
  return pairs


def _numbered(pair: Pair, sample: int) -> Pair:
  output = pair.output.with_name(f'{pair.output.stem}.{sample + 1}{pair.output.suffix}')
  return dataclasses.replace(pair, output=output, sample=sample)


def _file(image: pathlib.Path, mask: pathlib.Path, output: pathlib.Path, format) -> Pairs:
  if mask.is_dir():
    raise InpaintError(
      f'the image {image} is a file but the mask {mask} is a folder: name the mask file'
    )
  if output.is_dir() or not output.suffix:
    target = _named(output, pathlib.Path(image.name), image, format)
  else:
    target = output
    if (
      format is not None and _format(output, 'output') != FORMATS['.' + format.lstrip('.').lower()]
    ):
      raise InpaintError(
        f'the output {output} and the format {format!r} contradict each other: give one of them'
      )
  return Pairs((Pair(image, mask, target, _format(target, 'output')),), (), folder=False)


def _folder(image: pathlib.Path, mask: pathlib.Path, output: pathlib.Path, format) -> Pairs:
  if output.is_file() or (output.suffix.lower() in FORMATS and not output.is_dir()):
    raise InpaintError(
      f'the image {image} is a folder, so the output must be a folder: {output} names a file'
    )
  files = _listed(image, tuple(FORMATS), 'images')
  for inside in (output.resolve(), mask.resolve()):
    # Results of an earlier run, and masks beside the images, are not images to fill. realpath, as
    # Path.resolve refuses a link to itself.
    if inside != image.resolve() and inside.is_relative_to(image.resolve()):
      files = [f for f in files if not pathlib.Path(os.path.realpath(f)).is_relative_to(inside)]
  masks: dict[pathlib.Path, list[pathlib.Path]] = {}
  one = mask if mask.is_file() else None
  if one is None:
    paths = _listed(mask, mask_files.EXTENSIONS, 'masks', all_names=True)
    shared = mask.resolve() == image.resolve()
    stems = {f.relative_to(image).with_suffix('') for f in files}
    if shared:  # here only a name that says so is a mask's
      paths = [p for p in paths if _MASK_NAME.match(p.stem)]
      own = set(paths)
      files = [f for f in files if f not in own]
    for path in paths:
      key = path.relative_to(mask).with_suffix('')
      match = _MASK_NAME.match(key.name)
      if match and (shared or key not in stems):
        key = key.with_name(match['stem'])
      masks.setdefault(key, []).append(path)
  pairs, taken = [], {}
  for file in files:
    relative = file.relative_to(image)
    fitting = [one] if one else masks.get(relative.with_suffix(''), [])
    if len(fitting) > 1:
      names = ', '.join(str(p.relative_to(mask)) for p in fitting[:4])
      raise InpaintError(
        f'{len(fitting)} masks fit the image {relative} ({names}): keep one of them'
      )
    target = _named(output, relative, file, format)
    if target in taken:
      raise InpaintError(
        f'{file} and {taken[target]} would both be written to {target}: rename one of them, or '
        'leave out the format'
      )
    taken[target] = file
    pairs.append(Pair(file, fitting[0] if fitting else None, target, _format(target, 'output')))
  used = {p.mask for p in pairs}
  unused = tuple(p for paths in masks.values() for p in paths if p not in used)
  if not pairs:
    raise InpaintError(f'the folder {image} holds no image but the masks: put images there')
  if not any(p.mask for p in pairs):
    raise InpaintError(
      f'no mask in {mask} has the name of an image in {image} (first image: '
      f'{pairs[0].image.name}, first mask: {unused[0].name if unused else "none"}): name the masks '
      f'like the images, e.g. {pairs[0].image.stem}.png or {pairs[0].image.stem}_mask.png'
    )
  return Pairs(tuple(pairs), unused, folder=True)


def _listed(
  folder: pathlib.Path, extensions: tuple[str, ...], what: str, *, all_names: bool = False
) -> list[pathlib.Path]:
  try:
    files = listing.list_files(folder, extensions, what, all_names=all_names)
    return [pathlib.Path(file) for file in files]
  except ValueError as error:
    raise InpaintError(str(error)) from error


def _named(
  folder: pathlib.Path, relative: pathlib.Path, image: pathlib.Path, format: str | None
) -> pathlib.Path:
  if format is not None:
    relative = relative.with_suffix('.' + format.lower().lstrip('.'))
  elif relative.suffix.lower() not in FORMATS:
    raise InpaintError(
      f'{image}: files ending in {relative.suffix or "nothing"} are not written; choose a format: '
      'png, jpg, webp, bmp or tif'
    )
  return folder / relative


def _format(path: pathlib.Path, what: str) -> str:
  format = FORMATS.get(path.suffix.lower())
  if format is None:
    raise InpaintError(
      f'the {what} {path} ends in {path.suffix}; wanted is one of {", ".join(FORMATS)}'
    )
  return format


def _must_exist(path: pathlib.Path, what: str) -> None:
  if path.exists():
    return
  near = next((p for p in path.absolute().parents if p.is_dir()), pathlib.Path('/'))
  raise FileNotFoundError(
    f'there is no {what} {path} (the path exists up to {near}): correct the path'
  )


def _protect(pairs: Pairs, overwrite: bool) -> None:
  """Refuses outputs that exist, or that are an input under any name."""
  inputs = {}
  for pair in pairs.pairs:
    for path in (pair.image, pair.mask):
      # A link may lead nowhere: reading it says so, and the other files are filled.
      if path is not None and path.exists():
        stat = path.stat()
        inputs[stat.st_dev, stat.st_ino] = path
  there = [p.output for p in pairs.pairs if os.path.lexists(p.output)]
  for output in there:
    if output.is_dir():
      raise InpaintError(f'the output {output} is a folder: choose another name')
    if output.exists():
      stat = output.stat()
      source = inputs.get((stat.st_dev, stat.st_ino))
      if source is not None:
        raise InpaintError(
          f'the output {output} is the input {source}, which is never overwritten: choose another '
          'output'
        )
  if there and not overwrite:
    others = f' and {len(there) - 1} other outputs exist' if len(there) > 1 else ' exists'
    raise FileExistsError(f'{there[0]}{others}: pass --overwrite, or choose another output')
