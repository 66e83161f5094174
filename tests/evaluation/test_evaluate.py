import dataclasses
import math
import pathlib

import cv2
import numpy as np
import pytest
from asked import measured

from jaxinpaint.evaluation import classical
from jaxinpaint.evaluation.spec import EvaluationError
from jaxinpaint.masks import sets
from jaxinpaint.metrics import protocols
from jaxinpaint.pictures import decode
from jaxinpaint.report import files, tables
from jaxinpaint.report.results import summarise

PROTOCOL = protocols.get('seed000')
BINS = protocols.parse_bins(['10-20', '20-40'])


class Photographs:
  """Five crops of 32 x 40 pixels; those of `broken` cannot be read."""

  def __init__(self, photographs, broken=()):
    self.crops = [p[k : k + 32, 10 * k : 10 * k + 40] for p in photographs for k in (0, 5)][:5]
    self.broken = broken

  def __len__(self):
    return len(self.crops)

  def __getitem__(self, i):
    if i in self.broken:
      raise decode.UnreadableImage(f'photo{i}.jpg', 'truncated')
    return self.crops[i], f'photo{i}.jpg'


def masks_of(bins=BINS, seed=0):
  return sets.make('irregular', bins, 32, 40, seed=seed)


def by_id(image, mask, ids):
  """Depends on the image, the mask and the id, on nothing else of the batch."""
  value = (0.1 * (ids % 7)[:, None, None, None] + image.mean((1, 2, 3), keepdims=True)) % 1
  return np.where(mask > 0, value, image).astype(np.float32)


def numbers(results):
  order = sorted(results.records, key=lambda r: (r.predictor, r.bin.low, r.index))
  return [(r.predictor, r.bin, r.index, r.hole_share, tuple(r.values.values())) for r in order]


def test_numbers_do_not_depend_on_the_batch_size(photographs):
  predictors = {'by id': by_id} | classical.PREDICTORS
  images = Photographs(photographs)
  runs = [measured(predictors, images, masks_of(), PROTOCOL, batch_size=n) for n in (1, 2, 5, 8)]
  for other in runs[1:]:
    assert numbers(other) == numbers(runs[0])
    assert other.mask_sha256 == runs[0].mask_sha256
  assert len(runs[0].records) == 4 * 2 * 5


def test_every_batch_has_one_shape_and_an_emptied_hole(photographs):
  seen = []

  def spy(image, mask, ids):
    seen.append((image.shape, mask.shape, ids.tolist()))
    assert image.dtype == mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, 1}
    assert not image[np.broadcast_to(mask > 0, image.shape)].any(), 'the truth is in the hole'
    return image

  measured({'spy': spy}, Photographs(photographs), masks_of(), PROTOCOL, batch_size=2)
  assert {s[:2] for s in seen} == {((2, 32, 40, 3), (2, 32, 40, 1))}
  assert [s[2] for s in seen] == [[0, 1]] * 2 + [[2, 3]] * 2 + [[4, 4]] * 2


def test_values_are_those_of_the_metrics_on_the_rounded_composite(photographs):
  images = Photographs(photographs)
  masks = masks_of()
  results = measured({'gray': lambda i, m, d: np.where(m > 0, np.float32(0.4999), i)}, images,
                     masks, PROTOCOL, batch_size=3)  # fmt: skip
  b = BINS[1]
  truth, hole = images[2][0], masks[b](2).astype(bool)
  output = truth.copy()
  output[hole] = 127  # 0.4999 * 255 = 127.47
  record = next(r for r in results.records if r.bin == b and r.index == 2)
  assert record.hole_share == hole.mean() and b.low < record.hole_share <= b.high
  difference = truth[hole].astype(float) - 127
  mse = (difference**2).mean()
  assert record.values['hole_psnr'] == pytest.approx(10 * math.log10(255**2 / mse))
  assert record.values['psnr'] == pytest.approx(10 * math.log10(255**2 / (mse * hole.mean())))
  assert record.values['l1_percent'] == pytest.approx(
    100 * np.abs(difference).mean() / 255 * hole.mean()
  )
  assert set(record.values) == {m.name for m in PROTOCOL.metrics}


def test_mean_and_standard_error():
  s = summarise([1.0, 2.0, 3.0, 4.0])
  assert s.mean == 2.5
  # sample variance 5/3 over 4 values
  assert s.standard_error == pytest.approx(math.sqrt(5 / 3 / 4))
  s = summarise([math.inf, 2.0, math.nan, 4.0])
  assert (s.mean, s.n, s.infinite, s.undefined) == (3, 2, 1, 1)
  assert math.isnan(summarise([1.0]).standard_error)
  assert math.isnan(summarise([math.inf]).mean)


def test_a_perfect_output_is_counted_as_infinite(photographs):
  truth = Photographs(photographs)
  everything = lambda image, mask, ids: np.stack([truth[i][0] for i in ids]) / np.float32(255)
  results = measured({'truth': everything}, truth, masks_of(), PROTOCOL, batch_size=4)
  s = results.summary('truth', BINS[0], 'psnr')
  assert (s.n, s.infinite) == (0, 5) and math.isnan(s.mean)
  assert results.summary('truth', BINS[0], 'hole_l1_percent').mean == 0
  found = files.to_json(results, (), {})['results'][0]
  assert (found['metric'], found['mean'], found['n'], found['infinite']) == ('psnr', None, 0, 5)
  assert '∞' in tables.terminal_table(results)


def test_masks_are_those_of_seed_bin_and_image(photographs):
  images = Photographs(photographs)
  hashes = [
    measured({'m': classical.mean_fill}, images, masks_of(seed=s), PROTOCOL).mask_sha256
    for s in (0, 0, 1)
  ]
  assert hashes[0] == hashes[1] != hashes[2]
  one, again = masks_of(), masks_of()
  # The order of the calls is of no consequence.
  late = [again[BINS[0]](i) for i in (4, 2, 0)][::-1]
  for i, mask in zip((0, 2, 4), late, strict=True):
    np.testing.assert_array_equal(one[BINS[0]](i), mask)
  assert not np.array_equal(one[BINS[0]](0), one[BINS[0]](1))


def test_an_unreadable_image_is_named_and_leaves_the_others_as_they_were(photographs):
  predictors = {'by id': by_id}
  whole = measured(predictors, Photographs(photographs), masks_of(), PROTOCOL, batch_size=2)
  part = measured(predictors, Photographs(photographs, (1, 4)), masks_of(), PROTOCOL, batch_size=2)
  assert part.skipped == [('photo1.jpg', 'truncated'), ('photo4.jpg', 'truncated')]
  assert part.count == 3
  assert numbers(part) == [n for n in numbers(whole) if n[2] not in (1, 4)]
  with pytest.raises(EvaluationError, match='none of the 5 images could be read'):
    measured(predictors, Photographs(photographs, range(5)), masks_of(), PROTOCOL)


def test_a_predictor_that_breaks_its_word_is_refused(photographs):
  images = Photographs(photographs)
  run = lambda predictor: measured({'bad': predictor}, images, masks_of(), PROTOCOL)
  with pytest.raises(EvaluationError, match="'bad' changed known pixels"):
    run(lambda image, mask, ids: image * 0.5)
  with pytest.raises(EvaluationError, match='NaN or infinity for the images'):
    run(lambda image, mask, ids: np.where(mask > 0, np.nan, image))
  with pytest.raises(EvaluationError, match='shape'):
    run(lambda image, mask, ids: image[:, 1:])
  with pytest.raises(EvaluationError, match='at least one predictor'):
    measured({}, images, masks_of(), PROTOCOL)
  with pytest.raises(EvaluationError, match="row 'bad' is a PosixPath: give a function of"):
    run(pathlib.Path('outputs'))


@pytest.mark.parametrize('name', classical.PREDICTORS)
def test_classical_fills_keep_known_pixels_and_fill_holes(name, photographs):
  image = np.stack([p[:48, :64] for p in photographs]).astype(np.float32) / 255
  mask = np.zeros((3, 48, 64, 1), np.float32)
  mask[:, 10:20, 30:50] = 1
  hidden = np.where(mask > 0, np.float32(0), image)
  output = classical.PREDICTORS[name](hidden, mask, np.arange(3, dtype=np.int32))
  assert output.dtype == np.float32
  np.testing.assert_array_equal(output[:, :10], image[:, :10])
  assert (output[:, 10:20, 30:50] > 0.02).all()
  # What is in the hole is of no consequence.
  other = classical.PREDICTORS[name](np.where(mask > 0, np.float32(1), image), mask, np.arange(3))
  np.testing.assert_array_equal(output, other)


def test_mean_fill_by_hand():
  image = np.zeros((1, 2, 2, 3), np.float32)
  image[0, 0] = 0.2
  image[0, 1, 0] = 0.8
  mask = np.zeros((1, 2, 2, 1), np.float32)
  mask[0, 1, 1] = 1
  np.testing.assert_allclose(classical.mean_fill(image, mask, None)[0, 1, 1], 0.4, atol=1e-7)


@pytest.fixture
def mask_folder(tmp_path):
  for k, share in enumerate((0.15, 0.15, 0.25, 0.35, 0.9)):
    mask = np.zeros((100, 100), np.uint8)
    mask[: round(100 * share)] = 255
    mask[:, ::7] = mask[:, 1::7]  # no band; keeps the share
    mask = np.roll(mask, 3 * k, axis=0)
    cv2.imwrite(str(tmp_path / f'm{k}.png'), mask)
  return tmp_path


def test_mask_files_are_binned_by_their_share(mask_folder):
  masks = sets.make(str(mask_folder), BINS, 100, 100)
  shares = {b: sorted({round(float(masks[b](i).mean()), 2) for i in range(4)}) for b in BINS}
  assert shares == {BINS[0]: [0.15], BINS[1]: [0.25, 0.35]}
  # Both files of a bin are handed out before one comes again, always in the same order.
  first, second, third = (masks[BINS[0]](i) for i in range(3))
  assert not np.array_equal(first, second) and np.array_equal(first, third)
  again = sets.make(f'folder:{mask_folder}', BINS, 100, 100)
  np.testing.assert_array_equal(first, again[BINS[0]](0))


def test_inverted_mask_files(mask_folder):
  bins = protocols.parse_bins(['5-14', '60-80'])
  masks = sets.make(str(mask_folder), bins, 100, 100, invert=True)
  assert masks[bins[0]](0).mean() == pytest.approx(0.1)
  with pytest.raises(ValueError, match=r'none has a hole of 5-14 % .* --invert_mask'):
    sets.make(str(mask_folder), bins[:1], 100, 100)
  with pytest.raises(ValueError, match='only mask files can be inverted'):
    sets.make('irregular', bins, 100, 100, invert=True)


@pytest.mark.parametrize(
  'spec',
  [
    'strokes:0.5-0.9',
    'center:0.25',
    'lama_thin_256',
    'mixture: 1*irregular:0.5-0.6 + 1*center',
  ],
)
def test_a_bin_takes_the_place_of_the_specifications_area(spec):
  b = BINS[0]
  masks = sets.make(spec, BINS, 64, 64)
  for i in range(5):
    assert b.holds(masks[b](i).mean())


def test_bins():
  assert [b.label for b in PROTOCOL.bins] == ['0-20', '10-20', '20-40', '40-60']
  b = BINS[0]
  assert not b.holds(0.1) and b.holds(0.1001) and b.holds(0.2) and not b.holds(0.2001)
  for bad in (['10'], ['20-10'], ['10-120'], ['a-b'], ['10-20', '10-20'], []):
    with pytest.raises(ValueError, match=r'bin'):
      protocols.parse_bins(bad)
  with pytest.raises(ValueError, match=r"unknown protocol 'seed9'.*seed000"):
    protocols.get('seed9')


def test_a_protocols_metrics_must_have_its_range():
  with pytest.raises(ValueError, match=r"data_range of \['psnr', .* must be 1"):
    dataclasses.replace(PROTOCOL, round_to_uint8=False)
