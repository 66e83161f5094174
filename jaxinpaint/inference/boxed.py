"""A large picture completed in one square window around its hole, as MI-GAN's own pipeline does.

Sargsyan, Navasardyan, Xu, Shi: "MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices",
ICCV 2023; the numbers are those of the authors' exported pipeline (512 pixels, padding 128). The
window around all that is hole is stretched to the square that the network takes, the output
stretched back.

  completed = complete(predictor, image, hole)

Differs from the reference code: known pixels stay as they are to the bit, and hidden ones are not
read. blend='soft' is as there: a blurred mask blends, so the known pixels next to the hole change,
and what is hidden next to its border shows through.
"""

import cv2
import numpy as np

from jaxinpaint.predictor import Predictor

PADDING = 128
BLENDS = ('hard', 'soft')


def box(hole: np.ndarray, side: int, padding: int = PADDING) -> tuple[slice, slice]:
  """Rows and columns of the window around the hole.

  It has `side` pixels, or `padding` more than the hole on each side of it. As many as would lie
  outside of the picture are added on both sides, as far as there are some.

  Args:
    hole: bool[H,W], of which some is True.
    side: that the network takes.
    padding: around the hole.
  """
  spans = []
  for axis in (1, 0):
    inside = np.flatnonzero(hole.any(axis))
    spans.append((int(inside[0]), int(inside[-1])))
  # The reference does not count the last pixel; what the halves lack is added below.
  wanted = max(max(last - first for first, last in spans) + 2 * padding, side)
  window = []
  for (first, last), length in zip(spans, hole.shape, strict=True):
    middle = (first + last) // 2
    start, stop = max(middle - wanted // 2, 0), min(middle + wanted // 2, length)
    lacking = wanted - (stop - start)
    window.append(slice(max(start - lacking, 0), min(stop + lacking, length)))
  return window[0], window[1]


def known_share(hole: np.ndarray) -> np.ndarray:
  """f32[H,W], the reference's soft mask: the hole, smaller by a pixel, blurred; 1 where known.

  The blur has 5 x 5 taps exp(-(x / 2)^2), a normal distribution of deviation sqrt(2).

  Args:
    hole: bool[H,W].
  """
  known = cv2.dilate((~hole).astype(np.float32), np.ones((3, 3), np.uint8))
  taps = np.exp(-np.square(np.arange(-2, 3) / 2)).astype(np.float32)
  taps /= taps.sum()
  return cv2.sepFilter2D(known, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)


def complete(
  predictor: Predictor,
  image: np.ndarray,
  hole: np.ndarray,
  *,
  padding: int = PADDING,
  blend: str = 'hard',
) -> np.ndarray:
  """The completed picture f32[H,W,3] in [0,1].

  Args:
    predictor: of networks that take one side.
    image: f32[H,W,3] in [0,1].
    hole: bool[H,W]; without any the picture is returned as it is.
    padding: known pixels around the hole in its window.
    blend: one of `BLENDS`.

  Raises:
    ValueError: networks that take any size, or an unknown blend.
  """
  side = predictor.inference.side
  if not side:
    raise ValueError('these networks take pictures of any size: they need no window of one')
  if blend not in BLENDS:
    raise ValueError(f'blend {blend!r} must be one of: {", ".join(BLENDS)}')
  if not hole.any():
    return image
  window = box(hole, side, padding)
  part, own = np.ascontiguousarray(image[window]), hole[window]
  stretch = lambda x, size, how: cv2.resize(x, size, interpolation=how)
  seen = stretch(part, (side, side), cv2.INTER_LINEAR)
  mask = stretch(own.astype(np.float32), (side, side), cv2.INTER_NEAREST)[..., None]
  output = predictor.output((seen * (1 - mask))[None], mask[None], np.zeros(1, np.int32))[0]
  output = stretch(np.ascontiguousarray(output), own.shape[::-1], cv2.INTER_LINEAR)
  if blend == 'hard':
    pasted = np.where(own[..., None], output, part)
  else:
    share = known_share(own)[..., None]
    pasted = part * share + output * (1 - share)
  completed = image.copy()
  completed[window] = pasted
  return completed
