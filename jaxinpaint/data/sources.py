"""Where images come from: the embedded sample, folders, file lists, tfds.

  'sample'                     photographs inside scikit-image's wheel; splits 'train' and 'test'
  'folder:PATH', or a path     images below a folder, or below its subfolder named like the split;
                               masks beside their images (dog_mask000.png) are left out
  'files:LIST.txt'             one path a line, relative to the list
  'tfds:NAME', 'tfds:NAME/CONFIG'   a tensorflow_datasets set prepared as array_record

A split such as 'every 10th' takes a part of any of them (`held_out`).

A source is a sequence of uint8[H, W, 3] RGB images of any size. It can be pickled and read from
many threads. Needs no TensorFlow.
"""

import dataclasses
import difflib
import functools
import pathlib
from typing import Any, Protocol

import cv2
import numpy as np
from absl import logging

from jaxinpaint.data import held_out
from jaxinpaint.masks import folders
from jaxinpaint.pictures import decode
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.pictures.listing import list_files

__all__ = ['Source', 'UnreadableImage', 'make']

_FORMS = "'sample', 'folder:PATH', 'files:LIST.txt' or 'tfds:NAME'"


class Source(Protocol):
  """A sequence of images."""

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> np.ndarray:
    """uint8[H, W, 3] RGB; raises UnreadableImage."""
    ...

  def path(self, i: int) -> str:
    """The name of image i: its file, or its place in the set."""
    ...

  def encoded(self, i: int) -> bytes | None:
    """The content of the file that image i is all of; None: there is none.

    Raises UnreadableImage.
    """
    ...


def make(name: str, split: str = 'train', *, data_dir: str = '') -> Source:
  """The source of this name (the module's text lists the forms).

  Args:
    name: see above.
    split: 'train' or 'test' of the sample; a subfolder of a folder; a split of tfds, slices such
      as 'train[:90%]' included; a file list ignores it. Or a part, see `held_out`.
    data_dir: where tfds keeps its data; '' is its default, ~/tensorflow_datasets.

  Raises:
    ValueError, FileNotFoundError: unknown name, wrong path, empty folder, data not prepared; each
      says what to do.
  """
  if not isinstance(name, str) or not name.strip():
    raise ValueError(f'image source {name!r} must be {_FORMS}')
  part = held_out.parse(split)
  if part:
    return part.of(make(name, part.split, data_dir=data_dir), name)
  kind, colon, rest = name.strip().partition(':')
  if kind == 'sample' and not colon:
    return SampleSource(split)
  if kind == 'folder' and colon:
    return _folder(rest, split)
  if kind == 'files' and colon:
    if pathlib.Path(rest).expanduser().is_dir():
      raise ValueError(f"image source 'files:{rest}' is a folder: write 'folder:{rest}'")
    return FileSource(_existing_list(rest))
  if kind == 'tfds' and colon:
    return TfdsSource(rest, split, data_dir)
  path = pathlib.Path(name).expanduser()
  if path.is_file() and path.suffix.lower() == '.txt':
    return FileSource(_existing_list(name))
  if path.exists() or '/' in name or name.startswith('.'):
    return _folder(name, split)
  raise ValueError(
    f'unknown image source {name!r}: it is no path that exists; write {_FORMS}'
    + (f" (did you mean 'tfds:{name}'?)" if name.replace('_', '').isalnum() else '')
  )


def kind(name: str) -> str:
  """What a source is, without its path: 'sample', 'folder', 'files' or 'tfds:NAME'."""
  name = name.strip()
  word, colon, _ = name.partition(':')
  if name == 'sample' or word == 'tfds':
    return name
  if colon and word in ('folder', 'files'):
    return word
  return 'files' if name.lower().endswith('.txt') else 'folder'


@dataclasses.dataclass(frozen=True)
class FileSource:
  """Images by path."""

  paths: tuple[str, ...] = dataclasses.field(repr=False)

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, i: int) -> np.ndarray:
    return decode.read_image(self.paths[i])

  def path(self, i: int) -> str:
    """See Source."""
    return self.paths[i]

  def encoded(self, i: int) -> bytes:
    """See Source."""
    return decode.read_bytes(self.paths[i])


def _existing_list(path: str) -> tuple[str, ...]:
  root = pathlib.Path(path).expanduser()
  if not root.is_file():
    raise FileNotFoundError(f'images: there is no list {root}: correct the path')
  if root.suffix.lower() != '.txt':
    raise ValueError(f'images: {root} must be a .txt file with one path a line')
  return list_files(root, decode.EXTENSIONS, 'images')


def _folder(path: str, split: str) -> FileSource:
  """Images of PATH/split where that exists, else of the whole folder."""
  root = pathlib.Path(path).expanduser()
  if split and (root / split).is_dir():
    return FileSource(_images(root / split))
  if root.is_dir():
    parts = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name in _SPLITS)
    if parts:
      raise ValueError(
        f'images: the folder {root} has the subfolders {", ".join(parts)} but none named '
        f'{split!r}: set the split to one of them'
      )
  paths = _images(root)
  if split not in ('train', ''):
    logging.warning(
      'images: the folder %s has no subfolder %r; all of its %d images are used.',
      root, split, len(paths),
    )  # fmt: skip
  return FileSource(paths)


def _images(root: pathlib.Path) -> tuple[str, ...]:
  """Images below a folder, without the masks that lie beside them (NAME_mask000.png)."""
  paths = list_files(root, decode.EXTENSIONS, 'images')
  masks = folders.pair_masks(paths)
  if masks:
    logging.info(
      'images: %d files in %s are masks beside their images (as %s) and are left out.',
      len(masks), root, pathlib.Path(min(masks)).name,
    )  # fmt: skip
  return tuple(p for p in paths if p not in masks)


_SPLITS = ('train', 'val', 'valid', 'validation', 'test', 'eval')


@dataclasses.dataclass(frozen=True)
class _Region:
  """A part of a photograph in scikit-image's wheel: its columns [start, stop)."""

  file: str
  columns: tuple[int, int] | None = None
  limit: int = 90  # windows


# Held out are two whole photographs (the cat and the rocket), and of three more a strip at the
# right, eight columns away from the part that is trained on. Only the left view of the stereo pair
# is used, because the right one shows the same scene.
_SAMPLE = {
  'train': (
    _Region('astronaut.png', columns=(0, 344)),
    _Region('coffee.png', columns=(0, 412)),
    _Region('motorcycle_left.png', columns=(0, 513)),
    _Region('camera.png'),
    _Region('coins.png'),
    _Region('brick.png', limit=24),
    _Region('grass.png', limit=24),
    _Region('gravel.png', limit=24),
    _Region('moon.png', limit=24),
  ),
  'test': (
    _Region('chelsea.png', limit=50),
    _Region('rocket.jpg', limit=50),
    _Region('astronaut.png', columns=(352, 512)),
    _Region('coffee.png', columns=(420, 600)),
    _Region('motorcycle_left.png', columns=(521, 741)),
  ),
}
_SAMPLE_SIDE = 256
_SAMPLE_MIN_SIDE = 112


class SampleSource:
  """Square windows of real photographs that come inside scikit-image's wheel; no download.

  Every photograph gives windows of several scales (its short side, halved again and again down to
  112 pixels), overlapping by half, at most 90 of one photograph. Those over 256 pixels are reduced
  to 256 by area. The order is shuffled once and for all, so that the first n come from all
  photographs. No pixel of 'test' is in 'train'.
  """

  def __init__(self, split: str):
    if split not in _SAMPLE:
      raise ValueError(f"the embedded sample has the splits 'train' and 'test', not {split!r}")
    self.split = split
    rng = np.random.default_rng(0)
    windows = []
    for region in _SAMPLE[split]:
      own = _windows(*_photograph(region).shape[:2])
      windows += [(region, *own[i]) for i in rng.permutation(len(own))[: region.limit]]
    self.windows = tuple(windows[i] for i in rng.permutation(len(windows)))

  def __len__(self) -> int:
    return len(self.windows)

  def __getitem__(self, i: int) -> np.ndarray:
    region, top, left, side = self.windows[i]
    window = _photograph(region)[top : top + side, left : left + side]
    if side > _SAMPLE_SIDE:
      return cv2.resize(window, (_SAMPLE_SIDE, _SAMPLE_SIDE), interpolation=cv2.INTER_AREA)
    return window.copy()

  def path(self, i: int) -> str:
    """See Source."""
    region, top, left, side = self.windows[i]
    return f'sample/{region.file}[{top}:{top + side},{left}:{left + side}]'

  def encoded(self, i: int) -> None:
    """See Source: images are parts of photographs, and these are decoded once."""


def _windows(height: int, width: int) -> list[tuple[int, int, int]]:
  """(top, left, side) of the windows of all scales that tile a region with half overlap."""
  windows, side = [], min(height, width)
  while side >= _SAMPLE_MIN_SIDE:
    starts = []
    for n in (height, width):
      steps = -(-(n - side) // max(1, side // 2))
      starts.append([round(k * (n - side) / max(1, steps)) for k in range(steps + 1)])
    windows += [(top, left, side) for top in starts[0] for left in starts[1]]
    side = side // 2 if side >= 2 * _SAMPLE_MIN_SIDE else side * 3 // 4
  return windows


@functools.lru_cache(maxsize=32)
def _photograph(region: _Region) -> np.ndarray:
  """uint8[H, W, 3], decoded once per process."""
  # The files are read from the installed package, not through skimage.data, which would try to
  # download a missing file.
  import skimage

  path = pathlib.Path(skimage.__file__).parent / 'data' / region.file
  if not path.is_file():
    raise FileNotFoundError(
      f'the sample photograph {path} is missing: reinstall scikit-image (pip install '
      '--force-reinstall "scikit-image>=0.25")'
    )
  image = decode.read_image(path)
  image = np.ascontiguousarray(image[:, slice(*(region.columns or (None,)))])
  image.flags.writeable = False
  return image


class TfdsSource:
  """A tensorflow_datasets set prepared as array_record; we decode the stored image files."""

  def __init__(self, name: str, split: str, data_dir: str = ''):
    # tfds takes a second to import; folders and worker processes do not need it.
    import tensorflow_datasets as tfds

    builder = tfds_builder(name, data_dir)
    self.name, self.split = name, split
    self._key = _image_key(builder, name)
    if not builder.data_path.exists():
      raise FileNotFoundError(not_prepared(builder, name, data_dir))
    try:
      self._source = builder.as_data_source(
        split=split, decoders={self._key: tfds.decode.SkipDecoding()}
      )
    except NotImplementedError as error:
      raise ValueError(
        f'tfds set {name} in {builder.data_path} is stored as {builder.info.file_format.value}, '
        'which cannot be read by index: delete that folder or choose another data_dir, then run '
        f'{prepare_command(name, data_dir)}'
      ) from error
    except (ValueError, KeyError) as error:
      raise ValueError(
        f'tfds set {name} has no split {split!r}: set it to one of '
        f'{", ".join(sorted(builder.info.splits))} ({error})'
      ) from error

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, i: int) -> np.ndarray:
    return decode.decode(self.encoded(i), self.path(i))

  def path(self, i: int) -> str:
    """See Source."""
    return f'tfds:{self.name}/{self.split}#{int(i)}'

  def encoded(self, i: int) -> bytes:
    """See Source."""
    return bytes(self._source[int(i)][self._key])


def tfds_builder(name: str, data_dir: str = '', **kwargs: Any) -> Any:
  """The tfds builder; for an unknown name the error lists similar names."""
  import tensorflow_datasets as tfds

  try:
    return tfds.builder(name, data_dir=data_dir or None, **kwargs)
  except tfds.core.DatasetNotFoundError as error:
    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name.split('/')[0], known, n=5, cutoff=0.5)
    raise ValueError(
      f'tfds has no set {name!r}; near: {", ".join(near) or "none"}. All names: '
      'https://www.tensorflow.org/datasets/catalog/overview'
    ) from error
  except ValueError as error:  # an unknown config of a known set
    raise ValueError(f'tfds set {name!r}: {error}') from error


def _image_key(builder: Any, name: str) -> str:
  import tensorflow_datasets as tfds

  features = builder.info.features or {}
  images = [k for k in features if isinstance(features[k], tfds.features.Image)]
  if 'image' in images:
    return 'image'
  if len(images) != 1:
    raise ValueError(
      f'tfds set {name} has no feature named image (its image features: {images or "none"}): '
      'choose another set, or write its images into a folder'
    )
  return images[0]


def prepare_command(name: str, data_dir: str = '') -> str:
  """The shell command that prepares a set."""
  return f'jaxinpaint prepare {name}' + (f' --data_dir {data_dir}' if data_dir else '')


def manual_dir(data_dir: str = '') -> pathlib.Path:
  """The folder for files that a person has to fetch."""
  root = pathlib.Path(data_dir or '~/tensorflow_datasets').expanduser()
  return root / 'downloads' / 'manual'


def not_prepared(builder: Any, name: str, data_dir: str = '') -> str:
  """The sentence for a set that is not on this machine."""
  text = f'tfds set {name} is not prepared in {builder.data_path}. '
  instructions = ' '.join((type(builder).MANUAL_DOWNLOAD_INSTRUCTIONS or '').split())
  if instructions:
    text += (
      f'Its files have to be fetched by hand: {instructions} Put them into '
      f'{manual_dir(data_dir)}, then run: '
    )
  else:
    text += 'Download and prepare it once with: '
  return text + f'{prepare_command(name, data_dir)} (docs/data.md has all steps)'
