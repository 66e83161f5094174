"""Fills without learning, which a network should beat; they are called like a predictor.

  (image f32[B,H,W,3] in [0,1], mask f32[B,H,W,1] 1 = hole, ids i32[B]) -> f32[B,H,W,3]

Telea: "An image inpainting technique based on the fast marching method", 2004. Navier-Stokes:
Bertalmio et al., "Navier-Stokes, fluid dynamics, and image and video inpainting", CVPR 2001. Both
are OpenCV's, on 8-bit RGB. Biharmonic: Damelin and Hoang, "On surface completion and image
inpainting by biharmonic functions", 2018, by scikit-image. PatchMatch: Barnes et al., "PatchMatch:
a randomized correspondence algorithm for structural image editing", SIGGRAPH 2009, with the
completion of Wexler et al. over a pyramid, by the library pypatchmatch, on 8-bit RGB.
"""

import concurrent.futures
import dataclasses
import importlib
import os
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from absl import logging

from jaxinpaint import arrays

Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# How far OpenCV's fills look around a pixel, in pixels; its tutorial uses 3.
RADIUS = 3
# PatchMatch's patches are 7 x 7, as in the paper.
PATCH_RADIUS = 3


def mean_fill(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """Fills the hole with the mean colour of the image's known pixels; gray if none is known."""
  known = 1.0 - np.asarray(mask, np.float64)
  count = known.sum((1, 2), keepdims=True)
  mean = (known * image).sum((1, 2), keepdims=True) / np.maximum(count, 1)
  mean = np.where(count > 0, mean, 0.5)
  return np.where(mask > 0, mean, image).astype(np.float32)


def telea(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """OpenCV's INPAINT_TELEA with radius 3."""
  return _opencv(image, mask, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """OpenCV's INPAINT_NS with radius 3."""
  return _opencv(image, mask, cv2.INPAINT_NS)


def _opencv(image: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
  outputs = []
  for x, m in zip(np.asarray(image), np.asarray(mask), strict=True):
    hole = (m[..., 0] > 0).astype(np.uint8)
    filled = cv2.inpaint(arrays.to_uint8(x), hole, RADIUS, method)
    outputs.append(np.where(m > 0, filled / np.float32(255), x))
  return np.stack(outputs).astype(np.float32)


def biharmonic(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """The smoothest continuation, clipped to [0, 1]; a picture without known pixels becomes gray.

  It solves one sparse system for each hole: about 0.1 s for 10 % of 256 x 256, 0.6 s for 60 %. At
  the border of the image it extrapolates: large holes there get bright or dark spots.
  """
  return _each(_biharmonic, image, mask)


def _biharmonic(x: np.ndarray, hole: np.ndarray) -> np.ndarray:
  # Here, not above: skimage.restoration takes a second to import, and the default fills do without.
  from skimage.restoration import inpaint_biharmonic

  filled = inpaint_biharmonic(x.astype(np.float64), hole, channel_axis=-1)
  # With very few known pixels the system may have no unique solution.
  return np.clip(np.where(np.isfinite(filled), filled, 0.5), 0, 1)


def patchmatch(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """Patches of 7 x 7 from the known part of the same picture; the seed is always 0.

  About 0.3 s for 10 % of 256 x 256, 1 s for 60 %.

  Raises:
    ValueError: pypatchmatch is not installed.
  """
  check('patchmatch')
  return _each(_patchmatch, image, mask)


def _patchmatch(x: np.ndarray, hole: np.ndarray) -> np.ndarray:
  import patchmatch as library

  # Every call starts with this seed, so the result does not depend on order or on other threads.
  library.set_random_seed(0)
  return library.inpaint(arrays.to_uint8(x), hole, patch_size=PATCH_RADIUS) / np.float32(255)


def _each(
  fill: Callable[[np.ndarray, np.ndarray], np.ndarray], image: np.ndarray, mask: np.ndarray
) -> np.ndarray:
  """`fill(f32[H,W,3], bool[H,W])` of each image, in threads; mean fill if no pixel is known."""
  image, mask = np.asarray(image, np.float32), np.asarray(mask)
  output = mean_fill(image, mask, np.arange(len(image)))
  holes = mask[..., 0] > 0
  mixed = [i for i, hole in enumerate(holes) if hole.any() and not hole.all()]
  threads = min(8, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    # The hole is set to 0, so that its content cannot matter.
    empty = lambda i: np.where(holes[i][..., None], np.float32(0), image[i])
    for i, filled in zip(mixed, pool.map(lambda i: fill(empty(i), holes[i]), mixed), strict=True):
      output[i] = np.where(holes[i][..., None], filled, image[i])
  return output


@dataclasses.dataclass(frozen=True)
class Fill:
  """A fill that commands know by name.

  Attributes:
    label: its name in tables.
    function: the predictor.
    requires: module that it needs and that this library does not depend on; '': none.
    package: the package of that module.
  """

  label: str
  function: Predictor
  requires: str = ''
  package: str = ''


FILLS: dict[str, Fill] = {
  'mean': Fill('mean fill', mean_fill),
  'telea': Fill('Telea', telea),
  'ns': Fill('Navier-Stokes', navier_stokes),
  'biharmonic': Fill('biharmonic', biharmonic),
  'patchmatch': Fill('PatchMatch', patchmatch, 'patchmatch', 'pypatchmatch'),
}


def check(name: str) -> None:
  """Raises ValueError if there is no fill of this name, or its library is not installed."""
  if name not in FILLS:
    raise ValueError(f'unknown fill {name!r}; there are: {", ".join(FILLS)}')
  fill = FILLS[name]
  if not fill.requires:
    return
  try:
    library = importlib.import_module(fill.requires)
  except ImportError as error:
    raise ValueError(
      f'the fill {name!r} needs the library {fill.package}, which is not installed: pip install '
      f"'{fill.package}>=2.2', or 'jaxinpaint[fills]'"
    ) from error
  # pypatchmatch imports without its native code, and fails when it is called.
  if not getattr(library, 'patchmatch_available', False):
    raise ValueError(
      f'the fill {name!r} needs the native code of {fill.package}, which cannot be loaded here: '
      f"pip install --force-reinstall --no-deps '{fill.package}>=2.2'"
    )


def get(names: Sequence[str]) -> dict[str, Predictor]:
  """{label: predictor} of the fills with these names (the keys of FILLS).

  Raises:
    ValueError: unknown name, or a library that is not installed; says how to install it.
  """
  for name in names:
    check(name)
  return {FILLS[name].label: FILLS[name].function for name in names}


def choose(names: Sequence[str]) -> dict[str, Predictor]:
  """The fills of --fills: names as `get` takes them, or ['all'] that are installed, or ['none'].

  Raises:
    ValueError: as `get`; or 'all' or 'none' together with other names.
  """
  names = [n.strip().lower() for n in names if n.strip()]
  if names == ['none']:
    return {}
  if names == ['all']:
    return get([n for n in FILLS if _is_installed(n)])
  if 'none' in names or 'all' in names:
    raise ValueError(f"--fills {','.join(names)}: 'all' and 'none' stand alone")
  try:
    return get(names)
  except ValueError as error:
    raise ValueError(f"--fills: {error}; or 'all', 'none'") from error


def _is_installed(name: str) -> bool:
  try:
    check(name)
  except ValueError as error:
    logging.warning('%s', error)
    return False
  return True


DEFAULT = ('mean', 'telea', 'ns')
PREDICTORS: dict[str, Predictor] = get(DEFAULT)
