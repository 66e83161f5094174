import pickle

import numpy as np
import pytest
from PIL import Image

from jaxinpaint.data import sources


@pytest.fixture
def photos(tmp_path):
  """23 pictures of 90 x 120 whose red says which it is, and whose green says the column."""
  for k in range(23):
    image = np.zeros((90, 120, 3), np.uint8)
    image[..., 0], image[..., 1] = k, np.arange(120)
    Image.fromarray(image).save(tmp_path / f'{k:02d}.png')
  return tmp_path


def numbers(source):
  return [int(source[i][0, 0, 0]) for i in range(len(source))]


def test_what_is_held_out_is_not_trained_on(photos):
  held_out = sources.make(f'folder:{photos}', 'every 10th')
  rest = sources.make(str(photos), 'but every 10th')
  assert numbers(held_out) == [0, 10, 20]
  assert numbers(rest) == [k for k in range(23) if k % 10]
  assert held_out.path(1).endswith('10.png')
  assert numbers(sources.make(str(photos), 'every 2nd')) == list(range(0, 23, 2))
  assert numbers(pickle.loads(pickle.dumps(rest))) == numbers(rest)


def test_crops_are_spread_over_what_is_held_out(photos):
  crops = sources.make(str(photos), 'every 10th, 7 crops')
  assert sorted(numbers(crops)) == [0, 0, 0, 10, 10, 20, 20]
  assert crops.path(4).endswith(f'{numbers(crops)[4]:02d}.png#4')
  shapes = [crops[i].shape for i in range(7)]
  assert all(h == w and 45 <= h <= 90 for h, w, _ in shapes)
  assert len({int(crops[i][0, 0, 1]) for i in range(7)}) > 3, 'they all begin in one column'
  again = sources.make(str(photos), 'every 10th, 7 crops')
  assert all(np.array_equal(crops[i], again[i]) for i in range(7))
  # Fewer crops than images: they are of images all over the source.
  assert sorted(numbers(sources.make(str(photos), 'every 3rd, 4 crops'))) == [0, 6, 12, 18]
  assert len(set(numbers(sources.make(str(photos), 'every 10th, 48 crops'))[:8])) == 3


def test_a_part_of_a_split(photos):
  (photos / 'train').mkdir()
  for k in (3, 5, 8):
    (photos / f'{k:02d}.png').rename(photos / 'train' / f'{k:02d}.png')
  assert numbers(sources.make(str(photos), 'train but every 2nd')) == [5]
  assert numbers(sources.make(str(photos), 'train every 2nd')) == [3, 8]
  whole = sources.make('sample', 'train')
  assert len(sources.make('sample', 'train but every 10th')) == len(whole) - -(-len(whole) // 10)


def test_one_image_cannot_be_split(tmp_path):
  Image.new('RGB', (8, 8)).save(tmp_path / 'one.png')
  with pytest.raises(ValueError, match=r'has 1 image, which is held out, .*--config\.data\.split='):
    sources.make(f'folder:{tmp_path}', 'but every 10th')
  with pytest.raises(ValueError, match='every 2nd image or fewer'):
    sources.make(f'folder:{tmp_path}', 'every 1st')
