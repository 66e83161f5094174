import json

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxinpaint.cli import masks as mask_command
from jaxinpaint.masks import (
  draw as mask_draw,
)
from jaxinpaint.masks import (
  inspect,
  spec,
)
from jaxinpaint.masks import (
  manifest as mask_manifest,
)

FREEZE = ['freeze', '--spec', 'strokes', '--count', '3', '--size', '32', '--bins', '10-20,20-40']


def freeze(output, *more):
  return mask_command.main([*FREEZE, '--output', str(output), *more])


def test_freeze_writes_what_is_drawn(tmp_path, capsys):
  assert freeze(tmp_path / 'set', '--seed', '5') == 0
  out = capsys.readouterr().out
  content = json.loads((tmp_path / 'set' / 'manifest.json').read_text())
  assert f'SHA-256: {content["sha256"]}' in out
  assert [f['name'] for f in content['files']] == [
    f'{b}/0000{i}.png' for b in ('10-20', '20-40') for i in range(3)
  ]
  drawn = []
  for bin, low in (('10-20', 0.1), ('20-40', 0.2)):
    draw = mask_draw.in_range('strokes', low, 2 * low, 32, 32, 5)
    for i in range(3):
      mask = draw(i)
      assert low < mask.mean() <= 2 * low
      image = Image.open(tmp_path / 'set' / bin / f'0000{i}.png')
      assert image.mode == 'L'
      np.testing.assert_array_equal(np.asarray(image), mask * 255)
      entry = content['files'][len(drawn)]
      assert entry['hole_share'] == mask.mean()
      assert entry['sha256'] == spec.mask_set_hash([mask])
      drawn.append(mask)
  assert content['sha256'] == spec.mask_set_hash(drawn)


def test_the_rule_of_the_draws():
  # The masks of reports that exist: seeded with (seed, 1e6 low, 1e6 high, image).
  sampler = spec.make('strokes:0.1-0.2')
  want = sampler(np.random.default_rng([7, 100000, 200000, 4]), 32, 32)
  np.testing.assert_array_equal(mask_draw.in_range('strokes:0.5-0.9', 0.1, 0.2, 32, 32, 7)(4), want)


def test_the_hash_is_of_the_pixels_and_not_of_the_files(tmp_path):
  assert freeze(tmp_path / 'a') == 0 and freeze(tmp_path / 'b', '--workers', '2') == 0
  a, b = (mask_manifest.read(tmp_path / n) for n in 'ab')
  assert a == b
  path = tmp_path / 'a' / '10-20' / '00000.png'
  before = path.read_bytes()
  Image.open(path).save(path, compress_level=0)
  assert path.read_bytes() != before
  mask_manifest.verify(tmp_path / 'a', a)
  assert freeze(tmp_path / 'c', '--seed', '1') == 0
  assert mask_manifest.read(tmp_path / 'c').sha256 != a.sha256


def test_an_altered_set_is_named(tmp_path):
  freeze(tmp_path / 'set')
  manifest = mask_manifest.read(tmp_path / 'set')
  files = [tmp_path / 'set' / f.name for f in manifest.files]
  original = files[1].read_bytes()

  mask = cv2.imread(str(files[1]), 0)
  mask[0, 0] ^= 255
  cv2.imwrite(str(files[1]), mask)
  with pytest.raises(ValueError, match=r'not as they were frozen: 10-20/00001.png \(other pixels'):
    mask_manifest.verify(tmp_path / 'set', manifest)
  files[1].unlink()
  with pytest.raises(ValueError, match=r'10-20/00001.png \(missing\)'):
    mask_manifest.verify(tmp_path / 'set', manifest)
  files[1].write_bytes(original)
  mask_manifest.verify(tmp_path / 'set', manifest)

  path = tmp_path / 'set' / 'manifest.json'
  content = json.loads(path.read_text())
  content['files'][0], content['files'][1] = content['files'][1], content['files'][0]
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r'manifest.json was altered'):
    mask_manifest.verify(tmp_path / 'set', mask_manifest.read(tmp_path / 'set'))
  path.write_text('{"format": "jaxinpaint masks", "version": 1}')
  with pytest.raises(ValueError, match=r'manifest.json is damaged'):
    mask_manifest.read(tmp_path / 'set')
  path.write_text('{"format": "jaxinpaint masks", "version": 2}')
  with pytest.raises(ValueError, match='version 2, this library reads 1'):
    mask_manifest.read(tmp_path / 'set')
  path.write_text('{"name": "a web page"}')
  assert mask_manifest.read(tmp_path / 'set') is None


def test_freeze_refuses_what_is_there(tmp_path, capsys):
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'thesis.txt').write_text('mine')
  assert freeze(tmp_path / 'full') == 1
  assert 'is not empty and holds no frozen masks' in capsys.readouterr().err
  assert (tmp_path / 'full' / 'thesis.txt').read_text() == 'mine'

  (tmp_path / 'set').mkdir()  # an empty folder may be taken
  assert freeze(tmp_path / 'set') == 0
  assert freeze(tmp_path / 'set') == 0  # the same set again
  assert freeze(tmp_path / 'set', '--seed', '1') == 1
  assert 'another frozen set (seed 0 instead of 1)' in capsys.readouterr().err
  assert sorted(p.name for p in tmp_path.iterdir()) == ['full', 'set']


def test_a_crash_leaves_nothing(tmp_path, monkeypatch):
  write, done = mask_manifest._write, []

  def fail(job):
    done.append(job)
    if len(done) == 4:
      raise OSError('disk full')
    return write(job)

  monkeypatch.setattr(mask_manifest, '_write', fail)
  assert freeze(tmp_path / 'new' / 'set') == 1
  assert len(done) == 4 and not list((tmp_path / 'new').iterdir())


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--spec', 'brushes'], "unknown masks 'brushes'"),
    (['--spec', ''], "bin '10-20' has no masks of its own: give --spec"),
    (['--bins', '20-10'], "bin '20-10' must satisfy"),
    (['--bins', 'many'], "bin 'many' must be LOW-HIGH in percent"),
    (['--bins', '10-20,10-20'], 'must each be there once'),
    (['--bins', '=center:0.1'], 'must be NAME=SPEC'),
    (['--count', '0'], 'count 0 must be at least 1'),
    (['--size', '4'], 'at least 8 pixels'),
  ],
)
def test_wrong_arguments_are_one_sentence(tmp_path, capsys, arguments, message):
  assert freeze(tmp_path / 'set', *arguments) == 1
  error = capsys.readouterr().err
  assert error.startswith('jaxinpaint masks freeze: ') and error.count('\n') == 1
  assert message in error
  assert not (tmp_path / 'set').exists()


def test_bins_with_masks_of_their_own(tmp_path):
  bins = 'center 10=center:0.10,random 10=survey_random:0.10,free=strokes:0.2-0.3'
  assert freeze(tmp_path / 'set', '--spec', '', '--bins', bins) == 0
  manifest = mask_manifest.read(tmp_path / 'set')
  shares = {b.label: [f.hole_share for f in manifest.files_of(b.label)] for b in manifest.bins}
  assert shares['center 10'] == [100 / 1024] * 3
  assert shares['random 10'] == [102 / 1024] * 3
  assert all(0.2 < s <= 0.3 for s in shares['free'])
  assert len({f.sha256 for f in manifest.files_of('random 10')}) == 3


@pytest.fixture
def folder(tmp_path):
  """Twelve round holes in folders named by share, one of them elsewhere; some trouble."""
  root = tmp_path / 'masks'
  for k in range(12):
    radius, place = (8, '0%-20%') if k % 2 else (14, '20%-40%')
    mask = np.zeros((40, 48), np.uint8)
    cv2.circle(mask, (20 + k % 8, 20), radius, 255, -1)
    (root / place).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / place / f'{k:02d}.png'), mask)
  mask[0, :4] = (1, 100, 200, 254)
  cv2.imwrite(str(root / '0%-20%' / 'grey.png'), mask)
  (root / '0%-20%' / 'broken.png').write_bytes(b'no picture')
  return root


def test_inspect_counts(folder):
  found = inspect.inspect(str(folder))
  assert len(found.files) == 13
  assert [name for name, _ in found.unreadable] == ['0%-20%/broken.png']
  assert sum(f.grey > 0 for f in found.files) == 1
  (grey,) = (f for f in found.files if f.grey > 0)
  assert grey.white == (round(grey.white * 1920)) / 1920
  assert round((grey.any_white - grey.white) * 1920) == 2 and round(grey.grey * 1920) == 4
  # 1 and 9, 3 and 11 ... have the same place; 'grey' has two more white pixels.
  assert sorted(map(len, found.duplicates())) == [2, 2, 2, 2]
  assert sorted(found.named) == [(0.0, 0.2), (0.2, 0.4)]
  text = inspect.describe(found)
  for part in ('13 masks', '13 of 40 x 48', 'unreadable: 1 files', '10-20 %', 'folder 0-20 %'):
    assert part in text


def test_polarity_by_folder_names_and_by_shares(folder):
  assert inspect.inspect(str(folder)).polarity().hole == 'white'
  assert inspect.inspect(str(folder)).polarity().sure == 'certain'
  for path in folder.rglob('[01]*.png'):
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), 0))
  (folder / '0%-20%' / 'grey.png').unlink()
  found = inspect.inspect(str(folder))
  assert (found.polarity().hole, found.polarity().sure) == ('black', 'certain')
  assert 'invert=true' in inspect.describe(found)
  assert found.shares('black').max() < 0.4
  # Without the names: by which value is rare and away from the border.
  for place in ('0%-20%', '20%-40%'):
    (folder / place).rename(folder / place.replace('-', ' to '))
  found = inspect.inspect(str(folder))
  assert not found.named and (found.polarity().hole, found.polarity().sure) == ('black', 'likely')


def test_polarity_of_half_and_half_is_unclear(tmp_path):
  for k in range(12):
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 255
    cv2.imwrite(str(tmp_path / f'{k}.png'), mask if k % 2 else 255 - mask)
  assert inspect.inspect(str(tmp_path)).polarity().hole == 'unclear'


def test_inspect_command(folder, tmp_path, capsys):
  sheet = tmp_path / 'sheet.png'
  assert mask_command.main(['inspect', str(folder), '--sheet', str(sheet)]) == 0
  assert 'polarity: white is the hole (certain)' in capsys.readouterr().out
  picture = np.asarray(Image.open(sheet).convert('L'))
  # Two rows (10-20 % and 30-40 %) of seven and six masks.
  assert picture.shape == (2 * 120 + 4, 76 + 8 * 104)
  assert picture[10:80, 76 + 6 * 104 : 76 + 7 * 104].max() == 255

  arguments = ['inspect', '--spec', 'center:0.25', '--count', '5', '--size', '64']
  assert mask_command.main(arguments) == 0
  out = capsys.readouterr().out
  assert 'center:0.25: 5 masks' in out and 'same pixels: 4 files' in out
  for wrong in ([], [str(folder), '--spec', 'box'], [str(tmp_path / 'none')]):
    assert mask_command.main(['inspect', *wrong]) == 1
    assert capsys.readouterr().err.startswith('jaxinpaint masks inspect: ')


def test_inspect_verifies_a_frozen_set(tmp_path, capsys):
  freeze(tmp_path / 'set')
  assert mask_command.main(['inspect', str(tmp_path / 'set')]) == 0
  assert (
    'manifest: verified; strokes, seed 0, 3 for each of 10-20, 20-40' in capsys.readouterr().out
  )
  (tmp_path / 'set' / '20-40' / '00002.png').unlink()
  assert mask_command.main(['inspect', str(tmp_path / 'set')]) == 1
  assert 'FAILED' in capsys.readouterr().out


def make(tmp_path, *flags):
  image = np.full((40, 60, 3), 90, np.uint8)
  image[5:9, 10:20] = 255
  Image.fromarray(image).save(tmp_path / 'a.png')
  paths = ['--image', str(tmp_path / 'a.png'), '--output', str(tmp_path / 'hole.png')]
  return mask_command.main(['make', *paths, *flags])


def test_make_unites_dilates_and_subtracts(tmp_path, capsys):
  flags = ['--colour', 'white', '--box', '30,20,40,30', '--dilate', '1']
  shown = str(tmp_path / 'shown.png')
  assert make(tmp_path, *flags, '--subtract_box', '0,0,60,10', '--preview', shown) == 0
  assert 'of 60 x 40 pixels is hole' in capsys.readouterr().out
  want = np.zeros((40, 60), np.uint8)
  want[20:30, 30:40] = 255
  want = cv2.dilate(want, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
  want[:10] = 0
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'hole.png')), want)
  assert Image.open(shown).size == (60, 40)
  assert make(tmp_path, *flags) == 1  # the mask exists
  assert 'hole.png exists' in capsys.readouterr().err
  assert make(tmp_path, '--mask', str(tmp_path / 'hole.png'), '--overwrite') == 0


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ([], 'give --box, --colour'),
    (['--colour', 'red'], 'no pixel is hole'),
    (['--box', '0,0,60,40'], 'every pixel is hole'),
    (['--box', '1,1,5,5', '--preview', 'a.jpg'], '--preview a.jpg must end in .png'),
    (['--text', 'none.csv'], 'the regions none.csv cannot be read (No such file or directory)'),
  ],
)
def test_make_refuses_what_gives_no_mask(tmp_path, capsys, flags, words):
  assert make(tmp_path, *flags) == 1
  assert words in capsys.readouterr().err
  assert not (tmp_path / 'hole.png').exists()


def test_make_refuses_a_box_that_is_none(tmp_path, capsys):
  with pytest.raises(SystemExit) as exit:
    make(tmp_path, '--box', '1,2,3')
  assert exit.value.code == 2 and 'four numbers x0,y0,x1,y1' in capsys.readouterr().err


def test_make_never_writes_over_what_it_reads(tmp_path, capsys):
  (tmp_path / 'boxes.csv').write_text('5,5,20,20\n')
  assert make(tmp_path, '--box', '1,1,5,5') == 0
  (tmp_path / 'boxes.png').symlink_to(tmp_path / 'boxes.csv')
  before = {name: (tmp_path / name).read_bytes() for name in ('a.png', 'hole.png', 'boxes.csv')}
  for flags in (
    ['--output', 'a.png', '--box', '1,1,5,5'],
    ['--output', 'b.png', '--mask', 'hole.png', '--preview', 'hole.png'],
    ['--box', '1,1,5,5', '--subtract_mask', 'hole.png'],
    ['--output', 'b.png', '--box', '1,1,5,5', '--preview', 'a.png'],
    ['--text', 'boxes.csv', '--output', 'boxes.png'],
  ):
    paths = [str(tmp_path / f) if f.endswith(('.png', '.csv')) else f for f in flags]
    assert make(tmp_path, *paths, '--overwrite') == 1
    assert 'which is never overwritten' in capsys.readouterr().err
  assert before == {name: (tmp_path / name).read_bytes() for name in before}
  assert not (tmp_path / 'b.png').exists()


def test_make_refuses_a_preview_in_the_place_of_the_mask(tmp_path, capsys):
  assert make(tmp_path, '--box', '1,1,5,5', '--preview', str(tmp_path / 'hole.png')) == 1
  assert 'is the file of --output' in capsys.readouterr().err
  assert not (tmp_path / 'hole.png').exists()


def test_make_names_a_list_of_regions_that_is_no_text(tmp_path, capsys):
  path = tmp_path / 'boxes.csv'
  path.write_bytes(b'\xff\xfe1\x002\x00')
  assert make(tmp_path, '--text', str(path)) == 1
  assert f'{path} is not text in UTF-8' in capsys.readouterr().err
