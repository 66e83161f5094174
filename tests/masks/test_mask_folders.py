import cv2
import numpy as np
import pytest

from jaxinpaint.data import sources
from jaxinpaint.data.pipeline import evaluation_set
from jaxinpaint.masks import folders, spec


@pytest.mark.parametrize(
  'name, want',
  [
    ('0%-20%', (0.0, 0.2)),
    ('20%-40%', (0.2, 0.4)),
    ('10-20%', (0.1, 0.2)),
    ('0-20', (0.0, 0.2)),
    ('0.2-0.4', (0.2, 0.4)),
    ('0.01-0.1', (0.01, 0.1)),
    ('mask_40-60', (0.4, 0.6)),
    ('20 % - 40 %', (0.2, 0.4)),
    ('20~30', (0.2, 0.3)),
    ('0.5%-1%', (0.005, 0.01)),
    ('0-1', (0.0, 1.0)),
    ('40-20', None),
    ('2019-2020', None),
    ('masks', None),
    ('20', None),
    ('10-20-30', None),
  ],
)
def test_names_of_folders(name, want):
  assert folders.share_range(name) == (pytest.approx(want) if want else None)


def test_files_belong_to_the_nearest_folder_named_by_share():
  paths = ['/m/0-20/a.png', '/m/0-60/20%-40%/x/b.png', '/m/c.png', '/m/0-20/d.png']
  assert folders.by_range('/m', paths) == {(0.0, 0.2): [0, 3], (0.2, 0.4): [1]}
  # Only folders below the root: /m/10-20 as a root says nothing.
  assert folders.by_range('/m/0-20', ['/m/0-20/a.png']) == {}


def test_pairs_find_the_mask_of_an_image():
  paths = [
    '/d/a_mask000.png',
    '/d/a_mask001.png',
    '/d/s/b_mask.png',
    '/d/c_mask007.png',
    '/d/e.png',
  ]
  pairs = folders.pairs('/d', paths)
  assert pairs.find('/d/a.jpg') == 0 and pairs.find('/d/a.jpg', '1') == 1
  assert pairs.find('/d/s/b.png') == 2 and pairs.find('/elsewhere/b.png') == 2
  assert pairs.find('/d/c.png') == 3
  with pytest.raises(ValueError, match=r'no variant 002; it has _mask000, _mask001'):
    pairs.find('/d/a.png', '002')
  with pytest.raises(ValueError, match=r'none belongs to the image /d/e.png: .* e_mask000.png'):
    pairs.find('/d/e.png')
  assert folders.pairs('/d', paths, same_name=True).find('/x/e.jpg') == 4


def test_images_of_one_name_in_two_folders():
  paths = ['/d/x/a_mask000.png', '/d/y/a_mask000.png']
  pairs = folders.pairs('/d', paths)
  assert pairs.find('/d/y/a.png') == 1
  with pytest.raises(ValueError, match=r'several belong to the image /z/a.png'):
    pairs.find('/z/a.png')


@pytest.fixture
def lama(tmp_path):
  """Two images with masks beside them, one with two variants, one mask without an image."""
  rng = np.random.default_rng(0)
  for name in ('a', 'b'):
    cv2.imwrite(str(tmp_path / f'{name}.png'), rng.integers(0, 255, (32, 48, 3), np.uint8))
  for name in ('a_mask000', 'a_mask001', 'b_mask', 'lonely_mask000'):
    cv2.imwrite(str(tmp_path / f'{name}.png'), rng.integers(0, 2, (32, 48), np.uint8) * 255)
  return tmp_path


def test_images_are_listed_without_the_masks_beside_them(lama, caplog):
  caplog.set_level('INFO')
  images = evaluation_set(f'folder:{lama}', '', size=32)
  names = [images.path(i).rpartition('/')[2] for i in range(len(images))]
  # lonely_mask000 has no image beside it: it may be one.
  assert names == ['a.png', 'b.png', 'lonely_mask000.png']
  assert '3 files' in caplog.text and 'a_mask000.png' in caplog.text
  assert images.path(1) == images[1][1]
  (lama / 'list.txt').write_text('a.png\na_mask000.png\n')
  assert len(sources.make(f'files:{lama / "list.txt"}')) == 2


def test_masks_are_listed_without_their_images(lama):
  names = [p.rpartition('/')[2] for p in spec.make(f'folder:{lama}').paths]
  assert names == ['a_mask000.png', 'a_mask001.png', 'b_mask.png']
  assert spec.make(f'folder:{lama}').paired
  assert spec.make(f'pairs:{lama};variant=001').variant == '001'
  with pytest.raises(ValueError, match=r"variant 'x' of mask files must be digits"):
    spec.make(f'folder:{lama};variant=x')
