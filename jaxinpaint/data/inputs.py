"""Extra inputs that some systems read beside image and mask: edges and gray, made on the host.

A system names them (`Inference.inputs`), the pipeline puts them into every batch under the name
before the colon, and evaluation and inference hand them to `predict` as keyword arguments.

  'canny'          edges of Canny's detector, sigma 2
  'canny:sigma=3'  another width of the smoothing, in pixels
  'gray'           luminance in [0, 1]

Both take 'wrapped=1' for the maps that CTSDG's released code made: see `wrapped`.

In training they are made from the whole image: the system itself must mask out the hole. At
inference the image is blank in the hole, and the border of the hole is not an edge: nothing is
detected within one pixel of the hole.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Input:
  """One array beside image and mask.

  Attributes:
    name: its key in a batch, and the keyword of `predict`.
    make: (image uint8[H, W, 3], or float in [0, 1]; known bool[H, W], or None: all of it) ->
      f32[H, W, channels].
    channels: of the result.
  """

  name: str
  make: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
  channels: int = 1


def wrapped(normalized: np.ndarray) -> np.ndarray:
  """uint8 of 255 times an image in [-1, 1], where negative values wrap around: -0.5 becomes 129.

  CTSDG's released code makes gray and edges from images that are already normalised, through a
  conversion that expects [0, 1]. Its published weights were trained on such inputs only.

  Args:
    normalized: f32[H, W, C] in [-1, 1].
  """
  scaled = normalized.astype(np.float32) * np.float32(255)
  return (scaled.astype(np.int64) % 256).astype(np.uint8)


def _maybe_wrapped(image: np.ndarray, wrap: bool) -> np.ndarray:
  if not wrap:
    return image
  unit = image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image
  return wrapped((unit.astype(np.float32) - np.float32(0.5)) / np.float32(0.5))


def gray(
  image: np.ndarray, known: np.ndarray | None = None, *, wrapped: bool = False
) -> np.ndarray:
  """Luminance, 0.2125 R + 0.7154 G + 0.0721 B.

  Args:
    image: uint8[H, W, 3], or float in [0, 1].
    known: not used, since every pixel is computed alone.
    wrapped: see the function `wrapped`.

  Returns:
    f32[H, W, 1] in [0, 1].
  """
  from skimage import color  # takes half a second, and few systems need it

  return color.rgb2gray(_maybe_wrapped(image, wrapped)).astype(np.float32)[..., None]


def canny(
  image: np.ndarray,
  known: np.ndarray | None = None,
  *,
  sigma: float = 2.0,
  wrapped: bool = False,
) -> np.ndarray:
  """Edges of the gray image: Canny's detector with scikit-image's default thresholds.

  Args:
    image: uint8[H, W, 3], or float in [0, 1].
    known: bool[H, W]; edges are found only there, a pixel away from its border. None: everywhere.
    sigma: of the Gaussian, in pixels; > 0.
    wrapped: see the function `wrapped`.

  Returns:
    f32[H, W, 1] in {0, 1}.
  """
  from skimage import color, feature

  luminance = color.rgb2gray(_maybe_wrapped(image, wrapped))
  edges = feature.canny(luminance, sigma=sigma, mask=known)
  return edges.astype(np.float32)[..., None]


# name: (function of image and known, {option: how its text is read}, channels)
_KINDS: Mapping[str, tuple[Callable, Mapping[str, Callable], int]] = {
  'canny': (canny, {'sigma': float, 'wrapped': lambda text: bool(int(text))}, 1),
  'gray': (gray, {'wrapped': lambda text: bool(int(text))}, 1),
}


def make(spec: str) -> Input:
  """The input that `spec` ('NAME' or 'NAME:OPTION=VALUE,...') describes.

  Raises:
    ValueError: an unknown name or option, or a value that cannot be read or is out of range.
  """
  name, _, rest = spec.partition(':')
  if name not in _KINDS:
    raise ValueError(f'unknown input {spec!r}; there are: {", ".join(_KINDS)}')
  function, options, channels = _KINDS[name]
  given = {}
  for item in filter(None, rest.split(',')):
    option, _, text = item.partition('=')
    if option not in options:
      raise ValueError(f'input {spec!r}: no option {option!r}; there are: {", ".join(options)}')
    try:
      given[option] = options[option](text)
    except ValueError as error:
      raise ValueError(f'input {spec!r}: {option} cannot be {text!r} ({error})') from error
  if given.get('sigma', 1.0) <= 0:
    raise ValueError(f'input {spec!r}: sigma must be above 0')
  return Input(name, lambda image, known=None: function(image, known, **given), channels)


def compute(
  specs: Sequence[str], image: np.ndarray, mask: np.ndarray | None
) -> dict[str, np.ndarray]:
  """{name: f32[H, W, C]} of one image, or {name: f32[B, H, W, C]} of a batch.

  Args:
    specs: of `make`.
    image: [(B,) H, W, 3], uint8 or float in [0, 1].
    mask: [(B,) H, W, 1], 1 = hole, which is not read; None: everything is read.

  Raises:
    ValueError: of `make`.
  """
  if image.ndim == 4:
    masks = [None] * len(image) if mask is None else mask
    rows = [compute(specs, i, m) for i, m in zip(image, masks, strict=True)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  known = None if mask is None else mask[..., 0] == 0
  return {i.name: i.make(image, known) for i in map(make, specs)}


def shapes(specs: Sequence[str], size: Sequence[int]) -> dict[str, tuple[int, ...]]:
  """{name: the shape that `compute` gives} for images of [..., H, W]."""
  return {i.name: (*size, i.channels) for i in map(make, specs)}
