"""Masks that a person makes of one picture."""

import json

import cv2
import numpy as np
import pytest

from jaxinpaint.masks import make


def region(height, width, *boxes):
  mask = np.zeros((height, width), np.uint8)
  for top, left, bottom, right in boxes:
    mask[top:bottom, left:right] = 1
  return mask


def photo(height=60, width=80):
  """A smooth picture."""
  y, x = np.mgrid[:height, :width]
  return np.stack([90 + y, 80 + x, 120 + (x + y) // 2], -1).astype(np.uint8)


def test_boxes_are_cut_at_the_rim_and_united():
  got = make.boxes([(-5, 2, 3, 4), (70, 50, 100, 100)], 60, 80)
  np.testing.assert_array_equal(got, region(60, 80, (2, 0, 4, 3), (50, 70, 60, 80)))


def test_a_colour_is_compared_as_it_is_seen():
  image = photo()
  image[10:20, 30:40] = 255
  image[12, 33] = 250  # 1.7 in L*
  np.testing.assert_array_equal(make.colour(image, 'white', 3), region(60, 80, (10, 30, 20, 40)))
  assert make.colour(image, '#ffffff', 0).sum() == 99
  # Black and white are 100 apart, whatever lies between counts up to it.
  assert make.colour(image, 'black', 99.9).sum() == 60 * 80 - 99
  assert make.colour(image, 'black', 100.1).all()


@pytest.mark.parametrize(('kind', 'value'), [('white', 250), ('black', 10)])
def test_scratches_are_found_and_wide_regions_are_not(kind, value):
  image = photo()
  image[:, 20:23] = value
  image[10:40, 40:70] = value  # as light as a scratch, but 30 pixels wide
  got = make.lines(image, kind, 9, 10)
  assert got[:, 20:23].mean() > 0.95
  assert got[12:38, 42:68].sum() == 0 and got[:, :18].sum() == 0
  image[5:8, 60:63] = value  # a speck
  assert make.lines(image, kind)[5:8, 60:63].sum() == 0
  assert make.lines(image, kind, length=2)[5:8, 60:63].mean() > 0.8  # all but a corner
  other = 'black' if kind == 'white' else 'white'
  assert make.lines(image, other, 9, 10)[:, 20:23].sum() == 0


def test_what_differs_between_two_pictures():
  image = photo()
  other = image.copy()
  other[20:30, 30:50] = 255
  other[24:26, 38:42] = image[24:26, 38:42]  # a gap that closing fills
  other[50, 5] = 255  # a speck
  np.testing.assert_array_equal(make.difference(image, other), region(60, 80, (20, 30, 30, 50)))
  assert make.difference(image, other, specks=1)[50, 5] == 1
  assert make.difference(image, other, close=0)[25, 40] == 0
  assert make.difference(image, image + np.uint8(1)).sum() == 0


def test_dilation_is_a_disc():
  mask = region(21, 21, (10, 10, 11, 11))
  y, x = np.mgrid[:21, :21] - 10
  np.testing.assert_array_equal(make.dilated(mask, 5), y**2 + x**2 <= 25)
  assert make.dilated(mask, 0) is mask
  assert not make.dilated(np.zeros_like(mask), 3).any()


def test_masks_are_united_and_then_subtracted():
  a, b, c = region(9, 9, (0, 0, 4, 4)), region(9, 9, (3, 3, 9, 9)), region(9, 9, (2, 2, 5, 5))
  np.testing.assert_array_equal(make.combined([a, b], [c]), (a | b) & ~c & 1)
  np.testing.assert_array_equal(a, region(9, 9, (0, 0, 4, 4)))  # not changed


def test_the_overlay_shows_the_hole_and_keeps_the_rest():
  image, mask = photo(), region(60, 80, (20, 30, 30, 50))
  shown = make.overlay(image, mask)
  far = make.dilated(mask, 2) == 0
  np.testing.assert_array_equal(shown[far], image[far])
  assert (shown[mask > 0] == (image[mask > 0].astype(int) + (255, 0, 64)) // 2).all()
  assert tuple(shown[19, 40]) == (255, 0, 64)


REGIONS = [[(10, 20), (30, 20), (30, 40), (10, 40)], [(1, 1), (5, 2), (4, 6)]]


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('a.csv', 'x0,y0,x1,y1\n10,20,30,40\n1,1,5,2,4,6\n'),
    ('a.txt', '\ufeff10,20,30,20,30,40,10,40,"Hi, there\n1,1,5,2,4,6,\n'),
    ('a.json', json.dumps([[10, 20, 30, 40], [[1, 1], [5, 2], [4, 6]]])),
    ('a.json', json.dumps([{'bbox': [10, 20, 30, 40]}, {'points': [[1, 1], [5, 2], [4, 6]]}])),
  ],
)
def test_regions_of_text_are_read(tmp_path, name, text):
  (tmp_path / name).write_text(text, encoding='utf-8')
  assert make.read_regions(tmp_path / name) == REGIONS


def test_regions_of_text_become_polygons():
  got = make.quads(REGIONS, 60, 80)
  want = region(60, 80, (20, 10, 41, 31))
  cv2.fillPoly(want, [np.array(REGIONS[1])], 1)
  np.testing.assert_array_equal(got, want)
  assert got[3, 4] == 1 and got[5, 1] == 0


@pytest.mark.parametrize(
  ('name', 'text', 'words'),
  [
    ('a.json', '[[1, 2, 3', 'a.json is not JSON'),
    ('a.json', '{}', 'holds no list of regions'),
    ('a.csv', 'nothing\n', 'holds no list of regions'),
    ('a.json', '[{"at": 3}]', 'region 1 has none of the keys box'),
    ('a.json', '[["a", "b", "c", "d"]]', 'region 1 must be numbers'),
    ('a.csv', '1,2,3,4\n1,2,3\n', 'region 2 has 3 numbers: give x0,y0,x1,y1'),
  ],
)
def test_wrong_files_of_regions_get_a_sentence(tmp_path, name, text, words):
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=words):
    make.read_regions(tmp_path / name)


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: make.boxes([(5, 5, 5, 9)], 60, 80), 'box 5,5,5,9 is empty'),
    (lambda: make.boxes([(80, 5, 90, 9)], 60, 80), 'outside the picture of 80 x 60'),
    (lambda: make.boxes([(0, 0, float('nan'), 9)], 60, 80), 'four numbers'),
    (lambda: make.quads([[(0, 0), (5, 5)]], 60, 80), 'at least three corners'),
    (lambda: make.quads([[(0, 70), (5, 70), (5, 75)]], 60, 80), 'outside the picture'),
    (lambda: make.colour(photo(), 'whitish'), "colour 'whitish' is unknown"),
    (lambda: make.colour(photo(), 'white', -1), 'tolerance -1'),
    (lambda: make.lines(photo(), 'red'), "lines 'red' must be one of: white, black"),
    (lambda: make.lines(photo(), 'white', 1), 'width of 2'),
    (lambda: make.difference(photo(), photo(61)), '80 x 60 and 80 x 61 pixels'),
    (lambda: make.difference(photo(), photo(), 0), 'threshold 0 must be above 0'),
    (lambda: make.dilated(np.ones((3, 3), np.uint8), -1), 'dilate -1'),
    (lambda: make.combined([]), 'no mask'),
    (lambda: make.combined([photo()[..., 0], photo(9)[..., 0]]), 'only equal sizes'),
  ],
)
def test_mistakes_get_a_sentence(call, words):
  with pytest.raises(ValueError, match=words):
    call()
