"""The window around a hole and what is pasted from it."""

import types

import goldens
import numpy as np
import pytest

from jaxinpaint.inference import boxed


@goldens.cases('migan_pipeline_bbox')
def test_the_window_is_the_references(case):
  data = case.data()
  for (height, width, top, bottom, left, right), want in zip(
    data['cases'], data['boxes'], strict=True
  ):
    hole = np.zeros((height, width), bool)
    hole[top:bottom, left:right] = True
    rows, columns = boxed.box(hole, 512, 128)
    assert [columns.start, columns.stop, rows.start, rows.stop] == list(want)


def grey(side=32, level=0.25):
  """A predictor that fills everything with one grey, and notes what it has seen."""
  seen = []

  def output(image, mask, ids):
    seen.append((image, mask))
    return np.full(image.shape, level, np.float32)

  return types.SimpleNamespace(inference=types.SimpleNamespace(side=side), output=output, seen=seen)


def picture():
  image = np.random.default_rng(0).random((90, 120, 3), np.float32)
  hole = np.zeros((90, 120), bool)
  hole[20:40, 50:80] = True
  return image, hole


def test_known_pixels_stay_and_hidden_ones_are_not_read():
  (image, hole), predictor = picture(), grey()
  out = boxed.complete(predictor, image, hole, padding=8)
  np.testing.assert_array_equal(out[~hole], image[~hole])
  np.testing.assert_allclose(out[hole], 0.25)
  ((seen, mask),) = predictor.seen
  assert seen.shape == (1, 32, 32, 3) and not seen[mask[..., 0] > 0].any()
  # The window has 45 or 46 pixels, 30 and twice 8; the hole is 30 x 20 of them.
  assert mask.mean() == pytest.approx(30 * 20 / 45**2, rel=0.05)


def test_the_soft_blend_is_the_references():
  image, hole = picture()
  out = boxed.complete(grey(), image, hole, blend='soft')
  known = np.pad(~hole, 1, constant_values=False)
  known = np.any([known[i : i + 90, j : j + 120] for i in range(3) for j in range(3)], 0)
  taps = np.exp(-np.square(np.arange(-2, 3) / 2))
  taps = np.outer(taps, taps) / np.outer(taps, taps).sum()
  padded = np.pad(known.astype(float), 2, mode='reflect')
  share = sum(taps[i, j] * padded[i : i + 90, j : j + 120] for i in range(5) for j in range(5))
  assert (share[~hole] < 1).any() and (share[hole] > 0).any() and (share == 0).any()
  np.testing.assert_allclose(boxed.known_share(hole), share, atol=1e-6)
  np.testing.assert_allclose(
    out, image * share[..., None] + 0.25 * (1 - share[..., None]), atol=1e-5
  )


def test_what_cannot_be_is_named():
  image, hole = picture()
  with pytest.raises(ValueError, match='take pictures of any size'):
    boxed.complete(grey(side=0), image, hole)
  with pytest.raises(ValueError, match='hard, soft'):
    boxed.complete(grey(), image, hole, blend='none')
  assert boxed.complete(grey(), image, np.zeros_like(hole)) is image
