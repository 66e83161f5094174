import cv2
import numpy as np
import pytest

from jaxinpaint.cli import masks as mask_command
from jaxinpaint.data import pipeline
from jaxinpaint.masks import sets
from jaxinpaint.masks import spec as masks
from jaxinpaint.masks.bins import Bin

BINS = (Bin(0.0, 0.2), Bin(0.1, 0.2), Bin(0.2, 0.4), Bin(0.4, 0.6))


def digest(masks_by_bin, count):
  result = sets.Hash(tuple(masks_by_bin))
  for b in masks_by_bin:
    for i in range(count):
      result.add(b, i, masks_by_bin[b](i))
  return result.hexdigest()


# Of six masks of 64 x 64 for each bin, by the first version: hashes in reports stay what they are.
@pytest.mark.parametrize(
  'spec, sha256',
  [
    ('irregular', '5c80c16ec58a66eb5c8a6203592286bf5f4db8178c8f57a3253404a472d3d4ef'),
    ('strokes', 'd35333e85726163c401b8d95cefffc79b37dc320df5ea8110f059811f99e7298'),
    ('deepfill_v2', '779538ac99ca2f328810a3f61a22fc979e82c43e9c8b2704b2b14ed5959221fa'),
    ('box', 'e2bc9e671563f4082d8081095499bdd4b82a904756cee2d9c12546e90309a2d5'),
    ('center:0.25', 'dfe0ba93158a4b747ab420a4da2fe9e034139319986052a12bd5b2175736cba1'),
    ('lama_thick_256', 'e4b8e97e79bcbf1042345d0074fd31722c0326c4c8ebc738134ca4595581f80c'),
    (
      'mixture: 0.7*irregular + 0.3*rectangles:0.1-0.3',
      'b16899b8e55b6d6a0f88fa9d3694106f09c5791de648485872934ba96210fc29',
    ),
  ],
)
def test_hashes_of_earlier_reports_hold(spec, sha256):
  assert digest(sets.make(spec, BINS, 64, 64), 6) == sha256


def test_order_of_a_flat_folder_is_that_of_earlier_reports(tmp_path):
  for k in range(30):
    mask = np.zeros((20, 20), np.uint8)
    mask[: 3 + k % 5] = 255
    mask[-1, :k] = 255
    cv2.imwrite(str(tmp_path / f'{k:02d}.png'), mask)
  got = digest(sets.make(str(tmp_path), (Bin(0.1, 0.3), Bin(0.3, 0.5)), 20, 20, seed=3), 12)
  assert got == '51665de785236f28e54063336300b1e92599ba7bbc09bb83b543c858df82f4d6'


def freeze(folder, *more):
  arguments = ['freeze', '--spec', 'irregular', '--count', '4', '--size', '32']
  assert mask_command.main([*arguments, '--output', str(folder), *more]) == 0


def test_a_frozen_set_is_the_drawn_one(tmp_path, caplog):
  freeze(tmp_path / 'set', '--seed', '2')
  caplog.set_level('INFO')
  drawn = sets.make('irregular', BINS, 32, 32, seed=2)
  frozen = sets.make(str(tmp_path / 'set'), BINS, 32, 32, seed=2)
  assert digest(frozen, 4) == digest(drawn, 4)
  assert 'verified' in caplog.text
  # A part of its bins, in another order.
  some = (BINS[3], BINS[1])
  assert digest(sets.make(str(tmp_path / 'set'), some, 32, 32), 4) == digest(
    sets.make('irregular', some, 32, 32, seed=2), 4
  )
  assert sets.name_of(str(tmp_path / 'set')) == 'irregular, frozen with seed 2'
  freeze(tmp_path / 'usual')
  assert sets.name_of(f'folder:{tmp_path / "usual"}') == sets.name_of('irregular')


def test_a_frozen_set_starts_over_with_a_warning(tmp_path, caplog):
  freeze(tmp_path / 'set')
  frozen = sets.make(str(tmp_path / 'set'), BINS, 32, 32)[BINS[0]]
  first = [frozen(i) for i in range(4)]
  assert 'start over' not in caplog.text
  np.testing.assert_array_equal(frozen(5), first[1])
  assert not np.array_equal(first[0], first[1])
  frozen(6)
  assert caplog.text.count('there are 4, fewer than images; they start over') == 1


def test_what_a_frozen_set_refuses(tmp_path, caplog):
  freeze(tmp_path / 'set', '--bins', '10-20,20-40')
  make = lambda bins=BINS[1:3], size=32, **options: sets.make(
    str(tmp_path / 'set'), bins, size, size, **options
  )
  with pytest.raises(ValueError, match=r'not for 0-20, 40-60: pass --bins 10-20,20-40'):
    make(BINS)
  with pytest.raises(ValueError, match='drop ;invert=true or --invert_mask'):
    make(invert=True)
  make(size=48, seed=1)
  assert 'resized to 48 x 48' in caplog.text and 'drawn with seed 0' in caplog.text
  path = tmp_path / 'set' / '20-40' / '00003.png'
  cv2.imwrite(str(path), np.zeros((32, 32), np.uint8))
  with pytest.raises(ValueError, match=r'20-40/00003.png \(other pixels\)'):
    make()


def block(share, size=50, start=0):
  """A hole of whole rows."""
  mask = np.zeros((size, size), np.uint8)
  mask[start : start + round(share * size)] = 255
  return mask


@pytest.fixture
def named(tmp_path):
  """MISF's layout; the folder 20%-40% holds a mask of 10 %."""
  shares = {'0%-20%': (0.06, 0.1), '20%-40%': (0.24, 0.3, 0.1), '40%-60%': (0.44,)}
  for folder, members in shares.items():
    (tmp_path / 'mask-test' / folder).mkdir(parents=True)
    for k, share in enumerate(members):
      cv2.imwrite(str(tmp_path / 'mask-test' / folder / f'{k}.png'), block(share))
  return tmp_path / 'mask-test'


def shares_of(mask_of, count):
  return sorted({round(float(mask_of(i).mean()), 2) for i in range(count)})


def test_subfolders_named_by_share_serve_their_bins(named, caplog):
  bins = (Bin(0.0, 0.2), Bin(0.2, 0.4), Bin(0.2, 0.6), Bin(0.4, 0.5))
  made = sets.make(str(named), bins, 50, 50)
  assert shares_of(made[bins[0]], 6) == [0.06, 0.1]
  assert shares_of(made[bins[1]], 6) == [0.1, 0.24, 0.3]  # the folder decides
  assert '1 of 3 files in the folder of 20-40 % have another share' in caplog.text
  assert shares_of(made[bins[2]], 8) == [0.1, 0.24, 0.3, 0.44]
  assert 'no subfolder lies within 40-50 %' in caplog.text
  assert shares_of(made[bins[3]], 3) == [0.44]


def test_subfolders_with_black_holes_say_so(named, caplog):
  for path in named.rglob('*.png'):
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), 0))
  sets.make(str(named), (Bin(0.2, 0.4),), 50, 50)
  assert 'Their black parts would fit: invert them (;invert=true or --invert_mask)?' in caplog.text
  made = sets.make(str(named), (Bin(0.0, 0.2),), 50, 50, invert=True)
  assert shares_of(made[Bin(0.0, 0.2)], 4) == [0.06, 0.1]


def test_a_broken_mask_file_is_named(named):
  (named / '0%-20%' / '1.png').write_bytes(b'nothing')
  with pytest.raises(ValueError, match=r'0%-20%/1.png: .*: restore or remove the file'):
    sets.make(str(named), (Bin(0.0, 0.2),), 50, 50)


@pytest.fixture
def lama(tmp_path):
  """Masks beside their images, which are not square; the hole is right of the left third."""
  for name, share in (('a', 0.1), ('b', 0.3), ('c', 0.36)):
    cv2.imwrite(str(tmp_path / f'{name}.png'), np.full((50, 90, 3), 99, np.uint8))
    mask = np.zeros((50, 90), np.uint8)
    mask[:, 20:70] = block(share)
    mask[:, 75:] = 255
    cv2.imwrite(str(tmp_path / f'{name}_mask000.png'), mask)
  cv2.imwrite(str(tmp_path / 'a_mask001.png'), np.pad(block(0.2), ((0, 0), (20, 20))))
  return tmp_path


def test_masks_beside_their_images(lama, caplog):
  images = pipeline.evaluation_set(f'folder:{lama}', '', size=50)
  assert len(images) == 3
  whole = Bin(0.0, 1.0)
  made = sets.make(str(lama), (whole,), 50, 50, images=images)
  # Cropped as the image: what is left and right of the centre square is gone.
  for i, share in enumerate((0.1, 0.3, 0.36)):
    np.testing.assert_array_equal(made[whole](i), block(share) > 0)
  small = pipeline.evaluation_set(f'folder:{lama}', '', size=30, crop='window')
  window = sets.make(str(lama), (whole,), 30, 30, images=small)[whole](1)
  np.testing.assert_array_equal(window, block(0.3)[10:40, 10:40] > 0)  # as the image, not reduced
  bins = (Bin(0.0, 0.2), Bin(0.2, 0.32), Bin(0.5, 0.6))
  made = sets.make(str(lama), bins, 50, 50, images=images)
  assert list(made) == list(bins[:2])
  assert made[bins[0]](0) is not None and made[bins[0]](1) is None and made[bins[1]](2) is None
  assert 'those of 1 of 3 images are in no bin' in caplog.text and 'c.png' in caplog.text
  with pytest.raises(ValueError, match=r'those of 3 of 3 .* --bins 0-100'):
    sets.make(str(lama), bins[2:], 50, 50, images=images)
  with pytest.raises(ValueError, match='belong to images by name: give the images'):
    sets.make(str(lama), bins, 50, 50)


def test_variants_and_masks_elsewhere(lama, tmp_path_factory):
  images = pipeline.evaluation_set(f'folder:{lama}', '', size=50, count=1)
  whole = Bin(0.0, 1.0)
  made = sets.make(f'pairs:{lama};variant=1', (whole,), 50, 50, images=images)
  np.testing.assert_array_equal(made[whole](0), block(0.2) > 0)
  other = tmp_path_factory.mktemp('other')
  cv2.imwrite(str(other / 'a.png'), 255 - block(0.8))
  made = sets.make(f'pairs:{other};invert=true', (whole,), 50, 50, images=images)
  np.testing.assert_array_equal(made[whole](0), block(0.8) > 0)
  with pytest.raises(ValueError, match=r'none belongs to the image .*b\.png'):
    sets.make(
      f'pairs:{other}', (whole,), 50, 50,
      images=pipeline.evaluation_set(f'folder:{lama}', '', size=50),
    )  # fmt: skip


SURVEY = (
  *(
    Bin(p - 0.005, p + 0.005, f'center:{p:.2f}', f'center {p:.2f}') for p in (0.1, 0.15, 0.2, 0.25)
  ),
  *(Bin(p - 0.005, p + 0.005, f'survey_random:{p}', f'random {p}') for p in (0.1, 0.4)),
)


def test_bins_with_masks_of_their_own():
  made = sets.make('', SURVEY, 256, 256)
  assert tuple(made) == SURVEY
  sides = [made[b](3).max(0).sum() for b in SURVEY[:4]]
  assert sides == [81, 99, 114, 128]
  assert [made[b](0).sum() for b in SURVEY[:4]] == [s * s for s in sides]
  for b, share in zip(SURVEY[4:], (0.1, 0.4), strict=True):
    assert [abs(float(made[b](i).mean()) - share) < 1e-5 for i in range(3)] == [True] * 3
    assert not np.array_equal(made[b](0), made[b](1))
  # One generator each: the larger hole is not the smaller one grown.
  small, large = made[SURVEY[4]](0), made[SURVEY[5]](0)
  assert (small & ~large.astype(bool)).any()


def test_bins_of_their_own_beside_others_and_given_masks():
  bins = (Bin(0.1, 0.2), Bin(0.095, 0.105, 'center:0.10', 'center 10'))
  with pytest.raises(ValueError, match=r"bin '10-20' has no masks of its own: give --masks"):
    sets.make('', bins, 32, 32)
  made = sets.make('strokes', bins, 32, 32)
  assert tuple(made) == bins and made[bins[1]](0).sum() == 100
  assert bins[0].holds(made[bins[0]](1).mean())
  # A person's masks leave of such a bin its range: its name would be wrong.
  made = sets.make('strokes', bins, 32, 32, own_masks=False)
  assert tuple(made) == (bins[0], Bin(0.095, 0.105))
  assert Bin(0.095, 0.105).holds(made[Bin(0.095, 0.105)](1).mean())
  assert sets.name_of('') == ''


def test_a_frozen_survey_is_the_drawn_one(tmp_path, caplog):
  caplog.set_level('INFO')
  bins = SURVEY[:1] + SURVEY[4:]
  text = ','.join(f'{b.label}={b.masks}' for b in bins)
  freeze(tmp_path / 'set', '--spec', '', '--bins', text)
  frozen = sets.make(str(tmp_path / 'set'), bins, 32, 32, own_masks=False)
  assert tuple(frozen) == bins and 'verified' in caplog.text
  assert digest(frozen, 4) == digest(sets.make('', bins, 32, 32), 4)


def test_a_range_for_masks_of_a_bin_that_have_no_share():
  b = Bin(0.3, 0.35, 'strokes', 'thick')
  made = sets.make(None, (b,), 48, 48)
  assert all(b.holds(made[b](i).mean()) for i in range(4))


def test_survey_random_trims_the_last_stroke():
  sampler = masks.make('survey_random;share=0.2')
  assert sampler.name == 'survey_random:0.2'
  for i in range(3):
    small = masks.make('survey_random:0.1')(np.random.default_rng(i), 64, 64)
    large = sampler(np.random.default_rng(i), 64, 64)
    assert (small.sum(), large.sum()) == (410, 819)
    # The same strokes: the smaller hole is where they were at 10 %.
    assert not (small & ~large.astype(bool)).any()
  assert masks.make('survey_random:0.999')(np.random.default_rng(0), 32, 32).sum() == 1023
  with pytest.raises(ValueError, match=r'share 20.0 of survey_random masks .* divide by 100'):
    masks.make('survey_random:20')
