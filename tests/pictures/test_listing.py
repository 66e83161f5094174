"""Which files a folder or a list gives: to inference, data sources, masks and evaluation alike."""

import os

import cv2
import numpy as np
import pytest

from jaxinpaint.data import sources
from jaxinpaint.inference import pairs
from jaxinpaint.masks.files import FileMasks
from jaxinpaint.pictures.listing import list_files

LATIN = os.fsdecode(b'caf\xe9.png')  # no UTF-8


@pytest.fixture
def folder(tmp_path):
  """a.png and sub/b.png, with links that come back to them in every way."""
  root = tmp_path / 'pictures'
  (root / 'sub').mkdir(parents=True)
  for name in ('a.png', 'sub/b.png'):
    assert cv2.imwrite(str(root / name), np.eye(8, dtype=np.uint8) * 255)
  for link, to in {
    'self': '.',
    'sub/up': '..',
    'sub/over': '../also',
    'also': 'sub',  # sorts before the folder that it leads to
    'loop1': 'loop2',
    'loop2': 'loop1',
    'again.png': 'a.png',
  }.items():
    (root / link).symlink_to(to)
  return root


def test_each_real_file_once(folder):
  real = [folder / 'a.png', folder / 'sub' / 'b.png']
  assert [sources.make(str(folder)).path(i) for i in range(2)] == list(map(str, real))
  assert list_files(folder, ('.png',), 'real images') == tuple(map(str, real))
  (folder.parent / 'mask.png').touch()
  found = pairs.find(folder, folder.parent / 'mask.png', folder.parent / 'out')
  assert [p.image for p in found.pairs] == real
  # A mask's name says whose it is, so a link to a mask counts; links to folders do not.
  masks = FileMasks(path=str(folder)).paths
  assert masks == (str(real[0]), str(folder / 'again.png'), str(real[1]))


def test_links_to_files_elsewhere_are_taken(folder):
  chosen = folder.parent / 'chosen'
  chosen.mkdir()
  (chosen / 'one.png').symlink_to(folder / 'a.png')
  (folder / 'sub' / 'up').unlink()
  (chosen / 'other').symlink_to(folder / 'sub')
  assert list_files(chosen, ('.png',), 'images') == (
    str(chosen / 'one.png'),
    str(chosen / 'other' / 'b.png'),
  )


@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
@pytest.mark.parametrize('end', [b'\n', b'\r\n'])
def test_lists(tmp_path, mark, end):
  names = ['a.png', 'grün.png', 'two  words.png', LATIN, 'a\u2028b.png']
  for name in names:
    (tmp_path / name).touch()
  lines = [*map(os.fsencode, names), b'', b'# no.png']
  (tmp_path / 'list.txt').write_bytes(mark + end.join(lines))
  got = list_files(tmp_path / 'list.txt', ('.png',), 'images')
  assert got == tuple(str(tmp_path / name) for name in names)


@pytest.mark.parametrize(
  ('content', 'error', 'words'),
  [
    (b'a.png\n\xfcber.png\n', ValueError, r'line 2 of the list .*l\.txt is not UTF-8 .*xfcber'),
    ('a.png\n'.encode('utf-16'), ValueError, 'line 1 of the list .*: save the list as UTF-8'),
    (b'a.png\n\nb.png\n', FileNotFoundError, r'1 of 2 files .*b\.png \(line 3\)'),
  ],
)
def test_lines_that_are_no_files_are_named(tmp_path, content, error, words):
  (tmp_path / 'a.png').touch()
  (tmp_path / 'l.txt').write_bytes(content)
  with pytest.raises(error, match=words):
    list_files(tmp_path / 'l.txt', ('.png',), 'images')
