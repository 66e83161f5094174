"""Squares that are cut from files decoded at a reduced scale; tests of `crop`: test_pipeline.py."""

import io
import pickle

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxinpaint.data import crops, pipeline
from jaxinpaint.pictures import decode


def jpeg(image, orientation=1, **options):
  exif = Image.Exif()
  exif[0x0112] = orientation
  out = io.BytesIO()
  options = {'quality': 95, 'subsampling': 0} | options
  Image.fromarray(image).save(out, 'JPEG', exif=exif, **options)
  return out.getvalue()


def ramps(height, width):
  """Red rises by a level every 4 rows, green by one every 4 columns."""
  y, x = np.mgrid[:height, :width]
  return np.dstack([y // 4, x // 4, np.full_like(x, 99)]).astype(np.uint8)


@pytest.fixture
def reductions(monkeypatch):
  """The scales at which JPEGs are decoded, one after the other."""
  seen, samples = [], decode.PlainJpeg.samples

  def recorded(jpeg, reduction=1):
    seen.append(reduction)
    return samples(jpeg, reduction)

  monkeypatch.setattr(decode.PlainJpeg, 'samples', recorded)
  return seen


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['center', 'random_resized', 'resize'])
def test_the_square_lies_where_that_of_the_whole_picture_lies(kind, orientation, reductions):
  """In ramps a pixel's colour is its place, and a mean over a square that of its centre."""
  data = jpeg(ramps(531, 845), orientation)
  decoded = decode.decode(data)
  assert decoded.shape[:2] == ((531, 845) if orientation < 5 else (845, 531))
  for seed in range(16):
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    got = crops.crop_file(data, 'x.jpg', 48, kind, rngs[0]).astype(int)
    want = crops.crop(decoded, 48, kind, rngs[1]).astype(int)
    # An edge of the window moved by half a pixel of the result at most: that is 845 / 48 / 2 / 4
    # = 2.2 levels in ramps; half a level of rounding on either side, and a level of the JPEG.
    assert np.abs(got - want).max() <= 4.2
    assert rngs[0].random() == rngs[1].random()  # the flip and the colours are the same, too
  assert set(reductions) >= ({1, 2, 4, 8} if kind == 'random_resized' else {1, 8})


@pytest.mark.parametrize('kind', ['center', 'resize'])
@pytest.mark.parametrize('subsampling', [0, 2])
def test_a_reduced_square_is_nearly_that_of_the_whole_picture(
  photographs, kind, subsampling, reductions
):
  for photo in photographs:  # 96 x 128: the windows begin at multiples of 8
    data = jpeg(photo, quality=90, subsampling=subsampling)
    for size in (48, 40, 24, 20):
      got = crops.crop_file(data, 'x.jpg', size, kind, None).astype(int)
      assert reductions[-1] == (2 if size > 24 else 4)
      error = got - crops.crop(decode.decode(data), size, kind, None)
      # Measured on these, which are sharp to the pixel: the mean of squares that are halved twice
      # (48, 24) 0.42 to 1.67 levels and from 39.8 dB; others, whose pixels cover parts of reduced
      # ones, to 6.1 levels and from 29.2 dB.
      exact = kind == 'center' and size in (48, 24)
      assert np.abs(error).mean() < (1.8 if exact else 6.5)
      assert 10 * np.log10(255**2 / (error**2).mean()) > (39 if exact else 29)


@pytest.mark.parametrize(
  ('shape', 'kind', 'reduction'),
  [
    ((255, 400), 'center', 1),  # 127 pixels would be enlarged to 128
    ((256, 400), 'center', 2),
    ((511, 900), 'center', 2),
    ((900, 512), 'center', 4),
    ((1024, 1030), 'center', 8),
    ((1024, 400), 'resize', 2),
    ((255, 1024), 'resize', 1),
    ((100, 100), 'random_resized', 1),
  ],
)
def test_nothing_is_enlarged_that_was_not(shape, kind, reduction, reductions, monkeypatch):
  sizes, resize = [], crops.resize
  monkeypatch.setattr(crops, 'resize', lambda x, *size: sizes.append(x.shape) or resize(x, *size))
  got = crops.crop_file(jpeg(ramps(*shape)), 'x', 128, kind, np.random.default_rng(0))
  assert got.shape == (128, 128, 3) and reductions == [reduction]
  if min(shape) >= 128:
    assert min(sizes[0][:2]) >= 128


@pytest.mark.parametrize('kind', crops.KINDS)
def test_all_other_files_give_the_bits_of_the_whole_picture(photographs, kind, reductions):
  photo = photographs[0]
  png = io.BytesIO()
  Image.fromarray(photo).save(png, 'PNG')
  cmyk = io.BytesIO()
  Image.fromarray(photo).convert('CMYK').save(cmyk, 'JPEG')
  files = [png.getvalue(), cmyk.getvalue(), jpeg(photo[:30])]
  if kind in ('random', 'distorted'):  # at the picture's own scale
    files.append(jpeg(photo))
  for data in files:
    got = crops.crop_file(data, 'x', 32, kind, np.random.default_rng(5))
    want = crops.crop(decode.decode(data), 32, kind, np.random.default_rng(5))
    np.testing.assert_array_equal(got, want)
  assert set(reductions) == {1}


def test_a_file_that_cannot_be_read_has_the_same_sentence(photographs, monkeypatch):
  data = jpeg(photographs[0])
  for damaged in (data[: len(data) // 2], b'', b'\xff\xd8' + data[-100:]):
    with pytest.raises(decode.UnreadableImage) as plain:
      decode.decode(damaged, 'x.jpg')
    with pytest.raises(decode.UnreadableImage) as reduced:
      crops.crop_file(damaged, 'x.jpg', 32, 'center', None)
    assert str(reduced.value) == str(plain.value)
  monkeypatch.setenv(decode.LIMIT_VARIABLE, '0.001')
  with pytest.raises(decode.UnreadableImage, match=r'megapixels=1$'):
    crops.crop_file(data, 'x.jpg', 32, 'center', None)
  monkeypatch.undo()
  # What a decoder refuses at a reduced scale is decoded as before.
  samples = decode.PlainJpeg.samples
  monkeypatch.setattr(decode.PlainJpeg, 'samples', lambda x, r=1: None if r > 1 else samples(x))
  got = crops.crop_file(data, 'x.jpg', 32, 'random_resized', np.random.default_rng(1))
  want = crops.crop(decode.decode(data), 32, 'random_resized', np.random.default_rng(1))
  np.testing.assert_array_equal(got, want)


def config(source, **changes):
  fields = dict(source=str(source), split='', size=32, crop='random_resized', flip=True)
  fields |= dict(batch_size=6, masks='strokes:0.05-0.5', workers=0, colors='permute')
  return ConfigDict(fields | changes)


@pytest.fixture
def folder(tmp_path, photographs):
  """Six files: JPEGs of 288 x 384, one of them damaged at its end, and a PNG."""
  root = tmp_path / 'images'
  root.mkdir()
  for i, photo in enumerate(photographs):
    large = cv2.resize(photo, (384, 288), interpolation=cv2.INTER_CUBIC)
    (root / f'{i}.jpg').write_bytes(jpeg(large, orientation=1 + 5 * i))
    (root / f'{i}b.jpg').write_bytes(jpeg(np.ascontiguousarray(large[::-1])))
  Image.fromarray(photographs[0]).save(root / '0b.png')
  (root / '0b.jpg').write_bytes((root / '0b.jpg').read_bytes()[:-1000])
  return root


def test_batches_of_reduced_files_are_those_of_whole_ones_nearly(folder, reductions):
  def take(**changes):
    batches = pipeline.make(config(folder, **changes), 3)
    taken = [next(batches) for _ in range(6)]
    batches.close()
    return taken

  whole = take()
  assert set(reductions) == {1}
  for a, b in zip(take(reduced_decode=False), whole, strict=True):
    np.testing.assert_array_equal(a['image'], b['image'])
  differs = 0
  for a, b in zip(take(reduced_decode=True), whole, strict=True):
    for key in ('mask', 'id'):
      np.testing.assert_array_equal(a[key], b[key])
    error = a['image'].astype(int) - b['image']
    differs += np.abs(error).max() > 0
    # Measured: 1.6 to 8.8 levels. If it were mirrored, it would be 37 to 66.
    assert np.abs(error).mean() < 12
  assert differs and set(reductions) > {1, 2}


def test_reduced_decoding_begins_anywhere_and_goes_to_workers(folder):
  fields = config(folder, reduced_decode=True)
  straight = pipeline.make(fields, 3)
  want = [next(straight) for _ in range(4)][2:]
  straight.close()
  resumed = pipeline.make(fields, 3, start_step=2)
  sent = pickle.loads(pickle.dumps(pipeline.Samples(fields, 3, start_step=2)))
  for i, batch in enumerate(want):
    np.testing.assert_array_equal(next(resumed)['image'], batch['image'])
    np.testing.assert_array_equal(sent[6 * i + 5]['image'], batch['image'][5])
  resumed.close()


def test_an_evaluation_decodes_whole_pictures(folder, reductions):
  held_out = pipeline.evaluation_set(str(folder), 'every 2nd', size=32)
  assert len(list(held_out)) == len(held_out) > 1
  assert set(reductions) == {1}


def test_a_sample_that_is_a_part_of_a_file_is_cut_as_before(folder):
  for source, split in ((folder, 'every 2nd, 6 crops'), ('sample', 'train')):
    taken = []
    for reduced in (True, False):
      batches = pipeline.make(config(source, split=split, reduced_decode=reduced), 3)
      taken.append(next(batches))
      batches.close()
    np.testing.assert_array_equal(taken[0]['image'], taken[1]['image'])


def test_a_split_of_a_folder_is_decoded_at_a_reduced_scale(folder, reductions):
  fields = config(folder, split='but every 3rd', reduced_decode=True, crop='center')
  batches = pipeline.make(fields, 3)
  next(batches)
  batches.close()
  assert 8 in reductions


def test_the_setting_is_a_bool(folder):
  with pytest.raises(ValueError, match=r'config\.data\.reduced_decode .yes. must be True or False'):
    pipeline.check(config(folder, reduced_decode='yes'), 0)
