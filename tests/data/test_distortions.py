"""Distorted squares and strong colour changes: what is drawn is what pixels show."""

import colorsys

import cv2
import numpy as np
import pytest

from jaxinpaint.data import colors, crops, distortions

SIDE = 128


def positions():
  """A picture of 128 x 128 whose red is the column and whose green is the row of each pixel."""
  y, x = np.mgrid[:SIDE, :SIDE]
  return np.dstack([x, y, np.full_like(x, 99)]).astype(np.uint8)


def alone(monkeypatch, **kept):
  """Only this change is left, and every picture has it."""
  none = dict(PERSPECTIVE=0.0, SCALE=(1.0, 1.0), DEGREES=0.0, SHEAR=0.0, LENS=0.0, SHARE=1.0)
  for name, value in (none | kept).items():
    monkeypatch.setattr(distortions, name, value)


def test_without_a_change_it_is_a_window(monkeypatch):
  alone(monkeypatch)
  corners = set()
  for seed in range(20):
    got = crops.crop(positions(), 100, 'distorted', np.random.default_rng(seed))
    left, top, _ = got[0, 0]
    np.testing.assert_array_equal(got, positions()[top : top + 100, left : left + 100])
    corners.add((left, top))
  assert len(corners) > 10
  # Smaller pictures are enlarged first.
  assert crops.crop(positions(), 200, 'distorted', np.random.default_rng(0)).shape == (200, 200, 3)


def slopes(picture):
  """[[dx/du, dx/dv], [dy/du, dy/dv]] of original by distorted coordinates, and the centre."""
  middle = picture[48:80, 48:80, :2].reshape(-1, 2).astype(float)
  v, u = np.mgrid[48:80, 48:80] - (SIDE - 1) / 2
  terms = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], -1)
  fit = np.linalg.lstsq(terms, middle, rcond=None)[0]
  return fit[:2].T, fit[2]


def test_scale_turn_and_shear_are_about_the_centre_and_within_their_ranges():
  drawn = []
  for seed in range(400):
    back = distortions._affine(SIDE, SIDE, np.random.default_rng(seed))
    centre = np.full(2, (SIDE - 1) / 2)
    np.testing.assert_allclose(back[:2, :2] @ centre + back[:2, 2], centre)
    forth = np.linalg.inv(back[:2, :2])
    scale, angle = np.hypot(*forth[:, 0]), np.degrees(np.arctan2(*forth[::-1, 0]))
    shear = (forth[:, 0] @ forth[:, 1]) / scale**2
    assert np.linalg.det(forth) == pytest.approx(scale**2)
    drawn.append((scale, angle, shear))
  units = np.array([0.3, 40, 0.1])
  np.testing.assert_allclose(np.min(drawn, 0) / units, [0.7 / 0.3, -1, -1], atol=0.03)
  np.testing.assert_allclose(np.max(drawn, 0) / units, [1.3 / 0.3, 1, 1], atol=0.03)


def test_pixels_move_as_the_affine_map_says(monkeypatch):
  alone(monkeypatch, SCALE=(1.25, 1.25), DEGREES=30.0)
  for seed in range(5):
    got, centre = slopes(distortions.crop(positions(), SIDE, np.random.default_rng(seed)))
    np.testing.assert_allclose(centre, (SIDE - 1) / 2, atol=0.5)
    assert np.linalg.det(got) == pytest.approx(1.25**-2, abs=0.02)
    assert abs(np.degrees(np.arctan2(got[1, 0], got[0, 0]))) <= 31
    np.testing.assert_allclose(got[0, 0], got[1, 1], atol=0.02)
    np.testing.assert_allclose(got[0, 1], -got[1, 0], atol=0.02)


def test_the_perspective_moves_each_corner_inwards_on_its_own():
  moves, corners = [], np.array([[[0, 0], [1, 0], [1, 1], [0, 1]]]) * (SIDE - 1.0)
  for seed in range(50):
    back = distortions._perspective(SIDE, SIDE, np.random.default_rng(seed))
    seen = cv2.perspectiveTransform(corners, back)
    moves.append(np.where(corners > 0, corners - seen, seen).ravel())
  assert np.min(moves) >= -1e-3
  # |N(0, s)| with s uniform up to 6 % of the side: 0.8 * 3 % in the mean.
  assert np.mean(moves) == pytest.approx(0.8 * 0.03 * SIDE, rel=0.25)
  assert np.linalg.matrix_rank(np.array(moves)) == 8


class Lowest:
  """Draws the lowest number of each range."""

  def random(self):
    return 0.0

  def uniform(self, low, high):
    return low

  def integers(self, low, high, endpoint):
    return low

  def normal(self, mean, deviation, shape):
    return np.full(shape, mean)


def test_the_lens_moves_pixels_along_rays(monkeypatch):
  alone(monkeypatch, LENS=0.5)
  y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
  stretch = 1 - 0.5 * (x**2 + y**2) / SIDE**2
  want = np.stack([x * stretch, y * stretch], -1) + (SIDE - 1) / 2
  got = distortions.crop(positions(), SIDE, Lowest())[..., :2]
  np.testing.assert_allclose(got, want, atol=0.6)


@pytest.mark.parametrize('change', [dict(DEGREES=40.0), dict(PERSPECTIVE=0.06)])
def test_one_half_of_the_pictures_are_changed(change, monkeypatch):
  alone(monkeypatch, SHARE=0.5, **change)
  same = [
    np.array_equal(distortions.crop(positions(), SIDE, np.random.default_rng(seed)), positions())
    for seed in range(40)
  ]
  assert 10 < sum(same) < 30


class Highest:
  """Draws the highest number of each range; of the three changes only the one of this index."""

  def __init__(self, change):
    self.draws = iter([0.1 if i == change else 0.9 for i in range(3)])

  def random(self):
    return next(self.draws)

  def uniform(self, low, high, count=None):
    return high if count is None else np.full(count, high)


def test_strong_changes_of_colors_are_those_of_their_ranges(photographs):
  grey = np.full((32, 32, 3), 100, np.uint8)
  np.testing.assert_array_equal(colors.strong(grey, Highest(None)), grey)
  # 100 * 1.2 + 0.2 * 255
  np.testing.assert_array_equal(colors.strong(grey, Highest(1)), 171)
  color = np.full((1, 1, 3), (200, 100, 50), np.uint8)
  hue, saturation, value = colorsys.rgb_to_hsv(*(color[0, 0] / 255))
  want = colorsys.hsv_to_rgb(hue + 10 / 360, saturation + 30 / 255, value + 5 / 255)
  np.testing.assert_allclose(colors.strong(color, Highest(2))[0, 0] / 255, want, atol=1 / 255)
  # Local contrast: darker pictures gain most, and flat parts differ more.
  dark = (photographs[0] // 4).astype(np.uint8)
  assert colors.strong(dark, Highest(0)).std() > 1.5 * dark.std()


def test_strong_changes_happen_to_a_half_each(photographs):
  image = photographs[0][:64, :64]
  same = [
    np.abs(colors.strong(image, np.random.default_rng(s)).astype(int) - image).max() <= 1
    for s in range(80)
  ]
  assert 3 <= sum(same) <= 20  # an eighth
