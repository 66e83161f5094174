"""Poisson blending: a wrong level comes back, texture stays, and nothing known moves."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
import toy_system

from jaxinpaint.inference import blend
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.masks import spec


def picture(height, width):
  """A smooth picture."""
  y, x = np.mgrid[:height, :width]
  planes = [0.3 + 0.3 * y / height, 0.5 - 0.2 * x / width, 0.4 + 0.1 * np.sin(x / 9)]
  return np.stack(planes, -1).astype(np.float32)


def holes(height, width):
  """Holes of every kind: inside, at two rims, in a corner, a thin line, a single pixel."""
  found = np.zeros((height, width), bool)
  found[8:20, 10:31] = True
  found[24:30, :9] = True
  found[-7:, -12:] = True
  found[:3, 20:26] = True
  found[36, 4:30] = True
  found[33, 40] = True
  return found


@pytest.mark.parametrize('size', [(43, 57), (64, 48)])
def test_an_output_of_another_level_comes_back_to_its_own(size):
  image, hole = picture(*size), holes(*size)
  output = np.clip(image + np.array([0.2, -0.1, 0.05], np.float32), 0, 1)
  got = blend.poisson(np.where(hole[..., None], np.nan, image), output, hole)
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got[~hole], image[~hole])
  error = np.abs(got - image)[hole]
  assert error.max() < 0.05 and error.mean() < 0.012  # it was 0.117


def test_texture_inside_the_hole_is_the_outputs():
  image, hole = picture(48, 48), np.zeros((48, 48), bool)
  hole[10:40, 12:38] = True
  texture = 0.1 * (np.indices((48, 48)).sum(0) % 2)[..., None].astype(np.float32)
  got = blend.poisson(image, image * 0.5 + texture, hole)
  inside = np.s_[14:36, 16:34]
  ripple = lambda x: np.abs(np.diff(x[inside], axis=0)).mean()
  assert ripple(got) == pytest.approx(ripple(image * 0.5 + texture), rel=0.05)


def test_the_membrane_is_harmonic_and_met_at_each_border():
  hole = np.zeros((7, 12), bool)
  hole[3, 1:11] = True  # a line between known pixels: each is held by both sides
  wanted = np.arange(10.0)[:, None]
  got = blend._membrane(hole, wanted)[:, 0]
  system = np.diag(np.r_[4.0, [4.0] * 8, 4.0]) - np.eye(10, k=1) - np.eye(10, k=-1)
  known = np.r_[3.0, [2.0] * 8, 3.0]
  np.testing.assert_allclose(got, np.linalg.solve(system, known * wanted[:, 0]), rtol=1e-9)
  rim = np.ones((1, 5), bool)
  rim[0, 0] = False  # no flux beyond the rim: one known pixel sets the level of all
  got = blend._membrane(rim, np.array([[0.3], [9.0], [9.0], [9.0]]))
  np.testing.assert_allclose(got, 0.3, rtol=1e-9)


def test_nothing_to_fit_to_or_nothing_to_fill():
  image, output = picture(16, 16), np.zeros((16, 16, 3), np.float32)
  every, none = np.ones((16, 16), bool), np.zeros((16, 16), bool)
  np.testing.assert_array_equal(blend.poisson(image, output, every), output)
  np.testing.assert_array_equal(blend.poisson(image, output, none), image)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('max_side', [None, 32])
def test_an_inpainter_blends_and_known_pixels_stay_to_the_bit(dtype, max_side):
  image = picture(41, 75)
  if dtype == np.uint8:
    image = (image * 255 + 0.5).astype(np.uint8)
  hole = spec.make('strokes:0.1-0.3')(np.random.default_rng(0), 41, 75) > 0
  white = lambda v, c, image, mask, rng: jnp.ones_like(image)
  got = toy_system.inpainter(white, blend='poisson', max_side=max_side)(image, hole)
  assert got.dtype == dtype
  np.testing.assert_array_equal(got[~hole], image[~hole])
  scale = 255 if dtype == np.uint8 else 1
  assert np.abs(got[hole] / scale - picture(41, 75)[hole]).mean() < 0.05
  plain = toy_system.inpainter(white, max_side=max_side)(image, hole)
  # A reduced completion brings a little of its known pixels into the hole's rim when enlarged.
  inside = cv2.erode(hole.astype(np.uint8), np.ones((7, 7))) > 0 if max_side else hole
  assert inside.any()
  np.testing.assert_allclose(plain[inside], scale, rtol=1e-6)


def test_an_unknown_kind_is_refused():
  with pytest.raises(InpaintError, match="blend 'alpha' must be one of: none, poisson"):
    toy_system.inpainter(blend='alpha')
