import dataclasses
import logging
import pickle

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from jaxinpaint.masks import files, shapes
from jaxinpaint.masks import sampler as mask_sampler
from jaxinpaint.masks import spec as masks
from jaxinpaint.pictures.decode import UnreadableImage

DRAWN = (
  'strokes', 'deepfill_v2', 'free_form', 'irregular', 'rectangles', 'box', 'center', 'lama',
  'lama_small', 'lama_thin_256', 'lama_medium_256', 'lama_thick_256', 'lama_thin_512',
  'lama_medium_512', 'lama_thick_512', 'mixture: 0.5*strokes + 0.5*rectangles',
)  # fmt: skip


def draw(spec, seed=0, height=64, width=64):
  return masks.make(spec)(np.random.default_rng(seed), height, width)


@pytest.fixture
def folder(tmp_path):
  """Four mask files, two levels deep: left halves and top quarters, one of them broken."""
  (tmp_path / 'masks' / 'deep').mkdir(parents=True)
  left, top = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
  left[:, :30] = 255
  top[:10] = 255
  cv2.imwrite(str(tmp_path / 'masks' / 'b.png'), left)
  cv2.imwrite(str(tmp_path / 'masks' / 'deep' / 'a.png'), top)
  (tmp_path / 'masks' / 'notes.md').write_text('no mask')
  return tmp_path / 'masks'


@pytest.mark.parametrize('spec', DRAWN)
def test_a_mask_is_a_function_of_its_generator(spec):
  a, b, c = (draw(spec, seed, 48, 80) for seed in (1, 1, 2))
  assert a.dtype == np.uint8 and a.shape == (48, 80) and set(np.unique(a)) <= {0, 1}
  assert a.any()
  assert np.array_equal(a, b)
  if spec != 'center':
    assert not np.array_equal(a, c)
  sampler = masks.make(spec)
  assert pickle.loads(pickle.dumps(sampler)) == sampler


@pytest.mark.parametrize('spec', DRAWN)
@pytest.mark.parametrize('area', [(0.0, 0.1), (0.1, 0.2), (0.4, 0.6)])
def test_area_range_holds(spec, area):
  sampler = masks.make(spec)
  changes = {'area': area} | ({'share': None} if spec == 'center' else {})
  sampler = dataclasses.replace(sampler, **changes)
  for height, width in ((64, 64), (128, 128), (40, 96)):
    shares = [sampler(np.random.default_rng(seed), height, width).mean() for seed in range(15)]
    assert min(shares) > area[0] and max(shares) <= area[1]
    assert len(set(shares)) > 3


def test_area_range_that_no_draw_meets_is_reached_by_growing_and_shrinking():
  large = [draw('strokes:0.97-0.98', seed).mean() for seed in range(5)]
  small = [draw('irregular:0.001-0.003', seed).mean() for seed in range(5)]
  assert all(0.97 < s <= 0.98 for s in large) and all(0.001 < s <= 0.003 for s in small)
  with pytest.raises(ValueError, match=r'no mask of 16 x 16 pixels .* widen the area range'):
    draw('strokes:0.001-0.002', 0, 16, 16)


def test_grow_to_keeps_the_shape():
  disc = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 10, 1, -1)
  for count in (50, 900):
    got = mask_sampler.grow_to(disc, count)
    assert got.sum() == count
    y, x = np.nonzero(got)
    radius = np.hypot(y - 32, x - 32).max()
    assert abs(radius - np.sqrt(count / np.pi)) < 1.5  # still a disc about the same centre
  assert mask_sampler.grow_to(np.zeros((9, 9), np.uint8), 5)[4, 4] == 1
  rest = mask_sampler.grow_to(np.ones((9, 9), np.uint8), 49)
  assert np.array_equal(rest, np.pad(np.ones((7, 7), np.uint8), 1))


@pytest.mark.parametrize('share,side', [(0.1, 81), (0.15, 99), (0.2, 114), (0.25, 128)])
def test_center_by_area(share, side):
  mask = draw(f'center:{share}', height=256, width=256)
  first = (256 - side) // 2
  want = np.zeros((256, 256), np.uint8)
  want[first : first + side, first : first + side] = 1
  assert np.array_equal(mask, want)


def test_center_default_is_the_half_side_square():
  mask = draw('center', height=64, width=128)
  assert mask[16:48, 32:96].all() and mask.sum() == 32 * 64


def test_boxes_follow_deepfill_v1():
  tops, sides = set(), set()
  for seed in range(400):
    mask = draw('box', seed, 256, 256)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask.sum() == len(rows) * len(columns)  # one rectangle
    for line in (rows, columns):
      less, odd = divmod(128 - len(line), 2)
      assert odd == 0 and 0 <= less <= 16
      tops.add(int(line[0]) - less)
      sides.add(len(line))
  assert min(tops) >= 0 and max(tops) <= 127 and len(tops) > 100
  assert sides == set(range(96, 129, 2))
  with pytest.raises(ValueError, match=r'side 2\.0 of box masks'):
    masks.make('box;side=2')


def test_strokes_follow_deepfill_v2(monkeypatch):
  lines, original = [], ImageDraw.ImageDraw.line

  def record(self, xy, *args, **kwargs):
    lines.append((len(xy), kwargs['width']))
    return original(self, xy, *args, **kwargs)

  monkeypatch.setattr(ImageDraw.ImageDraw, 'line', record)
  counts, rng = [], np.random.default_rng(0)
  sampler = masks.make('strokes')
  for _ in range(200):
    before = len(lines)
    sampler(rng, 256, 256)
    counts.append(len(lines) - before)
  points, widths = zip(*lines, strict=True)
  assert set(counts) == {1, 2, 3}
  assert set(points) == set(range(5, 13))  # the start and 4 to 11 vertices
  assert (min(widths), max(widths)) == (12, 39)
  lines.clear()
  sampler(rng, 64, 64)
  assert all(3 <= w <= 10 for _, w in lines)


def test_deepfill_box_is_united():
  for seed in range(20):
    strokes = draw('strokes', seed, 256, 256)
    both = draw('deepfill_v2', seed, 256, 256)
    assert (both >= strokes).all()
    assert both.sum() >= (128 - 2 * 15) ** 2


def test_free_forms_follow_co_mod_gan(monkeypatch):
  """Counts of what is drawn and the rectangles' places, with strokes recorded instead of drawn."""
  counts, spans = [], []
  blank = lambda self, rng, height, width, count: (
    counts.append((self, count)) or np.zeros((height, width), np.uint8)
  )
  monkeypatch.setattr(shapes.Strokes, 'strokes', blank)
  reach = shapes._reaching_out
  recorded = lambda rng, n, limit: spans.append((limit, found := reach(rng, n, limit))) or found
  monkeypatch.setattr(shapes, '_reaching_out', recorded)
  rectangles = []
  for seed in range(600):
    spans.clear()
    mask = draw('free_form', seed, 64, 64)
    assert 0 < mask.mean() < 1  # no stroke: what has no rectangle is drawn again
    if len(counts) > len(rectangles):  # the last draw's
      rectangles.append([limit for limit, _ in spans])
    assert all(0 <= s.start and s.stop <= 64 and s.stop - s.start < limit for limit, s in spans)
  brush = counts[0][0]
  assert (brush.min_vertices, brush.max_vertices) == (4, 17)
  assert (brush.min_width, brush.max_width, brush.reference) == (12, 48, 512)
  assert {count for _, count in counts} == set(range(20))
  assert {limits.count(64) // 2 for limits in rectangles if limits} >= set(range(5))
  counts.clear()
  for seed in range(300):
    draw('free_form:0.2-0.4', seed, 64, 64)  # 0.6 of 20, and of 10 and 5 rectangles
  assert {count for _, count in counts} == set(range(12))
  counts.clear()
  for seed in range(100):
    draw('free_form;boxes=4;large_boxes=2;strokes=8', seed, 64, 64)
  assert {count for _, count in counts} == set(range(8))
  with pytest.raises(ValueError, match='at least 1'):
    masks.make('free_form;strokes=0')


def test_strokes_of_free_forms_are_mirrored_along_each_axis(monkeypatch):
  corner = np.zeros((16, 16), np.uint8)
  corner[0, 0] = 1
  monkeypatch.setattr(shapes.Strokes, 'strokes', lambda *arguments: corner)
  found = [draw('free_form;boxes=1;large_boxes=1', seed, 16, 16) for seed in range(80)]
  places = [tuple(np.argwhere(mask)[0]) for mask in found]
  counts = [places.count(p) for p in ((0, 0), (0, 15), (15, 0), (15, 15))]
  assert sum(counts) == 80 and min(counts) > 8


def test_irregular_follows_lama(monkeypatch):
  lines, original = [], cv2.line

  def record(mask, start, end, value, thickness):
    lines.append((start, end, thickness))
    return original(mask, start, end, value, thickness)

  monkeypatch.setattr(cv2, 'line', record)
  sampler = masks.make({'kind': 'irregular', 'max_len': 40, 'max_width': 10})
  chains, segments = [], []
  rng = np.random.default_rng(0)
  for _ in range(400):
    lines.clear()
    sampler(rng, 256, 256)
    starts = [
      i for i in range(len(lines)) if i == 0 or lines[i][0] != lines[i - 1][1]
    ]  # a chain's segments begin where the one before ended
    chains.append(len(starts))
    segments += list(np.diff([*starts, len(lines)]))
    for start, end, thickness in lines:
      assert 5 <= thickness <= 14
      assert np.hypot(end[0] - start[0], end[1] - start[1]) < 50 + 1.5
  assert set(chains) == set(range(1, 7)) and set(segments) == set(range(1, 6))


def test_rectangles_follow_lama():
  sampler = masks.make({'kind': 'rectangles', 'min_times': 1, 'max_times': 1})
  sides = []
  for seed in range(500):
    mask = sampler(np.random.default_rng(seed), 256, 256)
    rows, columns = mask.any(1), mask.any(0)
    assert mask.sum() == rows.sum() * columns.sum()
    assert not (rows[:10].any() or rows[-10:].any() or columns[:10].any() or columns[-10:].any())
    sides += [rows.sum(), columns.sum()]
  assert min(sides) == 30 and max(sides) == 150
  wide = masks.make({'kind': 'rectangles', 'max_side': 400, 'max_times': 1})
  assert max(wide(np.random.default_rng(s), 256, 256).any(1).sum() for s in range(2000)) == 235


@pytest.mark.parametrize(
  'name,lines,boxes,reference',
  [
    ('lama_thin_256', (40, 10, 4, 50), None, 256),
    ('lama_thin_512', (100, 20, 4, 70), None, 512),
    ('lama_medium_256', (100, 50, 4, 5), (0, 10, 50, 1, 5), 256),
    ('lama_medium_512', (200, 100, 4, 10), (0, 30, 150, 1, 5), 512),
    ('lama_thick_256', (200, 100, 1, 5), (10, 30, 150, 1, 3), 256),
    ('lama_thick_512', (450, 250, 1, 5), (10, 30, 300, 1, 4), 512),
  ],
)
def test_lama_test_sets(name, lines, boxes, reference):
  sampler = masks.make(name)
  assert sampler.name == name and sampler.area == (0.0, 0.5)
  weight, irregular = sampler.of[0]
  assert weight == 1 and irregular.reference == reference
  got = (irregular.max_len, irregular.max_width, irregular.min_times, irregular.max_times)
  assert got == lines
  if boxes is None:
    assert len(sampler.of) == 1
  else:
    weight, box = sampler.of[1]
    assert weight == 0.3 and box.reference == reference
    assert (box.margin, box.min_side, box.max_side, box.min_times, box.max_times) == boxes
  # The same share of the image at any size.
  at = [np.mean([draw(name, s, n, n).mean() for s in range(150)]) for n in (64, reference)]
  assert abs(at[0] - at[1]) < 0.06


def test_mixture_draws_by_weight():
  sampler = masks.make('mixture: 3*center:0.25 + 1*center:0.04')
  rng = np.random.default_rng(0)
  large = np.mean([sampler(rng, 64, 64).mean() > 0.2 for _ in range(1000)])
  assert abs(large - 0.75) < 0.05
  never = masks.make({'kind': 'mixture', 'of': [(0, 'strokes'), (2, 'center:0.25')]})
  assert all(never(rng, 64, 64).mean() == 0.25 for _ in range(20))


def test_specifications_as_mappings_and_strings_agree():
  a = masks.make('irregular:0.1-0.4;max_width=40')
  b = masks.make(ConfigDict({'kind': 'irregular', 'area': (0.1, 0.4), 'max_width': 40}))
  assert a == b and a.name == 'irregular:0.1-0.4' and masks.make(a) is a
  c = masks.make(
    ConfigDict({'kind': 'mixture', 'of': [(0.7, 'strokes'), (0.3, {'kind': 'center'})]})
  )
  assert [p.name for _, p in c.of] == ['strokes', 'center:0.25']
  assert masks.make('deepfill_v2').box and masks.make('strokes;box=true').box


@pytest.mark.parametrize(
  'spec,message',
  [
    ('scribble', 'unknown masks .scribble.; there are: strokes'),
    ('strokes:10-40', r'percent\? divide by 100'),
    ('strokes:0.4-0.1', 'low < high'),
    ('strokes:a-b', 'two numbers'),
    ('strokes:0.3', 'range of hole shares'),
    ('strokes;width=3', 'no option width; they have: area'),
    ('irregular;max_width=wide', 'must be of type int'),
    ('irregular;max_width=2.5', 'must be of type int'),
    ('irregular;min_times=9', 'min_times 9 and max_times 5'),
    ('center:1.5', r'in \(0, 1\]'),
    ('mixture:', 'needs parts'),
    ('mixture: strokes + center', 'weight.masks'),
    ('mixture: 0*strokes + 0*center', 'not all 0'),
    ({'area': (0, 1)}, "lacks 'kind'"),
    (3, 'must be a string or a mapping'),
    ('folder:', 'need a path'),
  ],
)
def test_wrong_specifications_say_what_is_wrong(spec, message):
  with pytest.raises(ValueError, match=message):
    masks.make(spec)


def test_folder(folder, tmp_path):
  sampler = masks.make(f'folder:{folder}')
  assert [p.rsplit('/', 1)[1] for p in sampler.paths] == ['b.png', 'a.png']
  shares = {sampler(np.random.default_rng(s), 16, 24).mean() for s in range(20)}
  assert shares == {0.5, 0.25}
  only = masks.make(f'folder:{folder};area=0.2-0.3')
  assert {only(np.random.default_rng(s), 16, 24).mean() for s in range(10)} == {0.25}
  flipped = masks.make(f'folder:{folder};flip=true')
  tops = {flipped(np.random.default_rng(s), 16, 24)[0].mean() for s in range(40)}
  assert {0.0, 0.5, 1.0} == tops
  drawn = [flipped(np.random.default_rng(s), 16, 24) for s in range(40)]
  assert {m[:, 0].mean() for m in drawn if m.mean() == 0.5} == {0.0, 1.0}
  assert masks.make(f'folder:{folder};invert=1').read(1, 16, 24).mean() == 0.75
  (tmp_path / 'list.txt').write_text('# two\nmasks/b.png\n\nmasks/deep/a.png\n')
  assert len(masks.make(f'files:{tmp_path}/list.txt').paths) == 2
  assert len(masks.make(str(folder)).paths) == 2


def test_folder_with_a_broken_file(folder, caplog):
  (folder / 'c.png').write_bytes(b'\x89PNG not really')
  sampler = masks.make(f'folder:{folder}')
  with caplog.at_level(logging.WARNING):
    for seed in range(10):
      assert sampler(np.random.default_rng(seed), 8, 12).any()
  assert 'c.png' in caplog.text
  for path in sampler.paths:
    open(path, 'wb').close()
  with pytest.raises(ValueError, match='no mask could be read'):
    sampler(np.random.default_rng(0), 8, 8)


def test_wrong_folders(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no folder .*/absent/deeper .*exists up to'):
    masks.make(f'folder:{tmp_path}/absent/deeper')
  with pytest.raises(ValueError, match=r'holds no file ending in .jpg'):
    masks.make(f'folder:{tmp_path}')
  (tmp_path / 'list.txt').write_text('nothing.png\n')
  with pytest.raises(FileNotFoundError, match=r'1 of 1 files in the list .* do not exist'):
    masks.make(f'files:{tmp_path}/list.txt')


def save(path, array):
  Image.fromarray(array).save(path)
  return path


def test_read_mask_thresholds_after_nearest_resizing(tmp_path):
  grey = np.array([[0, 127], [128, 255]], np.uint8)
  path = save(tmp_path / 'm.png', grey)
  quiet = []
  assert masks.read_mask(path, warn=quiet.append).tolist() == [[0, 0], [1, 1]]
  assert masks.read_mask(path, 4, 6, warn=None)[:, 0].tolist() == [0, 0, 1, 1]
  assert masks.read_mask(path, invert=True, warn=None).tolist() == [[1, 1], [0, 0]]
  # Nearest by floor, so that a thin line is kept or lost but never turned grey.
  stripe = np.zeros((64, 64), np.uint8)
  stripe[:, ::2] = 255
  assert masks.read_mask(save(tmp_path / 's.png', stripe), 64, 32, warn=None).all()


@pytest.mark.parametrize(
  'kind', ['uint8', 'uint16', 'int32', 'float32', 'rgb', 'rgb16', 'grey alpha', 'palette', 'bits']
)
@pytest.mark.parametrize('top', [1, 100])
def test_of_two_values_with_0_the_other_one_is_the_hole(tmp_path, kind, top):
  hole = np.zeros((12, 16), bool)
  hole[3:9, 5:12] = True
  values = hole.astype(np.uint8) * np.uint8(top)
  path = tmp_path / ('m.tif' if kind in ('int32', 'float32') else 'm.png')
  if kind == 'rgb16':
    cv2.imwrite(str(path), np.dstack([values] * 3).astype(np.uint16))
  elif kind == 'rgb':  # of one colour
    Image.fromarray(np.dstack([values, 0 * values, 0 * values])).save(path)
  elif kind == 'grey alpha':
    Image.fromarray(np.dstack([values, np.full_like(values, 255)]), 'LA').save(path)
  elif kind == 'palette':
    image = Image.fromarray(hole.astype(np.uint8), 'P')
    image.putpalette([0, 0, 0, top, top, top])
    image.save(path)
  elif kind == 'bits':
    Image.fromarray(hole).save(path)
  else:
    scale = 1 / 255 if kind == 'float32' else 1
    Image.fromarray((values * scale).astype(kind)).save(path)
  quiet = []
  assert np.array_equal(masks.read_mask(path, warn=quiet.append), hole) and not quiet
  assert np.array_equal(masks.read_mask(path, invert=True, warn=None), ~hole)
  drawn = files.FileMasks(path=str(tmp_path)).draw(np.random.default_rng(0), 12, 16)
  assert np.array_equal(drawn, hole)


def test_one_value_or_three_are_cut_at_127(tmp_path):
  for value in (0, 1, 255):
    path = save(tmp_path / 'm.png', np.full((8, 8), value, np.uint8))
    assert (masks.read_mask(path, warn=None) == (value == 255)).all()
  path = save(tmp_path / 'm.png', np.array([[0, 1, 128]], np.uint8))
  assert masks.read_mask(path, warn=None).tolist() == [[0, 0, 1]]


def test_read_mask_warnings(tmp_path):
  def said(array, invert=False):
    found = []
    words = files.Inverting('turn it over', 'leave it as it is')
    how = dict(invert=invert, inverting=words)
    masks.read_mask(save(tmp_path / 'm.png', array), warn=found.append, **how)
    return ' '.join(found)

  square = np.zeros((64, 64), np.uint8)
  square[20:40, 20:40] = 255
  assert said(square) == ''
  assert said(255 - square).endswith('if white marks what is to be kept, turn it over')
  assert said(255 - square, invert=True) == ''
  assert said(square, invert=True).endswith('if black marks what is to be kept, leave it as it is')
  assert said(square * 0).endswith('or turn it over if the hole is black')
  assert 'is full' in said(square * 0 + 255) and 'turn it over' in said(square * 0 + 255)
  assert 'is grey and was cut at 127' in said(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
  alpha = np.zeros((64, 64, 4), np.uint8)
  alpha[..., 3] = square
  assert 'alpha channel' in said(alpha)


def test_read_mask_logs_the_hole_share(tmp_path, caplog):
  square = np.zeros((64, 64), np.uint8)
  square[:16, :16] = 255
  with caplog.at_level(logging.INFO):
    masks.read_mask(save(tmp_path / 'm.png', square), 128, 128)
  assert 'the hole is 6.2 % of 128 x 128' in caplog.text.replace('6.3', '6.2')


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'I;16', 'CMYK'])
def test_read_mask_of_any_mode(tmp_path, mode):
  square = np.zeros((32, 32), np.uint8)
  square[:8] = 255
  image = Image.fromarray(square)
  if mode == 'I;16':
    image = Image.fromarray(square.astype(np.uint16) * 257)
  else:
    image = image.convert('RGB').convert(mode) if mode == 'CMYK' else image.convert(mode)
  path = tmp_path / ('m.tif' if mode == 'CMYK' else 'm.png')
  image.save(path)
  assert np.array_equal(masks.read_mask(path, warn=None), (square > 127).astype(np.uint8))


def test_read_mask_of_a_broken_file(tmp_path):
  (tmp_path / 'm.png').write_bytes(b'not an image')
  with pytest.raises(UnreadableImage, match=r'm.png: not a readable image'):
    masks.read_mask(tmp_path / 'm.png')
  with pytest.raises(UnreadableImage, match='No such file'):
    masks.read_mask(tmp_path / 'absent.png')


def test_mask_set_hash():
  a = [draw('strokes', seed) for seed in range(3)]
  want = masks.mask_set_hash(a)
  assert want == masks.mask_set_hash([m.astype(np.float32)[..., None] for m in a])
  changed = [m.copy() for m in a]
  changed[2][0, 0] ^= 1
  assert masks.mask_set_hash(changed) != want
  assert masks.mask_set_hash(a[::-1]) != want and masks.mask_set_hash(a[:2]) != want
  flat = np.zeros((4, 16), np.uint8)
  assert masks.mask_set_hash([flat]) != masks.mask_set_hash([flat.reshape(8, 8)])


def test_squares_of_a_fixed_set():
  spec = 'rectangles;square=True;margin=0;min_side=64;max_side=96;min_times=1;max_times=1;fixed=3'
  sampler = masks.make(spec)
  drawn = {sampler(np.random.default_rng(i), 128, 192).tobytes() for i in range(40)}
  assert len(drawn) == 3
  for data in drawn:
    rows, columns = np.nonzero(np.frombuffer(data, np.uint8).reshape(128, 192))
    sides = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert sides[0] == sides[1] and 32 <= sides[0] <= 48
