"""Masks by specification: `masks.make('irregular:0.1-0.4')(rng, 256, 256)`.

A specification is a string or a mapping:

  'strokes'                          a family with its defaults
  'strokes:0.1-0.4'                  ... with the hole's share in (0.1, 0.4]
  'center:0.25'                      the centre square of this share
  'survey_random:0.2'                free-form strokes of exactly this share
  'lama_thick_256'                   a named set
  'folder:/path/to/masks'            files, white = hole; also a .txt list of paths, or just a path
  'pairs:/path/to/masks'             files that belong to images by name: dog.png, dog_mask000.png
  'irregular:0.1-0.4;max_width=40'   options after semicolons
  'mixture: 0.7*irregular + 0.3*rectangles:0.1-0.3'
  {'kind': 'strokes', 'area': (0.1, 0.4), 'max_width': 30}
  {'kind': 'mixture', 'of': [(0.7, 'irregular'), (0.3, {'kind': 'folder', 'path': '/masks'})]}

The options of a family are the fields of its class in masks.shapes, masks.files and masks.brush.

  jaxinpaint masks freeze | inspect    (see cli.masks)
"""

import collections.abc
import dataclasses
import functools
import hashlib
import pathlib
import re
from typing import Any

import numpy as np

from jaxinpaint.masks import brush
from jaxinpaint.masks.brush import Brush
from jaxinpaint.masks.files import (
  FileMasks,
  PairMasks,
  read_mask,
)
from jaxinpaint.masks.sampler import MaskSampler, check_area
from jaxinpaint.masks.shapes import (
  Box,
  Center,
  FreeForm,
  Irregular,
  Rectangles,
  Strokes,
  SurveyRandom,
)

__all__ = [
  'FileMasks',
  'MaskSampler',
  'PairMasks',
  'SetHash',
  'kinds',
  'make',
  'mask_set_hash',
  'read_mask',
]


@dataclasses.dataclass(frozen=True)
class Mixture(MaskSampler):
  """One of several families per draw, with probability weight / sum of weights.

  Attributes:
    of: (weight, sampler) of each part; a part keeps its own area range.
    label: the name of LaMa's set that this is, if it is one.
  """

  of: tuple[tuple[float, MaskSampler], ...] = ()
  label: str = ''

  def __post_init__(self):
    super().__post_init__()
    if not self.of:
      raise ValueError(
        "a mixture of masks needs parts: 'mixture: 0.5*strokes + 0.5*rectangles', or "
        "{'kind': 'mixture', 'of': [(0.5, 'strokes'), (0.5, 'rectangles')]}"
      )
    weights = [w for w, _ in self.of]
    if not all(np.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
      raise ValueError(f'weights {weights} of a mixture must be >= 0, and not all 0')

  @property
  def kind(self) -> str:
    """See MaskSampler."""
    return self.label or '+'.join(f'{w:g}*{part.name}' for w, part in self.of)

  @property
  def name(self) -> str:
    """See MaskSampler."""
    return self.label if self.label and self.area == _LAMA[self.label][3] else super().name

  def check(self) -> None:
    """See MaskSampler."""
    for _, part in self.of:
      part.check()

  def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """See MaskSampler; a part's own area range holds as well."""
    weights = np.array([w for w, _ in self.of], np.float64)
    i = int(rng.choice(len(weights), p=weights / weights.sum()))
    return self.of[i][1](rng, height, width)


# name: ((weight, max_len, max_width, min_times, max_times) of the lines,
#        (weight, margin, min_side, max_side, min_times, max_times) of the boxes or None,
#        reference size, area range). LaMa's released configurations; test sets reject holes over
#        half of the image.
_HALF = (0.0, 0.5)
_LAMA = {
  'lama': ((1, 200, 100, 1, 5), (1, 10, 30, 150, 1, 4), 256, None),
  'lama_small': ((1, 80, 40, 4, 12), (1, 0, 30, 128, 1, 1), 256, None),
  'lama_thin_256': ((1, 40, 10, 4, 50), None, 256, _HALF),
  'lama_thin_512': ((1, 100, 20, 4, 70), None, 512, _HALF),
  'lama_medium_256': ((1, 100, 50, 4, 5), (0.3, 0, 10, 50, 1, 5), 256, _HALF),
  'lama_medium_512': ((1, 200, 100, 4, 10), (0.3, 0, 30, 150, 1, 5), 512, _HALF),
  'lama_thick_256': ((1, 200, 100, 1, 5), (0.3, 10, 30, 150, 1, 3), 256, _HALF),
  'lama_thick_512': ((1, 450, 250, 1, 5), (0.3, 10, 30, 300, 1, 4), 512, _HALF),
}
_FAMILIES = {
  'strokes': Strokes,
  'deepfill_v2': Strokes,
  'free_form': FreeForm,
  'irregular': Irregular,
  'rectangles': Rectangles,
  'box': Box,
  'center': Center,
  'survey_random': SurveyRandom,
  'brush': Brush,
  'folder': FileMasks,
  'files': FileMasks,
  'pairs': PairMasks,
}


def kinds() -> tuple[str, ...]:
  """Every word with which a specification can begin."""
  return (*_FAMILIES, *_LAMA, 'mixture')


def make(spec: 'str | collections.abc.Mapping[str, Any] | MaskSampler') -> MaskSampler:
  """The sampler of a specification (the module's text lists the forms).

  Returns:
    A sampler: `sampler(rng, height, width)` -> uint8[H, W] in {0, 1}, 1 = hole; `sampler.name`.

  Raises:
    ValueError: unknown family or option, area range not within [0, 1] or reversed, empty folder.
    FileNotFoundError: no such folder of masks.

  >>> hole = make('center:0.25')(np.random.default_rng(0), 64, 64)
  >>> hole.shape, float(hole.mean())
  ((64, 64), 0.25)
  """
  if isinstance(spec, MaskSampler):
    return spec
  if isinstance(spec, str):
    if '/' in spec and pathlib.Path(spec).expanduser().exists():
      return FileMasks(spec)
    return _build(*_parse(spec))
  # A ConfigDict is no Mapping but can list its items.
  if hasattr(spec, 'items'):
    options = dict(spec.items())
    if 'kind' not in options:
      raise ValueError(f"mask specification {options} lacks 'kind': one of {', '.join(kinds())}")
    return _build(str(options.pop('kind')), options)
  raise ValueError(f"mask specification {spec!r} must be a string or a mapping with 'kind'")


def drawer(data: Any) -> collections.abc.Callable | None:
  """What draws the masks of `config.data` inside the train step; None where the pipeline does.

  Returns:
    (keys u32[B, 2], height, width) -> f32[B, height, width, 1] in {0, 1}, 1 = hole.
  """
  if not data.masks_on_device:
    return None
  return functools.partial(brush.draw_on_device, brush=make(data.masks))


def _parse(spec: str) -> tuple[str, dict[str, Any]]:
  """'kind:value;option=value' -> (kind, options)."""
  kind, _, rest = spec.strip().partition(':')
  kind, rest = kind.strip(), rest.strip()
  if kind == 'mixture':
    return kind, {'of': [_parse_part(part, spec) for part in re.split(r'\s\+\s', rest) if part]}
  if ';' in kind:
    kind, _, tail = spec.strip().partition(';')
    rest = ';' + tail
  value, *settings = rest.split(';')
  options: dict[str, Any] = {}
  for setting in settings:
    name, equals, text = setting.partition('=')
    if not equals:
      raise ValueError(f"option {setting!r} of mask specification {spec!r} must be 'name=value'")
    options[name.strip()] = text.strip()
  if not value:
    return kind, options
  if kind in ('folder', 'files', 'pairs'):
    options['path'] = value
  elif '-' in value and not value.startswith('-'):
    options['area'] = value
  elif kind in ('center', 'survey_random'):
    options['share'] = value
  else:
    raise ValueError(
      f'{value!r} in mask specification {spec!r} must be a range of hole shares, as '
      f"'{kind}:0.1-0.4'"
    )
  return kind, options


def _parse_part(part: str, spec: str) -> tuple[float, str]:
  weight, _, inner = part.partition('*')
  try:
    return float(weight), inner.strip()
  except ValueError as error:
    raise ValueError(
      f"part {part.strip()!r} of mask specification {spec!r} must be 'weight*masks', as "
      "'mixture: 0.5*strokes + 0.5*rectangles'"
    ) from error


def _build(kind: str, options: dict[str, Any]) -> MaskSampler:
  options = {k: v for k, v in options.items() if v is not None}
  if 'area' in options:
    options['area'] = _area(options['area'], kind)
  if kind == 'mixture':
    _check_options(kind, options, ('of', 'area'))
    return Mixture(tuple(_weighted(p) for p in options.pop('of', ())), **options)
  if kind in _LAMA:
    _check_options(kind, options, ('area',))
    return _lama(kind, **options)
  if kind not in _FAMILIES:
    raise ValueError(f'unknown masks {kind!r}; there are: {", ".join(kinds())}')
  if kind == 'deepfill_v2':
    options.setdefault('box', True)
  family = _FAMILIES[kind]
  fields = {f.name: f.type for f in dataclasses.fields(family) if f.init}
  _check_options(kind, options, tuple(fields))
  return family(**{k: _typed(kind, k, v, fields[k]) for k, v in options.items()})


def _weighted(part: Any) -> tuple[float, MaskSampler]:
  try:
    weight, spec = part
    return float(weight), make(spec)
  except TypeError as error:
    raise ValueError(f'part {part!r} of a mixture must be a pair (weight, masks)') from error


def _lama(name: str, area: tuple[float, float] | None = None) -> MaskSampler:
  lines, boxes, reference, own_area = _LAMA[name]
  weight, max_len, max_width, low, high = lines
  irregular = Irregular(max_len, max_width, low, high, reference)
  parts: tuple[tuple[float, MaskSampler], ...] = ((weight, irregular),)
  if boxes:
    parts += ((boxes[0], Rectangles(*boxes[1:], reference=reference)),)
  return Mixture(parts, name, area=area or own_area)


def _area(area: Any, kind: str) -> tuple[float, float]:
  if isinstance(area, str):
    area = area.split('-')
  return check_area(area, f'area of masks {kind!r}')


def _check_options(kind: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
  unknown = sorted(set(options) - set(known))
  if unknown:
    raise ValueError(f'masks {kind!r} have no option {", ".join(unknown)}; they have: '
                     f'{", ".join(known)}')  # fmt: skip


def _typed(kind: str, name: str, value: Any, want: Any) -> Any:
  """Text to the field's type; numbers are checked too."""
  try:
    if want is bool and isinstance(value, str):
      return {'true': True, '1': True, 'false': False, '0': False}[value.lower()]
    if want is int:
      if float(value) != int(float(value)):
        raise ValueError('not whole')
      return int(float(value))
    if want in (float, float | None):
      return float(value)
  except (ValueError, KeyError, TypeError) as error:
    wanted = getattr(want, '__name__', 'number')
    raise ValueError(
      f'option {name}={value!r} of masks {kind!r} must be of type {wanted}'
    ) from error
  return value


class SetHash:
  """SHA-256 of a sequence of masks: their count, sizes, order and every pixel.

  For each mask its height and width as 8-byte little-endian integers, then its pixels row by row,
  eight to a byte, the first in the highest bit, 1 = hole.
  """

  def __init__(self):
    self._digest = hashlib.sha256()

  def add(self, mask: np.ndarray) -> None:
    """The next mask, [H, W] or [H, W, 1], hole where > 0.5 (so uint8 {0, 1} and floats agree)."""
    hole = np.asarray(mask).reshape(mask.shape[:2]) > 0.5
    self._digest.update(np.array(hole.shape, '<i8').tobytes())
    self._digest.update(np.packbits(hole).tobytes())

  def hexdigest(self) -> str:
    """Of everything added so far."""
    return self._digest.hexdigest()


def mask_set_hash(masks: collections.abc.Iterable[np.ndarray]) -> str:
  """The `SetHash` (hex) of masks."""
  digest = SetHash()
  for mask in masks:
    digest.add(mask)
  return digest.hexdigest()
