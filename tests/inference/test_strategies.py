"""Large pictures: which parts are planned, and what is made of them."""

import goldens
import jax.numpy as jnp
import numpy as np
import pytest
import toy_system

from jaxinpaint import arrays
from jaxinpaint.inference import strategies
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.inference.strategies import Strategy, Window
from jaxinpaint.predictor import Predictor

rng = np.random.default_rng(0)


def holes(height, width, *boxes):
  """bool[H,W] with these boxes of (top, left, height, width)."""
  hole = np.zeros((height, width), bool)
  for box in boxes:
    hole[Window(*box).slices] = True
  return hole


def check(plan, hole):
  """Each pixel of the hole is filled by parts whose weights sum to 1, no other one at all."""
  total = np.zeros(hole.shape)
  for part in plan.parts:
    weights = np.ones(part.own.shape) if part.weights is None else part.weights
    total[part.write.slices] += weights * part.own
    inside = part.write.within(part.read)
    assert inside.top >= 0 and inside.left >= 0
    assert inside.top + inside.height <= part.read.height
    assert inside.left + inside.width <= part.read.width
    read = hole[part.read.slices]
    assert read.shape == part.read[2:] and not read.all()
  np.testing.assert_allclose(total, hole, atol=1e-6)


def test_a_hole_gets_a_window_with_its_margin():
  hole = holes(2000, 3000, (500, 1000, 100, 60))
  plan = Strategy(crop_margin=110).plan(hole)
  # 100 + 2 * 110 and 60 + 2 * 110, rounded up to multiples of 64, around the middle (550, 1030).
  [part] = plan.parts
  assert part.read == (550 - 160, 1030 - 160, 320, 320) and plan.kind == 'crop'
  assert part.write == (500, 1000, 100, 60) and part.own.all() and part.weights is None
  assert plan.sentence == '3000 x 2000 pixels, completed in 1 window at full resolution'
  check(plan, hole)


def test_a_window_at_the_rim_is_shifted_into_the_picture():
  hole = holes(300, 1500, (0, 1490, 300 - 100, 10))
  [part] = Strategy(crop_margin=0).plan(hole).parts
  # The margin is half the hole's length: 400 rows, of which there are 300, and 256 columns.
  assert part.read == (0, 1500 - 256, 300, 256)
  check(Strategy().plan(hole), hole)


def test_holes_near_each_other_share_a_window_and_far_ones_do_not():
  near = holes(2000, 2000, (500, 500, 40, 40), (500, 640, 40, 40), (1500, 1500, 40, 40))
  plan = Strategy().plan(near)
  assert [part.write for part in plan.parts] == [(500, 500, 40, 180), (1500, 1500, 40, 40)]
  # Equal sizes, although the second would do with less: one program.
  assert {part.read[2:] for part in plan.parts} == {(320, 448)}
  check(plan, near)


def test_a_window_sees_the_hole_of_another_as_hole():
  hole = holes(1200, 1200, (100, 100, 200, 200), (100, 420, 200, 200))
  parts = strategies.Strategy('crop', max_side=500).plan(hole).parts
  assert len(parts) == 2  # their common window would be longer than 500
  assert all(hole[part.read.slices].sum() > part.own.sum() for part in parts)


def test_a_long_scratch_is_tiled_and_a_wide_hole_reduced():
  hole = holes(3000, 3000, *[(10 * i, 10 * i, 14, 14) for i in range(290)])
  plan = Strategy().plan(hole)
  assert plan.kind == 'tile' and 'tiles of 512 pixels along narrow holes' in plan.sentence
  assert {part.read[2:] for part in plan.parts} == {(512, 512)}
  check(plan, hole)
  wide = holes(3000, 6000, (1000, 1000, 900, 1200))
  plan = Strategy().plan(wide)
  [part] = plan.parts
  # A window of 2100 x 2400 pixels, rounded up; its hole of 900 x 1200 is to be 256 wide:
  # 2432 * 256 / 900 = 692, rounded up.
  assert plan.kind == 'crop' and part.read[2:] == (2112, 2432) and part.limit == 704
  assert plan.sentence == '6000 x 3000 pixels, completed in 1 window around wide holes, reduced'
  [part] = Strategy('crop').plan(wide).parts
  assert part.limit == 1024
  check(plan, wide)
  most = holes(3000, 3000, (500, 500, 2000, 2000))
  plan = Strategy().plan(most)
  assert (plan.kind, plan.limit, plan.parts) == ('resize', 1024, ())
  assert plan.sentence.endswith('reduced to 1024 pixels: a hole of 2000 x 2000 takes most of it')


def test_windows_that_fit_are_not_enlarged_beyond_the_limit():
  hole = holes(2000, 2000, (300, 300, 830, 20), (1700, 1700, 20, 20))
  parts = Strategy('crop').plan(hole).parts
  # 830 + 2 * 415 is longer than 1024, and does not take the other window with it.
  assert [part.read[2:] for part in parts] == [(1664, 896), (320, 320)]
  assert [part.limit for part in parts] == [1024, 1024]


def test_tiles_cover_all_of_a_hole_and_see_what_is_known():
  hole = holes(700, 900, (100, 100, 500, 600))
  plan = Strategy('tile', tile=128).plan(hole)
  check(plan, hole)
  assert all(part.limit == 128 for part in plan.parts)
  for part in plan.parts:
    assert hole[part.read.slices].mean() <= 0.5
  assert max(part.read.height for part in plan.parts) > 128  # the middle ones look farther


@pytest.mark.parametrize('length', [1, 63, 64, 65, 100, 127, 128, 129, 500, 1000])
def test_the_weights_of_tiles_sum_to_one(length):
  total = np.zeros(length)
  reached = 0
  for start, weights in strategies._axis(length, 64):
    assert start <= reached and (start == 0 or reached - start >= 16)
    assert (weights > 0).all()
    total[start : start + len(weights)] += weights
    reached = start + len(weights)
  assert reached == length
  np.testing.assert_allclose(total, 1, atol=1e-6)


def test_scattered_holes_are_planned_in_no_time():
  hole = np.zeros((3000, 3000), bool)
  hole[::100, ::100] = True
  plan = Strategy('crop').plan(hole)
  check(plan, hole)
  assert len(plan.parts) < 200


def test_pictures_that_auto_leaves_whole():
  hole = holes(1024, 700, (10, 10, 20, 20))
  assert Strategy().plan(hole).kind == 'original'
  hole = holes(1100, 700, (10, 10, 20, 20))
  assert Strategy().plan(hole).kind == 'crop'
  assert Strategy(max_side=512).plan(hole).limit == 512  # as before there were strategies
  assert Strategy('original').plan(hole).limit is None
  plan = Strategy(whole_picture=True).plan(hole)
  assert plan.limit == 1024 and plan.sentence.endswith('the network needs the whole picture')


@pytest.mark.parametrize('limit', [128, 384, 2048])
def test_no_part_is_longer_than_the_limit_that_holds_by_default(limit):
  hole = holes(2600, 2400, (100, 100, 60, 60), (900, 900, 8, 1300), (1500, 200, 300, 900))
  plan = Strategy(default_limit=limit).plan(hole)
  check(plan, hole)
  seen = [min(part.limit or max(part.read[2:]), max(part.read[2:])) for part in plan.parts]
  assert limit / 2 < max(seen) <= limit
  assert Strategy(default_limit=limit).plan(hole[:limit, :limit]).kind == 'original'


def test_the_default_limit_is_no_less_than_what_the_network_sees():
  assert toy_system.inpainter(default_limit=100).strategy.limit == 100
  one_size = Predictor(toy_system.inference(side=256), toy_system.variables())
  assert Inpainter(one_size, name='toy', default_limit=100).strategy.limit == 256
  assert toy_system.inpainter(default_limit=100, min_side=512).strategy.limit == 512
  with pytest.raises(InpaintError, match='default_limit 63 must be at least 64'):
    toy_system.inpainter(default_limit=63)


def test_windows_of_a_network_of_one_size_are_squares():
  hole = holes(2000, 2000, (500, 500, 40, 300))
  [part] = Strategy(side=512).plan(hole).parts
  assert part.read[2:] == (640, 640)  # 300 + 2 * 150 = 600, rounded up
  [part] = Strategy(side=1024).plan(hole).parts
  assert part.read[2:] == (1024, 1024)
  plan = Strategy('tile', side=256).plan(hole)
  assert {part.read[2:] for part in plan.parts} == {(256, 256)}


def local(variables, constants, image, mask, rng):
  """Fills each pixel with the mean of what is known within 2 pixels."""
  pad = ((0, 0), (2, 2), (2, 2), (0, 0))
  total = sum(
    jnp.roll(jnp.pad(x, pad), (i, j), (1, 2))[:, 2:-2, 2:-2]
    for x in [jnp.concatenate([image * (1 - mask), 1 - mask], -1)]
    for i in range(-2, 3)
    for j in range(-2, 3)
  )
  return total[..., :3] / jnp.maximum(total[..., 3:], 1)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('kind', ['crop', 'tile', 'auto'])
def test_parts_give_what_the_whole_gives_where_a_network_looks_no_farther(kind, dtype):
  image = rng.integers(0, 256, (1104, 1304, 3), np.uint8)
  image = image if dtype == np.uint8 else (image / 255).astype(dtype)
  scratch = [(8 * i, 9 * i, 5, 5) for i in range(137)]
  hole = holes(1104, 1304, (30, 900, 4, 4), (1100, 1300, 4, 4), *scratch)
  options = dict(strategy=kind, **(dict(max_side=4096) if kind == 'crop' else dict(tile=128)))
  got = toy_system.inpainter(local, **options)(image, hole)
  want = toy_system.inpainter(local, strategy='original')(image, hole)
  assert got[~hole].tobytes() == image[~hole].tobytes()
  one = 1 if dtype == np.uint8 else 1e-5  # blended values may round to the next level
  assert np.abs(got.astype(float) - want).max() <= one
  assert (want[hole] != image[hole]).any()


@pytest.mark.parametrize('kind', ['auto', 'crop', 'tile', 'resize'])
def test_the_network_sees_no_more_than_the_limit(kind):
  seen = []

  def predict(variables, constants, image, mask, rng):
    seen.append(image.shape[:3])
    return jnp.full_like(image, 128 / 255)

  image = np.full((2100, 3000, 3), 128, np.uint8)
  hole = holes(2100, 3000, (300, 300, 300, 300), (1200, 1500, 260, 280), (10, 2800, 1900, 8))
  painter = toy_system.inpainter(predict, strategy=kind)
  out = painter(image, hole)
  assert (out == 128).all()
  most = {'auto': 640 * 640, 'crop': 1024 * 1024, 'tile': 512 * 512, 'resize': 1024 * 1024}[kind]
  assert max(b * h * w for b, h, w in seen) <= most


def test_a_network_of_one_size_fills_windows():
  system = toy_system.inference(local, side=64)
  painter = Inpainter(Predictor(system, toy_system.variables()), name='toy', strategy='crop')
  image = np.full((600, 500, 3), 77, np.uint8)
  hole = holes(600, 500, (100, 100, 8, 8), (500, 400, 9, 9))
  assert (painter(image, hole) == 77).all()


@goldens.cases('migan_pipeline_bbox')
def test_the_window_around_all_holes_is_the_references(case):
  data = case.data()
  for (*size, top, bottom, left, right), want in zip(data['cases'], data['boxes'], strict=True):
    hole = holes(*size, (top, left, bottom - top, right - left))
    rows, columns = strategies.boxed(hole, 512, 128).slices
    assert [columns.start, columns.stop, rows.start, rows.stop] == list(want)


def test_a_network_of_one_size_fills_all_holes_in_one_window():
  seen = []

  def grey(variables, constants, image, mask, rng):
    seen.append(image.shape)
    return jnp.full_like(image, 0.25)

  system = toy_system.inference(grey, side=64)
  how = dict(name='toy', strategy='boxed', crop_margin=8)
  painter = Inpainter(Predictor(system, toy_system.variables()), **how)
  image = rng.integers(0, 256, (300, 250, 3), np.uint8)
  hole = holes(300, 250, (20, 50, 20, 30), (150, 100, 9, 9))
  out = painter(image, hole)
  assert (out[~hole] == image[~hole]).all()
  # Next to known pixels the completion is mixed with them, where it is enlarged again.
  np.testing.assert_allclose(out[25:35, 60:70], 64, atol=1)
  assert seen == [(1, 64, 64, 3)]
  plan = painter.strategy.plan(hole)
  check(plan, hole)
  words = 'completed in one window of 154 x 154 pixels around all holes, resized to 64 x 64'
  assert plan.sentence == words


def test_parts_that_cannot_be_filled_are_refused_and_others_are_filled():
  broken = lambda v, c, image, mask, rng: image / 0 * mask
  painter = toy_system.inpainter(broken, strategy='crop')
  hole = holes(300, 300, (100, 100, 8, 8))
  refused = {}
  items = [(0, 0, np.zeros((300, 300, 3), np.uint8), hole)]
  assert list(painter.stream(items, refused=refused.__setitem__)) == []
  assert 'not finite' in str(refused[0])


def test_parts_are_blended_as_wholes_are():
  image = np.full((300, 1200, 3), 0.5, np.float32)
  hole = holes(300, 1200, (100, 100, 40, 40), (200, 1000, 40, 40))
  white = lambda v, c, image, mask, rng: jnp.ones_like(image)
  out = toy_system.inpainter(white, blend='poisson')(image, hole)
  np.testing.assert_allclose(out, 0.5, atol=1 / 255)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'strategy': 'windows'}, "strategy 'windows' must be one of: auto, original, resize"),
    ({'crop_margin': -1}, 'crop_margin -1 must be at least 0'),
    ({'tile': 63}, 'tile 63 must be at least 64'),
    ({'strategy': 'crop', 'tile': 256}, 'tile means nothing to the strategy crop: .* auto or tile'),
    ({'strategy': 'tile', 'crop_margin': 9}, 'crop_margin means nothing to the strategy tile'),
    ({'max_side': 512, 'tile': 256}, 'the strategy resize, which max_side alone means: leave'),
    ({'strategy': 'boxed'}, 'boxed is for networks of one size, and this one takes any'),
    ({'strategy': 'original', 'max_side': 512}, 'max_side means nothing to the strategy original'),
    ({'strategy': 'tile', 'max_side': 512}, 'the strategy tile: leave it out, or choose resize or'),
  ],
)
def test_options_out_of_range_get_a_sentence(options, words):
  with pytest.raises(InpaintError, match=words):
    toy_system.inpainter(**options)


def test_a_network_of_one_size_has_tiles_of_it_alone():
  with pytest.raises(ValueError, match='this network takes 512 x 512 pixels alone'):
    Strategy('tile', tile=256, side=512)
  with pytest.raises(ValueError, match='max_side means nothing to the strategy boxed'):
    Strategy('boxed', max_side=512, side=512)
  assert Strategy('tile', side=32).tile_side == Strategy('auto', tile=32, side=32).tile_side == 32


def test_whole_pictures_are_completed_to_the_bit_as_without_strategies():
  image = rng.integers(0, 256, (200, 1024, 3), np.uint8)
  hole = holes(200, 1024, (20, 20, 60, 60), (100, 900, 5, 5))
  auto, original = (
    toy_system.inpainter(local, strategy=kind)(image, hole) for kind in ('auto', 'original')
  )
  assert (auto == original).all()
  assert (arrays.to_float(auto)[~hole] == arrays.to_float(image)[~hole]).all()
