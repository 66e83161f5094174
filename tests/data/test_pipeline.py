import logging
import pickle
import shutil

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxinpaint.data import colors, crops, pipeline


def config(**changes):
  fields = dict(source='sample', split='train', size=32, crop='random', flip=True)
  fields |= dict(batch_size=4, masks='strokes:0.05-0.5', workers=0, data_dir='')
  return ConfigDict(fields | changes)


def take(n, fields, seed=3, **kwargs):
  batches = pipeline.make(fields, seed, **kwargs)
  taken = [next(batches) for _ in range(n)]
  batches.close()
  return taken


def assert_same(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for key in x:
      np.testing.assert_array_equal(x[key], y[key], err_msg=key)


@pytest.fixture
def folder(tmp_path):
  """Ten files, image i of the constant colour 20 i + 9: an image shows which file it is."""
  root = tmp_path / 'images'
  root.mkdir()
  for i in range(10):
    cv2.imwrite(str(root / f'{i}.png'), np.full((40 + i, 48, 3), 20 * i + 9, np.uint8))
  return root


def which(image):
  """The file that a constant image came from."""
  assert (image == image[0, 0, 0]).all()
  return (int(image[0, 0, 0]) - 9) // 20


def test_batches_are_what_the_loop_expects():
  (batch,) = take(1, config())
  assert {k: (v.dtype.name, v.shape) for k, v in batch.items()} == {
    'image': ('uint8', (4, 32, 32, 3)),
    'mask': ('uint8', (4, 32, 32, 1)),
    'id': ('int32', (4,)),
  }
  assert set(np.unique(batch['mask'])) == {0, 1}
  shares = batch['mask'].mean((1, 2, 3))
  assert (shares > 0.05).all() and (shares <= 0.5).all()
  assert batch['image'].std() > 20
  assert len({m.tobytes() for m in batch['mask']}) == 4


def test_an_epoch_has_every_image_once_and_epochs_differ(folder):
  batches = take(10, config(source=str(folder)))  # 40 rows, 4 epochs
  ids = np.concatenate([b['id'] for b in batches]).reshape(4, 10)
  assert (np.sort(ids, 1) == np.arange(10)).all()
  assert len({tuple(row) for row in ids}) == 4
  images = np.concatenate([b['image'] for b in batches])
  assert [which(x) for x in images] == list(ids.reshape(-1))


def test_the_seed_decides():
  a, b, c = take(2, config(), 3), take(2, config(), 3), take(2, config(), 4)
  assert_same(a, b)
  for key in a[0]:
    assert not np.array_equal(a[0][key], c[0][key])


def test_crop_flip_and_mask_differ_between_epochs(tmp_path, photographs):
  (tmp_path / 'one').mkdir()
  cv2.imwrite(str(tmp_path / 'one' / 'x.png'), photographs[0])
  batches = take(4, config(source=str(tmp_path / 'one')))
  images = np.concatenate([b['image'] for b in batches])
  assert len({x.tobytes() for x in images}) == 16
  assert len({x.tobytes() for x in np.concatenate([b['mask'] for b in batches])}) == 16


def test_starting_anywhere_equals_running_there(folder):
  fields = config(source=str(folder))
  straight = take(9, fields)
  for k in (1, 5, 8):  # within, across and after an epoch
    assert_same(take(9 - k, fields, start_step=k), straight[k:])
  far = take(1, fields, start_step=10**9)  # at once: nothing is replayed
  assert far[0]['image'].shape == (4, 32, 32, 3)


@pytest.mark.parametrize('count', [2, 4])
def test_every_process_count_gives_the_same_global_batches(count):
  whole = take(5, config())
  share = 4 // count
  parts = [take(5, config(), rows=range(p * share, (p + 1) * share)) for p in range(count)]
  assert parts[0][0]['image'].shape[0] == 4 // count
  joined = [
    {k: np.concatenate([p[k] for p in row]) for k in row[0]} for row in zip(*parts, strict=True)
  ]
  assert_same(joined, whole)


def test_worker_processes_give_the_same_batches_as_threads(folder):
  (folder / '3.png').write_bytes(b'broken')
  fields = config(source=str(folder), masks='mixture: 1*strokes + 1*irregular')
  threads = take(7, fields, start_step=2, rows=(2, 3))
  fields.workers = 2
  assert_same(take(7, fields, start_step=2, rows=(2, 3)), threads)


def test_samples_can_be_pickled(folder):
  samples = pipeline.Samples(config(source=str(folder)), 0)
  first = samples[3]
  again = pickle.loads(pickle.dumps(samples))
  assert_same([again[3]], [first])


def test_unreadable_images_are_logged_once_and_replaced_by_the_next(folder, caplog):
  fields = config(source=str(folder), flip=False, masks='center')
  before = take(10, fields)
  # A copy: threads of the first iterator may still be reading ahead.
  shutil.copytree(folder, folder.parent / 'copy')
  fields.source = str(folder.parent / 'copy')
  for i in (3, 4):
    (folder.parent / 'copy' / f'{i}.png').write_bytes(b'broken')
  with caplog.at_level(logging.WARNING):
    after = take(10, fields)
  for path in ('3.png', '4.png'):
    assert sum(path in r.getMessage() for r in caplog.records) == 1
  for x, y in zip(before, after, strict=True):
    want = [5 if i in (3, 4) else i for i in x['id']]
    assert list(y['id']) == want == [which(image) for image in y['image']]
  assert_same(take(10, fields), after)


def test_nothing_readable_is_an_error(folder):
  for path in folder.iterdir():
    path.write_bytes(b'broken')
  with pytest.raises(
    ValueError, match=r'10 images in a row cannot be read, from .*png: not a read'
  ):
    pipeline.check(config(source=str(folder)), 0)
  with pytest.raises(ValueError, match='10 images in a row'):
    take(1, config(source=str(folder)))


def test_permuted_colors_are_the_same_values_in_another_order():
  fields = dict(source='sample', crop='center', flip=False, masks='center')
  kept = take(3, config(**fields))
  permuted = take(3, config(**fields, colors='permute'))
  assert any((a['image'] != b['image']).any() for a, b in zip(kept, permuted, strict=True))
  for a, b in zip(kept, permuted, strict=True):
    np.testing.assert_array_equal(np.sort(a['image'], -1), np.sort(b['image'], -1))
    np.testing.assert_array_equal(a['mask'], b['mask'])
  with pytest.raises(ValueError, match=r'config\.data\.colors'):
    take(1, config(**fields, colors='swap'))


def test_flip_is_drawn_per_sample(tmp_path):
  (tmp_path / 'd').mkdir()
  ramp = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
  cv2.imwrite(str(tmp_path / 'd' / 'x.png'), ramp)
  rows = [b['image'][:, 0, 0, 0] for b in take(25, config(source=str(tmp_path / 'd')))]
  flipped = np.concatenate(rows) == 248
  assert 0.3 < flipped.mean() < 0.7
  rows = [b['image'][:, 0, 0, 0] for b in take(5, config(source=str(tmp_path / 'd'), flip=False))]
  assert (np.concatenate(rows) == 0).all()


def test_crops():
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:60, :100].astype(np.uint8)
  image = np.dstack([y, x, np.full_like(x, 7)])
  tops, lefts = set(), set()
  for _ in range(300):
    got = crops.crop(image, 32, 'random', rng)
    top, left = got[0, 0, :2]
    assert np.array_equal(got, image[top : top + 32, left : left + 32])
    tops.add(int(top))
    lefts.add(int(left))
  assert tops == set(range(29)) and min(lefts) == 0 and max(lefts) == 68
  center = crops.crop(image, 60, 'center', rng)
  assert np.array_equal(center, image[:, 20:80])
  half = crops.crop(image, 30, 'center', rng).astype(int)
  assert np.abs(half[:, :, 1] - (np.arange(30) * 2 + 20)).max() <= 1
  fine = np.zeros((64, 64, 3), np.uint8)  # reduced without aliasing
  fine[::4] = 200
  assert np.abs(crops.crop(fine, 16, 'center', rng).astype(int) - 50).max() <= 1
  whole = crops.crop(image, 50, 'resize', rng).astype(int)
  assert np.abs(whole[0, :, 1] - np.arange(50) * 2).max() <= 1
  sides = []
  for _ in range(200):
    got = crops.crop(image, 32, 'random_resized', rng).astype(int)
    assert got.shape == (32, 32, 3)
    extent = [got[-1, 0, 0] - got[0, 0, 0], got[0, -1, 1] - got[0, 0, 1]]
    assert abs(extent[0] - extent[1]) <= 2  # a square window
    sides.append(extent[0])
  assert min(sides) < 36 and max(sides) > 52


@pytest.mark.parametrize('turned', [False, True])
def test_a_thin_image_is_cut_before_it_is_enlarged(turned, monkeypatch):
  made = []
  resize = crops.resize

  def recorded(image, height, width):
    made.append(height * width)
    return resize(image, height, width)

  monkeypatch.setattr(crops, 'resize', recorded)
  image = np.zeros((2, 4000, 3), np.uint8) + (np.arange(4000) // 16)[None, :, None].astype(np.uint8)
  image = image.swapaxes(0, 1) if turned else image
  rng = np.random.default_rng(0)
  seen = [crops.crop(image, 32, 'random', rng) for _ in range(20)]
  assert max(made) <= 8 * 32 * 32
  # Every part of the picture has its chance.
  values = [int(x[0, 0, 0]) for x in seen]
  assert min(values) < 60 and max(values) > 190 and {x.shape for x in seen} == {(32, 32, 3)}


@pytest.mark.parametrize('kind', crops.KINDS)
@pytest.mark.parametrize('shape', [(9, 20), (20, 9), (5, 5), (1, 64), (32, 32), (33, 300)])
def test_any_image_fits_any_crop(kind, shape):
  image = np.full((*shape, 3), 77, np.uint8)
  got = crops.crop(image, 32, kind, np.random.default_rng(0))
  assert got.shape == (32, 32, 3) and (got == 77).all()


@pytest.mark.parametrize(
  'changes,error,message',
  [
    ({'crop': 'middle'}, ValueError, r'config.data.crop .middle. must be one of center, random'),
    ({'size': 4}, ValueError, r'config.data.size 4 must be an integer of at least 8'),
    ({'size': 64.0}, ValueError, r'config.data.size 64.0 must be an integer'),
    ({'batch_size': 0}, ValueError, r'config.data.batch_size 0'),
    ({'workers': -1}, ValueError, r'config.data.workers -1'),
    ({'flip': 'yes'}, ValueError, r'config.data.flip .yes. must be True or False'),
    ({'source': 'samples'}, ValueError, 'unknown image source'),
    ({'source': '/absent/images'}, FileNotFoundError, 'no folder /absent/images'),
    ({'split': 'validation'}, ValueError, "'train' and 'test'"),
    ({'masks': 'strokes:20-40'}, ValueError, 'divide by 100'),
    ({'masks': 'folder:/absent'}, FileNotFoundError, 'masks: there is no folder'),
    ({'masks': 'strokes:0.1-0.1001'}, ValueError, 'widen the area range'),
  ],
)
def test_wrong_configs_fail_in_check(changes, error, message):
  with pytest.raises(error, match=message):
    pipeline.check(config(**changes), 0)


def test_wrong_arguments():
  for rows in ((3, 4), ()):
    with pytest.raises(ValueError, match=r'must be some of 0 to 3'):
      pipeline.make(config(), 0, rows=rows)
  with pytest.raises(ValueError, match='seed -1'):
    pipeline.make(config(), -1)
  with pytest.raises(ValueError, match='start_step -1'):
    pipeline.make(config(), 0, start_step=-1)


def test_check_warns_of_mask_files_that_look_inverted(tmp_path, caplog):
  (tmp_path / 'm').mkdir()
  mask = np.full((64, 64), 255, np.uint8)
  mask[20:30, 20:30] = 0
  cv2.imwrite(str(tmp_path / 'm' / 'x.png'), mask)
  pipeline.check(config(masks=f'folder:{tmp_path}/m'), 0)
  assert 'looks inverted' in caplog.text and 'x.png' in caplog.text


def test_source_length(folder):
  assert pipeline.source_length(config(source=str(folder))) == 10


def test_closed_batches_end():
  batches = pipeline.make(config(), 0)
  next(batches)
  batches.close()
  assert list(batches) == []


def test_evaluation_set(folder, caplog):
  images = pipeline.evaluation_set(str(folder), '', size=16)
  assert len(images) == 10
  image, path = images[7]
  assert image.shape == (16, 16, 3) and image.dtype == np.uint8
  assert which(image) == 7 and path == str(folder / '7.png')
  some = pipeline.evaluation_set(str(folder), '', size=16, count=4)
  assert [which(image) for image, _ in some] == [0, 2, 5, 7]
  assert some.indices == (0, 2, 5, 7)
  assert len(pipeline.evaluation_set(str(folder), '', size=16, count=99)) == 10
  (folder / '5.png').write_bytes(b'broken')
  assert [which(image) for image, _ in some] == [0, 2, 7]
  assert '5.png' in caplog.text
  with pytest.raises(pipeline.UnreadableImage, match=r'5\.png'):
    some[2]


def test_evaluation_set_crops_the_centre():
  class Ramp:
    def __len__(self):
      return 1

    def __getitem__(self, i):
      x = np.tile(np.arange(96, dtype=np.uint8), (32, 1))
      return np.dstack([x, x, x])

    def path(self, i):
      return 'ramp'

  image, _ = pipeline.evaluation_set(Ramp(), size=32)[0]
  assert list(image[0, :, 0]) == list(range(32, 64))
  squashed, _ = pipeline.evaluation_set(Ramp(), size=32, crop='resize')[0]
  assert squashed[0, 0, 0] <= 2 and squashed[0, -1, 0] >= 93
  for wrong in ({'size': 4}, {'size': 32, 'crop': 'random'}, {'size': 32, 'count': -1}):
    with pytest.raises(ValueError, match='evaluation images'):
      pipeline.evaluation_set(Ramp(), **wrong)


def test_jitter_changes_colors_a_little_and_greys_hardly():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (16, 16, 3), np.uint8)
  grey = np.full((4, 4, 3), 128, np.uint8)
  seen = set()
  for _ in range(40):
    got = colors.jitter(image, rng)
    assert got.dtype == np.uint8 and got.shape == image.shape
    change = np.abs(got.astype(int) - image).max()
    assert 0 < change < 100
    seen.add(got.tobytes())
    # Of a plain grey only brightness moves anything, by a twentieth at most.
    got = colors.jitter(grey, rng).astype(int)
    assert np.ptp(got) == 0 and abs(got[0, 0, 0] - 128) <= 7
  assert len(seen) == 40
  np.testing.assert_array_equal(colors.jitter(image, rng, 0.0), image)
  samples = take(2, config(size=32, batch_size=2, crop='random', flip=False, masks='center'))
  changed = take(
    2, config(size=32, batch_size=2, crop='random', flip=False, masks='center', colors='jitter')
  )
  assert any((a['image'] != b['image']).any() for a, b in zip(samples, changed, strict=True))
